//! The durable queue of both programs: an append-only log in segments.
//! (interface draft: bodies to be written; split into modules disk, frame, segment, snapshot, recovery, writer, reader, quota, quarantine)

use bytes::Bytes;
use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How many lanes a spool has. Lane 0 is served first.
pub const LANES: usize = 2;

/// Place of a frame in the log: counted from 0, never reused by another valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u64);
/// Place of an item in its lane: counted from 0 over the whole life of the directory, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemNo(pub u64);
/// A lane is a number below [`LANES`]; what it means is the caller's.
pub type LaneNo = usize;

#[derive(Debug, Clone)]
pub struct Options {
    /// Quota over all segment files, in bytes.
    pub max_bytes: u64,
    /// Part of `max_bytes` that only marks, snapshots and lane 0 may use.
    pub reserve_bytes: u64,
    /// Size at which a segment is closed; raised by itself to 16 times the snapshot.
    pub segment_bytes: u64,
    /// Readers that hold segments until their mark has passed. A reader not named here never holds one (it finds a hole instead).
    pub required_readers: Vec<String>,
    /// At a collector: delivered segments are kept no longer than this, and deleted when space is needed; `None`: at once when passed by all.
    pub keep_delivered: Option<Duration>,
    /// Whether readers see what was appended but is not yet synced.
    pub read_unsynced: bool,
}

/// The one owner of a directory: appends, syncs, marks, trims. Not shared: a thread owns it. All calls may block on the disk.
pub struct Spool {
    /* … */ _p: (),
}

/// What opening found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// True when the directory held no spool before.
    pub created: bool,
    /// Random, made with the directory: a new one when the spool was made anew.
    pub buffer_id: [u8; 16],
    /// Places where durable bytes were damaged, set aside in `quarantine/`. Each must become a gap event by the caller.
    pub damage: Vec<Damage>,
    pub items: [u64; LANES],
    pub bytes: [u64; LANES], // held, undelivered
}
/// Durable content that can no longer be read.
#[derive(Debug, Clone)]
pub struct Damage {
    pub segment: PathBuf,
    pub frames: Range<FrameNo>,
    pub items: [Range<ItemNo>; LANES],
    pub bytes: u64,
    pub reason: String,
    pub kept: Option<PathBuf>,
}

/// One unit of atomic append: all of it is there after a crash, or nothing.
#[derive(Debug, Default)]
pub struct Frame<'a> {
    pub items: Vec<Item<'a>>,
    /// Keyed state: `None` deletes. Read back with [`Spool::state`]; written anew into each snapshot.
    pub state: Vec<(Bytes, Option<Bytes>)>,
    pub marks: Vec<Mark>,
}
#[derive(Debug)]
pub struct Item<'a> {
    pub lane: LaneNo,
    /// written one after the other
    pub parts: &'a [&'a [u8]],
}
/// How far a reader has been acknowledged, exclusive, per lane, with a note of its own (a file output: file, length, guard).
#[derive(Debug, Clone)]
pub struct Mark {
    pub reader: String,
    pub next: [ItemNo; LANES],
    pub note: Bytes,
}
#[derive(Debug, Clone)]
pub struct Appended {
    pub frame: FrameNo,
    /// number of the first item of this frame in each lane
    pub first: [ItemNo; LANES],
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("spool {} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("spool {} has format {found}, this program reads up to {known}; it was left untouched", path.display())]
    TooNew {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Back-pressure: wait until the readers have moved on, then append the same frame again.
    #[error("spool is full: {used_bytes} of {max_bytes} bytes are still needed by a reader")]
    Full { used_bytes: u64, max_bytes: u64 },
    /// The file system has no room (ENOSPC, EDQUOT). Nothing of this frame is stored; the spool stays usable: try again later.
    #[error("no room on the file system of {}", path.display())]
    NoRoom { path: PathBuf, source: io::Error },
    #[error("frame of {bytes} bytes is larger than {max} bytes")]
    TooLarge { bytes: u64, max: u64 },
    /// The disk failed. Nothing at or after `from` is stored; reopen the spool to go on.
    #[error("append to segment {} at frame {from:?}", path.display())]
    Io {
        path: PathBuf,
        from: FrameNo,
        source: io::Error,
    },
}
/// The disk failed: nothing at or after `from` is stored. Call [`Spool::reopen`].
#[derive(Debug, thiserror::Error)]
#[error("sync segment {} from frame {from:?}", path.display())]
pub struct SyncError {
    pub path: PathBuf,
    pub from: FrameNo,
    pub source: io::Error,
}

impl Spool {
    /// Takes the directory's lock (made 0700), recovers, starts a new segment with a snapshot, synced.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: Options,
    ) -> Result<(Spool, Recovery), OpenError> {
        todo!()
    }
    /// After a failed sync or append: gives up the handles, cuts the log at the durable mark, recovers, starts a new segment. Readers made before stay valid (they are rewound where they had read beyond).
    pub fn reopen(&mut self) -> Result<Recovery, OpenError> {
        todo!()
    }
    pub fn append(&mut self, frame: &Frame<'_>) -> Result<Appended, AppendError> {
        todo!()
    }
    /// Makes everything appended durable; nothing to do when all is. Trims. Returns the durable mark (exclusive).
    pub fn sync(&mut self) -> Result<FrameNo, SyncError> {
        todo!()
    }
    pub fn needs_sync(&self) -> bool {
        todo!()
    }
    pub fn state(&self, key: &[u8]) -> Option<Bytes> {
        todo!()
    }
    pub fn state_with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        std::iter::empty()
    }
    pub fn mark(&self, reader: &str) -> Option<Mark> {
        todo!()
    }
    /// Removes a reader's mark and its hold (with the next append).
    pub fn forget_reader(&mut self, reader: &str) {
        todo!()
    }
    /// A reader that starts at its mark, or where it has none at the oldest item still held. Send; one thread uses it.
    pub fn reader(&self, name: &str) -> Reader {
        todo!()
    }
    /// Numbers for status and metrics, from any thread.
    pub fn view(&self) -> View {
        todo!()
    }
    /// For `drop_oldest`: what the oldest segment that a required reader still needs holds undelivered for `reader`, read from disk. Empty when there is nothing to drop (only the newest segment is left).
    pub fn oldest_undelivered(
        &mut self,
        reader: &str,
    ) -> Result<Vec<(LaneNo, ItemNo, Bytes)>, ReadError> {
        todo!()
    }
    /// Deletes that segment whatever readers need. The caller has appended (and need not have synced: this syncs first) what must survive of it.
    pub fn drop_oldest(&mut self) -> Result<(), SyncError> {
        todo!()
    }
    /// Ends cleanly: syncs, writes the marks, truncates the preallocation, gives up the lock.
    pub fn close(self) -> Result<(), SyncError> {
        todo!()
    }
}

/// Reads items lane by lane; holds at most one segment file open a lane and one frame in memory.
pub struct Reader {
    _p: (),
}
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Set aside; the reader stands behind it. The caller raises a gap and goes on.
    #[error("damage")]
    Damaged(Damage),
    /// Items from `from` to `to` are gone (retention, drop_oldest); the reader stands at `to`.
    #[error("items {from:?} to {to:?} of lane {lane} are no longer held")]
    Gone {
        lane: LaneNo,
        from: ItemNo,
        to: ItemNo,
    },
    /// May pass: try again.
    #[error("read segment {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}
#[derive(Debug, Clone)]
pub struct ReadItem {
    pub lane: LaneNo,
    pub no: ItemNo,
    pub bytes: Bytes,
}
impl Reader {
    /// The next item of this lane, or `None` when nothing more is readable yet. Reads the disk (page cache mostly); never waits for an append.
    pub fn next(&mut self, lane: LaneNo) -> Result<Option<ReadItem>, ReadError> {
        todo!()
    }
    /// Where `next` will read.
    pub fn position(&self, lane: LaneNo) -> ItemNo {
        todo!()
    }
    pub fn seek(&mut self, lane: LaneNo, to: ItemNo) {
        todo!()
    }
    /// Whether something is readable, without I/O.
    pub fn has_next(&self, lane: LaneNo) -> bool {
        todo!()
    }
}
/// Cheap, cloneable look at the spool from any thread.
#[derive(Clone)]
pub struct View {
    _p: (),
}
#[derive(Debug, Clone, Default)]
pub struct LaneStatus {
    pub items: u64,
    pub bytes: u64,
    /// unix nanoseconds of the oldest's append; 0 when empty
    pub oldest_unix_nano: i64,
}
impl View {
    /// What `reader` has not been acknowledged for, per lane.
    pub fn backlog(&self, reader: &str) -> [LaneStatus; LANES] {
        todo!()
    }
    pub fn used_bytes(&self) -> u64 {
        todo!()
    }
    pub fn max_bytes(&self) -> u64 {
        todo!()
    }
    pub fn durable(&self) -> FrameNo {
        todo!()
    }
    pub fn mark(&self, reader: &str) -> Option<Mark> {
        todo!()
    }
    /// `wake` is called, from the owner's thread, whenever more became readable (appended with `read_unsynced`, else synced) or room was made. Must not block.
    pub fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        todo!()
    }
}

/// The seam to the file system: real, or failing in tests. Methods mirror what the spool needs (create with O_EXCL 0600, open, write_at/append vectored, read_at, sync_data, sync_dir, allocate, truncate, rename, remove, list, lock).
pub trait Disk: Send + Sync + 'static {
    /* designed with the crate */
}
/// The real one.
pub struct RealDisk;
impl Disk for RealDisk {}
// spool::testing (pub, documented, not cfg(test): the other crates' tests use it): FailingDisk — remembers what was synced, can cut power at any write, fail the nth sync/write/read, report ENOSPC.
