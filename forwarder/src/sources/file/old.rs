//! Files that are too old to be begun (`ignore_older`).
//!
//! What counts is how a file looks when it is first seen: one that has a position goes on whatever its time says. A file that was left out
//! is begun when it is written to, that is when its time is recent or its size another: a clock that stepped, or a file whose time
//! somebody sets back, excludes nothing that grows.

use std::path::Path;

use super::{FileSource, identity::Inode, scan::Found};
use crate::sources::Intake;

/// A file that was left out, as it looked then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooOld {
    inode: Inode,
    pub(super) size: u64,
    /// It was there when the source was first started.
    pub(super) at_first_start: bool,
}

impl FileSource {
    /// Whether a file without a position is left out; notes that it is.
    pub(super) fn is_too_old(
        &mut self,
        found: &Found,
        at_first_start: bool,
        intake: &Intake<'_>,
    ) -> bool {
        let (inode, size) = (found.inode(), found.size());
        let known = self.too_old.get(&found.path);
        let grew = known.is_some_and(|old| old.inode == inode && old.size != size);
        if grew || !self.is_old(found.stat.st_mtime, intake) {
            return false;
        }
        let old = TooOld {
            inode,
            size,
            at_first_start,
        };
        self.too_old.entry(found.path.clone()).or_insert(old);
        true
    }

    /// Whether a file that was left out looks as it did then, so that it need not be opened.
    pub(super) fn is_still_too_old(&self, path: &Path, intake: &Intake<'_>) -> bool {
        let Some(old) = self.too_old.get(path) else {
            return false;
        };
        rustix::fs::stat(path).is_ok_and(|stat| {
            Inode::of(&stat) == old.inode
                && u64::try_from(stat.st_size).is_ok_and(|size| size == old.size)
                && self.is_old(stat.st_mtime, intake)
        })
    }

    fn is_old(&self, modified_unix: i64, intake: &Intake<'_>) -> bool {
        let Some(older) = self.config.ignore_older else {
            return false;
        };
        let age = (intake.now.unix_nano / 1_000_000_000).saturating_sub(modified_unix);
        u64::try_from(age).is_ok_and(|age| age > older.as_secs())
    }
}
