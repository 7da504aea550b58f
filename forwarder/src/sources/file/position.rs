//! How far a file has been read, as it is kept in the spool's state.
//!
//! A position is stored in the very frame that holds the events read up to it, under `position/<source>/<file key>`. Format 2, little endian:
//!
//! ```text
//! version u8 = 2 | dev u64 | ino u64 | offset u64 | head: length u16, SHA-256 | guard: length u16, SHA-256 |
//! line u8, skipped u64 | backfill end u64 | known size u64 | found i64 | confirmed i64 | missing since i64 | flags u8 |
//! original's key u64 | name: length u16, bytes | path: length u16, bytes
//! ```
//!
//! Flags: 1 its own inode has other content by now, 2 at the end of a hole that began with the file, 4 `path` is the file packed, `inode` its
//! inode. Format 1 is the same with the first flag only; it is read, and written as format 2 when the position moves.

use std::{
    ffi::OsStr,
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use bytes::{Buf, BufMut};
use watchline_proto::Hash;

use super::identity::{Inode, Print};

const VERSION: u8 = 2;
const FLAG_REPLACED: u8 = 1;
const FLAG_HOLE: u8 = 2;
const FLAG_PACKED: u8 = 4;

/// Names one file's contents for as long as its position is kept, whatever becomes of its path and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileKey(pub(super) u64);

impl FileKey {
    /// Not after any other.
    pub(super) const FIRST: FileKey = FileKey(0);
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where the offset stands within a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineState {
    /// At the beginning of a line.
    Start,
    /// Inside a line whose first part was sent because it stayed incomplete; what follows up to the line feed continues it.
    Flushed,
    /// Inside a line that is longer than a record may be; what follows up to the line feed is skipped. So many bytes were since the cut.
    Skipping(u64),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The name under which the file was found: what its events say, wherever it is moved to.
    pub(super) name: PathBuf,
    /// Where it was seen last.
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    /// Bytes before this have been taken.
    pub(super) offset: u64,
    pub(super) head: Print,
    pub(super) guard: Print,
    pub(super) line: LineState,
    /// Records that begin before this were there when the source first ever started.
    pub(super) backfill_end: u64,
    /// Size when last seen: bytes between `offset` and this are known to have existed.
    pub(super) known_size: u64,
    /// When it was first seen. Orders the generations of one name.
    pub(super) found_unix_nano: i64,
    /// When `path` was last seen to lead to it.
    pub(super) confirmed_unix_nano: i64,
    /// Since when no file with this content was found; 0: there is one.
    pub(super) missing_since_unix_nano: i64,
    /// Its own inode has other content by now.
    pub(super) replaced: bool,
    /// Everything before the offset is a hole of NUL bytes; nothing said so yet.
    pub(super) in_hole: bool,
    /// `path` and `inode` are those of the packed file in which it goes on.
    pub(super) packed: bool,
    /// This file is a copy of that one, and follows its offset for as long as they agree.
    pub(super) copy_of: Option<FileKey>,
}

/// Bytes that are not a position. The file is then found like a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PositionError {
    #[error("position has format {0}, this program reads up to {VERSION}")]
    Version(u8),
    #[error("position is cut short or malformed")]
    Malformed,
}

impl Position {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (name, path) = (
            self.name.as_os_str().as_bytes(),
            self.path.as_os_str().as_bytes(),
        );
        let mut out = Vec::with_capacity(160 + name.len() + path.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.inode.dev);
        out.put_u64_le(self.inode.ino);
        out.put_u64_le(self.offset);
        for print in [&self.head, &self.guard] {
            out.put_u16_le(print.len);
            out.put_slice(&print.hash.0);
        }
        let (line, skipped) = match self.line {
            LineState::Start => (0, 0),
            LineState::Flushed => (1, 0),
            LineState::Skipping(skipped) => (2, skipped),
        };
        out.put_u8(line);
        out.put_u64_le(skipped);
        out.put_u64_le(self.backfill_end);
        out.put_u64_le(self.known_size);
        out.put_i64_le(self.found_unix_nano);
        out.put_i64_le(self.confirmed_unix_nano);
        out.put_i64_le(self.missing_since_unix_nano);
        let flags = [
            (self.replaced, FLAG_REPLACED),
            (self.in_hole, FLAG_HOLE),
            (self.packed, FLAG_PACKED),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        out.put_u8(set.map(|(_, flag)| flag).sum());
        out.put_u64_le(self.copy_of.map_or(0, |key| key.0));
        for text in [name, path] {
            // A path is at most PATH_MAX (4096) bytes long.
            let len = text.len().min(u16::MAX.into());
            out.put_u16_le(len as u16);
            out.put_slice(&text[..len]);
        }
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Position, PositionError> {
        fn print(bytes: &mut &[u8]) -> Result<Print, bytes::TryGetError> {
            let len = bytes.try_get_u16_le()?;
            let mut hash = [0; 32];
            bytes.try_copy_to_slice(&mut hash)?;
            Ok(Print {
                len,
                hash: Hash(hash),
            })
        }
        fn text(bytes: &mut &[u8]) -> Option<PathBuf> {
            let len = bytes.try_get_u16_le().ok()?.into();
            let (text, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            Some(PathBuf::from(std::ffi::OsString::from_vec(
                OsStr::from_bytes(text).as_bytes().to_vec(),
            )))
        }
        fn fixed(bytes: &mut &[u8]) -> Result<Position, bytes::TryGetError> {
            let flags;
            Ok(Position {
                inode: Inode {
                    dev: bytes.try_get_u64_le()?,
                    ino: bytes.try_get_u64_le()?,
                },
                offset: bytes.try_get_u64_le()?,
                head: print(bytes)?,
                guard: print(bytes)?,
                line: match (bytes.try_get_u8()?, bytes.try_get_u64_le()?) {
                    (1, _) => LineState::Flushed,
                    (2, skipped) => LineState::Skipping(skipped),
                    _ => LineState::Start,
                },
                backfill_end: bytes.try_get_u64_le()?,
                known_size: bytes.try_get_u64_le()?,
                found_unix_nano: bytes.try_get_i64_le()?,
                confirmed_unix_nano: bytes.try_get_i64_le()?,
                missing_since_unix_nano: bytes.try_get_i64_le()?,
                replaced: {
                    flags = bytes.try_get_u8()?;
                    flags & FLAG_REPLACED != 0
                },
                in_hole: flags & FLAG_HOLE != 0,
                packed: flags & FLAG_PACKED != 0,
                copy_of: Some(bytes.try_get_u64_le()?)
                    .filter(|&key| key != 0)
                    .map(FileKey),
                name: PathBuf::new(),
                path: PathBuf::new(),
            })
        }
        let version = bytes.try_get_u8().map_err(|_| PositionError::Malformed)?;
        if !(1..=VERSION).contains(&version) {
            return Err(PositionError::Version(version));
        }
        let mut position = fixed(&mut bytes).map_err(|_| PositionError::Malformed)?;
        if version == 1 {
            (position.in_hole, position.packed) = (false, false);
        }
        position.name = text(&mut bytes).ok_or(PositionError::Malformed)?;
        position.path = text(&mut bytes).ok_or(PositionError::Malformed)?;
        if usize::from(position.head.len) > super::identity::HEAD_BYTES
            || usize::from(position.guard.len) > super::identity::GUARD_BYTES
            || u64::from(position.head.len) > position.offset
            || u64::from(position.guard.len) > position.offset
        {
            return Err(PositionError::Malformed);
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Position {
        Position {
            name: "/var/log/auth.log".into(),
            path: "/var/log/auth.log.1".into(),
            inode: Inode {
                dev: 2049,
                ino: 131_077,
            },
            offset: 4711,
            head: Print {
                len: 1024,
                hash: Hash([0xaa; 32]),
            },
            guard: Print {
                len: 256,
                hash: Hash([0xbb; 32]),
            },
            line: LineState::Skipping(77),
            backfill_end: 300,
            known_size: 5000,
            found_unix_nano: 1_700_000_000_000_000_000,
            confirmed_unix_nano: 1_700_000_000_000_000_001,
            missing_since_unix_nano: 1_700_000_000_000_000_002,
            replaced: true,
            in_hole: false,
            packed: false,
            copy_of: Some(FileKey(5)),
        }
    }

    /// The stored sample of format 1: a change that breaks this breaks every host's state.
    const SAMPLE_1: &str = "01010800000000000005000200000000006712000000000000\
        0004aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
        0001bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
        024d000000000000002c010000000000008813000000000000\
        00002a36fe9c971701002a36fe9c971702002a36fe9c9717\
        01\
        0500000000000000\
        11002f7661722f6c6f672f617574682e6c6f6713002f7661722f6c6f672f617574682e6c6f672e31";

    /// TAILING 33.
    #[test]
    fn format_1_is_read_as_it_was_written_and_migrated() {
        let old = hex::decode(SAMPLE_1).unwrap();
        assert_eq!(Position::decode(&old).unwrap(), sample());
        let new = sample().encode();
        assert_eq!((old[0], new[0]), (1, 2));
        assert_eq!(old[1..], new[1..]);
    }

    #[test]
    fn format_2_is_read_as_it_was_written() {
        let sample = Position {
            in_hole: true,
            packed: true,
            ..sample()
        };
        let stored = SAMPLE_1
            .replacen("01", "02", 1)
            .replace("9c9717010500", "9c9717070500");
        assert_eq!(hex::encode(sample.encode()), stored);
        assert_eq!(
            Position::decode(&hex::decode(stored).unwrap()).unwrap(),
            sample
        );
    }

    #[test]
    fn a_position_cut_anywhere_is_refused() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Position::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(Position::decode(&[3]), Err(PositionError::Version(3)));
    }
}
