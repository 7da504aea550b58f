//! What is kept of files, and for how long: open handles, tails, positions without a file.

use std::{os::fd::AsFd, time::Duration};

use super::{
    FileSource, MAX_OPEN,
    position::{FileKey, Position},
    tail::Tail,
};
use crate::batch::Moment;

/// A file that no pattern leads to any more is closed when nothing came for so long.
const CLOSE_AFTER: Duration = Duration::from_secs(60);
/// A rotated file, or a position without a file, is remembered for so long.
const REMEMBER_FOR: Duration = Duration::from_secs(24 * 3600);
/// Positions without a file: no more are remembered.
const MAX_ORPHANS: usize = 4096;

impl FileSource {
    pub(super) fn close_idle(&mut self, now: Moment) {
        let mut gone = Vec::new();
        for (&key, tail) in &mut self.tails {
            let idle = now.at.saturating_duration_since(tail.idle_since);
            if tail.in_pattern
                || tail.unread_bytes() > 0 && tail.copy_of.is_none()
                || idle < CLOSE_AFTER
            {
                continue;
            }
            if tail.path.is_none() || idle >= REMEMBER_FOR {
                gone.push(key);
            } else {
                tail.handle = None;
            }
        }
        for key in gone {
            let removed = self
                .tails
                .get(&key)
                .and_then(|tail| tail.handle.as_ref())
                .is_some_and(is_removed);
            let Some(position) = self.forget(key) else {
                continue;
            };
            if removed || position.path != position.name {
                self.removed.insert(key);
            } else {
                self.orphan(key, position, now);
            }
        }
        let open = self
            .tails
            .values()
            .filter(|tail| tail.handle.is_some())
            .count();
        if open > MAX_OPEN {
            let mut closable: Vec<_> = (self.tails.values())
                .filter(|tail| tail.handle.is_some() && tail.path.is_some() && !tail.queued)
                .map(|tail| (tail.idle_since, tail.key))
                .collect();
            closable.sort_unstable();
            for (_, key) in closable.into_iter().take(open - MAX_OPEN) {
                if let Some(tail) = self.tails.get_mut(&key) {
                    tail.handle = None;
                }
            }
        }
        let oldest = now.unix_nano.saturating_sub(nanos(REMEMBER_FOR));
        let mut aged: Vec<FileKey> = (self.orphans.iter())
            .filter(|(_, position)| (1..oldest).contains(&position.missing_since_unix_nano))
            .map(|(&key, _)| key)
            .collect();
        if self.orphans.len() > MAX_ORPHANS {
            let mut by_age: Vec<_> = self
                .orphans
                .iter()
                .map(|(&key, position)| (position.missing_since_unix_nano, key))
                .collect();
            by_age.sort_unstable();
            aged.extend(
                by_age
                    .iter()
                    .take(self.orphans.len() - MAX_ORPHANS)
                    .map(|&(_, key)| key),
            );
        }
        for key in aged {
            self.orphans.remove(&key);
            self.removed.insert(key);
        }
    }

    /// Takes a tail out of everything that knows it.
    pub(super) fn forget(&mut self, key: FileKey) -> Option<Position> {
        let tail = self.tails.remove(&key)?;
        if self.by_inode.get(&tail.inode) == Some(&key) {
            self.by_inode.remove(&tail.inode);
        }
        if let Some(path) = &tail.path
            && self.by_path.get(path) == Some(&key)
        {
            self.by_path.remove(path);
        }
        if let Some(generations) = self.generations.get_mut(&tail.name) {
            generations.retain(|&other| other != key);
            if generations.is_empty() {
                self.generations.remove(&tail.name);
            }
        }
        Some(tail.position())
    }

    /// Takes a tail in.
    pub(super) fn follow(&mut self, tail: Tail) {
        let key = tail.key;
        self.by_inode.insert(tail.inode, key);
        if let Some(path) = &tail.path {
            self.by_path.insert(path.clone(), key);
            self.refused.remove(path);
        }
        self.generations
            .entry(tail.name.clone())
            .or_default()
            .push(key);
        self.tails.insert(key, tail);
    }

    /// Keeps a position whose content is nowhere to be seen.
    pub(super) fn orphan(&mut self, key: FileKey, mut position: Position, now: Moment) {
        position.missing_since_unix_nano = now.unix_nano.max(1);
        self.orphans.insert(key, position);
        self.moved_orphans.insert(key);
    }

    pub(super) fn new_key(&self) -> FileKey {
        loop {
            let mut bytes = [0; 8];
            // Only uniqueness matters; without randomness TLS would not work either.
            let _ = aws_lc_rs::rand::fill(&mut bytes);
            let key = FileKey(u64::from_le_bytes(bytes));
            if key.0 != 0 && !self.tails.contains_key(&key) && !self.orphans.contains_key(&key) {
                return key;
            }
        }
    }
}

/// Whether no name leads to the file any more.
fn is_removed(file: &std::fs::File) -> bool {
    rustix::fs::fstat(file.as_fd()).is_ok_and(|stat| stat.st_nlink == 0)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
