//! A look at the spool from any thread, for status, metrics and waking.

use std::sync::Arc;

use crate::{FrameNo, ItemNo, LANES, Mark, log::Shared};

/// Cheap, cloneable look at the spool from any thread. Takes a mutex briefly, never the disk.
#[derive(Clone)]
pub struct View {
    pub(crate) shared: Arc<Shared>,
}

/// What a reader has not been acknowledged for, in one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Exact.
    pub items: u64,
    /// Item bytes. Exact from one remembered frame to another (about one each 64 KiB or second; after a restart one
    /// each segment), in between as if items were of equal size.
    pub bytes: u64,
    /// When the oldest was appended, nanoseconds since 1970: that of the remembered frame at or before it, so never
    /// later than the truth, and earlier by a second or so (after a restart by at most a segment). 0 when there is none.
    pub oldest_unix_nano: i64,
}

impl View {
    /// What `reader` has not been acknowledged for, per lane; of everything held where it has no mark.
    pub fn backlog(&self, reader: &str) -> [LaneStatus; LANES] {
        let log = self.shared.log();
        log.held(
            log.marks
                .get(reader)
                .map_or([ItemNo(0); LANES], |mark| mark.next),
        )
    }

    /// Bytes in segment files: headers, snapshots and frames, not the room allocated ahead.
    pub fn used_bytes(&self) -> u64 {
        self.shared.log().used_bytes
    }

    /// The quota.
    pub fn max_bytes(&self) -> u64 {
        self.shared.log().max_bytes
    }

    /// The durable mark: every frame below it survives a power cut.
    pub fn durable(&self) -> FrameNo {
        self.shared.log().synced.frame
    }

    /// Number of the next item of each lane: what was ever appended is below.
    pub fn next_items(&self) -> [ItemNo; LANES] {
        self.shared.log().end.items
    }

    /// A reader's mark as last appended, synced or not.
    pub fn mark(&self, reader: &str) -> Option<Mark> {
        self.shared.log().marks.get(reader).cloned()
    }

    /// `wake` is called, from the owner's thread, whenever more became readable (appended with `read_unsynced`, else
    /// synced) or room was made. Must not block. Stays for the life of the spool.
    pub fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.shared.on_change(Arc::new(wake));
    }
}
