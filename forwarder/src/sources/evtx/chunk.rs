//! One chunk of a Windows event file: found, read, rendered. The `evtx` crate sees a chunk at a time and never the file.
//!
//! ```text
//! file  = header (4096 bytes), chunk*
//! chunk = "ElfChnk\0" … first id u64 at 24, last id u64 at 32, header size u32 = 128 at 40 …, records from 512 on; 65,536 bytes
//! ```
//!
//! What was allocated and never used holds whatever was on the disk, so a place without the magic is no damage by itself: what is missing
//! shows in the record ids. A chunk whose magic alone is wrong is read all the same.
//!
//! Memory: a chunk, what the crate makes of it (bounded there: 2^18 nodes and 16 MiB of text a record, four times that a chunk), and the text of one
//! record.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use evtx::{EvtxChunkData, ParserSettings};
use watchline_proto::Hash;

pub(super) const CHUNK_BYTES: usize = 64 << 10;
const FILE_HEADER_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"ElfChnk\0";
const RECORD_MAGIC: &[u8; 4] = b"\x2a\x2a\0\0";
/// Where the first record begins.
const RECORDS_FROM: usize = 512;
/// Header of a record: magic, size, id, time.
const RECORD_HEADER_BYTES: u64 = 24;

/// The ids that a chunk's header says it holds, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// One record, rendered.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) id: u64,
    /// A hash of its bytes as they are in the file.
    pub(super) print: Hash,
    /// The event as JSON, one line.
    pub(super) json: Vec<u8>,
}

/// What a chunk gave next.
#[derive(Debug)]
pub(super) enum Next {
    /// A record up to the one asked for, which is passed over.
    Before {
        id: u64,
        print: Hash,
    },
    Record(Rendered),
    /// Something here cannot be read; what follows may.
    Unreadable,
}

/// How many chunks a file of `size` bytes has room for; the last may be cut short.
pub(super) fn count(size: u64) -> u64 {
    size.saturating_sub(FILE_HEADER_BYTES)
        .div_ceil(CHUNK_BYTES as u64)
}

fn offset(no: u64) -> u64 {
    FILE_HEADER_BYTES + no * CHUNK_BYTES as u64
}

/// The ids of chunk `no`; `None`: there is none, or nothing that was ever one.
pub(super) fn ids(file: &File, no: u64) -> io::Result<Option<Ids>> {
    let mut head = [0; RECORDS_FROM + 4];
    read_up_to(file, &mut head, offset(no))?;
    Ok(ids_of(&head))
}

fn ids_of(head: &[u8]) -> Option<Ids> {
    let number = |at: usize| {
        head.get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
    };
    let looks_like_one = head.get(40..44) == Some(&128u32.to_le_bytes())
        && head.get(RECORDS_FROM..RECORDS_FROM + 4) == Some(RECORD_MAGIC);
    if !head.starts_with(MAGIC) && !looks_like_one {
        return None;
    }
    let (first, last) = (number(24)?, number(32)?);
    // An empty one says that its first id is beyond its last.
    (first <= last && last < u64::MAX).then_some(Ids { first, last })
}

/// A chunk in memory.
pub(super) struct Chunk {
    pub(super) ids: Ids,
    data: EvtxChunkData,
}

impl Chunk {
    /// Reads chunk `no`; `None` as for [`ids`], or when its header cannot be read. What is cut off at the file's end reads as zeros.
    pub(super) fn read(file: &File, no: u64) -> io::Result<Option<Chunk>> {
        let mut data = vec![0; CHUNK_BYTES];
        read_up_to(file, &mut data, offset(no))?;
        Ok(Chunk::of(data))
    }

    /// The chunk that `data` is, [`CHUNK_BYTES`] long.
    pub(super) fn of(mut data: Vec<u8>) -> Option<Chunk> {
        let ids = ids_of(&data)?;
        data[..MAGIC.len()].copy_from_slice(MAGIC);
        // Checksums say nothing: in a file that was not closed they are those of some time before.
        let data = catch_unwind(|| EvtxChunkData::new(data, false))
            .ok()?
            .ok()?;
        Some(Chunk { ids, data })
    }

    /// Gives what is in it, in its order, to `take` until that says `false`; records up to `after` without their text. `false`: `take` did.
    pub(super) fn walk(&mut self, after: Option<u64>, take: &mut dyn FnMut(Next) -> bool) -> bool {
        let Chunk { data, .. } = self;
        // The crate reports what it cannot read; should it panic all the same, the rest of the chunk is what cannot be read.
        let bytes = data.data.clone();
        let settings = Arc::new(ParserSettings::default().indent(false));
        let Ok(Ok(mut chunk)) = catch_unwind(AssertUnwindSafe(|| data.parse(settings))) else {
            return take(Next::Unreadable);
        };
        let mut records = chunk.iter();
        loop {
            let next = match catch_unwind(AssertUnwindSafe(|| records.next())) {
                Ok(None) => return true,
                Ok(Some(Ok(record))) => {
                    let id = record.event_record_id;
                    let print = print(&bytes, record.binxml_offset, record.binxml_size);
                    if after.is_some_and(|after| id <= after) {
                        Next::Before { id, print }
                    } else {
                        match catch_unwind(AssertUnwindSafe(|| record.into_json_bytes())) {
                            // Of a damaged record the crate may make something that is no JSON.
                            Ok(Ok(rendered)) if is_json(&rendered.data) => Next::Record(Rendered {
                                id,
                                print,
                                json: rendered.data,
                            }),
                            Ok(_) | Err(_) => Next::Unreadable,
                        }
                    }
                }
                Ok(Some(Err(_))) => Next::Unreadable,
                Err(_) => return take(Next::Unreadable),
            };
            if !take(next) {
                return false;
            }
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// A hash of the record whose content lies at `offset`, its header included.
fn print(chunk: &[u8], offset: u64, size: u32) -> Hash {
    let from = offset.saturating_sub(RECORD_HEADER_BYTES) as usize;
    let to = offset.saturating_add(size.into()) as usize;
    Hash::of(chunk.get(from..to).unwrap_or_default())
}

fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
