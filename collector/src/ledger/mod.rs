//! The ledger: what this collector holds of each chain, and what becomes of the next batch.
//!
//! Pure: no I/O, no clock. The buffer asks [`Ledger::judge`] in commit order, writes what the [`Plan`] says in the same frame as
//! the batch, and then [`Ledger::apply`]s it, so that ledger and log can never disagree.
//!
//! * A batch at a number that is held is a duplicate only if its hash can be shown to be the held one: at a range's edge, or
//!   among the recent hashes remembered of the chain. Else it is a fork, and refused.
//! * A seal that names another predecessor than the one held is refused likewise. Where a seal fits what is below it but not
//!   what is above, both are kept and the disagreement is reported.
//! * Holes close by arrival or by a void that the sealer has signed.
//! * Memory is bounded ([`Limits`]): what has been quiet for an hour gives way (an epoch folds into a line, the lowest range
//!   falls below the floor); where nothing has been quiet, the batch is refused with [`Limit`], for this sealer alone.

mod chain;
mod codec;
mod sealer;
mod summary;
#[cfg(test)]
mod tests;
mod window;

pub use chain::{Chain, ForkReason, Mismatch, Range, VoidRange};
pub use codec::{KEY_PREFIXES, StateError};
pub use sealer::{Folded, FoldedChain, SealerRecord};
pub use summary::{ChainSummary, SealerSummary};

use bytes::Bytes;
use chain::Place;
use sealer::{OpenEpoch, Sealer};
use std::collections::{BTreeMap, HashMap};
use watchline_proto::{Epoch, Hash, Head, Lane, Seal, SpiffeId};

/// How much is told apart. Worst case of one sealer on disk and in memory: `open_epochs × 2 × (ranges + voids)` entries of about
/// 120 bytes, and `folded_epochs` lines of about 150 bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open epochs of one sealer.
    pub open_epochs: usize,
    /// Ranges of one chain, and void ranges likewise.
    pub ranges: usize,
    /// Closed epochs of one sealer that are kept as a line.
    pub folded_epochs: usize,
    /// Hashes remembered over all chains, 32 bytes each.
    pub remembered_hashes: usize,
    /// What has not grown for this long may give way to something new, in nanoseconds.
    pub quiet_nano: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            open_epochs: 128,
            ranges: 256,
            folded_epochs: 256,
            remembered_hashes: 1 << 20,
            quiet_nano: 3_600_000_000_000,
        }
    }
}

/// How old a sealer's record on disk may be while batches keep coming.
const RECORD_AGE_NANO: i64 = 10_000_000_000;
/// No chain is left with fewer remembered hashes than this for the sake of the others.
const MIN_REMEMBERED: usize = 64;

/// A limit that a batch would exceed. The sealer is throttled until something has been quiet for an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// See the message.
    #[error("has {0} open epochs, all of them of the last hour")]
    OpenEpochs(usize),
    /// See the message.
    #[error("has {0} holes in one chain, all of them of the last hour")]
    Ranges(usize),
}

/// What becomes of a batch.
#[derive(Debug)]
pub enum Verdict {
    /// Store it, with the state in the plan, in one frame; then apply the plan.
    New(Box<Plan>),
    /// The same batch is held.
    Duplicate,
    /// Refuse it, and say so.
    Fork(ForkReason),
    /// Refuse it for now.
    Limited(Limit),
}

/// Something a person should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// Two statements of the sealer disagree; both are kept.
    Mismatch {
        /// In which epoch.
        epoch: Epoch,
        /// In which lane.
        lane: Lane,
        /// How.
        mismatch: Mismatch,
    },
    /// An epoch or hole was given up because there were too many: what comes of it later will be refused.
    GivenUp {
        /// Which epoch.
        epoch: Epoch,
        /// Numbers that had not come.
        missing: u64,
    },
    /// More void ranges in one chain than are told apart: the hole stays open.
    VoidIgnored {
        /// In which epoch.
        epoch: Epoch,
        /// In which lane.
        lane: Lane,
    },
}

/// What storing a batch changes. Made by [`Ledger::judge`]; valid until the next [`Ledger::apply`].
#[derive(Debug)]
pub struct Plan {
    sealer: SpiffeId,
    epoch: Epoch,
    lane: Lane,
    sequence: u64,
    hash: Hash,
    other_next: u64,
    sealed_unix_nano: i64,
    now_unix_nano: i64,
    /// `None`: the chain's entry goes away.
    chains: BTreeMap<(Epoch, Lane), Option<Chain>>,
    /// The whole record, when it is due to be written.
    record: Option<SealerRecord>,
    /// What the batch brings to light.
    pub alarms: Vec<Alarm>,
}

impl Plan {
    /// The entries of the spool's state to write with the batch; `None` deletes.
    pub fn state(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut state: Vec<_> = self
            .chains
            .iter()
            .map(|((epoch, lane), chain)| {
                (
                    codec::chain_key(&self.sealer, *epoch, *lane),
                    chain.as_ref().map(codec::encode_chain),
                )
            })
            .collect();
        if let Some(record) = &self.record {
            state.push((
                codec::sealer_key(&self.sealer),
                Some(codec::encode_sealer(record)),
            ));
        }
        state
    }
}

/// What is held of each chain. See the module.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    sealers: HashMap<SpiffeId, Sealer>,
    remembered: usize,
    windows: usize,
}

impl Ledger {
    /// An empty one.
    pub fn new(limits: Limits) -> Ledger {
        Ledger {
            limits,
            sealers: HashMap::new(),
            remembered: 0,
            windows: 0,
        }
    }

    /// Reads the ledger back from the spool's state. Entries that cannot be read are left out and returned: their chains count as
    /// unknown.
    pub fn load<'a>(
        limits: Limits,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> (Ledger, Vec<(String, StateError)>) {
        let mut ledger = Ledger::new(limits);
        let mut unreadable = Vec::new();
        for (key, value) in entries {
            match codec::decode(key, value) {
                None => {}
                Some(Ok(codec::Entry::Chain(sealer, epoch, lane, chain))) => {
                    let open = ledger
                        .sealers
                        .entry(sealer)
                        .or_default()
                        .epochs
                        .entry(epoch)
                        .or_default();
                    open.chains[lane.index()] = chain;
                }
                Some(Ok(codec::Entry::Sealer(sealer, record))) => {
                    ledger.sealers.entry(sealer).or_default().record = record;
                }
                Some(Err(error)) => {
                    unreadable.push((String::from_utf8_lossy(key).into_owned(), error))
                }
            }
        }
        (ledger, unreadable)
    }

    /// Judges a batch. Nothing changes before [`Ledger::apply`].
    pub fn judge(&self, seal: &Seal, hash: Hash, now_unix_nano: i64) -> Verdict {
        let sealer = self.sealers.get(&seal.sealer);
        if let Some(folded) = sealer.and_then(|sealer| sealer.folded(seal.epoch)) {
            let chain = folded.chains[seal.lane.index()];
            let known = match seal.sequence + 1 == chain.next {
                true => Some(&chain.last),
                false => sealer
                    .and_then(|sealer| sealer.known_hash(seal.epoch, seal.lane, seal.sequence)),
            };
            return match known {
                Some(known) if *known == hash => Verdict::Duplicate,
                Some(_) => Verdict::Fork(ForkReason::OtherSeal),
                None if folded.complete && seal.sequence < chain.next => {
                    Verdict::Fork(ForkReason::Unproven)
                }
                None => Verdict::Fork(ForkReason::Folded),
            };
        }
        let empty = Chain::default();
        let held = sealer
            .and_then(|sealer| sealer.epochs.get(&seal.epoch))
            .map_or(&empty, |open| &open.chains[seal.lane.index()]);
        let known =
            sealer.and_then(|sealer| sealer.known_hash(seal.epoch, seal.lane, seal.sequence));
        match held.place(seal.sequence, &hash, &seal.previous, known) {
            Place::Held => Verdict::Duplicate,
            Place::Fork(reason) => Verdict::Fork(reason),
            Place::New => match self.plan(sealer, seal, hash, now_unix_nano) {
                Ok(plan) => Verdict::New(Box::new(plan)),
                Err(limit) => Verdict::Limited(limit),
            },
        }
    }

    fn plan(
        &self,
        sealer: Option<&Sealer>,
        seal: &Seal,
        hash: Hash,
        now_unix_nano: i64,
    ) -> Result<Plan, Limit> {
        let mut draft = Draft {
            limits: &self.limits,
            sealer,
            quiet_since_unix_nano: now_unix_nano.saturating_sub(self.limits.quiet_nano),
            chains: BTreeMap::new(),
            folds: Vec::new(),
            alarms: Vec::new(),
        };
        if !draft.make_room_for(seal.epoch, &[seal.epoch]) {
            return Err(Limit::OpenEpochs(self.limits.open_epochs));
        }
        draft.insert(seal, hash, now_unix_nano)?;
        for void in &seal.voids {
            draft.void(seal.epoch, void);
        }
        if let Some(previous) = &seal.previous_epoch
            && previous.epoch != seal.epoch
            // What a sealer sealed before it was first heard of here is not missing here.
            && sealer.is_some_and(|sealer| sealer.knows_epoch_beside(seal.epoch))
        {
            draft.close(seal.epoch, previous.epoch, previous.heads);
        }
        draft.fold_complete();

        let Draft {
            chains,
            folds,
            alarms,
            ..
        } = draft;
        let due = sealer.is_none_or(|sealer| {
            sealer.record.epoch != Some(seal.epoch)
                || now_unix_nano.saturating_sub(sealer.persisted_unix_nano) >= RECORD_AGE_NANO
        });
        let record = (due || !folds.is_empty()).then(|| {
            let mut record = sealer
                .map(|sealer| sealer.record.clone())
                .unwrap_or_default();
            for (folded, lanes) in folds {
                for chain in lanes {
                    record.folded_batches = record.folded_batches.saturating_add(chain.batches);
                    record.folded_events = record.folded_events.saturating_add(chain.events);
                    record.folded_missing = record.folded_missing.saturating_add(chain.missing());
                    record.folded_void_batches += chain.void_batches();
                    record.folded_void_events += chain.void_events();
                }
                record.folded.push_back(folded);
            }
            while record.folded.len() > self.limits.folded_epochs {
                record.folded.pop_front();
                record.folded_away += 1;
            }
            touch(
                &mut record,
                seal.epoch,
                seal.sealed_unix_nano,
                now_unix_nano,
            );
            record
        });
        Ok(Plan {
            sealer: seal.sealer.clone(),
            epoch: seal.epoch,
            lane: seal.lane,
            sequence: seal.sequence,
            hash,
            other_next: seal.other.next,
            sealed_unix_nano: seal.sealed_unix_nano,
            now_unix_nano,
            chains,
            record,
            alarms,
        })
    }

    /// Takes over what the frame just appended says.
    pub fn apply(&mut self, plan: Plan) {
        let sealer = self.sealers.entry(plan.sealer).or_default();
        for ((epoch, lane), chain) in plan.chains {
            match chain {
                Some(chain) => sealer.epochs.entry(epoch).or_default().chains[lane.index()] = chain,
                None => {
                    sealer.epochs.remove(&epoch);
                }
            }
        }
        if let Some(open) = sealer.epochs.get_mut(&plan.epoch) {
            let announced = &mut open.announced[plan.lane.other().index()];
            *announced = plan.other_next.max(*announced);
        }
        match plan.record {
            Some(record) => {
                let forks = sealer.record.forks.max(record.forks);
                sealer.record = SealerRecord { forks, ..record };
                sealer.persisted_unix_nano = plan.now_unix_nano;
            }
            None => touch(
                &mut sealer.record,
                plan.epoch,
                plan.sealed_unix_nano,
                plan.now_unix_nano,
            ),
        }
        remember(
            sealer,
            (plan.epoch, plan.lane),
            plan.sequence,
            plan.hash,
            &mut self.remembered,
            &mut self.windows,
        );
        self.bound_memory();
    }

    /// Remembers the hash of a batch that is held: at start, from what is still in the log.
    pub fn remember(&mut self, seal: &Seal, hash: Hash) {
        if let Some(sealer) = self.sealers.get_mut(&seal.sealer) {
            remember(
                sealer,
                (seal.epoch, seal.lane),
                seal.sequence,
                hash,
                &mut self.remembered,
                &mut self.windows,
            );
            self.bound_memory();
        }
    }

    /// Counts a fork that was refused.
    pub fn count_fork(&mut self, sealer: &SpiffeId) {
        if let Some(sealer) = self.sealers.get_mut(sealer) {
            sealer.record.forks += 1;
        }
    }

    /// Each chain keeps its share of the remembered hashes; shares shrink when there are too many in all.
    fn bound_memory(&mut self) {
        if self.remembered <= self.limits.remembered_hashes {
            return;
        }
        // Half, so that this walk over all chains is rare.
        let share = (self.limits.remembered_hashes / 2 / self.windows.max(1)).max(MIN_REMEMBERED);
        self.remembered = 0;
        self.windows = 0;
        for sealer in self.sealers.values_mut() {
            let open = &sealer.epochs;
            // Beyond the smallest share for everybody, folded epochs remember nothing.
            sealer
                .windows
                .retain(|(epoch, _), _| share > MIN_REMEMBERED || open.contains_key(epoch));
            for window in sealer.windows.values_mut() {
                window.shrink(share);
                self.remembered += window.len();
                self.windows += 1;
            }
        }
    }
}

fn remember(
    sealer: &mut Sealer,
    chain: (Epoch, Lane),
    sequence: u64,
    hash: Hash,
    remembered: &mut usize,
    windows: &mut usize,
) {
    let window = sealer.windows.entry(chain).or_insert_with(|| {
        *windows += 1;
        Default::default()
    });
    let before = window.len();
    window.insert(sequence, hash);
    *remembered += window.len() - before;
}

fn touch(record: &mut SealerRecord, epoch: Epoch, sealed_unix_nano: i64, now_unix_nano: i64) {
    if record.first_stored_unix_nano == 0 {
        record.first_stored_unix_nano = now_unix_nano;
    }
    record.last_stored_unix_nano = record.last_stored_unix_nano.max(now_unix_nano);
    if record.epoch.is_none() || sealed_unix_nano >= record.epoch_sealed_unix_nano {
        record.epoch = Some(epoch);
        record.epoch_sealed_unix_nano = sealed_unix_nano;
    }
}

/// A plan in the making: chains as they will be, over those that are.
struct Draft<'a> {
    limits: &'a Limits,
    sealer: Option<&'a Sealer>,
    quiet_since_unix_nano: i64,
    chains: BTreeMap<(Epoch, Lane), Option<Chain>>,
    folds: Vec<(Folded, [Chain; 2])>,
    alarms: Vec<Alarm>,
}

impl Draft<'_> {
    fn held(&self, epoch: Epoch) -> Option<&OpenEpoch> {
        self.sealer?.epochs.get(&epoch)
    }

    fn is_folded(&self, epoch: Epoch) -> bool {
        self.sealer
            .is_some_and(|sealer| sealer.folded(epoch).is_some())
            || self.folds.iter().any(|(folded, _)| folded.epoch == epoch)
    }

    fn current(&self, epoch: Epoch, lane: Lane) -> Chain {
        match self.chains.get(&(epoch, lane)) {
            Some(chain) => chain.clone().unwrap_or_default(),
            None => self
                .held(epoch)
                .map(|open| open.chains[lane.index()].clone())
                .unwrap_or_default(),
        }
    }

    fn chain(&mut self, epoch: Epoch, lane: Lane) -> &mut Chain {
        let current = self.current(epoch, lane);
        self.chains
            .entry((epoch, lane))
            .or_insert(None)
            .get_or_insert(current)
    }

    /// Whether there is a place for this epoch; the quietest may give way.
    fn make_room_for(&mut self, epoch: Epoch, keep: &[Epoch]) -> bool {
        let Some(sealer) = self.sealer else {
            return true;
        };
        let added = |epoch: &Epoch| !sealer.epochs.contains_key(epoch);
        let mut new: Vec<Epoch> = self
            .chains
            .keys()
            .map(|(epoch, _)| *epoch)
            .filter(added)
            .collect();
        new.dedup();
        if !added(&epoch) || new.contains(&epoch) {
            return true;
        }
        if sealer.epochs.len() + new.len() < self.limits.open_epochs + self.folds.len() {
            return true;
        }
        let folded: Vec<Epoch> = self.folds.iter().map(|(folded, _)| folded.epoch).collect();
        let except: Vec<Epoch> = keep.iter().chain(&folded).copied().collect();
        let Some(quietest) = sealer.quietest(&except, self.quiet_since_unix_nano) else {
            return false;
        };
        self.fold(quietest);
        true
    }

    fn insert(&mut self, seal: &Seal, hash: Hash, now_unix_nano: i64) -> Result<(), Limit> {
        let (limit, quiet_since) = (self.limits.ranges, self.quiet_since_unix_nano);
        let chain = self.chain(seal.epoch, seal.lane);
        let forgotten = chain.forgotten;
        if chain.opens_range(seal.sequence)
            && chain.ranges.len() >= limit
            && !chain.raise_floor(quiet_since)
        {
            return Err(Limit::Ranges(limit));
        }
        let given_up = chain.forgotten - forgotten;
        let mismatch = chain.insert(seal.sequence, hash, seal.previous, now_unix_nano);
        chain.batches += 1;
        chain.events = chain.events.saturating_add(u64::from(seal.payload.events));
        if given_up > 0 {
            self.alarms.push(Alarm::GivenUp {
                epoch: seal.epoch,
                missing: given_up,
            });
        }
        self.note(seal.epoch, seal.lane, mismatch);
        Ok(())
    }

    fn void(&mut self, epoch: Epoch, void: &watchline_proto::Void) {
        if self.is_folded(void.epoch) || void.end <= void.first {
            return;
        }
        if !self.make_room_for(void.epoch, &[epoch, void.epoch]) {
            return;
        }
        let limit = self.limits.ranges;
        let range = VoidRange {
            first: void.first,
            end: void.end,
            last: void.last,
            events: void.events,
        };
        let (taken, mismatch) = self.chain(void.epoch, void.lane).void(range, limit);
        self.note(void.epoch, void.lane, mismatch);
        if !taken {
            self.alarms.push(Alarm::VoidIgnored {
                epoch: void.epoch,
                lane: void.lane,
            });
        }
    }

    fn close(&mut self, epoch: Epoch, closed: Epoch, heads: [Head; 2]) {
        if self.is_folded(closed) || !self.make_room_for(closed, &[epoch, closed]) {
            return;
        }
        for lane in Lane::ALL {
            let head = heads[lane.index()];
            let mismatch = match self.current(closed, lane).end {
                // The first seal of the other lane said so already; two epochs that do not agree on what came before are a fork.
                Some(end) => (end != head).then_some(Mismatch::Hash {
                    sequence: end.next.min(head.next),
                }),
                None => self.chain(closed, lane).close(head),
            };
            self.note(closed, lane, mismatch);
        }
    }

    /// Epochs touched here that are now closed and complete fold into a line.
    fn fold_complete(&mut self) {
        let kept = self.chains.iter().filter(|(_, chain)| chain.is_some());
        let mut touched: Vec<Epoch> = kept.map(|((epoch, _), _)| *epoch).collect();
        touched.dedup();
        for epoch in touched {
            let complete = Lane::ALL
                .into_iter()
                .all(|lane| self.current(epoch, lane).is_complete());
            if complete {
                self.fold(epoch);
            }
        }
    }

    fn fold(&mut self, epoch: Epoch) {
        let chains = Lane::ALL.map(|lane| self.current(epoch, lane));
        let complete = chains.iter().all(Chain::is_complete);
        if !complete {
            self.alarms.push(Alarm::GivenUp {
                epoch,
                missing: chains.iter().map(Chain::missing).sum(),
            });
        }
        let line = |chain: &Chain| {
            let held = chain.ranges.last().map(|range| (range.end, range.last));
            let end = chain.end.map(|end| (end.next, end.hash));
            let (next, last) = held.max(end).unwrap_or((chain.floor, Hash::ZERO));
            FoldedChain { next, last }
        };
        let folded = Folded {
            epoch,
            chains: [line(&chains[0]), line(&chains[1])],
            complete,
        };
        self.folds.push((folded, chains));
        for lane in Lane::ALL {
            self.chains.insert((epoch, lane), None);
        }
    }

    fn note(&mut self, epoch: Epoch, lane: Lane, mismatch: Option<Mismatch>) {
        if let Some(mismatch) = mismatch {
            self.alarms.push(Alarm::Mismatch {
                epoch,
                lane,
                mismatch,
            });
        }
    }
}
