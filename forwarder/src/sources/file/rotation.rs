//! What becomes of content that is no longer where it was: cuts, losses, and where it goes on.

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::{
    FileSource,
    directories::{self, EntryKind},
    identity::Inode,
    names,
    open::{self, OpenError},
    position::{FileKey, Position},
    scan::Found,
    tail::{Change, Moved, Tail},
};
use crate::{
    gaps::{Gap, GapReason},
    sources::Intake,
};

/// Files of a directory that are looked at for one lost content.
pub(super) const MAX_CANDIDATES: usize = 256;

impl FileSource {
    /// The file has other content than was read from it: that content is looked for elsewhere, the new one is read from 0.
    pub(super) fn changed(&mut self, key: FileKey, change: Change, intake: &mut Intake<'_>) {
        if !self.is_confirmed(key) {
            return;
        }
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        let (handle, path, inode) = (tail.handle.take(), tail.path.clone(), tail.inode);
        let (in_pattern, seen_in_round, found) =
            (tail.in_pattern, tail.seen_in_round, tail.found_unix_nano);
        let Some(position) = self.forget(key) else {
            return;
        };
        let mut new = Tail::new(
            &self.config.name,
            self.new_key(),
            position.name.clone(),
            inode,
            intake.now,
        );
        (new.path, new.in_pattern, new.seen_in_round) = (path, in_pattern, seen_in_round);
        // Right behind the content before it: a later generation of the name may have been found since.
        new.found_unix_nano = found + 1;
        // A writer without O_APPEND goes on at its old place, perhaps before the cut was seen.
        new.after_cut = true;
        new.handle = handle;
        let new_key = new.key;
        self.follow(new);
        self.content_gone(key, position, change, intake);
        self.look_at(new_key, intake);
    }

    /// The content that `position` belongs to is no longer in its inode. It goes on in a copy, or what was unread of it is lost.
    pub(super) fn content_gone(
        &mut self,
        key: FileKey,
        mut position: Position,
        change: Change,
        intake: &mut Intake<'_>,
    ) {
        tracing::debug!(source = %self.config.name, path = %position.path.display(), ?change, offset = position.offset, "file has other content");
        position.replaced = true;
        if self.hand_to_copies(key, &position) {
            self.removed.insert(key);
            return;
        }
        if position.offset == 0 && position.known_size == 0 {
            self.removed.insert(key);
            return;
        }
        if self.go_on_elsewhere(key, &position, intake) {
            return;
        }
        self.say_lost(&position, change, intake);
        if position.offset > 0 {
            self.orphan(key, position, intake.now);
        } else {
            self.removed.insert(key);
        }
    }

    /// A file that is nowhere to be found.
    pub(super) fn missing(&mut self, key: FileKey, position: Position, intake: &mut Intake<'_>) {
        if self.hand_to_copies(key, &position) {
            self.removed.insert(key);
            return;
        }
        // It may have grown after it was seen last.
        if self.go_on_elsewhere(key, &position, intake) {
            return;
        }
        if position.known_size > position.offset {
            let gap = Gap::new(
                GapReason::Vanished,
                "a file was gone before it was read to its end",
            );
            self.push_lost(gap, &position, intake);
        }
        self.orphan(key, position, intake.now);
    }

    fn say_lost(&self, position: &Position, change: Change, intake: &mut Intake<'_>) {
        if position.known_size > position.offset {
            let detail =
                "a file was cut before it was read to its end, and no copy of the rest was found";
            self.push_lost(Gap::new(GapReason::Truncated, detail), position, intake);
        } else if change == Change::Rewritten && !is_recycled(position) {
            let detail = "bytes that had been read changed: the file is read from its beginning, records may repeat";
            let gap =
                Gap::new(GapReason::Rewritten, detail).in_file(&self.config.name, &position.name);
            intake.batch.push_gap(&gap, intake.now);
        }
    }

    fn push_lost(&self, gap: Gap, position: &Position, intake: &mut Intake<'_>) {
        let gap = gap.in_file(&self.config.name, &position.name);
        let bytes = position.known_size - position.offset;
        let range = Some((position.offset, position.known_size));
        intake.batch.push_gap(
            &Gap {
                bytes,
                range,
                ..gap
            },
            intake.now,
        );
    }

    /// Looks again, through a handle of its own, whether the content is another one: what a network file system remembers of a size or
    /// a page is no proof.
    fn is_confirmed(&mut self, key: FileKey) -> bool {
        let Some(tail) = self.tails.get_mut(&key) else {
            return false;
        };
        let Some(path) = tail.path.clone() else {
            return true;
        };
        let stands = match open::open(&path) {
            Ok((file, stat)) if Inode::of(&stat) == tail.inode => tail
                .stands(&file)
                .map(|stands| stands.then_some((file, stat))),
            Ok(_) | Err(OpenError::NotFound) => return true,
            Err(error) => {
                self.refuse(key, error);
                return false;
            }
        };
        match stands {
            Ok(None) => true,
            Ok(Some((file, stat))) => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                (tail.handle, tail.size) = (Some(file), size.max(tail.offset));
                false
            }
            Err(error) => {
                self.refuse(key, OpenError::Io(error));
                false
            }
        }
    }

    /// Goes on in a copy of this content, or in what it was packed into.
    fn go_on_elsewhere(
        &mut self,
        key: FileKey,
        position: &Position,
        intake: &mut Intake<'_>,
    ) -> bool {
        // Where nothing was read nothing proves what is a copy.
        position.offset > 0
            && (self.go_on_in_copy(key, position, intake)
                || self.find_packed(key, position, intake))
    }

    /// Looks in the directory for a copy of this content and goes on there.
    fn go_on_in_copy(&mut self, key: FileKey, position: &Position, intake: &Intake<'_>) -> bool {
        let (Some(directory), Some(base)) = (position.path.parent(), position.name.file_name())
        else {
            return false;
        };
        let entries = self.directories.list_now(directory);
        let mut looked_at = 0;
        for entry in directories::named_like(&entries, base) {
            if entry.kind != EntryKind::File
                || names::is_packed(&entry.name)
                || !names::is_rotated(base, &entry.name)
                || looked_at >= MAX_CANDIDATES
            {
                continue;
            }
            looked_at += 1;
            let path = directory.join(&entry.name);
            let Ok(mut found) = open::open(&path).map(|opened| Found::new(path, opened)) else {
                continue;
            };
            let known = self.by_inode.get(&found.inode()).copied();
            let untouched = |key: FileKey| {
                self.tails
                    .get(&key)
                    .is_some_and(|tail| tail.offset == 0 && !tail.classified)
            };
            if found.inode() == position.inode
                || known.is_some_and(|known| !untouched(known))
                || self
                    .orphans
                    .values()
                    .any(|other| other.inode == found.inode() && !other.replaced)
            {
                continue;
            }
            let resumed = found
                .file()
                .map(|file| Tail::resume(&self.config.name, key, position, file, intake.now));
            let Ok(Ok(Ok(mut tail))) = resumed else {
                continue;
            };
            let in_pattern = known
                .and_then(|known| self.tails.get(&known))
                .is_some_and(|tail| tail.in_pattern);
            if let Some(known) = known {
                self.forget(known);
                self.removed.insert(known);
            }
            tracing::debug!(source = %self.config.name, path = %found.path.display(), offset = position.offset, "goes on in a copy");
            tail.moved = Moved::Found;
            tail.copy_of = None;
            self.adopt(tail, found, in_pattern, intake);
            return true;
        }
        false
    }
}

/// Whether the inode of a position belongs to a file that was made after it was last seen: then nothing was written over.
fn is_recycled(position: &Position) -> bool {
    let mask = StatxFlags::BTIME | StatxFlags::INO;
    let Ok(now) = statx(CWD, &position.path, AtFlags::empty(), mask) else {
        return true;
    };
    let made = now
        .stx_btime
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.stx_btime.tv_nsec.into());
    let knows = now.stx_mask & StatxFlags::BTIME.bits() != 0;
    now.stx_ino != position.inode.ino || knows && made > position.confirmed_unix_nano
}
