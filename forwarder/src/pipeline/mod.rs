//! The reader's thread: what is read is sealed and appended, with the positions, in one frame.
//!
//! ```text
//! sources ──▶ lanes ──▶ batch ──▶ sealer ──▶ frame { batches of both lanes, positions, epoch, marks } ──▶ spool
//! ```
//!
//! Everything that a crash must not tear apart is in one frame: the events, how far their files have been read, how far the chain
//! reaches; a gap with the mark that passes what was lost. What cannot be appended just now waits, unsealed, and nothing more
//! is read meanwhile; files are still looked at, so that those that are removed stay open.
//!
//! Trouble:
//!
//! | what | then |
//! |---|---|
//! | quota used up | `block`: wait for acknowledgements. `drop_oldest`: the oldest segment's routine batches become a void range and a gap, its alerts are appended anew |
//! | no room on the file system | wait, try again each second |
//! | append or sync failed | nothing unsynced counts: reopen (with growing pauses), new epoch, sources go back to the recovered positions |
//! | fork | everything unacknowledged is sealed anew under a new epoch, piece by piece, each with the mark that passes the old one |

mod disk;
mod frames;
mod full;
mod lost;
mod owed;
mod own;
mod reseal;
#[cfg(test)]
mod tests;
pub(crate) mod thread;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use watchline_proto::{Lane, SpiffeId, payload::Payload};
use watchline_spool::{AppendError, Damage, ItemNo, LANES, ReadError, Recovery, Spool, SyncError};

use crate::{
    batch::{Batch, Counted, Filtered, Moment},
    board::{Blocked, Board},
    clock,
    conditions::{Conditions, OwnStanding},
    config::{BatchConfig, Reloadable, Sync, WhenFull},
    gaps::{Gap, GapReason},
    inbox::{NEVER, News, Rest, set_aside_gap},
    lanes::Lanes,
    metrics::Metrics,
    sealer::{EPOCH_KEY, Sealer},
    sources::{Buffers, Intake, Outside, Sources},
};

/// The uplink's name as a reader of the spool.
pub(crate) const READER: &str = "uplink";

/// Blocks read in one turn: then the inbox is looked at.
const BLOCKS_A_TURN: usize = 16;
/// An acknowledgement is written down this long after it came at the latest.
const MARK_WITHIN: Duration = Duration::from_secs(1);
/// A position that no event brings along, as behind events that were all dropped, is stored this often at most.
const STATE_ALONE_EVERY: Duration = Duration::from_secs(1);
/// What waits for room tries again this often.
const TRY_ROOM_EVERY: Duration = Duration::from_secs(1);
/// `drop_oldest` gives up this many segments for one frame at most.
const SEGMENTS_GIVEN_UP_AT_ONCE: usize = 4;
/// A disk that failed is tried again after this long, then after twice as long, …
const FIRST_REOPEN: Duration = Duration::from_millis(100);
/// … up to this.
const LAST_REOPEN: Duration = Duration::from_secs(30);

/// What stays as it is until a restart.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) batch: BatchConfig,
    pub(crate) sync: Sync,
    pub(crate) when_full: WhenFull,
    pub(crate) scan_interval: Duration,
    /// Bytes that routine batches leave free beside the spool's reserve: room for sealing anew.
    pub(crate) margin_bytes: u64,
}

/// What the pipeline needs from outside.
pub(crate) struct Parts {
    pub(crate) spool: Spool,
    pub(crate) recovery: Recovery,
    pub(crate) outside: Outside,
    /// The name in the certificate in force.
    pub(crate) name: Box<dyn Fn() -> SpiffeId + Send>,
    pub(crate) clock: Box<dyn Fn() -> Moment + Send>,
    /// Asked once a second.
    pub(crate) own_standing: Box<dyn Fn() -> OwnStanding + Send>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Metrics,
    /// Takes the directories that are worth watching, whenever they change.
    pub(crate) watch: Option<mpsc::Sender<BTreeSet<PathBuf>>>,
}

/// Read and packed, not sealed: waits until it can be appended.
struct Pending {
    payloads: Vec<(Lane, Payload)>,
    state: Vec<(Bytes, Option<Bytes>)>,
    counts: Vec<[Counted; 2]>,
    filtered: Vec<Filtered>,
    gaps: Vec<Gap>,
}

/// The disk failed.
struct Down {
    retry_at: Instant,
    pause: Duration,
}

/// Why a frame was not appended. Nothing has moved.
enum Refused {
    Full,
    /// It would never fit: a defect of ours.
    TooLarge(AppendError),
    NoRoom(String),
    Failed(DiskFailed),
}

/// The spool has to be reopened.
#[derive(Debug, thiserror::Error)]
enum DiskFailed {
    #[error(transparent)]
    Append(AppendError),
    #[error(transparent)]
    Sync(SyncError),
    #[error(transparent)]
    Read(Box<ReadError>),
}

impl From<SyncError> for DiskFailed {
    fn from(error: SyncError) -> Self {
        DiskFailed::Sync(error)
    }
}

/// See the module. Everything blocks on the disk at most.
pub(crate) struct Pipeline {
    settings: Settings,
    spool: Spool,
    sources: Sources,
    lanes: Lanes,
    sealer: Sealer,
    batch: Batch,
    buffers: Buffers,
    name: Box<dyn Fn() -> SpiffeId + Send>,
    clock: Box<dyn Fn() -> Moment + Send>,
    own_standing: Box<dyn Fn() -> OwnStanding + Send>,
    conditions: Conditions,
    board: Arc<Board>,
    metrics: Metrics,
    watch: Option<mpsc::Sender<BTreeSet<PathBuf>>>,
    watched: BTreeSet<PathBuf>,

    pending: Option<Pending>,
    /// Gaps that the line or the spool raised, not stored yet.
    owed: Vec<Gap>,
    /// Goes with the next frame: what the state says of itself.
    owed_state: Option<(Bytes, Option<Bytes>)>,
    /// Whether a new state is known to be one of a new host; `None`: settled.
    new_state: Option<lost::NewState>,
    /// Damage that these gaps tell of: settled in their frame.
    damage: Vec<Damage>,
    acked: [ItemNo; LANES],
    marked: [ItemNo; LANES],
    /// Items below were given up, and a gap says so.
    dropped: [ItemNo; LANES],
    reseal: Option<reseal::Reseal>,
    down: Option<Down>,
    blocked: Option<Blocked>,
    stopped: bool,
    look_at_everything: bool,
    next_tick: Instant,
    unsynced_since: Option<Instant>,
    unmarked_since: Option<Instant>,
    last_frame: Option<Instant>,
    state_alone_from: Instant,
}

impl Pipeline {
    /// Goes on where the spool says, under a new epoch.
    pub(crate) fn new(parts: Parts, settings: Settings, reloadable: Reloadable) -> Pipeline {
        let Parts {
            spool,
            recovery,
            outside,
            name,
            clock,
            own_standing,
            board,
            metrics,
            watch,
        } = parts;
        let now = clock();
        let lanes = Lanes::new(reloadable.alerts);
        let mut sources = Sources::open(&reloadable.sources, outside, &lanes, &spool);
        let new_state = lost::NewState::of(&spool);
        if let Some(new) = new_state {
            sources.begin(new.first_start());
        }
        let stored = spool.state(EPOCH_KEY);
        let renamed = stored
            .as_deref()
            .and_then(Sealer::stored_name)
            .filter(|before| *before != name());
        let sealer = Sealer::start(name(), stored.as_deref(), reloadable.labels);
        let marked = spool.mark(READER).map(|mark| mark.next).unwrap_or_default();
        let mut pipeline = Pipeline {
            batch: Batch::new(settings.batch.max_bytes),
            settings,
            sources,
            lanes,
            sealer,
            buffers: Buffers::default(),
            name,
            clock,
            own_standing,
            conditions: Conditions::default(),
            board,
            metrics,
            watch,
            watched: BTreeSet::new(),
            pending: None,
            owed: Vec::new(),
            owed_state: None,
            new_state,
            damage: Vec::new(),
            acked: marked,
            marked,
            dropped: Default::default(),
            reseal: None,
            down: None,
            blocked: None,
            stopped: false,
            look_at_everything: true,
            next_tick: now.at,
            unsynced_since: None,
            unmarked_since: None,
            last_frame: None,
            state_alone_from: now.at,
            spool,
        };
        pipeline.owe_damage(recovery.damage);
        if let Some(before) = renamed {
            pipeline.seal_anew_for_name(&before);
        }
        pipeline
    }

    /// Takes in what came, does what there is to do, and says when to come again.
    pub(crate) fn turn(&mut self, mut news: News) -> Rest {
        let now = (self.clock)();
        self.take_in(&mut news, now);
        if let Err(failed) = self.work(&news, now) {
            self.disk_failed(&failed, now);
        }
        self.board.post(|posted| {
            if posted.blocked != self.blocked {
                posted.blocked.clone_from(&self.blocked);
            }
        });
        self.rest((self.clock)().at)
    }

    /// No more is read from now on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.sources.stop();
    }

    /// Ends cleanly. An error means that what was not synced is not stored; the next start finds out.
    pub(crate) fn close(mut self) -> Result<(), SyncError> {
        let now = (self.clock)();
        if self.down.is_none() {
            if let Err(failed) = self.write_marks(now) {
                tracing::error!(error = %failed, "the last acknowledgements could not be written down: they are asked for again");
            }
            return self.spool.close();
        }
        Ok(())
    }

    /// Whether everything that was read is sealed and appended.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_none()
            && self.owed.is_empty()
            && self.batch.is_empty()
            && self.down.is_none()
    }

    /// Whether there is something to read that can be read now: after the stop, what sources have taken in.
    pub(crate) fn has_more(&self) -> bool {
        self.pending.is_none() && self.down.is_none() && self.sources.is_ready()
    }

    /// From now on heartbeats say that this epoch is at its end.
    fn show_closing(&self) {
        self.board
            .post(|posted| posted.closing = self.pending.is_none());
    }

    fn take_in(&mut self, news: &mut News, now: Moment) {
        if let Some(acked) = news.acked {
            self.acked = std::array::from_fn(|lane| self.acked[lane].max(acked[lane]));
            if self.acked != self.marked {
                self.unmarked_since.get_or_insert(now.at);
            }
        }
        self.owed.extend(news.set_aside.iter().map(set_aside_gap));
        for hole in news.holes.drain(..) {
            self.owe_hole(hole);
        }
        if let Some(forked) = news.forked.take() {
            self.take_fork(forked);
        }
        if let Some(held) = news.welcomed.take() {
            self.welcomed(&held);
        }
        if let Some(reloadable) = news.reload.take() {
            self.lanes = Lanes::new(reloadable.alerts);
            self.sources
                .reconfigure(&reloadable.sources, &self.lanes, &self.spool);
            self.sealer.labels = reloadable.labels;
            self.look_at_everything = true;
        }
    }

    fn work(&mut self, news: &News, now: Moment) -> Result<(), DiskFailed> {
        let tick = now.at >= self.next_tick;
        if !self.is_up(now) {
            self.look_at_everything = true;
            return Ok(());
        }
        if tick {
            self.next_tick = now.at + self.settings.scan_interval;
            self.sealer.clock = clock::state();
        }
        self.tend_new_state(now.at);
        if self.reseal.is_some() {
            self.seal_anew(now)?;
        }
        if tick && !self.stopped {
            self.look_at_itself(now)?;
        }
        if !self.owed.is_empty() {
            self.say_owed(now)?;
        }
        if self.pending.is_some() {
            self.append_pending(now)?;
        }
        if !self.stopped {
            let all = tick || std::mem::take(&mut self.look_at_everything);
            let Pipeline {
                batch,
                lanes,
                buffers,
                ..
            } = self;
            self.sources.look(
                &news.hints,
                all,
                &mut Intake {
                    batch,
                    lanes,
                    buffers,
                    now,
                },
            );
            if all {
                self.show_sources(now);
            }
        }
        self.read(now)?;
        let waits = self
            .unmarked_since
            .is_some_and(|since| now.at.saturating_duration_since(since) >= MARK_WITHIN);
        if waits || self.blocked.is_some() || self.stopped {
            self.write_marks(now)?;
        }
        self.sync_if_due(now)
    }

    /// Reads until nothing more is there, or for some blocks, a frame whenever the batch is due.
    fn read(&mut self, mut now: Moment) -> Result<(), DiskFailed> {
        let mut blocks = 0;
        while self.pending.is_none() {
            let mut more = true;
            while more && !self.batch.is_due() && blocks < BLOCKS_A_TURN {
                let Pipeline {
                    batch,
                    lanes,
                    buffers,
                    ..
                } = self;
                more = self.sources.read(&mut Intake {
                    batch,
                    lanes,
                    buffers,
                    now,
                });
                blocks += usize::from(more);
            }
            let state_alone = self.stopped || now.at >= self.state_alone_from;
            let owes_state = self.sources.owes_state() || self.owed_state.is_some();
            if !self.batch.is_empty() || state_alone && owes_state {
                self.close_batch(now)?;
            }
            if !more || blocks >= BLOCKS_A_TURN {
                break;
            }
            now = (self.clock)();
        }
        for (rule, events) in self.lanes.take_excess() {
            self.metrics.excess(rule, events);
        }
        Ok(())
    }

    /// Packs what was read and appends it.
    fn close_batch(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let payloads = Lane::ALL
            .into_iter()
            .filter_map(|lane| Some((lane, self.batch.finish(lane, now)?)));
        let payloads: Vec<(Lane, Payload)> = payloads.collect();
        let mut state: Vec<_> = self.owed_state.take().into_iter().collect();
        self.sources.moved(&mut state);
        let (counts, gaps) = (self.batch.take_counts(), self.batch.take_gaps());
        let filtered = self.batch.take_filtered();
        if payloads.is_empty() {
            self.state_alone_from = now.at + STATE_ALONE_EVERY;
        }
        self.pending = Some(Pending {
            payloads,
            state,
            counts,
            filtered,
            gaps,
        });
        self.append_pending(now)
    }

    /// Appends what waits, if it can be appended now.
    fn append_pending(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        let mut refused = self.append(&pending.payloads, &pending.state, &[], &[], now);
        for _ in 0..SEGMENTS_GIVEN_UP_AT_ONCE {
            if !matches!(refused, Err(Refused::Full))
                || self.settings.when_full == WhenFull::Block
                || !self.drop_oldest(now)?
            {
                break;
            }
            refused = self.append(&pending.payloads, &pending.state, &[], &[], now);
        }
        match refused {
            Err(Refused::TooLarge(error)) => {
                tracing::error!(%error, "a batch cannot be appended");
                let events = pending
                    .payloads
                    .iter()
                    .map(|(_, payload)| u64::from(payload.info.events))
                    .sum();
                let detail = format!("a batch could not be appended: {error}");
                self.owed.push(Gap {
                    records: Some(events),
                    ..Gap::new(GapReason::Unsealable, detail)
                });
                self.pending = Some(Pending {
                    payloads: Vec::new(),
                    ..pending
                });
                Ok(())
            }
            Ok(()) => {
                self.appended(pending, now);
                Ok(())
            }
            Err(refused) => {
                self.pending = Some(pending);
                self.wait_for_room(refused)
            }
        }
    }

    fn appended(&mut self, pending: Pending, now: Moment) {
        self.unblock();
        for gap in &pending.gaps {
            self.metrics.gap(gap);
        }
        for (lane, _) in &pending.payloads {
            self.metrics.sealed(*lane);
        }
        let Pipeline {
            board,
            metrics,
            sources,
            sealer,
            ..
        } = self;
        for filtered in &pending.filtered {
            if let Some(source) = sources.names().nth(filtered.source.0) {
                metrics.filtered(source, &filtered.filter, filtered.events);
            }
        }
        let mut names = sources.names();
        board.post(|posted| {
            posted.chain = Some(sealer.chain().clone());
            for counted in &pending.counts {
                let Some(source) = names.next() else { break };
                for lane in Lane::ALL {
                    let counted = counted[lane.index()];
                    if counted.events > 0 {
                        metrics.counted(source, lane, counted);
                        posted.events[lane.index()] += counted.events;
                    }
                }
                if counted.iter().any(|lane| lane.events > 0) {
                    match posted.last_read.get_mut(source) {
                        Some(last_read) => *last_read = now.unix_nano,
                        None => drop(posted.last_read.insert(source.to_owned(), now.unix_nano)),
                    }
                }
            }
        });
    }

    fn show_sources(&mut self, now: Moment) {
        let status = self.sources.status();
        for source in &status {
            self.metrics.source(source);
        }
        self.board.post(|posted| {
            posted.sources = status;
            posted.looked_at = Some(now.at);
            posted.clock = Some(self.sealer.clock);
            if posted.chain.is_none() {
                posted.chain = Some(self.sealer.chain().clone());
            }
        });
        if let Some(watch) = &self.watch {
            let directories = self.sources.directories();
            if directories != self.watched {
                self.watched.clone_from(&directories);
                // Nobody there: looks at everything each second are enough.
                let _ = watch.send(directories);
            }
        }
    }

    /// When to come again.
    fn rest(&self, now: Instant) -> Rest {
        let mut until = self.next_tick;
        let linger_until = self
            .last_frame
            .map_or(now, |last| last + self.settings.batch.linger);
        let wants_room = self.blocked.is_some();
        if let Some(down) = &self.down {
            return Rest {
                until: down.retry_at,
                linger_until: now + NEVER,
                wants_room: false,
            };
        }
        if let Some(since) = self.unsynced_since {
            until = until.min(match self.settings.sync {
                Sync::Always => since + MARK_WITHIN,
                Sync::Every(interval) => since + interval,
            });
        }
        if let Some(since) = self.unmarked_since {
            until = until.min(since + MARK_WITHIN);
        }
        if wants_room {
            let until = until.min(now + TRY_ROOM_EVERY);
            return Rest {
                until,
                linger_until: now + NEVER,
                wants_room,
            };
        }
        if self.sources.owes_state() {
            until = until.min(self.state_alone_from);
        }
        let has_more = self.look_at_everything || self.sources.is_ready();
        if has_more && !self.stopped {
            until = now;
        }
        if self.stopped {
            until = until.max(now + Duration::from_millis(20));
        }
        Rest {
            until,
            linger_until,
            wants_room,
        }
    }
}
