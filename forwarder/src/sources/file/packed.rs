//! The rest of a half read file that has been packed since: unpacked piece by piece into memory that looks like the file it was.
//!
//! A packed file is known by its content: it is unpacked from its start, and the bytes that prove a position have to be in it. What lies
//! before the position is thrown away. Memory: the decoder's window (gzip 32 KiB, zstd up to [`MAX_WINDOW_LOG`]) and the pieces that are not
//! read yet, in an anonymous file in memory; what has been read is taken out of it.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::FileExt},
    },
};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::{
    FileSource,
    directories::{self, Entry, EntryKind},
    identity::{GUARD_BYTES, Guard, HEAD_BYTES, Head, Print},
    names,
    open::{self, OpenError},
    position::{FileKey, Position},
    rotation::MAX_CANDIDATES,
    scan::Found,
    tail::{Moved, Tail},
};
use crate::{
    gaps::{Gap, GapReason},
    sources::Intake,
};

/// Unpacked at a time.
const PIECE_BYTES: usize = 1 << 20;
/// zstd's window, as a power of two: `zstd --long` beyond it is refused, as a bomb would be.
const MAX_WINDOW_LOG: u32 = 23;

/// Why a packed file is not the one that a position belongs to, or cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackedError {
    /// Neither gzip nor zstd by its first bytes.
    #[error("is not packed in a known way")]
    Format,
    /// Another file's content: look further.
    #[error("has other content")]
    Other,
    /// Damaged, cut short, or the disk failed.
    #[error("cannot be unpacked")]
    Io(#[from] io::Error),
}

/// Unpacks where a position ended, and on from there.
pub(super) struct Packed {
    decoder: Box<dyn Read + Send>,
    /// Unpacked bytes that came out of the decoder so far.
    at: u64,
    ended: bool,
}

/// What a position goes on with: the bytes that have proved it, and what is filled by [`Packed::more`].
pub(super) struct Unpacked {
    pub(super) packed: Packed,
    pub(super) memory: File,
    pub(super) head: Head,
    pub(super) guard: Guard,
}

impl Packed {
    /// Unpacks `file` up to where `position` ends. Takes as long as unpacking that much takes; another content is
    /// noticed within the first KiB.
    pub(super) fn open(file: File, position: &Position) -> Result<Unpacked, PackedError> {
        let mut packed = Packed {
            decoder: decoder(file)?,
            at: 0,
            ended: false,
        };
        let memory =
            File::from(memfd_create("unpacked", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let head = packed.proven_head(position)?;
        memory.write_all_at(&head, 0)?;
        let mut before = head.clone();
        let mut piece = vec![0; 64 << 10];
        while packed.at < position.offset {
            let left = usize::try_from(position.offset - packed.at).unwrap_or(usize::MAX);
            let most = left.min(piece.len());
            let read = packed.read(&mut piece[..most])?;
            if read == 0 {
                return Err(PackedError::Other);
            }
            before.extend_from_slice(&piece[..read]);
            let surplus = before.len().saturating_sub(GUARD_BYTES);
            before.drain(..surplus);
        }
        let guard = &before[before.len() - before.len().min(position.guard.len.into())..];
        if Print::of(guard) != position.guard {
            return Err(PackedError::Other);
        }
        memory.write_all_at(guard, position.offset - guard.len() as u64)?;
        let mut proven = Guard::default();
        proven.replace(guard);
        Ok(Unpacked {
            head: Head::of_proven(head, position.head),
            guard: proven,
            packed,
            memory,
        })
    }

    fn proven_head(&mut self, position: &Position) -> Result<Vec<u8>, PackedError> {
        let mut head = vec![0; position.head.len.into()];
        let mut filled = 0;
        while filled < head.len() {
            match self.read(&mut head[filled..])? {
                0 => return Err(PackedError::Other),
                read => filled += read,
            }
        }
        if Print::of(&head) != position.head {
            return Err(PackedError::Other);
        }
        Ok(head)
    }

    /// Unpacks a piece more into `memory`, of which everything up to `read_until` is no longer needed but for what proves it. The size of
    /// what is in it now; `None`: there is no more.
    pub(super) fn more(&mut self, memory: &File, read_until: u64) -> io::Result<Option<u64>> {
        let consumed = read_until.saturating_sub(GUARD_BYTES as u64);
        let from = HEAD_BYTES as u64;
        if consumed > from {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(memory.as_fd(), hole, from, consumed - from).map_err(io::Error::from)?;
        }
        let mut piece = vec![0; 64 << 10];
        let begun = self.at;
        while self.at - begun < PIECE_BYTES as u64 {
            let at = self.at;
            let read = self.read(&mut piece)?;
            if read == 0 {
                break;
            }
            memory.write_all_at(&piece[..read], at)?;
        }
        Ok((self.at > begun).then_some(self.at))
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.decoder.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
                Ok(read) => {
                    self.ended |= read == 0;
                    self.at += read as u64;
                    return Ok(read);
                }
            }
        }
    }
}

fn decoder(file: File) -> Result<Box<dyn Read + Send>, PackedError> {
    let mut magic = [0; 4];
    let read = file.read_at(&mut magic, 0)?;
    match magic[..read] {
        [0x1f, 0x8b, 8, _] => Ok(Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(
            file,
        )))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::new(file)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Ok(Box::new(decoder))
        }
        _ => Err(PackedError::Format),
    }
}

impl FileSource {
    /// Looks for the packed file into which content has gone that vanished half read, and goes on inside it.
    pub(super) fn find_packed(
        &mut self,
        key: FileKey,
        position: &Position,
        intake: &mut Intake<'_>,
    ) -> bool {
        let (Some(directory), Some(base)) = (position.path.parent(), position.name.file_name())
        else {
            return false;
        };
        let entries = self.directories.list_now(directory);
        let packed = |entry: &&Entry| {
            let name = &entry.name;
            entry.kind == EntryKind::File && names::is_packed(name) && names::is_rotated(base, name)
        };
        let mut candidates: Vec<&Entry> = directories::named_like(&entries, base)
            .iter()
            .filter(packed)
            .collect();
        // The one that is called as the file was, first.
        let was = position.path.file_name().unwrap_or_default().as_bytes();
        candidates.sort_by_key(|entry| !entry.name.as_bytes().starts_with(was));
        for entry in candidates.into_iter().take(MAX_CANDIDATES) {
            let path = directory.join(&entry.name);
            let Ok(found) = open::open(&path).map(|opened| Found::new(path, opened)) else {
                continue;
            };
            if !self.by_inode.contains_key(&found.inode())
                && self.follow_packed(key, position, found, intake).is_ok()
            {
                return true;
            }
        }
        false
    }

    /// Goes on inside a packed file where a stored position was.
    pub(super) fn go_on_packed(&mut self, key: FileKey, found: Found, intake: &mut Intake<'_>) {
        let Some(position) = self.orphans.remove(&key) else {
            return;
        };
        let path = found.path.clone();
        match self.follow_packed(key, &position, found, intake) {
            Ok(()) => {}
            Err(PackedError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                self.orphans.insert(key, position);
                self.refuse_path(path, &OpenError::Io(error));
            }
            Err(_) => self.missing(key, position, intake),
        }
    }

    fn follow_packed(
        &mut self,
        key: FileKey,
        position: &Position,
        mut found: Found,
        intake: &mut Intake<'_>,
    ) -> Result<(), PackedError> {
        let file = found.file().map_err(io::Error::other)?.try_clone()?;
        let unpacked = Packed::open(file, position)?;
        let (source, now) = (&self.config.name, intake.now);
        let mut tail = Tail::at(source, key, position, unpacked.head, unpacked.guard, now);
        tracing::info!(source, path = %found.path.display(), offset = position.offset, "goes on inside a packed file");
        (tail.inode, tail.path, tail.in_pattern) = (found.inode(), Some(found.path), false);
        (tail.handle, tail.packed) = (Some(unpacked.memory), Some(unpacked.packed));
        (tail.size, tail.copy_of, tail.moved) = (tail.offset, None, Moved::Found);
        tail.seen_in_round = self.rounds;
        self.open_files += 1;
        self.follow(tail);
        self.unpack_more(key, intake);
        Ok(())
    }

    /// Unpacks a piece more of a file that goes on inside a packed one; `false` when there is none.
    pub(super) fn unpack_more(&mut self, key: FileKey, intake: &mut Intake<'_>) -> bool {
        let Some(tail) = self.tails.get_mut(&key) else {
            return false;
        };
        let (Some(packed), Some(memory)) = (&mut tail.packed, &tail.handle) else {
            return false;
        };
        if packed.ended() {
            return false;
        }
        match packed.more(memory, tail.offset) {
            Ok(Some(size)) => {
                (tail.size, tail.idle_since) = (size, intake.now.at);
                self.queue(key);
                true
            }
            Ok(None) => false,
            Err(error) => {
                // What came out of it before is read all the same.
                tail.size = packed.at;
                let detail = format!("a packed file cannot be unpacked to its end: {error}");
                let gap = Gap::new(GapReason::Vanished, detail);
                let gap = gap.in_file(&self.config.name, &tail.name);
                let range = (tail.size, tail.known_size.max(tail.size));
                let gap = Gap {
                    bytes: range.1 - range.0,
                    range: (range.1 > range.0).then_some(range),
                    ..gap
                };
                intake.batch.push_gap(&gap, intake.now);
                self.queue(key);
                true
            }
        }
    }
}

/// Whether a file begins like one that gzip, zstd, xz or bzip2 made: no log does.
pub(super) fn begins_packed(file: &File) -> io::Result<bool> {
    let mut magic = [0; 6];
    let read = file.read_at(&mut magic, 0)?;
    Ok(matches!(
        magic[..read],
        [0x1f, 0x8b, 8, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0xfd, b'7', b'z', b'X', b'Z', 0]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41]
    ))
}
