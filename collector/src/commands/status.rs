//! What `status` shows of a collector to people.

use serde_json::Value;
use watchline_node::health::table::{aligned, bytes, heading, rows, text};

pub(super) fn table(status: &Value) -> String {
    let state = match status["ready"].as_bool() {
        Some(true) => "ready",
        _ => "NOT READY",
    };
    let mut out = format!(
        "{} {} ({}, since {}): {state}\n",
        text(&status["role"]),
        text(&status["id"]),
        text(&status["version"]),
        text(&status["started"]),
    );
    if let Some(checks) = status["checks"].as_object() {
        for (name, check) in checks.iter().filter(|(_, check)| check["ok"] != true) {
            out.push_str(&format!("  {name}: {}\n", text(&check["reason"])));
        }
    }
    let buffer = &status["buffer"];
    out.push_str(&format!(
        "buffer {} of {}{}\n",
        bytes(&buffer["used_bytes"]),
        bytes(&buffer["max_bytes"]),
        if buffer["has_room"] == true {
            ""
        } else {
            ", FULL"
        }
    ));

    let mut outputs = vec![heading(&[
        "OUTPUT", "KIND", "STATE", "LAG", "BATCHES", "OLDEST",
    ])];
    for output in rows(&status["outputs"]) {
        let lag = &output["lag"];
        let sum = |key: &str| -> f64 {
            ["alert", "routine"]
                .iter()
                .filter_map(|lane| lag[lane][key].as_f64())
                .sum()
        };
        let oldest = ["alert", "routine"]
            .iter()
            .filter_map(|lane| lag[lane]["oldest_seconds"].as_f64())
            .fold(0.0, f64::max);
        let state = match (&output["ok"], &output["connected_to"]) {
            (Value::Bool(true), Value::String(endpoint)) => format!("ok, {endpoint}"),
            (Value::Bool(true), _) => "ok".to_owned(),
            _ => format!("FAILING: {}", text(&output["reason"])),
        };
        outputs.push(vec![
            text(&output["name"]),
            text(&output["kind"]),
            state,
            bytes(&sum("bytes").into()),
            format!("{}", sum("batches")),
            format!("{oldest:.1} s"),
        ]);
    }
    out.push('\n');
    out.push_str(&aligned(&outputs));

    let mut forwarders = vec![heading(&[
        "FORWARDER",
        "STATE",
        "LAST STORED",
        "ALERT",
        "ROUTINE",
        "EVENTS",
        "WAITING",
        "MISSING",
        "VOID",
        "FORKS",
    ])];
    for forwarder in rows(&status["forwarders"]) {
        let lanes = &forwarder["lanes"];
        let waiting: f64 = ["alert", "routine"]
            .iter()
            .filter_map(|lane| lanes[lane]["backlog_bytes"].as_f64())
            .sum();
        let name = format!(
            "{}/{}",
            text(&forwarder["agency"]),
            text(&forwarder["name"])
        );
        forwarders.push(vec![
            name,
            text(&forwarder["state"]),
            text(&forwarder["last_stored"]),
            text(&lanes["alert"]["next"]),
            text(&lanes["routine"]["next"]),
            text(&forwarder["events"]),
            bytes(&waiting.into()),
            text(&forwarder["missing_batches"]),
            text(&forwarder["void_batches"]),
            text(&forwarder["forks"]),
        ]);
    }
    out.push('\n');
    out.push_str(&aligned(&forwarders));
    if forwarders.len() == 1 {
        out.push_str("none yet\n");
    }

    let relays = rows(&status["relays"]);
    if !relays.is_empty() {
        let mut lines = vec![heading(&["RELAY", "STATE", "LAST SEEN", "FROM"])];
        for relay in relays {
            lines.push(
                ["id", "state", "last_seen", "address"]
                    .iter()
                    .map(|key| text(&relay[key]))
                    .collect(),
            );
        }
        out.push('\n');
        out.push_str(&aligned(&lines));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn people_see_who_is_there_and_what_waits() {
        let status = json!({
            "role": "collector", "id": "spiffe://watch.example/agency/moh/collector/c1", "version": "0.1.0 (abc)",
            "started": "2026-11-23T09:00:00Z", "ready": false,
            "checks": {"buffer": {"ok": true}, "output:center": {"ok": false, "reason": "connection refused"}},
            "buffer": {"used_bytes": 1_572_864, "max_bytes": 21_474_836_480u64, "has_room": true},
            "outputs": [{"name": "center", "kind": "upstream", "ok": false, "reason": "connection refused",
                "lag": {"alert": {"bytes": 0, "batches": 0, "oldest_seconds": 0.0},
                        "routine": {"bytes": 2048, "batches": 3, "oldest_seconds": 4.25}}}],
            "forwarders": [{"agency": "moh", "name": "host-01", "state": "connected", "last_stored": "2026-11-23T09:15:02Z",
                "lanes": {"alert": {"next": 2, "backlog_bytes": 0}, "routine": {"next": 4711, "backlog_bytes": 10}},
                "events": 99, "missing_batches": 0, "void_batches": 0, "forks": 0}],
            "relays": []
        });
        let shown = table(&status);
        for expected in [
            "collector spiffe://watch.example/agency/moh/collector/c1 (0.1.0 (abc), since 2026-11-23T09:00:00Z): NOT READY",
            "  output:center: connection refused",
            "buffer 1.5 MiB of 20.0 GiB\n",
            "center  upstream  FAILING: connection refused  2.0 KiB  3        4.2 s",
            "moh/host-01  connected  2026-11-23T09:15:02Z  2      4711     99      10 B     0        0     0",
        ] {
            assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
        }
    }
}
