//! Counters of the reader: what was taken in, what is missing.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use watchline_proto::Lane;

use crate::{
    batch::Counted,
    gaps::{Gap, GapReason},
    sources::{Filter, SourceStatus, syslog::Closing},
};

type Labels<const N: usize> = [(&'static str, String); N];

/// Names in one place. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    events: Family<Labels<2>, Counter>,
    event_bytes: Family<Labels<2>, Counter>,
    batches: Family<[(&'static str, &'static str); 1], Counter>,
    gap_records: Family<[(&'static str, &'static str); 1], Counter>,
    gap_bytes: Family<[(&'static str, &'static str); 1], Counter>,
    gaps: Family<[(&'static str, &'static str); 1], Counter>,
    alert_excess: Family<Labels<1>, Counter>,
    filtered: Family<Labels<3>, Counter>,
    unreadable: Family<Labels<1>, Gauge>,
    planted: Family<Labels<1>, Gauge>,
    followed: Family<Labels<1>, Gauge>,
    held_bytes: Family<Labels<1>, Gauge>,
    disk_failures: Counter,
    syslog_closed: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) hints_on: Gauge,
    reloaded: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let all = metrics.clone();
        registry.register(
            "watchline_events",
            "Events sealed into the spool",
            all.events,
        );
        registry.register(
            "watchline_event_bytes",
            "Bytes of their original records",
            all.event_bytes,
        );
        registry.register(
            "watchline_sealed_batches",
            "Batches sealed into the spool",
            all.batches,
        );
        registry.register(
            "watchline_gap_records",
            "Records known to be missing, where their number is known",
            all.gap_records,
        );
        registry.register(
            "watchline_gap_bytes",
            "Bytes known to be missing, where their number is known",
            all.gap_bytes,
        );
        registry.register("watchline_gaps", "Gap events raised", all.gaps);
        registry.register(
            "watchline_alert_excess",
            "Events that matched an alert rule beyond its max_rate and went the routine way",
            all.alert_excess,
        );
        registry.register(
            "watchline_filtered_events",
            "Events that a rule of their source dropped, or masked in part",
            all.filtered,
        );
        registry.register(
            "watchline_source_files",
            "Files that are followed or cannot be read",
            all.followed,
        );
        registry.register(
            "watchline_source_unreadable_files",
            "Files that match and cannot be read",
            all.unreadable,
        );
        registry.register(
            "watchline_source_planted_files",
            "Files that match and are refused because somebody may have planted them: links, FIFOs, devices",
            all.planted,
        );
        registry.register(
            "watchline_source_held_bytes",
            "Unread bytes of files that have no name any more",
            all.held_bytes,
        );
        registry.register(
            "watchline_spool_disk_failures",
            "Times that the spool's disk failed",
            all.disk_failures,
        );
        registry.register(
            "watchline_hints_on",
            "1 while the kernel says which files changed",
            all.hints_on,
        );
        registry.register(
            "watchline_config_last_reload_successful",
            "1 when the configuration in force is the one on disk at the last reload",
            all.reloaded,
        );
        registry.register(
            "watchline_syslog_closed",
            "Connections of syslog sources that were closed or not taken, by reason",
            all.syslog_closed,
        );
        metrics.reloaded.set(1);
        for lane in Lane::ALL {
            let _ = metrics.batches.get_or_create(&[("lane", lane.as_str())]);
        }
        for closing in Closing::ALL {
            let labels = [("reason", closing.as_str())];
            let _ = metrics.syslog_closed.get_or_create(&labels);
        }
        for reason in GapReason::ALL {
            let _ = metrics
                .gap_records
                .get_or_create(&[("reason", reason.as_str())]);
        }
        metrics
    }

    pub(crate) fn reloaded(&self, successfully: bool) {
        self.reloaded.set(successfully.into());
    }

    pub(crate) fn syslog_closed(&self, closing: Closing) {
        self.syslog_closed
            .get_or_create(&[("reason", closing.as_str())])
            .inc();
    }

    #[cfg(test)]
    pub(crate) fn syslog_closed_so_far(&self, closing: Closing) -> u64 {
        let labels = [("reason", closing.as_str())];
        self.syslog_closed.get_or_create(&labels).get()
    }

    pub(crate) fn disk_failed(&self) {
        self.disk_failures.inc();
    }

    pub(crate) fn sealed(&self, lane: Lane) {
        self.batches.get_or_create(&[("lane", lane.as_str())]).inc();
    }

    pub(crate) fn counted(&self, source: &str, lane: Lane, counted: Counted) {
        let labels = [
            ("source", source.to_owned()),
            ("lane", lane.as_str().to_owned()),
        ];
        self.events.get_or_create(&labels).inc_by(counted.events);
        self.event_bytes
            .get_or_create(&labels)
            .inc_by(counted.bytes);
    }

    pub(crate) fn gap(&self, gap: &Gap) {
        let labels = [("reason", gap.reason.as_str())];
        self.gaps.get_or_create(&labels).inc();
        self.gap_records
            .get_or_create(&labels)
            .inc_by(gap.records.unwrap_or(0));
        self.gap_bytes.get_or_create(&labels).inc_by(gap.bytes);
    }

    pub(crate) fn excess(&self, rule: &str, events: u64) {
        self.alert_excess
            .get_or_create(&[("rule", rule.to_owned())])
            .inc_by(events);
    }

    pub(crate) fn filtered(&self, source: &str, filter: &Filter, events: u64) {
        let labels = [
            ("source", source.to_owned()),
            ("rule", filter.name.clone()),
            ("action", filter.action.as_str().to_owned()),
        ];
        self.filtered.get_or_create(&labels).inc_by(events);
    }

    pub(crate) fn source(&self, status: &SourceStatus) {
        let labels = [("source", status.name.clone())];
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.followed
            .get_or_create(&labels)
            .set(count(status.followed));
        self.unreadable
            .get_or_create(&labels)
            .set(count(status.unreadable));
        self.planted
            .get_or_create(&labels)
            .set(count(status.planted));
        self.held_bytes
            .get_or_create(&labels)
            .set(i64::try_from(status.held_bytes).unwrap_or(i64::MAX));
        for lane in Lane::ALL {
            let _ = self.events.get_or_create(&[
                ("source", status.name.clone()),
                ("lane", lane.as_str().to_owned()),
            ]);
        }
    }
}
