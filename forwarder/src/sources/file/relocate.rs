//! Where files are that no pattern leads to any more, and which ones came and went unseen.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use super::{
    FileSource,
    directories::{self, Entry, EntryKind, SETTLED_AFTER_NANOS, modified_unix_nano},
    identity::Inode,
    names, open,
    position::FileKey,
    scan::{Found, leads_to},
    tail::{Change, Moved},
};
use crate::sources::Intake;

/// Generations that came and went between two looks: no more are looked for at once.
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
    pub(super) fn relocate_orphans(
        &mut self,
        changed: &mut Vec<(FileKey, Change)>,
        intake: &mut Intake<'_>,
    ) {
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
        let entries = self.directories.list(directory);
        let mut named = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File && entry.ino == inode.ino);
        named
            .by_ref()
            .map(|entry| directory.join(&entry.name))
            .find(|path| leads_to(path, inode))
    }

    pub(super) fn moved_to(&mut self, key: FileKey, path: PathBuf) {
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
    pub(super) fn find_missed(
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
}
