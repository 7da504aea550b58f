use std::fmt;

use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// OpenMetrics, for those who ask for it.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older text format, which everything reads.
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Registers `watchline_build_info{version,commit}`, always 1. `version` is [`crate::lifecycle::Version`]'s.
pub fn register_build_info(registry: &mut Registry, version: crate::lifecycle::Version) {
    let info = Family::<Vec<(String, String)>, Gauge>::default();
    let labels = vec![
        ("version".to_owned(), version.number().to_owned()),
        ("commit".to_owned(), version.commit().to_owned()),
    ];
    info.get_or_create(&labels).set(1);
    registry.register(
        "watchline_build_info",
        "Version and commit of the program",
        info,
    );
}

/// The registry as text, and its content type, as the request's `Accept` header asks.
pub(super) fn render(
    registry: &Registry,
    accept: &str,
) -> Result<(&'static str, String), fmt::Error> {
    let mut open_metrics = String::new();
    text::encode(&mut open_metrics, registry)?;
    if accept.contains("application/openmetrics-text") {
        return Ok((OPEN_METRICS, open_metrics));
    }
    Ok((PLAIN, plain(&open_metrics)))
}

/// OpenMetrics text as the older format: there, a counter's metadata bears the same name as its sample, and units and the end
/// mark do not exist.
fn plain(open_metrics: &str) -> String {
    let mut plain = String::with_capacity(open_metrics.len() + 256);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().and_then(|help| help.split_once(' ')) {
                plain.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            plain.push_str(&format!(
                "# TYPE {name}{suffix} {}\n",
                if kind == "unknown" { "untyped" } else { kind }
            ));
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn both_text_formats_name_a_counter_as_their_rules_say() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        counter.inc();
        registry.register("watchline_things", "Things seen", counter);
        let version = crate::lifecycle::Version::parse("1.2.3 (abc)");
        register_build_info(&mut registry, version);

        let (kind, text) = render(&registry, "text/plain").unwrap();
        assert_eq!(kind, PLAIN);
        assert_eq!(
            text,
            "# HELP watchline_things_total Things seen.\n# TYPE watchline_things_total counter\nwatchline_things_total 1\n\
             # HELP watchline_build_info Version and commit of the program.\n# TYPE watchline_build_info gauge\n\
             watchline_build_info{version=\"1.2.3\",commit=\"abc\"} 1\n"
        );
        let (kind, text) = render(
            &registry,
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        )
        .unwrap();
        assert_eq!(kind, OPEN_METRICS);
        assert!(
            text.contains("# TYPE watchline_things counter\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
    }
}
