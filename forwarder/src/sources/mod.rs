//! Where events come from: a folder a kind.
//!
//! To add a kind: a folder with its configuration and its source, a variant of [`Source`], and an arm in each match here; what it keeps
//! between runs goes into the spool's state under a key that names the source.

pub(crate) mod file;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::fs::fstat;
use watchline_spool::Spool;

use self::file::{FileConfig, FileSource, FileStatus, Intake};
use crate::{batch::SourceNo, hints::Hints, lanes::Lanes};

/// A `[[source]]`, valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SourceConfig {
    File(FileConfig),
}

impl SourceConfig {
    pub(crate) fn name(&self) -> &str {
        match self {
            SourceConfig::File(file) => &file.name,
        }
    }
}

/// Files that are the forwarder's own and never read, whatever the patterns say: they would feed themselves, or give a key away.
#[derive(Debug, Default)]
pub(crate) struct OwnFiles {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    /// Where standard error goes, if that is a file.
    log: Option<(u64, u64)>,
}

impl OwnFiles {
    pub(crate) fn new(files: Vec<PathBuf>, directories: Vec<PathBuf>) -> OwnFiles {
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let log = fstat(std::io::stderr()).ok();
        let is_file =
            |stat: &rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        OwnFiles {
            files,
            directories: directories.into_iter().map(real).collect(),
            log: log.filter(is_file).map(|stat| (stat.st_dev, stat.st_ino)),
        }
    }

    pub(crate) fn covers(&self, path: &Path, dev: u64, ino: u64) -> bool {
        if self.log == Some((dev, ino)) {
            return true;
        }
        let is_file = |own: &PathBuf| {
            rustix::fs::stat(own).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (dev, ino))
        };
        let within = || {
            let real = path.canonicalize();
            let real = real.as_deref().unwrap_or(path);
            self.directories
                .iter()
                .any(|directory| real.starts_with(directory))
        };
        self.files.iter().any(is_file) || within()
    }
}

/// One configured source.
enum Source {
    File(FileSource),
}

/// How a source stands, for `/status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SourceStatus {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Files that are followed or cannot be read; `listed` of them are in `files`.
    pub(crate) followed: usize,
    pub(crate) unreadable: usize,
    pub(crate) held_bytes: u64,
    pub(crate) files: Vec<FileStatus>,
}

/// Files of one source that `/status` lists.
const LISTED_FILES: usize = 200;

/// All configured sources, read in turn: a block each.
pub(crate) struct Sources {
    list: Vec<Source>,
    next: usize,
    own: Arc<OwnFiles>,
}

impl Sources {
    /// Goes on where `spool` says that each source was.
    pub(crate) fn open(
        configs: &[SourceConfig],
        own: Arc<OwnFiles>,
        lanes: &Lanes,
        spool: &Spool,
    ) -> Sources {
        let mut sources = Sources {
            list: Vec::new(),
            next: 0,
            own,
        };
        sources.reconfigure(configs, lanes, spool);
        sources
    }

    /// Takes another configuration: sources that stay by name and kind go on, others are opened; what is left out is no longer
    /// read, and its positions are kept for the day that it comes back.
    pub(crate) fn reconfigure(&mut self, configs: &[SourceConfig], lanes: &Lanes, spool: &Spool) {
        let mut before = std::mem::take(&mut self.list);
        self.next = 0;
        for (no, config) in configs.iter().enumerate() {
            let no = SourceNo(no);
            match config {
                SourceConfig::File(config) => {
                    let known = before
                        .iter()
                        .position(|Source::File(file)| file.name() == config.name);
                    let mut source = match known {
                        Some(at) => before.swap_remove(at),
                        None => {
                            let (positions, started_before) = stored(spool, &config.name);
                            let own = Arc::clone(&self.own);
                            Source::File(FileSource::new(
                                no,
                                config.clone(),
                                own,
                                lanes,
                                positions,
                                started_before,
                            ))
                        }
                    };
                    let Source::File(file) = &mut source;
                    file.reconfigure(no, config.clone(), lanes);
                    self.list.push(source);
                }
            }
        }
    }

    /// See [`FileSource::look`].
    pub(crate) fn look(&mut self, hints: &Hints, tick: bool, intake: &mut Intake<'_>) {
        for Source::File(file) in &mut self.list {
            file.look(hints, tick, intake);
        }
    }

    /// Reads one block of the next source that has something; `false` when none has.
    pub(crate) fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        for _ in 0..self.list.len() {
            self.next = (self.next + 1) % self.list.len();
            let Source::File(file) = &mut self.list[self.next];
            if file.is_ready() && file.read(intake) {
                return true;
            }
        }
        false
    }

    /// Whether [`Sources::read`] would find something to try.
    pub(crate) fn is_ready(&self) -> bool {
        self.list.iter().any(|Source::File(file)| file.is_ready())
    }

    /// Whether something is to be stored that no event will bring along.
    pub(crate) fn owes_state(&self) -> bool {
        self.list.iter().any(|Source::File(file)| file.owes_state())
    }

    /// Puts into `state` what has to be stored with the next frame.
    pub(crate) fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        for Source::File(file) in &mut self.list {
            file.moved(state);
        }
    }

    /// Goes back to what `spool` holds after a recovery.
    pub(crate) fn rewind(&mut self, spool: &Spool) {
        for Source::File(file) in &mut self.list {
            let (positions, started_before) = stored(spool, file.name());
            file.rewind(positions, started_before);
        }
    }

    /// Directories in which something may happen.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        self.list
            .iter()
            .flat_map(|Source::File(file)| file.directories())
            .map(Path::to_owned)
            .collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|Source::File(file)| file.name())
    }

    pub(crate) fn status(&self) -> Vec<SourceStatus> {
        let status = |Source::File(file): &Source| {
            let (followed, files) = file.status(LISTED_FILES);
            let (name, unreadable) = (file.name().to_owned(), file.refused());
            SourceStatus {
                name,
                kind: "file",
                followed,
                unreadable,
                held_bytes: file.held_bytes(),
                files,
            }
        };
        self.list.iter().map(status).collect()
    }
}

/// What the spool's state holds for one source.
fn stored(spool: &Spool, source: &str) -> (BTreeMap<file::FileKey, file::Position>, bool) {
    let prefix = file::positions_prefix(source);
    let positions = spool
        .state_with_prefix(prefix.as_bytes())
        .filter_map(|(key, value)| file::read_position(&key[prefix.len()..], value))
        .collect();
    (
        positions,
        spool.state(&file::first_start_key(source)).is_some(),
    )
}
