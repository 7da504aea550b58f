//! What the uplink says of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use watchline_proto::Lane;

use super::metrics::UplinkCounters;

/// State for `/readyz` and `/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UplinkStatus {
    /// The endpoint of the stream that is up (Welcome received).
    pub connected_to: Option<String>,
    /// When that stream came up, Unix nanoseconds; 0 when it is down.
    pub since_unix_nano: i64,
    /// Why there is no stream, or why the last one ended.
    pub last_error: Option<String>,
    /// Batches that the next hop has stored, or that were set aside, by `Lane::index`.
    pub acked_batches: [u64; 2],
    /// Batches handed to the line, repetitions included.
    pub sent_batches: [u64; 2],
    /// Batches set aside.
    pub rejected_batches: [u64; 2],
    /// Streams lost or refused.
    pub reconnects: u64,
    /// When the last acknowledgement came, Unix nanoseconds.
    pub last_ack_unix_nano: i64,
    /// The next hop refuses us for what configuration can cure, or a person must look: why. Nothing is lost meanwhile.
    pub parked: Option<String>,
    /// The server asks us to hold back.
    pub throttled: Option<String>,
    /// Bytes that wait for an acknowledgement.
    pub in_flight_bytes: u64,
}

/// Keeps status and metrics in step.
pub(super) struct Reporter {
    status: watch::Sender<UplinkStatus>,
    counters: UplinkCounters,
}

impl Reporter {
    pub(super) fn new(counters: UplinkCounters) -> Reporter {
        Reporter {
            status: watch::Sender::new(UplinkStatus::default()),
            counters,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<UplinkStatus> {
        self.status.subscribe()
    }

    pub(super) fn connected(&self, endpoint: String) {
        self.counters.connected.set(1);
        self.status.send_modify(|status| {
            status.connected_to = Some(endpoint);
            status.since_unix_nano = now_unix_nano();
            status.throttled = None;
        });
    }

    /// A stream has shown that it is good (something was acknowledged, or it has stayed up).
    pub(super) fn unparked(&self) {
        self.counters.parked.set(0);
        self.status.send_if_modified(|status| {
            let changed = status.parked.is_some() || status.last_error.is_some();
            status.parked = None;
            status.last_error = None;
            changed
        });
    }

    /// True when this is news.
    pub(super) fn disconnected(&self, error: Option<String>) -> bool {
        self.counters.connected.set(0);
        self.counters.in_flight_bytes.set(0);
        let mut news = false;
        self.status.send_modify(|status| {
            news = status.connected_to.is_some() || status.last_error != error;
            status.connected_to = None;
            status.since_unix_nano = 0;
            status.throttled = None;
            status.in_flight_bytes = 0;
            if error.is_some() {
                status.last_error = error;
            }
        });
        news
    }

    /// True when this is news.
    pub(super) fn parked(&self, reason: String) -> bool {
        self.counters.parked.set(1);
        self.disconnected(Some(reason.clone()));
        let mut news = false;
        self.status.send_modify(|status| {
            news = status.parked.as_ref() != Some(&reason);
            status.parked = Some(reason);
        });
        news
    }

    pub(super) fn reconnected(&self, reason: &'static str) {
        self.counters.reconnect(reason);
        self.status.send_modify(|status| status.reconnects += 1);
    }

    pub(super) fn throttled(&self, reason: Option<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.throttled != reason;
            status.throttled = reason;
            changed
        });
    }

    pub(super) fn sent(&self, lane: Lane, bytes: u64, in_flight_bytes: u64) {
        self.counters.sent(lane, bytes);
        self.counters.in_flight_bytes.set(signed(in_flight_bytes));
        self.status.send_modify(|status| {
            status.sent_batches[lane.index()] += 1;
            status.in_flight_bytes = in_flight_bytes;
        });
    }

    pub(super) fn answered(&self, acked: [u64; 2], in_flight_bytes: u64) {
        for lane in Lane::ALL {
            self.counters.acked(lane, acked[lane.index()]);
        }
        self.counters.in_flight_bytes.set(signed(in_flight_bytes));
        self.status.send_modify(|status| {
            status.acked_batches[0] += acked[0];
            status.acked_batches[1] += acked[1];
            status.last_ack_unix_nano = now_unix_nano();
            status.in_flight_bytes = in_flight_bytes;
        });
    }

    pub(super) fn set_aside(&self, lane: Lane, reason: &'static str) {
        self.counters.rejected(lane, reason);
        self.status
            .send_modify(|status| status.rejected_batches[lane.index()] += 1);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) fn now_unix_nano() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
