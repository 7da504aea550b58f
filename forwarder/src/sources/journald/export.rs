//! The journal export format, as `journalctl --output=export` writes it, taken apart a piece at a time.
//!
//! ```text
//! entry = field+ "\n"
//! field = NAME "=" text "\n"                                       text has no line feed
//!       | NAME "\n" length:u64 little endian, bytes "\n"           anything else
//! ```
//!
//! The first field of each entry is `__CURSOR`. An entry is kept as the bytes it came as, up to the limit that the parser was made with; what
//! is beyond is counted. What is not this format is an error: there is no place in such a stream at which one could begin anew without
//! taking what a program wrote into a field for an entry.
//!
//! Memory: one entry up to the limit. This file stands alone, so that a fuzz target can take it in.

use std::fmt;

use memchr::memchr;

/// No field is larger: journald's own limit for one field.
const MAX_FIELD_BYTES: u64 = 768 << 20;
/// A field's name: journald's own limit, with room.
const MAX_NAME_BYTES: usize = 256;
/// A cursor is about 150 bytes long.
pub(crate) const MAX_CURSOR_BYTES: usize = 512;

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its fields as they came, without the empty line behind them.
    pub(crate) bytes: Vec<u8>,
    /// Bytes that were left out behind these.
    pub(crate) beyond: u64,
}

/// The stream is not the export format. What came before is sound; of what comes nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormatError {
    /// An entry does not begin with a cursor of sensible length.
    NoCursor,
    /// A line is neither a field nor a name.
    NotAField,
    /// A field says that it is longer than fields can be.
    TooLong(u64),
    /// A field does not end where it says.
    NoEnd,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::NoCursor => f.write_str("an entry does not begin with a cursor"),
            FormatError::NotAField => f.write_str("a line is neither a field nor a field's name"),
            FormatError::TooLong(bytes) => write!(f, "a field says that it is {bytes} bytes long"),
            FormatError::NoEnd => f.write_str("a field does not end where it says"),
        }
    }
}

impl std::error::Error for FormatError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, or within one of which `name` bytes came and no `=`.
    Name { name: usize },
    /// Within the text of a field.
    Text,
    /// Within the length of a field: so many bytes of it came, and their value.
    Length { came: u32, value: u64 },
    /// Within the bytes of a field; so many are still to come, then the line feed.
    Bytes { left: u64 },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Parser {
    max_entry: usize,
    entry: Vec<u8>,
    beyond: u64,
    state: State,
}

impl Parser {
    /// `max_entry`: bytes of one entry that are kept, at least 1024.
    pub(crate) fn new(max_entry: usize) -> Parser {
        Parser {
            max_entry: max_entry.max(1024),
            entry: Vec::new(),
            beyond: 0,
            state: State::Name { name: 0 },
        }
    }

    /// Takes from `input` up to the end of one entry. `None`: all of it was taken, and the entry goes on behind.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Entry>, FormatError> {
        while !input.is_empty() {
            let taken = match self.state {
                State::Name { name } => {
                    let most = input.len().min(MAX_NAME_BYTES + 1);
                    let stop = input[..most].iter().position(|&b| b == b'=' || b == b'\n');
                    let part = &input[..stop.unwrap_or(most)];
                    let name = name + part.len();
                    if name > MAX_NAME_BYTES || !part.iter().all(|&b| is_name_byte(b)) {
                        return Err(FormatError::NotAField);
                    }
                    match stop.map(|at| input[at]) {
                        None => {
                            self.state = State::Name { name };
                            part.len()
                        }
                        Some(b'\n') if name == 0 => {
                            *input = &input[1..];
                            if let Some(entry) = self.end()? {
                                return Ok(Some(entry));
                            }
                            continue;
                        }
                        Some(_) if name == 0 => return Err(FormatError::NotAField),
                        Some(b'=') => {
                            self.state = State::Text;
                            part.len() + 1
                        }
                        Some(_) => {
                            self.state = State::Length { came: 0, value: 0 };
                            part.len() + 1
                        }
                    }
                }
                State::Text => match memchr(b'\n', input) {
                    None => input.len(),
                    Some(feed) => {
                        self.state = State::Name { name: 0 };
                        feed + 1
                    }
                },
                State::Length { came, value } => {
                    let value = value | u64::from(input[0]) << (8 * came);
                    self.state = if came < 7 {
                        State::Length {
                            came: came + 1,
                            value,
                        }
                    } else if value <= MAX_FIELD_BYTES {
                        State::Bytes { left: value }
                    } else {
                        return Err(FormatError::TooLong(value));
                    };
                    1
                }
                State::Bytes { left: 0 } => {
                    if input[0] != b'\n' {
                        return Err(FormatError::NoEnd);
                    }
                    self.state = State::Name { name: 0 };
                    1
                }
                State::Bytes { left } => {
                    let taken =
                        usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    self.state = State::Bytes {
                        left: left - taken as u64,
                    };
                    taken
                }
            };
            let kept = taken.min(self.max_entry - self.entry.len());
            self.entry.extend_from_slice(&input[..kept]);
            self.beyond += (taken - kept) as u64;
            *input = &input[taken..];
        }
        Ok(None)
    }

    /// The entry is complete; empty lines before the first one are none.
    fn end(&mut self) -> Result<Option<Entry>, FormatError> {
        if self.entry.is_empty() {
            return Ok(None);
        }
        if cursor(&self.entry).is_none() {
            return Err(FormatError::NoCursor);
        }
        Ok(Some(Entry {
            bytes: std::mem::take(&mut self.entry),
            beyond: std::mem::take(&mut self.beyond),
        }))
    }
}

/// More than journald lets in today, so that no old entry can be the end of its journal; but no blank, as a message to people has.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// The cursor of an entry.
pub(crate) fn cursor(entry: &[u8]) -> Option<&str> {
    let rest = entry.strip_prefix(b"__CURSOR=")?;
    let feed = memchr(b'\n', &rest[..rest.len().min(MAX_CURSOR_BYTES + 1)])?;
    str::from_utf8(&rest[..feed])
        .ok()
        .filter(|cursor| !cursor.is_empty())
}

/// The fields of an entry, names and values, in their order; one that was cut at the entry's end is left out. A name may come more than once.
pub(crate) fn fields(entry: &[u8]) -> Fields<'_> {
    Fields { rest: entry }
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let feed = memchr(b'\n', self.rest)?;
        let (line, behind) = (&self.rest[..feed], &self.rest[feed + 1..]);
        let (name, value) = match memchr(b'=', line) {
            Some(at) => {
                self.rest = behind;
                (&line[..at], &line[at + 1..])
            }
            None => {
                let (length, data) = behind.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
                let (value, end) = data.split_at_checked(length)?;
                self.rest = end.strip_prefix(b"\n")?;
                (line, value)
            }
        };
        Some((str::from_utf8(name).ok()?, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"=", value, b"\n"].concat()
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u64).to_le_bytes();
        [name.as_bytes(), b"\n", &length, value, b"\n"].concat()
    }

    /// All entries of `stream`, given to the parser in pieces of `piece` bytes.
    fn parse(stream: &[u8], piece: usize, max: usize) -> Result<Vec<Entry>, FormatError> {
        let mut parser = Parser::new(max);
        let mut entries = Vec::new();
        for mut input in stream.chunks(piece) {
            while let Some(entry) = parser.next(&mut input)? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    #[test]
    fn an_entry_is_kept_as_the_bytes_it_came_as_however_they_are_cut() {
        let one = [
            text("__CURSOR", b"s=1;i=2"),
            binary("MESSAGE", b"two\n\n__CURSOR=forged\n\nlines \xff\0"),
            text("EMPTY", b""),
            binary("NONE", b""),
            text("A", b"b=c"),
        ]
        .concat();
        let two = [text("__CURSOR", b"s=1;i=3"), text("MESSAGE", b"x")].concat();
        let stream = [b"\n", &one[..], b"\n", &two, b"\n"].concat();
        for piece in 1..=stream.len() {
            let entries = parse(&stream, piece, 1024).unwrap();
            let bytes: Vec<&[u8]> = entries.iter().map(|entry| &entry.bytes[..]).collect();
            assert_eq!(bytes, [&one[..], &two], "in pieces of {piece}");
            assert!(entries.iter().all(|entry| entry.beyond == 0));
        }
        assert_eq!(cursor(&one), Some("s=1;i=2"));
        let names: Vec<&str> = fields(&one).map(|(name, _)| name).collect();
        assert_eq!(names, ["__CURSOR", "MESSAGE", "EMPTY", "NONE", "A"]);
        assert_eq!(fields(&one).last().unwrap().1, b"b=c");
    }

    #[test]
    fn an_entry_that_is_not_complete_is_none() {
        let stream = [text("__CURSOR", b"s=1"), binary("M", b"x")].concat();
        for end in 0..=stream.len() {
            assert_eq!(
                parse(&stream[..end], 7, 1024),
                Ok(Vec::new()),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_what_follows_is_exact() {
        let long = vec![b'x'; 5000];
        let next = text("__CURSOR", b"s=2");
        for field in [text("LONG", &long), binary("LONG", &long)] {
            let one = [text("__CURSOR", b"s=1"), field, text("B", b"c")].concat();
            let stream = [&one[..], b"\n", &next, b"\n"].concat();
            for piece in [1, 999, 1024, stream.len()] {
                let entries = parse(&stream, piece, 2000).unwrap();
                assert_eq!(entries[0].bytes, one[..2000]);
                assert_eq!(entries[0].beyond, one.len() as u64 - 2000);
                assert_eq!(entries[1].bytes, next);
                assert_eq!(fields(&entries[0].bytes).count(), 1, "a cut field is none");
            }
        }
    }

    #[test]
    fn what_is_not_the_format_is_refused_before_memory_is_taken() {
        let cursor = text("__CURSOR", b"s=1");
        let refused = |behind: &[u8]| parse(&[&cursor[..], behind].concat(), 64, 1024).unwrap_err();
        assert_eq!(refused(b"-- No entries --\n"), FormatError::NotAField);
        assert_eq!(refused(b"=x\n"), FormatError::NotAField);
        assert_eq!(refused(&[b'A'; 300]), FormatError::NotAField);
        let mut huge = b"A\n".to_vec();
        huge.extend(u64::MAX.to_le_bytes());
        assert_eq!(refused(&huge), FormatError::TooLong(u64::MAX));
        let mut short = binary("A", b"xy");
        short[2] = 1;
        assert_eq!(refused(&short), FormatError::NoEnd);
        assert_eq!(parse(b"A=b\n\n", 64, 1024), Err(FormatError::NoCursor));
        let long = text("__CURSOR", &[b'x'; MAX_CURSOR_BYTES + 1]);
        assert_eq!(
            parse(&[&long[..], b"\n"].concat(), 64, 2048),
            Err(FormatError::NoCursor)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            entries in prop::collection::vec(
                prop::collection::vec(("[A-Z_][A-Z0-9_]{0,20}", prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..8),
                0..5,
            ),
            piece in 1usize..100,
        ) {
            let mut stream = Vec::new();
            let mut written = Vec::new();
            for entry in &entries {
                let mut bytes = text("__CURSOR", b"s=1");
                for (name, value, as_text) in entry {
                    let field = if *as_text && !value.contains(&b'\n') { text(name, value) } else { binary(name, value) };
                    bytes.extend(field);
                }
                stream.extend_from_slice(&bytes);
                stream.push(b'\n');
                let read: Vec<(String, Vec<u8>)> =
                    fields(&bytes).skip(1).map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                let expected: Vec<(String, Vec<u8>)> =
                    entry.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
                prop_assert_eq!(read, expected);
                written.push(bytes);
            }
            let read = parse(&stream, piece, 1 << 20).unwrap();
            prop_assert_eq!(read.into_iter().map(|entry| entry.bytes).collect::<Vec<_>>(), written);
        }

        #[test]
        fn no_bytes_can_harm_it(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..100) {
            if let Ok(entries) = parse(&bytes, piece, 1024) {
                for entry in entries {
                    prop_assert!(entry.bytes.len() <= 1024);
                    prop_assert!(cursor(&entry.bytes).is_some());
                }
            }
            let _ = fields(&bytes).count();
        }
    }
}
