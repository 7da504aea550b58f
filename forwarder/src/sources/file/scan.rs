//! Which files are there: patterns against directories, names against inodes.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::Stat;

use super::{
    FileSource, StartAt,
    directories::{Entry, EntryKind},
    identity::Inode,
    open::{self, OpenError},
    position::FileKey,
    tail::{Change, Moved, Tail},
};
use crate::sources::Intake;

/// Directories are listed in full this often, whatever their time stamps say.
const LIST_ALL_EVERY: u64 = 10;
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

    pub(super) fn size(&self) -> u64 {
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
        self.too_old.retain(|path, _| matched.contains_key(path));
        let unknown: Vec<&PathBuf> = matched
            .iter()
            .filter(|(path, entry)| !self.is_where_it_was(path, entry, intake))
            .map(|(path, _)| path)
            .collect();
        let mut found = Vec::new();
        for path in unknown {
            if self.is_still_too_old(path, intake) {
                continue;
            }
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
    pub(super) fn resume(
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
    pub(super) fn begin(
        &mut self,
        name: PathBuf,
        found: Found,
        in_pattern: bool,
        intake: &Intake<'_>,
    ) {
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
        let at_first_start = !self.started_before && self.owes_first_start && self.rounds == 1;
        if self.is_too_old(&found, at_first_start, intake) {
            return;
        }
        let there_first = match self.too_old.remove(&found.path) {
            Some(old) => old.at_first_start.then_some(old.size.min(found.size())),
            None => at_first_start.then_some(found.size()),
        };
        if let Some(size) = there_first {
            match self.config.start_at {
                StartAt::Beginning => tail.backfill_end = size,
                StartAt::End => {
                    let begun =
                        last_line(&found.file, size).and_then(|at| tail.skip_to(&found.file, at));
                    if let Err(error) = begun {
                        self.refuse_path(found.path, &OpenError::Io(error));
                        return;
                    }
                }
            }
        }
        self.adopt(tail, found, in_pattern, intake);
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
pub(super) fn leads_to(path: &Path, inode: Inode) -> bool {
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
