//! Copies beside their originals: known as such before their first byte is read, followed for as long as both agree.

use std::{ffi::OsStr, fs::File, io, os::fd::AsFd, path::Path};

use super::{
    FileSource,
    identity::{Guard, HEAD_BYTES, Inode, read_whole},
    names,
    position::{FileKey, Position},
    tail::{Moved, Tail},
};
use crate::sources::Intake;

impl FileSource {
    /// Copies that followed this content go on by themselves; `true` when one of them has all that was unread.
    pub(super) fn hand_to_copies(&mut self, key: FileKey, position: &Position) -> bool {
        let copies: Vec<FileKey> = self
            .tails
            .values()
            .filter(|tail| tail.copy_of == Some(key))
            .map(|tail| tail.key)
            .collect();
        let mut taken_over = false;
        for copy in copies {
            let opened = self.open_again(copy).is_ok();
            let Some(tail) = self.tails.get_mut(&copy) else {
                continue;
            };
            tail.copy_of = None;
            tail.moved = tail.moved.max(Moved::Found);
            let Some(file) = tail.handle.take().filter(|_| opened) else {
                continue;
            };
            tail.size = size_of(&file).unwrap_or(tail.size);
            // It has been a copy so far: what it has up to the offset was read from the original.
            let had = tail.size.min(position.offset);
            if had > tail.offset {
                let _ = tail.skip_to(&file, had);
            }
            taken_over |= tail.offset == position.offset && tail.guard.print() == position.guard;
            let has_unread = tail.unread_bytes() > 0;
            tail.handle = Some(file);
            if has_unread {
                self.queue(copy);
            }
        }
        taken_over
    }

    /// Before the first byte of a file is taken: whether it is a copy of one that is known. `false` when it has nothing to read by itself.
    pub(super) fn classify(&mut self, key: FileKey, intake: &mut Intake<'_>) -> bool {
        let Some(tail) = self.tails.get(&key) else {
            return false;
        };
        if tail.classified || tail.offset > 0 {
            return true;
        }
        let size = tail
            .handle
            .as_ref()
            .and_then(|file| size_of(file).ok())
            .unwrap_or(0);
        if size == 0 {
            return true;
        }
        let Some(path) = tail.path.clone() else {
            return true;
        };
        let inode = tail.inode;
        // The originals first: they may have been cut only now.
        let originals = self.originals_of(key, &path);
        for &original in &originals {
            self.look_at(original, intake);
        }
        if !self.tails.contains_key(&key) {
            return false; // it has become the copy in which another goes on
        }
        if self.continues_orphan(key, &path, inode, intake) {
            return false;
        }
        for original in originals {
            let is_copy = self.is_copy_of(key, original, size);
            self.close_surplus(original);
            if is_copy {
                self.close_surplus(key);
                return false;
            }
        }
        if let Some(tail) = self.tails.get_mut(&key) {
            tail.classified = true;
        }
        true
    }

    /// Files of which `path` may be a copy by its name.
    fn originals_of(&self, key: FileKey, path: &Path) -> Vec<FileKey> {
        let Some(name) = path.file_name() else {
            return Vec::new();
        };
        let known = |base: &OsStr| self.by_base.get(base).into_iter().flatten();
        let mut originals: Vec<FileKey> = names::originals(name)
            .iter()
            .flat_map(|base| known(base))
            .copied()
            .collect();
        originals.sort_unstable();
        originals.dedup();
        originals.retain(|&original| {
            original != key
                && self
                    .tails
                    .get(&original)
                    .is_some_and(|tail| tail.offset > 0 && tail.copy_of.is_none())
        });
        originals
    }

    /// Whether a new file is the copy of content whose own file is gone or was cut; it then goes on there.
    fn continues_orphan(
        &mut self,
        key: FileKey,
        path: &Path,
        inode: Inode,
        intake: &Intake<'_>,
    ) -> bool {
        let Some(name) = path.file_name() else {
            return false;
        };
        let Some(file) = self.tails.get(&key).and_then(|tail| tail.handle.as_ref()) else {
            return false;
        };
        let named_alike = |position: &Position| {
            [&position.name, &position.path]
                .into_iter()
                .filter_map(|path| path.file_name())
                .any(|original| names::is_rotated(original, name))
        };
        let continued = self.orphans.iter().find_map(|(&orphan, position)| {
            let candidate = position.offset > 0 && position.inode != inode && named_alike(position);
            let position = Some(position).filter(|_| candidate)?;
            let tail = Tail::resume(&self.config.name, orphan, position, file, intake.now)
                .ok()?
                .ok()?;
            Some((orphan, tail))
        });
        let Some((orphan, mut resumed)) = continued else {
            return false;
        };
        self.orphans.remove(&orphan);
        self.moved_orphans.remove(&orphan);
        let Some(tail) = self.tails.get_mut(&key) else {
            return false;
        };
        let (handle, in_pattern, size) = (tail.handle.take(), tail.in_pattern, tail.size);
        let seen_in_round = tail.seen_in_round;
        self.forget(key);
        self.removed.insert(key);
        (resumed.inode, resumed.path, resumed.handle) = (inode, Some(path.to_owned()), handle);
        (resumed.in_pattern, resumed.size, resumed.seen_in_round) =
            (in_pattern, size, seen_in_round);
        resumed.moved = Moved::Found;
        resumed.copy_of = None;
        let has_unread = resumed.unread_bytes() > 0;
        self.follow(resumed);
        if has_unread {
            self.queue(orphan);
        }
        true
    }

    /// Whether `key` is, so far, a copy of `original`; it then follows its offset.
    fn is_copy_of(&mut self, key: FileKey, original: FileKey, size: u64) -> bool {
        if self.open_again(original).is_err() {
            return false;
        }
        let (Some(copy), Some(tail)) = (self.tails.get(&key), self.tails.get(&original)) else {
            return false;
        };
        let (Some(copy_file), Some(file)) = (&copy.handle, &tail.handle) else {
            return false;
        };
        let upto = size.min(tail.offset);
        let alike = if upto == tail.offset {
            tail.stands(copy_file)
        } else {
            same_before(file, copy_file, upto)
        };
        if !alike.unwrap_or(false) {
            return false;
        }
        let Some(copy) = self.tails.get_mut(&key) else {
            return false;
        };
        let Some(copy_file) = copy.handle.take() else {
            return false;
        };
        let skipped = copy.skip_to(&copy_file, upto).unwrap_or(false);
        copy.handle = Some(copy_file);
        if skipped {
            tracing::debug!(source = %self.config.name, path = ?copy.path, "is a copy of a file that is followed");
            copy.copy_of = Some(original);
            copy.size = size;
        }
        skipped
    }

    pub(super) fn follow_copies(&mut self) {
        let copies: Vec<FileKey> = self
            .tails
            .values()
            .filter(|tail| tail.copy_of.is_some())
            .map(|tail| tail.key)
            .collect();
        for copy in copies {
            let original = self.tails.get(&copy).and_then(|tail| tail.copy_of);
            self.follow_copy(copy);
            self.close_surplus(copy);
            if let Some(original) = original {
                self.close_surplus(original);
            }
        }
    }

    /// Moves the offset of a copy to where its original is, or lets it go on by itself where they differ.
    pub(super) fn follow_copy(&mut self, key: FileKey) {
        let Some(tail) = self.tails.get(&key) else {
            return;
        };
        let Some(original) = tail.copy_of else { return };
        let (size, offset) = (tail.size, tail.offset);
        if size <= offset && self.tails.contains_key(&original) {
            return;
        }
        let _ = (self.open_again(original), self.open_again(key));
        let expected = self.tails.get(&original).map(|original| {
            let upto = size.min(original.offset);
            let guard = if upto == original.offset {
                Some(original.guard.clone())
            } else {
                original
                    .handle
                    .as_ref()
                    .and_then(|file| Guard::read(file, upto).ok().flatten())
            };
            (
                upto,
                guard,
                size > original.size && original.offset == original.size,
            )
        });
        let Some(copy) = self.tails.get_mut(&key) else {
            return;
        };
        let alone = match (expected, copy.handle.take()) {
            (Some((upto, guard, beyond)), Some(file)) => {
                let alike = upto <= offset
                    || guard.is_some_and(|guard| guard.stands(&file, upto).unwrap_or(false));
                let alike = alike && (upto <= offset || copy.skip_to(&file, upto).unwrap_or(false));
                copy.handle = Some(file);
                !alike || beyond
            }
            (_, file) => {
                copy.handle = file;
                true
            }
        };
        if alone {
            copy.copy_of = None;
            copy.moved = copy.moved.max(Moved::Found);
            if copy.unread_bytes() > 0 {
                self.queue(key);
            }
        }
    }
}

/// Whether two files begin alike and have the same bytes before `offset`.
fn same_before(a: &File, b: &File, offset: u64) -> io::Result<bool> {
    let head = |file: &File| {
        let mut head = vec![0; offset.min(HEAD_BYTES as u64) as usize];
        read_whole(file, &mut head, 0).map(|whole| whole.then_some(head))
    };
    Ok(
        head(a)?.is_some_and(|found| Some(found) == head(b).ok().flatten())
            && Guard::read(a, offset)?
                .is_some_and(|found| Some(found) == Guard::read(b, offset).ok().flatten()),
    )
}

fn size_of(file: &File) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file.as_fd())?.st_size).unwrap_or(0))
}
