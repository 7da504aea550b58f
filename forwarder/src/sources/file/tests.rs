//! A source against a directory, with a state that is committed or lost as a spool's frame would be.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
};

use bytes::Bytes;
use proptest::prelude::*;
use watchline_proto::{Lane, payload::PayloadOpener};

use super::{
    state::{first_start_key, positions_prefix, read_position},
    *,
};
use crate::{batch::Batch, lanes::AlertRule, sources::Buffers};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    lane: Lane,
    path: String,
    body: Vec<u8>,
    attributes: Vec<(String, String)>,
}

impl Record {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One host: its directory, what is stored, what has been sealed.
struct Host {
    dir: tempfile::TempDir,
    config: FileConfig,
    rules: Vec<AlertRule>,
    lanes: Lanes,
    source: Option<FileSource>,
    state: BTreeMap<Bytes, Bytes>,
    sealed: Vec<Record>,
    now: Moment,
}

const BATCH_BYTES: usize = 64 << 10;

impl Host {
    fn new(patterns: &[&str]) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let paths = patterns
            .iter()
            .map(|pattern| format!("{}/{pattern}", dir.path().display()));
        let config = FileConfig {
            name: "s".into(),
            paths: paths
                .map(|path| PathPattern::parse(&path).unwrap())
                .collect(),
            exclude: Excludes::none(),
            start_at: StartAt::Beginning,
            max_record: 1024,
            idle_flush: Duration::from_secs(5),
        };
        let (rules, lanes, source) = (Vec::new(), Lanes::new(Vec::new()), None);
        Host {
            dir,
            config,
            rules,
            lanes,
            source,
            state: BTreeMap::new(),
            sealed: Vec::new(),
            now: Moment::now(),
        }
    }

    /// One that was started before, so that nothing is backfill.
    fn running(patterns: &[&str]) -> Host {
        let mut host = Host::new(patterns);
        host.turn();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn truncate(&self, name: &str) {
        OpenOptions::new()
            .write(true)
            .open(self.path(name))
            .unwrap()
            .set_len(0)
            .unwrap();
    }

    fn source(&mut self) -> FileSource {
        self.source.take().unwrap_or_else(|| {
            let prefix = positions_prefix("s");
            let positions = self.state.iter().filter_map(|(key, value)| {
                read_position(key.strip_prefix(prefix.as_bytes())?, value)
            });
            let started_before = self.state.contains_key(&first_start_key("s"));
            let own = Arc::new(OwnFiles::default());
            self.lanes = Lanes::new(self.rules.clone());
            FileSource::new(
                SourceNo(0),
                self.config.clone(),
                own,
                &self.lanes,
                positions.collect(),
                started_before,
            )
        })
    }

    /// A second passes, everything is looked at, everything is read and stored.
    fn turn(&mut self) {
        self.turn_until(usize::MAX);
    }

    /// As [`Host::turn`], but after so many frames whatever is in work is lost, as when the process is killed.
    fn turn_until(&mut self, frames: usize) {
        let mut source = self.source();
        let mut batch = Batch::new(BATCH_BYTES);
        let mut buffers = Buffers::default();
        self.now.at += Duration::from_secs(1);
        self.now.unix_nano = Moment::now().unix_nano.max(self.now.unix_nano);
        let hints = Hints::default();
        let now = self.now;
        let mut intake = Intake {
            batch: &mut batch,
            lanes: &mut self.lanes,
            buffers: &mut buffers,
            now,
        };
        source.look(&hints, true, &mut intake);
        for _ in 0..frames {
            let mut more = true;
            while more && !batch.is_due() {
                let mut intake = Intake {
                    batch: &mut batch,
                    lanes: &mut self.lanes,
                    buffers: &mut buffers,
                    now,
                };
                more = source.read(&mut intake);
            }
            let mut state = Vec::new();
            source.moved(&mut state);
            if batch.is_empty() && state.is_empty() && !more {
                self.source = Some(source);
                return;
            }
            for (key, value) in state {
                match value {
                    Some(value) => drop(self.state.insert(key, value)),
                    None => drop(self.state.remove(&key)),
                }
            }
            for lane in Lane::ALL {
                let Some(payload) = batch.finish(lane, now) else {
                    continue;
                };
                let opened = PayloadOpener::new()
                    .open(&payload.bytes, &payload.info)
                    .unwrap();
                self.sealed.extend(opened.events().map(|event| {
                    Record {
                        lane,
                        path: event
                            .origin
                            .attributes
                            .iter()
                            .find(|(name, _)| name == "log.file.path")
                            .map_or(String::new(), |(_, path)| path.clone()),
                        body: event.body.to_vec(),
                        attributes: (event
                            .attributes
                            .iter()
                            .map(|&(name, value)| (name.to_owned(), value.to_owned())))
                        .chain(event.origin.attributes.iter().cloned())
                        .collect(),
                    }
                }));
            }
        }
    }

    fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// The process is gone without a word, and starts again.
    fn restart(&mut self) {
        self.source = None;
    }

    fn gaps(&self) -> Vec<&Record> {
        self.sealed
            .iter()
            .filter(|record| record.attribute("event.name") == Some("watchline.gap"))
            .collect()
    }

    fn records(&self) -> Vec<&Record> {
        self.sealed
            .iter()
            .filter(|record| record.attribute("event.name").is_none())
            .collect()
    }

    fn bodies(&self) -> Vec<String> {
        self.records()
            .iter()
            .map(|record| String::from_utf8_lossy(&record.body).into_owned())
            .collect()
    }

    #[track_caller]
    fn expect(&self, bodies: &[&str]) {
        assert_eq!(self.bodies(), bodies);
        assert_eq!(self.gaps(), [] as [&Record; 0]);
    }
}

#[test]
fn lines_arrive_once_and_byte_for_byte() {
    let mut host = Host::running(&["*.log"]);
    host.append("a.log", b"one\r\n\ntwo \xff\0x\nthree");
    host.turns(2);
    assert_eq!(
        host.records()
            .iter()
            .map(|r| r.body.as_slice())
            .collect::<Vec<_>>(),
        [&b"one\r"[..], b"", b"two \xff\0x"]
    );
    host.append("a.log", "!\n");
    host.restart();
    host.turn();
    assert_eq!(host.bodies().last().unwrap(), "three!");
    assert_eq!(host.records().len(), 4);
    assert_eq!(
        host.records()[0].path,
        host.path("a.log").display().to_string()
    );
    assert_eq!(host.records()[0].attribute("log.file.name"), Some("a.log"));
}

#[test]
fn what_was_there_at_the_first_start_is_backfill_up_to_that_size() {
    let mut host = Host::new(&["*.log"]);
    host.rules = vec![AlertRule {
        name: "all".into(),
        matches: vec![".".into()],
        sources: Vec::new(),
        min_severity: None,
        max_rate: 1000,
    }];
    host.append("a.log", "old\nol");
    host.turn();
    host.append("a.log", "d\nnew\n");
    host.append("b.log", "b\n");
    host.restart();
    host.turn();
    let seen: HashMap<String, (Lane, bool)> = (host.records().iter())
        .map(|r| {
            (
                String::from_utf8_lossy(&r.body).into(),
                (r.lane, r.attribute("watchline.backfill").is_some()),
            )
        })
        .collect();
    let expected = [
        ("old", Lane::Routine, true),
        ("new", Lane::Alert, false),
        ("b", Lane::Alert, false),
    ];
    assert_eq!(host.records().len(), 4);
    for (body, lane, backfill) in expected {
        assert_eq!(seen[body], (lane, backfill), "{body}");
    }
}

#[test]
fn start_at_end_holds_for_files_that_are_there_at_the_first_start_only() {
    let mut host = Host::new(&["*.log"]);
    host.config.start_at = StartAt::End;
    host.append("a.log", "old\nbegun");
    host.turn();
    host.restart();
    host.append("b.log", "new file\n");
    host.append("a.log", " and ended\n");
    host.turn();
    let mut bodies = host.bodies();
    bodies.sort();
    assert_eq!(bodies, ["begun and ended", "new file"]);
}

#[test]
fn an_incomplete_line_waits_then_goes_with_a_flag_and_its_rest_repeats_nothing() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "one\ntw");
    host.turns(3);
    host.expect(&["one"]);
    host.turns(5);
    host.expect(&["one", "tw"]);
    assert_eq!(
        host.records()[1].attribute("watchline.partial"),
        Some("true")
    );
    host.restart();
    host.turns(8);
    host.append("a.log", "o\nthree\n");
    host.turn();
    host.expect(&["one", "tw", "o", "three"]);
    assert_eq!(
        host.records()[2].attribute("watchline.continuation"),
        Some("true")
    );
    host.append("a.log", "four");
    host.turns(8);
    host.append("a.log", "\nfive\n");
    host.turn();
    host.expect(&["one", "tw", "o", "three", "four", "five"]);
}

#[test]
fn a_line_that_is_too_long_is_cut_with_a_count_at_every_edge_and_the_next_is_exact() {
    for len in [
        1023,
        1024,
        1025,
        16 << 10,
        (64 << 10) - 1,
        64 << 10,
        (64 << 10) + 1,
        (256 << 10) + 7,
        700_000,
    ] {
        let mut host = Host::running(&["a.log"]);
        let long = "x".repeat(len);
        host.append("a.log", format!("before\n{long}\nafter\n"));
        host.turns(2);
        let records = host.records();
        assert_eq!(records.len(), 3, "{len}");
        assert_eq!(records[1].body, long.as_bytes()[..len.min(1024)], "{len}");
        let cut = (len > 1024).then(|| (len - 1024).to_string());
        assert_eq!(
            records[1].attribute("watchline.truncated_bytes"),
            cut.as_deref(),
            "{len}"
        );
        assert_eq!(records[2].body, b"after");
        host.append("a.log", "more\n");
        host.restart();
        host.turn();
        assert_eq!(host.records().len(), 4, "{len}");
        assert_eq!(host.gaps().len(), 0);
    }
}

#[test]
fn the_rest_of_a_long_line_that_was_cut_before_its_end_is_counted_in_a_gap() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "x".repeat(3000));
    host.turns(8);
    assert_eq!(host.records().len(), 1);
    assert_eq!(
        host.records()[0].attribute("watchline.truncated_bytes"),
        Some("1976")
    );
    host.append("a.log", "y".repeat(100));
    host.turn();
    host.restart();
    host.append("a.log", "y".repeat(11) + "\nnext\n");
    host.turns(2);
    assert_eq!(host.bodies().last().unwrap(), "next");
    assert_eq!(host.records().len(), 2);
    assert_eq!(host.gaps()[0].attribute("watchline.gap.bytes"), Some("111"));
    assert_eq!(
        host.gaps()[0].attribute("watchline.gap.reason"),
        Some("line_cut")
    );
}

#[test]
fn a_renamed_file_is_read_to_its_end_outside_the_pattern_too() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\n");
    host.turn();
    host.append("app.log", "2\n");
    host.rename("app.log", "app.log.1");
    host.append("app.log.1", "3\n");
    host.append("app.log", "4\n");
    host.turn();
    host.expect(&["1", "2", "3", "4"]);
    host.append("app.log.1", "late\n");
    host.restart();
    host.append("app.log", "5\n");
    host.turn();
    host.expect(&["1", "2", "3", "4", "late", "5"]);
    assert!(
        host.records()
            .iter()
            .all(|record| record.attribute("log.file.name") == Some("app.log"))
    );
}

#[test]
fn generations_that_came_and_went_between_two_looks_are_read_in_order() {
    for stopped in [false, true] {
        let mut host = Host::running(&["app.log"]);
        host.append("app.log.7", "rotated before anybody looked\n");
        let old = fs::File::options()
            .write(true)
            .open(host.path("app.log.7"))
            .unwrap();
        old.set_modified(std::time::SystemTime::now() - Duration::from_secs(600))
            .unwrap();
        host.append("app.log", "1\n");
        host.turn();
        if stopped {
            host.restart();
        }
        for generation in 2..6 {
            for n in (1..5).rev() {
                if host.path(&format!("app.log.{n}")).exists() {
                    host.rename(&format!("app.log.{n}"), &format!("app.log.{}", n + 1));
                }
            }
            host.append("app.log", "late\n");
            host.rename("app.log", "app.log.1");
            host.append("app.log", format!("{generation}\n"));
        }
        host.turns(2);
        host.expect(&["1", "late", "2", "late", "3", "late", "4", "late", "5"]);
    }
}

#[test]
fn a_rotation_within_the_pattern_repeats_nothing() {
    let mut host = Host::running(&["app.log*"]);
    for generation in 0..5 {
        host.append("app.log", format!("{generation}\n"));
        host.turn();
        if generation % 2 == 0 {
            host.restart();
        }
        for n in (1..5).rev() {
            if host.path(&format!("app.log.{n}")).exists() {
                host.rename(&format!("app.log.{n}"), &format!("app.log.{}", n + 1));
            }
        }
        host.append("app.log", format!("{generation} late\n"));
        host.rename("app.log", "app.log.1");
    }
    host.turns(3);
    host.expect(&[
        "0", "0 late", "1", "1 late", "2", "2 late", "3", "3 late", "4", "4 late",
    ]);
}

#[test]
fn copytruncate_with_the_copy_inside_the_pattern_repeats_nothing() {
    for (looks, restarts) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut host = Host::running(&["app.log*"]);
        host.append("app.log", "1\n2\n");
        host.turn();
        host.append("app.log", "3\n");
        host.copy("app.log", "app.log.1");
        if looks {
            host.turn();
        }
        if restarts {
            host.restart();
        }
        host.truncate("app.log");
        host.append("app.log", "4\n");
        host.turns(3);
        host.append("app.log", "5\n");
        host.turns(2);
        host.expect(&["1", "2", "3", "4", "5"]);
    }
}

#[test]
fn lines_written_before_the_cut_are_found_in_a_copy_outside_the_pattern() {
    for restarts in [false, true] {
        let mut host = Host::running(&["app.log"]);
        host.append("app.log", "1\n");
        host.turn();
        host.append("app.log", "2\n");
        host.copy("app.log", "app.log-20261123");
        host.truncate("app.log");
        if restarts {
            host.restart();
        }
        host.append("app.log", "3\n");
        host.turns(3);
        host.expect(&["1", "2", "3"]);
    }
}

#[test]
fn a_copy_that_was_followed_goes_on_by_itself_when_it_grows() {
    let mut host = Host::running(&["app.log*"]);
    host.append("app.log", "1\n2\n");
    host.turn();
    host.copy("app.log", "app.log.bak");
    host.turns(2);
    host.append("app.log", "3\n");
    host.turns(2);
    host.append(
        "app.log.bak",
        "its own line, longer than that of the original\n",
    );
    host.turns(2);
    host.append("app.log", "4\n");
    host.turns(2);
    host.expect(&[
        "1",
        "2",
        "3",
        "its own line, longer than that of the original",
        "4",
    ]);
}

#[test]
fn unread_bytes_that_were_cut_away_without_a_copy_are_a_gap() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\n");
    host.turn();
    host.append("app.log", "lost, and never completed");
    host.turns(2);
    host.truncate("app.log");
    host.append("app.log", "2\n");
    host.turns(2);
    assert_eq!(host.bodies(), ["1", "2"]);
    let gaps = host.gaps();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].attribute("watchline.gap.reason"), Some("truncated"));
    assert_eq!(gaps[0].attribute("watchline.gap.bytes"), Some("25"));
    assert_eq!(
        (
            gaps[0].attribute("watchline.gap.from"),
            gaps[0].attribute("watchline.gap.to")
        ),
        (Some("2"), Some("27"))
    );
    assert_eq!(gaps[0].lane, Lane::Alert);
}

#[test]
fn a_file_cut_and_grown_past_the_old_offset_is_read_from_its_beginning() {
    for restarts in [false, true] {
        let mut host = Host::running(&["app.log"]);
        host.append("app.log", "the same head\nold 1\n");
        host.turn();
        if restarts {
            host.restart();
        }
        host.truncate("app.log");
        host.append("app.log", "the same head\nnew 1\nnew 2\nnew 3\n");
        host.turns(2);
        let bodies = [
            "the same head",
            "old 1",
            "the same head",
            "new 1",
            "new 2",
            "new 3",
        ];
        assert_eq!(host.bodies(), bodies);
    }
}

#[test]
fn a_file_rewritten_to_exactly_the_same_size_is_noticed() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "aaaa\n");
    host.turns(2);
    let file = OpenOptions::new()
        .write(true)
        .open(host.path("app.log"))
        .unwrap();
    file.write_all_at(b"bbbb\n", 0).unwrap();
    host.turns(2);
    assert_eq!(host.bodies(), ["aaaa", "bbbb"]);
    assert_eq!(
        host.gaps()[0].attribute("watchline.gap.reason"),
        Some("rewritten")
    );
}

#[test]
fn bytes_before_the_offset_that_changed_while_the_file_grew_are_noticed() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "first line\n");
    host.turn();
    let file = OpenOptions::new()
        .write(true)
        .open(host.path("app.log"))
        .unwrap();
    file.write_all_at(b"FIRST", 0).unwrap();
    host.append("app.log", "second\n");
    host.turns(2);
    assert_eq!(host.bodies(), ["first line", "FIRST line", "second"]);
    assert_eq!(host.gaps().len(), 1);
}

#[test]
fn a_removed_file_is_read_to_its_end_through_the_handle() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\n");
    host.turn();
    host.append("app.log", "2\n");
    fs::remove_file(host.path("app.log")).unwrap();
    host.append("app.log", "3\n");
    host.turn();
    host.expect(&["1", "2", "3"]);
    host.turns(70);
    assert_eq!(
        host.source.as_ref().unwrap().tails.len(),
        1,
        "closed when it stayed idle"
    );
    assert_eq!(
        host.state
            .keys()
            .filter(|key| key.starts_with(b"position"))
            .count(),
        1
    );
}

#[test]
fn a_file_that_vanished_while_part_of_it_was_unread_is_a_gap() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\nhalf");
    host.turns(2);
    host.restart();
    fs::remove_file(host.path("app.log")).unwrap();
    host.turns(2);
    assert_eq!(host.bodies(), ["1"]);
    assert_eq!(host.gaps().len(), 1);
    assert_eq!(host.gaps()[0].attribute("watchline.gap.bytes"), Some("4"));
    host.restart();
    host.turns(2);
    assert_eq!(host.gaps().len(), 1, "said once");
}

#[test]
fn a_recycled_inode_is_a_new_file() {
    // What a recycled inode looks like: a stored position whose inode has other, longer content.
    for text in ["completely other content\nand more of it\n", "x\n"] {
        let mut host = Host::running(&["*.log"]);
        host.append("a.log", "1\n2\n3\n");
        host.turn();
        host.restart();
        let file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(host.path("a.log"))
            .unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        host.rename("a.log", "b.log");
        host.turns(2);
        assert_eq!(host.bodies()[3..], text.lines().collect::<Vec<_>>());
    }
}

#[test]
fn a_device_number_that_changed_makes_no_new_file() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "1\n2\n");
    host.turn();
    host.restart();
    let (key, value) = host
        .state
        .iter()
        .find(|(key, _)| key.starts_with(b"position"))
        .unwrap();
    let (key, mut position) = (key.clone(), Position::decode(value).unwrap());
    position.inode.dev += 1;
    host.state.insert(key, position.encode().into());
    host.append("a.log", "3\n");
    host.turns(2);
    host.expect(&["1", "2", "3"]);
}

#[test]
fn two_files_that_begin_alike_are_both_exact() {
    let banner = "x".repeat(200) + "\n";
    let banner = banner.repeat(10);
    let mut host = Host::running(&["*.log"]);
    host.append("a.log", &banner);
    host.append("b.log", &banner);
    host.turns(2);
    assert_eq!(host.records().len(), 20);
    host.append("a.log", "a\n");
    host.append("b.log", "b\n");
    host.restart();
    host.turn();
    assert_eq!(host.records().len(), 22);
}

#[test]
fn a_short_first_line_arrives_promptly_and_the_file_stays_the_same_as_it_grows() {
    let mut host = Host::running(&["a.log"]);
    let mut expected = Vec::new();
    for n in 0..100 {
        let line = format!("line {n} of a file that grows slowly");
        host.append("a.log", format!("{line}\n"));
        expected.push(line);
        if n % 7 == 0 {
            host.restart();
        }
        host.turn();
        assert_eq!(host.bodies(), expected);
    }
    assert_eq!(host.gaps().len(), 0);
    assert_eq!(
        host.state
            .keys()
            .filter(|key| key.starts_with(b"position"))
            .count(),
        1
    );
}

#[test]
fn a_hard_link_and_overlapping_patterns_deliver_once() {
    let mut host = Host::running(&["*.log", "a.*", "**/*.log"]);
    host.append("a.log", "1\n");
    fs::hard_link(host.path("a.log"), host.path("b.log")).unwrap();
    std::os::unix::fs::symlink("a.log", host.path("c.log")).unwrap();
    host.turns(3);
    host.append("b.log", "2\n");
    host.restart();
    host.turns(2);
    host.expect(&["1", "2"]);
}

#[test]
fn a_link_that_moves_on_to_the_next_file_is_followed() {
    let mut host = Host::running(&["current.log"]);
    host.append("2026-11-23.log", "1\n");
    std::os::unix::fs::symlink("2026-11-23.log", host.path("current.log")).unwrap();
    host.turns(2);
    host.append("2026-11-23.log", "2\n");
    host.append("2026-11-24.log", "3\n");
    fs::remove_file(host.path("current.log")).unwrap();
    std::os::unix::fs::symlink("2026-11-24.log", host.path("current.log")).unwrap();
    host.turns(2);
    host.expect(&["1", "2", "3"]);
}

#[test]
fn a_hole_under_a_writer_that_went_on_is_skipped_and_counted() {
    let mut host = Host::running(&["a.log"]);
    let writer = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(host.path("a.log"))
        .unwrap();
    let first = "first\n".repeat(20_000);
    writer.write_all_at(first.as_bytes(), 0).unwrap();
    host.turn();
    host.truncate("a.log");
    host.turn();
    writer
        .write_all_at(b"second\n", first.len() as u64)
        .unwrap();
    host.turns(2);
    assert_eq!(host.bodies()[20_000..], ["second"]);
    assert_eq!(host.gaps().len(), 1);
    assert_eq!(
        host.gaps()[0].attribute("watchline.gap.bytes"),
        Some(first.len().to_string().as_str())
    );
}

#[test]
fn alerts_take_their_lane_with_the_name_of_the_rule() {
    let mut host = Host::new(&["a.log"]);
    host.rules = vec![AlertRule {
        name: "sudo".into(),
        matches: vec!["sudo: .*COMMAND=".into(), "^su\\[".into()],
        sources: vec!["s".into()],
        min_severity: None,
        max_rate: 2,
    }];
    host.turn();
    host.append(
        "a.log",
        "sudo: x COMMAND=y\nother\nsu[1]: z\nnot su[1]\nsudo: COMMAND=beyond the rate\n",
    );
    host.turn();
    let alerts: Vec<&Record> = host
        .sealed
        .iter()
        .filter(|record| record.lane == Lane::Alert)
        .collect();
    assert_eq!(
        alerts.iter().map(|r| r.body.as_slice()).collect::<Vec<_>>(),
        [&b"sudo: x COMMAND=y"[..], b"su[1]: z"]
    );
    assert_eq!(alerts[0].attribute("watchline.alert.rule"), Some("sudo"));
    assert_eq!(host.records().len(), 5);
    assert_eq!(host.lanes.take_excess().collect::<Vec<_>>(), [("sudo", 1)]);
}

#[test]
fn a_big_file_beside_a_quiet_one_takes_turns_with_it() {
    let mut host = Host::running(&["*.log"]);
    host.append("big.log", "x".repeat(99).to_string() + "\n");
    host.append("quiet.log", "first\n");
    host.turn();
    host.append("big.log", ("x".repeat(99) + "\n").repeat(50_000));
    host.append("quiet.log", "second\n");
    host.turn();
    let bodies = host.bodies();
    let at = bodies.iter().position(|body| body == "second").unwrap();
    assert!(at < 10_000, "behind {at} records of the big file");
    assert_eq!(bodies.len(), 50_003);
}

/// What a random day on a host does.
#[derive(Debug, Clone)]
enum Deed {
    Append(usize, usize),
    AppendPart(usize),
    Rename(usize),
    CopyTruncate(usize),
    Turn,
    Kill(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (0..2_usize, 1..400_usize).prop_map(|(file, lines)| Deed::Append(file, lines)),
        2 => (0..2_usize).prop_map(Deed::AppendPart),
        2 => (0..2_usize).prop_map(Deed::Rename),
        1 => (0..2_usize).prop_map(Deed::CopyTruncate),
        5 => Just(Deed::Turn),
        2 => (0..4_usize).prop_map(Deed::Kill),
    ];
    prop::collection::vec(deed, 1..40)
}

proptest! {

    /// The ground truth are numbered lines; each is sealed exactly once, whatever happens to the files and to the process.
    #[test]
    fn every_line_is_sealed_exactly_once(deeds in deeds(), wide in any::<bool>()) {
        let patterns: &[&str] = if wide { &["f0.log*", "f1.log*"] } else { &["f0.log", "f1.log"] };
        let mut host = Host::running(patterns);
        let mut written = 0;
        let mut open_line = [false; 2];
        for deed in &deeds {
            match *deed {
                Deed::Append(file, lines) => {
                    let mut text = String::new();
                    if std::mem::take(&mut open_line[file]) {
                        text.push_str(" ends\n");
                    }
                    for _ in 0..lines {
                        text.push_str(&format!("{file} {written} {}\n", "x".repeat(written % 300)));
                        written += 1;
                    }
                    host.append(&format!("f{file}.log"), text);
                }
                Deed::AppendPart(file) if !open_line[file] => {
                    host.append(&format!("f{file}.log"), format!("{file} {written} begins"));
                    written += 1;
                    open_line[file] = true;
                }
                Deed::Rename(file) if host.path(&format!("f{file}.log")).exists() => {
                    if std::mem::take(&mut open_line[file]) {
                        host.append(&format!("f{file}.log"), " ends\n");
                    }
                    if host.source.is_none() || !host.bodies().iter().any(|body| body.starts_with(&format!("{file} "))) {
                        // The first file of a name has to be seen under it: nothing tells what it was called before.
                        host.turn();
                    }
                    for n in (1..60).rev() {
                        if host.path(&format!("f{file}.log.{n}")).exists() {
                            host.rename(&format!("f{file}.log.{n}"), &format!("f{file}.log.{}", n + 1));
                        }
                    }
                    host.rename(&format!("f{file}.log"), &format!("f{file}.log.1"));
                }
                Deed::CopyTruncate(file) if host.path(&format!("f{file}.log")).exists() => {
                    if std::mem::take(&mut open_line[file]) {
                        host.append(&format!("f{file}.log"), " ends\n");
                    }
                    // A file that was never seen before it is cut cannot be known again in its copy.
                    host.turn();
                    let name = format!("f{file}.log-{written}");
                    host.copy(&format!("f{file}.log"), &name);
                    host.truncate(&format!("f{file}.log"));
                }
                Deed::Turn => host.turn(),
                Deed::Kill(frames) => {
                    host.turn_until(frames);
                    host.restart();
                }
                _ => {}
            }
        }
        host.turns(8);
        let mut seen = vec![0; written];
        let mut last = [0; 2];
        for body in host.bodies() {
            let mut words = body.split(' ');
            let (Some(file), Some(number)) = (words.next().and_then(|w| w.parse::<usize>().ok()), words.next()) else {
                continue; // the second part of a line that was flushed
            };
            let number: usize = number.parse().unwrap();
            seen[number] += 1;
            if !wide {
                prop_assert!(number >= last[file], "{number} after {} in file {file}", last[file]);
                last[file] = number;
            }
        }
        let wrong: Vec<_> = seen.iter().enumerate().filter(|(_, count)| **count != 1).take(10).collect();
        prop_assert!(wrong.is_empty(), "(number, times): {wrong:?}, gaps: {:?}", host.gaps());
        prop_assert!(host.gaps().is_empty(), "{:?}", host.gaps());
    }
}

#[test]
fn inode_numbers_of_tests_are_what_the_system_says() {
    let host = Host::new(&["a.log"]);
    host.append("a.log", "x");
    let (_, stat) = open::open(&host.path("a.log")).unwrap();
    assert_eq!(stat.st_ino, fs::metadata(host.path("a.log")).unwrap().ino());
}
