//! What is kept of files, and for how long: open handles, tails, positions without a file.

use std::{
    borrow::Borrow, collections::HashMap, hash::Hash, os::fd::AsFd, path::Path, time::Duration,
};

use super::{
    FileSource,
    position::{FileKey, Position},
    tail::{Moved, Tail},
};
use crate::{
    batch::Moment,
    gaps::{Gap, GapReason},
    sources::Intake,
};

/// A file that no pattern leads to any more is closed when nothing came for so long.
const CLOSE_AFTER: Duration = Duration::from_secs(60);
/// A rotated file, or a position without a file, is remembered for so long.
pub(super) const REMEMBER_FOR: Duration = Duration::from_secs(24 * 3600);
/// Positions without a file: no more are remembered.
const MAX_ORPHANS: usize = 4096;

impl FileSource {
    pub(super) fn close_idle(&mut self, now: Moment) {
        let mut gone = Vec::new();
        for (&key, tail) in &mut self.tails {
            if let Some(packed) = &tail.packed {
                if packed.ended() && tail.unread_bytes() == 0 {
                    gone.push(key);
                }
                continue;
            }
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
            let Some(mut position) = self.forget(key) else {
                continue;
            };
            if position.packed {
                // Remembered in case that it is unpacked again.
                (position.packed, position.replaced) = (false, true);
                self.orphan(key, position, now);
            } else if removed || position.path != position.name {
                self.removed.insert(key);
            } else {
                self.orphan(key, position, now);
            }
        }
        self.close_beyond();
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

    /// Closes the files that were idle longest, down to what may be open.
    fn close_beyond(&mut self) {
        let open = self.tails.values().filter(|tail| tail.handle.is_some());
        self.open_files = open.count();
        if self.open_files <= self.max_open {
            return;
        }
        let mut closable: Vec<_> = (self.tails.values())
            .filter(|tail| tail.is_closable() && !tail.queued)
            .map(|tail| (tail.idle_since, tail.key))
            .collect();
        closable.sort_unstable();
        for (_, key) in closable.into_iter().take(self.open_files - self.max_open) {
            self.close(key);
        }
    }

    /// Closes a file that has been read for now, where more are open than may stay open.
    pub(super) fn close_surplus(&mut self, key: FileKey) {
        if self.open_files > self.max_open && self.tails.get(&key).is_some_and(Tail::is_closable) {
            self.close(key);
        }
    }

    fn close(&mut self, key: FileKey) {
        if let Some(tail) = self.tails.get_mut(&key)
            && tail.handle.take().is_some()
        {
            self.open_files = self.open_files.saturating_sub(1);
        }
    }

    /// Gives up the oldest of the files that have no name any more, until what is held unread is within `max_held`: they hold disk
    /// space that nobody can see.
    pub(super) fn give_up_held(&mut self, intake: &mut Intake<'_>) {
        let mut held = self.held_bytes();
        while held > self.config.max_held {
            let nameless = self
                .tails
                .values()
                .filter(|tail| tail.path.is_none() && tail.unread_bytes() > 0);
            let Some(oldest) = nameless.min_by_key(|tail| (tail.found_unix_nano, tail.key)) else {
                return;
            };
            let (key, name, unread) = (oldest.key, oldest.name.clone(), oldest.unread_bytes());
            let range = Some((oldest.offset, oldest.size));
            held -= unread;
            self.forget(key);
            self.removed.insert(key);
            let detail = format!(
                "removed files held more than {} unread bytes: the oldest was given up",
                self.config.max_held
            );
            let gap = Gap::new(GapReason::GivenUp, detail).in_file(&self.config.name, &name);
            let gap = Gap {
                bytes: unread,
                range,
                ..gap
            };
            intake.batch.push_gap(&gap, intake.now);
        }
    }

    /// Takes a tail out of everything that knows it. What was read of it and is not stored yet is stored with the next frame, where
    /// its position is kept.
    pub(super) fn forget(&mut self, key: FileKey) -> Option<Position> {
        let tail = self.tails.remove(&key)?;
        if tail.moved == Moved::Read {
            self.read_since.insert(key);
        }
        if tail.handle.is_some() {
            self.open_files = self.open_files.saturating_sub(1);
        }
        if self.by_inode.get(&tail.inode) == Some(&key) {
            self.by_inode.remove(&tail.inode);
        }
        if let Some(path) = &tail.path
            && self.by_path.get(path) == Some(&key)
        {
            self.by_path.remove(path);
        }
        for path in tail.path.iter().chain([&tail.name]) {
            take_out(&mut self.by_base, path.file_name().unwrap_or_default(), key);
        }
        take_out(&mut self.generations, &tail.name, key);
        take_out(&mut self.families, &tail.family, key);
        self.owing_no_more(&tail);
        Some(tail.position())
    }

    /// Takes a tail in.
    pub(super) fn follow(&mut self, tail: Tail) {
        let key = tail.key;
        self.by_inode.insert(tail.inode, key);
        self.know_base(&tail.name, key);
        if let Some(path) = &tail.path {
            self.know_base(path, key);
            self.by_path.insert(path.clone(), key);
            self.refused.remove(path);
        }
        self.generations
            .entry(tail.name.clone())
            .or_default()
            .push(key);
        self.families
            .entry(tail.family.clone())
            .or_default()
            .push(key);
        self.tails.insert(key, tail);
    }

    pub(super) fn know_base(&mut self, path: &Path, key: FileKey) {
        let base = path.file_name().unwrap_or_default().to_owned();
        let known = self.by_base.entry(base).or_default();
        if !known.contains(&key) {
            known.push(key);
        }
    }

    /// The file is no longer at `path`.
    pub(super) fn forget_base(&mut self, path: &Path, key: FileKey) {
        let base = path.file_name();
        let stays = self
            .tails
            .get(&key)
            .is_some_and(|tail| tail.name.file_name() == base);
        if !stays {
            take_out(&mut self.by_base, base.unwrap_or_default(), key);
        }
    }

    /// A generation was added to a family: what the others have by now comes before it.
    pub(super) fn owe(&mut self, family: &Path) {
        let members = self.families.get(family).map_or(&[][..], Vec::as_slice);
        if members.len() < 2 {
            return;
        }
        for key in members {
            let Some(tail) = self.tails.get_mut(key) else {
                continue;
            };
            tail.owed_until = tail.size;
            if tail.offset < tail.owed_until {
                self.owing
                    .entry(family.to_owned())
                    .or_default()
                    .insert((tail.found_unix_nano, tail.key));
            }
        }
    }

    pub(super) fn owing_no_more(&mut self, tail: &Tail) {
        if let Some(owing) = self.owing.get_mut(&tail.family) {
            owing.remove(&(tail.found_unix_nano, tail.key));
            if owing.is_empty() {
                self.owing.remove(&tail.family);
            }
        }
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
pub(super) fn is_removed(file: &std::fs::File) -> bool {
    rustix::fs::fstat(file.as_fd()).is_ok_and(|stat| stat.st_nlink == 0)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Takes one key out of a list of an index.
fn take_out<K, Q>(index: &mut HashMap<K, Vec<FileKey>>, place: &Q, key: FileKey)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(keys) = index.get_mut(place) {
        keys.retain(|&other| other != key);
        if keys.is_empty() {
            index.remove(place);
        }
    }
}
