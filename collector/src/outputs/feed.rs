//! What an output that writes to the collector's own disk is given: items, marks, and whom to tell.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use watchline_node::health::CheckState;
use watchline_spool as spool;

use super::metrics::OutputMetrics;
use crate::{buffer::Buffer, watch::OwnEvents};

/// Everything an output needs of the collector. One thread uses it.
pub struct Feed {
    /// The reader's name in the buffer: [`super::OutputConfig::reader`].
    pub reader: String,
    /// The output's name in the configuration.
    pub output: String,
    /// The buffer's items, standing at this reader's mark.
    pub items: Box<dyn Items>,
    /// Where marks go.
    pub marks: Arc<dyn Marks>,
    /// Where gaps and found files are told.
    pub events: Arc<dyn OwnEvents>,
    /// Called when the output begins to fail, when the reason changes, and when it works again. Must not block.
    pub report: Box<dyn Fn(CheckState) + Send>,
    /// This output's numbers.
    pub metrics: OutputMetrics,
    /// Folder for batches that cannot be opened, made when needed.
    pub quarantine: PathBuf,
    /// Woken when more is readable, and to stop.
    pub signal: Signal,
}

/// Items of the buffer, lane by lane: [`spool::Reader`], or a list in tests.
pub trait Items: Send {
    /// The next item of this lane; `None` when nothing more is readable yet.
    fn next(&mut self, lane: spool::LaneNo) -> Result<Option<spool::ReadItem>, spool::ReadError>;
    /// Where `next` will read.
    fn position(&self, lane: spool::LaneNo) -> spool::ItemNo;
    /// Goes back (or on) to an item.
    fn seek(&mut self, lane: spool::LaneNo, to: spool::ItemNo);
    /// Whether something is readable, without I/O.
    fn has_next(&self, lane: spool::LaneNo) -> bool;
}

impl Items for spool::Reader {
    fn next(&mut self, lane: spool::LaneNo) -> Result<Option<spool::ReadItem>, spool::ReadError> {
        spool::Reader::next(self, lane)
    }

    fn position(&self, lane: spool::LaneNo) -> spool::ItemNo {
        spool::Reader::position(self, lane)
    }

    fn seek(&mut self, lane: spool::LaneNo, to: spool::ItemNo) {
        spool::Reader::seek(self, lane, to);
    }

    fn has_next(&self, lane: spool::LaneNo) -> bool {
        spool::Reader::has_next(self, lane)
    }
}

/// A mark could not be made durable now. What it covers is on disk; try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mark is not stored: {reason}")]
pub struct MarkError {
    /// What the buffer said.
    pub reason: String,
}

/// Where an output's progress is kept.
pub trait Marks: Send + Sync + 'static {
    /// The latest mark of this reader.
    fn current(&self, reader: &str) -> Option<spool::Mark>;
    /// Writes the mark soon. Does not wait; a later mark replaces an earlier one.
    fn mark(&self, mark: spool::Mark);
    /// Writes the mark and waits until it is durable. On an error it may or may not be.
    fn mark_synced(&self, mark: spool::Mark) -> Result<(), MarkError>;
}

impl Marks for Buffer {
    fn current(&self, reader: &str) -> Option<spool::Mark> {
        self.view().mark(reader)
    }

    fn mark(&self, mark: spool::Mark) {
        Buffer::mark(self, mark);
    }

    fn mark_synced(&self, mark: spool::Mark) -> Result<(), MarkError> {
        match Buffer::mark_synced(self, mark).blocking_recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(MarkError {
                reason: error.to_string(),
            }),
            Err(_) => Err(MarkError {
                reason: "buffer is closed".to_owned(),
            }),
        }
    }
}

/// Wakes an output's thread, and tells it to stop. Cheap to clone; all clones are one signal.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    shared: Arc<(Mutex<Flags>, Condvar)>,
}

#[derive(Debug, Default)]
struct Flags {
    woken: bool,
    stopped: bool,
}

impl Signal {
    /// A signal that has not been given.
    pub fn new() -> Signal {
        Signal::default()
    }

    /// More may be readable: for [`spool::View::on_change`]. Never blocks for long.
    pub fn wake(&self) {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .woken = true;
        self.shared.1.notify_all();
    }

    /// Finish what is begun and end.
    pub fn stop(&self) {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped = true;
        self.shared.1.notify_all();
    }

    /// Whether [`Signal::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped
    }

    /// Waits for a wake-up (which is used up), for the stop, or for `at_most`.
    pub fn wait(&self, at_most: Option<Duration>) {
        self.wait_while(at_most, |flags| !flags.woken && !flags.stopped);
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .woken = false;
    }

    /// Waits for the stop, or for `at_most`. Wake-ups are kept for later.
    pub fn wait_for_stop(&self, at_most: Duration) {
        self.wait_while(Some(at_most), |flags| !flags.stopped);
    }

    fn wait_while(&self, at_most: Option<Duration>, waiting: impl Fn(&Flags) -> bool) {
        let deadline = at_most.map(|wait| Instant::now() + wait);
        let mut flags = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting(&flags) {
            match deadline {
                None => {
                    flags = self
                        .shared
                        .1
                        .wait(flags)
                        .unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    flags = self
                        .shared
                        .1
                        .wait_timeout(flags, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
    }
}
