//! Between bytes and records: encodings, lines, and records of several lines.
//!
//! A record is the bytes up to the line feed that ends it, whatever the encoding: nothing is converted, and nothing else is taken away,
//! neither a carriage return nor the byte order mark before the first record. Only who looks into a record (patterns, times) sees its text,
//! without that mark. In UTF-16 a line feed is the code unit, at an even place of the file.
//!
//! With a start pattern a record is a line in which it is found and the lines behind, as they stand, up to the next such line. It is
//! complete when that one is; or when nothing came for the timeout; or before it would be longer than a record may be. Then what follows is a
//! record of its own that says that it continues another. As long as it is open the position stays at its beginning, so that neither a
//! restart nor a rotation tears it.

use std::{fs::File, io, os::unix::fs::FileExt, time::Duration};

use memchr::memchr_iter;
use regex::bytes::Regex;

/// `encoding` of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encodings {
    All(Encoding),
    /// By the byte order mark of each file; UTF-8 without one.
    Auto,
}

/// How the text of a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Or any other in which a line feed is one byte and nothing else.
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// `multiline` of a source, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Multiline {
    /// Regular expression; found in the first line of each record.
    pub(crate) start: String,
    /// The last record is complete when its file has not grown for so long.
    pub(crate) timeout: Duration,
}

/// Where a record ends, and where the next begins.
pub(super) type End = (usize, usize);

impl Encodings {
    /// The encoding of one file; `None`: too short to tell.
    pub(super) fn of(self, file: &File) -> io::Result<Option<Encoding>> {
        if let Encodings::All(encoding) = self {
            return Ok(Some(encoding));
        }
        let mut mark = [0; 2];
        match file.read_exact_at(&mut mark, 0) {
            Ok(()) => Ok(Some(match mark {
                [0xff, 0xfe] => Encoding::Utf16Le,
                [0xfe, 0xff] => Encoding::Utf16Be,
                _ => Encoding::Utf8,
            })),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Encoding {
    /// The value of `log.file.encoding`; `None` for the usual one.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Encoding::Utf8 => None,
            Encoding::Utf16Le => Some("utf-16le"),
            Encoding::Utf16Be => Some("utf-16be"),
        }
    }

    /// Bytes that cannot be taken apart.
    pub(super) fn unit(self) -> usize {
        match self {
            Encoding::Utf8 => 1,
            Encoding::Utf16Le | Encoding::Utf16Be => 2,
        }
    }

    /// So much of `len` bytes as are whole units.
    pub(super) fn whole(self, len: usize) -> usize {
        len - len % self.unit()
    }

    /// The byte order mark that `bytes`, the beginning of a file, begins with.
    pub(super) fn mark(self, bytes: &[u8]) -> usize {
        let mark: &[u8] = match self {
            Encoding::Utf8 => b"\xef\xbb\xbf",
            Encoding::Utf16Le => b"\xff\xfe",
            Encoding::Utf16Be => b"\xfe\xff",
        };
        if bytes.starts_with(mark) {
            mark.len()
        } else {
            0
        }
    }

    /// Puts the text of a record in UTF-16 into `text`; what is no text in it becomes U+FFFD there.
    pub(super) fn decode(self, record: &[u8], text: &mut String) {
        let unit = |pair: &[u8; 2]| match self {
            Encoding::Utf16Be => u16::from_be_bytes(*pair),
            Encoding::Utf8 | Encoding::Utf16Le => u16::from_le_bytes(*pair),
        };
        text.clear();
        let (pairs, _) = record.as_chunks::<2>();
        let units = pairs.iter().map(unit);
        text.extend(
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)),
        );
    }

    /// Puts `text` as UTF-16 behind what is in `out`.
    pub(super) fn encode(self, text: &str, out: &mut Vec<u8>) {
        for unit in text.encode_utf16() {
            out.extend_from_slice(&match self {
                Encoding::Utf16Be => unit.to_be_bytes(),
                Encoding::Utf8 | Encoding::Utf16Le => unit.to_le_bytes(),
            });
        }
    }
}

/// How one file is taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing<'a> {
    pub(super) encoding: Encoding,
    pub(super) start: Option<&'a Regex>,
    pub(super) max_record: usize,
}

impl Framing<'_> {
    /// The end of the line that goes on at `from`; `block` begins at `base` of its file. `None`: not in this block.
    #[inline]
    pub(super) fn line(&self, block: &[u8], base: u64, from: usize) -> Option<End> {
        if self.encoding == Encoding::Utf8 {
            let feed = from + memchr::memchr(b'\n', &block[from..])?;
            return Some((feed, feed + 1));
        }
        self.wide_line(block, base, from)
    }

    fn wide_line(&self, block: &[u8], base: u64, from: usize) -> Option<End> {
        // The byte that is not 0 is the first of the pair, or the second.
        let before = usize::from(self.encoding == Encoding::Utf16Be);
        memchr_iter(b'\n', &block[from..]).find_map(|at| {
            let first = (from + at).checked_sub(before)?;
            let other = block.get(first + 1 - before)?;
            let even = (base + first as u64).is_multiple_of(2);
            (*other == 0 && even && first >= from).then_some((first, first + 2))
        })
    }

    /// The end of the record that begins at `from`, likewise.
    #[inline]
    pub(super) fn record(&self, block: &[u8], base: u64, from: usize) -> Option<End> {
        let first = self.line(block, base, from)?;
        if self.start.is_none() {
            return Some(first);
        }
        let (mut end, mut next) = first;
        while let Some((line_end, line_next)) = self.line(block, base, next) {
            if line_end - from > self.max_record || self.is_start(&block[next..line_end]) {
                return Some((end, next));
            }
            (end, next) = (line_end, line_next);
        }
        // What is left is a line that is not complete: it makes no difference once the record would be too long with it.
        (block.len() - from > self.max_record).then_some((end, next))
    }

    /// Whether a record begins with this line; always, where every line is one.
    pub(super) fn is_start(&self, line: &[u8]) -> bool {
        let Some(start) = self.start else {
            return true;
        };
        if self.encoding == Encoding::Utf8 {
            return start.is_match(line);
        }
        let mut text = String::new();
        self.encoding.decode(line, &mut text);
        start.is_match(text.as_bytes())
    }

    /// Whether a record, at `base` of its file, does not begin as one does.
    pub(super) fn continues(&self, record: &[u8], base: u64) -> bool {
        if self.start.is_none() {
            return false;
        }
        let from = if base == 0 {
            self.encoding.mark(record)
        } else {
            0
        };
        let end = self
            .line(record, base, 0)
            .map_or(record.len(), |(end, _)| end);
        !self.is_start(&record[from..end])
    }

    /// Where the last line of an open record begins that is not complete; the end where there is none.
    pub(super) fn last_line(&self, rest: &[u8], base: u64) -> usize {
        let mut last = 0;
        while let Some((_, next)) = self.line(rest, base, last) {
            last = next;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(encoding: Encoding, block: &[u8], base: u64) -> Vec<&[u8]> {
        let framing = Framing {
            encoding,
            start: None,
            max_record: 100,
        };
        let (mut lines, mut from) = (Vec::new(), 0);
        while let Some((end, next)) = framing.line(block, base, from) {
            lines.push(&block[from..end]);
            from = next;
        }
        lines
    }

    #[test]
    fn a_line_feed_in_utf_16_is_a_unit_at_an_even_place() {
        // U+0A00 and U+000A, and the two bytes of a line feed across two other units (U+xx0A, U+00xx).
        let le = b"a\0\x00\x0a\n\0\x41\x0a\x00\x42\n\0";
        let expected: [&[u8]; 2] = [b"a\0\x00\x0a", b"\x41\x0a\x00\x42"];
        assert_eq!(lines(Encoding::Utf16Le, le, 0), expected);
        assert_eq!(
            lines(Encoding::Utf16Le, &le[2..], 2),
            [&expected[0][2..], expected[1]]
        );
        let be = b"\0a\x0a\x00\0\n\x41\x00\x0a\x42\0\n";
        let expected: [&[u8]; 2] = [b"\0a\x0a\x00", b"\x41\x00\x0a\x42"];
        assert_eq!(lines(Encoding::Utf16Be, be, 0), expected);
        assert_eq!(
            lines(Encoding::Utf16Le, b"\n", 0),
            [] as [&[u8]; 0],
            "half a unit"
        );
        assert_eq!(lines(Encoding::Utf16Be, b"\n\0\n", 1), [b"\n"]);
    }

    #[test]
    fn what_is_decoded_is_encoded_to_the_same_bytes() {
        let text = "passwörd \u{1f600}\r";
        for encoding in [Encoding::Utf16Le, Encoding::Utf16Be] {
            let (mut bytes, mut again) = (Vec::new(), String::new());
            encoding.encode(text, &mut bytes);
            encoding.decode(&bytes, &mut again);
            assert_eq!(again, text);
        }
        let mut text = String::new();
        Encoding::Utf16Le.decode(b"\x00\xd8a\0", &mut text);
        assert_eq!(text, "\u{fffd}a", "half a surrogate pair");
    }
}
