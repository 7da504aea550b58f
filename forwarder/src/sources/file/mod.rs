//! Files: found by patterns, followed through rotation, read exactly.
//!
//! ```text
//! globs + directories ─▶ which names lead to which inodes ─▶ rotation ─▶ which content is that ─▶ tail ─▶ records
//! ```
//!
//! A file is known by what is in it: device and inode say where to look, a hash of its first KiB and one of the bytes before the
//! offset say whether it is still the same. A look at everything each second is the truth; hints only make it come sooner.
//!
//! - renamed: the open handle is read to its end; its new name is found by inode in its directory, outside the patterns too
//! - generations that came and went between two looks are found by their rotated names, and read in order
//! - cut (copytruncate) or rewritten: read from 0; what was unread goes on in the copy if there is one, else it is a gap
//! - a copy beside the original follows the original's offset for as long as both agree: nothing is read twice
//! - removed: read to its end through the handle, up to `max_held` unread bytes of such files
//! - packed while half read, and its handle gone: the rest is read from inside the packed file; packed files are not read otherwise
//! - its directory out of reach: nothing is taken for gone; known again by its content when it is back
//! - generations of one name, by rotated names within the patterns too, are read in the order in which they were written
//!
//! Not here: what lies beyond the handle of a removed file after a restart; content that was rewritten to the same bytes in the head and
//! before the offset.

mod copies;
mod directories;
mod framing;
mod globs;
mod identity;
mod keeping;
mod look;
mod names;
mod old;
pub(crate) mod open;
mod packed;
mod position;
mod relocate;
mod rotation;
mod scan;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use directories::{Directories, EntryKind, modified_unix_nano};
pub(crate) use framing::{Encoding, Encodings, Multiline};
pub(crate) use globs::{Excludes, PathPattern};
pub(crate) use identity::Inode;
pub(crate) use position::{FileKey, Position};

use bytes::Bytes;
use regex::bytes::Regex;
use watchline_spool::Spool;

use self::{directories::Entry, old::TooOld, open::OpenError, tail::Tail};
use crate::{
    batch::SourceNo,
    gaps::path_text,
    hints::Hints,
    lanes::{Lanes, Matcher},
    patterns::pattern,
    sources::{
        Common, EVENT_TIMEOUT, FileStatus, FirstStart, Intake, OwnFiles, Rules, Source,
        SourceConfig, SourceStatus, Zone,
    },
};

/// Files of one source that `/status` lists.
const LISTED_FILES: usize = 200;
/// After a scan hints wait for so many times as long as it took; the next look at everything does not.
const SCANS_REST: u32 = 20;
/// Open files of one source, at most; the ones longest idle are closed and opened again when they grow.
const MAX_OPEN: usize = 512;
/// … and this part of the descriptors that the process may have.
const OPEN_SHARE: u64 = 4;

/// Where reading begins in a file that is there when its source is started for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartAt {
    Beginning,
    End,
}

/// `time` of a source: where the time and the severity of its records come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// From the beginning of each record, where it has a form that is known.
    Auto,
    /// They are unknown.
    None,
}

/// What a record of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// A line, or several.
    Lines,
    /// The records of one event of the audit daemon.
    Audit,
}

impl Records {
    /// The `kind` of such a source.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Records::Lines => "file",
            Records::Audit => "audit",
        }
    }
}

/// A `[[source]]` of kind `file` or `audit`, valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileConfig {
    pub(crate) name: String,
    pub(crate) common: Common,
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) exclude: Excludes,
    pub(crate) start_at: StartAt,
    /// Bytes of one record; a longer line is cut.
    pub(crate) max_record: usize,
    /// An incomplete last line is sent when it has not grown for so long.
    pub(crate) idle_flush: Duration,
    pub(crate) encoding: Encodings,
    /// `None`: every line is a record.
    pub(crate) multiline: Option<Multiline>,
    /// Files that were last written longer ago when they are first seen are not begun until they grow.
    pub(crate) ignore_older: Option<Duration>,
    pub(crate) time: Times,
    /// Unread bytes of files that have no name any more, at most: beyond, the oldest file is given up, as a gap.
    pub(crate) max_held: u64,
    pub(crate) records: Records,
}

impl FileConfig {
    /// How long what is left at the end of a file waits for more: whole lines, or a line that is not complete.
    fn waits_for(&self, complete: bool) -> Duration {
        if self.records == Records::Audit {
            return if complete {
                EVENT_TIMEOUT
            } else {
                self.idle_flush.max(EVENT_TIMEOUT)
            };
        }
        match &self.multiline {
            Some(multiline) if complete => multiline.timeout,
            Some(multiline) => self.idle_flush.max(multiline.timeout),
            None => self.idle_flush,
        }
    }

    /// The least of it.
    fn waits_at_least(&self) -> Duration {
        self.waits_for(true).min(self.waits_for(false))
    }

    /// What tells records of several lines apart.
    fn start(&self) -> Option<Regex> {
        // Checked when the configuration was read.
        self.multiline
            .as_ref()
            .and_then(|multiline| pattern(&multiline.start).ok())
    }
}

/// Why a path is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    why: String,
    may_be_planted: bool,
}

/// A directory out of reach.
#[derive(Debug, Clone, Copy)]
struct Away {
    since: Instant,
    /// There is something to be read in it, or it is there and cannot be read.
    is_trouble: bool,
}

/// See the module. Belongs to the reader's thread.
pub(crate) struct FileSource {
    no: SourceNo,
    config: FileConfig,
    matcher: Option<Arc<Matcher>>,
    rules: Option<Arc<Rules>>,
    start: Option<Regex>,
    zone: Option<Zone>,
    own: Arc<OwnFiles>,
    /// Whether the source was started before: then a file that appears is new, and read from its beginning.
    started_before: bool,
    /// The mark of the first start is not stored yet.
    owes_first_start: bool,
    first_start: FirstStart,
    /// Sizes of the files that were there when it began to wait for its first start.
    waited_with: Option<HashMap<Inode, u64>>,
    tails: BTreeMap<FileKey, Tail>,
    by_inode: HashMap<Inode, FileKey>,
    by_path: HashMap<PathBuf, FileKey>,
    /// Tails by the last component of their names and paths.
    by_base: HashMap<OsString, Vec<FileKey>>,
    /// Tails by the name they were found under.
    generations: HashMap<PathBuf, Vec<FileKey>>,
    /// Tails by the name that their generations have in common.
    families: HashMap<PathBuf, Vec<FileKey>>,
    /// Of families with several members, those that have something that comes before the newest; by when they were found.
    owing: HashMap<PathBuf, BTreeSet<(i64, FileKey)>>,
    /// When the last scan began.
    looked_unix_nano: Option<i64>,
    /// Families that a member was added to since this scan began, or that were gone on with.
    joined: BTreeSet<PathBuf>,
    /// Positions whose file is not there, or not found yet.
    orphans: BTreeMap<FileKey, Position>,
    moved_orphans: BTreeSet<FileKey>,
    /// Positions without a tail that events of the open batch were taken from: they go into its frame.
    read_since: BTreeSet<FileKey>,
    removed: BTreeSet<FileKey>,
    /// Tails with something to read. One that is not `queued` has been read in the turn of another.
    ready: VecDeque<FileKey>,
    directories: Directories,
    /// What the patterns led to in the last scan.
    matched: Option<Arc<BTreeMap<PathBuf, Entry>>>,
    /// Tails that another name leads to since this scan began.
    relocated: Vec<FileKey>,
    /// Directories that positions wait for.
    away: HashMap<PathBuf, Away>,
    /// Paths that cannot be read, and why; said once each.
    refused: BTreeMap<PathBuf, Refusal>,
    /// Handles that are open, about: counted anew with each tick.
    open_files: usize,
    max_open: usize,
    aliases: HashSet<PathBuf>,
    too_old: HashMap<PathBuf, TooOld>,
    rounds: u64,
    /// Hints alone make no scan before this: a busy directory costs a twentieth of a core at most.
    scan_pays_from: Option<Instant>,
}

impl FileSource {
    /// Goes on where `spool` says that the source was.
    pub(crate) fn open(
        no: SourceNo,
        config: FileConfig,
        own: Arc<OwnFiles>,
        lanes: &Lanes,
        spool: &Spool,
    ) -> FileSource {
        let (positions, started_before) = state::stored(spool, &config.name);
        FileSource::new(no, config, own, lanes, positions, started_before)
    }

    /// `positions` is what the spool's state holds for this source.
    pub(crate) fn new(
        no: SourceNo,
        config: FileConfig,
        own: Arc<OwnFiles>,
        lanes: &Lanes,
        positions: BTreeMap<FileKey, Position>,
        started_before: bool,
    ) -> FileSource {
        FileSource {
            no,
            matcher: lanes.matcher(&config.name),
            rules: Rules::compile(&config.common),
            start: config.start(),
            zone: Zone::host(),
            config,
            own,
            started_before,
            owes_first_start: !started_before,
            first_start: FirstStart::AsConfigured,
            waited_with: None,
            tails: BTreeMap::new(),
            by_inode: HashMap::new(),
            by_path: HashMap::new(),
            by_base: HashMap::new(),
            generations: HashMap::new(),
            families: HashMap::new(),
            owing: HashMap::new(),
            joined: BTreeSet::new(),
            looked_unix_nano: None,
            orphans: positions,
            moved_orphans: BTreeSet::new(),
            read_since: BTreeSet::new(),
            removed: BTreeSet::new(),
            ready: VecDeque::new(),
            directories: Directories::default(),
            matched: None,
            relocated: Vec::new(),
            away: HashMap::new(),
            refused: BTreeMap::new(),
            open_files: 0,
            max_open: max_open(),
            aliases: HashSet::new(),
            too_old: HashMap::new(),
            rounds: 0,
            scan_pays_from: None,
        }
    }

    /// Takes another configuration of the same source: what is followed stays followed, unless no pattern leads to it.
    pub(crate) fn reconfigure(&mut self, no: SourceNo, config: FileConfig, lanes: &Lanes) {
        self.no = no;
        self.matcher = lanes.matcher(&config.name);
        self.rules = Rules::compile(&config.common);
        self.start = config.start();
        self.zone = Zone::host();
        self.config = config;
        self.matched = None;
        self.tails.values_mut().for_each(Tail::forget_origins);
    }

    /// Looks at what `hints` name, and at everything with each `tick` (about a second). Losses that it finds go into the intake's batch.
    pub(crate) fn look(&mut self, hints: &Hints, tick: bool, intake: &mut Intake<'_>) {
        if self.waits_to_begin() {
            return self.remember_sizes();
        }
        if tick || hints.everything {
            let all: Vec<FileKey> = self.tails.keys().copied().collect();
            for key in all {
                self.look_at(key, intake);
            }
        } else {
            for path in &hints.files {
                if let Some(&key) = self.by_path.get(path) {
                    self.look_at(key, intake);
                }
            }
        }
        let mut hinted = false;
        for directory in &hints.directories {
            if self.directories.known().any(|known| known == directory) {
                self.directories.distrust(directory);
                hinted = true;
            }
        }
        let pays = self.scan_pays_from.is_none_or(|from| intake.now.at >= from);
        if tick || hints.everything || hinted && pays {
            let begun = Instant::now();
            self.scan(intake);
            self.scan_pays_from = Some(intake.now.at + begun.elapsed() * SCANS_REST);
        }
        if tick {
            self.follow_copies();
            self.give_up_held(intake);
            self.flush_waiting(intake.now);
            self.close_idle(intake.now);
        }
    }

    /// Bytes that are there and not read, of files that have no name any more.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.tails
            .values()
            .filter(|tail| tail.path.is_none())
            .map(Tail::unread_bytes)
            .sum()
    }

    /// At most `most` files, and how many there are.
    pub(crate) fn status(&self, most: usize) -> (usize, Vec<FileStatus>) {
        let followed = self.tails.values().map(|tail| FileStatus {
            path: tail
                .path
                .as_deref()
                .map_or_else(|| path_text(&tail.name), path_text),
            offset: tail.offset,
            size: tail.size,
            lag_bytes: tail.unread_bytes(),
            note: match (&tail.path, tail.copy_of, tail.in_pattern) {
                _ if tail.packed.is_some() => {
                    Some(format!("was {}, and is packed", path_text(&tail.name)))
                }
                (None, ..) => Some("has no name any more".to_owned()),
                (_, Some(_), _) => Some("a copy of a file that is followed".to_owned()),
                (_, _, false) => Some(format!("was {}", path_text(&tail.name))),
                _ => None,
            },
        });
        let refused = self.refused.iter().map(|(path, refusal)| FileStatus {
            path: path_text(path),
            offset: 0,
            size: 0,
            lag_bytes: 0,
            note: Some(refusal.why.clone()),
        });
        let count = self.tails.len() + self.refused.len();
        (count, refused.chain(followed).take(most).collect())
    }

    /// Makes sure that the file is open. A handle that was given back may lead elsewhere by now: that shows in its content.
    fn open_again(&mut self, key: FileKey) -> Result<(), OpenError> {
        let Some(tail) = self.tails.get_mut(&key) else {
            return Ok(());
        };
        if tail.handle.is_some() {
            return Ok(());
        }
        let path = tail.path.as_deref().ok_or(OpenError::NotFound)?;
        let (file, stat) = open::open(path)?;
        if Inode::of(&stat) != tail.inode {
            return Err(OpenError::NotFound);
        }
        tail.handle = Some(file);
        self.open_files += 1;
        Ok(())
    }

    /// Says once that a file cannot be read; it is tried again with each scan, opened anew where it has a name.
    fn refuse(&mut self, key: FileKey, error: OpenError) {
        if let Some(tail) = self.tails.get_mut(&key)
            && tail.is_closable()
        {
            tail.handle = None;
            self.open_files = self.open_files.saturating_sub(1);
        }
        if let Some(path) = self.tails.get(&key).and_then(|tail| tail.path.clone())
            && !matches!(error, OpenError::NotFound)
        {
            self.refuse_path(path, &error);
        }
    }

    fn refuse_path(&mut self, path: PathBuf, error: &OpenError) {
        let why = match error {
            OpenError::Io(cause) => format!("{error}: {cause}"),
            other => other.to_string(),
        };
        let refusal = Refusal {
            why,
            may_be_planted: error.may_be_planted(),
        };
        if self.refused.get(&path) != Some(&refusal) {
            tracing::warn!(source = %self.config.name, path = %path.display(), why = refusal.why, "file cannot be read");
            self.refused.insert(path, refusal);
        }
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reconfigure(&mut self, no: SourceNo, config: &SourceConfig, lanes: &Lanes) -> bool {
        match config {
            SourceConfig::File(config) if config.records == self.config.records => {
                self.reconfigure(no, config.clone(), lanes);
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, first_start: FirstStart) {
        self.first_start = first_start;
    }

    fn has_begun(&self) -> bool {
        !self.owes_first_start
    }

    fn look(&mut self, hints: &Hints, tick: bool, intake: &mut Intake<'_>) {
        self.look(hints, tick, intake);
    }

    fn is_ready(&self) -> bool {
        self.is_ready()
    }

    fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        self.read(intake)
    }

    fn owes_state(&self) -> bool {
        self.owes_state()
    }

    fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        self.moved(state);
    }

    fn rewind(&mut self, spool: &Spool) {
        let (positions, started_before) = state::stored(spool, &self.config.name);
        self.rewind(positions, started_before);
    }

    /// What is not read stays in its files.
    fn stop(&mut self) {
        self.ready.clear();
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.directories.known().map(Path::to_owned).collect()
    }

    fn status(&self) -> SourceStatus {
        let (followed, files) = self.status(LISTED_FILES);
        let planted = self.refused.values();
        let mut away = self.away.iter().filter(|(_, away)| away.is_trouble);
        let trouble = away.next().map(|(directory, _)| {
            format!(
                "{} cannot be reached: its files are waited for",
                path_text(directory)
            )
        });
        SourceStatus {
            name: self.config.name.clone(),
            kind: self.config.records.kind(),
            followed,
            unreadable: self.refused.len(),
            planted: planted.filter(|refusal| refusal.may_be_planted).count(),
            held_bytes: self.held_bytes(),
            files,
            trouble,
        }
    }
}

/// What one source may keep open of the descriptors that this process has.
fn max_open() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(u64::MAX, |limit| limit / OPEN_SHARE);
    usize::try_from(share).map_or(MAX_OPEN, |share| share.clamp(2, MAX_OPEN))
}

/// So that a failure to read is not taken for an end.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
