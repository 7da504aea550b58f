//! Logs that are rotated while they are read.

use std::{io::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    Lab, Line, Writer,
    oracle::{self, Order},
    waiting::wait_until,
};
use rand::RngExt;

#[test]
fn renamed_logs_are_exact_under_load() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for _ in 0..30 {
            let count = random.random_range(1..300);
            log.append_random(&mut random, count)?;
            log.rotate_by_rename()?;
        }
        log.append_random(&mut random, 10)?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_log_renamed_while_the_forwarder_is_dead_is_read_to_its_end() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append_random(&mut random, 500)?;
        line.wait_arrived(200)?;
        line.forwarder.kill()?;
        log.append_random(&mut random, 500)?;
        log.rotate_by_rename()?;
        log.append_random(&mut random, 500)?;
        line.forwarder.start()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn logs_emptied_after_a_copy_are_exact_when_they_had_been_read() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for _ in 0..8 {
            let count = random.random_range(1..400);
            log.append_random(&mut random, count)?;
            line.wait_arrived(log.written().len())?;
            log.rotate_by_copy()?;
        }
        log.append_random(&mut random, 10)?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn what_had_not_been_read_when_a_log_was_emptied_is_read_from_the_copy_or_reported() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for round in 0..6 {
            // The file is known; then it is copied and emptied in the middle of being read.
            let known = format!("round {round}");
            log.append(known.as_bytes())?;
            wait_until(&format!("{known} at the centre"), || {
                Ok(oracle::read_complete(&line.output())?
                    .iter()
                    .any(|event| event.bytes == known.as_bytes()))
            })?;
            let count = random.random_range(100..2_000);
            log.append_random(&mut random, count)?;
            log.rotate_by_copy()?;
        }
        log.append_random(&mut random, 10)?;
        let (verdict, waited) = line.finish(&[&log], Order::MayChange)?;
        verdict.exact_or_accounted()?;
        if verdict.lost == 0 { waited } else { Ok(()) }
    })
}

/// TAILING 9, 10, 32. Rotated names within the patterns: each generation under a name of its own, in the order in which they were written.
#[test]
fn generations_within_the_patterns_are_exact_and_in_order_over_kills() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log*"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        for round in 0..24 {
            let count = random.random_range(1..300);
            log.append_random(&mut random, count)?;
            if round % 6 == 3 {
                line.forwarder.kill()?;
            }
            log.rotate_by_rename()?;
            if round % 6 == 5 {
                line.forwarder.start()?;
            }
        }
        log.append_random(&mut random, 10)?;
        line.finish_exact(&[&log])
    })
}

/// TAILING 20.
#[test]
fn a_log_packed_while_it_was_half_read_arrives_whole() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append_random(&mut random, 500)?;
        line.wait_arrived(500)?;
        line.forwarder.kill()?;
        log.append_random(&mut random, 5_000)?;
        log.rotate_by_rename()?;
        let packed = Command::new("gzip").arg(lab.log("app.log.1")).status();
        ensure!(packed.context("run gzip, which this test needs")?.success());
        log.append_random(&mut random, 500)?;
        line.forwarder.start()?;
        line.finish_exact(&[&log])
    })
}

/// TAILING 36.
#[test]
fn a_host_whose_state_was_deleted_is_read_from_its_beginning_and_says_so() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.forwarder.config.set("[[source]]", "start_at", "end");
        let mut log = Writer::create(&lab.log("app.log"))?;
        line.start()?;
        // A new host begins at the end of what is there, as soon as the next hop has said that it does not know it.
        wait_until("the source has begun", || {
            let sources = line.forwarder.status()?["sources"].clone();
            Ok(sources[0]["followed"] == 1)
        })?;
        for n in 0..20 {
            log.append(format!("first life {n}").as_bytes())?;
        }
        line.wait_arrived(20)?;
        line.forwarder.stop()?;
        std::fs::remove_dir_all(line.forwarder.path("spool"))?;
        log.append(b"while nothing was known")?;
        line.forwarder.start()?;
        line.wait_arrived(41)?;
        line.stop()?;
        let events = line.events()?;
        let count = |text: &str| {
            let is = |event: &&oracle::Event| event.bytes == text.as_bytes();
            events.iter().filter(is).count()
        };
        ensure!(count("first life 7") == 2 && count("while nothing was known") == 1);
        let gap =
            |event: &&oracle::Event| event.attribute("watchline.gap.reason") == Some("state_lost");
        ensure!(events.iter().filter(gap).count() == 1, "no gap, or several");
        Ok(())
    })
}

/// A tmpfs of a few MiB over a directory; unmounted when it is dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Result<Tmpfs> {
        std::fs::create_dir_all(&at)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m,mode=0700", "watchline-test"])
            .arg(&at)
            .status();
        ensure!(
            mounted.context("run mount")?.success(),
            "this test mounts a tmpfs: run it as root"
        );
        Ok(Tmpfs(at))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// TAILING 34.
#[test]
fn a_disk_that_fills_up_under_the_spool_stops_reading_until_there_is_room() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        let disk = Tmpfs::mount(line.forwarder.path("disk"))?;
        let config = &mut line.forwarder.config;
        config.set("[spool]", "directory", "disk/spool");
        config.set("[spool]", "max_size", "64MiB");
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append_random(&mut random, 500)?;
        line.wait_arrived(500)?;
        // Somebody else fills the disk to its last byte.
        let ballast = disk.0.join("ballast");
        let mut full = std::fs::File::create(&ballast)?;
        while full.write_all(&[0; 4096]).is_ok() {}
        line.collector.stop()?;
        wait_until("the forwarder says that there is no room", || {
            log.append_random(&mut random, 2_000)?;
            Ok(line.forwarder.status()?["spool"]["blocked"].is_string())
        })?;
        line.forwarder.kill()?;
        line.forwarder.start()?;
        log.append_random(&mut random, 500)?;
        std::fs::remove_file(&ballast)?;
        drop(full);
        line.collector.start()?;
        line.finish_exact(&[&log])
    })
}
