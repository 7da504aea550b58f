//! For the fuzz target: opens whatever bytes there are.

use std::{path::Path, sync::Arc};

use crate::{
    Frame, Item, LANES, Options, ReadError, Spool,
    frame::{FRAME_HEADER_BYTES, FRAME_MARK, Fields},
    segment::{self, SEGMENT_HEADER_BYTES},
    testing::FailingDisk,
};

/// Opens a spool whose only segment is these bytes, reads everything that it finds there, writes to it, and opens it
/// once more. Whatever the bytes are, that must not panic, nor take memory that the bytes do not justify. Returns how
/// many items were read.
pub fn recover_bytes(bytes: &[u8]) -> u64 {
    let directory = Path::new("/spool");
    let disk = FailingDisk::new();
    disk.put(&segment::path_of(directory, 6), bytes);
    let options = || Options {
        max_bytes: 1 << 20,
        reserve_bytes: 64 << 10,
        segment_bytes: 64 << 10,
        required_readers: vec!["fuzz".to_owned()],
        ..Options::default()
    };
    let mut items = 0;
    for _ in 0..2 {
        let Ok((mut spool, _)) = Spool::open(Arc::new(disk.clone()), directory, options()) else {
            return items;
        };
        let mut reader = spool.reader("fuzz");
        for lane in 0..LANES {
            loop {
                match reader.next(lane) {
                    Ok(Some(_)) => items += 1,
                    Ok(None) => break,
                    Err(ReadError::Io { .. }) => break,
                    Err(ReadError::Damaged(_) | ReadError::Gone { .. }) => {}
                }
            }
        }
        let frame = Frame {
            items: vec![Item {
                lane: 1,
                parts: &[b"new"],
            }],
            ..Frame::default()
        };
        let _ = spool.append(&frame);
        let _ = spool.sync();
        let _ = spool.view().backlog("fuzz");
    }
    items
}

/// Makes the checksums right of a segment's header and of everything in it that begins like a frame, so that a fuzzer
/// gets behind them.
pub fn restamp(bytes: &mut [u8]) {
    if bytes.len() >= SEGMENT_HEADER_BYTES {
        stamp(bytes, SEGMENT_HEADER_BYTES);
    }
    let mut at = SEGMENT_HEADER_BYTES;
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        if bytes[at..at + 4] != FRAME_MARK {
            at += 1;
            continue;
        }
        let body_bytes = Fields(&bytes[at + 72..]).u32().unwrap_or(0) as usize;
        let body = at + FRAME_HEADER_BYTES;
        let end = body.saturating_add(body_bytes);
        if let Some(body) = bytes.get(body..end) {
            let crc = crc32c::crc32c(body).to_le_bytes();
            bytes[at + 76..at + 80].copy_from_slice(&crc);
        }
        stamp(&mut bytes[at..], FRAME_HEADER_BYTES);
        at = if end <= bytes.len() { end } else { at + 1 };
    }
}

fn stamp(bytes: &mut [u8], len: usize) {
    let crc = crc32c::crc32c(&bytes[..len - 4]).to_le_bytes();
    bytes[len - 4..len].copy_from_slice(&crc);
}
