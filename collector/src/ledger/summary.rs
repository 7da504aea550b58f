//! What others may know of the ledger: Welcome and `/status`.

use super::{FoldedChain, Ledger, chain::Chain};
use watchline_proto::{ChainHeld, Epoch, Hash, HeldRange, Lane, SpiffeId};

/// Chains named in one Welcome, the newest epochs first. With [`MAX_RANGES_TOLD`] a Welcome stays far below the largest message.
const MAX_CHAINS_TOLD: usize = 512;
/// Ranges named in one Welcome.
const MAX_RANGES_TOLD: usize = 8192;

/// One lane of a sealer's newest epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSummary {
    /// Which.
    pub lane: Lane,
    /// The first number beyond all that is held or said to exist.
    pub next: u64,
    /// Ranges held.
    pub ranges: usize,
}

/// What is known of one sealer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealerSummary {
    /// Who.
    pub sealer: SpiffeId,
    /// The epoch sealed in last.
    pub epoch: Option<Epoch>,
    /// When its first batch was stored.
    pub first_stored_unix_nano: i64,
    /// When its last was.
    pub last_stored_unix_nano: i64,
    /// Lanes of that epoch.
    pub chains: Vec<ChainSummary>,
    /// Epochs whose ranges are told apart.
    pub open_epochs: usize,
    /// Closed ones.
    pub closed_epochs: u64,
    /// Batches ever stored.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Holes that are open, over all open epochs.
    pub holes: u64,
    /// Batches missing in them, and in epochs that were given up.
    pub missing_batches: u64,
    /// Batches that the sealer says will never come.
    pub void_batches: u64,
    /// Records that were in them.
    pub void_events: u64,
    /// Forks refused.
    pub forks: u64,
}

fn told_of(chain: &Chain) -> Vec<HeldRange> {
    let mut told: Vec<HeldRange> = Vec::with_capacity(chain.ranges.len());
    for range in &chain.ranges {
        // Of two that adjoin, and so disagree, only the lower one can be said; the sender offers the rest and it is judged.
        if told.last().is_none_or(|below| below.end < range.first) {
            told.push(HeldRange {
                first: range.first,
                end: range.end,
                previous: range.previous,
                last: range.last,
            });
        }
    }
    told
}

fn told_of_folded(chain: &FoldedChain) -> Vec<HeldRange> {
    let whole = HeldRange {
        first: 0,
        end: chain.next,
        previous: Hash::ZERO,
        last: chain.last,
    };
    match chain.next {
        0 => Vec::new(),
        _ => vec![whole],
    }
}

impl Ledger {
    /// What is held of one sealer's chains, for Welcome: newest epochs first, as many as fit; folded ones as one range.
    pub fn held_by(&self, sealer: &SpiffeId) -> Vec<ChainHeld> {
        let Some(sealer) = self.sealers.get(sealer) else {
            return Vec::new();
        };
        let mut open: Vec<_> = sealer.epochs.iter().collect();
        open.sort_by_key(|(_, open)| std::cmp::Reverse(open.grown_unix_nano()));
        let open = open.into_iter().flat_map(|(epoch, open)| {
            Lane::ALL.map(|lane| ChainHeld {
                epoch: *epoch,
                lane,
                ranges: told_of(&open.chains[lane.index()]),
            })
        });
        let folded = sealer
            .record
            .folded
            .iter()
            .rev()
            .filter(|folded| folded.complete);
        let folded = folded.flat_map(|folded| {
            Lane::ALL.map(|lane| ChainHeld {
                epoch: folded.epoch,
                lane,
                ranges: told_of_folded(&folded.chains[lane.index()]),
            })
        });
        let mut left = MAX_RANGES_TOLD;
        open.chain(folded)
            .filter(|chain| !chain.ranges.is_empty())
            .take(MAX_CHAINS_TOLD)
            .take_while(|chain| {
                let fits = chain.ranges.len() <= left;
                left = left.saturating_sub(chain.ranges.len());
                fits
            })
            .collect()
    }

    /// Every sealer ever stored, in the order of their names.
    pub fn summaries(&self) -> Vec<SealerSummary> {
        let mut summaries: Vec<_> = self
            .sealers
            .iter()
            .map(|(id, sealer)| {
                let record = &sealer.record;
                let newest = record.epoch.and_then(|epoch| sealer.epochs.get(&epoch));
                let mut summary = SealerSummary {
                    sealer: id.clone(),
                    epoch: record.epoch,
                    first_stored_unix_nano: record.first_stored_unix_nano,
                    last_stored_unix_nano: record.last_stored_unix_nano,
                    chains: newest.map_or_else(Vec::new, |open| {
                        Lane::ALL
                            .map(|lane| {
                                let chain = &open.chains[lane.index()];
                                ChainSummary {
                                    lane,
                                    next: chain.next().max(open.announced[lane.index()]),
                                    ranges: chain.ranges.len(),
                                }
                            })
                            .into()
                    }),
                    open_epochs: sealer.epochs.len(),
                    closed_epochs: record.folded.len() as u64 + record.folded_away,
                    batches: record.folded_batches,
                    events: record.folded_events,
                    holes: 0,
                    missing_batches: record.folded_missing,
                    void_batches: record.folded_void_batches,
                    void_events: record.folded_void_events,
                    forks: record.forks,
                };
                for open in sealer.epochs.values() {
                    for lane in Lane::ALL {
                        let chain = &open.chains[lane.index()];
                        let holes = open.holes(lane);
                        summary.batches += chain.batches;
                        summary.events += chain.events;
                        summary.holes += holes.len() as u64;
                        summary.missing_batches += chain.forgotten
                            + holes.iter().map(|hole| hole.end - hole.start).sum::<u64>();
                        summary.void_batches += chain.void_batches();
                        summary.void_events =
                            summary.void_events.saturating_add(chain.void_events());
                    }
                }
                summary
            })
            .collect();
        summaries.sort_by(|a, b| a.sealer.cmp(&b.sealer));
        summaries
    }

    /// How many sealers are known.
    pub fn sealers(&self) -> usize {
        self.sealers.len()
    }
}
