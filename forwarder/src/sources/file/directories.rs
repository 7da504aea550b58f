//! Listings of directories, read again only when they changed.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, MetadataExt},
    },
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
    /// Its device; why it could not be listed.
    dev: Result<u64, io::ErrorKind>,
    entries: Arc<[Entry]>,
    /// Places in `entries` by inode, made when asked for.
    by_ino: Option<HashMap<u64, Vec<u32>>>,
    round: u64,
}

/// What a directory proves of the files that were in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// What is not in it is gone.
    Listed,
    /// It may not be listed: each name has to be looked at.
    Unlisted,
    /// It cannot be reached, or lies behind an empty mount point: nothing.
    Away,
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
    pub(crate) fn begin(&mut self, all_again: bool, now_unix_nano: i64) {
        self.round += 1;
        self.all_again = all_again;
        self.now_unix_nano = now_unix_nano;
    }

    /// Whether every directory of the last round is as it was listed, as far as its time stamp says; none is listed for it.
    pub(super) fn are_unchanged(&mut self) -> bool {
        let (round, all_again) = (self.round, self.all_again || self.listings.is_empty());
        !all_again
            && self.again.is_empty()
            && self.listings.iter_mut().all(|(directory, listing)| {
                let is_same = listing.stamp.is_some() && stamp(directory) == listing.stamp;
                if is_same {
                    listing.round = round;
                }
                is_same
            })
    }

    /// The directory is to be listed again in the next round, whatever its time stamp says.
    pub(crate) fn distrust(&mut self, directory: &Path) {
        self.again.insert(directory.to_owned());
    }

    /// Ends a round: forgets directories that no pattern led to.
    pub(crate) fn end(&mut self) {
        let round = self.round;
        self.listings.retain(|_, listing| listing.round == round);
        self.again.clear();
    }

    /// What `directory` holds; nothing where it cannot be read.
    pub(super) fn list(&mut self, directory: &Path) -> Arc<[Entry]> {
        if let Some(listing) = self.listings.get(directory)
            && listing.round == self.round
        {
            return Arc::clone(&listing.entries);
        }
        let again = self.all_again || self.again.contains(directory);
        self.list_anew(directory, again)
    }

    /// What `directory` holds now, within a round too.
    pub(super) fn list_now(&mut self, directory: &Path) -> Arc<[Entry]> {
        self.list_anew(directory, false)
    }

    fn list_anew(&mut self, directory: &Path, again: bool) -> Arc<[Entry]> {
        let meta = std::fs::metadata(directory);
        let stamp = meta
            .as_ref()
            .ok()
            .map(|meta| (meta.ino(), modified_unix_nano(meta)));
        if let Some(listing) = self.listings.get_mut(directory)
            && !again
            && stamp.is_some()
            && listing.stamp == stamp
        {
            listing.round = self.round;
            return Arc::clone(&listing.entries);
        }
        let read = meta.and_then(|meta| Ok((meta.dev(), read(directory)?)));
        let (dev, entries) = match read {
            Ok((dev, entries)) => (Ok(dev), entries),
            Err(error) => (Err(error.kind()), Vec::new()),
        };
        let entries: Arc<[Entry]> = entries.into();
        let settled = stamp.filter(|&(_, modified)| {
            dev.is_ok() && self.now_unix_nano.saturating_sub(modified) > SETTLED_AFTER_NANOS
        });
        let listing = Listing {
            stamp: settled,
            dev,
            entries: Arc::clone(&entries),
            by_ino: None,
            round: self.round,
        };
        self.listings.insert(directory.to_owned(), listing);
        entries
    }

    /// Names in `directory` that lead to inode `ino`, links not followed.
    pub(super) fn files_of(&mut self, directory: &Path, ino: u64) -> Vec<Entry> {
        let entries = self.list(directory);
        let Some(listing) = self.listings.get_mut(directory) else {
            return Vec::new();
        };
        let by_ino = listing.by_ino.get_or_insert_with(|| {
            let mut by_ino: HashMap<u64, Vec<u32>> = HashMap::new();
            for (at, entry) in entries.iter().enumerate() {
                if entry.kind == EntryKind::File {
                    by_ino.entry(entry.ino).or_default().push(at as u32);
                }
            }
            by_ino
        });
        let places = by_ino.get(&ino).into_iter().flatten();
        places.map(|&at| entries[at as usize].clone()).collect()
    }

    /// Whether there is no such directory: removed perhaps, with all that was in it.
    pub(super) fn is_missing(&self, directory: &Path) -> bool {
        let listing = self.listings.get(directory);
        listing.is_some_and(|listing| listing.dev == Err(io::ErrorKind::NotFound))
    }

    /// What `directory` proves of a file that was in it, on device `dev`.
    pub(super) fn proof(&mut self, directory: &Path, dev: u64) -> Proof {
        let entries = self.list(directory);
        match self.listings.get(directory).map(|listing| listing.dev) {
            Some(Ok(found)) if found != dev && entries.is_empty() => Proof::Away,
            Some(Ok(_)) => Proof::Listed,
            Some(Err(io::ErrorKind::PermissionDenied)) => Proof::Unlisted,
            Some(Err(_)) | None => Proof::Away,
        }
    }

    /// The directories of the last round: what is worth watching.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Path> {
        self.listings.keys().map(PathBuf::as_path)
    }
}

/// Inode and modification time of a directory.
fn stamp(directory: &Path) -> Option<(u64, i64)> {
    let meta = std::fs::metadata(directory).ok()?;
    Some((meta.ino(), modified_unix_nano(&meta)))
}

pub(crate) fn modified_unix_nano(meta: &std::fs::Metadata) -> i64 {
    meta.mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(meta.mtime_nsec())
}

/// As [`read`], read again while names come and go: a file that is renamed meanwhile may otherwise show under neither name.
pub(super) fn read_at_rest(directory: &Path) -> io::Result<Vec<Entry>> {
    const TRIES: usize = 4;
    let stamp = || {
        std::fs::metadata(directory)
            .ok()
            .map(|meta| modified_unix_nano(&meta))
    };
    let mut before = stamp();
    let mut entries = read(directory)?;
    for _ in 1..TRIES {
        let after = stamp();
        if after == before {
            break;
        }
        before = after;
        entries = read(directory)?;
    }
    Ok(entries)
}

/// What `directory` holds right now, by name. A listing that breaks off is an error: it would prove that files are gone.
pub(super) fn read(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_file() => EntryKind::File,
            Ok(kind) if kind.is_dir() => EntryKind::Directory,
            Ok(kind) if kind.is_symlink() => EntryKind::Link,
            _ => EntryKind::Other,
        };
        entries.push(Entry {
            ino: entry.ino(),
            name: entry.file_name(),
            kind,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Those of sorted `entries` that may be generations or copies of `base`: their names begin as its stem does.
pub(super) fn named_like<'a>(entries: &'a [Entry], base: &OsStr) -> &'a [Entry] {
    let bytes = base.as_bytes();
    let dot = bytes.iter().rposition(|&byte| byte == b'.');
    let stem = &bytes[..dot.filter(|&dot| dot > 0).unwrap_or(bytes.len())];
    let from = entries.partition_point(|entry| entry.name.as_bytes() < stem);
    let count = entries[from..].partition_point(|entry| entry.name.as_bytes().starts_with(stem));
    &entries[from..from + count]
}
