//! More than one collector.

use anyhow::{Result, ensure};
use e2e::{
    Lab, Writer,
    oracle::{self, Order, Written},
    waiting::{wait_until, wait_while_it_moves},
};

#[test]
fn with_two_collectors_the_death_of_one_holds_nothing_up_and_loses_nothing() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut center = lab.center()?;
        let mut collectors = [
            lab.collector("collector-1", &[&center])?,
            lab.collector("collector-2", &[&center])?,
        ];
        let mut forwarder =
            lab.forwarder("host-01", &[&collectors[0], &collectors[1]], &["app.log"])?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        center.start()?;
        for collector in &mut collectors {
            collector.start()?;
        }
        forwarder.start_ready()?;
        let output = center.path("events.ndjson");
        for round in 0..4 {
            log.append_random(&mut random, 1_000)?;
            let dead = &mut collectors[round % 2];
            dead.kill()?;
            // A fresh one gets through while that collector is dead.
            let fresh = format!("fresh one of round {round}");
            log.append(fresh.as_bytes())?;
            wait_until(&format!("{fresh} at the centre"), || {
                Ok(oracle::read_complete(&output)?
                    .iter()
                    .any(|event| event.bytes == fresh.as_bytes()))
            })?;
            dead.start_ready()?;
        }
        let count = log.written().len();
        let waited = wait_while_it_moves(
            "all events",
            || oracle::count_events(&output),
            |arrived| *arrived >= count,
        );
        forwarder.stop()?;
        for collector in &mut collectors {
            collector.stop()?;
        }
        center.stop()?;
        let written = [Written::by(&log, &lab.path("logs"))];
        oracle::judge(&written, &oracle::read_events(&[output])?, Order::MayChange).exact()?;
        waited?;
        ensure!(count > 4_000);
        Ok(())
    })
}
