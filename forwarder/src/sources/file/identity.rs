//! Which file this is: device and inode say where to look, hashes of contents say whether it is still the same.

use std::{fs::File, io, os::unix::fs::FileExt};

use rustix::fs::Stat;
use watchline_proto::Hash;

/// How much of a file's beginning identifies it, at most.
pub(super) const HEAD_BYTES: usize = 1024;
/// How many bytes before an offset prove that the offset is still the right one, at most.
pub(super) const GUARD_BYTES: usize = 256;

/// Device and inode: unique among what exists now, used again for another file later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Inode {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Inode {
    pub(super) fn of(stat: &Stat) -> Inode {
        let (dev, ino) = (stat.st_dev, stat.st_ino);
        Inode { dev, ino }
    }
}

/// A hash of the first `len` bytes of a file, or of the `len` bytes before an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    pub(super) len: u16,
    pub(super) hash: Hash,
}

impl Print {
    pub(super) fn of(bytes: &[u8]) -> Print {
        debug_assert!(bytes.len() <= HEAD_BYTES);
        Print {
            len: bytes.len() as u16,
            hash: Hash::of(bytes),
        }
    }
}

/// The beginning of a file, as far as it has been read: it grows with the file up to [`HEAD_BYTES`], then only its hash is kept.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    Growing(Vec<u8>),
    Full(Hash),
}

impl Head {
    pub(super) const EMPTY: Head = Head::Growing(Vec::new());

    pub(super) fn of(bytes: &[u8]) -> Head {
        if bytes.len() < HEAD_BYTES {
            Head::Growing(bytes.to_vec())
        } else {
            Head::Full(Hash::of(&bytes[..HEAD_BYTES]))
        }
    }

    /// `bytes` are those that `print` was made of.
    pub(super) fn of_proven(bytes: Vec<u8>, print: Print) -> Head {
        if bytes.len() < HEAD_BYTES {
            Head::Growing(bytes)
        } else {
            Head::Full(print.hash)
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Head::Growing(bytes) => bytes.len(),
            Head::Full(_) => HEAD_BYTES,
        }
    }

    /// `bytes` were read at `offset`.
    pub(super) fn extend(&mut self, offset: u64, bytes: &[u8]) {
        if let Head::Growing(head) = self
            && offset == head.len() as u64
        {
            let more = bytes.len().min(HEAD_BYTES - head.len());
            head.extend_from_slice(&bytes[..more]);
            if head.len() == HEAD_BYTES {
                *self = Head::Full(Hash::of(head));
            }
        }
    }

    pub(super) fn print(&self) -> Print {
        match self {
            Head::Growing(bytes) => Print::of(bytes),
            Head::Full(hash) => Print {
                len: HEAD_BYTES as u16,
                hash: *hash,
            },
        }
    }

    /// Whether `file` begins with this.
    pub(super) fn begins(&self, file: &File) -> io::Result<bool> {
        if self.len() == 0 {
            return Ok(true);
        }
        let mut bytes = [0; HEAD_BYTES];
        let bytes = &mut bytes[..self.len()];
        if !read_whole(file, bytes, 0)? {
            return Ok(false);
        }
        Ok(match self {
            Head::Growing(head) => head == bytes,
            Head::Full(hash) => Hash::of(bytes) == *hash,
        })
    }
}

/// The bytes before an offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Guard(Vec<u8>);

impl Guard {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `bytes` ends at the new offset and is either long enough or begins with the file.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.0.clear();
        self.0
            .extend_from_slice(&bytes[bytes.len().saturating_sub(GUARD_BYTES)..]);
    }

    pub(super) fn print(&self) -> Print {
        Print::of(&self.0)
    }

    /// Whether `file` has these bytes before `offset`.
    pub(super) fn stands(&self, file: &File, offset: u64) -> io::Result<bool> {
        Ok(Guard::read(file, offset)?.is_some_and(|found| found == *self))
    }

    /// The bytes of `file` before `offset`; `None` when it is shorter.
    pub(super) fn read(file: &File, offset: u64) -> io::Result<Option<Guard>> {
        let mut bytes = vec![0; offset.min(GUARD_BYTES as u64) as usize];
        let start = offset - bytes.len() as u64;
        Ok(read_whole(file, &mut bytes, start)?.then_some(Guard(bytes)))
    }
}

/// Fills `bytes` from `offset`; `false` when the file ends before.
pub(super) fn read_whole(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
