//! A file system, marks and items in memory that can be killed between (and within) any two calls, and lose power.
//!
//! One [`World`] is what survives the process: files as the kernel sees them and as the disk has them, marks, and the buffer's items.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use watchline_spool::{ItemNo, LANES, LaneNo, Mark, ReadError, ReadItem};

use super::disk::{Disk, Found, Identity, OpenFile};
use crate::{
    outputs::feed::{Feed, Items, MarkError, Marks, Signal},
    outputs::metrics::OutputMetrics,
    watch::OwnEvents,
};

/// Bytes that the model writes to its disk as one.
const PAGE: usize = 64;

/// Small and the same for the same seed, so that a failure can be run again.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }

    pub(crate) fn one_in(&mut self, end: u64) -> bool {
        self.below(end) == 0
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    content: Vec<u8>,
    /// What survives a power cut for certain.
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
    read_only: bool,
    born: i64,
}

/// What a step of the process asks of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Open,
    Rename,
    SyncDirectory,
    ReadOnly,
    Remove,
    Write,
    Truncate,
    Sync,
    Mark,
}

#[derive(Debug)]
pub(crate) struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    directories: BTreeSet<PathBuf>,
    /// Marks since (and with) the last durable one, oldest first.
    marks: VecDeque<Mark>,
    pub(crate) lanes: [Vec<Bytes>; LANES],
    pub(crate) raised: Vec<(&'static str, Vec<(String, String)>)>,
    /// Calls until the process is killed.
    pub(crate) calls_left: Option<u64>,
    pub(crate) killed: bool,
    /// Every so many-th call of this kind fails.
    pub(crate) failing: Option<(Call, io::ErrorKind)>,
    /// Bytes that the disk still has room for.
    pub(crate) room: Option<usize>,
    pub(crate) calls: u64,
    pub(crate) dice: Dice,
    incarnation: u64,
}

/// Survives the process.
#[derive(Debug, Clone)]
pub(crate) struct World(Arc<(Mutex<State>, Condvar)>);

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let state = State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            directories: [PathBuf::from("/data")].into(),
            marks: VecDeque::new(),
            lanes: Default::default(),
            raised: Vec::new(),
            calls_left: None,
            killed: false,
            failing: None,
            room: None,
            calls: 0,
            dice: Dice::new(seed),
            incarnation: 0,
        };
        World(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Waits until a mark covers the items of a lane before `next`: the output's own word that they are written and synced.
    pub(crate) fn await_mark(&self, lane: LaneNo, next: u64) {
        let mut state = self.state();
        while state
            .marks
            .back()
            .is_none_or(|mark| mark.next[lane] < ItemNo(next))
        {
            state = self.0.1.wait(state).unwrap();
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// A process that starts now.
    pub(crate) fn feed(&self) -> Feed {
        Feed {
            reader: "output/events".to_owned(),
            output: "events".to_owned(),
            items: Box::new(ListedItems {
                world: self.clone(),
                next: [0; LANES],
            }),
            marks: Arc::new(self.clone()),
            events: Arc::new(self.clone()),
            report: Box::new(|_| {}),
            metrics: OutputMetrics::default(),
            quarantine: "/data/quarantine".into(),
            signal: Signal::new(),
        }
    }

    pub(crate) fn disk(&self) -> Box<dyn Disk> {
        let incarnation = self.state().incarnation;
        Box::new(ModelDisk {
            world: self.clone(),
            incarnation,
        })
    }

    /// The process is gone. Marks that were only handed over may be written or not.
    pub(crate) fn after_kill(&self) {
        let mut state = self.state();
        state.calls_left = None;
        state.killed = false;
        state.incarnation += 1;
        let marks = state.marks.len() as u64;
        let kept = 1 + state.dice.below(marks) as usize;
        state.marks.truncate(kept);
        // Opening the buffer writes what it found into a snapshot and syncs it.
        state.marks = state.marks.pop_back().into_iter().collect();
    }

    /// The process and everything unsynced is gone, or part of it: whatever the disk had got to.
    pub(crate) fn after_power_cut(&self) {
        self.after_kill();
        let mut state = self.state();
        let State {
            inodes,
            names,
            durable_names,
            dice,
            ..
        } = &mut *state;
        for inode in inodes.iter_mut() {
            let mut content = inode.synced.clone();
            for page in std::mem::take(&mut inode.dirty) {
                if dice.one_in(2) {
                    copy_page(&inode.content, &mut content, page);
                }
            }
            // The length may be that of before or of after.
            if dice.one_in(2) {
                content.truncate(inode.content.len());
            }
            inode.content.clone_from(&content);
            inode.synced = content;
        }
        if dice.one_in(2) {
            names.clone_from(durable_names);
        } else {
            durable_names.clone_from(names);
        }
    }

    pub(crate) fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state
            .names
            .get(Path::new(path))
            .map(|&inode| state.inodes[inode].content.clone())
    }

    pub(crate) fn is_read_only(&self, path: &Path) -> bool {
        let state = self.state();
        state
            .names
            .get(path)
            .is_some_and(|&inode| state.inodes[inode].read_only)
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Somebody else's hand.
    pub(crate) fn put(&self, path: &str, content: &[u8]) {
        let mut state = self.state();
        let inode = state.add_inode();
        state.inodes[inode].content = content.to_vec();
        state.inodes[inode].synced = content.to_vec();
        state.names.insert(path.into(), inode);
        state.durable_names.insert(path.into(), inode);
    }

    /// Somebody else's hand.
    pub(crate) fn alter(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[Path::new(path)];
        change(&mut state.inodes[inode].content);
        state.inodes[inode].synced = state.inodes[inode].content.clone();
        state.inodes[inode].dirty.clear();
    }

    /// Somebody else's hand.
    pub(crate) fn unlink(&self, path: &str) {
        let mut state = self.state();
        state.names.remove(Path::new(path));
        state.durable_names.remove(Path::new(path));
    }

    /// Somebody else's hand.
    pub(crate) fn moved(&self, from: &str, to: &str) {
        let mut state = self.state();
        if let Some(inode) = state.names.remove(Path::new(from)) {
            state.names.insert(to.into(), inode);
        }
        state.durable_names = state.names.clone();
    }

    pub(crate) fn remove_directory(&self, gone: bool) {
        let mut state = self.state();
        match gone {
            true => state.directories.remove(Path::new("/data")),
            false => state.directories.insert("/data".into()),
        };
    }

    pub(crate) fn push(&self, lane: LaneNo, item: impl Into<Bytes>) {
        self.state().lanes[lane].push(item.into());
    }
}

fn copy_page(from: &[u8], to: &mut Vec<u8>, page: usize) {
    let start = page * PAGE;
    let end = (start + PAGE).min(from.len());
    if start >= end {
        return;
    }
    if to.len() < end {
        to.resize(end, 0);
    }
    to[start..end].copy_from_slice(&from[start..end]);
}

fn killed() -> io::Error {
    io::Error::other("killed")
}

impl State {
    /// Counts a call; an error if the process was killed before it, or if it is one that fails.
    fn call(&mut self, call: Call) -> io::Result<()> {
        if self.killed {
            return Err(killed());
        }
        self.calls += 1;
        if let Some(left) = &mut self.calls_left {
            if *left == 0 {
                self.killed = true;
                return Err(killed());
            }
            *left -= 1;
        }
        match self.failing {
            Some((failing, kind)) if failing == call => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn add_inode(&mut self) -> usize {
        let born = self.inodes.len() as i64 + 1;
        self.inodes.push(Inode {
            born,
            ..Inode::default()
        });
        self.inodes.len() - 1
    }

    fn found(&self, inode: usize) -> Found {
        let file = &self.inodes[inode];
        Found {
            identity: Identity {
                device: 1,
                inode: inode as u64,
                born_unix_nano: file.born,
            },
            length: file.content.len() as u64,
            is_file: true,
        }
    }

    fn needs_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.directories.contains(parent) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

struct ModelDisk {
    world: World,
    incarnation: u64,
}

impl ModelDisk {
    fn file(&self, inode: usize) -> Box<dyn OpenFile> {
        Box::new(ModelFile {
            world: self.world.clone(),
            inode,
            incarnation: self.incarnation,
        })
    }
}

impl Disk for ModelDisk {
    fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        let state = self.world.state();
        if state.directories.contains(path) {
            return Ok(Some(Found {
                identity: Identity {
                    device: 1,
                    inode: u64::MAX,
                    born_unix_nano: 0,
                },
                length: 0,
                is_file: false,
            }));
        }
        if state.needs_parent(path).is_err() {
            return Ok(None);
        }
        Ok(state.names.get(path).map(|&inode| state.found(inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let mut state = self.world.state();
        state.call(Call::Open)?;
        state.needs_parent(path)?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if state.inodes[inode].read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(self.file(inode))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let mut state = self.world.state();
        state.call(Call::Create)?;
        state.needs_parent(path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add_inode();
        state.names.insert(path.to_owned(), inode);
        Ok(self.file(inode))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.world.state();
        state.needs_parent(path)?;
        state.directories.insert(path.to_owned());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.world.state();
        state.call(Call::Rename)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.world.state();
        state.call(Call::SyncDirectory)?;
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn make_read_only(&self, path: &Path) -> io::Result<()> {
        let mut state = self.world.state();
        state.call(Call::ReadOnly)?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.inodes[inode].read_only = true;
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.world.state();
        state.call(Call::Remove)?;
        state
            .names
            .remove(path)
            .map(drop)
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let state = self.world.state();
        let inside = state
            .names
            .keys()
            .filter(|path| path.parent() == Some(directory));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(OsString::from)
            .collect())
    }
}

struct ModelFile {
    world: World,
    inode: usize,
    incarnation: u64,
}

impl ModelFile {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.world.state();
        assert_eq!(
            state.incarnation, self.incarnation,
            "a dead process touches a file"
        );
        state
    }
}

impl OpenFile for ModelFile {
    fn found(&self) -> io::Result<Found> {
        Ok(self.state().found(self.inode))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state();
        let offset = offset as usize;
        let content = state.inodes[self.inode]
            .content
            .get(offset..offset + bytes.len());
        bytes.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let outcome = state.call(Call::Write);
        let fresh =
            (offset as usize + bytes.len()).saturating_sub(state.inodes[self.inode].content.len());
        let no_room = state.room.is_some_and(|room| room < fresh);
        let written = match &outcome {
            Ok(()) if !no_room => bytes.len(),
            // Some of it is there.
            _ => state.dice.below(bytes.len() as u64) as usize,
        };
        let written = match state.room {
            Some(room) => written.min(room + bytes.len() - fresh),
            None => written,
        };
        let file = &mut state.inodes[self.inode];
        let (start, end) = (offset as usize, offset as usize + written);
        let before = file.content.len();
        if before < end {
            file.content.resize(end, 0);
        }
        file.content[start..end].copy_from_slice(&bytes[..written]);
        file.dirty.extend(start / PAGE..end.div_ceil(PAGE));
        let grown = end.saturating_sub(before);
        if let Some(room) = &mut state.room {
            *room = room.saturating_sub(grown);
        }
        outcome?;
        if no_room {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::Truncate)?;
        let file = &mut state.inodes[self.inode];
        let length = length as usize;
        let freed = file.content.len().saturating_sub(length);
        file.content.resize(length, 0);
        file.dirty.retain(|page| page * PAGE < length);
        file.dirty.insert(length / PAGE);
        if let Some(room) = &mut state.room {
            *room += freed;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let outcome = state.call(Call::Sync);
        let is_killed = state.killed;
        let file = &mut state.inodes[self.inode];
        if let Err(error) = outcome {
            if !is_killed {
                file.dirty.clear(); // what the kernel does: the pages count as written, and are not
            }
            return Err(error);
        }
        for page in std::mem::take(&mut file.dirty) {
            copy_page(&file.content, &mut file.synced, page);
        }
        file.synced.resize(file.content.len(), 0);
        Ok(())
    }
}

impl Marks for World {
    fn current(&self, _reader: &str) -> Option<Mark> {
        self.state().marks.back().cloned()
    }

    fn mark(&self, mark: Mark) {
        let mut state = self.state();
        if state.call(Call::Mark).is_ok() {
            state.marks.push_back(mark);
        }
        self.0.1.notify_all();
    }

    fn mark_synced(&self, mark: Mark) -> Result<(), MarkError> {
        let mut state = self.state();
        let outcome = state.call(Call::Mark);
        if outcome.is_ok() {
            state.marks = [mark].into();
        } else if state.dice.one_in(2) && !state.marks.is_empty() {
            state.marks.push_back(mark); // written all the same
        } else if state.dice.one_in(2) && state.marks.is_empty() {
            state.marks = [mark].into();
        }
        self.0.1.notify_all();
        outcome.map_err(|error| MarkError {
            reason: error.to_string(),
        })
    }
}

impl OwnEvents for World {
    fn raise(&self, name: &'static str, attributes: Vec<(String, String)>, _body: String) {
        self.state().raised.push((name, attributes));
    }

    fn wait_durable(&self, _at_most: Duration) -> bool {
        true
    }
}

/// The items of a world, read from the front.
struct ListedItems {
    world: World,
    next: [u64; LANES],
}

impl Items for ListedItems {
    fn next(&mut self, lane: LaneNo) -> Result<Option<ReadItem>, ReadError> {
        let state = self.world.state();
        let Some(bytes) = state.lanes[lane].get(self.next[lane] as usize) else {
            return Ok(None);
        };
        let item = ReadItem {
            lane,
            no: ItemNo(self.next[lane]),
            bytes: bytes.clone(),
        };
        self.next[lane] += 1;
        Ok(Some(item))
    }

    fn position(&self, lane: LaneNo) -> ItemNo {
        ItemNo(self.next[lane])
    }

    fn seek(&mut self, lane: LaneNo, to: ItemNo) {
        self.next[lane] = to.0;
    }

    fn has_next(&self, lane: LaneNo) -> bool {
        (self.next[lane] as usize) < self.world.state().lanes[lane].len()
    }
}
