//! The collector's own events: raised anywhere, sealed here, stored like everybody else's.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{error, warn};
use watchline_node::identity::Identity;
use watchline_proto::{
    ChainHeld, ClockState, Epoch, EpochChain, Head, Lane, PreviousEpoch, SpiffeId,
    chain::{Draft, Sealed},
    payload::{EventMeta, Origin, Payload, PayloadBuilder},
    signature::SignedKind,
    wire,
};

use super::GapMetrics;
use crate::{
    buffer::{Buffer, BufferError, Decision, Incoming},
    chains::ChainStore,
};

/// Events that may wait to be sealed. Beyond that they are counted by name, and the count becomes an event.
const MAX_WAITING: usize = 4096;
/// Events in one batch.
const MAX_BATCH: usize = 256;
/// Longest body and attribute value, in bytes: names and reasons from outside are bounded here.
const MAX_TEXT: usize = 1024;
/// Between attempts to store a batch.
const RETRY: Duration = Duration::from_millis(500);

/// Raises events of the collector's own: sealed by the collector itself, kind `watchline`, in the alert lane.
pub trait OwnEvents: Send + Sync + 'static {
    /// Hands an event over. Never waits for the disk. `name` is its `event.name`, `body` one line for people.
    fn raise(&self, name: &'static str, attributes: Vec<(String, String)>, body: String);

    /// Waits until everything raised before is durable in the buffer, but no longer than `at_most`. `false`: it is not known to be.
    ///
    /// Whoever moves a mark past a loss asks this first, or a crash could keep the mark and forget the gap. Blocks; not for a
    /// runtime thread.
    fn wait_durable(&self, at_most: Duration) -> bool;
}

#[derive(Debug)]
struct Raised {
    name: &'static str,
    attributes: Vec<(String, String)>,
    body: String,
    unix_nano: i64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// At most [`MAX_WAITING`], a few KiB each.
    events: VecDeque<Raised>,
    /// What did not fit, by name.
    suppressed: BTreeMap<&'static str, u64>,
    /// Events ever raised, and how many of them are durable.
    raised: u64,
    durable: u64,
    closed: bool,
}

/// Where events wait to be sealed. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct OwnEventQueue {
    shared: Arc<(Mutex<Waiting>, Condvar, Notify)>,
    gaps: GapMetrics,
}

/// Events for one batch; `upto` of all raised are durable with it.
struct Taken {
    events: Vec<Raised>,
    upto: u64,
}

impl OwnEventQueue {
    /// An empty one; gaps are counted as they are raised.
    pub fn new(gaps: GapMetrics) -> OwnEventQueue {
        OwnEventQueue {
            gaps,
            ..OwnEventQueue::default()
        }
    }

    /// Nothing more will be raised: the sealer ends when it has stored what waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.2.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events; `None`: closed and empty.
    async fn take(&self) -> Option<Taken> {
        loop {
            let more = self.shared.2.notified();
            {
                let mut waiting = self.lock();
                let count = waiting.events.len().min(MAX_BATCH);
                let mut events: Vec<Raised> = waiting.events.drain(..count).collect();
                if waiting.events.is_empty() {
                    let suppressed = std::mem::take(&mut waiting.suppressed);
                    events.extend(
                        suppressed
                            .into_iter()
                            .map(|(name, count)| summary(name, count)),
                    );
                }
                if !events.is_empty() {
                    let left =
                        waiting.events.len() as u64 + waiting.suppressed.values().sum::<u64>();
                    let upto = waiting.raised - left;
                    return Some(Taken { events, upto });
                }
                if waiting.closed {
                    return None;
                }
            }
            more.await;
        }
    }

    fn stored(&self, upto: u64) {
        let mut waiting = self.lock();
        waiting.durable = waiting.durable.max(upto);
        drop(waiting);
        self.shared.1.notify_all();
    }
}

fn summary(name: &'static str, count: u64) -> Raised {
    Raised {
        name: "watchline.events.suppressed",
        attributes: vec![
            ("watchline.suppressed.event".to_owned(), name.to_owned()),
            ("watchline.suppressed.count".to_owned(), count.to_string()),
        ],
        body: format!("{count} more events {name} came faster than they could be stored"),
        unix_nano: unix_nano(),
    }
}

impl OwnEvents for OwnEventQueue {
    fn raise(&self, name: &'static str, mut attributes: Vec<(String, String)>, mut body: String) {
        warn!(event = name, "{body}");
        if name == "watchline.gap" {
            self.gaps.count_event(&attributes);
        }
        cut(&mut body);
        for (_, value) in &mut attributes {
            cut(value);
        }
        let mut waiting = self.lock();
        waiting.raised += 1;
        if waiting.events.len() < MAX_WAITING {
            waiting.events.push_back(Raised {
                name,
                attributes,
                body,
                unix_nano: unix_nano(),
            });
        } else {
            *waiting.suppressed.entry(name).or_default() += 1;
        }
        drop(waiting);
        self.shared.2.notify_one();
    }

    fn wait_durable(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut waiting = self.lock();
        let upto = waiting.raised;
        while waiting.durable < upto {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waiting = self
                .shared
                .1
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
}

fn unix_nano() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Seals what was raised under an epoch of this process, signs it with the identity of that moment, and stores it in the
/// collector's own buffer.
pub struct OwnSealer {
    queue: OwnEventQueue,
    buffer: Buffer,
    identity: Identity,
    chains: ChainStore,
    builder: PayloadBuilder,
}

/// The buffer is closed; what waits is lost with the process, as it would be in a crash.
struct Closed;

impl OwnSealer {
    /// Nothing is sealed before [`OwnSealer::run`].
    pub fn new(
        queue: OwnEventQueue,
        buffer: Buffer,
        identity: Identity,
        chains: ChainStore,
    ) -> OwnSealer {
        OwnSealer {
            queue,
            buffer,
            identity,
            chains,
            builder: PayloadBuilder::new(),
        }
    }

    /// Seals and stores until the queue is closed and empty, or the buffer is closed. A batch that cannot be stored now is tried
    /// again for as long as it takes.
    pub async fn run(mut self) {
        let sealer = self.identity.current().id.clone();
        let held = self.buffer.held_by(&sealer).await;
        let mut chain = EpochChain::after(sealer, Epoch::random(), last_epoch(&held));
        while let Some(taken) = self.queue.take().await {
            let Some(payload) = self.pack(&taken.events) else {
                continue;
            };
            if self.store(&mut chain, &payload).await.is_err() {
                return;
            }
            self.queue.stored(taken.upto);
        }
    }

    fn pack(&mut self, events: &[Raised]) -> Option<Payload> {
        for event in events {
            let origin = self.builder.origin(&Origin {
                source: "watchline".to_owned(),
                kind: "watchline".to_owned(),
                attributes: Vec::new(),
            });
            let mut attributes = vec![("event.name", event.name)];
            attributes.extend(
                event
                    .attributes
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            );
            self.builder.push(
                event.body.as_bytes(),
                EventMeta {
                    origin,
                    observed_unix_nano: event.unix_nano,
                    time_unix_nano: Some(event.unix_nano),
                    severity: severity(event.name),
                    attributes: &attributes,
                },
            );
        }
        self.builder.finish()
    }

    async fn store(&self, chain: &mut EpochChain, payload: &Payload) -> Result<(), Closed> {
        let mut sealed = self.seal(chain, payload);
        loop {
            let Some(batch) = &sealed else {
                tokio::time::sleep(RETRY).await;
                sealed = self.seal(chain, payload);
                continue;
            };
            match self.append(batch, payload).await {
                Ok(Decision::Stored | Decision::Duplicate) => return Ok(()),
                Ok(Decision::Fork { detail }) => {
                    error!(
                        detail,
                        "the buffer holds another history of this collector's own events: sealing under a new epoch"
                    );
                    *chain = chain.succeed(chain.sealer().clone(), Epoch::random());
                    sealed = self.seal(chain, payload);
                }
                Err(BufferError::Closed) => return Err(Closed),
                Err(error) => {
                    warn!(error = %error, "own events wait to be stored");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn seal(&self, chain: &mut EpochChain, payload: &Payload) -> Option<Sealed> {
        let identity = self.identity.current();
        if *chain.sealer() != identity.id {
            *chain = chain.succeed(identity.id.clone(), Epoch::random());
        }
        let draft = Draft {
            lane: Lane::Alert,
            payload,
            labels: &BTreeMap::new(),
            clock: ClockState::Unknown,
            sealed_unix_nano: unix_nano(),
            voids: &[],
        };
        chain
            .seal(draft)
            .inspect_err(|error| error!(error = %error, "own events cannot be sealed"))
            .ok()
    }

    /// Signs with the certificate of this moment, keeps that certificate, appends, and waits for the commit.
    async fn append(&self, sealed: &Sealed, payload: &Payload) -> Result<Decision, BufferError> {
        let unavailable = |reason: String| BufferError::Unavailable { reason };
        let identity = self.identity.current();
        let signature = identity
            .key
            .sign(SignedKind::Seal, identity.id.trust_domain(), &sealed.bytes)
            .map_err(|error| unavailable(format!("sign: {error}")))?;
        let certificates = identity
            .chain
            .iter()
            .map(|der| der.clone().into())
            .collect();
        self.chains
            .keep(certificates)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let incoming = Incoming {
            seal: sealed.seal.clone(),
            seal_hash: sealed.hash,
            batch: wire::SealedBatch {
                seal: sealed.bytes.clone(),
                payload: payload.bytes.clone(),
                signature: signature.into(),
                algorithm: identity.key.algorithm().into(),
                signer: identity.fingerprint.into(),
                receipts: Vec::new(),
            },
            direct_peer: identity.id.clone(),
        };
        let answer = self.buffer.append_if_new(incoming).await?;
        answer.await.map_err(|_| BufferError::Closed)?
    }
}

/// The newest epoch of what is held, as the next one names it.
fn last_epoch(held: &[wire::ChainHeld]) -> Option<PreviousEpoch> {
    let held: Vec<ChainHeld> = held
        .iter()
        .filter_map(|chain| chain.try_into().ok())
        .collect();
    let epoch = held.first()?.epoch;
    let head = |lane: Lane| {
        let chain = held
            .iter()
            .find(|chain| chain.epoch == epoch && chain.lane == lane);
        chain
            .and_then(|chain| chain.ranges.last())
            .map_or(Head::START, |range| range.head())
    };
    Some(PreviousEpoch {
        epoch,
        heads: Lane::ALL.map(head),
    })
}

/// OpenTelemetry severity: INFO for what is good news, ERROR for what a person must look at, else WARN.
fn severity(name: &str) -> u8 {
    match name {
        "watchline.forwarder.resumed" | "watchline.collector.resumed" => 9,
        "watchline.gap" | "watchline.chain.fork" | "watchline.identity.duplicate" => 17,
        _ => 13,
    }
}

/// Names of those who are in an event: `watchline.forwarder`, `watchline.agency`.
pub(crate) fn peer_attributes(peer: &SpiffeId) -> Vec<(String, String)> {
    let mut attributes = vec![("watchline.peer".to_owned(), peer.to_string())];
    if let Some(agency) = peer.agency() {
        attributes.push(("watchline.agency".to_owned(), agency.to_string()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_come_out_in_order_and_what_does_not_fit_is_counted() {
        let queue = OwnEventQueue::default();
        for number in 0..MAX_WAITING + 3 {
            queue.raise("watchline.gap", Vec::new(), number.to_string());
        }
        queue.close();
        let mut bodies = Vec::new();
        let mut upto = 0;
        while let Some(taken) = queue.take().await {
            assert!(taken.upto > upto);
            upto = taken.upto;
            bodies.extend(
                taken
                    .events
                    .into_iter()
                    .map(|event| (event.name, event.body)),
            );
        }
        assert_eq!(upto as usize, MAX_WAITING + 3);
        assert_eq!(bodies.len(), MAX_WAITING + 1);
        let (name, body) = &bodies[MAX_WAITING];
        assert_eq!(*name, "watchline.events.suppressed");
        assert!(body.starts_with("3 more events watchline.gap"), "{body}");
        assert!((0..MAX_WAITING).all(|number| bodies[number].1 == number.to_string()));
    }

    #[tokio::test]
    async fn durable_means_all_that_was_raised_before() {
        let queue = OwnEventQueue::default();
        assert!(queue.wait_durable(Duration::ZERO), "nothing was raised");
        queue.raise("watchline.gap", Vec::new(), "one".to_owned());
        assert!(!queue.wait_durable(Duration::ZERO));
        let taken = queue.take().await.unwrap();
        let waiter = std::thread::spawn({
            let queue = queue.clone();
            move || queue.wait_durable(Duration::from_secs(60))
        });
        queue.stored(taken.upto);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut text = "é".repeat(MAX_TEXT);
        cut(&mut text);
        assert!(text.len() <= MAX_TEXT + '…'.len_utf8() && text.ends_with('…'));
    }
}
