//! SIGKILL of any process at any moment: nothing lost, nothing repeated.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Lab, Line, Writer,
    oracle::Order,
    records::{record, split},
    seed::rounds,
    waiting::{let_pass, wait_until},
};
use rand::{Rng, RngExt};

use crate::delivery::real_logs;

/// How a log is rotated while it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    None,
    Rename,
    /// A copy within the patterns, then truncation: what had not been read is in the copy.
    Copy,
}

/// One log of a kill test: what will be written to it, in order.
struct Job {
    writer: Writer,
    records: VecDeque<Vec<u8>>,
    unended: Option<Vec<u8>>,
    rotation: Rotation,
}

impl Job {
    fn generated(
        lab: &Lab,
        name: &str,
        count: u64,
        rotation: Rotation,
        random: &mut impl Rng,
    ) -> Result<Job> {
        let records = (0..count)
            .map(|number| record(random, name, number))
            .collect();
        Ok(Job {
            writer: Writer::create(&lab.log(name))?,
            records,
            unended: None,
            rotation,
        })
    }

    /// Real bytes: CR LF in places, and no final line feed.
    fn real(lab: &Lab, name: &str, bytes: &[u8]) -> Result<Job> {
        let mut records: VecDeque<_> = split(bytes).into();
        let unended = if bytes.ends_with(b"\n") {
            None
        } else {
            records.pop_back()
        };
        Ok(Job {
            writer: Writer::create(&lab.log(name))?,
            records,
            unended,
            rotation: Rotation::None,
        })
    }

    /// Writes its share of records whenever another round has begun, in pieces; the rest when all have.
    fn write(
        mut self,
        random: &mut impl Rng,
        rounds_begun: &AtomicUsize,
        rounds: usize,
    ) -> Result<Writer> {
        let total = self.records.len();
        loop {
            let begun = rounds_begun.load(Ordering::Acquire);
            let due = total * begun.min(rounds) / rounds;
            while total - self.records.len() < due {
                let count = random.random_range(1..=20).min(self.records.len());
                let some: Vec<_> = self.records.drain(..count).collect();
                self.writer.append_in_pieces(random, &some)?;
                if self.rotation != Rotation::None && random.random_ratio(1, 25) {
                    match self.rotation {
                        Rotation::Copy => self.writer.rotate_by_copy()?,
                        _ => self.writer.rotate_by_rename()?,
                    }
                }
                // So that a round's share is written over the round, not at its beginning.
                thread::park_timeout(Duration::from_micros(random.random_range(0..3_000)));
            }
            if begun >= rounds {
                break;
            }
            thread::park_timeout(Duration::from_millis(2));
        }
        if let Some(last) = self.unended.take() {
            self.writer.append_unended(&last)?;
        }
        Ok(self.writer)
    }
}

/// Kills `victims` processes at a time, `rounds` times, at random moments, while the jobs are written.
fn run_with_kills(
    lab: &Lab,
    line: &mut Line,
    jobs: Vec<Job>,
    rounds: usize,
    victims: usize,
) -> Result<Vec<Writer>> {
    line.start()?;
    let begun = AtomicUsize::new(0);
    let mut random = lab.seed().rng(1);
    thread::scope(|scope| {
        let writers: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(part, job)| {
                let mut random = lab.seed().rng(100 + part as u64);
                let begun = &begun;
                scope.spawn(move || job.write(&mut random, begun, rounds))
            })
            .collect();
        let killed = kill_rounds(line, &mut random, &begun, rounds, victims);
        // Whatever happened, the writers must come to their end.
        begun.store(rounds, Ordering::Release);
        let writers: Result<Vec<Writer>> = writers
            .into_iter()
            .map(|writer| writer.join().ok().context("a writer panicked")?)
            .collect();
        killed?;
        writers
    })
}

fn kill_rounds(
    line: &mut Line,
    random: &mut impl Rng,
    begun: &AtomicUsize,
    rounds: usize,
    victims: usize,
) -> Result<()> {
    let mut kills = [0; 3];
    for round in 0..rounds {
        begun.store(round + 1, Ordering::Release);
        let_pass(Duration::from_millis(random.random_range(5..250)));
        let first = random.random_range(0..3);
        let chosen: Vec<usize> = (0..victims).map(|step| (first + step) % 3).collect();
        let nodes = line.nodes();
        for victim in &chosen {
            nodes[*victim].kill()?;
            kills[*victim] += 1;
        }
        for victim in &chosen {
            nodes[*victim].start()?;
        }
        // Often they are killed again while they start, and sometimes not before the line is whole again.
        if random.random_ratio(1, 3) {
            line.wait_ready()?;
        }
    }
    eprintln!("killed {kills:?} times: forwarder, collector, centre");
    ensure!(kills.iter().sum::<i32>() >= 30, "too few kills: {kills:?}");
    Ok(())
}

#[test]
fn no_record_is_lost_or_repeated_when_any_process_is_killed_at_random_moments() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut jobs = Vec::new();
        for (name, bytes) in real_logs()? {
            jobs.push(Job::real(lab, &name, &bytes)?);
        }
        for name in ["a.log", "b.log", "c.log"] {
            jobs.push(Job::generated(
                lab,
                name,
                6_000,
                Rotation::None,
                &mut random,
            )?);
        }
        let mut line = Line::new(lab, &["*.log"])?;
        let writers = run_with_kills(lab, &mut line, jobs, rounds(36), 1)?;
        line.finish_exact(&writers.iter().collect::<Vec<_>>())
    })
}

#[test]
fn no_record_is_lost_or_repeated_when_two_processes_are_killed_at_once() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let jobs = vec![Job::generated(
            lab,
            "a.log",
            8_000,
            Rotation::None,
            &mut random,
        )?];
        let mut line = Line::new(lab, &["*.log"])?;
        let writers = run_with_kills(lab, &mut line, jobs, rounds(16), 2)?;
        line.finish_exact(&writers.iter().collect::<Vec<_>>())
    })
}

#[test]
fn no_record_is_lost_or_repeated_when_processes_are_killed_while_logs_are_renamed() -> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let jobs = vec![
            Job::generated(lab, "a.log", 5_000, Rotation::Rename, &mut random)?,
            Job::generated(lab, "b.log", 5_000, Rotation::Rename, &mut random)?,
        ];
        let mut line = Line::new(lab, &["*.log", "*.log.*"])?;
        let writers = run_with_kills(lab, &mut line, jobs, rounds(30), 1)?;
        // Generations that nobody saw under the log's own name are files of the pattern like any others: no order among them.
        let (verdict, waited) =
            line.finish(&writers.iter().collect::<Vec<_>>(), Order::MayChange)?;
        verdict.exact()?;
        waited
    })
}

#[test]
fn no_record_is_lost_or_repeated_when_processes_are_killed_while_logs_are_copied_and_emptied()
-> Result<()> {
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let jobs = vec![Job::generated(
            lab,
            "a.log",
            5_000,
            Rotation::Copy,
            &mut random,
        )?];
        let mut line = Line::new(lab, &["*.log", "*.log.*"])?;
        let writers = run_with_kills(lab, &mut line, jobs, rounds(30), 1)?;
        // A copy may be read after what came into the emptied file; and where the forwarder was dead at the time, it cannot
        // know that nothing was written between copy and truncation, so it may report more than is missing, which is nothing.
        let (verdict, waited) =
            line.finish(&writers.iter().collect::<Vec<_>>(), Order::MayChange)?;
        verdict.nothing_wrong()?;
        waited
    })
}

#[test]
fn no_record_is_lost_or_repeated_when_the_forwarder_is_killed_as_often_as_it_starts() -> Result<()>
{
    Lab::run(|lab| {
        let mut random = lab.seed().rng(0);
        let mut line = Line::new(lab, &["app.log"])?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        line.start()?;
        for _ in 0..rounds(8) {
            log.append_random(&mut random, 500)?;
            line.forwarder.kill()?;
            line.forwarder.start()?;
            // Killed as soon as it answers at all: in the middle of its first reads and sends.
            wait_until("the forwarder to answer", || {
                Ok(line.forwarder.get("/livez")?.status == 200)
            })?;
        }
        line.finish_exact(&[&log])
    })
}
