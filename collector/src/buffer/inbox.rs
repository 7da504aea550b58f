//! What waits for the buffer's thread.

use super::{BufferError, Decision, Incoming};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use watchline_proto::{SpiffeId, wire};
use watchline_spool as spool;

/// How long a mark may wait for a batch to be written with.
const MARK_DELAY: Duration = Duration::from_secs(1);

/// A batch that waits, with its part of the lane's byte budget: the budget bounds what lies here.
#[derive(Debug)]
pub(super) struct Append {
    pub incoming: Incoming,
    pub reply: oneshot::Sender<Result<Decision, BufferError>>,
    pub budget: OwnedSemaphorePermit,
    pub bytes: u64,
}

/// A question that is answered between commits, when everything in the ledger is durable.
pub(super) enum Question {
    HeldBy(SpiffeId, oneshot::Sender<Vec<wire::ChainHeld>>),
    Reader(String, oneshot::Sender<spool::Reader>),
}

/// A mark somebody waits for.
#[derive(Debug)]
pub(super) struct SyncedMark {
    pub mark: spool::Mark,
    pub reply: oneshot::Sender<Result<(), BufferError>>,
}

/// One group: what is committed with one sync.
#[derive(Default)]
pub(super) struct Group {
    pub questions: Vec<Question>,
    pub appends: Vec<Append>,
    pub marks: BTreeMap<String, spool::Mark>,
    pub synced_marks: Vec<SyncedMark>,
    pub settled: Vec<spool::Damage>,
    /// Nothing more will come, and this is the last of it.
    pub last: bool,
}

#[derive(Default)]
struct Waiting {
    /// By lane: alerts are taken first. Bounded by the lanes' byte budgets.
    appends: [VecDeque<Append>; spool::LANES],
    /// One a connection that says Hello, at most.
    questions: Vec<Question>,
    /// One a reader.
    marks: BTreeMap<String, spool::Mark>,
    marks_due: Option<Instant>,
    /// One an output, at most: an output waits for its answer.
    synced_marks: Vec<SyncedMark>,
    /// One a damaged place. Written with the marks.
    settled: Vec<spool::Damage>,
    closed: bool,
}

#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic while it is held leaves it usable: every change is one statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut Waiting)) -> Result<(), BufferError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(BufferError::Closed);
        }
        change(&mut waiting);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn append(&self, lane: spool::LaneNo, append: Append) -> Result<(), BufferError> {
        self.put(|waiting| waiting.appends[lane].push_back(append))
    }

    /// Several at once, so that they are in one group.
    #[cfg(test)]
    pub(super) fn append_all(&self, lane: spool::LaneNo, appends: Vec<Append>) {
        self.put(|waiting| waiting.appends[lane].extend(appends))
            .unwrap();
    }

    pub(super) fn ask(&self, question: Question) -> Result<(), BufferError> {
        self.put(|waiting| waiting.questions.push(question))
    }

    pub(super) fn mark(&self, mark: spool::Mark) -> Result<(), BufferError> {
        self.put(|waiting| {
            waiting.marks.insert(mark.reader.clone(), mark);
            waiting
                .marks_due
                .get_or_insert_with(|| Instant::now() + MARK_DELAY);
        })
    }

    pub(super) fn settle(&self, damage: spool::Damage) -> Result<(), BufferError> {
        self.put(|waiting| {
            waiting.settled.push(damage);
            waiting
                .marks_due
                .get_or_insert_with(|| Instant::now() + MARK_DELAY);
        })
    }

    pub(super) fn mark_synced(&self, mark: SyncedMark) -> Result<(), BufferError> {
        self.put(|waiting| {
            waiting.marks.remove(&mark.mark.reader); // older than this one
            waiting.synced_marks.push(mark);
        })
    }

    /// Marks that could not be written go back, unless newer ones have come; they are tried again a second later.
    pub(super) fn put_back(
        &self,
        marks: BTreeMap<String, spool::Mark>,
        settled: Vec<spool::Damage>,
    ) {
        if marks.is_empty() && settled.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.settled.extend(settled);
        for (reader, mark) in marks {
            waiting.marks.entry(reader).or_insert(mark);
        }
        waiting.marks_due = Some(Instant::now() + MARK_DELAY);
    }

    /// Nothing more is taken; what lies here is still committed.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until there is something to do, or for `at_most`; takes alerts first and then routine batches, up to about
    /// `group_bytes`, and everything else.
    pub(super) fn take(&self, group_bytes: u64, at_most: Duration) -> Group {
        let deadline = Instant::now() + at_most;
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let until = waiting.marks_due.map_or(deadline, |due| due.min(deadline));
            let something = waiting.closed
                || waiting.appends.iter().any(|lane| !lane.is_empty())
                || !waiting.questions.is_empty()
                || !waiting.synced_marks.is_empty();
            if something || now >= until {
                break;
            }
            waiting = self
                .wake
                .wait_timeout(waiting, until - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let mut group = Group {
            questions: std::mem::take(&mut waiting.questions),
            marks: std::mem::take(&mut waiting.marks),
            synced_marks: std::mem::take(&mut waiting.synced_marks),
            settled: std::mem::take(&mut waiting.settled),
            ..Group::default()
        };
        waiting.marks_due = None;
        let mut bytes = 0;
        for lane in &mut waiting.appends {
            while bytes < group_bytes
                && let Some(append) = lane.pop_front()
            {
                bytes += append.bytes;
                group.appends.push(append);
            }
        }
        group.last = waiting.closed && waiting.appends.iter().all(VecDeque::is_empty);
        group
    }

    /// Waits for `at_most` or until closed; whatever comes meanwhile stays.
    pub(super) fn wait_closed(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut waiting = self.lock();
        while !waiting.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self
                .wake
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Refuses everything that waits: the disk does not take it.
    pub(super) fn refuse_all(&self, error: &BufferError) {
        let (appends, questions, marks) = {
            let mut waiting = self.lock();
            (
                std::mem::take(&mut waiting.appends),
                std::mem::take(&mut waiting.questions),
                std::mem::take(&mut waiting.synced_marks),
            )
        };
        drop(questions);
        for append in appends.into_iter().flatten() {
            let _ = append.reply.send(Err(error.clone()));
        }
        for mark in marks {
            let _ = mark.reply.send(Err(error.clone()));
        }
    }
}
