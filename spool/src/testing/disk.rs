//! The failing disk: files in memory, what of them was synced, and faults to come.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::io::Errno;

/// A disk in memory. Clones are the same disk. It starts with no fault, unlimited room and a clock that stands still.
///
/// It keeps apart what was written and what was synced, for contents and for directories; [`FailingDisk::cut_power`]
/// and [`FailingDisk::restore_power`] lose the difference, or a part of it. A failed sync loses it too, although it can
/// still be read, as Linux has it.
#[derive(Clone)]
pub struct FailingDisk {
    inner: Arc<Mutex<Inner>>,
}

/// A kind of call to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`DiskFile::read_at`](crate::DiskFile::read_at).
    Read,
    /// [`DiskFile::write_at`](crate::DiskFile::write_at).
    Write,
    /// [`DiskFile::sync_data`](crate::DiskFile::sync_data).
    Sync,
    /// [`DiskFile::allocate`](crate::DiskFile::allocate).
    Allocate,
    /// [`DiskFile::truncate`](crate::DiskFile::truncate).
    Truncate,
    /// [`Disk::create`](crate::Disk::create).
    Create,
    /// [`Disk::open`](crate::Disk::open).
    Open,
    /// [`Disk::rename`](crate::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::Disk::remove).
    Remove,
    /// [`Disk::list`](crate::Disk::list).
    List,
    /// [`Disk::sync_directory`](crate::Disk::sync_directory).
    SyncDirectory,
}

/// A fault to come.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// How many such calls succeed before.
    pub after: u64,
    /// How many fail then.
    pub times: u64,
    /// With what: a number of `errno.h`, like 5 for EIO, 28 for ENOSPC, 30 for EROFS.
    pub errno: i32,
}

/// What of the unsynced survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All of it: a kill of the process rather than of the machine.
    Everything,
    /// Any 512-byte sectors of any writes, any changes of names, by this seed.
    Some(u64),
}

const SECTOR: u64 = 512;

#[derive(Default)]
pub(super) struct Inner {
    /// As one sees it.
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) directories: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) next_file: u64,
    /// As it would be after a power cut.
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Counts the power cuts: handles from before one are dead.
    pub(super) boots: u64,
    pub(super) off: bool,
    /// Bytes that may still be written before the power fails.
    pub(super) power_bytes: Option<u64>,
    /// Calls that change something until the power fails.
    pub(super) power_calls: Option<u64>,
    pub(super) written_bytes: u64,
    pub(super) changing_calls: u64,
    /// Room on the disk.
    pub(super) room_bytes: Option<u64>,
    pub(super) read_only: bool,
    pub(super) reads: u64,
    pub(super) syncs: u64,
    pub(super) unix_nano: i64,
}

#[derive(Default)]
pub(super) struct Content {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// What was done since the last sync, in order.
    pub(super) pending: Vec<Change>,
}

pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize { len: u64 },
}

impl Change {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(bytes);
            }
            Change::Resize { len } => content.resize(*len as usize, 0),
        }
    }
}

impl Default for FailingDisk {
    fn default() -> Self {
        FailingDisk::new()
    }
}

impl FailingDisk {
    /// An empty disk.
    pub fn new() -> FailingDisk {
        let inner = Inner {
            unix_nano: 1_795_000_000_000_000_000,
            ..Inner::default()
        };
        FailingDisk {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault. Several may wait at once; each counts for itself.
    pub fn fail(&self, fault: Fault) {
        self.inner().faults.push(fault);
    }

    /// Takes back all faults, the limit of room, and `read_only`.
    pub fn heal(&self) {
        let mut inner = self.inner();
        inner.faults.clear();
        inner.room_bytes = None;
        inner.read_only = false;
    }

    /// Lets all files together take this many bytes.
    pub fn limit_room(&self, bytes: u64) {
        self.inner().room_bytes = Some(bytes);
    }

    /// Refuses every change with EROFS.
    pub fn read_only(&self, yes: bool) {
        self.inner().read_only = yes;
    }

    /// From now on every call fails.
    pub fn cut_power(&self) {
        self.inner().off = true;
    }

    /// Cuts the power when this many more bytes have been written; the write that gets there is torn.
    pub fn cut_power_after_bytes(&self, bytes: u64) {
        self.inner().power_bytes = Some(bytes);
    }

    /// Cuts the power after this many more calls that change something (writes, syncs, names).
    pub fn cut_power_after_calls(&self, calls: u64) {
        self.inner().power_calls = Some(calls);
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.inner().off
    }

    /// The machine starts again, with what was synced and some of what was not. Handles and locks from before are dead;
    /// faults are gone.
    pub fn restore_power(&self, keep: Keep) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut random = match keep {
            Keep::Some(seed) => Some(Random(seed)),
            _ => None,
        };
        let mut keeps = |always: bool| {
            random
                .as_mut()
                .map_or(always, |random| random.next().is_multiple_of(2))
        };
        let always = keep == Keep::Everything;
        for content in inner.files.values_mut() {
            let mut after = std::mem::take(&mut content.durable);
            for change in content.pending.drain(..) {
                match change {
                    Change::Write { mut offset, bytes } => {
                        let mut rest = &bytes[..];
                        while !rest.is_empty() {
                            let sector = (SECTOR - offset % SECTOR).min(rest.len() as u64);
                            let (now, later) = rest.split_at(sector as usize);
                            if keeps(always) {
                                Change::Write {
                                    offset,
                                    bytes: now.to_vec(),
                                }
                                .apply(&mut after);
                            }
                            (offset, rest) = (offset + sector, later);
                        }
                    }
                    resize => {
                        if keeps(always) {
                            resize.apply(&mut after);
                        }
                    }
                }
            }
            content.seen = after.clone();
            content.durable = after;
        }
        let changed: Vec<PathBuf> = {
            let all = inner.names.keys().chain(inner.durable_names.keys());
            all.filter(|path| inner.names.get(*path) != inner.durable_names.get(*path))
                .cloned()
                .collect()
        };
        for path in changed {
            if keeps(always) {
                match inner.names.get(&path) {
                    Some(file) => inner.durable_names.insert(path, *file),
                    None => inner.durable_names.remove(&path),
                };
            }
        }
        inner.names = inner.durable_names.clone();
        inner.locks.clear();
        inner.faults.clear();
        inner.boots += 1;
        inner.off = false;
        inner.power_bytes = None;
        inner.power_calls = None;
    }

    /// Moves the clock.
    pub fn advance(&self, time: Duration) {
        self.inner().unix_nano += time.as_nanos() as i64;
    }

    /// Bytes written so far, over all files.
    pub fn written_bytes(&self) -> u64 {
        self.inner().written_bytes
    }

    /// Calls so far that changed something.
    pub fn changing_calls(&self) -> u64 {
        self.inner().changing_calls
    }

    /// Calls of [`DiskFile::read_at`](crate::DiskFile::read_at) so far.
    pub fn reads(&self) -> u64 {
        self.inner().reads
    }

    /// Calls of [`DiskFile::sync_data`](crate::DiskFile::sync_data) so far.
    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// All files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.inner().names.keys().cloned().collect()
    }

    /// A file's content as one sees it now.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.inner();
        inner
            .names
            .get(path)
            .and_then(|file| inner.files.get(file))
            .map(|content| content.seen.clone())
    }

    /// Puts a file there, synced, whatever the faults.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.inner();
        let file = match inner.names.get(path) {
            Some(file) => *file,
            None => inner.new_file(path),
        };
        inner.durable_names.insert(path.to_owned(), file);
        inner.files.insert(
            file,
            Content {
                seen: bytes.to_vec(),
                durable: bytes.to_vec(),
                pending: Vec::new(),
            },
        );
    }

    /// Removes a file, synced, whatever the faults.
    pub fn delete(&self, path: &Path) {
        let mut inner = self.inner();
        inner.names.remove(path);
        inner.durable_names.remove(path);
    }

    /// Flips one bit of a file, synced, whatever the faults.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        if let Some(mut bytes) = self.content(path) {
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.put(path, &bytes);
        }
    }
}

impl Inner {
    pub(super) fn new_file(&mut self, path: &Path) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.names.insert(path.to_owned(), file);
        self.files.insert(file, Content::default());
        file
    }

    /// Refuses a call where the power is off, a fault is due, or the disk may not be changed.
    pub(super) fn check(&mut self, operation: Operation) -> io::Result<()> {
        if self.off {
            return Err(Errno::IO.into());
        }
        let mut due = None;
        for fault in &mut self.faults {
            if fault.operation != operation {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 && due.is_none() {
                fault.times -= 1;
                due = Some(fault.errno);
            }
        }
        if let Some(errno) = due {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if matches!(
            operation,
            Operation::Read | Operation::Open | Operation::List
        ) {
            return Ok(());
        }
        if self.read_only && operation != Operation::Sync && operation != Operation::SyncDirectory {
            return Err(Errno::ROFS.into());
        }
        self.changing_calls += 1;
        match &mut self.power_calls {
            Some(0) => {
                self.off = true;
                return Err(Errno::IO.into());
            }
            Some(calls) => *calls -= 1,
            None => {}
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|file| self.files.get(file))
            .map(|content| content.seen.len() as u64)
            .sum()
    }

    /// How much of a growth by this many bytes there is room for.
    pub(super) fn room(&self, growth: u64) -> u64 {
        self.room_bytes
            .map_or(growth, |room| growth.min(room.saturating_sub(self.used())))
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
