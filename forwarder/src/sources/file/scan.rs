//! Which files are there: patterns against directories, names against inodes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::Stat;

use super::{
    FileSource, StartAt,
    directories::{Entry, EntryKind},
    identity::Inode,
    names,
    open::{self, OpenError},
    packed,
    position::FileKey,
    tail::{Change, Moved, Tail},
};
use crate::sources::{FirstStart, Intake};

/// Directories are listed in full this often, whatever their time stamps say.
const LIST_ALL_EVERY: u64 = 10;
/// How far back the beginning of the last line is looked for when reading begins at the end.
const LAST_LINE_BYTES: u64 = 64 << 10;

/// Generations are found at least so far apart: new contents of one file find their places between.
const FOUND_APART_NANOS: i64 = 1_000_000;

/// A file that was opened under a name.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
    /// Open, unless so many were found at once that it was closed again.
    file: Option<File>,
}

impl Found {
    pub(super) fn new(path: PathBuf, (file, stat): (File, Stat)) -> Found {
        let file = Some(file);
        Found { path, stat, file }
    }

    pub(super) fn inode(&self) -> Inode {
        Inode::of(&self.stat)
    }

    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    fn modified_unix_nano(&self) -> i64 {
        self.stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(self.stat.st_mtime_nsec as i64)
    }

    /// The file; not found where its name leads to another one by now.
    pub(super) fn file(&mut self) -> Result<&File, OpenError> {
        if self.file.is_none() {
            let (file, stat) = open::open(&self.path)?;
            if Inode::of(&stat) != self.inode() {
                return Err(OpenError::NotFound);
            }
            (self.file, self.stat) = (Some(file), stat);
        }
        self.file.as_ref().ok_or(OpenError::NotFound)
    }

    pub(super) fn close(&mut self) {
        self.file = None;
    }
}

/// A file that was never seen, and the name it is one of.
pub(super) struct New {
    pub(super) name: PathBuf,
    pub(super) found: Found,
    pub(super) in_pattern: bool,
}

impl New {
    /// The name that it shares with its other generations.
    fn family(&self) -> PathBuf {
        match self.name.file_name() {
            Some(base) => self.name.with_file_name(names::family(base)),
            None => self.name.clone(),
        }
    }
}

impl FileSource {
    /// Looks at every name that the patterns lead to: knows again what was moved, finds what is new, misses what is gone.
    pub(super) fn scan(&mut self, intake: &mut Intake<'_>) {
        self.rounds += 1;
        self.directories
            .begin(self.rounds % LIST_ALL_EVERY == 1, intake.now.unix_nano);
        let matched = self.matched();
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
            let Some(mut met) = self.meet(path, intake) else {
                continue;
            };
            if found.len() >= self.max_open / 2 {
                met.close();
            }
            found.push(met);
        }
        let mut changed = Vec::new();
        let found = self.resume_by_inode(found, &mut changed, intake);
        self.relocate_tails(intake);
        // Before what is new: an older generation that was closed may have grown before it was moved.
        for key in std::mem::take(&mut self.relocated) {
            self.look_at(key, intake);
        }
        self.relocate_orphans(&mut changed, intake);
        let mut cut = HashSet::new();
        for (key, change) in changed {
            if let Some(position) = self.orphans.remove(&key) {
                cut.insert(position.inode);
                self.content_gone(key, position, change, intake);
            }
        }
        let new = self.with_missed(found, &matched);
        self.begin_all(new, &cut, intake);
        for family in std::mem::take(&mut self.joined) {
            self.owe(&family);
        }
        self.directories.end();
        self.looked_unix_nano = Some(intake.now.unix_nano);
    }

    /// What the patterns lead to. Where no directory has changed, that is what they led to before.
    fn matched(&mut self) -> Arc<BTreeMap<PathBuf, Entry>> {
        if !self.directories.are_unchanged() || self.matched.is_none() {
            let mut matched: BTreeMap<PathBuf, Entry> = BTreeMap::new();
            for pattern in &self.config.paths {
                pattern.walk(&mut self.directories, &mut |path, entry| {
                    if !names::is_packed(&entry.name) && !self.config.exclude.covers(&path) {
                        matched.insert(path, entry);
                    }
                });
            }
            self.matched = Some(Arc::new(matched));
        }
        self.matched.clone().unwrap_or_default()
    }

    /// Follows files that were never seen: of each family the oldest first, and the one that has the name itself last.
    fn begin_all(&mut self, new: Vec<New>, cut: &HashSet<Inode>, intake: &Intake<'_>) {
        let mut families: BTreeMap<PathBuf, Vec<New>> = BTreeMap::new();
        for new in new {
            families.entry(new.family()).or_default().push(new);
        }
        for (family, mut new) in families {
            new.sort_by(|a, b| {
                let key = |new: &'_ New| {
                    let is_newest = new.found.path == family;
                    (is_newest, new.found.modified_unix_nano())
                };
                let age = |new: &'_ New| {
                    let base = new.found.path.file_name().unwrap_or_default();
                    let (number, name) = names::age(base);
                    (number, name.to_owned())
                };
                key(a).cmp(&key(b)).then_with(|| age(a).cmp(&age(b)))
            });
            for New {
                name,
                found,
                in_pattern,
            } in new
            {
                let after_cut = cut.contains(&found.inode());
                self.begin(name, found, in_pattern, after_cut, intake);
            }
        }
    }

    /// Whether it is not known yet where to begin.
    pub(super) fn waits_to_begin(&self) -> bool {
        self.first_start == FirstStart::Wait
            && self.config.start_at == StartAt::End
            && !self.started_before
            && self.rounds == 0
    }

    /// Notes how long files are when the source begins to wait.
    pub(super) fn remember_sizes(&mut self) {
        if self.waited_with.is_some() {
            return;
        }
        let mut sizes = HashMap::new();
        self.directories.begin(true, 0);
        for pattern in &self.config.paths {
            pattern.walk(&mut self.directories, &mut |path, _| {
                if let Ok(stat) = rustix::fs::stat(&path) {
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    sizes.insert(Inode::of(&stat), size);
                }
            });
        }
        self.waited_with = Some(sizes);
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
        let mut found = match open::open(path) {
            Ok(opened) => Found::new(path.to_owned(), opened),
            Err(OpenError::NotFound) => return None,
            Err(error) => {
                self.refuse_path(path.to_owned(), &error);
                return None;
            }
        };
        if self.own.covers(path, found.inode().dev, found.inode().ino) {
            self.refuse_path(
                path.to_owned(),
                &OpenError::Io(io::Error::other("is the forwarder's own")),
            );
            return None;
        }
        let Some(&key) = self.by_inode.get(&found.inode()) else {
            if found
                .file()
                .is_ok_and(|file| packed::begins_packed(file).unwrap_or(false))
            {
                self.refuse_path(path.to_owned(), &OpenError::Packed);
                return None;
            }
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
        let stands = match (&tail.handle, found.file()) {
            (Some(_), _) => Ok(true),
            (None, Ok(file)) => tail.stands(file).map_err(OpenError::Io),
            (None, Err(error)) => Err(error),
        };
        let stands = match stands {
            Ok(stands) => stands,
            Err(error) => {
                self.refuse_path(path.to_owned(), &error);
                return None;
            }
        };
        if !stands {
            // The inode has been given to another file since.
            let position = self.forget(key)?;
            self.orphan(key, position, intake.now);
            return Some(found);
        }
        self.moved_to(key, path.to_owned());
        if let Some(tail) = self.tails.get_mut(&key) {
            tail.see(rounds, intake);
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
        let mut by_inode: HashMap<Inode, FileKey> = HashMap::new();
        let mut by_place: HashMap<(PathBuf, u64), FileKey> = HashMap::new();
        for (&key, position) in &self.orphans {
            if !position.replaced && !position.packed {
                by_inode.insert(position.inode, key);
                by_place.insert((position.path.clone(), position.inode.ino), key);
            }
        }
        let mut new = Vec::new();
        for found in found {
            // By the second: the same file on a device that has another number now.
            let place = (found.path.clone(), found.inode().ino);
            let key = by_inode
                .get(&found.inode())
                .or_else(|| by_place.get(&place));
            match key.copied() {
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
        mut found: Found,
        in_pattern: bool,
        changed: &mut Vec<(FileKey, Change)>,
        intake: &Intake<'_>,
    ) -> Option<Found> {
        let Some(position) = self.orphans.get(&key) else {
            return Some(found);
        };
        let file = match found.file() {
            Ok(file) => file,
            Err(OpenError::NotFound) => return None,
            Err(error) => {
                self.refuse_path(found.path, &error);
                return None;
            }
        };
        match Tail::resume(&self.config.name, key, position, file, intake.now) {
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
                found.close();
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
        if self.open_files < self.max_open
            && let Some(file) = found.file
        {
            tail.handle = Some(file);
            self.open_files += 1;
        }
        self.joined.insert(tail.family.clone());
        let has_unread = tail.unread_bytes() > 0;
        self.follow(tail);
        if has_unread {
            self.queue(key);
        }
    }

    /// Follows a file that was never seen, as the newest of its family so far. `after_cut`: its inode had other content before.
    fn begin(
        &mut self,
        name: PathBuf,
        mut found: Found,
        in_pattern: bool,
        after_cut: bool,
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
        tail.after_cut = after_cut;
        let generations = self.families.get(&tail.family).into_iter().flatten();
        let newest = generations
            .filter_map(|key| self.tails.get(key))
            .map(|tail| tail.found_unix_nano)
            .max();
        tail.found_unix_nano = newest.map_or(tail.found_unix_nano, |newest| {
            tail.found_unix_nano
                .max(newest.saturating_add(FOUND_APART_NANOS))
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
            let from_beginning = self.first_start == FirstStart::FromBeginning;
            match self.config.start_at {
                _ if from_beginning => tail.backfill_end = size,
                StartAt::Beginning => tail.backfill_end = size,
                StartAt::End => {
                    // What came while it waited to begin is not old.
                    let waited_with = self.waited_with.as_ref();
                    let before = waited_with.map(|sizes| sizes.get(&found.inode()).copied());
                    let size = size.min(before.map_or(u64::MAX, Option::unwrap_or_default));
                    let begun = found.file().and_then(|file| {
                        let at = last_line(file, size)?;
                        Ok(tail.skip_to(file, at)?)
                    });
                    if let Err(error) = begun {
                        self.refuse_path(found.path, &error);
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
    rustix::fs::stat(path).is_ok_and(|stat| Inode::of(&stat) == inode)
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
