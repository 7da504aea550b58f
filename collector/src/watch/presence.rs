//! Who is connected to this collector, and when each peer was last heard.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;
use watchline_proto::SpiffeId;

/// What is known of one peer. Times are of the monotonic clock: a step of the wall clock silences nobody.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Open connections, standby ones included.
    pub connections: usize,
    /// When it last said anything, or (for a peer known from before) when this process started.
    pub last: Instant,
    /// When its last connection ended.
    pub left: Option<Instant>,
    /// How far its clock is ahead of ours, by its last heartbeat, the way of the message included.
    pub skew_nano: Option<i64>,
    /// Known from what is stored, but not heard since this process started.
    pub remembered: bool,
}

/// The peers of this process. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    peers: Arc<Mutex<HashMap<SpiffeId, Seen>>>,
}

/// One connection of a peer, for as long as it is open. Dropping it says that it is gone.
#[derive(Debug)]
pub struct Connected {
    presence: Presence,
    peer: SpiffeId,
}

impl Presence {
    /// Nobody yet.
    pub fn new() -> Presence {
        Presence::default()
    }

    /// A peer has been let in. Keep the result as long as the connection is open.
    pub fn connected(&self, peer: &SpiffeId) -> Connected {
        let now = Instant::now();
        let mut peers = self.lock();
        let seen = peers.entry(peer.clone()).or_insert_with(|| Seen {
            connections: 0,
            last: now,
            left: None,
            skew_nano: None,
            remembered: false,
        });
        seen.connections += 1;
        seen.last = now;
        seen.remembered = false;
        Connected {
            presence: self.clone(),
            peer: peer.clone(),
        }
    }

    /// A peer that has been here before this process started: silent if it does not come back.
    pub(super) fn remember(&self, peer: &SpiffeId) {
        self.lock().entry(peer.clone()).or_insert_with(|| Seen {
            connections: 0,
            last: Instant::now(),
            left: None,
            skew_nano: None,
            remembered: true,
        });
    }

    /// All peers, in no order.
    pub fn all(&self) -> Vec<(SpiffeId, Seen)> {
        self.lock()
            .iter()
            .map(|(peer, seen)| (peer.clone(), seen.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SpiffeId, Seen>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    /// The peer has said something: call for each message, it costs a look-up.
    pub fn heard(&self) {
        if let Some(seen) = self.presence.lock().get_mut(&self.peer) {
            seen.last = Instant::now();
        }
    }
}

impl Connected {
    /// The peer has said what time it is.
    pub fn told_time(&self, unix_nano: i64) {
        let ours = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let ours = i64::try_from(ours.as_nanos()).unwrap_or(i64::MAX);
        if let Some(seen) = self.presence.lock().get_mut(&self.peer) {
            seen.skew_nano = Some(unix_nano.saturating_sub(ours));
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(seen) = self.presence.lock().get_mut(&self.peer) {
            seen.connections = seen.connections.saturating_sub(1);
            if seen.connections == 0 {
                seen.left = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_connected_as_long_as_one_connection_is_open() {
        let peer: SpiffeId = "spiffe://watch.example/agency/moh/forwarder/host-01"
            .parse()
            .unwrap();
        let presence = Presence::new();
        presence.remember(&peer);
        assert!(presence.all()[0].1.remembered);
        let first = presence.connected(&peer);
        let second = presence.connected(&peer);
        drop(first);
        let before = Instant::now();
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        second.heard();
        let seen = &presence.all()[0].1;
        assert_eq!(
            (seen.connections, seen.remembered, seen.left),
            (1, false, None)
        );
        assert!(seen.last > before);
        drop(second);
        assert_eq!(presence.all()[0].1.connections, 0);
        assert!(presence.all()[0].1.left.is_some());
    }
}
