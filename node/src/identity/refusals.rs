use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::Instant;

use super::Refused;

/// How long a peer that was logged stays quiet.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Peers that are remembered for that; beyond it they are counted and not logged. About 100 bytes each.
const REMEMBERED_PEERS: usize = 4096;

/// When a peer was last logged, by address and reason.
type LastLogged = HashMap<(Option<IpAddr>, &'static str), Instant>;

/// Counts refusals by reason and logs them once a peer address and minute. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Refusals {
    by_reason: Family<[(&'static str, &'static str); 1], Counter>,
    logged: Arc<Mutex<LastLogged>>,
}

impl Refusals {
    /// Registers `watchline_refused_total{reason}`. Reasons of the handshake are there from the start, at 0, so that their first
    /// refusal is seen as an increase.
    pub fn register(&self, registry: &mut Registry) {
        for reason in Refused::REASONS {
            drop(self.by_reason.get_or_create(&[("reason", reason)]));
        }
        registry.register(
            "watchline_refused",
            "Peers and batches that were refused, by reason",
            self.by_reason.clone(),
        );
    }

    /// A connection or stream was refused.
    pub fn refused(&self, address: Option<SocketAddr>, refused: &Refused) {
        self.refused_because(address, refused.reason(), refused);
    }

    /// The same for reasons that other components have; `reason` must be of a small closed set.
    pub fn refused_because(
        &self,
        address: Option<SocketAddr>,
        reason: &'static str,
        detail: &dyn std::fmt::Display,
    ) {
        self.by_reason.get_or_create(&[("reason", reason)]).inc();
        if self.is_due(address.map(|address| address.ip()), reason) {
            let peer = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
            tracing::warn!(peer, reason, %detail, "peer refused");
        }
    }

    /// How many were refused for a reason.
    pub fn count(&self, reason: &'static str) -> u64 {
        self.by_reason.get_or_create(&[("reason", reason)]).get()
    }

    fn is_due(&self, address: Option<IpAddr>, reason: &'static str) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged
            .get(&(address, reason))
            .is_some_and(|last| now.duration_since(*last) < LOGGED_EVERY)
        {
            return false;
        }
        if logged.len() >= REMEMBERED_PEERS {
            logged.retain(|_, last| now.duration_since(*last) < LOGGED_EVERY);
        }
        if logged.len() >= REMEMBERED_PEERS {
            return false;
        }
        logged.insert((address, reason), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_refusal_counts_and_a_peer_is_logged_once_a_minute() {
        let refusals = Refusals::default();
        let peer = Some("192.0.2.1:4711".parse().unwrap());
        let other_port = Some("192.0.2.1:4712".parse().unwrap());
        refusals.refused(peer, &Refused::Expired);
        refusals.refused(other_port, &Refused::Expired);
        assert_eq!(refusals.count("expired"), 2);
        let ip = Some("192.0.2.1".parse().unwrap());
        assert!(!refusals.is_due(ip, "expired"));
        assert!(refusals.is_due(ip, "revoked"));
        tokio::time::advance(LOGGED_EVERY).await;
        assert!(refusals.is_due(ip, "expired"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_remembered_up_to_a_bound() {
        let refusals = Refusals::default();
        for address in 0..2 * REMEMBERED_PEERS as u32 {
            refusals.is_due(Some(IpAddr::from(address.to_be_bytes())), "expired");
        }
        assert_eq!(refusals.logged.lock().unwrap().len(), REMEMBERED_PEERS);
        tokio::time::advance(LOGGED_EVERY).await;
        assert!(refusals.is_due(None, "expired"));
    }
}
