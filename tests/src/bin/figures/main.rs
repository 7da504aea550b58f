//! Measures what the line costs on this machine: `cargo run --release -p e2e --bin figures`.
//!
//! One run, real processes on loopback with mutual TLS, everything synced before it is acknowledged: throughput and CPU of forwarder and
//! collector from a file written beforehand to a `raw` file output; delay of single records at a steady rate over two hops; memory and CPU of
//! a forwarder at rest; size of the programs; CPU a record of each kind of source. CPU is user and system time of the process (`/proc/PID/stat`), good to 10 ms.

mod sources;

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Node, Program};
use rand::RngExt;

/// How long any one measurement may take.
const DEADLINE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let records: u64 = argument("--records", 1_000_000)?;
    let rate: u64 = argument("--rate", 2_000)?;
    let seconds: u64 = argument("--seconds", 20)?;
    sizes()?;
    Lab::run(|lab| throughput(lab, records))?;
    Lab::run(|lab| delay(lab, rate, seconds))?;
    Lab::run(|lab| rest(lab, seconds))?;
    sources::costs(records / 5)
}

/// The number behind `name` on the command line, or `usual`.
fn argument(name: &str, usual: u64) -> Result<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    match arguments.nth(1) {
        None => Ok(usual),
        Some(value) => value
            .parse()
            .with_context(|| format!("{name} takes a whole number, not {value:?}")),
    }
}

fn sizes() -> Result<()> {
    for program in [Program::Forwarder, Program::Collector] {
        let path = program.path()?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        println!(
            "{name}: {:.1} MiB",
            fs::metadata(&path)?.len() as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}

fn throughput(lab: &Lab, records: u64) -> Result<()> {
    let log = lab.log("app.log");
    let bytes = write_records(&log, records)?;
    println!(
        "throughput: {records} records of {} bytes on average",
        bytes / records
    );

    let mut collector = lab.center()?;
    collector.config.set("[[output]]", "path", "events.raw");
    collector.config.set("[[output]]", "format", "raw");
    collector.start_ready()?;
    let mut forwarder = lab.forwarder("host-01", &[&collector], &["app.log"])?;
    let started = Instant::now();
    forwarder.start()?;
    let output = collector.path("events.raw");
    while size(&output) < bytes {
        ensure!(
            started.elapsed() < DEADLINE,
            "only {} of {bytes} bytes arrived",
            size(&output)
        );
        thread::sleep(Duration::from_millis(5));
    }
    let wall = started.elapsed().as_secs_f64();
    println!("  {:.0} records/s ({wall:.2} s)", records as f64 / wall);
    for (name, node) in [("forwarder", &mut forwarder), ("collector", &mut collector)] {
        let cost = Cost::of(node)?;
        println!(
            "  {name}: {:.2} µs of CPU a record, {:.1} MiB at most",
            cost.cpu.as_secs_f64() * 1e6 / records as f64,
            cost.peak_mib
        );
    }
    ensure!(
        fs::read(&log)? == fs::read(&output)?,
        "what arrived is not what was written"
    );
    println!("  the output equals the source, byte for byte");
    forwarder.stop()?;
    collector.stop()
}

fn delay(lab: &Lab, rate: u64, seconds: u64) -> Result<()> {
    println!("delay: {rate} records/s for {seconds} s, forwarder to collector to centre");
    let mut center = lab.center()?;
    center.config.set("[[output]]", "path", "events.raw");
    center.config.set("[[output]]", "format", "raw");
    center.start_ready()?;
    let mut collector = lab.collector("collector-1", &[&center])?;
    collector.start_ready()?;
    let log = lab.log("app.log");
    let mut file = File::create(&log)?;
    let mut forwarder = lab.forwarder("host-01", &[&collector], &["app.log"])?;
    forwarder.start_ready()?;
    let before = [
        Cost::of(&mut forwarder)?,
        Cost::of(&mut collector)?,
        Cost::of(&mut center)?,
    ];

    let output = center.path("events.raw");
    let total = rate * seconds;
    let watcher = thread::spawn(move || follow(&output, total));
    let start = Instant::now();
    let padding = "x".repeat(260);
    for number in 0..total {
        let due = start + Duration::from_nanos(number * 1_000_000_000 / rate);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
        file.write_all(format!("{} {number} {padding}\n", now_unix_nano()).as_bytes())?;
    }
    let mut delays = watcher
        .join()
        .map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
    delays.sort_unstable();
    let at =
        |share: f64| Duration::from_nanos(delays[((delays.len() - 1) as f64 * share) as usize]);
    println!(
        "  p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    for ((name, node), before) in [
        ("forwarder", &mut forwarder),
        ("collector", &mut collector),
        ("centre", &mut center),
    ]
    .into_iter()
    .zip(before)
    {
        let cpu = Cost::of(node)?.cpu.saturating_sub(before.cpu);
        println!(
            "  {name}: {:.1} µs of CPU a record",
            cpu.as_secs_f64() * 1e6 / total as f64
        );
    }
    forwarder.stop()?;
    collector.stop()?;
    center.stop()
}

fn rest(lab: &Lab, seconds: u64) -> Result<()> {
    let mut collector = lab.center()?;
    collector.start_ready()?;
    fs::write(lab.log("app.log"), "one record\n")?;
    let mut forwarder = lab.forwarder("host-01", &[&collector], &["app.log"])?;
    forwarder.start_ready()?;
    let before = Cost::of(&mut forwarder)?;
    thread::sleep(Duration::from_secs(seconds));
    let after = Cost::of(&mut forwarder)?;
    let share = after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds as f64;
    println!(
        "forwarder at rest for {seconds} s: {:.3} % of a core, {:.1} MiB resident",
        share * 100.0,
        after.resident_mib
    );
    forwarder.stop()?;
    collector.stop()
}

/// What a process has used since it started.
struct Cost {
    cpu: Duration,
    resident_mib: f64,
    peak_mib: f64,
}

impl Cost {
    fn of(node: &mut Node) -> Result<Cost> {
        let id = node.process()?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| -> Result<f64> {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .context("a field of /proc/PID/status")?;
            Ok(line
                .split_whitespace()
                .nth(1)
                .context("its value")?
                .parse::<f64>()?
                / 1024.0)
        };
        Ok(Cost {
            cpu: cpu_of(&id.to_string())?,
            resident_mib: mib("VmRSS:")?,
            peak_mib: mib("VmHWM:")?,
        })
    }
}

/// User and system time of a process.
fn cpu_of(id: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The fields behind the name, which is in parentheses: proc_pid_stat(5), utime and stime are the 14th and 15th.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // USER_HZ, which /proc counts in: 100 on every Linux.
    Ok(Duration::from_secs_f64(ticks as f64 / 100.0))
}

/// Records like those of a real host: sshd, audit, a web server; about 300 bytes each. Returns the bytes written.
fn write_records(path: &Path, records: u64) -> Result<u64> {
    let mut random = rand::rng();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut bytes = 0;
    for number in 0..records {
        let (a, b, c) = (
            random.random::<u32>(),
            random.random::<u16>(),
            random.random::<u8>(),
        );
        let address = format!("{}.{}.{}.{}", a & 255, a >> 8 & 255, a >> 16 & 255, a >> 24);
        let line = match number % 3 {
            0 => format!(
                "2026-11-23T09:{:02}:{:02}.{:06}+07:00 web-{:02} sshd[{b}]: Failed password for invalid user {} from {address} port {b} ssh2; \
                 rule=4625 session={a:08x} attempts={} geo=unknown method=keyboard-interactive/pam service=ssh-connection \
                 client=SSH-2.0-libssh_0.{}.{} fingerprint=SHA256:{:016x}{:016x}\n",
                number / 60 % 60,
                number % 60,
                number % 1_000_000,
                c & 31,
                ["admin", "oracle", "test", "ubuntu"][usize::from(c & 3)],
                c & 7,
                c & 15,
                c >> 4,
                u64::from(a) * 0x9e37_79b9,
                u64::from(b) * 0x85eb_ca6b
            ),
            1 => format!(
                "type=SYSCALL msg=audit(17640{:05}.{:03}:{number}): arch=c000003e syscall=59 success=yes exit=0 a0={a:x} a1={b:x} a2={c:x} \
                 a3=8 items=2 ppid={b} pid={} auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts{} ses={} \
                 comm=\"sudo\" exe=\"/usr/bin/sudo\" subj=unconfined key=\"exec-{c}\"\n",
                number / 1000 % 100_000,
                number % 1000,
                u32::from(b) + 1,
                c & 3,
                c & 63
            ),
            _ => format!(
                "{address} - - [23/Nov/2026:09:{:02}:{:02} +0700] \"GET /wp-login.php?redirect={a:08x}&try={} HTTP/1.1\" {} {b} \"https://portal.example/{c}\" \
                 \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36\" rt=0.{c:03} id={number}\n",
                number / 60 % 60,
                number % 60,
                c & 15,
                [200, 302, 403, 404][usize::from(c & 3)],
                100 + (c & 31)
            ),
        };
        file.write_all(line.as_bytes())?;
        bytes += line.len() as u64;
    }
    file.flush()?;
    Ok(bytes)
}

/// Reads an output as it grows until `total` records have arrived; how old each was, in nanoseconds, by the stamp at its start.
fn follow(path: &PathBuf, total: u64) -> Result<Vec<u64>> {
    let started = Instant::now();
    let mut delays = Vec::with_capacity(total as usize);
    let mut text = Vec::new();
    let mut offset = 0;
    while delays.len() < total as usize {
        ensure!(
            started.elapsed() < DEADLINE,
            "only {} of {total} records arrived",
            delays.len()
        );
        thread::sleep(Duration::from_micros(500));
        let Ok(mut file) = File::open(path) else {
            continue;
        };
        file.seek(SeekFrom::Start(offset))?;
        offset += file.read_to_end(&mut text)? as u64;
        let now = now_unix_nano();
        let complete = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in text[..complete]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let stamp = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            delays.push(now.saturating_sub(std::str::from_utf8(stamp)?.parse()?));
        }
        text.drain(..complete);
    }
    Ok(delays)
}

fn now_unix_nano() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
