//! What is known of one sealer: its open epochs, and the closed ones in a line each.

use super::{chain::Chain, window::Window};
use std::collections::{BTreeMap, HashMap, VecDeque};
use watchline_proto::{Epoch, Hash, Lane};

/// One lane of a folded epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedChain {
    /// The first number that is not held.
    pub next: u64,
    /// Hash of the seal at `next - 1`; zeros when `next` is 0.
    pub last: Hash,
}

/// A closed epoch in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// Which.
    pub epoch: Epoch,
    /// By [`Lane::index`].
    pub chains: [FoldedChain; 2],
    /// Whether every number was held or void. What comes of an incomplete one after folding is refused.
    pub complete: bool,
}

/// What is kept of a sealer beside its chains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealerRecord {
    /// When its first batch ever was stored.
    pub first_stored_unix_nano: i64,
    /// When its last was. On disk up to ten seconds old.
    pub last_stored_unix_nano: i64,
    /// The epoch sealed in last, by the sealer's clock.
    pub epoch: Option<Epoch>,
    /// When the newest seal of that epoch was made.
    pub epoch_sealed_unix_nano: i64,
    /// Forks refused. Approximate across a crash.
    pub forks: u64,
    /// Closed epochs, oldest first.
    pub folded: VecDeque<Folded>,
    /// Closed epochs that are not even a line any more.
    pub folded_away: u64,
    /// Batches in all folded epochs.
    pub folded_batches: u64,
    /// Events in them.
    pub folded_events: u64,
    /// Numbers missing in those that were folded incomplete.
    pub folded_missing: u64,
    /// Numbers void in folded epochs.
    pub folded_void_batches: u64,
    /// Records in them.
    pub folded_void_events: u64,
}

/// An epoch whose ranges are told apart.
#[derive(Debug, Default)]
pub(super) struct OpenEpoch {
    /// By [`Lane::index`]; empty until something of the lane is known.
    pub chains: [Chain; 2],
    /// The first number of each lane that the sealer has not mentioned yet. Not kept on disk: every seal mentions it anew.
    pub announced: [u64; 2],
}

impl OpenEpoch {
    pub(super) fn grown_unix_nano(&self) -> i64 {
        self.chains
            .iter()
            .map(Chain::grown_unix_nano)
            .max()
            .unwrap_or(0)
    }

    /// Numbers missing in a lane up to all that is known to exist.
    pub(super) fn holes(&self, lane: Lane) -> Vec<std::ops::Range<u64>> {
        let chain = &self.chains[lane.index()];
        chain.holes(chain.next().max(self.announced[lane.index()]))
    }
}

/// One sealer in memory.
#[derive(Debug, Default)]
pub(super) struct Sealer {
    pub record: SealerRecord,
    pub persisted_unix_nano: i64,
    pub epochs: BTreeMap<Epoch, OpenEpoch>,
    pub windows: HashMap<(Epoch, Lane), Window>,
}

impl Sealer {
    pub(super) fn known_hash(&self, epoch: Epoch, lane: Lane, sequence: u64) -> Option<&Hash> {
        self.windows.get(&(epoch, lane))?.hash_at(sequence)
    }

    pub(super) fn folded(&self, epoch: Epoch) -> Option<&Folded> {
        self.record
            .folded
            .iter()
            .rev()
            .find(|folded| folded.epoch == epoch)
    }

    /// Whether anything is known of another epoch.
    pub(super) fn knows_epoch_beside(&self, epoch: Epoch) -> bool {
        self.record.folded_away > 0
            || !self.record.folded.is_empty()
            || self.epochs.keys().any(|known| *known != epoch)
    }

    /// The open epoch that has been quiet longest, if it has been so since `quiet_since`, and is not `except`.
    pub(super) fn quietest(&self, except: &[Epoch], quiet_since_unix_nano: i64) -> Option<Epoch> {
        self.epochs
            .iter()
            .filter(|(epoch, _)| !except.contains(epoch))
            .map(|(epoch, open)| (open.grown_unix_nano(), *epoch))
            .min()
            .filter(|(grown, _)| *grown <= quiet_since_unix_nano)
            .map(|(_, epoch)| epoch)
    }
}
