//! What a stream owes its client, in the order of ordinals.

use std::collections::VecDeque;

use watchline_proto::{Lane, wire::RejectReason};

use super::{
    Committed,
    metrics::{IngestMetrics, Outcome},
};
use crate::buffer::{BufferError, Decision};

/// Of one batch: what is counted of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) lane: Lane,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// What became of the oldest batch.
#[derive(Debug)]
pub(super) enum Reply {
    Stored,
    Rejected {
        ordinal: u64,
        reason: RejectReason,
        detail: String,
    },
    /// It is not stored, through no fault of its own: the stream ends.
    Failed(BufferError),
}

enum State {
    /// Waits for its place in the buffer.
    Waiting,
    Committing(Committed),
    Settled(Reply),
}

/// Batches that have come and have not been answered. As many as the client has in flight.
pub(super) struct Replies {
    first: u64,
    owed: VecDeque<(Size, State)>,
    metrics: IngestMetrics,
}

impl Replies {
    pub(super) fn new(metrics: IngestMetrics) -> Replies {
        Replies {
            first: 0,
            owed: VecDeque::new(),
            metrics,
        }
    }

    /// The next ordinal.
    pub(super) fn owe(&mut self, size: Size) -> u64 {
        self.metrics.taken(size.lane);
        self.owed.push_back((size, State::Waiting));
        self.first + self.owed.len() as u64 - 1
    }

    pub(super) fn reject(&mut self, ordinal: u64, reason: RejectReason, detail: String) {
        self.set(
            ordinal,
            State::Settled(Reply::Rejected {
                ordinal,
                reason,
                detail,
            }),
        );
    }

    pub(super) fn committing(&mut self, ordinal: u64, committed: Committed) {
        self.set(ordinal, State::Committing(committed));
    }

    pub(super) fn failed(&mut self, ordinal: u64, error: BufferError) {
        match error {
            BufferError::TooLarge { .. } => {
                self.reject(ordinal, RejectReason::TooLarge, error.to_string())
            }
            error => self.set(ordinal, State::Settled(Reply::Failed(error))),
        }
    }

    fn set(&mut self, ordinal: u64, state: State) {
        let index = ordinal
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some((_, owed)) = index.and_then(|index| self.owed.get_mut(index)) {
            *owed = state;
        }
    }

    /// Every batch with a smaller ordinal has been answered.
    pub(super) fn through(&self) -> u64 {
        self.first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// The next reply; waits for the commit of the oldest batch. Cancel safe.
    pub(super) async fn next(&mut self) -> Reply {
        let decided = match self.owed.front_mut() {
            Some((_, State::Committing(committed))) => {
                committed.await.unwrap_or(Err(BufferError::Closed))
            }
            Some((_, State::Settled(_))) => return self.settled(None),
            Some((_, State::Waiting)) | None => return std::future::pending().await,
        };
        self.settled(Some(decided))
    }

    /// The next reply if it is known now: those of one commit are known together.
    pub(super) fn try_next(&mut self) -> Option<Reply> {
        use tokio::sync::oneshot::error::TryRecvError;
        let decided = match self.owed.front_mut()? {
            (_, State::Committing(committed)) => match committed.try_recv() {
                Ok(decided) => Some(decided),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Closed) => Some(Err(BufferError::Closed)),
            },
            (_, State::Settled(_)) => None,
            (_, State::Waiting) => return None,
        };
        Some(self.settled(decided))
    }

    /// Takes out the oldest, which is decided.
    fn settled(&mut self, decided: Option<Result<Decision, BufferError>>) -> Reply {
        let ordinal = self.first;
        let Some((size, state)) = self.owed.pop_front() else {
            return Reply::Failed(BufferError::Closed);
        };
        self.first += 1;
        let (reply, outcome) = match (decided, state) {
            (Some(Ok(Decision::Stored)), _) => (Reply::Stored, Outcome::Stored),
            (Some(Ok(Decision::Duplicate)), _) => (Reply::Stored, Outcome::Duplicate),
            (Some(Ok(Decision::Fork { detail })), _) => (
                Reply::Rejected {
                    ordinal,
                    reason: RejectReason::Fork,
                    detail,
                },
                Outcome::Rejected,
            ),
            (Some(Err(error @ BufferError::TooLarge { .. })), _) => (
                Reply::Rejected {
                    ordinal,
                    reason: RejectReason::TooLarge,
                    detail: error.to_string(),
                },
                Outcome::Rejected,
            ),
            (Some(Err(error)), _) => (Reply::Failed(error), Outcome::Unanswered),
            (None, State::Settled(reply @ Reply::Rejected { .. })) => (reply, Outcome::Rejected),
            (None, State::Settled(reply)) => (reply, Outcome::Unanswered),
            (None, State::Waiting | State::Committing(_)) => {
                (Reply::Failed(BufferError::Closed), Outcome::Unanswered)
            }
        };
        self.metrics
            .became(size.lane, outcome, size.events, size.bytes);
        reply
    }

    /// The stream has ended: what is being committed is still counted for what it becomes.
    pub(super) async fn count_the_rest(mut self) {
        loop {
            match self.owed.front() {
                None => return,
                Some((_, State::Waiting)) => {
                    let _ = self.settled(None);
                }
                Some(_) => {
                    let _ = self.next().await;
                }
            }
        }
    }
}
