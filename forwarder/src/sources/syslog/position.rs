//! What is kept between runs. Nothing that was received can be received again, so this is no place to go on from, but a count: how
//! many records, and how many losses, the frames hold.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | 1 while a run takes in, 0 after it has ended and stored all |
//! | 8 | number of the run, little-endian, as all that follow |
//! | 8 | records taken so far, over all runs, those that a gap tells of included |
//! | 8 | datagrams that the kernel dropped and a gap tells of, over all runs |

use bytes::Bytes;

const VERSION: u8 = 1;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) is_open: bool,
    pub(super) run: u64,
    pub(super) taken: u64,
    pub(super) overflowed: u64,
}

/// The key of a source's position in the spool's state.
pub(super) fn key(source: &str) -> Bytes {
    format!("syslog/{source}").into()
}

impl Position {
    pub(super) fn encode(self) -> Bytes {
        let mut bytes = vec![VERSION, self.is_open.into()];
        for number in [self.run, self.taken, self.overflowed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.into()
    }

    /// `None`: a version or a form that is not known.
    pub(super) fn decode(bytes: &[u8]) -> Option<Position> {
        let (&[VERSION, is_open @ (0 | 1)], numbers) = bytes.split_first_chunk::<2>()? else {
            return None;
        };
        let (run, rest) = numbers.split_first_chunk()?;
        let (taken, rest) = rest.split_first_chunk()?;
        let (overflowed, rest) = rest.split_first_chunk()?;
        rest.is_empty().then_some(Position {
            is_open: is_open == 1,
            run: u64::from_le_bytes(*run),
            taken: u64::from_le_bytes(*taken),
            overflowed: u64::from_le_bytes(*overflowed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_version_1_is_read() {
        let stored = hex::decode("010107000000000000000300000000010000000500000000000000").unwrap();
        assert_eq!(Position::decode(&stored), None, "a byte too many");
        let stored = &stored[..26];
        let position = Position {
            is_open: true,
            run: 7,
            taken: (1 << 40) + 3,
            overflowed: 5 << 8,
        };
        assert_eq!(position.encode(), stored);
        assert_eq!(Position::decode(stored), Some(position));
        assert_eq!(Position::decode(&stored[..25]), None);
        assert_eq!(Position::decode(&[2; 26]), None);
        assert_eq!(Position::decode(&[]), None);
    }
}
