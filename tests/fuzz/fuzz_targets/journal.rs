//! Any bytes are entries or an error, the same ones however they are cut into pieces, and none takes more memory than it may.
#![no_main]
#![allow(dead_code, reason = "the parser is taken in as a file: the forwarder shows nothing of its sources")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../forwarder/src/sources/journald/export.rs"]
mod export;

use export::{Entry, FormatError, Parser};

const MAX_ENTRY: usize = 2048;

fn parse(stream: &[u8], piece: usize) -> (Vec<Entry>, Option<FormatError>) {
    let mut parser = Parser::new(MAX_ENTRY);
    let mut entries = Vec::new();
    for mut input in stream.chunks(piece) {
        loop {
            match parser.next(&mut input) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => break,
                Err(error) => return (entries, Some(error)),
            }
        }
    }
    (entries, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, stream) = input;
    let whole = parse(stream, stream.len().max(1));
    let (entries, _) = &whole;
    for entry in entries {
        assert!(entry.bytes.len() <= MAX_ENTRY);
        assert!(export::cursor(&entry.bytes).is_some());
        assert!(entry.beyond == 0 || entry.bytes.len() == MAX_ENTRY);
        let read: usize = export::fields(&entry.bytes).map(|(name, value)| name.len() + value.len()).sum();
        assert!(read <= entry.bytes.len());
    }
    let pieces = parse(stream, usize::from(piece) + 1);
    assert_eq!(pieces.0, *entries);
    assert_eq!(pieces.1.is_some(), whole.1.is_some());
});
