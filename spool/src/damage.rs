//! Durable content that can no longer be read: what is known of it, and where its bytes are kept.

use std::{io, io::IoSlice, ops::Range, path::Path, path::PathBuf};

use crate::{
    Disk, DiskFile, FrameNo, ItemNo, LANES,
    frame::{Fields, MAX_NUMBER, put_u64},
    segment::MAX_SEGMENT_BYTES,
};

/// The directory that bytes are set aside in.
pub(crate) const QUARANTINE: &str = "quarantine";

/// What this crate sets aside is kept up to this many bytes; beyond it damage is reported but its bytes are not copied.
const MAX_KEPT_BYTES: u64 = 256 << 20;

/// Durable content that can no longer be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment file that it is in (or was: it may be missing).
    pub segment: PathBuf,
    /// Where in that file it begins.
    pub offset: u64,
    /// How many bytes of the file it takes.
    pub bytes: u64,
    /// The frames lost with it.
    pub frames: Range<FrameNo>,
    /// The items lost with it, per lane; empty ranges where only state was lost or where it cannot be known.
    pub items: [Range<ItemNo>; LANES],
    /// What was wrong, for people.
    pub reason: &'static str,
    /// A copy of the bytes, if there was room for one.
    pub kept: Option<Box<Path>>,
}

impl Damage {
    pub(crate) fn hole(&self, segment: u64) -> Hole {
        Hole {
            segment,
            offset: self.offset,
            end: self.offset.saturating_add(self.bytes),
            frames: [self.frames.start, self.frames.end],
            items: [self.items[0].start, self.items[1].start],
            end_items: [self.items[0].end, self.items[1].end],
        }
    }

    /// Whether any item was lost.
    pub fn lost_items(&self) -> bool {
        self.items.iter().any(|range| range.start < range.end)
    }
}

/// A damaged stretch of a segment, as readers step over it and as it is stored once settled: nine u64 in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) frames: [FrameNo; 2],
    pub(crate) items: [ItemNo; LANES],
    pub(crate) end_items: [ItemNo; LANES],
}

impl Hole {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for word in [
            self.segment,
            self.offset,
            self.end,
            self.frames[0].0,
            self.frames[1].0,
        ] {
            put_u64(out, word);
        }
        self.items
            .iter()
            .chain(&self.end_items)
            .for_each(|no| put_u64(out, no.0));
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Hole> {
        let hole = Hole {
            segment: fields.u64()?,
            offset: fields.u64()?,
            end: fields.u64()?,
            frames: [FrameNo(fields.u64()?), FrameNo(fields.u64()?)],
            items: fields.items()?,
            end_items: fields.items()?,
        };
        let sound = hole.offset <= hole.end
            && hole.end < MAX_SEGMENT_BYTES
            && hole.frames[0] <= hole.frames[1]
            && hole.frames[1].0 < MAX_NUMBER
            && (0..LANES).all(|lane| {
                hole.items[lane] <= hole.end_items[lane] && hole.end_items[lane].0 < MAX_NUMBER
            });
        sound.then_some(hole)
    }

    /// Whether this stretch covers all of the other one.
    pub(crate) fn covers(&self, other: &Hole) -> bool {
        self.segment == other.segment && self.offset <= other.offset && other.end <= self.end
    }
}

/// Copies a stretch of a segment into the quarantine. `None` when that fails or would be too much: the damage is
/// reported all the same.
pub(crate) fn keep_bytes(
    disk: &dyn Disk,
    directory: &Path,
    hole: &Hole,
    file: &dyn DiskFile,
) -> Option<Box<Path>> {
    let folder = directory.join(QUARANTINE);
    let path = folder.join(format!("damaged-{:020}-{}.bin", hole.segment, hole.offset));
    let copy = || -> io::Result<Option<Box<Path>>> {
        disk.make_directory(&folder)?;
        let listed = disk.list(&folder)?;
        if listed
            .iter()
            .any(|entry| path.file_name() == Some(&entry.name))
        {
            return Ok(Some(path.clone().into())); // found and kept by an earlier run
        }
        let is_ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"damaged-");
        let kept: u64 = listed
            .iter()
            .filter(|entry| is_ours(&entry.name))
            .map(|entry| entry.bytes)
            .sum();
        let end = hole.end.min(file.size()?);
        if hole.offset >= end || kept + (end - hole.offset) > MAX_KEPT_BYTES {
            return Ok(None);
        }
        let out = disk.create(&path)?;
        let mut block = vec![0; 64 << 10];
        let mut at = hole.offset;
        while at < end {
            let want = block.len().min((end - at) as usize);
            // What cannot be read at all is kept as zeros: its place and length still tell something.
            let read = file.read_at(&mut block[..want], at).unwrap_or_else(|_| {
                block.fill(0);
                want
            });
            if read == 0 {
                break;
            }
            out.write_at(&mut [IoSlice::new(&block[..read])], at - hole.offset)?;
            at += read as u64;
        }
        Ok(Some(path.clone().into()))
    };
    copy().unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "damaged bytes could not be set aside");
        None
    })
}
