//! Records known to be missing, counted by reason.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The reasons counted by name: what collectors say of themselves, and what sealers say of void batches. Any other is `other`, so that
/// nobody can mint labels.
const REASONS: [&str; 9] = [
    "buffer_damage",
    "retention",
    "set_aside",
    "unreadable_batch",
    "damaged",
    "dropped_oldest",
    "forked",
    "unsealable",
    OTHER,
];
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Counters of gaps; clones share them.
#[derive(Debug, Clone, Default)]
pub struct GapMetrics {
    events: Family<ByReason, Counter>,
    records: Family<ByReason, Counter>,
}

impl GapMetrics {
    /// Registers them, each reason at zero.
    pub fn register(registry: &mut Registry) -> GapMetrics {
        let metrics = GapMetrics::default();
        registry.register(
            "watchline_gaps",
            "Known losses: gap events raised here, and void ranges in stored seals",
            metrics.events.clone(),
        );
        registry.register(
            "watchline_gap_records",
            "Records known to be missing, where their number is known",
            metrics.records.clone(),
        );
        for reason in REASONS {
            let _ = metrics.events.get_or_create(&ByReason { reason });
            let _ = metrics.records.get_or_create(&ByReason { reason });
        }
        metrics
    }

    /// A gap with so many records; 0 where their number is not known.
    pub fn count(&self, reason: &str, records: u64) {
        let known = REASONS.into_iter().find(|known| *known == reason);
        let reason = known.unwrap_or(OTHER);
        self.events.get_or_create(&ByReason { reason }).inc();
        self.records
            .get_or_create(&ByReason { reason })
            .inc_by(records);
    }

    /// A gap event as it is raised.
    pub(super) fn count_event(&self, attributes: &[(String, String)]) {
        let value = |name: &str| {
            let found = attributes.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_str())
        };
        let records = value("watchline.gap.records").and_then(|records| records.parse().ok());
        self.count(
            value("watchline.gap.reason").unwrap_or(OTHER),
            records.unwrap_or(0),
        );
    }

    /// Records counted for a reason.
    #[cfg(test)]
    pub(crate) fn records(&self, reason: &'static str) -> u64 {
        self.records.get_or_create(&ByReason { reason }).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_mint_labels() {
        let metrics = GapMetrics::register(&mut Registry::default());
        metrics.count("dropped_oldest", 7);
        metrics.count("made up", 2);
        let attribute = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        metrics.count_event(&[
            attribute("watchline.gap.reason", "set_aside"),
            attribute("watchline.gap.records", "5"),
        ]);
        metrics.count_event(&[]);
        let counted =
            ["dropped_oldest", "other", "set_aside"].map(|reason| metrics.records(reason));
        assert_eq!(counted, [7, 2, 5]);
    }
}
