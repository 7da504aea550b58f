//! What is written to a file arrives at the centre, whatever is not running at the time.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{
    Lab, Line, Writer, oracle,
    waiting::{wait_until, wait_while_it_moves},
};

#[test]
fn a_lone_line_arrives_at_the_centre_byte_for_byte_as_ndjson_and_raw() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["auth.log"])?;
        line.center.config.table("[[output]]");
        line.center.config.set("[[output]]", "name", "raw");
        line.center.config.set("[[output]]", "kind", "file");
        line.center.config.set("[[output]]", "path", "events.raw");
        line.center.config.set("[[output]]", "format", "raw");
        line.forwarder.config.set("[labels]", "system", "portal");
        line.forwarder.config.set("[labels]", "level", "3");
        line.start()?;

        let mut log = Writer::create(&lab.log("auth.log"))?;
        let record = "sshd[1]: Failed password for ąćę from 192.0.2.1\r".as_bytes();
        log.append(record)?;
        let raw = line.center.path("events.raw");
        wait_until("the raw output", || {
            Ok(raw.exists() && fs::read(&raw)?.ends_with(b"\n"))
        })?;
        line.finish_exact(&[&log])?;
        oracle::judge_raw(log.written(), &[raw])?.exact()?;

        let json = &line.events()?[0].json;
        ensure!(
            json["v"] == 1 && json["agency"] == "moh" && json["forwarder"] == "host-01",
            "{json}"
        );
        ensure!(
            json["source"] == "app" && json["kind"] == "file" && json["lane"] == "routine",
            "{json}"
        );
        ensure!(
            json["labels"]["system"] == "portal" && json["labels"]["level"] == "3",
            "{json}"
        );
        ensure!(json["time"].is_null() || json["time"].is_string(), "{json}");
        for key in ["observed", "received"] {
            let time = json[key]
                .as_str()
                .with_context(|| format!("{key} is missing: {json}"))?;
            ensure!(
                time.ends_with('Z') && time.as_bytes()[10] == b'T',
                "{key} is not RFC 3339 in UTC: {json}"
            );
        }
        let epoch = json["epoch"].as_str().context("epoch")?;
        let id = format!("watch.test/moh/host-01/{epoch}/routine/0/0");
        ensure!(json["id"] == id.as_str(), "id is not {id}: {json}");
        Ok(())
    })
}

#[test]
fn a_record_that_is_not_utf8_is_carried_byte_for_byte() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["bytes.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("bytes.log"))?;
        log.append(b"\xff\xfe\x00 \xc3\x28 \x80")?;
        log.append(b"")?;
        log.append(b"\r")?;
        log.append("plain \u{1F600} \u{2028} \u{0}".as_bytes())?;
        log.append(&[b'x'; 100_000])?;
        line.finish_exact(&[&log])?;
        let events = line.events()?;
        ensure!(events[0].json["body"].is_null(), "{}", events[0].json);
        ensure!(
            events[0].json["body_base64"].is_string(),
            "{}",
            events[0].json
        );
        Ok(())
    })
}

#[test]
fn a_last_record_without_line_feed_arrives_once_and_is_completed_without_repeating() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["*.log"])?;
        let mut ended = Writer::create(&lab.log("ended.log"))?;
        ended.append(b"first\r")?;
        ended.append_unended(b"last, and never completed")?;
        line.start()?;
        line.finish_exact(&[&ended])
    })
}

#[test]
fn a_forwarder_that_starts_long_before_its_collector_delivers_once_it_is_there() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut random = lab.seed().rng(0);
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append_random(&mut random, 500)?;
        line.forwarder.start()?;
        line.forwarder.wait_not_ready()?;
        wait_until("the spool to hold a backlog", || {
            Ok(line.forwarder.metric("watchline_backlog_bytes", &[])? > 0.0)
        })?;
        log.append_random(&mut random, 500)?;
        line.collector.start()?;
        line.center.start()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_collector_that_is_away_for_a_while_misses_nothing() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut random = lab.seed().rng(0);
        let mut log = Writer::create(&lab.log("app.log"))?;
        line.start()?;
        log.append_random(&mut random, 1_000)?;
        line.wait_arrived(1_000)?;
        line.collector.stop()?;
        line.forwarder.wait_not_ready()?;
        log.append_random(&mut random, 3_000)?;
        line.collector.start()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_dead_centre_takes_neither_the_collector_nor_the_forwarder_out_of_service() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut random = lab.seed().rng(0);
        let mut log = Writer::create(&lab.log("app.log"))?;
        line.start()?;
        line.center.kill()?;
        log.append_random(&mut random, 2_000)?;
        line.collector.wait_not_ready()?;
        wait_until("the forwarder's backlog to reach the collector", || {
            Ok(line.collector.metric("watchline_backlog_bytes", &[])? > 0.0
                && line.forwarder.metric("watchline_backlog_bytes", &[])? == 0.0)
        })?;
        let ingest = line.collector.get("/readyz/ingest")?;
        ensure!(
            ingest.status == 200,
            "a dead centre took ingest out of service: {}",
            ingest.body
        );
        line.forwarder.wait_ready()?;
        line.center.start()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_clean_stop_keeps_what_could_not_be_delivered_and_the_next_start_delivers_it() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut random = lab.seed().rng(0);
        let mut log = Writer::create(&lab.log("app.log"))?;
        line.forwarder.config.set("[uplink]", "grace", "200ms");
        line.forwarder.start()?;
        log.append_random(&mut random, 1_000)?;
        wait_until("the spool to hold a backlog", || {
            Ok(line.forwarder.metric("watchline_backlog_bytes", &[])? > 0.0)
        })?;
        line.forwarder.stop()?;
        log.append_random(&mut random, 1_000)?;
        line.start()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_clean_stop_of_every_process_under_load_ends_with_success_and_loses_nothing() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut random = lab.seed().rng(0);
        let mut log = Writer::create(&lab.log("app.log"))?;
        line.start()?;
        for round in 0..6 {
            log.append_random(&mut random, 700)?;
            let output = line.output();
            let some = log.written().len().saturating_sub(600);
            wait_while_it_moves(
                "some of it to arrive",
                || oracle::count_events(&output),
                |count| *count >= some,
            )?;
            let mut nodes = line.nodes();
            let node = &mut nodes[round % 3];
            node.stop()?;
            node.start()?;
        }
        line.finish_exact(&[&log])
    })
}

/// The real logs lie beside the repository on some machines; where they do not, generated ones stand in for them.
pub(crate) fn real_logs() -> Result<Vec<(String, Vec<u8>)>> {
    let mut logs = Vec::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let name = path
                    .file_name()
                    .context("a file name")?
                    .to_string_lossy()
                    .into_owned();
                logs.push((name, fs::read(&path)?));
            }
        }
    }
    logs.sort();
    Ok(logs)
}
