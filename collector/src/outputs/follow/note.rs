//! What an output's mark says beside the items: which file, how long it was, what its last bytes were.
//!
//! Version 1, integers little-endian: `u8` version · `u8` form · `u64` device · `u64` inode · `i64` born (unix ns) · `u64` length · `u64` limit · 32 bytes guard ·
//! `i64` opened (unix ns) · `u64` number of the file · `u64` records · `u8` lane and `u32` events of a batch that is written in part (lane 255: none) · `u16` length and
//! bytes of the path · `u16` length and bytes of the path that the file is being renamed to (length 0: none).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut, Bytes};
use watchline_proto::Hash;
use watchline_spool::LaneNo;

use super::disk::Identity;

/// How many bytes at the end of a file its guard covers, at most.
pub(crate) const GUARD_BYTES: usize = 4096;

const VERSION: u8 = 1;
const NO_LANE: u8 = 255;

/// The note of a mark: with the mark's items one atomic record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// What the file's content is; another one begins another file.
    pub(crate) form: u8,
    pub(crate) identity: Identity,
    /// The file's bytes that hold what is marked.
    pub(crate) length: u64,
    /// This output has not written beyond this: a longer file is not as it left it.
    pub(crate) limit: u64,
    /// SHA-256 of the last [`GUARD_BYTES`] bytes before `length`.
    pub(crate) guard: Hash,
    pub(crate) opened_unix_nano: i64,
    /// How many files this output has closed in this place before.
    pub(crate) number: u64,
    /// Records in the file, for forms that number them.
    pub(crate) records: u64,
    /// The batch at this lane's next item has its first so many events in the file.
    pub(crate) partial: Option<(LaneNo, u32)>,
    pub(crate) path: PathBuf,
    /// The file is complete; it is being renamed to this.
    pub(crate) closing: Option<PathBuf>,
}

/// A note that this program cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the mark's note is not readable: {0}")]
pub(crate) struct NoteError(&'static str);

impl Note {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(128 + self.path.as_os_str().len());
        out.put_u8(VERSION);
        out.put_u8(self.form);
        out.put_u64_le(self.identity.device);
        out.put_u64_le(self.identity.inode);
        out.put_i64_le(self.identity.born_unix_nano);
        out.put_u64_le(self.length);
        out.put_u64_le(self.limit);
        out.put_slice(&self.guard.0);
        out.put_i64_le(self.opened_unix_nano);
        out.put_u64_le(self.number);
        out.put_u64_le(self.records);
        let (lane, events) = self.partial.unwrap_or((usize::from(NO_LANE), 0));
        out.put_u8(u8::try_from(lane).unwrap_or(NO_LANE));
        out.put_u32_le(events);
        put_path(&mut out, Some(&self.path));
        put_path(&mut out, self.closing.as_deref());
        out.into()
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Note, NoteError> {
        const FIXED: usize = 1 + 8 * 5 + 32 + 8 + 8 + 8 + 1 + 4;
        match bytes.split_first() {
            None => return Err(NoteError("it is empty")),
            Some((&VERSION, rest)) => bytes = rest,
            Some(_) => {
                return Err(NoteError(
                    "it has a version that this program does not know",
                ));
            }
        }
        if bytes.len() < FIXED {
            return Err(NoteError("it is too short"));
        }
        let form = bytes.get_u8();
        let identity = Identity {
            device: bytes.get_u64_le(),
            inode: bytes.get_u64_le(),
            born_unix_nano: bytes.get_i64_le(),
        };
        let length = bytes.get_u64_le();
        let limit = bytes.get_u64_le();
        let mut guard = [0; 32];
        bytes.copy_to_slice(&mut guard);
        let opened_unix_nano = bytes.get_i64_le();
        let number = bytes.get_u64_le();
        let records = bytes.get_u64_le();
        let (lane, events) = (bytes.get_u8(), bytes.get_u32_le());
        let path = take_path(&mut bytes)?.ok_or(NoteError("it names no file"))?;
        let closing = take_path(&mut bytes)?;
        Ok(Note {
            form,
            identity,
            length,
            limit,
            guard: Hash(guard),
            opened_unix_nano,
            number,
            records,
            partial: (lane != NO_LANE).then_some((usize::from(lane), events)),
            path,
            closing,
        })
    }
}

/// Paths are at most 4096 bytes on Linux; a longer one could not have been opened.
fn put_path(out: &mut Vec<u8>, path: Option<&Path>) {
    let bytes = path.map_or(&[][..], |path| path.as_os_str().as_bytes());
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16_le(length);
    out.put_slice(&bytes[..usize::from(length)]);
}

fn take_path(bytes: &mut &[u8]) -> Result<Option<PathBuf>, NoteError> {
    let length = usize::from(
        bytes
            .try_get_u16_le()
            .map_err(|_| NoteError("it ends early"))?,
    );
    let (path, rest) = bytes
        .split_at_checked(length)
        .ok_or(NoteError("it ends early"))?;
    *bytes = rest;
    Ok((length > 0).then(|| PathBuf::from(OsStr::from_bytes(path))))
}

/// The last bytes of a file as it grows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(GUARD_BYTES);
        let surplus = (self.0.len() + kept).saturating_sub(GUARD_BYTES);
        self.0.drain(..surplus);
        self.0.extend_from_slice(&bytes[bytes.len() - kept..]);
    }

    pub(crate) fn guard(&self) -> Hash {
        Hash::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Note {
        Note {
            form: 2,
            identity: Identity {
                device: 0x1122,
                inode: 0x3344_5566,
                born_unix_nano: 0x77,
            },
            length: 1000,
            limit: 8_389_608,
            guard: Hash([7; 32]),
            opened_unix_nano: 1_795_425_302_000_000_001,
            number: 3,
            records: 12,
            partial: Some((1, 4711)),
            path: "/data/events.ndjson".into(),
            closing: Some("/data/events.ndjson.20261123T091502Z-0".into()),
        }
    }

    #[test]
    fn notes_of_version_1_stay_readable() {
        let stored = concat!(
            "01022211000000000000665544330000000077000000000000",
            "00e803000000000000e803800000000000",
            "0707070707070707070707070707070707070707070707070707070707070707",
            "015c75b2cca1ea1803000000000000000c00000000000000016712000013002f",
            "646174612f6576656e74732e6e646a736f6e26002f646174612f6576656e7473",
            "2e6e646a736f6e2e3230323631313233543039313530325a2d30",
        );
        assert_eq!(hex::encode(sample().encode()), stored);
        assert_eq!(Note::decode(&hex::decode(stored).unwrap()), Ok(sample()));
    }

    #[test]
    fn a_note_cut_anywhere_is_refused_and_never_panics() {
        let whole = sample().encode();
        for cut in 0..whole.len() {
            assert!(Note::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let plain = Note {
            partial: None,
            closing: None,
            ..sample()
        };
        assert_eq!(Note::decode(&plain.encode()), Ok(plain));
    }

    #[test]
    fn the_tail_is_the_last_bytes_however_they_came() {
        let all: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        for step in [1, 7, 4095, 4096, 4097, 20_000] {
            let mut tail = Tail::default();
            let mut given = 0;
            for piece in all.chunks(step) {
                tail.push(piece);
                given += piece.len();
                let expected = &all[given.saturating_sub(GUARD_BYTES)..given];
                assert_eq!(
                    tail.guard(),
                    Hash::of(expected),
                    "after {given} in steps of {step}"
                );
            }
        }
    }
}
