//! The thread that owns the spool and the ledger.

use super::{
    BufferError, Decision, Notice, Shared,
    inbox::{Append, Group, Question, SyncedMark},
    item::StoredItem,
    metrics::Stage,
};
use crate::ledger::{KEY_PREFIXES, Ledger, Limits, Verdict};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tracing::{error, info, warn};
use watchline_node::health::CheckState;
use watchline_proto::{Lane, SpiffeId};
use watchline_spool::{self as spool, AppendError, Frame, Item, Spool};

/// One sync for at most about this much.
const GROUP_BYTES: u64 = 8 << 20;
/// While nothing happens: retention by age, and another try when there was no room.
const TICK: Duration = Duration::from_secs(60);
/// The same while there is no room.
const TICK_WITHOUT_ROOM: Duration = Duration::from_secs(1);
/// How long the buffer is called full after the last batch that found no room, if none was tried since.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Between attempts to open a buffer whose disk failed.
const REOPEN_DELAY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(5);

/// Nanoseconds since 1970.
pub(super) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// An answer that waits for the sync.
type Answer = (
    oneshot::Sender<Result<Decision, BufferError>>,
    Decision,
    u64,
);

pub(super) struct Owner {
    pub spool: Spool,
    pub limits: Limits,
    pub collector: SpiffeId,
    pub clock: Clock,
    pub shared: Arc<Shared>,
    pub state: CheckState,
    /// The last batch that found no room, and what was said of it.
    pub refused: Option<(Instant, String)>,
}

/// The disk failed; what was not synced is not stored.
struct DiskFailed(String);

impl Owner {
    /// Commits groups until the inbox is closed and empty, then closes the spool.
    pub(super) fn run(mut self) {
        loop {
            let tick = match self.refused {
                None => TICK,
                Some(_) => TICK_WITHOUT_ROOM,
            };
            let group = self.shared.inbox.take(GROUP_BYTES, tick);
            // Whatever woke us, room may have been made; the next batch that finds none says so again.
            self.shared.room.store(true, Ordering::Relaxed);
            let last = group.last;
            if let Err(DiskFailed(reason)) = self.commit(group)
                && !self.recover(reason)
            {
                return; // closed while the disk failed: nothing more can be stored
            }
            if last {
                break;
            }
        }
        if let Err(error) = self.spool.close() {
            warn!(error = %error, "buffer did not close cleanly; it recovers at the next start");
        }
    }

    fn commit(&mut self, group: Group) -> Result<(), DiskFailed> {
        let began = Instant::now();
        for question in group.questions {
            match question {
                Question::HeldBy(sealer, reply) => {
                    let held = self.shared.ledger().held_by(&sealer);
                    drop(reply.send(held.iter().map(Into::into).collect()));
                }
                Question::Reader(name, reply) => drop(reply.send(self.spool.reader(&name))),
            }
        }
        let mut answers: Vec<Answer> = Vec::with_capacity(group.appends.len());
        let mut voids = Vec::new();
        // Budget is given back when all of the group has been answered.
        let mut budgets = Vec::with_capacity(group.appends.len());
        let (mut stored, mut stored_bytes) = (0, 0);
        let mut synced_marks = group.synced_marks;
        let mut failed = self
            .append_marks(group.marks, &mut synced_marks, group.settled)
            .err();
        for append in group.appends {
            let events = u64::from(append.incoming.seal.payload.events);
            self.shared.metrics.count(Stage::Offered, events);
            if let Some(DiskFailed(reason)) = &failed {
                self.refuse(append.reply, events, unavailable(reason));
                continue;
            }
            let Append {
                incoming,
                reply,
                budget,
                ..
            } = append;
            budgets.push(budget);
            let now = (self.clock)();
            let verdict = self
                .shared
                .ledger()
                .judge(&incoming.seal, incoming.seal_hash, now);
            let plan = match verdict {
                Verdict::New(plan) => plan,
                Verdict::Duplicate => {
                    answers.push((reply, Decision::Duplicate, events));
                    continue;
                }
                Verdict::Fork(reason) => {
                    self.shared.ledger().count_fork(&incoming.seal.sealer);
                    let detail = reason.to_string();
                    self.shared.notify(Notice::Fork {
                        seal: Box::new(incoming.seal),
                        direct_peer: incoming.direct_peer,
                        reason,
                    });
                    answers.push((reply, Decision::Fork { detail }, events));
                    continue;
                }
                Verdict::Limited(limit) => {
                    let sealer = incoming.seal.sealer;
                    let reason = limit.to_string();
                    self.refuse(reply, events, BufferError::Limited { sealer, reason });
                    continue;
                }
            };
            let item = StoredItem::new(incoming.batch, &self.collector, now);
            let parts = item.parts();
            let frame = Frame {
                items: vec![Item {
                    lane: incoming.seal.lane.index(),
                    parts: &parts,
                }],
                state: plan.state(),
                ..Frame::default()
            };
            match self.spool.append(&frame) {
                Ok(_) => {
                    for alarm in plan.alarms.clone() {
                        self.shared.notify(Notice::Alarm {
                            sealer: incoming.seal.sealer.clone(),
                            alarm,
                        });
                    }
                    self.shared.ledger().apply(*plan);
                    voids.extend(incoming.seal.voids);
                    stored += 1;
                    if incoming.seal.lane == Lane::Routine {
                        self.refused = None; // alerts find room in the reserve
                    }
                    stored_bytes += item.len_bytes();
                    answers.push((reply, Decision::Stored, events));
                }
                Err(error) => {
                    let (answer, fatal) = self.append_failed(error);
                    self.refuse(reply, events, answer);
                    failed = fatal;
                }
            }
        }
        if failed.is_none() {
            failed = self.sync().err();
        }
        match failed {
            None => {
                if stored > 0 {
                    let metrics = &self.shared.metrics;
                    metrics.commit(began.elapsed().as_secs_f64(), stored, stored_bytes);
                }
                for void in voids {
                    self.shared.gaps.count(&void.reason, void.events);
                }
                for (reply, decision, events) in answers {
                    let stage = match decision {
                        Decision::Stored => Stage::Stored,
                        Decision::Duplicate => Stage::Duplicate,
                        Decision::Fork { .. } => Stage::Fork,
                    };
                    self.shared.metrics.count(stage, events);
                    let _ = reply.send(Ok(decision)); // the connection may be gone
                }
                for mark in synced_marks {
                    let _ = mark.reply.send(Ok(()));
                }
                Ok(())
            }
            Some(DiskFailed(reason)) => {
                for (reply, _, events) in answers {
                    self.refuse(reply, events, unavailable(&reason));
                }
                for mark in synced_marks {
                    let _ = mark.reply.send(Err(unavailable(&reason)));
                }
                Err(DiskFailed(reason))
            }
        }
    }

    /// One frame for all marks. Where there is no room for it, marks are tried again, and those that somebody waits for are
    /// answered.
    fn append_marks(
        &mut self,
        marks: BTreeMap<String, spool::Mark>,
        synced: &mut Vec<SyncedMark>,
        settled: Vec<spool::Damage>,
    ) -> Result<(), DiskFailed> {
        if marks.is_empty() && synced.is_empty() && settled.is_empty() {
            return Ok(());
        }
        let waited_for = synced.iter().map(|synced| &synced.mark);
        let frame = Frame {
            marks: marks.values().chain(waited_for).cloned().collect(),
            settled,
            ..Frame::default()
        };
        let Err(error) = self.spool.append(&frame) else {
            return Ok(());
        };
        self.shared.inbox.put_back(marks, frame.settled);
        let (answer, fatal) = self.append_failed(error);
        match fatal {
            Some(failed) => Err(failed),
            None => {
                for mark in synced.drain(..) {
                    let _ = mark.reply.send(Err(answer.clone()));
                }
                Ok(())
            }
        }
    }

    /// What to answer, and whether the spool must be opened anew.
    fn append_failed(&mut self, error: AppendError) -> (BufferError, Option<DiskFailed>) {
        match error {
            AppendError::Full {
                used_bytes,
                max_bytes,
            } => {
                let answer = BufferError::Full {
                    used_bytes,
                    max_bytes,
                };
                self.found_no_room(answer.to_string());
                (answer, None)
            }
            AppendError::TooLarge { bytes, max } => (BufferError::TooLarge { bytes, max }, None),
            error @ AppendError::NoRoom { .. } => {
                let reason = chain_of(&error);
                self.found_no_room(reason.clone());
                (unavailable(&reason), None)
            }
            error => {
                let reason = chain_of(&error);
                (unavailable(&reason), Some(DiskFailed(reason)))
            }
        }
    }

    fn sync(&mut self) -> Result<(), DiskFailed> {
        self.spool
            .sync()
            .map_err(|error| DiskFailed(chain_of(&error)))?;
        if self
            .refused
            .as_ref()
            .is_some_and(|(last, _)| last.elapsed() >= REFUSED_FOR)
        {
            self.refused = None;
        }
        self.set_state(match &self.refused {
            None => CheckState::Ok,
            Some((_, reason)) => CheckState::Failing {
                reason: reason.clone(),
            },
        });
        Ok(())
    }

    fn found_no_room(&mut self, reason: String) {
        self.shared.room.store(false, Ordering::Relaxed);
        self.refused = Some((Instant::now(), reason));
    }

    fn refuse(
        &self,
        reply: oneshot::Sender<Result<Decision, BufferError>>,
        events: u64,
        error: BufferError,
    ) {
        self.shared.metrics.count(Stage::Refused, events);
        let _ = reply.send(Err(error)); // the connection may be gone
    }

    /// Opens the spool anew until it works, and takes the ledger from what is durable. False: closed meanwhile.
    fn recover(&mut self, reason: String) -> bool {
        self.shared.metrics.failure();
        self.shared.room.store(false, Ordering::Relaxed);
        error!(reason = %reason, "the buffer's disk failed; nothing unsynced counts as stored, opening anew");
        let mut reason = reason;
        let mut delay = *REOPEN_DELAY.start();
        loop {
            self.set_state(CheckState::Failing {
                reason: reason.clone(),
            });
            self.shared.inbox.refuse_all(&unavailable(&reason));
            match self.spool.reopen() {
                Ok(recovery) => {
                    self.shared.report_damage(&recovery);
                    let ledger = load_ledger(&self.spool, self.limits.clone(), &self.shared);
                    *self.shared.ledger() = ledger;
                    self.shared.room.store(true, Ordering::Relaxed);
                    self.set_state(CheckState::Ok);
                    info!("the buffer works again");
                    return true;
                }
                Err(error) => {
                    reason = chain_of(&error);
                    if self.shared.inbox.is_closed() {
                        error!(reason = %reason, "stopping while the buffer's disk fails");
                        return false;
                    }
                    self.shared.inbox.wait_closed(delay);
                    delay = (delay * 2).min(*REOPEN_DELAY.end());
                }
            }
        }
    }

    fn set_state(&mut self, state: CheckState) {
        if self.state != state {
            if let CheckState::Failing { reason } = &state {
                warn!(reason = %reason, "buffer cannot store");
            }
            (self.shared.report)(state.clone());
            self.state = state;
        }
    }
}

/// Reads the ledger from the spool's state; what cannot be read is reported and left out.
pub(super) fn load_ledger(spool: &Spool, limits: Limits, shared: &Shared) -> Ledger {
    let entries = KEY_PREFIXES
        .iter()
        .flat_map(|prefix| spool.state_with_prefix(prefix.as_bytes()))
        .map(|(key, value)| (&key[..], &value[..]));
    let (ledger, unreadable) = Ledger::load(limits, entries);
    for (key, error) in unreadable {
        error!(key = %key, error = %error, "ledger entry left out");
        shared.notify(Notice::LedgerEntry {
            key,
            reason: error.to_string(),
        });
    }
    ledger
}

fn unavailable(reason: &str) -> BufferError {
    BufferError::Unavailable {
        reason: reason.to_owned(),
    }
}

/// An error with its causes, on one line.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
