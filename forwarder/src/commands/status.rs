//! What `status` shows of a forwarder to people.

use std::fmt::Write as _;

use serde_json::Value;
use watchline_node::health::table::{aligned, bytes, heading, rows, since, text};

pub(super) fn table(status: &Value) -> String {
    let now = &status["time_unix_nano"];
    let state = if status["ready"] == true {
        "ready"
    } else {
        "NOT READY"
    };
    let (id, version) = (text(&status["id"]), text(&status["version"]));
    let mut out = format!(
        "{id} ({version}, running for {}): {state}\n",
        since(now, &status["started_unix_nano"])
    );
    if let Some(checks) = status["checks"].as_object() {
        for (name, check) in checks.iter().filter(|(_, check)| check["ok"] != true) {
            let _ = writeln!(out, "  {name}: {}", text(&check["reason"]));
        }
    }
    let line = &status["uplink"];
    let _ = match &line["connected_to"] {
        Value::String(to) => writeln!(
            out,
            "uplink  {to}, for {}",
            since(now, &line["since_unix_nano"])
        ),
        _ => writeln!(out, "uplink  not connected"),
    };
    let spool = &status["spool"];
    let _ = writeln!(
        out,
        "spool   {} of {}",
        bytes(&spool["used_bytes"]),
        bytes(&spool["max_bytes"])
    );
    if status["hints"] != "kernel" {
        let _ = writeln!(out, "hints   none: {}", text(&status["no_hints"]));
    }
    let configuration = &status["configuration"];
    if configuration["last_reload_successful"] == false {
        let _ = writeln!(
            out,
            "The configuration was NOT taken at the last reload, the one before is in force:"
        );
        for problem in rows(&configuration["problems"]) {
            let _ = writeln!(out, "  {}", text(problem));
        }
    }

    let mut lanes = vec![heading(&[
        "LANE",
        "EVENTS",
        "WAITING",
        "BATCHES",
        "OLDEST",
        "ACKED",
        "SET ASIDE",
    ])];
    for name in ["alert", "routine"] {
        let lane = &status["lanes"][name];
        lanes.push(vec![
            name.to_owned(),
            text(&lane["events"]),
            bytes(&lane["backlog_bytes"]),
            text(&lane["backlog_batches"]),
            since(now, &lane["backlog_oldest_unix_nano"]),
            text(&lane["acked_batches"]),
            text(&lane["rejected_batches"]),
        ]);
    }
    out.push('\n');
    out.push_str(&aligned(&lanes));

    let mut files = vec![heading(&["SOURCE", "FILE", "READ", "UNREAD", "NOTE"])];
    for source in rows(&status["sources"]) {
        let listed = rows(&source["files"]);
        for file in listed {
            files.push(vec![
                text(&source["name"]),
                text(&file["path"]),
                bytes(&file["offset"]),
                bytes(&file["lag_bytes"]),
                file["note"].as_str().unwrap_or("").to_owned(),
            ]);
        }
        let followed = source["followed"].as_u64().unwrap_or(0);
        let more = followed.saturating_sub(listed.len() as u64);
        if listed.is_empty() || more > 0 {
            let what = if source["kind"] != "file" && source["kind"] != "audit" {
                text(&source["trouble"])
            } else if more > 0 {
                format!("and {more} more")
            } else {
                "no file matches yet".to_owned()
            };
            files.push(vec![text(&source["name"]), what]);
        }
    }
    out.push('\n');
    out.push_str(&aligned(&files));
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_see_what_waits_and_how_far_each_file_is_read() {
        let now = 1_700_000_000_000_000_000_i64;
        let lane = |bytes: u64, oldest: i64| {
            json!({"events": 12, "backlog_bytes": bytes, "backlog_batches": 3, "backlog_oldest_unix_nano": oldest,
                "acked_batches": 7, "rejected_batches": 0})
        };
        let status = json!({
            "id": "spiffe://watch.example/agency/moh/forwarder/host-01", "version": "0.1.0 (abc)", "ready": false,
            "time_unix_nano": now, "started_unix_nano": now - 90_000_000_000_i64,
            "checks": {"spool": {"ok": true}, "uplink": {"ok": false, "reason": "not connected: refused"}},
            "uplink": {"connected_to": null}, "spool": {"used_bytes": 1536, "max_bytes": 1_u64 << 30},
            "hints": "kernel", "configuration": {"last_reload_successful": false, "problems": ["f.toml:1:1: x"]},
            "lanes": {"alert": lane(0, 0), "routine": lane(2048, now - 300_000_000_000_i64)},
            "sources": [
                {"name": "auth", "followed": 1, "files": [{"path": "/var/log/auth.log", "offset": 4096, "lag_bytes": 10}]},
                {"name": "web", "kind": "file", "followed": 0, "files": []},
            ],
        });
        let shown = table(&status);
        for expected in [
            "forwarder/host-01 (0.1.0 (abc), running for 90 s): NOT READY\n  uplink: not connected: refused\n",
            "uplink  not connected\n",
            "spool   1.5 KiB of 1.0 GiB\n",
            "NOT taken at the last reload, the one before is in force:\n  f.toml:1:1: x\n",
            "LANE     EVENTS  WAITING  BATCHES  OLDEST  ACKED  SET ASIDE\n",
            "routine  12      2.0 KiB  3        5 min   7      0\n",
            "auth    /var/log/auth.log    4.0 KiB  10 B\n",
            "web     no file matches yet\n",
        ] {
            assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
        }
    }
}
