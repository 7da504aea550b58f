//! What a caller chooses when it opens a spool.

use std::time::Duration;

/// What a caller chooses when it opens a spool. None of it is stored: another opening may choose otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// Quota over all segment files, in bytes.
    pub max_bytes: u64,
    /// Part of `max_bytes` that items of lane 1 must leave free: half of it for lane 0, all of it for marks, state and
    /// snapshots. Kept allocated on the file system in the file `reserve`, so that it is there when the disk is full.
    pub reserve_bytes: u64,
    /// Size at which a segment is closed; raised by itself to 16 times the snapshot, lowered to an eighth of the quota.
    pub segment_bytes: u64,
    /// Readers that hold segments until their mark has passed, from the oldest on as long as they have no mark. A
    /// reader not named here never holds one (it finds [`ReadError::Gone`](crate::ReadError::Gone) instead).
    pub required_readers: Vec<String>,
    /// `Some`: what every required reader has passed is kept this long after it was appended, and goes before that when
    /// space is needed. `None`: it goes at once.
    pub keep_delivered: Option<Duration>,
    /// Whether readers see what was appended but is not yet synced.
    pub read_unsynced: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_bytes: 1 << 30,
            reserve_bytes: 16 << 20,
            segment_bytes: 16 << 20,
            required_readers: Vec::new(),
            keep_delivered: None,
            read_unsynced: false,
        }
    }
}
