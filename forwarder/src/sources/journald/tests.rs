//! The source against real journal files, made with Debian's `systemd-journal-remote`, read with the real `journalctl`; with a state that is
//! committed or lost as a spool's frame would be.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
};

use watchline_proto::{Lane, payload::PayloadOpener};
use watchline_spool::testing::FailingDisk;

use super::*;
use crate::{
    batch::{Batch, Moment},
    lanes::AlertRule,
    sources::Buffers,
};

const BOOT: &str = "0123456789abcdef0123456789abcdef";
/// When the first entry was written, microseconds since 1970.
const START: i64 = 1_700_000_000_000_000;
/// However busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    lane: Lane,
    time: Option<i64>,
    severity: u8,
    body: Vec<u8>,
    attributes: Vec<(String, String)>,
}

impl Sealed {
    fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    fn is_gap(&self) -> bool {
        self.attribute("event.name").is_some()
    }
}

/// One host: its journal, what is stored, what has been sealed.
struct Host {
    dir: tempfile::TempDir,
    config: JournaldConfig,
    lanes: Lanes,
    source: Option<JournaldSource>,
    state: BTreeMap<Bytes, Bytes>,
    sealed: Vec<Sealed>,
    woken: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        let config = JournaldConfig {
            name: "s".into(),
            common: Default::default(),
            directory: Some(dir.path().join("journal")),
            units: None,
            min_priority: None,
            start_at: StartAt::Beginning,
            max_record: 64 << 10,
            journalctl: default_tool(),
        };
        Host {
            dir,
            config,
            lanes: Lanes::new(Vec::new()),
            source: None,
            state: BTreeMap::new(),
            sealed: Vec::new(),
            woken: mpsc::channel(),
        }
    }

    fn journal(&self, file: &str) -> PathBuf {
        self.dir.path().join("journal").join(file)
    }

    /// Adds entries to one journal file, in the export format without cursors.
    fn write(&self, file: &str, export: &[u8]) {
        const TOOLS: [&str; 2] = [
            "/lib/systemd/systemd-journal-remote",
            "/usr/lib/systemd/systemd-journal-remote",
        ];
        let tool = TOOLS.iter().find(|tool| Path::new(tool).exists());
        let tool = tool.expect("systemd-journal-remote is missing: tests/run installs it (Debian's package systemd-journal-remote)");
        let mut output = std::ffi::OsString::from("--output=");
        output.push(self.journal(file));
        let mut child = Command::new(tool)
            .arg(output)
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(export).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn write_numbers(&self, file: &str, numbers: std::ops::RangeInclusive<i64>) {
        let entries: Vec<u8> = numbers
            .flat_map(|n| entry(n, &[("MESSAGE", &n.to_string())]))
            .collect();
        self.write(file, &entries);
    }

    /// Puts a script in the tool's place; `$REAL` in it is the real one.
    fn script(&mut self, text: &str) {
        let path = self.dir.path().join("tool");
        fs::write(
            &path,
            format!("#!/bin/sh\n{}\n", text.replace("$REAL", "journalctl")),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        self.config.journalctl = path;
    }

    fn source(&mut self) -> &mut JournaldSource {
        let (config, lanes) = (self.config.clone(), &self.lanes);
        let wake = self.woken.0.clone();
        let stored = self
            .state
            .get(&position::key("s"))
            .and_then(|bytes| position::read(bytes));
        self.source.get_or_insert_with(|| {
            let waker: Waker = Arc::new(move || {
                let _ = wake.send(());
            });
            JournaldSource::new(SourceNo(0), config, waker, lanes, stored)
        })
    }

    /// Reads and stores frames until `done`, each of one read.
    #[track_caller]
    fn until(&mut self, done: impl Fn(&Host) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "nothing more comes: {:#?}, {:?}",
                self.sealed.len(),
                self.source().status()
            );
            if !self.frame() {
                // Damage is told with a tick, which nobody wakes us for.
                let _ = self.woken.1.recv_timeout(Duration::from_millis(50));
            }
        }
    }

    /// One frame; `false`: there was nothing for one.
    fn frame(&mut self) -> bool {
        let mut batch = Batch::new(256 << 10);
        let mut buffers = Buffers::default();
        let now = Moment::now();
        self.source();
        let (Some(source), lanes) = (self.source.as_mut(), &mut self.lanes) else {
            return false;
        };
        let mut intake = Intake {
            batch: &mut batch,
            lanes,
            buffers: &mut buffers,
            now,
        };
        source.look(&Hints::default(), true, &mut intake);
        let read = source.is_ready() && source.read(&mut intake);
        let mut state = Vec::new();
        source.moved(&mut state);
        for (key, value) in state {
            self.state.insert(key, value.unwrap());
        }
        for lane in Lane::ALL {
            let Some(payload) = batch.finish(lane, now) else {
                continue;
            };
            let opened = PayloadOpener::new()
                .open(&payload.bytes, &payload.info)
                .unwrap();
            self.sealed.extend(opened.events().map(|event| {
                Sealed {
                    lane,
                    time: event.time_unix_nano,
                    severity: event.severity,
                    body: event.body.to_vec(),
                    attributes: (event.attributes.iter())
                        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                        .collect(),
                }
            }));
        }
        read
    }

    /// The process is gone without a word, and starts again.
    fn restart(&mut self) {
        self.source = None;
    }

    fn gaps(&self) -> Vec<&str> {
        let gaps = self.sealed.iter().filter(|sealed| sealed.is_gap());
        gaps.map(|gap| gap.attribute("watchline.gap.reason").unwrap())
            .collect()
    }

    fn records(&self) -> Vec<&Sealed> {
        self.sealed
            .iter()
            .filter(|sealed| !sealed.is_gap())
            .collect()
    }

    fn messages(&self) -> Vec<String> {
        let messages = self.records().into_iter();
        messages
            .map(|record| {
                record
                    .attribute("journald.message")
                    .unwrap_or("?")
                    .to_owned()
            })
            .collect()
    }

    fn trouble(&mut self) -> Option<String> {
        self.source().status().trouble
    }
}

/// One entry as `systemd-journal-remote` takes it, written `n` seconds after the first.
fn entry(n: i64, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut entry = format!(
        "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={BOOT}\n",
        START + n * 1_000_000,
        n * 1_000_000,
    )
    .into_bytes();
    for (name, value) in fields {
        if value.contains('\n') {
            entry.extend_from_slice(name.as_bytes());
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.extend_from_slice(format!("{name}=").as_bytes());
        }
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry.push(b'\n');
    entry
}

fn numbers(range: std::ops::RangeInclusive<i64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Where the entries of a journal file begin in it.
fn entry_offsets(file: &[u8]) -> Vec<usize> {
    const ENTRY: u8 = 3;
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let (mut at, last) = (number(88), number(136));
    let mut entries = Vec::new();
    loop {
        if file[at] == ENTRY {
            entries.push(at);
        }
        if at == last {
            return entries;
        }
        at = (at + number(at + 8)).next_multiple_of(8);
    }
}

#[test]
fn an_entry_arrives_as_the_tool_exports_it_with_what_is_known_of_it() {
    let mut host = Host::new();
    let fields = [
        ("PRIORITY", "3"),
        ("MESSAGE", "two\nlines"),
        ("_SYSTEMD_UNIT", "ssh.service"),
        ("_SOURCE_REALTIME_TIMESTAMP", "1699999999000001"),
        ("ODD", "a=b"),
    ];
    let rule = AlertRule {
        name: "ssh".into(),
        matches: vec!["^_SYSTEMD_UNIT=ssh".into()],
        sources: Vec::new(),
        min_severity: Some(17),
        max_rate: 10,
        ..AlertRule::default()
    };
    host.lanes = Lanes::new(vec![rule]);
    host.write("a.journal", &entry(1, &[("MESSAGE", "old")]));
    host.until(|host| host.records().len() == 1);
    host.write("a.journal", &entry(2, &fields));
    host.until(|host| host.records().len() == 2);

    let exported = Command::new("journalctl")
        .arg("--directory")
        .arg(host.journal(""))
        .args(["-o", "export"])
        .output();
    let exported = exported.unwrap().stdout;
    let bodies: Vec<u8> = (host.records().iter())
        .flat_map(|record| [&record.body[..], b"\n"].concat())
        .collect();
    assert_eq!(bodies, exported);
    let [old, new] = host.records()[..] else {
        panic!("two")
    };
    assert_eq!(
        (old.time, old.severity),
        (Some((START + 1_000_000) * 1000), 0)
    );
    assert_eq!(
        (new.time, new.severity),
        (Some(1_699_999_999_000_001_000), 17)
    );
    assert_eq!((old.lane, new.lane), (Lane::Routine, Lane::Alert));
    assert_eq!(
        (
            old.attribute("watchline.backfill"),
            new.attribute("watchline.backfill")
        ),
        (Some("true"), None)
    );
    assert_eq!(new.attribute("journald.message"), Some("two\nlines"));
    assert_eq!(new.attribute("journald._systemd_unit"), Some("ssh.service"));
    assert_eq!(host.gaps(), [""; 0]);
}

/// TAILING 38.
#[test]
fn an_entry_behind_the_cursor_is_neither_skipped_nor_repeated_wherever_reading_was_interrupted() {
    let mut host = Host::new();
    for taken in 1..=6 {
        // One more entry each time, and the process is killed when it is stored.
        host.write_numbers("a.journal", taken..=taken);
        host.until(|host| host.records().len() as i64 == taken);
        host.restart();
    }
    // Killed before what was read is stored.
    host.write_numbers("a.journal", 7..=9);
    let stored = host.state.clone();
    host.until(|host| host.records().len() > 6);
    host.restart();
    host.state = stored;
    host.sealed.truncate(6);
    host.until(|host| host.records().len() == 9);
    assert_eq!(host.messages(), numbers(1..=9));
    assert_eq!(host.gaps(), [""; 0]);
}

/// TAILING 38.
#[test]
fn a_cursor_that_is_no_longer_there_is_a_gap_and_the_oldest_entry_comes_next() {
    let mut host = Host::new();
    host.write_numbers("a.journal", 1..=5);
    host.until(|host| host.records().len() == 5);
    host.restart();
    // The clock steps back, and everything of before was vacuumed: the same numbers, other entries.
    fs::remove_file(host.journal("a.journal")).unwrap();
    host.write_numbers("b.journal", 3..=4);
    host.until(|host| host.records().len() == 7);
    assert_eq!(host.messages()[5..], numbers(3..=4));
    assert_eq!(host.gaps(), ["cursor_lost"]);
    // Told once: the new position is stored with it.
    host.restart();
    host.write_numbers("b.journal", 5..=5);
    host.until(|host| host.records().len() == 8);
    assert_eq!(host.messages()[7..], numbers(5..=5));
    assert_eq!(host.gaps(), ["cursor_lost"]);
}

/// TAILING 38: a journal that is not there (not mounted yet, say) has lost nothing.
#[test]
fn an_empty_journal_does_not_lose_the_cursor() {
    let mut host = Host::new();
    host.write_numbers("a.journal", 1..=2);
    host.until(|host| host.records().len() == 2);
    host.restart();
    fs::rename(host.journal("a.journal"), host.dir.path().join("away")).unwrap();
    host.source();
    host.until(|host| {
        host.source
            .as_ref()
            .is_some_and(|source| source.status().trouble.is_some())
    });
    assert_eq!(host.trouble().unwrap(), "the journal is empty");
    fs::rename(host.dir.path().join("away"), host.journal("a.journal")).unwrap();
    host.write_numbers("a.journal", 3..=3);
    host.until(|host| host.records().len() == 3);
    assert_eq!(host.messages(), numbers(1..=3));
    assert_eq!(host.gaps(), [""; 0]);
    assert_eq!(host.trouble(), None);
}

/// TAILING 39.
#[test]
fn a_corrupt_entry_is_skipped_with_a_gap_and_the_rest_goes_on_also_after_a_restart() {
    let mut host = Host::new();
    host.write_numbers("a.journal", 1..=20);
    let mut bytes = fs::read(host.journal("a.journal")).unwrap();
    let wrecked = entry_offsets(&bytes)[7];
    bytes[wrecked] = 9;
    fs::write(host.journal("a.journal"), bytes).unwrap();
    host.until(|host| host.records().len() == 19 && !host.gaps().is_empty());
    let expected = [numbers(1..=7), numbers(9..=20)].concat();
    assert_eq!(host.messages(), expected);
    assert_eq!(host.gaps(), ["damaged_journal"]);
    // The damage is in the way of searching for the cursor.
    host.restart();
    host.write_numbers("b.journal", 21..=21);
    host.until(|host| host.records().len() == 20);
    assert_eq!(host.messages()[19..], numbers(21..=21));
    assert!(!host.gaps().contains(&"cursor_lost"), "{:?}", host.gaps());
}

/// TAILING 39.
#[test]
fn a_file_that_cannot_be_read_at_all_is_a_gap_and_the_others_go_on() {
    let mut host = Host::new();
    host.write_numbers("a.journal", 1..=3);
    fs::write(host.journal("b.journal"), vec![b'x'; 4096]).unwrap();
    host.until(|host| host.records().len() == 3 && !host.gaps().is_empty());
    assert_eq!(host.gaps(), ["damaged_journal"]);
}

/// TAILING 39.
#[test]
fn an_oversized_entry_is_cut_flagged_and_counted_and_the_rest_goes_on() {
    let mut host = Host::new();
    host.config.max_record = 2048;
    let long = "x".repeat(10_000);
    host.write("a.journal", &entry(1, &[("MESSAGE", "1")]));
    host.write(
        "a.journal",
        &entry(2, &[("MESSAGE", "2"), ("DATA", &format!("{long}\n"))]),
    );
    host.write("a.journal", &entry(3, &[("MESSAGE", "3")]));
    host.until(|host| host.records().len() == 3);
    let cut = host.records()[1];
    assert_eq!(cut.body.len(), 2048);
    let beyond: usize = cut
        .attribute("watchline.truncated_bytes")
        .unwrap()
        .parse()
        .unwrap();
    assert!(beyond > 10_000 - 2048, "{beyond}");
    assert_eq!(host.records()[2].attribute("journald.message"), Some("3"));
    assert_eq!(
        host.records()[2].attribute("watchline.truncated_bytes"),
        None
    );
}

/// TAILING 39.
#[test]
fn a_journal_that_rotates_under_the_reader_is_followed_without_starting_the_tool_again() {
    let mut host = Host::new();
    let starts = host.dir.path().join("starts");
    host.script(&format!(
        "echo x >> {}\nexec $REAL \"$@\"",
        starts.display()
    ));
    host.write_numbers("system.journal", 1..=3);
    host.until(|host| host.records().len() == 3);
    for round in 1..=3 {
        let archived = format!("system@{round:032x}-0000000000000001-0000000000000001.journal");
        fs::rename(host.journal("system.journal"), host.journal(&archived)).unwrap();
        host.write_numbers("system.journal", 3 * round + 1..=3 * round + 3);
        host.until(|host| host.records().len() as i64 == 3 * round + 3);
    }
    assert_eq!(host.messages(), numbers(1..=12));
    assert_eq!(host.gaps(), [""; 0]);
    // The newest entry at the first start, then following: never again.
    assert_eq!(fs::read_to_string(&starts).unwrap().lines().count(), 2);
}

/// TAILING 39: no busy loop.
#[test]
fn a_tool_that_fails_is_tried_again_after_a_pause_and_shows_as_trouble() {
    let mut host = Host::new();
    let (starts, broken) = (
        host.dir.path().join("starts"),
        host.dir.path().join("broken"),
    );
    fs::write(&broken, "").unwrap();
    host.script(&format!(
        "echo x >> {}\n[ -e {} ] && {{ echo '<27>No such luck' >&2; exit 1; }}\nexec $REAL \"$@\"",
        starts.display(),
        broken.display()
    ));
    host.write_numbers("a.journal", 1..=2);
    host.until(|host| {
        host.source
            .as_ref()
            .is_some_and(|source| source.status().trouble.is_some())
    });
    assert_eq!(
        host.trouble().unwrap(),
        "journalctl ended: exit status: 1: No such luck"
    );
    let began = Instant::now();
    let count = || fs::read_to_string(&starts).unwrap().lines().count();
    host.until(|_| count() >= 3);
    assert!(
        began.elapsed() >= Duration::from_millis(2500),
        "a second, then two: {:?}",
        began.elapsed()
    );
    fs::remove_file(&broken).unwrap();
    host.until(|host| host.records().len() == 2);
    assert_eq!(host.trouble(), None);
}

#[test]
fn a_tool_that_is_not_there_shows_as_trouble() {
    let mut host = Host::new();
    host.config.journalctl = "/nonexistent/journalctl".into();
    host.until(|host| {
        host.source
            .as_ref()
            .is_some_and(|source| source.status().trouble.is_some())
    });
    let trouble = host.trouble().unwrap();
    assert!(
        trouble.starts_with("cannot start /nonexistent/journalctl: No such file"),
        "{trouble}"
    );
}

#[test]
fn what_is_not_the_export_format_is_trouble_and_no_event() {
    let mut host = Host::new();
    host.script("case \"$*\" in *--lines=1*) exit 0;; esac\necho 'Hint: something for people'\nexec sleep 1000");
    host.until(|host| {
        host.source
            .as_ref()
            .is_some_and(|source| source.status().trouble.is_some())
    });
    let trouble = host.trouble().unwrap();
    assert!(
        trouble.starts_with("what journalctl writes is not the export format"),
        "{trouble}"
    );
    assert_eq!(host.sealed, []);
}

#[test]
fn an_entry_that_was_cut_off_with_its_tool_comes_whole_from_the_next() {
    let mut host = Host::new();
    let once = host.dir.path().join("once");
    host.write_numbers("a.journal", 1..=5);
    // The first to follow dies in the middle of an entry.
    host.script(&format!(
        "case \"$*\" in *--follow*) [ -e {once} ] || {{ touch {once}; $REAL \"$@\" | head -c 700; exit 1; }};; esac\nexec $REAL \"$@\"",
        once = once.display()
    ));
    host.until(|host| host.records().len() == 5);
    assert!(once.exists());
    assert_eq!(host.messages(), numbers(1..=5));
    assert_eq!(host.gaps(), [""; 0]);
}

#[test]
fn stopping_ends_the_tool_and_reaps_it() {
    let mut host = Host::new();
    let pid = host.dir.path().join("pid");
    host.script(&format!("echo $$ > {}\nexec $REAL \"$@\"", pid.display()));
    host.write_numbers("a.journal", 1..=1);
    host.until(|host| host.records().len() == 1);
    let pid = fs::read_to_string(&pid).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists());
    host.source().stop();
    assert!(!process.exists(), "it runs on, or was not reaped");
    assert!(!host.source().is_ready());
}

#[test]
fn the_tool_ends_by_itself_when_nobody_reads_it_any_more() {
    let host = Host::new();
    host.write_numbers("a.journal", 1..=1);
    let mut child = Command::new("journalctl")
        .arg("--directory")
        .arg(host.journal(""))
        .args(["--merge", "--follow", "--no-tail", "--output=export"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // As the kernel does when the process that holds the other end is killed.
    drop(child.stdout.take());
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || drop(ended.send(child.wait())));
    assert!(wait.recv_timeout(PATIENCE).is_ok(), "it lives on");
}

#[test]
fn entries_of_other_units_and_lesser_priorities_are_passed_over_and_filters_may_change() {
    let mut host = Host::new();
    host.config.units = Some(Units::new(&["ssh", "cron*.service"]).unwrap());
    host.config.min_priority = Some(4);
    let units = ["ssh.service", "cron-daily.service", "web.service"];
    let write = |host: &Host, range: std::ops::RangeInclusive<i64>| {
        let entries = range.flat_map(|n| {
            let (message, priority) = (n.to_string(), (n % 8).to_string());
            entry(
                n,
                &[
                    ("MESSAGE", &message),
                    ("PRIORITY", &priority),
                    ("_SYSTEMD_UNIT", units[n as usize % 3]),
                ],
            )
        });
        host.write("a.journal", &entries.collect::<Vec<u8>>());
    };
    write(&host, 0..=23);
    let wanted = |n: &i64| n % 3 != 2 && n % 8 <= 4;
    let expected: Vec<String> = (0..=23).filter(wanted).map(|n| n.to_string()).collect();
    host.until(|host| host.records().len() == expected.len());
    assert_eq!(host.messages(), expected);
    // All of them from now on: the cursor is that of an entry which the old filter let through, or passed over.
    let all = JournaldConfig {
        units: None,
        min_priority: None,
        ..host.config.clone()
    };
    host.config = all.clone();
    let lanes = Lanes::new(Vec::new());
    assert!(
        host.source()
            .reconfigure(SourceNo(0), &SourceConfig::Journald(all), &lanes)
    );
    write(&host, 24..=29);
    host.until(|host| host.messages().last().is_some_and(|last| last == "29"));
    let more = host.messages().split_off(expected.len());
    let last: i64 = expected.last().unwrap().parse().unwrap();
    assert_eq!(more, numbers(last + 1..=29));
    assert_eq!(host.gaps(), [""; 0]);
}

#[test]
fn a_start_at_the_end_takes_what_comes_later_also_when_nothing_came_before_the_next_start() {
    let mut host = Host::new();
    host.config.start_at = StartAt::End;
    host.write_numbers("a.journal", 1..=3);
    host.until(|host| !host.state.is_empty());
    host.restart();
    host.write_numbers("a.journal", 4..=5);
    host.until(|host| host.records().len() == 2);
    assert_eq!(host.messages(), numbers(4..=5));
    assert!(
        host.records()
            .iter()
            .all(|record| record.attribute("watchline.backfill").is_none())
    );
}

/// TAILING 36.
#[test]
fn a_start_at_the_end_waits_until_it_is_known_whether_the_state_was_lost() {
    let mut host = Host::new();
    host.config.start_at = StartAt::End;
    host.write_numbers("a.journal", 1..=2);
    host.source().begin(FirstStart::Wait);
    assert!(host.source().running.is_none() && !host.source().has_begun());
    host.source().begin(FirstStart::FromBeginning);
    host.until(|host| host.records().len() == 2);
    assert!(host.source().has_begun());
    assert_eq!(host.messages(), numbers(1..=2));
}

#[test]
fn a_rewind_goes_back_to_what_is_stored() {
    let mut host = Host::new();
    host.write_numbers("a.journal", 1..=4);
    host.until(|host| host.records().len() == 4);
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(
        Arc::new(FailingDisk::new()),
        dir.path(),
        watchline_spool::Options::default(),
    )
    .unwrap();
    // The disk holds nothing: it begins anew, as at the first start.
    host.source().rewind(&spool);
    host.sealed.clear();
    host.until(|host| host.records().len() == 4);
    assert_eq!(host.messages(), numbers(1..=4));
}

#[test]
fn a_reader_that_does_not_read_makes_the_tool_wait_and_can_still_be_stopped() {
    let mut host = Host::new();
    let long = "y".repeat(30_000);
    let entries: Vec<u8> = (1..=80)
        .flat_map(|n| entry(n, &[("MESSAGE", &format!("{n} {long}"))]))
        .collect();
    host.write("a.journal", &entries);
    host.source();
    host.woken.1.recv_timeout(PATIENCE).unwrap();
    // More than the feed holds: its thread waits. Dropping the source ends it all the same.
    host.restart();
    host.until(|host| host.records().len() == 80);
}
