//! Health endpoints and their fixed names.

use anyhow::{Result, ensure};
use e2e::{Lab, Line, Node, Writer};
use serde_json::Value;

fn expect(node: &Node, path: &str, status: u16) -> Result<String> {
    let answer = node.get(path)?;
    ensure!(
        answer.status == status,
        "{} {path}: {} {}",
        node.name,
        answer.status,
        answer.body
    );
    Ok(answer.body)
}

#[test]
fn every_health_path_answers_and_the_fixed_metrics_are_there() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.wait_arrived(1)?;
        for node in line.nodes() {
            expect(node, "/livez", 200)?;
            let ready: Value = serde_json::from_str(&expect(node, "/readyz", 200)?)?;
            ensure!(ready.is_object(), "{ready}");
            let status: Value = serde_json::from_str(&expect(node, "/status", 200)?)?;
            ensure!(status.is_object(), "{status}");
            expect(node, "/no-such-path", 404)?;
            let metrics = expect(node, "/metrics", 200)?;
            for name in [
                "watchline_build_info{",
                "watchline_certificate_expiry_timestamp_seconds",
                "watchline_crl_next_update_timestamp_seconds",
                "watchline_backlog_bytes{lane=\"alert\"",
                "watchline_backlog_bytes{lane=\"routine\"",
                "watchline_backlog_oldest_age_seconds{lane=\"alert\"",
                "watchline_events_total{",
                "watchline_config_last_reload_successful",
            ] {
                ensure!(
                    metrics.lines().any(|line| line.starts_with(name)),
                    "{} has no {name}:\n{metrics}",
                    node.name
                );
            }
            ensure!(
                metrics.contains("watchline_gap_records_total"),
                "{} counts no gaps:\n{metrics}",
                node.name
            );
            for line in metrics
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
            {
                ensure!(line.starts_with("watchline_"), "not ours: {line}");
            }
        }
        for node in [&line.collector, &line.center] {
            ensure!(
                expect(node, "/metrics", 200)?.contains("watchline_refused_total"),
                "{} counts no refusals",
                node.name
            );
        }
        expect(&line.collector, "/readyz/ingest", 200)?;
        expect(&line.center, "/readyz/ingest", 200)?;
        expect(&line.forwarder, "/readyz/ingest", 404)?;
        Ok(())
    })
}

#[test]
fn a_forwarder_without_a_collector_lives_is_not_ready_and_says_why() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.forwarder.start()?;
        line.forwarder.wait_not_ready()?;
        expect(&line.forwarder, "/livez", 200)?;
        let body: Value = serde_json::from_str(&expect(&line.forwarder, "/readyz", 503)?)?;
        ensure!(body.to_string().contains("reason"), "no reason: {body}");
        Ok(())
    })
}
