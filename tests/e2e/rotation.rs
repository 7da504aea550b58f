//! Logs that are rotated while they are read.

use anyhow::Result;
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
