//! Where files are that no pattern leads to any more, and which ones came and went unseen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use super::{
    Away, FileSource,
    directories::{self, Entry, EntryKind, Proof, SETTLED_AFTER_NANOS, modified_unix_nano},
    identity::Inode,
    keeping::{REMEMBER_FOR, is_removed},
    names,
    open::{self, OpenError},
    position::{FileKey, Position},
    scan::{Found, New, leads_to},
    tail::{Change, Moved, standing},
};
use crate::sources::Intake;

/// Generations of one name that came and went between two looks: no more are looked for at once.
const MAX_MISSED: usize = 64;

impl FileSource {
    /// Finds out where files are that no pattern led to in this round.
    pub(super) fn relocate_tails(&mut self, intake: &mut Intake<'_>) {
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
            let removed = tail.handle.as_ref().is_some_and(is_removed);
            if self.lies_at(&path, inode) {
                continue;
            }
            if !removed && self.is_away(&path, inode, intake) {
                // As after a restart: known again by its content when it is back.
                if let Some(mut position) = self.forget(key) {
                    position.path = path;
                    self.orphans.insert(key, position);
                }
                continue;
            }
            if let Some(now_at) = self.named_in(path.parent(), inode) {
                match self.is_it(key, &now_at) {
                    Ok(true) => {
                        tracing::debug!(source = %self.config.name, path = %path.display(), now_at = %now_at.display(), "file was renamed");
                        self.moved_to(key, now_at);
                        continue;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        self.refuse_path(now_at, &error);
                        continue;
                    }
                }
            }
            self.unname(key, intake);
            let is_closed = self
                .tails
                .get(&key)
                .is_some_and(|tail| tail.handle.is_none());
            if is_closed && let Some(mut position) = self.forget(key) {
                position.path = path;
                self.missing(key, position, intake);
            }
        }
    }

    /// Whether what lies at `path` is the file itself, not another one that was given its inode. While it is open, nobody is.
    fn is_it(&self, key: FileKey, path: &Path) -> Result<bool, OpenError> {
        let Some(tail) = self.tails.get(&key) else {
            return Ok(false);
        };
        if tail.handle.is_some() {
            return Ok(true);
        }
        match open::open(path) {
            Ok((file, _)) => Ok(tail.stands(&file)?),
            Err(OpenError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// No name leads to the file any more.
    fn unname(&mut self, key: FileKey, intake: &Intake<'_>) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        tail.idle_since = intake.now.at;
        if let Some(path) = tail.path.take() {
            self.forget_base(&path, key);
            if self.by_path.get(&path) == Some(&key) {
                self.by_path.remove(&path);
            }
        }
    }

    /// Finds files by their inodes in the directory where they were, for positions that no matching name led to.
    pub(super) fn relocate_orphans(
        &mut self,
        changed: &mut Vec<(FileKey, Change)>,
        intake: &mut Intake<'_>,
    ) {
        let lost =
            |position: &Position| position.missing_since_unix_nano == 0 && !position.replaced;
        let keys: Vec<FileKey> = self
            .orphans
            .iter()
            .filter(|(_, position)| lost(position))
            .map(|(&key, _)| key)
            .collect();
        let mut away = HashMap::new();
        for key in keys {
            if changed.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let Some(position) = self.orphans.get(&key) else {
                continue;
            };
            let (path, inode, packed) = (position.path.clone(), position.inode, position.packed);
            let has_unread = position.known_size > position.offset;
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
            if named.is_none() && self.is_away(&path, inode, intake) {
                let Some(directory) = path.parent() else {
                    continue;
                };
                let since = self.away.get(directory).map(|away| away.since);
                let away: &mut Away = away.entry(directory.to_owned()).or_insert(Away {
                    since: since.unwrap_or(intake.now.at),
                    is_trouble: !self.directories.is_missing(directory),
                });
                away.is_trouble |= has_unread;
                continue;
            }
            let found = named.map(|path| open::open(&path).map(|opened| Found::new(path, opened)));
            match found {
                Some(Ok(found)) if found.inode() == inode && packed => {
                    self.go_on_packed(key, found, intake);
                }
                // Given back where it has other content: no pattern leads to it, so it is nobody's.
                Some(Ok(found)) if found.inode() == inode => {
                    let _ = self.resume(key, found, false, changed, intake);
                }
                // Tried again with the next scan.
                Some(Err(error)) if !matches!(error, OpenError::NotFound) => {
                    self.refuse_path(path, &error);
                }
                _ => {
                    if let Some(position) = self.orphans.remove(&key) {
                        self.missing(key, position, intake);
                    }
                }
            }
        }
        self.away = away;
    }

    /// Whether nothing proves that a file is gone: its directory cannot be reached just now. After a day it is gone all the same.
    fn is_away(&mut self, path: &Path, inode: Inode, intake: &Intake<'_>) -> bool {
        let Some(directory) = path.parent() else {
            return false;
        };
        match self.directories.proof(directory, inode.dev) {
            Proof::Listed => false,
            Proof::Unlisted => !std::fs::symlink_metadata(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound),
            Proof::Away => self.away.get(directory).is_none_or(|away| {
                intake.now.at.saturating_duration_since(away.since) < REMEMBER_FOR
            }),
        }
    }

    /// Whether the directory entry at `path` is this inode.
    pub(super) fn lies_at(&mut self, path: &Path, inode: Inode) -> bool {
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
    pub(super) fn named_in(&mut self, directory: Option<&Path>, inode: Inode) -> Option<PathBuf> {
        let directory = directory?;
        let named = self.directories.files_of(directory, inode.ino);
        named
            .into_iter()
            .map(|entry| directory.join(&entry.name))
            .find(|path| leads_to(path, inode))
    }

    pub(super) fn moved_to(&mut self, key: FileKey, path: PathBuf) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        let before = tail.path.replace(path.clone());
        tail.moved = tail.moved.max(Moved::Found);
        self.relocated.push(key);
        if let Some(before) = before {
            self.forget_base(&before, key);
            if self.by_path.get(&before) == Some(&key) {
                self.by_path.remove(&before);
            }
        }
        self.know_base(&path, key);
        self.by_path.insert(path, key);
    }

    /// What was found, and generations that were missed: of a name that leads to a new file, or to none, generations since the one that
    /// was last seen under it may have been renamed already, to names that no pattern leads to. Those written to after the old one was last
    /// seen under the name are read too.
    ///
    /// The directories are read anew, once each: the new files were opened after this round's listing, and others may have come and
    /// gone between.
    pub(super) fn with_missed(
        &self,
        found: Vec<Found>,
        matched: &BTreeMap<PathBuf, Entry>,
    ) -> Vec<New> {
        let absent = self
            .generations
            .keys()
            .filter(|name| !matched.contains_key(*name));
        let appeared = found.iter().map(|new| &new.path);
        let names: BTreeSet<PathBuf> = absent.chain(appeared).cloned().collect();
        let mut missed = Missed {
            source: self,
            matched,
            followed: None,
            orphans: HashMap::new(),
            last_confirmed: HashMap::new(),
            listings: HashMap::new(),
            seen: found.iter().map(Found::inode).collect(),
        };
        let mut new = Vec::new();
        for name in names {
            missed.find(&name, &mut new);
        }
        new.extend(found.into_iter().map(|found| New {
            name: found.path.clone(),
            found,
            in_pattern: true,
        }));
        new
    }
}

/// A search for generations that came and went between two looks.
struct Missed<'a> {
    source: &'a FileSource,
    matched: &'a BTreeMap<PathBuf, Entry>,
    /// Inodes of files that are followed; made when they are needed.
    followed: Option<HashSet<u64>>,
    /// Positions without a file by their inodes; made with `followed`.
    orphans: HashMap<u64, Vec<&'a Position>>,
    /// When names were last seen to lead to the file of an orphan; made with `followed`.
    last_confirmed: HashMap<&'a Path, i64>,
    listings: HashMap<PathBuf, Vec<Entry>>,
    /// Inodes that were found already.
    seen: HashSet<Inode>,
}

impl Missed<'_> {
    fn find(&mut self, name: &Path, new: &mut Vec<New>) {
        let (Some(directory), Some(base)) = (name.parent(), name.file_name()) else {
            return;
        };
        let source = self.source;
        if self.followed.is_none() {
            let tails = source.by_inode.keys().map(|inode| inode.ino);
            self.followed = Some(tails.collect());
            for position in source.orphans.values() {
                if !position.replaced {
                    let at = self.orphans.entry(position.inode.ino).or_default();
                    at.push(position);
                }
                let last = self.last_confirmed.entry(&position.name).or_default();
                *last = position.confirmed_unix_nano.max(*last);
            }
        }
        let generations = source.generations.get(name).into_iter().flatten();
        let confirmed = generations
            .filter_map(|key| source.tails.get(key))
            .map(|tail| tail.confirmed_unix_nano)
            .chain(self.last_confirmed.get(name).copied())
            .max();
        // A name that led nowhere at the last look has no generation that was seen: then all since that look were missed.
        let Some(confirmed) = confirmed.or(source.looked_unix_nano) else {
            return;
        };
        let entries = self
            .listings
            .entry(directory.to_owned())
            .or_insert_with(|| directories::read_at_rest(directory).unwrap_or_default());
        let mut count = 0;
        for entry in directories::named_like(entries, base) {
            let known = self
                .followed
                .as_ref()
                .is_some_and(|known| known.contains(&entry.ino));
            if entry.kind != EntryKind::File
                || !names::is_rotated(base, &entry.name)
                || names::is_packed(&entry.name)
                || known
                || count >= MAX_MISSED
            {
                continue;
            }
            let path = directory.join(&entry.name);
            let is_matched = self
                .matched
                .get(&path)
                .is_some_and(|listed| listed.ino == entry.ino);
            if is_matched || source.config.exclude.covers(&path) {
                continue;
            }
            let modified =
                std::fs::symlink_metadata(&path).map_or(0, |meta| modified_unix_nano(&meta));
            // Time stamps of files are coarser than the clock.
            if modified.saturating_add(SETTLED_AFTER_NANOS / 5) < confirmed {
                continue;
            }
            let Ok(opened) = open::open(&path) else {
                continue;
            };
            // Known by its content: an inode alone may have been given to another file since.
            let mut orphans = self.orphans.get(&entry.ino).into_iter().flatten();
            let is_known = |position: &&Position| {
                standing(position, &opened.0).is_ok_and(|standing| standing.is_ok())
            };
            if orphans.any(is_known) {
                continue;
            }
            let mut found = Found::new(path, opened);
            let inode = found.inode();
            if !self.seen.insert(inode) || source.own.covers(&found.path, inode.dev, inode.ino) {
                continue;
            }
            if new.len() >= source.max_open / 4 {
                found.close();
            }
            tracing::debug!(source = %source.config.name, path = %found.path.display(), "found a generation that was never seen under its name");
            count += 1;
            new.push(New {
                name: name.to_owned(),
                found,
                in_pattern: false,
            });
        }
    }
}
