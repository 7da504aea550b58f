//! What came, and what became of it. `taken = stored + duplicate + rejected + unanswered`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use watchline_proto::Lane;

/// What became of a batch that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// On disk.
    Stored,
    /// Was there.
    Duplicate,
    /// Its own defect.
    Rejected,
    /// The stream was refused or lost, or the buffer failed: the sender keeps it and offers it again.
    Unanswered,
}

impl Outcome {
    const ALL: [Outcome; 4] = [
        Outcome::Stored,
        Outcome::Duplicate,
        Outcome::Rejected,
        Outcome::Unanswered,
    ];

    fn word(self) -> &'static str {
        match self {
            Outcome::Stored => "stored",
            Outcome::Duplicate => "duplicate",
            Outcome::Rejected => "rejected",
            Outcome::Unanswered => "unanswered",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    lane: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    lane: &'static str,
}

/// Counters of ingest; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct IngestMetrics {
    connections: Gauge,
    streams: Gauge,
    taken: Family<OfLane, Counter>,
    batches: Family<Of, Counter>,
    events: Family<Of, Counter>,
    bytes: Family<Of, Counter>,
}

impl IngestMetrics {
    /// Registers `watchline_ingest_*`; the registry adds no prefix of its own.
    pub fn register(registry: &mut Registry) -> IngestMetrics {
        let all = IngestMetrics::default();
        registry.register(
            "watchline_ingest_connections",
            "Open connections",
            all.connections.clone(),
        );
        registry.register(
            "watchline_ingest_streams",
            "Open streams",
            all.streams.clone(),
        );
        registry.register(
            "watchline_ingest_taken_batches",
            "Batches that arrived",
            all.taken.clone(),
        );
        registry.register(
            "watchline_ingest_batches",
            "Batches, by what became of them",
            all.batches.clone(),
        );
        registry.register(
            "watchline_ingest_events",
            "Events, by what became of them",
            all.events.clone(),
        );
        registry.register(
            "watchline_ingest_bytes",
            "Bytes of batches, by what became of them",
            all.bytes.clone(),
        );
        for lane in Lane::ALL {
            let _ = all.taken.get_or_create(&OfLane {
                lane: lane.as_str(),
            });
            for outcome in Outcome::ALL {
                let labels = Of {
                    lane: lane.as_str(),
                    outcome: outcome.word(),
                };
                for family in [&all.batches, &all.events, &all.bytes] {
                    let _ = family.get_or_create(&labels);
                }
            }
        }
        all
    }

    pub(super) fn connections(&self, open: usize) {
        self.connections
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub(super) fn stream_opened(&self) {
        self.streams.inc();
    }

    pub(super) fn stream_ended(&self) {
        self.streams.dec();
    }

    pub(super) fn taken(&self, lane: Lane) {
        self.taken
            .get_or_create(&OfLane {
                lane: lane.as_str(),
            })
            .inc();
    }

    pub(super) fn became(&self, lane: Lane, outcome: Outcome, events: u64, bytes: u64) {
        let labels = Of {
            lane: lane.as_str(),
            outcome: outcome.word(),
        };
        self.batches.get_or_create(&labels).inc();
        self.events.get_or_create(&labels).inc_by(events);
        self.bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// Batches of both lanes with this outcome, and all that were taken: for tests of the sums.
    #[cfg(test)]
    pub(super) fn batches(&self, outcome: Outcome) -> u64 {
        let of = |lane: Lane| Of {
            lane: lane.as_str(),
            outcome: outcome.word(),
        };
        Lane::ALL
            .into_iter()
            .map(|lane| self.batches.get_or_create(&of(lane)).get())
            .sum()
    }

    #[cfg(test)]
    pub(super) fn all_taken(&self) -> u64 {
        Lane::ALL
            .into_iter()
            .map(|lane| {
                self.taken
                    .get_or_create(&OfLane {
                        lane: lane.as_str(),
                    })
                    .get()
            })
            .sum()
    }
}
