//! Listings of directories, read again only when they changed.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A change so shortly before the look may be followed by another one with the same time stamp: the look does not count as settled.
pub(super) const SETTLED_AFTER_NANOS: i64 = 100_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Link,
    Other,
}

/// One name in a directory. A link's inode is its own, not its target's.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) ino: u64,
    pub(crate) kind: EntryKind,
}

struct Listing {
    /// Inode and modification time of the directory as listed; `None`: not settled.
    stamp: Option<(u64, i64)>,
    entries: Arc<[Entry]>,
    round: u64,
}

/// The directories that the patterns of a source lead to. One round a scan: within it each directory is looked at once.
#[derive(Default)]
pub(crate) struct Directories {
    listings: HashMap<PathBuf, Listing>,
    round: u64,
    all_again: bool,
    again: HashSet<PathBuf>,
    now_unix_nano: i64,
}

impl Directories {
    /// Begins a round. `all_again`: list even what seems unchanged.
    pub(super) fn begin(&mut self, all_again: bool, now_unix_nano: i64) {
        self.round += 1;
        self.all_again = all_again;
        self.now_unix_nano = now_unix_nano;
    }

    /// The directory is to be listed again in the next round, whatever its time stamp says.
    pub(super) fn distrust(&mut self, directory: &Path) {
        self.again.insert(directory.to_owned());
    }

    /// Ends a round: forgets directories that no pattern led to.
    pub(super) fn end(&mut self) {
        let round = self.round;
        self.listings.retain(|_, listing| listing.round == round);
        self.again.clear();
    }

    /// What `directory` holds; nothing where it cannot be read.
    pub(super) fn list(&mut self, directory: &Path) -> Arc<[Entry]> {
        let again = self.all_again || self.again.contains(directory);
        if let Some(listing) = self.listings.get(directory)
            && listing.round == self.round
        {
            return Arc::clone(&listing.entries);
        }
        let stamp = std::fs::metadata(directory)
            .ok()
            .map(|meta| (meta.ino(), modified_unix_nano(&meta)));
        if let Some(listing) = self.listings.get_mut(directory)
            && !again
            && stamp.is_some()
            && listing.stamp == stamp
        {
            listing.round = self.round;
            return Arc::clone(&listing.entries);
        }
        let entries: Arc<[Entry]> = read(directory).into();
        let settled = stamp.filter(|&(_, modified)| {
            self.now_unix_nano.saturating_sub(modified) > SETTLED_AFTER_NANOS
        });
        let listing = Listing {
            stamp: settled,
            entries: Arc::clone(&entries),
            round: self.round,
        };
        self.listings.insert(directory.to_owned(), listing);
        entries
    }

    /// The directories of the last round: what is worth watching.
    pub(super) fn known(&self) -> impl Iterator<Item = &Path> {
        self.listings.keys().map(PathBuf::as_path)
    }
}

pub(super) fn modified_unix_nano(meta: &std::fs::Metadata) -> i64 {
    meta.mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(meta.mtime_nsec())
}

/// As [`read`], read again while names come and go: a file that is renamed meanwhile may otherwise show under neither name.
pub(super) fn read_at_rest(directory: &Path) -> Vec<Entry> {
    const TRIES: usize = 4;
    let stamp = || {
        std::fs::metadata(directory)
            .ok()
            .map(|meta| modified_unix_nano(&meta))
    };
    let mut before = stamp();
    let mut entries = read(directory);
    for _ in 1..TRIES {
        let after = stamp();
        if after == before {
            break;
        }
        before = after;
        entries = read(directory);
    }
    entries
}

/// What `directory` holds right now, by name; nothing where it cannot be read.
pub(super) fn read(directory: &Path) -> Vec<Entry> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut entries: Vec<Entry> = entries
        .filter_map(Result::ok)
        .map(|entry| {
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Directory,
                Ok(kind) if kind.is_symlink() => EntryKind::Link,
                _ => EntryKind::Other,
            };
            Entry {
                ino: entry.ino(),
                name: entry.file_name(),
                kind,
            }
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}
