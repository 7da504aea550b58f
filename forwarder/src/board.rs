//! What the reader's thread shows to the others: for `/status`, heartbeats and checks.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use watchline_node::uplink::Vitals;
use watchline_proto::{ClockState, Epoch, EpochChain, Lane};

use crate::sources::SourceStatus;

/// Why nothing can be appended just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The quota is used up by what is not acknowledged.
    Full,
    /// The file system has no room, or the disk failed: what was said.
    Disk(String),
}

/// As it stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Posted {
    pub(crate) chain: Option<EpochChain>,
    /// A clean stop: no more will be sealed in this epoch.
    pub(crate) closing: bool,
    pub(crate) clock: Option<ClockState>,
    /// Unix nanoseconds, by source.
    pub(crate) last_read: BTreeMap<String, i64>,
    pub(crate) sources: Vec<SourceStatus>,
    pub(crate) blocked: Option<Blocked>,
    /// When every source was looked at last; `None`: not yet.
    pub(crate) looked_at: Option<Instant>,
    /// Why there are no hints from the kernel; sources are then only looked at once a scan interval.
    pub(crate) no_hints: Option<String>,
    /// Events sealed since the start, by lane.
    pub(crate) events: [u64; 2],
}

impl Posted {
    /// The epoch, and the next sequence number of each lane.
    pub(crate) fn epoch(&self) -> Option<(Epoch, [u64; 2])> {
        self.chain
            .as_ref()
            .map(|chain| (chain.epoch(), Lane::ALL.map(|lane| chain.head(lane).next)))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Posted>);

impl Board {
    pub(crate) fn post(&self, change: impl FnOnce(&mut Posted)) {
        change(&mut self.posted());
    }

    pub(crate) fn posted(&self) -> MutexGuard<'_, Posted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next heartbeat says of us.
    pub(crate) fn vitals(&self) -> Vitals {
        let now = crate::batch::Moment::now().unix_nano;
        let posted = self.posted();
        Vitals {
            sources_last_read: posted.last_read.clone(),
            clock: posted.clock.unwrap_or(ClockState::Unknown),
            statement: posted
                .chain
                .as_ref()
                .map(|chain| chain.statement(now, posted.closing)),
            relayed: Vec::new(),
        }
    }
}
