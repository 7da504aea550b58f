//! What a record of each kind of source costs its forwarder.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{Lab, Node};

use crate::{Cost, DEADLINE};

/// Makes what a source is to read, within the lab's folder of logs, and configures it. Returns how many events that is.
type Prepare = fn(&Lab, &mut Node, u64) -> Result<u64>;
/// Sends once the forwarder runs.
type Send = fn(&Lab, &Node, u64) -> Result<()>;

/// Measures every kind, a line each.
pub(crate) fn costs(records: u64) -> Result<()> {
    println!("cost of a record at the forwarder, by kind of source:");
    let kinds: [(&str, u64, Prepare, Send); 5] = [
        ("file", records, file, nothing),
        ("audit", records / 4, audit, nothing),
        ("journald", records / 4, journald, nothing),
        ("evtx", records / 50, evtx, nothing),
        ("syslog", records, syslog, send_syslog),
    ];
    for (kind, events, prepare, send) in kinds {
        Lab::run(|lab| cost(lab, kind, events, prepare, send))?;
    }
    Ok(())
}

fn cost(lab: &Lab, kind: &str, wanted: u64, prepare: Prepare, send: Send) -> Result<()> {
    let mut collector = lab.center()?;
    collector.start_ready()?;
    let mut forwarder = lab.forwarder("host-01", &[&collector], &["app.log"])?;
    forwarder.config.set("[[source]]", "kind", kind);
    let events = prepare(lab, &mut forwarder, wanted)?;
    forwarder.start_ready()?;
    let started = Instant::now();
    send(lab, &forwarder, events)?;
    let taken = |node: &Node| node.metric("watchline_events_total", &[]);
    while taken(&forwarder)? < events as f64
        || forwarder.metric("watchline_backlog_bytes", &[])? > 0.0
    {
        ensure!(
            started.elapsed() < DEADLINE,
            "{kind}: only {} of {events} events were taken",
            taken(&forwarder)?
        );
        thread::sleep(Duration::from_millis(20));
    }
    let children = children_cpu(forwarder.process()?.id())?;
    let cost = Cost::of(&mut forwarder)?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events as f64;
    print!(
        "  {kind}: {events} events, {:.2} µs of CPU each, {:.1} MiB at most",
        each(cost.cpu),
        cost.peak_mib
    );
    match children {
        Some(cpu) => println!(", and {:.2} µs in the tool that it runs", each(cpu)),
        None => println!(),
    }
    forwarder.stop()?;
    collector.stop()
}

/// CPU of the processes that this one has started; `None`: there are none.
fn children_cpu(id: u32) -> Result<Option<Duration>> {
    let mut sum = None;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_whitespace() {
            *sum.get_or_insert(Duration::ZERO) += crate::cpu_of(child)?;
        }
    }
    Ok(sum)
}

fn nothing(_: &Lab, _: &Node, _: u64) -> Result<()> {
    Ok(())
}

fn file(lab: &Lab, _: &mut Node, events: u64) -> Result<u64> {
    crate::write_records(&lab.log("app.log"), events)?;
    Ok(events)
}

/// Events as the kernel writes them for a program that is started: six records each.
fn audit(lab: &Lab, forwarder: &mut Node, events: u64) -> Result<u64> {
    let log = lab.log("audit.log");
    let mut out = BufWriter::new(File::create(&log)?);
    for serial in 0..events {
        let stamp = format!("audit(1795471311.{:03}:{serial})", serial % 1000);
        write!(
            out,
            "type=SYSCALL msg={stamp}: arch=c000003e syscall=59 success=yes exit=0 a0=55d0c8a7e2a0 a1=55d0c8a7e300 a2=55d0c8a7e3a0 a3=8 items=2 \
             ppid=812 pid={} auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=3 comm=\"systemctl\" \
             exe=\"/usr/bin/systemctl\" subj=unconfined key=\"exec\"\n\
             type=EXECVE msg={stamp}: argc=3 a0=\"systemctl\" a1=\"status\" a2=73736864\n\
             type=CWD msg={stamp}: cwd=\"/root\"\n\
             type=PATH msg={stamp}: item=0 name=\"/usr/bin/systemctl\" inode=1313 dev=fe:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL\n\
             type=PROCTITLE msg={stamp}: proctitle=73797374656D63746C0073746174757300737368640A\n\
             type=EOE msg={stamp}: \n",
            1000 + serial % 30_000
        )?;
    }
    out.flush()?;
    forwarder.config.set("[[source]]", "paths", [log]);
    Ok(events)
}

/// A journal file, made by `systemd-journal-remote` from an export stream.
fn journald(lab: &Lab, forwarder: &mut Node, events: u64) -> Result<u64> {
    let directory = lab.log("journal");
    e2e::journal::make(&directory, |out| {
        for number in 0..events {
            write!(
                out,
                "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             _MACHINE_ID=fedcba9876543210fedcba9876543210\n_HOSTNAME=host-01\nPRIORITY=6\n_UID=0\n_GID=0\n_TRANSPORT=syslog\nSYSLOG_FACILITY=10\n\
             SYSLOG_IDENTIFIER=sshd\nSYSLOG_PID={}\n_PID={}\n_COMM=sshd\n_EXE=/usr/sbin/sshd\n_SYSTEMD_UNIT=ssh.service\n\
             MESSAGE=Failed password for invalid user admin from 203.0.113.{} port {} ssh2, number {number}\n\n",
                1_795_471_311_000_000 + number,
                number % 30_000,
                number % 30_000,
                number % 250,
                1024 + number % 60_000
            )?;
        }
        Ok(())
    })?;
    forwarder.config.remove("[[source]]", "paths");
    forwarder.config.set("[[source]]", "directory", directory);
    Ok(events)
}

/// Copies of a Windows event file, until there are enough.
fn evtx(lab: &Lab, forwarder: &mut Node, events: u64) -> Result<u64> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join(EVTX_SAMPLE);
    let copies = events.div_ceil(EVTX_RECORDS);
    for copy in 0..copies {
        let to = lab.log(&format!("{copy}.evtx"));
        // Files are known by their content too: each copy says another time in its header, which is not among the checked bytes.
        fs::copy(&sample, to).with_context(|| sample.display().to_string())?;
    }
    forwarder
        .config
        .set("[[source]]", "paths", [lab.log("*.evtx")]);
    Ok(copies * EVTX_RECORDS)
}

/// A small Security log.
const EVTX_SAMPLE: &str = "../forwarder/tests-data/evtx/Security_short_selected.evtx";
/// How many records it has.
const EVTX_RECORDS: u64 = 7;

fn syslog(lab: &Lab, forwarder: &mut Node, events: u64) -> Result<u64> {
    forwarder.config.remove("[[source]]", "paths");
    let listen = format!("tcp://{}", lab.new_address());
    forwarder.config.set("[[source]]", "listen", [&listen]);
    fs::write(lab.log("listen"), listen)?;
    Ok(events)
}

fn send_syslog(lab: &Lab, _: &Node, events: u64) -> Result<()> {
    let listen = fs::read_to_string(lab.log("listen"))?;
    let address = listen.strip_prefix("tcp://").unwrap_or(&listen);
    let mut out = BufWriter::with_capacity(64 << 10, TcpStream::connect(address)?);
    for number in 0..events {
        writeln!(
            out,
            "<86>1 2026-11-23T09:15:02.{:06}Z host-01 sshd {} - - Failed password for invalid user admin from 203.0.113.{} port {} ssh2, number {number}",
            number % 1_000_000,
            number % 30_000,
            number % 250,
            1024 + number % 60_000
        )?;
    }
    out.flush()?;
    Ok(())
}
