//! `status`: asks the running forwarder, and shows what it says to people.

use std::{fmt::Write as _, net::SocketAddr, process::ExitCode, time::Duration};

use serde_json::Value;
use watchline_node::{health, lifecycle::exit};

use crate::config::Config;

/// HTTP's "OK".
const OK: u16 = 200;

pub(super) fn status(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let address = reachable(config.health);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let ready = health::ask(address, "/readyz").await?.0 == OK;
        let (code, body) = health::ask(address, "/status").await?;
        anyhow::ensure!(code == OK, "/status answered {code}");
        anyhow::Ok((ready, serde_json::from_str::<Value>(&body)?))
    });
    let (ready, status) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("error: nobody answers on {address}: {error:#}");
            return Ok(exit::UNREACHABLE.into());
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", table(&status));
    }
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        exit::NOT_READY.into()
    })
}

/// Where one that listens everywhere is asked.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => {
            ([127, 0, 0, 1], address.port()).into()
        }
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        address => address,
    }
}

/// `3 s`, `12 min`, `5 h`, `9 d`
pub(super) fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// How long before `now` a moment in Unix nanoseconds was; `-` for none.
fn since(now: &Value, then: &Value) -> String {
    let (now, then) = (now.as_i64().unwrap_or(0), then.as_i64().unwrap_or(0));
    if then == 0 {
        return "-".to_owned();
    }
    ago(Duration::from_nanos(u64::try_from(now - then).unwrap_or(0)))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn bytes(value: &Value) -> String {
    let mut amount = value.as_f64().unwrap_or(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" {
                format!("{amount} B")
            } else {
                format!("{amount:.1} {unit}")
            };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Columns as wide as their widest cell, two spaces apart.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn table(status: &Value) -> String {
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
            let what = if source["kind"] != "file" {
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

    #[test]
    fn one_that_listens_everywhere_is_asked_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:7480"), "127.0.0.1:7480");
        assert_eq!(at("[::]:7480"), "[::1]:7480");
        assert_eq!(at("10.0.0.1:7480"), "10.0.0.1:7480");
    }
}
