//! Where events come from: a folder a kind.
//!
//! To add a kind: a folder with its configuration and an implementation of [`Source`], a variant of [`SourceConfig`], and an arm in
//! [`SourceConfig::open`]. What it keeps between runs goes into the spool's state under a key that names the source.

mod audit;
pub(crate) mod evtx;
pub(crate) mod feed;
pub(crate) mod file;
mod intake;
pub(crate) mod journald;
mod own;
mod rules;
mod stamp;
pub(crate) mod syslog;
mod zone;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use bytes::Bytes;
use watchline_spool::Spool;

pub(crate) use self::{
    audit::EVENT_TIMEOUT,
    intake::{Buffers, Intake, Place, Record},
    own::OwnFiles,
    rules::{Action, Common, Filter, LABEL_PREFIX, Rules, Verdict, mask_attribute},
    stamp::{Stamp, Stamps},
    zone::Zone,
};
use self::{
    evtx::{EvtxConfig, EvtxSource},
    feed::Waker,
    file::{FileConfig, FileSource},
    journald::{JournaldConfig, JournaldSource},
    syslog::{SyslogConfig, SyslogSource},
};
use crate::{batch::SourceNo, hints::Hints, lanes::Lanes, metrics::Metrics};

/// A `[[source]]`, valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SourceConfig {
    /// Of kind `file` and of kind `audit`, as its `records` say.
    File(FileConfig),
    Journald(JournaldConfig),
    Evtx(EvtxConfig),
    Syslog(SyslogConfig),
}

impl SourceConfig {
    pub(crate) fn name(&self) -> &str {
        match self {
            SourceConfig::File(file) => &file.name,
            SourceConfig::Journald(journald) => &journald.name,
            SourceConfig::Evtx(evtx) => &evtx.name,
            SourceConfig::Syslog(syslog) => &syslog.name,
        }
    }

    /// As in `kind`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            SourceConfig::File(file) => file.records.kind(),
            SourceConfig::Journald(_) => "journald",
            SourceConfig::Evtx(_) => "evtx",
            SourceConfig::Syslog(_) => syslog::KIND,
        }
    }

    /// Where it listens, for kinds that do.
    pub(crate) fn listens_on(&self) -> Option<Vec<String>> {
        match self {
            SourceConfig::Syslog(config) => {
                Some(config.listen.iter().map(ToString::to_string).collect())
            }
            _ => None,
        }
    }

    /// Goes on where `spool` says that the source was.
    fn open(
        &self,
        no: SourceNo,
        outside: &Outside,
        lanes: &Lanes,
        spool: &Spool,
    ) -> Box<dyn Source> {
        match self {
            SourceConfig::File(config) => {
                let own = Arc::clone(&outside.own);
                Box::new(FileSource::open(no, config.clone(), own, lanes, spool))
            }
            SourceConfig::Evtx(config) => {
                let own = Arc::clone(&outside.own);
                Box::new(EvtxSource::open(no, config.clone(), own, spool))
            }
            SourceConfig::Journald(config) => {
                let waker = Arc::clone(&outside.waker);
                Box::new(JournaldSource::open(
                    no,
                    config.clone(),
                    waker,
                    lanes,
                    spool,
                ))
            }
            SourceConfig::Syslog(config) => {
                let (config, outside) = (config.clone(), outside.clone());
                Box::new(SyslogSource::open(no, config, outside, lanes, spool))
            }
        }
    }
}

/// What sources share.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) own: Arc<OwnFiles>,
    /// Wakes the reader's thread, for sources that have threads of their own.
    pub(crate) waker: Waker,
    pub(crate) metrics: Metrics,
}

/// One configured source. Belongs to the reader's thread: no method waits for anything but a disk.
///
/// What it reads goes into the intake's batch; the pipeline then asks [`Source::moved`] for what has to be stored in the same frame, so that
/// events and the position behind them are there together or not at all.
pub(crate) trait Source: Send {
    fn name(&self) -> &str;

    /// Takes another configuration of the same source; `false`: it is one of another kind, open it anew.
    fn reconfigure(&mut self, no: SourceNo, config: &SourceConfig, lanes: &Lanes) -> bool;

    /// Says where reading begins at the first start. Sources that always begin at their beginning have nothing to do.
    fn begin(&mut self, first_start: FirstStart) {
        let _ = first_start;
    }

    /// Whether the first start is over, and stored.
    fn has_begun(&self) -> bool {
        true
    }

    /// Looks at what `hints` name, and at everything with each `tick` (about a second). Losses that it finds go into the batch.
    fn look(&mut self, hints: &Hints, tick: bool, intake: &mut Intake<'_>);

    /// Whether [`Source::read`] would find something to try.
    fn is_ready(&self) -> bool;

    /// Reads about a block; `false` when there was nothing.
    fn read(&mut self, intake: &mut Intake<'_>) -> bool;

    /// Whether something is to be stored that no event will bring along.
    fn owes_state(&self) -> bool;

    /// Puts into `state` what has to be stored with the next frame.
    fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>);

    /// Goes back to what `spool` holds: what was read since may not be stored.
    fn rewind(&mut self, spool: &Spool);

    /// What `spool` holds now is synced: it will not be asked for again.
    fn synced(&mut self, _spool: &Spool) {}

    /// Takes in nothing more from outside. What was taken in and would be lost with the process is still read.
    fn stop(&mut self);

    /// Directories in which something may happen.
    fn directories(&self) -> Vec<PathBuf>;

    fn status(&self) -> SourceStatus;
}

/// Where reading begins when a source is started for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstStart {
    /// Not known yet: what would begin at the end does not begin.
    Wait,
    AsConfigured,
    /// The host's state was lost: at the beginning, whatever the configuration says.
    FromBeginning,
}

/// How a source stands, for `/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SourceStatus {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Files that are followed or cannot be read; `listed` of them are in `files`.
    pub(crate) followed: usize,
    pub(crate) unreadable: usize,
    /// Of the unreadable, those that somebody may have planted: links, FIFOs, devices.
    pub(crate) planted: usize,
    pub(crate) held_bytes: u64,
    pub(crate) files: Vec<FileStatus>,
    /// What is wrong with it now; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// How far one file, journal or channel has been read, for `/status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct FileStatus {
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) lag_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// All configured sources, read in turn: a block each.
pub(crate) struct Sources {
    list: Vec<Box<dyn Source>>,
    next: usize,
    first_start: FirstStart,
    outside: Outside,
}

impl Sources {
    /// Goes on where `spool` says that each source was.
    pub(crate) fn open(
        configs: &[SourceConfig],
        outside: Outside,
        lanes: &Lanes,
        spool: &Spool,
    ) -> Sources {
        let mut sources = Sources {
            list: Vec::new(),
            next: 0,
            first_start: FirstStart::AsConfigured,
            outside,
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
            let known = before
                .iter()
                .position(|source| source.name() == config.name());
            let stays = known
                .map(|at| before.swap_remove(at))
                .and_then(|mut source| source.reconfigure(no, config, lanes).then_some(source));
            let source = stays.unwrap_or_else(|| {
                let mut source = config.open(no, &self.outside, lanes, spool);
                source.begin(self.first_start);
                source
            });
            self.list.push(source);
        }
    }

    /// See [`Source::begin`]; holds for sources that a reload adds, too.
    pub(crate) fn begin(&mut self, first_start: FirstStart) {
        self.first_start = first_start;
        for source in &mut self.list {
            source.begin(first_start);
        }
    }

    /// See [`Source::has_begun`].
    pub(crate) fn have_begun(&self) -> bool {
        self.list.iter().all(|source| source.has_begun())
    }

    /// See [`Source::look`].
    pub(crate) fn look(&mut self, hints: &Hints, tick: bool, intake: &mut Intake<'_>) {
        for source in &mut self.list {
            source.look(hints, tick, intake);
        }
    }

    /// Reads one block of the next source that has something; `false` when none has.
    pub(crate) fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        for _ in 0..self.list.len() {
            self.next = (self.next + 1) % self.list.len();
            let source = &mut self.list[self.next];
            if source.is_ready() && source.read(intake) {
                return true;
            }
        }
        false
    }

    /// Whether [`Sources::read`] would find something to try.
    pub(crate) fn is_ready(&self) -> bool {
        self.list.iter().any(|source| source.is_ready())
    }

    /// Whether something is to be stored that no event will bring along.
    pub(crate) fn owes_state(&self) -> bool {
        self.list.iter().any(|source| source.owes_state())
    }

    /// Puts into `state` what has to be stored with the next frame.
    pub(crate) fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        for source in &mut self.list {
            source.moved(state);
        }
    }

    /// Goes back to what `spool` holds after a recovery.
    pub(crate) fn rewind(&mut self, spool: &Spool) {
        for source in &mut self.list {
            source.rewind(spool);
        }
    }

    /// See [`Source::synced`].
    pub(crate) fn synced(&mut self, spool: &Spool) {
        for source in &mut self.list {
            source.synced(spool);
        }
    }

    /// See [`Source::stop`].
    pub(crate) fn stop(&mut self) {
        for source in &mut self.list {
            source.stop();
        }
    }

    /// Directories in which something may happen.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        self.list
            .iter()
            .flat_map(|source| source.directories())
            .collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|source| source.name())
    }

    pub(crate) fn status(&self) -> Vec<SourceStatus> {
        self.list.iter().map(|source| source.status()).collect()
    }
}
