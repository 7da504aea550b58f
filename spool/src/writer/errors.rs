//! What an append or a sync can end with.

use std::{io, path::PathBuf};

use crate::FrameNo;

/// Why a frame was not appended. Nothing of it is stored in any case.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Back-pressure: wait until the readers have moved on, then append the same frame again. Marks and state still
    /// fit then, in a frame without items.
    #[error("spool is full: {used_bytes} of {max_bytes} bytes are still needed by a reader")]
    Full {
        /// Bytes in segment files.
        used_bytes: u64,
        /// The quota.
        max_bytes: u64,
    },
    /// The file system has no room (ENOSPC, EDQUOT). The spool stays usable: try again later.
    #[error("no room on the file system of {}", path.display())]
    NoRoom {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It would never fit: the caller must make smaller frames.
    #[error("frame of {bytes} bytes is larger than {max} bytes")]
    TooLarge {
        /// Of the whole frame.
        bytes: u64,
        /// 16 MiB, or less with a small quota.
        max: u64,
    },
    /// The disk failed. Nothing at or after `from` is stored; call [`Spool::reopen`](crate::Spool::reopen) to go on.
    #[error("append to segment {} at frame {from:?}", path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// The durable mark.
        from: FrameNo,
        /// What the system said.
        source: io::Error,
    },
}

/// The disk failed: nothing at or after `from` is stored. Call [`Spool::reopen`](crate::Spool::reopen).
#[derive(Debug, thiserror::Error)]
#[error("sync segment {} from frame {from:?}", path.display())]
pub struct SyncError {
    /// The segment.
    pub path: PathBuf,
    /// The durable mark.
    pub from: FrameNo,
    /// What the system said.
    pub source: io::Error,
}

impl From<SyncError> for AppendError {
    fn from(error: SyncError) -> Self {
        AppendError::Io {
            path: error.path,
            from: error.from,
            source: error.source,
        }
    }
}
