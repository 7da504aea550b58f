//! What comes next out of the spool, lane by lane, a little ahead.

use std::collections::VecDeque;

use tokio::task::JoinHandle;
use watchline_proto::Lane;
use watchline_spool::{ItemNo, LANES, ReadError, ReadItem, Reader};

use super::Reading;

/// Items read ahead a lane on the blocking pool. Worst memory: this times the largest batch, a lane.
const AHEAD: usize = 2;

/// Reads ahead of the line: one item a lane inline, [`AHEAD`] on the blocking pool.
pub(super) struct Feed {
    /// Away while a job reads.
    reader: Option<Reader>,
    job: Option<JoinHandle<(Reader, Vec<Read>)>>,
    queued: [VecDeque<ReadItem>; LANES],
    /// Behind the last item that was popped, or where a rewind went.
    popped: [ItemNo; LANES],
    /// Holes met, not yet told to the owner.
    holes: Vec<ReadError>,
    /// The disk failed: not asked again before the next rewind.
    failed: Option<ReadError>,
    reading: Reading,
}

type Read = Result<ReadItem, ReadError>;

impl Feed {
    pub(super) fn new(reader: Reader, reading: Reading) -> Feed {
        let popped = std::array::from_fn(|lane| reader.position(lane));
        Feed {
            reader: Some(reader),
            job: None,
            queued: Default::default(),
            popped,
            holes: Vec::new(),
            failed: None,
            reading,
        }
    }

    /// Tops up what is read ahead. Inline this reads now; on the pool it starts a job whose end [`Feed::filled`] awaits.
    pub(super) fn fill(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match self.reading {
            Reading::Inline => {
                for lane in Lane::ALL {
                    let lane = lane.index();
                    while self.queued[lane].is_empty() {
                        let Some(reader) = &mut self.reader else {
                            return;
                        };
                        match reader.next(lane) {
                            Ok(Some(item)) => self.queued[lane].push_back(item),
                            Ok(None) => break,
                            Err(error @ ReadError::Io { .. }) => {
                                self.failed = Some(error);
                                return;
                            }
                            Err(hole) => self.holes.push(hole),
                        }
                    }
                }
            }
            Reading::BlockingPool => {
                let Some(reader) = &self.reader else { return };
                let want = std::array::from_fn(|lane| {
                    if reader.has_next(lane) {
                        AHEAD.saturating_sub(self.queued[lane].len())
                    } else {
                        0
                    }
                });
                if want == [0; LANES] {
                    return;
                }
                let Some(reader) = self.reader.take() else {
                    return;
                };
                self.job = Some(tokio::task::spawn_blocking(move || read(reader, want)));
            }
        }
    }

    /// Resolves when a job has ended; never when none runs. Cancel safe.
    pub(super) async fn filled(&mut self) {
        let Some(job) = &mut self.job else {
            return std::future::pending().await;
        };
        let joined = job.await;
        self.job = None;
        match joined {
            Ok((reader, read)) => {
                self.reader = Some(reader);
                for item in read {
                    match item {
                        Ok(item) => self.queued[item.lane].push_back(item),
                        Err(error @ ReadError::Io { .. }) => self.failed = Some(error),
                        Err(hole) => self.holes.push(hole),
                    }
                }
            }
            Err(panicked) => {
                if let Ok(panic) = panicked.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    pub(super) fn front(&self, lane: Lane) -> Option<&ReadItem> {
        self.queued[lane.index()].front()
    }

    pub(super) fn pop(&mut self, lane: Lane) -> Option<ReadItem> {
        let item = self.queued[lane.index()].pop_front()?;
        self.popped[lane.index()] = ItemNo(item.no.0 + 1);
        Some(item)
    }

    pub(super) fn holes(&mut self) -> Vec<ReadError> {
        std::mem::take(&mut self.holes)
    }

    /// The disk's error, once.
    pub(super) fn failure(&mut self) -> Option<ReadError> {
        self.failed.take()
    }

    /// The first item of this lane that has not been popped. While a job reads it may be lower than what will be popped
    /// next (a hole may lie between), never higher.
    pub(super) fn next_item(&self, lane: Lane) -> ItemNo {
        let lane = lane.index();
        match (self.queued[lane].front(), &self.reader) {
            (Some(item), _) => item.no,
            (None, Some(reader)) => reader.position(lane),
            (None, None) => self.popped[lane],
        }
    }

    /// Whether anything is readable that has not been popped.
    pub(super) fn has_next(&self) -> bool {
        self.job.is_some()
            || self.queued.iter().any(|queue| !queue.is_empty())
            || self
                .reader
                .as_ref()
                .is_some_and(|reader| (0..LANES).any(|lane| reader.has_next(lane)))
    }

    /// Starts again at these items.
    pub(super) async fn rewind(&mut self, to: [ItemNo; LANES]) {
        if self.job.is_some() {
            self.filled().await;
        }
        self.failed = None;
        for (lane, to) in to.into_iter().enumerate() {
            self.queued[lane].clear();
            self.popped[lane] = to;
            if let Some(reader) = &mut self.reader {
                reader.seek(lane, to);
            }
        }
    }

    /// The next item of a lane, waiting for the disk if need be; `None` when nothing more is readable.
    pub(super) async fn peek(&mut self, lane: Lane) -> Option<&ReadItem> {
        while self.queued[lane.index()].is_empty() {
            self.fill();
            if self.job.is_some() {
                self.filled().await;
            } else {
                break;
            }
        }
        self.front(lane)
    }
}

fn read(mut reader: Reader, want: [usize; LANES]) -> (Reader, Vec<Read>) {
    let mut read = Vec::new();
    for (lane, count) in want.into_iter().enumerate() {
        let mut left = count;
        while left > 0 {
            match reader.next(lane) {
                Ok(Some(item)) => {
                    read.push(Ok(item));
                    left -= 1;
                }
                Ok(None) => break,
                Err(error @ ReadError::Io { .. }) => {
                    read.push(Err(error));
                    return (reader, read);
                }
                Err(hole) => read.push(Err(hole)),
            }
        }
    }
    (reader, read)
}
