//! File outputs: exact after a kill in the middle of a line, exact over rotation.

use std::{
    fs::{self, OpenOptions},
    io::Write,
};

use anyhow::{Result, ensure};
use e2e::{
    Lab, Line, Writer,
    oracle::{self, Order, Written},
    waiting::{wait_until, wait_while_it_moves},
};

#[test]
fn half_a_line_left_by_a_kill_is_cut_and_written_again() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for round in 0..4 {
            log.append_random(&mut random, 300)?;
            line.wait_arrived(log.written().len() - 200)?;
            line.center.kill()?;
            // What a kill between two writes leaves behind: a whole line that no mark covers, and half of another.
            let mut output = OpenOptions::new().append(true).open(line.output())?;
            output.write_all(
                b"{\"v\":1,\"id\":\"beyond the mark\"}\n{\"v\":1,\"id\":\"half of a li",
            )?;
            ensure!(round < 4);
            line.center.start()?;
        }
        line.finish_exact(&[&log])?;
        let text = fs::read_to_string(line.output())?;
        ensure!(
            !text.contains("beyond the mark"),
            "what no mark covered is still there"
        );
        Ok(())
    })
}

#[test]
fn a_file_that_is_not_the_marked_one_is_kept_and_never_cut() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.wait_arrived(1)?;
        line.center.stop()?;
        let moved = line.center.path("moved-away.ndjson");
        fs::rename(line.output(), &moved)?;
        fs::write(line.output(), "somebody else's file\n")?;
        line.center.start()?;
        log.append(b"two")?;
        let center = &line.center;
        wait_until("the second event in a file", || {
            for entry in fs::read_dir(center.path(""))? {
                let path = entry?.path();
                if path.is_file() && fs::read_to_string(&path)?.contains("\"body\":\"two\"") {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        line.stop()?;
        let mut kept = false;
        for entry in fs::read_dir(line.center.path(""))? {
            let path = entry?.path();
            kept |=
                path.is_file() && fs::read_to_string(&path)?.starts_with("somebody else's file\n");
        }
        ensure!(kept, "the other file is gone");
        ensure!(
            fs::read_to_string(moved)?.contains("\"body\":\"one\""),
            "the moved file was changed"
        );
        Ok(())
    })
}

#[test]
fn a_rotated_output_is_exact_over_all_of_its_files_also_under_kills() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.center.config.set("[[output]]", "rotate_size", "64KiB");
        line.center.config.table("[[output]]");
        line.center.config.set("[[output]]", "name", "raw");
        line.center.config.set("[[output]]", "kind", "file");
        line.center.config.set("[[output]]", "path", "raw/app.log");
        line.center.config.set("[[output]]", "format", "raw");
        line.center.config.set("[[output]]", "rotate_size", "64KiB");
        fs::create_dir(line.center.path("raw"))?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for _ in 0..6 {
            log.append_random(&mut random, 400)?;
            line.center.kill()?;
            line.center.start_ready()?;
        }
        let output = line.output();
        let count = log.written().len();
        let arrived = || {
            let files = oracle::output_files(&output)?;
            files
                .iter()
                .try_fold(0, |sum, file| Ok(sum + oracle::count_events(file)?))
        };
        let waited = wait_while_it_moves("all events", arrived, |arrived| *arrived >= count);
        line.stop()?;
        let files = oracle::output_files(&output)?;
        ensure!(files.len() > 3, "hardly rotated: {files:?}");
        let written = [Written::by(&log, &lab.path("logs"))];
        oracle::judge(&written, &oracle::read_events(&files)?, Order::Kept).exact()?;
        waited?;
        let raw = oracle::output_files(&line.center.path("raw/app.log"))?;
        ensure!(raw.len() > 3, "hardly rotated: {raw:?}");
        oracle::judge_raw(log.written(), &raw)?.exact()
    })
}
