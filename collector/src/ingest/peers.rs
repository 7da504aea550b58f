//! Who has been seen, and what they say of themselves.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::refusal::cut;
use watchline_node::identity::Peer;
use watchline_proto::{
    ClockState, Lane, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, SpiffeId, Statement,
    wire,
};

/// Names remembered that have no stream open.
const REMEMBERED: usize = 50_000;
/// A peer that comes and goes is logged no faster than this.
const TELL_EVERY_NANO: i64 = 10_000_000_000;
/// Sources listed of one peer.
const SOURCES: usize = 256;

/// What is known of one peer. Texts and lists from it are cut to the limits of labels.
#[derive(Debug, Clone, Default)]
pub struct PeerStatus {
    /// Open streams.
    pub streams: usize,
    /// When the newest stream was opened, Unix nanoseconds.
    pub connected_unix_nano: i64,
    /// When something last came, Unix nanoseconds.
    pub last_seen_unix_nano: i64,
    /// Where from.
    pub address: Option<std::net::SocketAddr>,
    /// When its certificate expires.
    pub certificate_expires: Option<SystemTime>,
    /// From Hello.
    pub software: String,
    /// From Hello.
    pub host: BTreeMap<String, String>,
    /// From the last heartbeat, by `Lane::index`: bytes, batches, oldest.
    pub backlog: [LaneBacklog; 2],
    /// From the last heartbeat: when each source was last read, Unix nanoseconds.
    pub sources_last_read: BTreeMap<String, i64>,
    /// From the last heartbeat.
    pub clock: Option<ClockState>,
    /// Its clock less ours when the last heartbeat came; the way here included.
    pub skew_nano: i64,
    /// The last statement, signed by the peer itself.
    pub statement: Option<Statement>,
    /// When its coming and its going were last logged.
    told_unix_nano: i64,
    told_gone_unix_nano: i64,
}

/// What waits at a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneBacklog {
    /// Its size.
    pub bytes: u64,
    /// Its batches.
    pub batches: u64,
    /// When the oldest was sealed, Unix nanoseconds; 0 when empty.
    pub oldest_unix_nano: i64,
}

/// All peers; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    known: Arc<Mutex<HashMap<SpiffeId, PeerStatus>>>,
}

impl Peers {
    /// As of now, by name.
    pub fn all(&self) -> BTreeMap<SpiffeId, PeerStatus> {
        self.lock()
            .iter()
            .map(|(id, status)| (id.clone(), status.clone()))
            .collect()
    }

    /// One of them.
    pub fn of(&self, peer: &SpiffeId) -> Option<PeerStatus> {
        self.lock().get(peer).cloned()
    }

    /// True when this is news: the peer had no stream, and its coming was not told a moment ago.
    pub(super) fn opened(&self, peer: &Peer, hello: &wire::Hello) -> bool {
        let mut known = self.lock();
        if known.len() >= REMEMBERED && !known.contains_key(&peer.id) {
            known.retain(|_, status| status.streams > 0);
        }
        let now = now_unix_nano();
        let status = known.entry(peer.id.clone()).or_default();
        let news = status.streams == 0 && now - status.told_unix_nano > TELL_EVERY_NANO;
        if news {
            status.told_unix_nano = now;
        }
        status.streams += 1;
        status.connected_unix_nano = now;
        status.last_seen_unix_nano = now;
        status.address = peer.address;
        status.certificate_expires = Some(peer.not_after);
        status.software = cut(&hello.software, MAX_LABEL_NAME_BYTES).to_owned();
        status.host = hello
            .host
            .iter()
            .take(MAX_LABELS)
            .map(|(name, value)| {
                (
                    cut(name, MAX_LABEL_NAME_BYTES).to_owned(),
                    cut(value, MAX_LABEL_VALUE_BYTES).to_owned(),
                )
            })
            .collect();
        news
    }

    /// True when this is news: it has no stream left, and its going was not told a moment ago.
    pub(super) fn ended(&self, peer: &SpiffeId) -> bool {
        let mut known = self.lock();
        let Some(status) = known.get_mut(peer) else {
            return false;
        };
        status.streams = status.streams.saturating_sub(1);
        let now = now_unix_nano();
        let news = status.streams == 0 && now - status.told_gone_unix_nano > TELL_EVERY_NANO;
        if news {
            status.told_gone_unix_nano = now;
        }
        news
    }

    /// When each was last heard, Unix nanoseconds.
    pub fn last_seen(&self) -> Vec<(SpiffeId, i64)> {
        let known = self.lock();
        let seen = known
            .iter()
            .map(|(id, status)| (id.clone(), status.last_seen_unix_nano));
        seen.collect()
    }

    pub(super) fn seen(&self, peer: &SpiffeId) {
        if let Some(status) = self.lock().get_mut(peer) {
            status.last_seen_unix_nano = now_unix_nano();
        }
    }

    /// `statement` has been verified to be the peer's own.
    pub(super) fn heartbeat(
        &self,
        peer: &SpiffeId,
        heartbeat: &wire::Heartbeat,
        statement: Option<Statement>,
    ) {
        let mut known = self.lock();
        let Some(status) = known.get_mut(peer) else {
            return;
        };
        let now = now_unix_nano();
        status.last_seen_unix_nano = now;
        status.skew_nano = heartbeat.time_unix_nano.saturating_sub(now);
        for backlog in heartbeat.backlog.iter().take(Lane::ALL.len()) {
            if let Ok(lane) = Lane::try_from(backlog.lane) {
                status.backlog[lane.index()] = LaneBacklog {
                    bytes: backlog.bytes,
                    batches: backlog.batches,
                    oldest_unix_nano: backlog.oldest_unix_nano,
                };
            }
        }
        status.sources_last_read = heartbeat
            .source_last_read_unix_nano
            .iter()
            .take(SOURCES)
            .map(|(source, time)| (cut(source, MAX_LABEL_NAME_BYTES).to_owned(), *time))
            .collect();
        status.clock = Some(ClockState::from_wire(heartbeat.clock));
        if statement.is_some() {
            status.statement = statement;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SpiffeId, PeerStatus>> {
        // Every change is complete in itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now_unix_nano() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
