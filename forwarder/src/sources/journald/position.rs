//! How far a journal has been read, as it is kept in the spool's state.
//!
//! Stored in the very frame that holds the entries up to it, under `journal/<source>`. Format 1, little endian:
//!
//! ```text
//! version u8 = 1 | backfill end i64 | cursor: length u16, bytes
//! ```

use bytes::{Buf, BufMut, Bytes};
use watchline_spool::Spool;

use super::export::MAX_CURSOR_BYTES;

const VERSION: u8 = 1;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The entry that was taken last; `None`: the next is the oldest there is.
    pub(super) cursor: Option<String>,
    /// When the newest entry was written that was there when the source was first started, microseconds since 1970: entries up to
    /// then were there before. [`i64::MIN`]: none was, or they are behind.
    pub(super) backfill_until: i64,
}

/// Bytes that are not a position. The journal is then read like one that was never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PositionError {
    #[error("position has format {0}, this program reads up to {VERSION}")]
    Version(u8),
    #[error("position is cut short or malformed")]
    Malformed,
}

impl Position {
    pub(super) fn encode(&self) -> Bytes {
        let cursor = self.cursor.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(11 + cursor.len());
        out.put_u8(VERSION);
        out.put_i64_le(self.backfill_until);
        // A cursor has at most `MAX_CURSOR_BYTES`.
        out.put_u16_le(cursor.len().min(u16::MAX.into()) as u16);
        out.put_slice(cursor.as_bytes());
        out.into()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Position, PositionError> {
        match bytes.try_get_u8() {
            Ok(VERSION) => {}
            Ok(other) => return Err(PositionError::Version(other)),
            Err(_) => return Err(PositionError::Malformed),
        }
        let backfill_until = bytes.try_get_i64_le();
        let backfill_until = backfill_until.map_err(|_| PositionError::Malformed)?;
        let length = bytes.try_get_u16_le();
        let length = length.map_err(|_| PositionError::Malformed)?;
        let cursor = str::from_utf8(bytes).map_err(|_| PositionError::Malformed)?;
        if cursor.len() != usize::from(length) || cursor.len() > MAX_CURSOR_BYTES {
            return Err(PositionError::Malformed);
        }
        Ok(Position {
            cursor: (!cursor.is_empty()).then(|| cursor.to_owned()),
            backfill_until,
        })
    }
}

/// Where a source's position is kept.
pub(super) fn key(source: &str) -> Bytes {
    format!("journal/{source}").into()
}

/// What `spool` holds for a source; `None`: it was never started.
pub(super) fn stored(spool: &Spool, source: &str) -> Option<Position> {
    read(&spool.state(&key(source))?)
}

/// Reads what was stored.
pub(super) fn read(bytes: &[u8]) -> Option<Position> {
    Position::decode(bytes)
        .inspect_err(|error| {
            tracing::error!(%error, "a stored position cannot be read: the journal is read like one that was never read");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Position {
        Position {
            cursor: Some("s=1f;i=2;b=3;m=4;t=5;x=6".into()),
            backfill_until: 1_700_000_000_000_001,
        }
    }

    /// The stored sample of format 1: a change that breaks this breaks every host's state.
    const SAMPLE_1: &str = "0101401e18240a0600\
        1800733d31663b693d323b623d333b6d3d343b743d353b783d36";

    #[test]
    fn format_1_is_read_as_it_was_written() {
        assert_eq!(hex::encode(sample().encode()), SAMPLE_1);
        assert_eq!(
            Position::decode(&hex::decode(SAMPLE_1).unwrap()).unwrap(),
            sample()
        );
        let none = Position::default();
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
