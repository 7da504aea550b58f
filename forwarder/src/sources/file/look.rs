//! A look at one file: whether it grew, shrank or was written over.

use std::{io, os::fd::AsFd};

use rustix::fs::{Stat, fstat};

use super::{
    FileSource, directories::SETTLED_AFTER_NANOS, identity::Inode, is_gone, open::OpenError,
    position::FileKey, tail::Change,
};
use crate::{
    gaps::{Gap, GapReason},
    sources::Intake,
};

impl FileSource {
    /// Looks whether a file grew, shrank or was written over.
    pub(super) fn look_at(&mut self, key: FileKey, intake: &mut Intake<'_>) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        if tail.packed.is_some() {
            return; // nothing is added to it
        }
        let stat = match (&tail.handle, &tail.path) {
            (Some(file), _) => fstat(file.as_fd()).map_err(io::Error::from),
            (None, Some(path)) => rustix::fs::stat(path).map_err(io::Error::from),
            (None, None) => return,
        };
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => return,
            Err(error) => return self.refuse(key, OpenError::Io(error)),
        };
        if Inode::of(&stat) != tail.inode {
            return; // the scan finds out
        }
        self.judge(key, &stat, intake);
    }

    /// What follows from the size and the times that a file has, as the system says.
    pub(super) fn judge(&mut self, key: FileKey, stat: &Stat, intake: &mut Intake<'_>) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size != tail.size {
            tail.idle_since = intake.now.at;
        }
        if size < tail.offset {
            return self.changed(key, Change::Truncated, intake);
        }
        tail.size = size;
        if size < tail.known_size && tail.copy_of.is_none() {
            return self.shrunk(key, intake);
        }
        if size > tail.offset {
            if tail.copy_of.is_some() {
                self.follow_copy(key);
            } else if tail.waiting.is_none_or(|waiting| waiting.size != size) {
                self.queue(key);
            }
            return;
        }
        let stamp = (
            stat.st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add(stat.st_mtime_nsec as i64),
            stat.st_ctime
                .saturating_mul(1_000_000_000)
                .saturating_add(stat.st_ctime_nsec as i64),
        );
        if tail.stood_at == Some(stamp) || tail.offset == 0 {
            return;
        }
        if let Err(error) = self.open_again(key) {
            return self.refuse(key, error);
        }
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        match tail.handle.as_ref().map(|file| tail.stands(file)) {
            Some(Ok(false)) => self.changed(key, Change::Rewritten, intake),
            Some(Ok(true)) => {
                // What changed only just now may change again within the same time stamp.
                let settled =
                    intake.now.unix_nano.saturating_sub(stamp.0.max(stamp.1)) > SETTLED_AFTER_NANOS;
                tail.stood_at = settled.then_some(stamp);
            }
            Some(Err(error)) => self.refuse(key, OpenError::Io(error)),
            None => {}
        }
        self.close_surplus(key);
    }

    /// A file became shorter, though not shorter than what was read of it: it was cut within what is unread, or is other content.
    pub(super) fn shrunk(&mut self, key: FileKey, intake: &mut Intake<'_>) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        if tail.is_closable() {
            // Opened anew a network file system has to ask for the size.
            tail.handle = None;
        }
        if let Err(error) = self.open_again(key) {
            return self.refuse(key, error);
        }
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        let size = tail.handle.as_ref().map(|file| fstat(file.as_fd()));
        if let Some(Ok(stat)) = size {
            tail.size = u64::try_from(stat.st_size).unwrap_or(0);
            if tail.size >= tail.known_size {
                return self.queue(key);
            }
        }
        match tail.handle.as_ref().map(|file| tail.stands(file)) {
            Some(Ok(false)) => return self.changed(key, Change::Truncated, intake),
            Some(Ok(true)) => {}
            Some(Err(error)) => return self.refuse(key, OpenError::Io(error)),
            None => return,
        }
        // A file of which nothing was read may be other content just as well: either way these bytes are gone.
        let (from, to) = (tail.size, tail.known_size);
        tail.known_size = tail.size;
        tail.waiting = None;
        let name = tail.name.clone();
        let gap = Gap::new(
            GapReason::Truncated,
            "a file was cut within what was unread of it",
        );
        let gap = Gap {
            bytes: to - from,
            range: Some((from, to)),
            ..gap.in_file(&self.config.name, &name)
        };
        intake.batch.push_gap(&gap, intake.now);
        self.queue(key);
    }
}
