//! What happens in the buffer, as events of the collector's own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::error;
use watchline_proto::SpiffeId;
use watchline_spool::Damage;

use crate::{
    buffer::{Buffer, Notice},
    ledger::{Alarm, Mismatch},
    watch::{OwnEvents, peer_attributes},
};

/// How long an event may take to become durable before it is asked for again.
const DURABLE_WITHIN: Duration = Duration::from_secs(10);

/// Between events about the forks of one sealer: whoever forges them must not fill the alert lane.
const FORK_PERIOD: Duration = Duration::from_secs(60);
/// Sealers remembered for that; with more, those whose minute is over are forgotten.
const MAX_REMEMBERED: usize = 4096;

/// Says of each sealer once a period that something is due.
#[derive(Debug, Default)]
struct Seldom {
    last: HashMap<SpiffeId, (Instant, u64)>,
}

impl Seldom {
    /// `Some`: it is due, and so many were not since the last time.
    fn due(&mut self, sealer: &SpiffeId, now: Instant) -> Option<u64> {
        if let Some((last, more)) = self.last.get_mut(sealer) {
            if now.duration_since(*last) < FORK_PERIOD {
                *more += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(more));
        }
        if self.last.len() >= MAX_REMEMBERED {
            self.last
                .retain(|_, (last, _)| now.duration_since(*last) < FORK_PERIOD);
        }
        self.last.insert(sealer.clone(), (now, 0));
        Some(0)
    }
}

/// Turns notices into events. Called from the buffer's thread: nothing here waits. Damage whose event has been raised goes to
/// `told`.
pub(super) fn tell(
    events: Arc<dyn OwnEvents>,
    told: mpsc::UnboundedSender<Damage>,
) -> impl Fn(Notice) + Send + Sync + 'static {
    let forks = Mutex::new(Seldom::default());
    move |notice| match notice {
        Notice::Damaged(damage) => {
            let batches: u64 = damage
                .items
                .iter()
                .map(|range| range.end.0 - range.start.0)
                .sum();
            let body = format!(
                "{batches} batches ({} bytes) in the buffer were damaged and set aside: {}",
                damage.bytes, damage.reason
            );
            let attributes = vec![
                attribute("watchline.gap.reason", "buffer_damage"),
                attribute("watchline.gap.batches", batches),
                attribute("watchline.gap.bytes", damage.bytes),
            ];
            events.raise("watchline.gap", attributes, body);
            let _ = told.send(damage); // stopping: it is reported again
        }
        Notice::Fork {
            seal,
            direct_peer,
            reason,
        } => {
            let more = {
                let mut forks = forks.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(more) = forks.due(&seal.sealer, Instant::now()) else {
                    return;
                };
                more
            };
            let body = format!(
                "{} epoch {} lane {} sequence {} contradicts what is held and was refused: {reason}",
                seal.sealer, seal.epoch, seal.lane, seal.sequence
            );
            let mut attributes = peer_attributes(&seal.sealer);
            attributes.extend([
                attribute("watchline.epoch", seal.epoch),
                attribute("watchline.lane", seal.lane),
                attribute("watchline.sequence", seal.sequence),
                attribute("watchline.sent_by", direct_peer),
                attribute("watchline.forks_before", more),
            ]);
            events.raise("watchline.chain.fork", attributes, body);
        }
        Notice::Alarm { sealer, alarm } => {
            let mut attributes = peer_attributes(&sealer);
            let (name, epoch, lane, body) = match alarm {
                Alarm::Mismatch {
                    epoch,
                    lane,
                    mismatch: Mismatch::Hash { sequence },
                } => {
                    attributes.push(attribute("watchline.sequence", sequence));
                    let body = format!(
                        "{sealer} epoch {epoch} lane {lane}: two hashes are named for sequence {sequence}; both sides are kept"
                    );
                    ("watchline.chain.fork", epoch, Some(lane), body)
                }
                Alarm::Mismatch {
                    epoch,
                    lane,
                    mismatch: Mismatch::BeyondEnd { sequence },
                } => {
                    attributes.push(attribute("watchline.sequence", sequence));
                    let body = format!(
                        "{sealer} epoch {epoch} lane {lane}: sequence {sequence} is held, but the sealer says that the epoch ended \
                         before: it has lost state, and its records may come again"
                    );
                    ("watchline.epoch.rewound", epoch, Some(lane), body)
                }
                Alarm::GivenUp { epoch, missing } => {
                    attributes.push(attribute("watchline.missing_batches", missing));
                    let body = format!(
                        "{sealer} epoch {epoch}: too many holes or epochs are open; {missing} batches that have not come will be refused"
                    );
                    ("watchline.ledger.given_up", epoch, None, body)
                }
                Alarm::VoidIgnored { epoch, lane } => {
                    let body = format!(
                        "{sealer} epoch {epoch} lane {lane}: too many void ranges; a hole stays open"
                    );
                    ("watchline.ledger.given_up", epoch, Some(lane), body)
                }
            };
            attributes.push(attribute("watchline.epoch", epoch));
            if let Some(lane) = lane {
                attributes.push(attribute("watchline.lane", lane));
            }
            events.raise(name, attributes, body);
        }
        Notice::LedgerEntry { key, reason } => {
            error!(key = %key, reason = %reason, "an entry of the ledger cannot be read");
            let body = format!(
                "an entry of the ledger cannot be read, its chain counts as unknown: {key}: {reason}"
            );
            events.raise(
                "watchline.ledger.unreadable",
                vec![attribute("watchline.ledger.key", key)],
                body,
            );
        }
    }
}

/// Settles damage once the event about it is durable, so that a crash in between tells it twice rather than never. Ends when nobody
/// is left who could report any.
pub(super) async fn settle(
    mut told: mpsc::UnboundedReceiver<Damage>,
    events: Arc<dyn OwnEvents>,
    buffer: Buffer,
) {
    while let Some(damage) = told.recv().await {
        loop {
            let events = Arc::clone(&events);
            let durable = tokio::task::spawn_blocking(move || events.wait_durable(DURABLE_WITHIN));
            if durable.await.unwrap_or(false) {
                break;
            }
            if buffer.is_closed() {
                return;
            }
        }
        buffer.settle(damage);
    }
}

fn attribute(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_of_a_sealer_are_told_once_a_minute_with_their_number() {
        let sealer = |name: &str| -> SpiffeId {
            format!("spiffe://watch.example/agency/moh/forwarder/{name}")
                .parse()
                .unwrap()
        };
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(&sealer("a"), now), Some(0));
        assert_eq!(seldom.due(&sealer("a"), now + FORK_PERIOD / 2), None);
        assert_eq!(seldom.due(&sealer("a"), now + FORK_PERIOD / 2), None);
        assert_eq!(seldom.due(&sealer("b"), now), Some(0));
        assert_eq!(seldom.due(&sealer("a"), now + FORK_PERIOD), Some(2));
    }
}
