//! Whatever a chunk holds, it is walked to its end, what it gives is JSON, and none of it is given twice behind a record.
#![no_main]
#![allow(dead_code, reason = "the reader is taken in as a file: the forwarder shows nothing of its sources")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../forwarder/src/sources/evtx/chunk.rs"]
mod chunk;

use chunk::{CHUNK_BYTES, Chunk, Next};

fuzz_target!(|bytes: &[u8]| {
    let mut data = bytes[..bytes.len().min(CHUNK_BYTES)].to_vec();
    data.resize(CHUNK_BYTES, 0);
    let Some(mut chunk) = Chunk::of(data.clone()) else {
        return;
    };
    let mut highest = None;
    chunk.walk(None, &mut |next| {
        if let Next::Record(record) = next {
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&record.json).is_ok());
            highest = highest.max(Some(record.id));
        }
        true
    });
    let mut chunk = Chunk::of(data).expect("the same bytes");
    chunk.walk(highest, &mut |next| {
        assert!(!matches!(next, Next::Record(_)) || highest.is_none());
        true
    });
});
