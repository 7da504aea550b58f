//! Windows event files (`.evtx`), as they are collected on a host or kept there: found by patterns, read record by record, followed as they grow.
//!
//! ```text
//! patterns ─▶ files ─▶ chunks, in the order of their record ids ─▶ the evtx crate ─▶ JSON ─▶ records
//! ```
//!
//! **The body** is the event as JSON with the structure of its XML: elements are objects, their attributes `#attributes`, their text `#text` where it
//! stands beside attributes. The record's own bytes cannot be the body: they are of no use without the templates that other records of their
//! chunk hold.
//!
//! **Exact**: the id of the last record and a hash of its bytes are stored in the frame that holds the events. A file is continued behind that
//! record, be it appended to, written in a circle, renamed, or replaced by a later export of the same channel. Ids that are missing are a gap
//! with their number (`missing_records`, or `damaged_chunk` where something there could not be read). A log that was cleared, or replaced by
//! another one, is read from its first record, with a gap `rewritten` where its ids begin again.
//!
//! **Not exact**: what was in a damaged place behind the last readable record is told, but counted only where the chunk's header says how much
//! it was. Between two files of one channel (an archived log and its successor) ids are not compared. Two copies of one log in the same source
//! are two files. Checksums are not looked at: in a file that was not closed they are those of some time before.
//!
//! Cost: the `evtx` crate (without its command line program) brings some thirty crates into the build, and 4 µs a record.
//!
//! Memory: [`MAX_FILES`] files with their handle and a few hundred bytes each, and what `chunk` says for the one that is read.

mod chunk;
mod known;
mod log;
mod position;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use watchline_proto::Hash;
use watchline_spool::Spool;

use self::{
    log::{Log, LogKey, Step},
    position::Position,
};
use super::file::{
    Directories, EntryKind, Excludes, Inode, PathPattern, StartAt, modified_unix_nano,
    open::{OpenError, open},
};
use crate::{
    batch::{Moment, SourceNo},
    gaps::path_text,
    hints::Hints,
    lanes::Lanes,
    sources::{
        Common, FileStatus, FirstStart, Intake, OwnFiles, Place, Source, SourceConfig, SourceStatus,
    },
};

/// Files of one source, followed or remembered.
const MAX_FILES: usize = 1024;
/// Files that `/status` lists.
const LISTED_FILES: usize = 200;

/// A `[[source]]` of kind `evtx`, valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EvtxConfig {
    pub(crate) name: String,
    pub(crate) common: Common,
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) exclude: Excludes,
    pub(crate) start_at: StartAt,
    /// Bytes of one record as JSON; a longer one is cut.
    pub(crate) max_record: usize,
}

/// See the module. Belongs to the reader's thread.
pub(crate) struct EvtxSource {
    no: SourceNo,
    config: EvtxConfig,
    own: Arc<OwnFiles>,
    /// Whether the source was started before: then a file that appears is new.
    started_before: bool,
    owes_first_start: bool,
    first_start: FirstStart,
    logs: BTreeMap<LogKey, Log>,
    /// Positions whose file is not there.
    orphans: BTreeMap<LogKey, Position>,
    removed: BTreeSet<LogKey>,
    ready: VecDeque<LogKey>,
    directories: Directories,
    /// Paths that cannot be read, and why; said once each.
    refused: BTreeMap<PathBuf, String>,
    keys: u64,
}

impl EvtxSource {
    /// Goes on where `spool` says that the source was.
    pub(crate) fn open(
        no: SourceNo,
        config: EvtxConfig,
        own: Arc<OwnFiles>,
        spool: &Spool,
    ) -> EvtxSource {
        let (positions, started_before) = stored(spool, &config.name);
        EvtxSource::new(no, config, own, positions, started_before)
    }

    fn new(
        no: SourceNo,
        config: EvtxConfig,
        own: Arc<OwnFiles>,
        orphans: BTreeMap<LogKey, Position>,
        started_before: bool,
    ) -> EvtxSource {
        EvtxSource {
            no,
            config,
            own,
            started_before,
            owes_first_start: !started_before,
            first_start: FirstStart::AsConfigured,
            logs: BTreeMap::new(),
            orphans,
            removed: BTreeSet::new(),
            ready: VecDeque::new(),
            directories: Directories::default(),
            refused: BTreeMap::new(),
            keys: 0,
        }
    }

    /// Files that the patterns lead to now, one path each.
    fn found(&mut self, now: Moment) -> HashMap<Inode, (PathBuf, (u64, i64))> {
        self.directories.begin(false, now.unix_nano);
        let mut paths = BTreeSet::new();
        for pattern in &self.config.paths {
            pattern.walk(&mut self.directories, &mut |path, entry| {
                if matches!(entry.kind, EntryKind::File | EntryKind::Link) {
                    paths.insert(path);
                }
            });
        }
        self.directories.end();
        let mut found = HashMap::new();
        for path in paths {
            if self.config.exclude.covers(&path) {
                continue;
            }
            let Ok(meta) = std::fs::metadata(&path) else {
                continue;
            };
            if meta.is_file() {
                let inode = Inode {
                    dev: meta.dev(),
                    ino: meta.ino(),
                };
                let stamp = (meta.len(), modified_unix_nano(&meta));
                found.entry(inode).or_insert((path, stamp));
            }
        }
        found
    }

    /// Looks at everything.
    fn scan(&mut self, intake: &mut Intake<'_>) {
        let at_end = self.config.start_at == StartAt::End;
        if !self.started_before && at_end && self.first_start == FirstStart::Wait {
            return;
        }
        let now = intake.now;
        let mut found = self.found(now);
        self.refused
            .retain(|path, _| found.values().any(|(still, _)| still == path));
        let (mut left, mut changed) = (Vec::new(), Vec::new());
        for log in self.logs.values_mut() {
            match found.remove(&log.inode) {
                Some((path, stamp)) => {
                    log.moved |= log.path.as_ref() != Some(&path);
                    log.path = Some(path);
                    if log.stamp != stamp {
                        log.changed(stamp, now.at);
                        changed.push(log.key);
                    }
                }
                None => {
                    left.push((log.key, log.path.take()));
                    // It may have been written to before its name went.
                    let meta = log.file.metadata();
                    let stamp = meta.map(|meta| (meta.len(), modified_unix_nano(&meta)));
                    if let Ok(stamp) = stamp
                        && stamp != log.stamp
                    {
                        log.changed(stamp, now.at);
                        changed.push(log.key);
                    }
                }
            }
        }
        changed.into_iter().for_each(|key| self.make_ready(key));
        // A file that was renamed takes its position along; then a new one may stand in the place of one that is gone.
        let mut new: Vec<_> = found.into_iter().collect();
        new.sort_by_key(|(inode, (path, _))| {
            let known = self.orphans.values().any(|orphan| orphan.inode == *inode);
            (!known, path.clone())
        });
        for (inode, (path, stamp)) in new {
            self.adopt(inode, path, stamp, &left, intake);
        }
        // What is gone and read to its end is remembered.
        for (key, path) in left {
            if let Some(log) = self
                .logs
                .get(&key)
                .filter(|log| log.path.is_none() && !log.queued)
            {
                let mut position = log.position(now.unix_nano);
                if let Some(path) = path {
                    position.path = path;
                }
                self.orphans.insert(key, position);
                self.logs.remove(&key);
            }
        }
        while self.orphans.len() > MAX_FILES {
            let oldest = self
                .orphans
                .iter()
                .min_by_key(|(_, position)| position.seen_unix_nano);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            self.orphans.remove(&oldest);
            self.removed.insert(oldest);
        }
        self.started_before = true;
    }

    /// Takes a file in that is not followed yet. `left`: logs that nothing leads to any more, and where they were.
    fn adopt(
        &mut self,
        inode: Inode,
        path: PathBuf,
        stamp: (u64, i64),
        left: &[(LogKey, Option<PathBuf>)],
        intake: &mut Intake<'_>,
    ) {
        if self.own.covers(&path, inode.dev, inode.ino) {
            self.refuse(path, "is the forwarder's own".to_owned());
            return;
        }
        if self.logs.len() >= MAX_FILES {
            self.refuse(
                path,
                format!("is beyond the {MAX_FILES} files that one source follows"),
            );
            return;
        }
        let file = match open(&path) {
            Ok((file, stat)) if (stat.st_dev, stat.st_ino) == (inode.dev, inode.ino) => file,
            // Another one by now: the next scan finds it.
            Ok(_) | Err(OpenError::NotFound) => return,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                self.refuse(path, format!("{error}{}", cause.unwrap_or_default()));
                return;
            }
        };
        self.refused.remove(&path);
        let now = intake.now.at;
        let place = self.place(&path, intake.lanes);
        let mut log = Log::new(
            self.new_key(inode, intake.now),
            path.clone(),
            (inode, file),
            place,
            now,
        );
        log.changed(stamp, now);
        let by_inode = self
            .orphans
            .iter()
            .find(|(_, orphan)| orphan.inode == inode);
        let by_path = || self.orphans.iter().find(|(_, orphan)| orphan.path == path);
        if let Some(key) = by_inode.or_else(by_path).map(|(key, _)| *key) {
            if let Some(position) = self.orphans.remove(&key) {
                log.key = key;
                log.resume(&position);
            }
        } else if let Some((key, _)) = left.iter().find(|(_, was)| was.as_deref() == Some(&path))
            && let Some(before) = self.logs.get(key).filter(|before| before.path.is_none())
        {
            let position = before.position(intake.now.unix_nano);
            // One that is not read to its end is, by its handle: unless the new one holds all of it.
            if !before.queued || log.holds(&position).unwrap_or(false) {
                log.key = *key;
                log.resume(&position);
                self.logs.remove(key);
            }
        } else if !self.started_before
            && let Err(error) = log.begin(
                self.config.start_at == StartAt::End
                    && self.first_start != FirstStart::FromBeginning,
            )
        {
            self.refuse(path, error.to_string());
            return;
        }
        self.make_ready(log.key);
        self.logs.insert(log.key, log);
    }

    fn make_ready(&mut self, key: LogKey) {
        if !self.ready.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn place(&self, path: &Path, lanes: &Lanes) -> Place {
        let attributes = attributes_of(path);
        let common = &self.config.common;
        match self.logs.values().next() {
            Some(log) => log.place.beside(common, attributes),
            None => self.first_place(lanes).beside(common, attributes),
        }
    }

    /// The place that those of all files are made from.
    fn first_place(&self, lanes: &Lanes) -> Place {
        let EvtxConfig {
            name,
            common,
            max_record,
            ..
        } = &self.config;
        let known = (name.as_str(), "evtx");
        Place::new(self.no, known, common, Vec::new(), *max_record, lanes)
    }

    fn new_key(&mut self, inode: Inode, now: Moment) -> LogKey {
        loop {
            self.keys += 1;
            let text = format!(
                "{} {} {} {}",
                inode.dev, inode.ino, now.unix_nano, self.keys
            );
            let [a, b, c, d, e, f, g, h, ..] = Hash::of(text.as_bytes()).0;
            let key = LogKey(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            if !self.logs.contains_key(&key) && !self.orphans.contains_key(&key) {
                return key;
            }
        }
    }

    fn refuse(&mut self, path: PathBuf, why: String) {
        if self.refused.get(&path) != Some(&why) {
            tracing::warn!(source = %self.config.name, path = %path.display(), why, "event file cannot be read");
            self.refused.insert(path, why);
        }
    }
}

/// What all events of a file say of it.
fn attributes_of(path: &Path) -> Vec<(String, String)> {
    let mut attributes = vec![("log.file.path".to_owned(), path_text(path))];
    if let Some(name) = path.file_name() {
        attributes.push(("log.file.name".to_owned(), path_text(Path::new(name))));
    }
    attributes
}

impl Source for EvtxSource {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reconfigure(&mut self, no: SourceNo, config: &SourceConfig, lanes: &Lanes) -> bool {
        let SourceConfig::Evtx(config) = config else {
            return false;
        };
        (self.no, self.config) = (no, config.clone());
        let first = self.first_place(lanes);
        for log in self.logs.values_mut() {
            log.place = first.beside(&self.config.common, attributes_of(&log.name));
        }
        true
    }

    fn begin(&mut self, first_start: FirstStart) {
        self.first_start = first_start;
    }

    fn has_begun(&self) -> bool {
        !self.owes_first_start
    }

    fn look(&mut self, hints: &Hints, tick: bool, intake: &mut Intake<'_>) {
        let hinted = |log: &Log| {
            log.path
                .as_ref()
                .is_some_and(|path| hints.files.contains(path))
        };
        for directory in &hints.directories {
            self.directories.distrust(directory);
        }
        let hinted = !hints.directories.is_empty()
            && self
                .directories
                .known()
                .any(|known| hints.directories.contains(known))
            || self.logs.values().any(hinted);
        if tick || hints.everything || hinted {
            self.scan(intake);
        }
        if tick {
            // What is held waits for the time, not for a change.
            let held: Vec<LogKey> = (self.logs.values())
                .filter(|log| log.queued)
                .map(|log| log.key)
                .collect();
            held.into_iter().for_each(|key| self.make_ready(key));
        }
    }

    fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        while let Some(key) = self.ready.pop_front() {
            let Some(log) = self.logs.get_mut(&key) else {
                continue;
            };
            let step = log.read(&self.config.name, intake);
            if step.is_ok() && !self.refused.is_empty() {
                self.refused.remove(&log.name);
            }
            match step {
                Ok(Step::More | Step::NoRoom) => {
                    self.ready.push_back(key);
                    return true;
                }
                Ok(Step::Idle) => log.queued = false,
                Ok(Step::Held) => {}
                Err(error) => {
                    let path = log.name.clone();
                    self.refuse(path, format!("cannot be read: {error}"));
                }
            }
        }
        false
    }

    fn owes_state(&self) -> bool {
        self.owes_first_start && self.started_before
            || !self.removed.is_empty()
            || self.logs.values().any(|log| log.moved)
    }

    fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        let now = Moment::now().unix_nano;
        for log in self.logs.values_mut().filter(|log| log.moved) {
            log.moved = false;
            let position = log.position(now).encode();
            state.push((position_key(&self.config.name, log.key), Some(position)));
        }
        for key in std::mem::take(&mut self.removed) {
            state.push((position_key(&self.config.name, key), None));
        }
        if self.owes_first_start && self.started_before {
            self.owes_first_start = false;
            state.push((
                first_start_key(&self.config.name),
                Some(Bytes::from_static(&[1])),
            ));
        }
    }

    fn rewind(&mut self, spool: &Spool) {
        let (mut positions, started_before) = stored(spool, &self.config.name);
        self.owes_first_start = !started_before;
        self.ready.clear();
        self.removed.clear();
        let never = |log: &Log| Position {
            last: None,
            backfill_end: 0,
            told: 0,
            ..log.position(0)
        };
        for log in self.logs.values_mut() {
            let position = positions.remove(&log.key).unwrap_or_else(|| never(log));
            log.resume(&position);
            (log.queued, log.moved) = (true, true);
            self.ready.push_back(log.key);
        }
        self.orphans = positions;
    }

    /// What is not read stays in its files.
    fn stop(&mut self) {
        self.ready.clear();
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.directories.known().map(Path::to_owned).collect()
    }

    fn status(&self) -> SourceStatus {
        let refused = self.refused.iter().map(|(path, why)| FileStatus {
            path: path_text(path),
            offset: 0,
            size: 0,
            lag_bytes: 0,
            note: Some(why.clone()),
        });
        let followed = self.logs.values().map(|log| FileStatus {
            path: path_text(log.path.as_deref().unwrap_or(&log.name)),
            // Records, not bytes: how much of the file is used is not known.
            offset: log.last.map_or(0, |last| last.id),
            size: log.stamp.0,
            lag_bytes: 0,
            note: match (&log.path, log.last) {
                (None, _) => Some("has no name any more".to_owned()),
                (_, Some(last)) => Some(format!("read up to record {}", last.id)),
                _ => None,
            },
        });
        SourceStatus {
            name: self.config.name.clone(),
            kind: "evtx",
            followed: self.logs.len(),
            unreadable: self.refused.len(),
            files: refused.chain(followed).take(LISTED_FILES).collect(),
            ..SourceStatus::default()
        }
    }
}

fn position_key(source: &str, key: LogKey) -> Bytes {
    format!("{}{:016x}", positions_prefix(source), key.0).into()
}

fn positions_prefix(source: &str) -> String {
    format!("evtx/{source}/")
}

/// Says that the source has been started once.
fn first_start_key(source: &str) -> Bytes {
    format!("evtx_first_start/{source}").into()
}

/// Reads one entry of the state; `key` is what follows [`positions_prefix`].
fn read_position(key: &[u8], value: &[u8]) -> Option<(LogKey, Position)> {
    let key = str::from_utf8(key).ok()?;
    let key = u64::from_str_radix(key, 16).ok()?;
    match Position::decode(value) {
        Ok(position) => Some((LogKey(key), position)),
        Err(error) => {
            tracing::error!(%error, "a stored position cannot be read: its file is found like a new one");
            None
        }
    }
}

fn stored(spool: &Spool, source: &str) -> (BTreeMap<LogKey, Position>, bool) {
    let prefix = positions_prefix(source);
    let positions = spool
        .state_with_prefix(prefix.as_bytes())
        .filter_map(|(key, value)| read_position(&key[prefix.len()..], value))
        .collect();
    (positions, spool.state(&first_start_key(source)).is_some())
}
