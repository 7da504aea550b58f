//! What `deploy/quickstart` needs besides the programs: a host that logs, a watcher at the centre, a summary.
//!
//! ```text
//! demo ports COUNT                   prints free ports of 127.0.0.1, one a line
//! demo write LOG RATE                appends RATE numbered security events a second until it is killed
//! demo watch OUTPUT LOG ARRIVALS     shows what arrives in an NDJSON output, notes when each event of LOG did
//! demo wait OUTPUT LOG SECONDS       waits until as many events of LOG have arrived as were written
//! demo summary OUTPUT LOG ARRIVALS   written, arrived, lost, repeated, delays; exit code 1 if any was lost or repeated
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    net::TcpListener,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use e2e::{
    follow::Follow,
    logging_host::{LoggingHost, Mark},
    oracle::{self, Event, Order, Written},
    records,
    waiting::wait_for,
};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["ports", count] => ports(count.parse().context("COUNT")?)?,
        ["write", log, rate] => write(Path::new(log), rate.parse().context("RATE")?)?,
        ["watch", output, log, arrivals] => watch(Path::new(output), log, Path::new(arrivals))?,
        ["wait", output, log, seconds] => wait(
            Path::new(output),
            Path::new(log),
            seconds.parse().context("SECONDS")?,
        )?,
        ["summary", output, log, arrivals] => {
            return summary(Path::new(output), Path::new(log), Path::new(arrivals));
        }
        _ => bail!(
            "usage: demo ports COUNT | write LOG RATE | watch|summary OUTPUT LOG ARRIVALS | wait OUTPUT LOG SECONDS"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn ports(count: usize) -> Result<()> {
    // All are held until all are known, so that they differ.
    let held = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<io::Result<Vec<_>>>()?;
    for listener in held {
        println!("{}", listener.local_addr()?.port());
    }
    Ok(())
}

fn write(log: &Path, rate: u32) -> Result<()> {
    let before = records::split(&fs::read(log).unwrap_or_default());
    let last = before
        .iter()
        .rev()
        .find_map(|record| Mark::of(record))
        .map_or(0, |mark| mark.number);
    let mut host = LoggingHost::new(last + 1);
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let pause = Duration::from_secs(1) / rate.max(1);
    let mut due = Instant::now();
    loop {
        // One write a line, so that there is never half a line when this process is stopped.
        let line = [host.next_record(SystemTime::now()).as_bytes(), b"\n"].concat();
        file.write_all(&line)
            .with_context(|| format!("append to {}", log.display()))?;
        due += pause;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
    }
}

fn watch(output: &Path, log: &str, arrivals: &Path) -> Result<()> {
    const SHOWN_A_SECOND: u32 = 12;
    let mut notes = OpenOptions::new()
        .create(true)
        .append(true)
        .open(arrivals)?;
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut second = (Instant::now(), 0, 0_u64);
    for line in Follow::new(output)? {
        let line = line?;
        let arrived = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let Ok(event) = Event::parse(&line) else {
            continue;
        };
        let mark = if event.path == log {
            Mark::of(&event.bytes)
        } else {
            None
        };
        if let Some(mark) = &mark {
            writeln!(notes, "{} {}", mark.number, arrived.as_nanos())?;
        }
        if second.0.elapsed() >= Duration::from_secs(1) {
            if second.2 > 0 {
                println!("  … and {} more", second.2);
            }
            second = (Instant::now(), 0, 0);
        }
        if second.1 >= SHOWN_A_SECOND {
            second.2 += 1;
            continue;
        }
        second.1 += 1;
        println!("{}", shown(&event, mark.as_ref(), arrived, colour));
    }
    Ok(())
}

/// One line for people.
fn shown(event: &Event, mark: Option<&Mark>, arrived: Duration, colour: bool) -> String {
    const WIDTH: usize = 88;
    let text = String::from_utf8_lossy(&event.bytes);
    let text: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(WIDTH)
        .collect();
    let alert = event.place.lane == "alert";
    let delay = mark.map_or_else(
        || " ".repeat(9),
        |mark| format!("{:6.1} ms", mark.delay(arrived).as_secs_f64() * 1e3),
    );
    let (start, end) = match (colour, alert) {
        (false, _) => ("", ""),
        (true, true) => ("\x1b[1;31m", "\x1b[0m"),
        (true, false) => ("\x1b[2m", "\x1b[0m"),
    };
    let host = event.json["forwarder"].as_str().unwrap_or("-");
    let source = event.json["source"].as_str().unwrap_or("-");
    format!(
        "  {start}{:<7} {host} {source:<8}{end} {delay}  {text}",
        event.place.lane
    )
}

/// What LOG holds, and what of it the output holds.
fn compare(output: &Path, log: &Path) -> Result<(Written, Vec<Event>)> {
    let path = log.to_str().context("a path that is not UTF-8")?.to_owned();
    let written = Written {
        records: records::split(&fs::read(log)?),
        path,
    };
    let mut arrived = oracle::read_complete(output)?;
    arrived.retain(|event| event.path == written.path || event.is_own());
    Ok((written, arrived))
}

fn wait(output: &Path, log: &Path, seconds: u64) -> Result<()> {
    wait_for("everything to arrive", Duration::from_secs(seconds), || {
        let (written, arrived) = compare(output, log)?;
        Ok(
            (arrived.iter().filter(|event| !event.is_own()).count() >= written.records.len())
                .then_some(()),
        )
    })
}

fn summary(output: &Path, log: &Path, arrivals: &Path) -> Result<ExitCode> {
    let (written, arrived) = compare(output, log)?;
    let count = arrived.iter().filter(|event| !event.is_own()).count();
    let verdict = oracle::judge_records(std::slice::from_ref(&written), &arrived, Order::Kept);
    println!("  written   {:>8}", written.records.len());
    println!("  arrived   {count:>8}");
    println!("  lost      {:>8}", verdict.lost);
    println!("  repeated  {:>8}", verdict.repeated);
    let mut delays = delays(&written, arrivals)?;
    delays.sort_unstable();
    for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
        match percentile(&delays, share) {
            Some(delay) => println!("  delay {name} {:>8.1} ms", delay.as_secs_f64() * 1e3),
            None => println!("  delay {name}        -"),
        }
    }
    if verdict.exact().is_err() {
        println!("{verdict}");
    }
    let sound = !written.records.is_empty() && verdict.exact().is_ok();
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// From a record's being written to its being read from the centre's output.
fn delays(written: &Written, arrivals: &Path) -> Result<Vec<Duration>> {
    let marks: std::collections::HashMap<u64, Mark> = written
        .records
        .iter()
        .filter_map(|record| Mark::of(record))
        .map(|mark| (mark.number, mark))
        .collect();
    let mut delays = Vec::new();
    for line in fs::read_to_string(arrivals).unwrap_or_default().lines() {
        let (number, nanos) = line.split_once(' ').context("an arrival without a time")?;
        if let Some(mark) = marks.get(&number.parse()?) {
            delays.push(mark.delay(Duration::from_nanos(nanos.parse()?)));
        }
    }
    Ok(delays)
}

fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied()
}
