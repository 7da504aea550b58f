//! Logs that are rotated while they are read.

use anyhow::Result;
use e2e::{Lab, Line, Writer};
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
