//! The whole line: a forwarder, a collector, a centre that writes NDJSON.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    lab::Lab,
    node::Node,
    oracle::{self, Event, Order, Verdict, Written},
    waiting::wait_while_it_moves,
    writer::Writer,
};

/// Three nodes in a row.
#[derive(Debug)]
pub struct Line {
    /// `host-01`
    pub forwarder: Node,
    /// `collector-1`
    pub collector: Node,
    /// `center`
    pub center: Node,
    logs: PathBuf,
}

impl Line {
    /// Configured, not started. `paths` are what the forwarder tails, within the lab's folder of logs.
    ///
    /// # Errors
    /// A certificate could not be issued.
    pub fn new(lab: &Lab, paths: &[&str]) -> Result<Line> {
        let center = lab.center()?;
        let collector = lab.collector("collector-1", &[&center])?;
        let forwarder = lab.forwarder("host-01", &[&collector], paths)?;
        Ok(Line {
            forwarder,
            collector,
            center,
            logs: lab.path("logs"),
        })
    }

    /// Starts all three and waits until each says that it is ready.
    ///
    /// # Errors
    /// One did not become ready.
    pub fn start(&mut self) -> Result<()> {
        self.center.start()?;
        self.collector.start()?;
        self.forwarder.start()?;
        self.wait_ready()
    }

    /// Waits until each says that it is ready.
    ///
    /// # Errors
    /// One did not become ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.nodes().into_iter().try_for_each(Node::wait_ready)
    }

    /// In the order of the path.
    pub fn nodes(&mut self) -> [&mut Node; 3] {
        [&mut self.forwarder, &mut self.collector, &mut self.center]
    }

    /// The centre's output.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.center.path("events.ndjson")
    }

    /// Waits until `count` events of sources are in the centre's output, as long as more keep coming.
    ///
    /// # Errors
    /// No more came.
    pub fn wait_arrived(&self, count: usize) -> Result<()> {
        let output = self.output();
        let what = format!("{count} events at the centre");
        wait_while_it_moves(
            &what,
            || oracle::count_events(&output),
            |arrived| *arrived >= count,
        )?;
        Ok(())
    }

    /// Ends all three cleanly, the forwarder first.
    ///
    /// # Errors
    /// One did not end with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        self.nodes()
            .into_iter()
            .filter(|node| node.is_started())
            .try_for_each(Node::stop)
    }

    /// Everything in the centre's output.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn events(&self) -> Result<Vec<Event>> {
        oracle::read_events(&[self.output()])
    }

    /// Waits until everything that the writers wrote has arrived, ends all three cleanly (which must bring nothing new),
    /// and demands that each record is there exactly once, byte for byte, in order per file.
    ///
    /// # Errors
    /// The verdict.
    pub fn finish_exact(&mut self, writers: &[&Writer]) -> Result<()> {
        let (verdict, waited) = self.finish(writers, Order::Kept)?;
        verdict.exact()?;
        waited
    }

    /// [`Line::finish_exact`] up to the judgement, which is the caller's; and whether as much arrived as was written.
    ///
    /// # Errors
    /// A process did not end cleanly, or the output cannot be read.
    pub fn finish(&mut self, writers: &[&Writer], order: Order) -> Result<(Verdict, Result<()>)> {
        let written: Vec<Written> = writers
            .iter()
            .map(|writer| Written::by(writer, &self.logs))
            .collect();
        let count = written.iter().map(|log| log.records.len()).sum();
        // What is missing is told better by the verdict.
        let waited = self.wait_arrived(count);
        self.stop()?;
        Ok((oracle::judge(&written, &self.events()?, order), waited))
    }
}
