//! Situations in which files hide records, judged at the centre's output: every record once, in order, byte for byte.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, symlink},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    Lab, Line,
    oracle::{self, Event},
    waiting::wait_until,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A line and the folder that its forwarder tails.
struct Host<'a> {
    lab: &'a Lab,
    line: Line,
    /// How many records must have arrived by now.
    due: usize,
}

impl<'a> Host<'a> {
    fn start(lab: &'a Lab, paths: &[&str]) -> Result<Host<'a>> {
        let mut line = Line::new(lab, paths)?;
        line.start()?;
        Ok(Host { lab, line, due: 0 })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.log(name)
    }

    /// Appends lines to a file, which is made if it is not there.
    fn append(&mut self, name: &str, lines: &[&str]) -> Result<()> {
        self.append_bytes(name, lines.join("\n").as_bytes(), lines.len())?;
        self.append_bytes(name, b"\n", 0)
    }

    /// Appends bytes in which so many records end.
    fn append_bytes(&mut self, name: &str, bytes: &[u8], records: usize) -> Result<()> {
        let path = self.path(name);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(bytes).with_context(|| name.to_owned())?;
        self.due += records;
        Ok(())
    }

    /// Waits until everything so far has arrived.
    fn settle(&self) -> Result<()> {
        self.line.wait_arrived(self.due)
    }

    /// Waits until the records written so far have arrived and their positions are stored, and stops the forwarder.
    fn settle_and_stop(&mut self) -> Result<()> {
        self.settle()?;
        self.line.forwarder.stop()
    }

    /// Waits until a gap with this reason has arrived.
    fn wait_for_gap(&self, reason: &str) -> Result<()> {
        wait_until(&format!("a gap event ({reason})"), || {
            Ok(oracle::read_complete(&self.line.output())?
                .iter()
                .any(|event| event.attribute("watchline.gap.reason") == Some(reason)))
        })
    }

    /// Ends the line and demands exactly these records, in this order, and gap events for exactly these reasons.
    fn finish(self, expected: &[&str], gaps: &[&str]) -> Result<Vec<Event>> {
        let events = self.finish_records(expected)?;
        let reasons = gap_reasons(&events);
        ensure!(reasons == gaps, "gaps {reasons:?}, expected {gaps:?}");
        Ok(events)
    }

    /// [`Host::finish`], whatever was reported as a gap.
    fn finish_records(mut self, expected: &[&str]) -> Result<Vec<Event>> {
        self.settle()?;
        self.line.stop()?;
        let events = self.line.events()?;
        let arrived: Vec<String> = events
            .iter()
            .filter(|event| !event.is_own())
            .map(|event| String::from_utf8_lossy(&event.bytes).into_owned())
            .collect();
        ensure!(
            arrived == expected,
            "arrived {arrived:#?}\nexpected {expected:#?}"
        );
        Ok(events)
    }
}

/// In the order of arrival, each once.
fn gap_reasons(events: &[Event]) -> Vec<&str> {
    let mut reasons: Vec<&str> = events
        .iter()
        .filter_map(|event| event.attribute("watchline.gap.reason"))
        .collect();
    reasons.dedup();
    reasons
}

/// TAILING 2.
#[test]
fn a_file_that_is_shorter_than_its_offset_after_a_stop_is_read_from_its_beginning() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["one", "two", "three"])?;
        host.settle_and_stop()?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["four"])?;
        host.line.forwarder.start()?;
        host.finish(&["one", "two", "three", "four"], &[])?;
        Ok(())
    })
}

/// TAILING 3 and 4.
#[test]
fn files_with_the_same_first_bytes_stay_apart_and_a_short_line_arrives_at_once() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["*.log"])?;
        let banner = "# Software: example 1.0; a banner that every file begins with";
        host.append("a.log", &[banner])?;
        host.settle()?;
        host.append("b.log", &[banner])?;
        host.settle()?;
        host.append("a.log", &["a"])?;
        host.settle()?;
        host.append("b.log", &["b"])?;
        host.settle_and_stop()?;
        host.append("a.log", &["a again"])?;
        host.line.forwarder.start()?;
        host.settle()?;
        host.append("b.log", &["b again"])?;
        let expected = [banner, banner, "a", "b", "a again", "b again"];
        host.finish(&expected, &[])?;
        Ok(())
    })
}

/// TAILING 6.
#[test]
fn a_file_under_two_names_and_two_patterns_is_delivered_once_by_each_source() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["*.log", "app*", "app.log"])?;
        let config = &mut line.forwarder.config;
        config.table("[[source]]");
        config.set("[[source]]", "name", "second");
        config.set("[[source]]", "kind", "file");
        config.set("[[source]]", "paths", [lab.log("app.log")]);
        fs::write(lab.log("app.log"), "")?;
        fs::hard_link(lab.log("app.log"), lab.log("app-link.log"))?;
        line.start()?;
        let mut host = Host { lab, line, due: 0 };
        host.append("app.log", &["one", "two"])?;
        host.due = 4;
        host.settle()?;
        host.line.stop()?;
        let mut found: Vec<(String, String)> = host
            .line
            .events()?
            .iter()
            .map(|event| {
                let source = event.json["source"].as_str().unwrap_or_default();
                let body = String::from_utf8_lossy(&event.bytes).into_owned();
                (source.to_owned(), body)
            })
            .collect();
        found.sort();
        let expected = [
            ("app", "one"),
            ("app", "two"),
            ("second", "one"),
            ("second", "two"),
        ];
        let expected = expected.map(|(source, body)| (source.to_owned(), body.to_owned()));
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
}

/// TAILING 8.
#[test]
fn a_file_rewritten_to_the_same_size_is_noticed() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["one", "two"])?;
        host.settle()?;
        // In one write, and without a cut before it, which could be seen by itself.
        let mut file = OpenOptions::new().write(true).open(host.path("app.log"))?;
        file.write_all(b"six\nten\n")?;
        host.due += 2;
        host.settle()?;
        host.finish(&["one", "two", "six", "ten"], &["rewritten"])?;
        Ok(())
    })
}

/// TAILING 12.
#[test]
fn copies_inside_the_pattern_repeat_nothing_whether_read_before_or_after_a_restart() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log*"])?;
        host.append("app.log", &["one", "two"])?;
        host.settle()?;
        fs::copy(host.path("app.log"), host.path("app.log.1"))?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["three"])?;
        host.settle_and_stop()?;
        fs::copy(host.path("app.log"), host.path("app.log.2"))?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["four"])?;
        host.line.forwarder.start()?;
        host.finish(&["one", "two", "three", "four"], &[])?;
        Ok(())
    })
}

/// TAILING 13, with a copy.
#[test]
fn lines_that_only_the_copy_has_are_read_from_the_copy_in_their_place() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log*"])?;
        host.append("app.log", &["one"])?;
        host.settle_and_stop()?;
        host.append("app.log", &["two, unread when the file was cut"])?;
        fs::copy(host.path("app.log"), host.path("app.log.1"))?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["three"])?;
        host.line.forwarder.start()?;
        host.finish(&["one", "two, unread when the file was cut", "three"], &[])?;
        Ok(())
    })
}

/// TAILING 13, without a copy.
#[test]
fn lines_that_were_cut_away_unread_are_a_gap_with_their_range() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["one"])?;
        host.settle()?;
        // It is known that there are more bytes, and they cannot be read: the line is not complete.
        host.append_bytes("app.log", b"two, without an end", 0)?;
        let lag = || host.line.forwarder.status();
        wait_until("the bytes to be seen", || {
            Ok(lag()?.to_string().contains("\"lag_bytes\":19"))
        })?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["three"])?;
        host.wait_for_gap("truncated")?;
        let events = host.finish(&["one", "three"], &["truncated"])?;
        let gap = events.iter().find(|event| event.is_own());
        let range = gap.map(|gap| {
            (
                gap.attribute("watchline.gap.from"),
                gap.attribute("watchline.gap.to"),
            )
        });
        ensure!(range == Some((Some("4"), Some("23"))), "{range:?}");
        Ok(())
    })
}

/// TAILING 14.
#[test]
fn content_that_begins_like_the_old_after_a_copytruncate_is_read_again() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["# header", "one"])?;
        host.settle()?;
        fs::copy(host.path("app.log"), host.path("app.log.1"))?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["# header", "two"])?;
        host.finish(&["# header", "one", "# header", "two"], &[])?;
        Ok(())
    })
}

/// TAILING 15.
#[test]
fn a_hole_of_nuls_under_a_writer_that_goes_on_is_skipped_and_said() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        let path = host.path("app.log");
        let writer = File::create(&path)?;
        writer.write_all_at(b"one\ntwo\n", 0)?;
        host.due += 2;
        host.settle()?;
        OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        writer.write_all_at(b"three\n", 8)?;
        host.due += 1;
        host.settle()?;
        host.wait_for_gap("hole")?;
        let events = host.finish_records(&["one", "two", "three"])?;
        // Whether the cut was seen before the file had grown again is a matter of time; the hole is there either way.
        let reasons = gap_reasons(&events);
        ensure!(reasons.contains(&"hole"), "{reasons:?}");
        Ok(())
    })
}

/// TAILING 16.
#[test]
fn a_file_cut_and_grown_past_its_offset_between_two_looks_is_read_from_its_beginning() -> Result<()>
{
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["one", "two"])?;
        host.settle_and_stop()?;
        fs::write(host.path("app.log"), "")?;
        host.append("app.log", &["three", "four", "five"])?;
        host.line.forwarder.start()?;
        host.wait_for_gap("rewritten")?;
        host.finish(&["one", "two", "three", "four", "five"], &["rewritten"])?;
        Ok(())
    })
}

/// TAILING 17 and 19.
#[test]
fn a_file_deleted_and_made_again_at_once_loses_neither_its_last_nor_its_first_record() -> Result<()>
{
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        let mut expected = Vec::new();
        for round in 0..20 {
            for record in ["first", "last"] {
                expected.push(format!("{record} of round {round}"));
                let line = expected.last().map_or("", String::as_str).to_owned();
                host.append("app.log", &[&line])?;
            }
            // So that each is known before it goes: what was never seen cannot be told apart from what never was.
            host.settle()?;
            fs::remove_file(host.path("app.log"))?;
        }
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        host.finish(&expected, &[])?;
        Ok(())
    })
}

/// TAILING 18.
#[test]
fn a_file_deleted_while_nothing_can_be_sent_is_read_to_its_end() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["one"])?;
        host.settle()?;
        host.line.collector.stop()?;
        host.append("app.log", &["two", "three"])?;
        let read = |host: &Host<'_>| host.line.forwarder.status();
        wait_until("the file to be read", || {
            Ok(read(&host)?.to_string().contains("\"offset\":14"))
        })?;
        host.append_bytes("app.log", b"four, ", 0)?;
        fs::remove_file(host.path("app.log"))?;
        host.line.collector.start()?;
        host.due += 1; // The unended line is sent when it has not grown for a while.
        host.finish(&["one", "two", "three", "four, "], &[])?;
        Ok(())
    })
}

/// TAILING 11.
#[test]
fn the_rest_of_a_file_renamed_out_of_the_pattern_while_stopped_is_found_by_identity() -> Result<()>
{
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["app.log"])?;
        host.append("app.log", &["one"])?;
        host.settle_and_stop()?;
        host.append("app.log", &["two"])?;
        fs::rename(host.path("app.log"), host.path("kept-elsewhere"))?;
        host.append("app.log", &["three"])?;
        host.line.forwarder.start()?;
        host.finish(&["one", "two", "three"], &[])?;
        Ok(())
    })
}

/// TAILING 21.
#[test]
fn a_link_that_moves_on_is_followed_and_a_loop_a_pipe_and_a_socket_are_not() -> Result<()> {
    Lab::run(|lab| {
        let mut host = Host::start(lab, &["*.log"])?;
        symlink("loop.log", host.path("loop.log"))?;
        mknodat(CWD, host.path("pipe.log"), FileType::Fifo, Mode::RUSR, 0)?;
        let _socket = std::os::unix::net::UnixListener::bind(host.path("socket.log"))?;
        host.append("app-1", &["one"])?;
        symlink("app-1", host.path("app.log"))?;
        host.settle()?;
        host.append("app-2", &["two"])?;
        symlink("app-2", host.path("app.new"))?;
        fs::rename(host.path("app.new"), host.path("app.log"))?;
        host.settle()?;
        host.append("app-2", &["three"])?;
        host.finish(&["one", "two", "three"], &[])?;
        Ok(())
    })
}

/// TAILING 22 and 23.
#[test]
fn an_unended_line_is_sent_once_and_what_completes_it_after_a_kill_is_marked() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.forwarder
            .config
            .set("[[source]]", "idle_flush", "200ms");
        line.start()?;
        let mut host = Host { lab, line, due: 0 };
        host.append_bytes("app.log", b"one\ntwo, not", 2)?;
        host.settle()?;
        host.line.forwarder.kill()?;
        host.append_bytes("app.log", b" completed\nthree\n", 2)?;
        host.line.forwarder.start()?;
        let events = host.finish(&["one", "two, not", " completed", "three"], &[])?;
        let flag = |at: usize, name: &str| events[at].attribute(name) == Some("true");
        ensure!(flag(1, "watchline.partial"), "{}", events[1].json);
        ensure!(flag(2, "watchline.continuation"), "{}", events[2].json);
        Ok(())
    })
}

/// TAILING 24 and 26.
#[test]
fn a_line_beyond_the_limit_is_cut_and_counted_and_what_follows_is_exact() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.forwarder
            .config
            .set("[[source]]", "max_record", "1KiB");
        line.start()?;
        let mut host = Host { lab, line, due: 0 };
        let long = "x".repeat(5_000);
        let lines = ["before", &long, "", "\r", "nul \0 inside", "after"];
        host.append("app.log", &lines)?;
        let cut = "x".repeat(1_024);
        let expected = ["before", &cut, "", "\r", "nul \0 inside", "after"];
        let events = host.finish(&expected, &[])?;
        ensure!(
            events[1].attribute("watchline.truncated_bytes") == Some("3976"),
            "{}",
            events[1].json
        );
        Ok(())
    })
}

/// TAILING 36, the second half.
#[test]
fn a_file_made_while_the_forwarder_was_down_is_read_from_its_beginning_even_with_start_at_end()
-> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["*.log"])?;
        line.forwarder.config.set("[[source]]", "start_at", "end");
        fs::write(lab.log("old.log"), "was there\n")?;
        line.start()?;
        let mut host = Host { lab, line, due: 0 };
        wait_until("the first look", || {
            Ok(host
                .line
                .forwarder
                .status()?
                .to_string()
                .contains("old.log"))
        })?;
        host.line.forwarder.stop()?;
        host.append("new.log", &["one"])?;
        host.append("old.log", &["two"])?;
        host.line.forwarder.start()?;
        host.settle()?;
        host.line.stop()?;
        let mut bodies: Vec<String> = host
            .line
            .events()?
            .iter()
            .map(|event| String::from_utf8_lossy(&event.bytes).into_owned())
            .collect();
        bodies.sort();
        ensure!(bodies == ["one", "two"], "{bodies:?}");
        Ok(())
    })
}
