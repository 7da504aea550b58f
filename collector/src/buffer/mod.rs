//! The buffer: one thread owns the spool and the ledger; everybody else asks it.
//!
//! A batch is stored, found to be a duplicate or found to be a fork in commit order, by the one thread that owns the disk.
//! Nothing is answered as stored before it has been synced. One frame a batch: the batch, and the ledger's entry for its chain,
//! so that the two can never disagree. Many frames, one sync.
//!
//! Memory: the lanes' byte budgets (8 and 32 MiB), the ledger ([`crate::ledger::Limits`]), and the spool's own.

mod inbox;
mod item;
mod metrics;
mod owner;
#[cfg(test)]
mod tests;

pub use metrics::{BufferMetrics, Stage};

use crate::{
    ledger::{Alarm, ForkReason, Ledger, Limits, SealerSummary},
    watch::GapMetrics,
    worker::Worker,
};
use inbox::{Append, Inbox, Question, SyncedMark};
use owner::Owner;
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot};
use watchline_node::health::CheckState;
use watchline_proto::{Hash, Seal, SpiffeId, stored, wire};
use watchline_spool as spool;

/// What may wait for the buffer's thread, in bytes, by lane.
const LANE_BUDGET_BYTES: [usize; spool::LANES] = [8 << 20, 32 << 20];
/// What a waiting batch costs beside its seal and payload.
const BATCH_OVERHEAD_BYTES: usize = 1024;
/// At start, hashes of recent seals are read back from at most this much of each lane.
const REFILL_BYTES: u64 = 64 << 20;

/// A checked batch on its way into the buffer.
#[derive(Debug)]
pub struct Incoming {
    /// The decoded seal.
    pub seal: Seal,
    /// SHA-256 of the seal as it travelled.
    pub seal_hash: Hash,
    /// The batch as it came, with the receipts of the hops before and without ours.
    pub batch: wire::SealedBatch,
    /// Who sent it on this connection: the sealer itself or a relay.
    pub direct_peer: SpiffeId,
}

/// What became of a batch. All three are answers after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// On disk, synced.
    Stored,
    /// Held already, with the same hash, synced.
    Duplicate,
    /// Contradicts what is held: another seal at the same place, or a chain that does not continue. Refuse it.
    Fork {
        /// For people.
        detail: String,
    },
}

/// Why a batch was not stored. None of these is the batch's own defect, but `TooLarge`; the sender keeps it and offers it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BufferError {
    /// No room until the outputs have moved on: throttle.
    #[error("buffer is full: {used_bytes} of {max_bytes} bytes are still needed by an output")]
    Full {
        /// Held now.
        used_bytes: u64,
        /// The quota.
        max_bytes: u64,
    },
    /// This sealer holds its share of undelivered bytes, or its limit of open epochs or ranges: throttle this one alone.
    #[error("{sealer} {reason}")]
    Limited {
        /// Whose batch it was.
        sealer: SpiffeId,
        /// Which limit.
        reason: String,
    },
    /// The disk does not take it now. Nothing of it counts as stored.
    #[error("buffer cannot store: {reason}")]
    Unavailable {
        /// What the disk said.
        reason: String,
    },
    /// Larger than a frame may be: the batch's own defect.
    #[error("batch of {bytes} bytes is larger than {max} bytes")]
    TooLarge {
        /// Of the batch.
        bytes: u64,
        /// Of a frame.
        max: u64,
    },
    /// The buffer has been closed: the process is stopping.
    #[error("buffer is closed")]
    Closed,
}

/// Why the buffer could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory: in use, not writable, or of a newer program.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    /// The system gave no thread.
    #[error("start the buffer's thread")]
    Thread(#[source] io::Error),
}

/// What happened in the buffer that somebody should know of. Told from the buffer's thread; the receiver must not block.
#[derive(Debug)]
pub enum Notice {
    /// Durable bytes were damaged and set aside: what was in them and had not been delivered is lost.
    Damaged(spool::Damage),
    /// A batch contradicts what is held, and was refused.
    Fork {
        /// Its seal.
        seal: Box<Seal>,
        /// Who sent it.
        direct_peer: SpiffeId,
        /// How it contradicts.
        reason: ForkReason,
    },
    /// The ledger found something while a batch was stored.
    Alarm {
        /// Whose chain.
        sealer: SpiffeId,
        /// What.
        alarm: Alarm,
    },
    /// An entry of the ledger could not be read: its chain counts as unknown.
    LedgerEntry {
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
}

/// How a buffer is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory.
    pub directory: PathBuf,
    /// Quota over all of it.
    pub max_bytes: u64,
    /// How long what has been delivered is kept while there is room.
    pub max_age: Duration,
    /// Names of all readers, one an output.
    pub readers: Vec<String>,
    /// Those of them that hold what they have not got.
    pub required_readers: Vec<String>,
    /// What the ledger tells apart.
    pub limits: Limits,
    /// Whose receipts are added.
    pub collector: SpiffeId,
}

/// Segments are this large, in a quota that allows it.
const SEGMENT_BYTES: u64 = 64 << 20;

impl Options {
    fn of_spool(&self) -> spool::Options {
        spool::Options {
            max_bytes: self.max_bytes,
            reserve_bytes: (self.max_bytes / 16).min(SEGMENT_BYTES),
            segment_bytes: SEGMENT_BYTES.min(self.max_bytes / 8),
            required_readers: self.required_readers.clone(),
            keep_delivered: Some(self.max_age),
            read_unsynced: false,
        }
    }
}

/// What the thread and the handles share.
struct Shared {
    inbox: Inbox,
    budgets: [Arc<Semaphore>; spool::LANES],
    room: AtomicBool,
    metrics: BufferMetrics,
    gaps: GapMetrics,
    /// Locked for a judgement or a look, never across disk work.
    ledger: Mutex<Ledger>,
    notices: Box<dyn Fn(Notice) + Send + Sync>,
    report: Box<dyn Fn(CheckState) + Send + Sync>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, notice: Notice) {
        (self.notices)(notice);
    }

    fn report_damage(&self, recovery: &spool::Recovery) {
        for damage in &recovery.damage {
            tracing::error!(
                segment = %damage.segment.display(),
                bytes = damage.bytes,
                reason = %damage.reason,
                "part of the buffer was damaged and has been set aside"
            );
            self.metrics.damage(damage.bytes);
            self.notify(Notice::Damaged(damage.clone()));
        }
    }
}

/// A handle on the buffer thread; cheap to clone.
#[derive(Clone)]
pub struct Buffer {
    shared: Arc<Shared>,
    readers: Arc<Mutex<HashMap<String, spool::Reader>>>,
    view: spool::View,
    id: [u8; 16],
}

impl Buffer {
    /// Opens the directory and starts the thread that owns it: [`Buffer::close`], then join it. Blocks on the disk. `notices` and `report` are called from that
    /// thread and must not block.
    pub fn open(
        disk: Arc<dyn spool::Disk>,
        options: Options,
        metrics: BufferMetrics,
        gaps: GapMetrics,
        notices: impl Fn(Notice) + Send + Sync + 'static,
        report: impl Fn(CheckState) + Send + Sync + 'static,
    ) -> Result<(Buffer, Worker), OpenError> {
        let (spool, recovery) =
            spool::Spool::open(Arc::clone(&disk), &options.directory, options.of_spool())?;
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            budgets: LANE_BUDGET_BYTES.map(|bytes| Arc::new(Semaphore::new(bytes))),
            room: AtomicBool::new(true),
            metrics,
            gaps,
            ledger: Mutex::new(Ledger::new(options.limits.clone())),
            notices: Box::new(notices),
            report: Box::new(report),
        });
        shared.report_damage(&recovery);
        let mut ledger = owner::load_ledger(&spool, options.limits.clone(), &shared);
        refill(&spool, &mut ledger);
        *shared.ledger() = ledger;
        let readers = options
            .readers
            .iter()
            .map(|name| (name.clone(), spool.reader(name)));
        let buffer = Buffer {
            readers: Arc::new(Mutex::new(readers.collect())),
            view: spool.view(),
            id: recovery.buffer_id,
            shared: Arc::clone(&shared),
        };
        (shared.report)(CheckState::Ok);
        let owner = Owner {
            spool,
            limits: options.limits,
            collector: options.collector,
            clock: Arc::new(move || disk.unix_nano()),
            shared,
            state: CheckState::Ok,
            refused: None,
        };
        let worker = Worker::spawn("buffer", move || owner.run()).map_err(OpenError::Thread)?;
        Ok((buffer, worker))
    }

    /// Waits for room in the lane's byte budget; the returned receiver resolves after the commit (synced). Dropping the
    /// receiver does not take the batch back.
    ///
    /// Cancel safe: dropped while it waits, nothing has been handed over.
    pub async fn append_if_new(
        &self,
        incoming: Incoming,
    ) -> Result<oneshot::Receiver<Result<Decision, BufferError>>, BufferError> {
        let lane = incoming.seal.lane.index();
        let bytes = incoming.batch.seal.len() + incoming.batch.payload.len() + BATCH_OVERHEAD_BYTES;
        // A batch larger than the budget takes all of it: one batch is always allowed.
        let charged = bytes.min(LANE_BUDGET_BYTES[lane]) as u32;
        let budget = Arc::clone(&self.shared.budgets[lane])
            .acquire_many_owned(charged)
            .await
            .map_err(|_| BufferError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let append = Append {
            incoming,
            reply,
            budget,
            bytes: bytes as u64,
        };
        self.shared.inbox.append(lane, append)?;
        Ok(answer)
    }

    /// What is held (durably) of the open chains of one sealer, for Welcome. Empty too while the disk fails: the sender then offers
    /// everything, and each batch is judged.
    pub async fn held_by(&self, sealer: &SpiffeId) -> Vec<wire::ChainHeld> {
        let (reply, answer) = oneshot::channel();
        let question = Question::HeldBy(sealer.clone(), reply);
        match self.shared.inbox.ask(question) {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Every sealer ever stored. What was appended but not synced yet may be in it.
    pub fn summaries(&self) -> Vec<SealerSummary> {
        self.shared.ledger().summaries()
    }

    /// Another reader of this name, standing at its mark: for an output that is started anew. `None`: the buffer is closed or its
    /// disk fails now.
    pub async fn new_reader(&self, name: &str) -> Option<spool::Reader> {
        let (reply, answer) = oneshot::channel();
        let question = Question::Reader(name.to_owned(), reply);
        self.shared.inbox.ask(question).ok()?;
        answer.await.ok()
    }

    /// The buffer's id: a new one when the directory was made anew.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Whether a routine batch may find room now. After a refusal it stays false for about a second, or until a mark has moved.
    pub fn has_room(&self) -> bool {
        self.shared.room.load(Ordering::Relaxed)
    }

    /// The reader that was made for this output when the buffer was opened; `None` when there is none or it has been taken.
    pub fn reader(&self, name: &str) -> Option<spool::Reader> {
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)
    }

    /// Writes a reader's mark with the next commit, or at most a second later. Never waits; a later mark replaces an earlier one.
    pub fn mark(&self, mark: spool::Mark) {
        // Closed: the mark stays where it was, and the items come again. Outputs are stopped before the buffer.
        let _ = self.shared.inbox.mark(mark);
    }

    /// Writes a reader's mark at once; resolves when it is durable.
    pub fn mark_synced(&self, mark: spool::Mark) -> oneshot::Receiver<Result<(), BufferError>> {
        let (reply, answer) = oneshot::channel();
        let _ = self.shared.inbox.mark_synced(SyncedMark { mark, reply }); // closed: the receiver finds nobody
        answer
    }

    /// A look at the spool's numbers, and its change notification.
    pub fn view(&self) -> spool::View {
        self.view.clone()
    }

    /// The event about this damage is durable: it need not be reported again at the next start.
    pub fn settle(&self, damage: spool::Damage) {
        let _ = self.shared.inbox.settle(damage); // closed: it is reported again
    }

    /// Whether [`Buffer::close`] has been called.
    pub fn is_closed(&self) -> bool {
        self.shared.inbox.is_closed()
    }

    /// Takes nothing more. The thread commits what it has, writes the marks, closes the spool and ends.
    pub fn close(&self) {
        self.shared.inbox.close();
        for budget in &self.shared.budgets {
            budget.close();
        }
    }
}

/// Reads the newest seals back, so that what a sender offers again after a restart can be shown to be the same.
fn refill(spool: &spool::Spool, ledger: &mut Ledger) {
    const READER: &str = "refill";
    let mut reader = spool.reader(READER);
    let view = spool.view();
    let (held, next) = (view.backlog(READER), view.next_items());
    for lane in 0..spool::LANES {
        let spool::LaneStatus { items, bytes, .. } = held[lane];
        let average = bytes.checked_div(items).unwrap_or(0).max(1);
        let wanted = (REFILL_BYTES / average).min(items);
        reader.seek(lane, spool::ItemNo(next[lane].0 - wanted));
        loop {
            match reader.next(lane) {
                Ok(Some(item)) => {
                    if let Ok(batch) = stored::decode(item.bytes)
                        && let Ok(seal) = Seal::decode(&batch.seal)
                    {
                        let hash = Hash::of(&batch.seal);
                        ledger.remember(&seal, hash);
                    }
                }
                Ok(None) => break,
                // The reader stands behind what cannot be read; who delivers it says so.
                Err(spool::ReadError::Damaged(_) | spool::ReadError::Gone { .. }) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "recent seals are not all known again");
                    break;
                }
            }
        }
    }
}
