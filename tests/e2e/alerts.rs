//! The alert lane.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Line, Writer, waiting::wait_until};

#[test]
fn an_alert_overtakes_the_backlog_of_routine_events_at_every_hop() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.forwarder.config.table("[[alert]]");
        line.forwarder.config.set("[[alert]]", "name", "break-in");
        line.forwarder
            .config
            .set("[[alert]]", "matches", ["BREAK-IN"]);
        let mut log = Writer::create(&lab.log("app.log"))?;
        // Hard to compress, so that the backlog is many batches on the wire too.
        log.append_random(&mut random, 60_000)?;
        line.forwarder.start()?;
        let mut backlog = 0.0;
        wait_until("the spool to have taken the backlog", || {
            let now = line
                .forwarder
                .metric("watchline_backlog_bytes", &["lane=\"routine\""])?;
            let still = now > 500_000.0 && now == backlog;
            backlog = now;
            Ok(still)
        })?;
        log.append(b"BREAK-IN on host-01")?;
        wait_until("the alert to be spooled", || {
            Ok(line
                .forwarder
                .metric("watchline_backlog_bytes", &["lane=\"alert\""])?
                > 0.0)
        })?;
        line.collector.start()?;
        line.center.start()?;
        line.wait_arrived(log.written().len())?;
        line.stop()?;

        let events = line.events()?;
        let at = events
            .iter()
            .position(|event| event.bytes == b"BREAK-IN on host-01")
            .context("no alert arrived")?;
        ensure!(events[at].json["lane"] == "alert", "{}", events[at].json);
        let batch = |event: &e2e::oracle::Event| (event.place.epoch.clone(), event.place.sequence);
        let routine = |event: &&e2e::oracle::Event| event.place.lane == "routine";
        let before: HashSet<_> = events[..at].iter().filter(routine).map(batch).collect();
        let all: HashSet<_> = events.iter().filter(routine).map(batch).collect();
        // One routine batch may be under way at each of the three hops.
        ensure!(
            all.len() >= 20,
            "the backlog was only {} batches",
            all.len()
        );
        ensure!(
            before.len() <= 3,
            "{} of {} routine batches went before the alert",
            before.len(),
            all.len()
        );
        Ok(())
    })
}
