//! Who may use how much of the directory.

use crate::{LANES, MAX_FRAME_BYTES, Options};

/// What room is wanted for; the later ones may use more of the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A frame with an item of another lane than 0.
    Routine,
    /// A frame whose items are all of lane 0.
    Alert,
    /// Marks, state and snapshots.
    Upkeep,
}

impl Purpose {
    pub(crate) fn of(items: [u32; LANES]) -> Purpose {
        if items[1..].iter().any(|&count| count > 0) {
            Purpose::Routine
        } else if items[0] > 0 {
            Purpose::Alert
        } else {
            Purpose::Upkeep
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) max_bytes: u64,
    reserve_bytes: u64,
    segment_bytes: u64,
    /// Of the newest snapshot: room for some more of them is kept.
    pub(crate) snapshot_bytes: u64,
}

impl Quota {
    pub(crate) fn of(options: &Options) -> Quota {
        Quota {
            max_bytes: options.max_bytes,
            reserve_bytes: options.reserve_bytes,
            segment_bytes: options.segment_bytes,
            snapshot_bytes: 0,
        }
    }

    pub(crate) fn limit(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Routine => self.max_bytes - self.reserve(),
            Purpose::Alert => self.max_bytes - self.reserve() / 2,
            Purpose::Upkeep => self.max_bytes,
        }
    }

    /// As configured, but room for some snapshots, and not so much that nothing is left to reserve it from.
    fn reserve(&self) -> u64 {
        self.reserve_bytes
            .max(8 * self.snapshot_bytes)
            .min(self.max_bytes / 2)
    }

    /// A frame may be a quarter of what routine may use: two segments are always kept, and a third must fit.
    pub(crate) fn max_frame_bytes(&self) -> u64 {
        MAX_FRAME_BYTES.min(self.limit(Purpose::Routine) / 4)
    }

    /// Size at which a segment with a snapshot of this size is closed.
    pub(crate) fn segment_bytes(&self, snapshot_bytes: u64) -> u64 {
        self.segment_bytes
            .min(self.limit(Purpose::Routine) / 8)
            .max(16 * snapshot_bytes)
    }

    /// Size of the reserve file: what of the reserve the segments do not use yet.
    pub(crate) fn reserve_left(&self, used_bytes: u64) -> u64 {
        self.reserve()
            .min(self.max_bytes.saturating_sub(used_bytes))
    }
}
