//! Records out of a stream of bytes: RFC 6587's two framings.
//!
//! The first bytes of a connection decide for all of it. `LENGTH SP <`, LENGTH a number that begins with 1 to 9: octets are counted, and
//! every later frame has to begin in the same way (a line feed that a sender did not count may stand before it). Anything else: a
//! record ends with a line feed. So a record in lines may hold a line that begins with digits, and a count that is wrong shows at once
//! where the next frame should begin: there is nothing to find the way back with, and the connection is closed.

use memchr::{memchr, memchr2};

/// A count above this is taken for a mistake: no sender has a record of 16 MiB, and skipping it would swallow what follows.
const LONGEST_FRAME: u64 = 16 << 20;
/// Digits of a count.
const MOST_DIGITS: usize = 9;

/// One record, without its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Framed {
    /// At most `max_record` bytes.
    pub(super) body: Vec<u8>,
    /// Bytes beyond: left out.
    pub(super) cut: u64,
    /// The stream ended before the record did.
    pub(super) partial: bool,
}

/// The stream makes no sense any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("no octet count where a frame begins")]
    NoCount,
    #[error("an octet count above {LONGEST_FRAME}")]
    CountTooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Counted,
    Lines,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two frames.
    Start,
    /// Within what may be a count; its bytes are in `body`.
    Count,
    /// So many bytes of the record are to come.
    Counted(u64),
    /// Within a line.
    Line,
}

/// The records of one connection. Memory: one record of at most `max_record` bytes, as far as it has come.
#[derive(Debug)]
pub(super) struct Framer {
    max_record: usize,
    /// A NUL ends a line too: what `syslog(3)` sends to a stream socket.
    nul_ends: bool,
    framing: Option<Framing>,
    state: State,
    body: Vec<u8>,
    cut: u64,
}

impl Framer {
    pub(super) fn new(max_record: usize, nul_ends: bool) -> Framer {
        Framer {
            max_record,
            nul_ends,
            framing: None,
            state: State::Start,
            body: Vec::new(),
            cut: 0,
        }
    }

    /// Takes bytes off `input` up to the end of the next record; `None`: all of it, and the record goes on. Empty lines are no records.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Framed>, Broken> {
        loop {
            let Some(&first) = input.first() else {
                return Ok(None);
            };
            match self.state {
                State::Start => match (self.framing, first) {
                    (Some(Framing::Lines), _) => self.state = State::Line,
                    (Some(Framing::Counted), b'\n') => *input = &input[1..],
                    (_, b'1'..=b'9') => self.state = State::Count,
                    (Some(Framing::Counted), _) => return Err(Broken::NoCount),
                    (None, _) => self.take_for_lines(),
                },
                State::Count => {
                    let counting = self.body.last() != Some(&b' ');
                    match first {
                        b'0'..=b'9' if counting && self.body.len() < MOST_DIGITS => {}
                        b' ' if counting => {}
                        b'<' if !counting => {
                            self.state = State::Counted(self.count()?);
                            self.framing = Some(Framing::Counted);
                            self.body.clear();
                            continue;
                        }
                        _ if self.framing.is_none() => {
                            self.take_for_lines();
                            continue;
                        }
                        _ => return Err(Broken::NoCount),
                    }
                    self.body.push(first);
                    *input = &input[1..];
                }
                State::Counted(left) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let (bytes, rest) = input.split_at(input.len().min(most));
                    self.keep(bytes);
                    *input = rest;
                    let left = left - bytes.len() as u64;
                    self.state = State::Counted(left);
                    if left == 0 {
                        return Ok(Some(self.finish(false)));
                    }
                }
                State::Line => {
                    let end = if self.nul_ends {
                        memchr2(b'\n', 0, input)
                    } else {
                        memchr(b'\n', input)
                    };
                    let Some(end) = end else {
                        self.keep(input);
                        *input = &[];
                        return Ok(None);
                    };
                    self.keep(&input[..end]);
                    *input = &input[end + 1..];
                    let record = self.finish(false);
                    if !record.body.is_empty() {
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    /// The stream has ended: what there is of a last record.
    pub(super) fn end(mut self) -> Option<Framed> {
        let within_count = matches!(self.state, State::Count) && self.framing.is_some();
        (!self.body.is_empty() && !within_count).then(|| self.finish(true))
    }

    /// What was taken for a count is the beginning of a line.
    fn take_for_lines(&mut self) {
        self.framing = Some(Framing::Lines);
        self.state = State::Line;
    }

    fn count(&self) -> Result<u64, Broken> {
        let digits = self.body.iter().filter(|byte| byte.is_ascii_digit());
        let count = digits.fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
        if count > LONGEST_FRAME {
            return Err(Broken::CountTooLarge);
        }
        Ok(count)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.max_record.saturating_sub(self.body.len());
        let kept = &bytes[..bytes.len().min(room)];
        self.body.extend_from_slice(kept);
        self.cut += (bytes.len() - kept.len()) as u64;
    }

    fn finish(&mut self, partial: bool) -> Framed {
        self.state = State::Start;
        Framed {
            body: std::mem::take(&mut self.body),
            cut: std::mem::take(&mut self.cut),
            partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `stream` in pieces of `piece` bytes; bodies (a cut as `+n`, a partial one as `…`), and how it ended.
    fn split_in(stream: &[u8], piece: usize, nul_ends: bool) -> (Vec<String>, Option<Broken>) {
        let mut framer = Framer::new(40, nul_ends);
        let mut found = Vec::new();
        let mut text = |framed: Framed| {
            let mut text = String::from_utf8_lossy(&framed.body).into_owned();
            if framed.cut > 0 {
                text.push_str(&format!("+{}", framed.cut));
            }
            if framed.partial {
                text.push('…');
            }
            found.push(text);
        };
        for mut input in stream.chunks(piece) {
            loop {
                match framer.next(&mut input) {
                    Ok(Some(framed)) => text(framed),
                    Ok(None) => break,
                    Err(broken) => return (found, Some(broken)),
                }
            }
        }
        framer.end().into_iter().for_each(text);
        (found, None)
    }

    fn split(stream: &str) -> (Vec<String>, Option<Broken>) {
        let whole = split_in(stream.as_bytes(), usize::MAX, false);
        for piece in 1..9 {
            let parts = split_in(stream.as_bytes(), piece, false);
            assert_eq!(parts, whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn both_framings_are_read_and_the_first_bytes_decide() {
        for (stream, records) in [
            ("<13>a\n<13>b\n", vec!["<13>a", "<13>b"]),
            ("5 <13>a7 <13>b\nc", vec!["<13>a", "<13>b\nc"]),
            ("5 <13>a\n5 <13>b\n", vec!["<13>a", "<13>b"]),
            (
                "<13>a\n12 <13>b\n\n<13>c\r\n",
                vec!["<13>a", "12 <13>b", "<13>c\r"],
            ),
            ("2026-11-23 no header\n", vec!["2026-11-23 no header"]),
            ("12 no header\n0 too\n", vec!["12 no header", "0 too"]),
            ("12345678901 <13>x\n", vec!["12345678901 <13>x"]),
            ("\n\n<13>a\0b\n", vec!["<13>a\0b"]),
        ] {
            assert_eq!(
                split(stream),
                (records.iter().map(|&r| r.into()).collect(), None),
                "{stream:?}"
            );
        }
    }

    /// TAILING 45.
    #[test]
    fn a_wrong_octet_count_closes_the_stream_and_invents_nothing() {
        let cases = [
            ("5 <13>abc5 <13>d", vec!["<13>a"], Broken::NoCount),
            ("5 <13>a12x <13>b", vec!["<13>a"], Broken::NoCount),
            ("5 <13>a12 b", vec!["<13>a"], Broken::NoCount),
            ("5 <13>a0 <", vec!["<13>a"], Broken::NoCount),
            ("5 <13>a1234567890 <", vec!["<13>a"], Broken::NoCount),
            (
                "5 <13>a999999999 <13>b",
                vec!["<13>a"],
                Broken::CountTooLarge,
            ),
        ];
        for (stream, records, broken) in cases {
            let records = records.iter().map(|&record| record.into()).collect();
            assert_eq!(split(stream), (records, Some(broken)), "{stream:?}");
        }
        // A count that is too large takes what it says, as it came, and then finds no frame.
        assert_eq!(
            split("9 <13>a5 <13>b"),
            (vec!["<13>a5 <1".into()], Some(Broken::NoCount)),
        );
    }

    /// TAILING 45.
    #[test]
    fn a_record_longer_than_the_limit_is_cut_and_counted_and_the_next_is_exact() {
        let long = format!("<13>{}", "x".repeat(96));
        let cut = format!("<13>{}+60", "x".repeat(36));
        assert_eq!(split(&format!("{long}\n<13>b\n")).0, [&cut, "<13>b"]);
        assert_eq!(split(&format!("100 {long}5 <13>b")).0, [&cut, "<13>b"]);
    }

    #[test]
    fn what_ends_with_the_stream_is_partial_and_a_count_alone_is_nothing() {
        assert_eq!(split("<13>a\n<13>b").0, ["<13>a", "<13>b…"]);
        assert_eq!(split("9 <13>a").0, ["<13>a…"]);
        assert_eq!(split("5 <13>a12 ").0, ["<13>a"]);
        assert_eq!(split("12").0, ["12…"]);
    }

    #[test]
    fn a_nul_ends_a_record_of_a_local_stream_only() {
        assert_eq!(split_in(b"<13>a\0<13>b\n", 3, true).0, ["<13>a", "<13>b"]);
        assert_eq!(split_in(b"<13>a\0<13>b\n", 3, false).0, ["<13>a\0<13>b"]);
    }

    proptest! {
        /// TAILING 45.
        #[test]
        fn counted_records_of_any_bytes_come_out_as_they_went_in(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20),
            piece in 1..64_usize,
        ) {
            let mut stream = Vec::new();
            for record in &records {
                stream.extend_from_slice(format!("{} <", record.len() + 1).as_bytes());
                stream.extend_from_slice(record);
            }
            let mut framer = Framer::new(40, false);
            let mut found = Vec::new();
            for mut input in stream.chunks(piece) {
                while let Some(framed) = framer.next(&mut input).unwrap() {
                    prop_assert_eq!(framed.cut, 0);
                    found.push(framed.body[1..].to_vec());
                }
            }
            prop_assert_eq!(found, records);
        }

        #[test]
        fn no_bytes_at_all_make_it_fail_or_grow(
            stream in prop::collection::vec(prop_oneof![Just(b'1'), Just(b' '), Just(b'<'), Just(b'\n'), Just(0), any::<u8>()], 0..300),
            piece in 1..64_usize,
        ) {
            let mut framer = Framer::new(40, false);
            for mut input in stream.chunks(piece) {
                while let Ok(Some(framed)) = framer.next(&mut input) {
                    prop_assert!(framed.body.len() <= 40 && !framed.body.is_empty());
                }
            }
        }
    }
}
