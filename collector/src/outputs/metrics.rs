//! What outputs count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The label of every metric here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutput {
    output: String,
}

/// The metrics of all `file` and `archive` outputs.
#[derive(Debug, Clone, Default)]
pub struct OutputsMetrics {
    events: Family<ByOutput, Counter>,
    batches: Family<ByOutput, Counter>,
    written_bytes: Family<ByOutput, Counter>,
    marks: Family<ByOutput, Counter>,
    rotations: Family<ByOutput, Counter>,
    failures: Family<ByOutput, Counter>,
    unreadable_batches: Family<ByOutput, Counter>,
    failing: Family<ByOutput, Gauge>,
}

impl OutputsMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> OutputsMetrics {
        let all = OutputsMetrics::default();
        registry.register(
            "watchline_output_events",
            "Events written, before any that a failure makes it write again",
            all.events.clone(),
        );
        registry.register(
            "watchline_output_batches",
            "Batches written in full",
            all.batches.clone(),
        );
        registry.register(
            "watchline_output_written_bytes",
            "Bytes written to files",
            all.written_bytes.clone(),
        );
        registry.register(
            "watchline_output_marks",
            "Windows synced and marked as delivered",
            all.marks.clone(),
        );
        registry.register(
            "watchline_output_rotations",
            "Files closed for a new one",
            all.rotations.clone(),
        );
        registry.register(
            "watchline_output_failures",
            "Attempts that ended in an error",
            all.failures.clone(),
        );
        registry.register(
            "watchline_output_unreadable_batches",
            "Batches set aside because they could not be opened",
            all.unreadable_batches.clone(),
        );
        registry.register(
            "watchline_output_failing",
            "1 while the output does not work",
            all.failing.clone(),
        );
        all
    }

    /// The metrics of one output.
    pub fn of(&self, output: &str) -> OutputMetrics {
        let label = ByOutput {
            output: output.to_owned(),
        };
        OutputMetrics {
            events: self.events.get_or_create_owned(&label),
            batches: self.batches.get_or_create_owned(&label),
            written_bytes: self.written_bytes.get_or_create_owned(&label),
            marks: self.marks.get_or_create_owned(&label),
            rotations: self.rotations.get_or_create_owned(&label),
            failures: self.failures.get_or_create_owned(&label),
            unreadable_batches: self.unreadable_batches.get_or_create_owned(&label),
            failing: self.failing.get_or_create_owned(&label),
        }
    }
}

/// The metrics of one output.
#[derive(Debug, Clone, Default)]
pub struct OutputMetrics {
    pub(super) events: Counter,
    pub(super) batches: Counter,
    pub(super) written_bytes: Counter,
    pub(super) marks: Counter,
    pub(super) rotations: Counter,
    pub(super) failures: Counter,
    pub(super) unreadable_batches: Counter,
    pub(super) failing: Gauge,
}
