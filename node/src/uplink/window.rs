//! What is in flight on a stream: by ordinal, as the server acknowledges it.

use std::{collections::VecDeque, path::PathBuf};

use bytes::Bytes;
use watchline_proto::Lane;
use watchline_spool::ItemNo;

/// What was sent under an ordinal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// An item of the spool.
    Item(ItemNo),
    /// A file out of quarantine, offered again.
    Again(PathBuf),
}

/// One batch in flight.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) lane: Lane,
    pub(super) what: What,
    /// As stored: kept so that a refused batch can be set aside. Bounded by the in-flight limit.
    pub(super) stored: Bytes,
    /// As sent.
    pub(super) bytes: u64,
    /// Sealed here, signed when sent.
    pub(super) own: bool,
}

/// Ordinals that wait for an answer. Worst memory: the in-flight limit a lane, or one batch.
pub(super) struct Window {
    first: u64,
    sent: VecDeque<Sent>,
    bytes: [u64; 2],
    limit: u64,
}

/// The server named an ordinal that it cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown;

impl Window {
    /// `limit` is Welcome's, in bytes of batches as sent, for each lane: a routine backlog never holds up an alert.
    pub(super) fn new(limit: u64) -> Window {
        Window {
            first: 0,
            sent: VecDeque::new(),
            bytes: [0; 2],
            limit,
        }
    }

    /// Whether a batch of this size may be sent now. One of each lane always may.
    pub(super) fn has_room(&self, lane: Lane, bytes: u64) -> bool {
        let used = self.bytes[lane.index()];
        used == 0 || used.saturating_add(bytes) <= self.limit
    }

    pub(super) fn push(&mut self, lane: Lane, what: What, stored: Bytes, bytes: u64, own: bool) {
        self.bytes[lane.index()] += bytes;
        self.sent.push_back(Sent {
            lane,
            what,
            stored,
            bytes,
            own,
        });
    }

    /// Takes out everything before `through`.
    pub(super) fn ack(&mut self, through: u64) -> Result<Vec<Sent>, Unknown> {
        let count = through
            .checked_sub(self.first)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or(Unknown)?;
        if count > self.sent.len() {
            return Err(Unknown);
        }
        self.first = through;
        let out: Vec<Sent> = self.sent.drain(..count).collect();
        for sent in &out {
            self.bytes[sent.lane.index()] -= sent.bytes;
        }
        Ok(out)
    }

    /// The oldest that waits for an answer.
    pub(super) fn front(&self) -> Option<&Sent> {
        self.sent.front()
    }

    /// The oldest item of a lane that waits for an answer.
    pub(super) fn oldest(&self, lane: Lane) -> Option<ItemNo> {
        self.sent.iter().find_map(|sent| match sent.what {
            What::Item(item) if sent.lane == lane => Some(item),
            _ => None,
        })
    }

    /// What is offered again and waits for its answer.
    pub(super) fn again(&self) -> Vec<PathBuf> {
        let again = self.sent.iter().filter_map(|sent| match &sent.what {
            What::Again(path) => Some(path.clone()),
            What::Item(_) => None,
        });
        again.collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes[0] + self.bytes[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(window: &mut Window, lane: Lane, item: u64, bytes: u64) {
        window.push(lane, What::Item(ItemNo(item)), Bytes::new(), bytes, true);
    }

    #[test]
    fn one_batch_of_each_lane_is_always_allowed() {
        let mut window = Window::new(0);
        assert!(window.has_room(Lane::Routine, 1000));
        push(&mut window, Lane::Routine, 0, 1000);
        assert!(!window.has_room(Lane::Routine, 1));
        assert!(window.has_room(Lane::Alert, 1000));
    }

    #[test]
    fn bytes_come_back_with_the_acknowledgement() {
        let mut window = Window::new(100);
        push(&mut window, Lane::Routine, 7, 60);
        push(&mut window, Lane::Alert, 3, 10);
        push(&mut window, Lane::Routine, 8, 40);
        assert!(!window.has_room(Lane::Routine, 1));
        assert_eq!(window.oldest(Lane::Routine), Some(ItemNo(7)));
        assert_eq!(window.ack(2).unwrap().len(), 2);
        assert_eq!(
            (window.bytes(), window.oldest(Lane::Routine)),
            (40, Some(ItemNo(8)))
        );
        assert!(window.has_room(Lane::Routine, 60));
    }

    #[test]
    fn an_ordinal_that_was_never_sent_is_refused() {
        let mut window = Window::new(100);
        push(&mut window, Lane::Alert, 0, 1);
        assert_eq!(window.ack(2).unwrap_err(), Unknown);
        assert_eq!(window.ack(1).unwrap().len(), 1);
        assert!(window.front().is_none());
        assert_eq!(window.ack(0).unwrap_err(), Unknown);
    }
}
