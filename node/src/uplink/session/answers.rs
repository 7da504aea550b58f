//! What the server says of the batches it was sent.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{error, warn};
use watchline_proto::{Lane, wire};
use watchline_spool::LANES;

use super::{Connector, Ended, Fork, LONGEST_PAUSE, LineError, REJECTS_IN_A_ROW, Session};
use crate::uplink::{
    SetAside, chain_of,
    connect::cut,
    signer::events_of,
    window::{Sent, Unknown, What},
};

impl<C: Connector> Session<'_, C> {
    pub(super) async fn receive(&mut self, message: wire::ServerMessage) -> Option<Ended> {
        use wire::server_message::Kind;
        self.answered_at = Instant::now();
        match message.kind {
            Some(Kind::Ack(ack)) => match self.window.ack(ack.through) {
                Ok(stored) => self.stored(stored),
                Err(Unknown) => return Some(broke("it acknowledges what was not sent")),
            },
            Some(Kind::Reject(reject)) => return self.rejected(reject).await,
            Some(Kind::Throttle(throttle)) => self.throttled(&throttle),
            Some(Kind::Drain(drain)) => self.drain(&drain),
            Some(Kind::Welcome(_)) => return Some(broke("a second Welcome")),
            None => {} // a later version's message
        }
        None
    }

    pub(super) fn stored(&mut self, stored: Vec<Sent>) {
        let mut acked = [0; 2];
        for sent in &stored {
            acked[sent.lane.index()] += 1;
            match &sent.what {
                What::Again(path) => self.shared.quarantine.delivered(path),
                What::Item(item) => {
                    if let Some(fork) = &mut self.forked {
                        fork.stored[sent.lane.index()].push(*item);
                    }
                }
            }
        }
        if !stored.is_empty() {
            self.shared.rejects_in_a_row = 0;
            self.prove();
        }
        self.shared.report.answered(acked, self.window.bytes());
        self.tell_acked();
    }

    /// A Reject comes in the order of ordinals: everything before it is stored.
    pub(super) async fn rejected(&mut self, reject: wire::Reject) -> Option<Ended> {
        match self.window.ack(reject.ordinal) {
            Ok(stored) => self.stored(stored),
            Err(Unknown) => return Some(broke("it rejects what was not sent")),
        }
        let Some(sent) = self.window.front().cloned() else {
            return Some(broke("it rejects what was not sent"));
        };
        let lane = sent.lane;
        match (&sent.what, reject.reason()) {
            (What::Item(item), wire::RejectReason::Fork) if sent.own => {
                warn!(uplink = %self.config.name, lane = lane.as_str(), item = item.0, detail = cut(&reject.detail, 512), "fork");
                let fork = self.forked.get_or_insert_with(|| Fork {
                    lane,
                    from: [None; LANES],
                    stored: Default::default(),
                });
                fork.from[lane.index()].get_or_insert(*item);
            }
            (what, reason) => {
                if let Err(ended) = self
                    .set_aside(lane, what, sent.stored.clone(), reason, &reject.detail)
                    .await
                {
                    return Some(ended);
                }
            }
        }
        if self.window.ack(reject.ordinal.saturating_add(1)).is_err() {
            return Some(broke("it rejects what was not sent"));
        }
        self.shared.report.answered([0; 2], self.window.bytes());
        self.tell_acked();
        self.too_many_rejects()
    }

    pub(super) fn too_many_rejects(&mut self) -> Option<Ended> {
        if self.shared.rejects_in_a_row < REJECTS_IN_A_ROW {
            return None;
        }
        // One more reject ends the next stream, too, until something is stored.
        self.shared.rejects_in_a_row = REJECTS_IN_A_ROW - 1;
        Some(Ended::TooManyRejects)
    }

    /// Keeps the bytes, then tells the owner. If they cannot be kept the batch stays unacknowledged and the stream ends.
    pub(super) async fn set_aside(
        &mut self,
        lane: Lane,
        what: &What,
        stored: Bytes,
        reason: wire::RejectReason,
        detail: &str,
    ) -> Result<(), Ended> {
        let events = events_of(&stored);
        let quarantine = self.shared.quarantine.clone();
        let again = match what {
            What::Again(path) => Some(path.clone()),
            What::Item(_) => None,
        };
        let kept = tokio::task::spawn_blocking(move || match again {
            None => quarantine.put(lane, reason, &stored),
            Some(path) => quarantine.refused_again(&path),
        });
        let file = match kept.await {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => return Err(Ended::Unwritable(chain_of(&error))),
            Err(error) => return Err(Ended::Unwritable(error.to_string())),
        };
        let item = match what {
            What::Item(item) => Some(*item),
            What::Again(_) => None,
        };
        let detail = cut(detail, 512).to_owned();
        error!(uplink = %self.config.name, lane = lane.as_str(), reason = reason.word(), detail, events,
            file = %file.display(), "a batch was refused for its own defect and is set aside");
        self.shared.report.set_aside(lane, reason.word());
        self.shared.rejects_in_a_row += 1;
        if item.is_some() {
            // What was offered again has had its gap event.
            self.shared.owner.set_aside(SetAside {
                lane,
                item,
                reason,
                detail,
                events,
                file,
            });
        }
        Ok(())
    }

    pub(super) fn throttled(&mut self, throttle: &wire::Throttle) {
        let pause =
            Duration::from_millis(u64::from(throttle.pause_milliseconds)).min(LONGEST_PAUSE);
        let until = (!pause.is_zero()).then(|| Instant::now() + pause);
        self.paused_until[Lane::Routine.index()] = until;
        if throttle.alerts_too || until.is_none() {
            self.paused_until[Lane::Alert.index()] = until;
        }
        self.shared
            .report
            .throttled(until.map(|_| cut(&throttle.reason, 256).to_owned()));
    }

    pub(super) fn resume(&mut self) {
        let now = Instant::now();
        for until in &mut self.paused_until {
            until.take_if(|until| *until <= now);
        }
        if self.paused_until == [None; 2] {
            self.shared.report.throttled(None);
        }
    }

    pub(super) fn prove(&mut self) {
        if !self.proved {
            self.proved = true;
            self.shared.report.unparked();
        }
    }
}

fn broke(what: &'static str) -> Ended {
    Ended::Lost(LineError::Protocol(what))
}
