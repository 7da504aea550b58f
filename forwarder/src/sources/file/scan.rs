//! Which files are there: patterns against directories, names against inodes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Stat, fstat};

use super::{
    FileSource, StartAt,
    directories::{self, Entry, EntryKind, SETTLED_AFTER_NANOS, modified_unix_nano},
    identity::Inode,
    is_gone, names,
    open::{self, OpenError},
    position::FileKey,
    tail::{Change, Intake, Moved, Tail},
};
use crate::gaps::{Gap, GapReason};

/// Directories are listed in full this often, whatever their time stamps say.
const LIST_ALL_EVERY: u64 = 10;
/// Generations that came and went between two looks: no more are looked for at once.
const MAX_MISSED: usize = 64;
/// How far back the beginning of the last line is looked for when reading begins at the end.
const LAST_LINE_BYTES: u64 = 64 << 10;

/// A file that was opened under a name.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) stat: Stat,
}

impl Found {
    pub(super) fn inode(&self) -> Inode {
        Inode {
            dev: self.stat.st_dev,
            ino: self.stat.st_ino,
        }
    }

    fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }
}

impl FileSource {
    /// Looks at every name that the patterns lead to: knows again what was moved, finds what is new, misses what is gone.
    pub(super) fn scan(&mut self, intake: &mut Intake<'_>) {
        self.rounds += 1;
        self.directories
            .begin(self.rounds % LIST_ALL_EVERY == 1, intake.now.unix_nano);
        let mut matched: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        for pattern in &self.config.paths {
            pattern.walk(&mut self.directories, &mut |path, entry| {
                if !self.config.exclude.covers(&path) {
                    matched.insert(path, entry);
                }
            });
        }
        self.refused.retain(|path, _| matched.contains_key(path));
        let unknown: Vec<&PathBuf> = matched
            .iter()
            .filter(|(path, entry)| !self.is_where_it_was(path, entry, intake))
            .map(|(path, _)| path)
            .collect();
        let mut found = Vec::new();
        for path in unknown {
            found.extend(self.meet(path, intake));
        }
        let mut changed = Vec::new();
        let found = self.resume_by_inode(found, &mut changed, intake);
        self.relocate_tails(intake);
        self.relocate_orphans(&mut changed, intake);
        for (key, change) in changed {
            if let Some(position) = self.orphans.remove(&key) {
                self.content_gone(key, position, change, intake);
            }
        }
        let absent: Vec<PathBuf> = self
            .generations
            .keys()
            .filter(|name| !matched.contains_key(*name))
            .cloned()
            .collect();
        for name in absent {
            self.find_missed(&name, &matched, intake);
        }
        for new in found {
            self.find_missed(&new.path, &matched, intake);
            let name = new.path.clone();
            self.begin(name, new, true, intake);
        }
        self.directories.end();
        self.looked_unix_nano = Some(intake.now.unix_nano);
    }

    /// Whether a name still leads to the file that it led to, by the inode in its directory.
    fn is_where_it_was(&mut self, path: &Path, entry: &Entry, intake: &Intake<'_>) -> bool {
        let Some(tail) = self
            .by_path
            .get(path)
            .and_then(|key| self.tails.get_mut(key))
        else {
            return false;
        };
        if entry.kind != EntryKind::File || entry.ino != tail.inode.ino {
            return false;
        }
        tail.see(self.rounds, intake);
        true
    }

    /// Opens what a name leads to; `None` when it is a file that is followed already, or none that may be read.
    fn meet(&mut self, path: &Path, intake: &Intake<'_>) -> Option<Found> {
        let (file, stat) = match open::open(path) {
            Ok(opened) => opened,
            Err(OpenError::NotFound) => return None,
            Err(error) => {
                self.refuse_path(path.to_owned(), &error);
                return None;
            }
        };
        let found = Found {
            path: path.to_owned(),
            file,
            stat,
        };
        if self.own.covers(path, found.inode().dev, found.inode().ino) {
            self.refuse_path(
                path.to_owned(),
                &OpenError::Io(io::Error::other("is the forwarder's own")),
            );
            return None;
        }
        let Some(&key) = self.by_inode.get(&found.inode()) else {
            return Some(found);
        };
        let rounds = self.rounds;
        let tail = self.tails.get_mut(&key)?;
        if tail.path.as_deref() == Some(path) {
            tail.see(rounds, intake);
            return None;
        }
        if let Some(before) = &tail.path
            && leads_to(before, tail.inode)
        {
            if tail.seen_in_round == rounds || !tail.in_pattern {
                if self.aliases.insert(path.to_owned()) {
                    tracing::warn!(source = %self.config.name, path = %path.display(), other = %before.display(), "one file under two names, read once");
                }
            } else {
                tail.see(rounds, intake);
            }
            return None;
        }
        if tail.handle.is_none() && !tail.stands(&found.file).unwrap_or(false) {
            // The inode has been given to another file since.
            let position = self.forget(key)?;
            self.orphan(key, position, intake.now);
            return Some(found);
        }
        self.moved_to(key, path.to_owned());
        if let Some(tail) = self.tails.get_mut(&key) {
            tail.see(rounds, intake);
            tail.handle.get_or_insert(found.file);
        }
        None
    }

    /// Goes on with files whose positions are known, by their inodes; what is left is new. Where an inode has other content by now, its
    /// position goes to `changed`.
    fn resume_by_inode(
        &mut self,
        found: Vec<Found>,
        changed: &mut Vec<(FileKey, Change)>,
        intake: &Intake<'_>,
    ) -> Vec<Found> {
        if self.orphans.is_empty() {
            return found;
        }
        let orphans = self
            .orphans
            .iter()
            .filter(|(_, position)| !position.replaced);
        let by_inode: HashMap<Inode, FileKey> = orphans
            .map(|(&key, position)| (position.inode, key))
            .collect();
        let mut new = Vec::new();
        for found in found {
            let key = by_inode.get(&found.inode()).copied().or_else(|| {
                // The same file on a device that has another number now.
                let same = |position: &super::Position| {
                    position.inode.ino == found.inode().ino
                        && position.path == found.path
                        && !position.replaced
                };
                self.orphans
                    .iter()
                    .find(|(_, position)| same(position))
                    .map(|(&key, _)| key)
            });
            match key {
                Some(key) => new.extend(self.resume(key, found, true, changed, intake)),
                None => new.push(found),
            }
        }
        new
    }

    /// Goes on with the file of an orphaned position; gives it back when it is new all the same.
    fn resume(
        &mut self,
        key: FileKey,
        found: Found,
        in_pattern: bool,
        changed: &mut Vec<(FileKey, Change)>,
        intake: &Intake<'_>,
    ) -> Option<Found> {
        let position = self.orphans.get(&key)?;
        match Tail::resume(&self.config.name, key, position, &found.file, intake.now) {
            Ok(Ok(mut tail)) => {
                if position.missing_since_unix_nano != 0
                    || position.path != found.path
                    || position.inode != found.inode()
                {
                    tail.moved = Moved::Found;
                }
                self.orphans.remove(&key);
                self.moved_orphans.remove(&key);
                self.adopt(tail, found, in_pattern, intake);
                None
            }
            Ok(Err(change)) => {
                changed.push((key, change));
                Some(found)
            }
            Err(error) => {
                self.refuse_path(found.path, &OpenError::Io(error));
                None
            }
        }
    }

    /// Follows a tail in the file that was found for it.
    pub(super) fn adopt(
        &mut self,
        mut tail: Tail,
        found: Found,
        in_pattern: bool,
        intake: &Intake<'_>,
    ) {
        let key = tail.key;
        (tail.inode, tail.size, tail.in_pattern) = (found.inode(), found.size(), in_pattern);
        tail.known_size = tail.known_size.max(tail.size);
        tail.path = Some(found.path);
        tail.seen_in_round = self.rounds;
        tail.confirm(intake);
        if self.tails.len() < super::MAX_OPEN {
            tail.handle = Some(found.file);
        }
        let has_unread = tail.unread_bytes() > 0;
        self.follow(tail);
        if has_unread {
            self.queue(key);
        }
    }

    /// Follows a file that was never seen.
    fn begin(&mut self, name: PathBuf, found: Found, in_pattern: bool, intake: &Intake<'_>) {
        if self.by_inode.contains_key(&found.inode()) {
            return;
        }
        let mut tail = Tail::new(
            &self.config.name,
            self.new_key(),
            name,
            found.inode(),
            intake.now,
        );
        let generations = self.generations.get(&tail.name).into_iter().flatten();
        let newest = generations
            .filter_map(|key| self.tails.get(key))
            .map(|tail| tail.found_unix_nano)
            .max();
        tail.found_unix_nano = newest.map_or(tail.found_unix_nano, |newest| {
            tail.found_unix_nano.max(newest + 1)
        });
        if !self.started_before && self.owes_first_start && self.rounds == 1 {
            match self.config.start_at {
                StartAt::Beginning => tail.backfill_end = found.size(),
                StartAt::End => {
                    let begun = last_line(&found.file, found.size())
                        .and_then(|at| tail.skip_to(&found.file, at));
                    if let Err(error) = begun {
                        self.refuse_path(found.path, &OpenError::Io(error));
                        return;
                    }
                }
            }
        }
        self.adopt(tail, found, in_pattern, intake);
    }

    /// Finds out where files are that no pattern led to in this round.
    fn relocate_tails(&mut self, intake: &mut Intake<'_>) {
        let unseen: Vec<FileKey> = self
            .tails
            .values()
            .filter(|tail| tail.seen_in_round != self.rounds)
            .map(|tail| tail.key)
            .collect();
        for key in unseen {
            let Some(tail) = self.tails.get_mut(&key) else {
                continue;
            };
            tail.in_pattern = false;
            let (inode, Some(path)) = (tail.inode, tail.path.clone()) else {
                continue;
            };
            if self.lies_at(&path, inode) {
                continue;
            }
            if let Some(now_at) = self.named_in(path.parent(), inode) {
                tracing::debug!(source = %self.config.name, path = %path.display(), now_at = %now_at.display(), "file was renamed");
                self.moved_to(key, now_at);
                continue;
            }
            if self.by_path.get(&path) == Some(&key) {
                self.by_path.remove(&path);
            }
            let Some(tail) = self.tails.get_mut(&key) else {
                continue;
            };
            tail.path = None;
            tail.idle_since = intake.now.at;
            if tail.handle.is_none()
                && let Some(mut position) = self.forget(key)
            {
                position.path = path;
                self.missing(key, position, intake);
            }
        }
    }

    /// Finds files by their inodes in the directory where they were, for positions that no matching name led to.
    fn relocate_orphans(&mut self, changed: &mut Vec<(FileKey, Change)>, intake: &mut Intake<'_>) {
        let lost = |position: &super::Position| {
            position.missing_since_unix_nano == 0 && !position.replaced
        };
        let keys: Vec<FileKey> = self
            .orphans
            .iter()
            .filter(|(_, position)| lost(position))
            .map(|(&key, _)| key)
            .collect();
        for key in keys {
            if changed.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let Some(position) = self.orphans.get(&key) else {
                continue;
            };
            let (path, inode) = (position.path.clone(), position.inode);
            if self.by_inode.contains_key(&inode) {
                self.orphans.remove(&key);
                self.removed.insert(key);
                continue;
            }
            let named = if self.lies_at(&path, inode) {
                Some(path.clone())
            } else {
                self.named_in(path.parent(), inode)
            };
            let found = named.and_then(|path| {
                open::open(&path)
                    .ok()
                    .map(|(file, stat)| Found { path, file, stat })
            });
            if let Some(found) = found.filter(|found| found.inode() == inode) {
                // Given back where it has other content: no pattern leads to it, so it is nobody's.
                let _ = self.resume(key, found, false, changed, intake);
            } else if let Some(position) = self.orphans.remove(&key) {
                self.missing(key, position, intake);
            }
        }
    }

    /// Whether the directory entry at `path` is this inode.
    fn lies_at(&mut self, path: &Path, inode: Inode) -> bool {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        let entries = self.directories.list(directory);
        match entries.binary_search_by(|entry| entry.name.as_os_str().cmp(name)) {
            Ok(at) if entries[at].kind == EntryKind::File && entries[at].ino == inode.ino => true,
            Ok(_) => leads_to(path, inode),
            Err(_) => entries.is_empty() && leads_to(path, inode),
        }
    }

    /// The name of an inode in a directory.
    fn named_in(&mut self, directory: Option<&Path>, inode: Inode) -> Option<PathBuf> {
        let directory = directory?;
        let entries = self.directories.list(directory);
        let mut named = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File && entry.ino == inode.ino);
        named
            .by_ref()
            .map(|entry| directory.join(&entry.name))
            .find(|path| leads_to(path, inode))
    }

    fn moved_to(&mut self, key: FileKey, path: PathBuf) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        if let Some(before) = tail.path.replace(path.clone())
            && self.by_path.get(&before) == Some(&key)
        {
            self.by_path.remove(&before);
        }
        tail.moved = tail.moved.max(Moved::Found);
        self.by_path.insert(path, key);
    }

    /// A name leads to a new file, or to none: generations since the one that was last seen under it may have been renamed already, to names
    /// that no pattern leads to. Those written to after the old one was last seen under the name are read too, oldest first.
    ///
    /// The directory is read anew: the new file was opened after this round's listing, and one may have come and gone between.
    fn find_missed(
        &mut self,
        name: &Path,
        matched: &BTreeMap<PathBuf, Entry>,
        intake: &Intake<'_>,
    ) {
        let (Some(directory), Some(base)) = (name.parent(), name.file_name()) else {
            return;
        };
        let tails = self
            .generations
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|key| self.tails.get(key));
        let tails = tails.map(|tail| tail.confirmed_unix_nano);
        let orphans = self
            .orphans
            .values()
            .filter(|position| position.name == name);
        // A name that led nowhere at the last look has no generation that was seen: then all since that look were missed.
        let Some(confirmed) = tails
            .chain(orphans.map(|position| position.confirmed_unix_nano))
            .max()
            .or(self.looked_unix_nano)
        else {
            return;
        };
        let followed: HashSet<u64> = self.by_inode.keys().map(|inode| inode.ino).collect();
        let mut missed = Vec::new();
        for entry in directories::read_at_rest(directory) {
            if entry.kind != EntryKind::File
                || !names::is_rotated(base, &entry.name)
                || names::is_packed(&entry.name)
                || followed.contains(&entry.ino)
            {
                continue;
            }
            let path = directory.join(&entry.name);
            let is_matched = matched
                .get(&path)
                .is_some_and(|listed| listed.ino == entry.ino);
            if is_matched || self.config.exclude.covers(&path) {
                continue;
            }
            let modified =
                std::fs::symlink_metadata(&path).map_or(0, |meta| modified_unix_nano(&meta));
            // Time stamps of files are coarser than the clock.
            if modified.saturating_add(SETTLED_AFTER_NANOS / 5) < confirmed {
                continue;
            }
            if let Ok((file, stat)) = open::open(&path) {
                missed.push((modified, Found { path, file, stat }));
            }
        }
        missed.sort_by_key(|(modified, _)| *modified);
        for (_, found) in missed.into_iter().take(MAX_MISSED) {
            let known = self
                .orphans
                .values()
                .any(|position| position.inode == found.inode() && !position.replaced);
            if !known
                && !self
                    .own
                    .covers(&found.path, found.inode().dev, found.inode().ino)
            {
                tracing::debug!(source = %self.config.name, path = %found.path.display(), "found a generation that was never seen under its name");
                self.begin(name.to_owned(), found, false, intake);
            }
        }
    }

    /// A file became shorter, though not shorter than what was read of it: it was cut within what is unread, or is other content.
    fn shrunk(&mut self, key: FileKey, intake: &mut Intake<'_>) {
        if let Err(error) = self.open_again(key) {
            return self.refuse(key, error);
        }
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
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

    /// Looks whether a file grew, shrank or was written over.
    pub(super) fn look_at(&mut self, key: FileKey, intake: &mut Intake<'_>) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
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
        if (Inode {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }) != tail.inode
        {
            return; // the scan finds out
        }
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
            (stat.st_mtime as i64)
                .saturating_mul(1_000_000_000)
                .saturating_add(stat.st_mtime_nsec as i64),
            (stat.st_ctime as i64)
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
    }
}

impl Tail {
    /// A pattern leads to it in this round.
    fn see(&mut self, round: u64, intake: &Intake<'_>) {
        self.seen_in_round = round;
        self.in_pattern = true;
        self.confirm(intake);
    }

    /// Notes that it is still what its name leads to, if it is: what was written after that may be of a later generation.
    fn confirm(&mut self, intake: &Intake<'_>) {
        if self.in_pattern && self.path.as_ref() == Some(&self.name) {
            self.confirmed_unix_nano = intake.now.unix_nano;
        }
    }
}

/// Whether `path`, links followed, is this inode now.
fn leads_to(path: &Path, inode: Inode) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| {
        (Inode {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }) == inode
    })
}

/// Where the last line begins that is not complete, or the end.
fn last_line(file: &File, size: u64) -> io::Result<u64> {
    let from = size.saturating_sub(LAST_LINE_BYTES);
    let mut bytes = vec![0; (size - from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    Ok(match memchr::memrchr(b'\n', &bytes) {
        Some(feed) => from + feed as u64 + 1,
        None if from == 0 => 0,
        None => size,
    })
}
