//! How far an event file has been read, as it is kept in the spool's state.
//!
//! Stored in the very frame that holds the records up to it, under `evtx/<source>/<file key>`. Format 1, little endian:
//!
//! ```text
//! version u8 = 1 | dev u64 | ino u64 | seen i64 | backfill end u64 | told u64 | flags u8 (1: a record was taken) |
//! last record: id u64, SHA-256 | path: length u16, bytes
//! ```

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use bytes::{Buf, BufMut, Bytes};
use watchline_proto::Hash;

use crate::sources::file::Inode;

const VERSION: u8 = 1;
const FLAG_TAKEN: u8 = 1;

/// A record that was taken: its id, and what tells it from another one with that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) id: u64,
    pub(super) print: Hash,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Where the file was seen last.
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    /// When.
    pub(super) seen_unix_nano: i64,
    /// Records with ids below this were there when the source was first started.
    pub(super) backfill_end: u64,
    /// That something behind the record with this id cannot be read has been told; 0: nothing has.
    pub(super) told: u64,
    /// The record that was taken last.
    pub(super) last: Option<Last>,
}

/// Bytes that are not a position. The file is then read like a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PositionError {
    #[error("position has format {0}, this program reads up to {VERSION}")]
    Version(u8),
    #[error("position is cut short or malformed")]
    Malformed,
}

impl From<bytes::TryGetError> for PositionError {
    fn from(_: bytes::TryGetError) -> Self {
        PositionError::Malformed
    }
}

impl Position {
    pub(super) fn encode(&self) -> Bytes {
        let path = self.path.as_os_str().as_bytes();
        let mut out = Vec::with_capacity(96 + path.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.inode.dev);
        out.put_u64_le(self.inode.ino);
        out.put_i64_le(self.seen_unix_nano);
        out.put_u64_le(self.backfill_end);
        out.put_u64_le(self.told);
        out.put_u8(if self.last.is_some() { FLAG_TAKEN } else { 0 });
        let last = self.last.unwrap_or(Last {
            id: 0,
            print: Hash::ZERO,
        });
        out.put_u64_le(last.id);
        out.put_slice(&last.print.0);
        // A path is at most PATH_MAX (4096) bytes long.
        let len = path.len().min(u16::MAX.into());
        out.put_u16_le(len as u16);
        out.put_slice(&path[..len]);
        out.into()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Position, PositionError> {
        match bytes.try_get_u8()? {
            VERSION => {}
            other => return Err(PositionError::Version(other)),
        }
        let inode = Inode {
            dev: bytes.try_get_u64_le()?,
            ino: bytes.try_get_u64_le()?,
        };
        let seen_unix_nano = bytes.try_get_i64_le()?;
        let backfill_end = bytes.try_get_u64_le()?;
        let told = bytes.try_get_u64_le()?;
        let taken = bytes.try_get_u8()? & FLAG_TAKEN != 0;
        let id = bytes.try_get_u64_le()?;
        let mut print = Hash::ZERO;
        bytes.try_copy_to_slice(&mut print.0)?;
        let len = usize::from(bytes.try_get_u16_le()?);
        if bytes.len() != len {
            return Err(PositionError::Malformed);
        }
        Ok(Position {
            path: PathBuf::from(OsStr::from_bytes(bytes)),
            inode,
            seen_unix_nano,
            backfill_end,
            told,
            last: taken.then_some(Last { id, print }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Position {
        Position {
            path: "/srv/evtx/Security.evtx".into(),
            inode: Inode { dev: 1, ino: 2 },
            seen_unix_nano: 3,
            backfill_end: 4,
            told: 5,
            last: Some(Last {
                id: 6,
                print: Hash([0xaa; 32]),
            }),
        }
    }

    /// The stored sample of format 1: a change that breaks this breaks every host's state.
    const SAMPLE_1: &str = "01\
        01000000000000000200000000000000030000000000000004000000000000000500000000000000\
        010600000000000000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
        17002f7372762f657674782f53656375726974792e65767478";

    #[test]
    fn format_1_is_read_as_it_was_written() {
        assert_eq!(hex::encode(sample().encode()), SAMPLE_1);
        assert_eq!(
            Position::decode(&hex::decode(SAMPLE_1).unwrap()).unwrap(),
            sample()
        );
        let none = Position {
            last: None,
            ..sample()
        };
        assert_eq!(Position::decode(&none.encode()), Ok(none));
    }

    #[test]
    fn a_position_cut_anywhere_is_refused() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Position::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(Position::decode(&[2]), Err(PositionError::Version(2)));
    }
}
