//! What the buffer counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// What became of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Handed to the buffer: the sum of all others, but for what is on its way.
    Offered,
    /// Stored and synced.
    Stored,
    /// Held already.
    Duplicate,
    /// Refused as a fork.
    Fork,
    /// Not taken now (full, failing, a limit); the sender offers them again.
    Refused,
}

impl Stage {
    const ALL: [Stage; 5] = [
        Stage::Offered,
        Stage::Stored,
        Stage::Duplicate,
        Stage::Fork,
        Stage::Refused,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Stage::Offered => "offered",
            Stage::Stored => "stored",
            Stage::Duplicate => "duplicate",
            Stage::Fork => "fork",
            Stage::Refused => "refused",
        }
    }
}

/// The label of `watchline_events_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStage {
    stage: &'static str,
}

impl From<Stage> for ByStage {
    fn from(stage: Stage) -> ByStage {
        ByStage {
            stage: stage.as_str(),
        }
    }
}

/// Counters of the buffer; clones share them.
#[derive(Debug, Clone)]
pub struct BufferMetrics {
    events: Family<ByStage, Counter>,
    batches: Family<ByStage, Counter>,
    commit_seconds: Histogram,
    commit_batches: Histogram,
    commit_bytes: Histogram,
    failures: Counter,
    damaged_bytes: Counter,
}

impl Default for BufferMetrics {
    fn default() -> Self {
        BufferMetrics {
            events: Family::default(),
            batches: Family::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            commit_batches: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            commit_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 8)),
            failures: Counter::default(),
            damaged_bytes: Counter::default(),
        }
    }
}

impl BufferMetrics {
    /// Makes and registers them.
    pub fn register(registry: &mut Registry) -> BufferMetrics {
        let metrics = BufferMetrics::default();
        for stage in Stage::ALL {
            let _ = metrics.events.get_or_create(&stage.into());
            let _ = metrics.batches.get_or_create(&stage.into());
        }
        registry.register(
            "watchline_events",
            "Events by what became of them at the buffer; offered is the sum of the others",
            metrics.events.clone(),
        );
        registry.register(
            "watchline_batches",
            "Batches by what became of them at the buffer; offered is the sum of the others",
            metrics.batches.clone(),
        );
        registry.register(
            "watchline_buffer_commit_seconds",
            "Time from the first append to the end of the sync of a commit",
            metrics.commit_seconds.clone(),
        );
        registry.register(
            "watchline_buffer_commit_batches",
            "Batches stored by one commit",
            metrics.commit_batches.clone(),
        );
        registry.register(
            "watchline_buffer_commit_bytes",
            "Bytes of the batches stored by one commit",
            metrics.commit_bytes.clone(),
        );
        registry.register(
            "watchline_buffer_failures",
            "Appends and syncs that the disk failed",
            metrics.failures.clone(),
        );
        registry.register(
            "watchline_buffer_damaged_bytes",
            "Durable bytes found damaged and set aside",
            metrics.damaged_bytes.clone(),
        );
        metrics
    }

    pub(super) fn count(&self, stage: Stage, events: u64) {
        self.events.get_or_create(&stage.into()).inc_by(events);
        self.batches.get_or_create(&stage.into()).inc();
    }

    pub(super) fn commit(&self, seconds: f64, batches: usize, bytes: usize) {
        self.commit_seconds.observe(seconds);
        self.commit_batches.observe(batches as f64);
        self.commit_bytes.observe(bytes as f64);
    }

    pub(super) fn failure(&self) {
        self.failures.inc();
    }

    pub(super) fn damage(&self, bytes: u64) {
        self.damaged_bytes.inc_by(bytes);
    }

    /// Events counted so far.
    pub fn events(&self, stage: Stage) -> u64 {
        self.events.get_or_create(&stage.into()).get()
    }
}
