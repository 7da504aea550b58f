//! What is sent: the next batch, chosen at the last moment, and heartbeats.

use std::time::Duration;

use prost::Message as _;
use tokio::time::Instant;
use watchline_proto::{Lane, wire};

use super::{Connector, Ended, LineError, RETRIES_AT_ONCE, Session};
use crate::uplink::{signer::Unsendable, status::now_unix_nano, window::What};

impl<C: Connector> Session<'_, C> {
    /// Hands the next message to the line, which has room for it.
    pub(super) async fn send(&mut self) -> Option<Ended> {
        if self.outbox.is_empty()
            && let Err(ended) = self.choose().await
        {
            return Some(ended);
        }
        if let Some(message) = self.outbox.pop_front() {
            self.line.gate.handed(message.encoded_len() as u64);
            // If the stream has ended meanwhile its status is read next, and the message is offered again.
            let _ = self.line.outbound.try_send(message);
        }
        None
    }

    /// The lane that is served next, if anything may be sent now: alert first. `gated`: respecting the gate.
    pub(super) fn choice(&self, gated: bool) -> Option<Lane> {
        let now = Instant::now();
        Lane::ALL.into_iter().find(|lane| {
            let waiting = self
                .again
                .iter()
                .find_map(|(_, l, stored)| (l == lane).then_some(stored))
                .or_else(|| self.shared.feed.front(*lane).map(|item| &item.bytes));
            let Some(stored) = waiting else { return false };
            self.config.lanes.contains(lane)
                && self.paused_until[lane.index()].is_none_or(|until| until <= now)
                && self.window.has_room(*lane, stored.len() as u64)
                && (*lane == Lane::Alert || !gated || self.line.gate.is_open())
        })
    }

    /// Moves the next batch, with the certificates it needs, to the outbox.
    pub(super) async fn choose(&mut self) -> Result<(), Ended> {
        let Some(lane) = self.choice(true) else {
            return Ok(());
        };
        let (what, stored) = match self.again.iter().position(|(_, l, _)| *l == lane) {
            Some(index) => match self.again.remove(index) {
                Some((path, _, stored)) => (What::Again(path), stored),
                None => return Ok(()),
            },
            None => match self.shared.feed.front(lane) {
                Some(item) => (What::Item(item.no), item.bytes.clone()),
                None => return Ok(()),
            },
        };
        let identity = self.identity.current();
        let ready = match self.signer.ready(&stored, &identity) {
            Ok(ready) => ready,
            Err(Unsendable::Unsigned(error)) => {
                return Err(Ended::Lost(LineError::Signature(error)));
            }
            Err(Unsendable::Defect(reason, detail)) => {
                self.set_aside(lane, &what, stored, reason, &detail).await?;
                if matches!(what, What::Item(_)) {
                    self.shared.feed.pop(lane);
                }
                self.tell_acked();
                return self.too_many_rejects().map_or(Ok(()), Err);
            }
        };
        if matches!(what, What::Item(_)) {
            self.shared.feed.pop(lane);
        }
        if let Some(chain) =
            self.signer
                .introduce(&ready.batch.signer, &identity, &*self.shared.chains)
        {
            self.outbox
                .push_back(message(wire::client_message::Kind::Certificates(chain)));
        }
        if self.window.is_empty() {
            self.answered_at = Instant::now();
        }
        self.window.push(lane, what, stored, ready.bytes, ready.own);
        self.shared
            .report
            .sent(lane, ready.bytes, self.window.bytes());
        self.outbox
            .push_back(message(wire::client_message::Kind::Batch(ready.batch)));
        Ok(())
    }

    pub(super) fn has_next(&self) -> bool {
        !self.config.lanes.is_empty() && self.shared.feed.has_next()
    }

    pub(super) fn heartbeat_interval(&self) -> Duration {
        match self.line.welcome.heartbeat_seconds {
            0 => self.config.heartbeat.max(Duration::from_millis(100)),
            seconds => Duration::from_secs(u64::from(seconds.min(3600))),
        }
    }

    pub(super) fn beat(&mut self) -> Option<Ended> {
        let is_heartbeat = |m: &wire::ClientMessage| {
            matches!(m.kind, Some(wire::client_message::Kind::Heartbeat(_)))
        };
        if self.outbox.iter().any(is_heartbeat) {
            return None; // the line is stuck: the one that waits will do
        }
        let identity = self.identity.current();
        let vitals = self.shared.owner.vitals();
        let backlog = self.view.backlog(self.reader_name);
        let statement = match vitals
            .statement
            .map(|statement| statement.sign(&identity.key, identity.fingerprint))
        {
            None => None,
            Some(Ok(signed)) => Some(signed),
            Some(Err(error)) => return Some(Ended::Lost(LineError::Signature(error))),
        };
        if let Some(signed) = &statement
            && let Some(chain) =
                self.signer
                    .introduce(&signed.signer, &identity, &*self.shared.chains)
        {
            self.outbox
                .push_back(message(wire::client_message::Kind::Certificates(chain)));
        }
        let heartbeat = wire::Heartbeat {
            time_unix_nano: now_unix_nano(),
            backlog: Lane::ALL
                .into_iter()
                .map(|lane| {
                    let status = &backlog[lane.index()];
                    wire::LaneBacklog {
                        lane: wire::Lane::from(lane).into(),
                        bytes: status.bytes,
                        batches: status.items,
                        oldest_unix_nano: if status.items == 0 {
                            0
                        } else {
                            status.oldest_unix_nano
                        },
                    }
                })
                .collect(),
            source_last_read_unix_nano: vitals.sources_last_read,
            clock: wire::Clock::from(vitals.clock).into(),
            statement,
            relayed: vitals.relayed,
        };
        self.outbox
            .push_back(message(wire::client_message::Kind::Heartbeat(heartbeat)));
        None
    }

    pub(super) fn look_for_retries(&mut self) {
        if !self.again.is_empty() || self.config.lanes.is_empty() {
            return;
        }
        let in_flight = self.window.again();
        self.again
            .extend(self.shared.quarantine.waiting(RETRIES_AT_ONCE, &in_flight));
    }
}

fn message(kind: wire::client_message::Kind) -> wire::ClientMessage {
    wire::ClientMessage { kind: Some(kind) }
}
