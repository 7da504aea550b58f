//! Counters of all uplinks of a process, labelled by the uplink's name.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use watchline_proto::Lane;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfUplink {
    uplink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    uplink: String,
    lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    uplink: String,
    lane: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    uplink: String,
    reason: &'static str,
}

/// Registered once a process; each uplink gets its own labels.
#[derive(Debug, Clone, Default)]
pub struct UplinkMetrics {
    connected: Family<OfUplink, Gauge>,
    parked: Family<OfUplink, Gauge>,
    in_flight_bytes: Family<OfUplink, Gauge>,
    reconnects: Family<Because, Counter>,
    sent_batches: Family<OfLane, Counter>,
    sent_bytes: Family<OfLane, Counter>,
    acked_batches: Family<OfLane, Counter>,
    rejected_batches: Family<Rejected, Counter>,
}

impl UplinkMetrics {
    /// Registers `watchline_uplink_*`; the registry adds no prefix of its own.
    pub fn register(registry: &mut Registry) -> UplinkMetrics {
        let all = UplinkMetrics::default();
        registry.register(
            "watchline_uplink_connected",
            "1 while a stream is up",
            all.connected.clone(),
        );
        registry.register(
            "watchline_uplink_parked",
            "1 while the next hop refuses us for what configuration can cure",
            all.parked.clone(),
        );
        registry.register(
            "watchline_uplink_in_flight_bytes",
            "Bytes sent and not acknowledged",
            all.in_flight_bytes.clone(),
        );
        registry.register(
            "watchline_uplink_reconnects",
            "Streams lost, refused or moved, by reason",
            all.reconnects.clone(),
        );
        registry.register(
            "watchline_uplink_sent_batches",
            "Batches handed to the line, repetitions included",
            all.sent_batches.clone(),
        );
        registry.register(
            "watchline_uplink_sent_bytes",
            "Bytes of batches handed to the line, repetitions included",
            all.sent_bytes.clone(),
        );
        registry.register(
            "watchline_uplink_acked_batches",
            "Batches that the next hop has stored",
            all.acked_batches.clone(),
        );
        registry.register(
            "watchline_uplink_rejected_batches",
            "Batches refused for their own defect, by reason",
            all.rejected_batches.clone(),
        );
        all
    }

    pub(super) fn of(&self, uplink: &str) -> UplinkCounters {
        let name = OfUplink {
            uplink: uplink.to_owned(),
        };
        UplinkCounters {
            connected: self.connected.get_or_create_owned(&name),
            parked: self.parked.get_or_create_owned(&name),
            in_flight_bytes: self.in_flight_bytes.get_or_create_owned(&name),
            sent_batches: self.by_lane(&self.sent_batches, uplink),
            sent_bytes: self.by_lane(&self.sent_bytes, uplink),
            acked_batches: self.by_lane(&self.acked_batches, uplink),
            all: self.clone(),
            uplink: uplink.to_owned(),
        }
    }

    fn by_lane(&self, family: &Family<OfLane, Counter>, uplink: &str) -> [Counter; 2] {
        Lane::ALL.map(|lane| {
            family.get_or_create_owned(&OfLane {
                uplink: uplink.to_owned(),
                lane: lane.as_str(),
            })
        })
    }
}

/// The counters of one uplink, looked up once.
pub(super) struct UplinkCounters {
    pub(super) connected: Gauge,
    pub(super) parked: Gauge,
    pub(super) in_flight_bytes: Gauge,
    sent_batches: [Counter; 2],
    sent_bytes: [Counter; 2],
    acked_batches: [Counter; 2],
    all: UplinkMetrics,
    uplink: String,
}

impl UplinkCounters {
    pub(super) fn reconnect(&self, reason: &'static str) {
        self.all
            .reconnects
            .get_or_create(&Because {
                uplink: self.uplink.clone(),
                reason,
            })
            .inc();
    }

    pub(super) fn sent(&self, lane: Lane, bytes: u64) {
        self.sent_batches[lane.index()].inc();
        self.sent_bytes[lane.index()].inc_by(bytes);
    }

    pub(super) fn acked(&self, lane: Lane, batches: u64) {
        self.acked_batches[lane.index()].inc_by(batches);
    }

    pub(super) fn rejected(&self, lane: Lane, reason: &'static str) {
        let labels = Rejected {
            uplink: self.uplink.clone(),
            lane: lane.as_str(),
            reason,
        };
        self.all.rejected_batches.get_or_create(&labels).inc();
    }
}
