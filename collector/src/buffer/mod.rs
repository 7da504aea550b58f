//! The buffer: one thread owns the spool and the ledger; everybody else asks it.
//!
//! A batch is stored, found to be a duplicate or found to be a fork in commit order, by the one thread that owns the disk.
//! Nothing is answered as stored before it has been synced.

use tokio::sync::oneshot;
use watchline_proto::{Hash, Seal, SpiffeId, wire};
use watchline_spool as spool;

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

/// A handle on the buffer thread; cheap to clone.
#[derive(Clone)]
pub struct Buffer {
    _p: (),
}

impl Buffer {
    /// Waits for room in the lane's byte budget; the returned receiver resolves after the commit (synced). Dropping the
    /// receiver does not take the batch back.
    pub async fn append_if_new(
        &self,
        incoming: Incoming,
    ) -> Result<oneshot::Receiver<Result<Decision, BufferError>>, BufferError> {
        let _ = incoming;
        Err(BufferError::Closed)
    }

    /// What is held (durably) of the open chains of one sealer, for Welcome.
    pub async fn held_by(&self, sealer: &SpiffeId) -> Vec<wire::ChainHeld> {
        let _ = sealer;
        Vec::new()
    }

    /// The buffer's id: a new one when the directory was made anew.
    pub fn id(&self) -> [u8; 16] {
        [0; 16]
    }

    /// Whether a routine batch would find room now.
    pub fn has_room(&self) -> bool {
        false
    }

    /// The reader that was made for this output when the buffer was opened; `None` when there is none or it has been taken.
    pub fn reader(&self, name: &str) -> Option<spool::Reader> {
        let _ = name;
        None
    }

    /// Writes a reader's mark with the next commit, or at most a second later. Never waits; a later mark replaces an earlier one.
    pub fn mark(&self, mark: spool::Mark) {
        let _ = mark;
    }

    /// Writes a reader's mark at once; resolves when it is durable.
    pub fn mark_synced(&self, mark: spool::Mark) -> oneshot::Receiver<Result<(), BufferError>> {
        let _ = mark;
        oneshot::channel().1
    }

    /// A look at the spool's numbers, and its change notification.
    pub fn view(&self) -> spool::View {
        todo!()
    }
}
