//! Every kind of source, over the whole line.

use std::{fs, io::Write as _, net::TcpStream, path::Path};

use anyhow::{Context as _, Result, ensure};
use e2e::{Lab, Line, Node, journal, oracle::Event, waiting::wait_until};

/// A journal with one entry.
fn journal(directory: &Path, message: &str) -> Result<()> {
    journal::make(directory, |out| {
        let entry = format!(
            "__REALTIME_TIMESTAMP=1795471311000000\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             _MACHINE_ID=fedcba9876543210fedcba9876543210\nPRIORITY=4\nMESSAGE={message}\n\n"
        );
        Ok(out.write_all(entry.as_bytes())?)
    })
}

fn source(forwarder: &mut Node, name: &str, kind: &str, key: &str, value: impl serde::Serialize) {
    forwarder.config.table("[[source]]");
    forwarder.config.set("[[source]]", "name", name);
    forwarder.config.set("[[source]]", "kind", kind);
    forwarder.config.set("[[source]]", key, value);
}

fn of<'a>(events: &'a [Event], source: &str) -> Result<&'a Event> {
    let mut of_source = events.iter().filter(|event| event.json["source"] == source);
    of_source
        .next()
        .with_context(|| format!("nothing of {source}"))
}

#[test]
fn every_kind_of_source_arrives_once_with_its_time_and_severity_also_over_a_kill() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        journal(&lab.log("journal"), "from the journal")?;
        let evtx = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../forwarder/tests-data/evtx/Security_short_selected.evtx");
        fs::copy(evtx, lab.log("Security.evtx"))?;
        let stamp = "audit(1795471311.690:173)";
        let audit =
            format!("type=EXECVE msg={stamp}: argc=2 a0=\"id\" a1=\"-u\"\ntype=EOE msg={stamp}: ");
        fs::write(lab.log("audit.log"), format!("{audit}\n"))?;
        fs::write(lab.log("app.log"), "2026-11-23T09:15:02Z from a file\n")?;
        let listen = lab.new_address();
        let forwarder = &mut line.forwarder;
        source(
            forwarder,
            "journal",
            "journald",
            "directory",
            lab.log("journal"),
        );
        source(forwarder, "windows", "evtx", "paths", [lab.log("*.evtx")]);
        source(forwarder, "audit", "audit", "paths", [lab.log("audit.log")]);
        source(
            forwarder,
            "remote",
            "syslog",
            "listen",
            [format!("tcp://{listen}")],
        );
        line.start()?;
        let mut sender = TcpStream::connect(listen)?;
        sender.write_all(b"<11>1 2026-11-23T09:15:02Z host app - - - from afar\n")?;
        // One of each, but seven of the Windows log.
        let due = 4 + 7;
        line.wait_arrived(due)?;
        wait_until("the positions to be synced", || {
            Ok(line.forwarder.metric("watchline_backlog_bytes", &[])?.abs() < f64::EPSILON)
        })?;
        line.forwarder.kill()?;
        line.forwarder.start()?;
        line.wait_ready()?;
        let mut sender = TcpStream::connect(listen)?;
        sender.write_all(b"<14>after the kill\n")?;
        line.wait_arrived(due + 1)?;
        line.stop()?;
        let events = line.events()?;
        let records = events.iter().filter(|event| !event.is_own()).count();
        ensure!(records == due + 1, "{records} of {} records", due + 1);
        for (name, kind, severity, time) in [
            ("app", "file", None, "2026-11-23T09:15:02.000000000Z"),
            (
                "journal",
                "journald",
                Some("WARN"),
                "2026-11-23T22:01:51.000000000Z",
            ),
            ("audit", "audit", None, "2026-11-23T22:01:51.690000000Z"),
            (
                "remote",
                "syslog",
                Some("ERROR"),
                "2026-11-23T09:15:02.000000000Z",
            ),
        ] {
            let event = of(&events, name)?;
            ensure!(event.json["kind"] == kind, "{}", event.json);
            ensure!(
                event.json["severity"].as_str() == severity,
                "{}",
                event.json
            );
            ensure!(event.json["time"] == time, "{}", event.json);
        }
        ensure!(of(&events, "audit")?.bytes == audit.as_bytes());
        let windows = of(&events, "windows")?;
        let body: serde_json::Value = serde_json::from_slice(&windows.bytes)?;
        ensure!(
            body["Event"]["System"]["Channel"] == "Security",
            "{}",
            windows.json
        );
        Ok(())
    })
}
