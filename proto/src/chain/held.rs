//! What a receiver holds of a chain, as it is said on the line.

use super::{Epoch, Head};
use crate::{hash::Hash, lane::Lane, wire};

/// Sequence numbers of a chain from `first` up to, not including, `end`, all of them held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRange {
    /// The first number that is held.
    pub first: u64,
    /// The first behind it that is not.
    pub end: u64,
    /// Hash of the seal before `first`, as the seal at `first` names it; zeros exactly at 0.
    pub previous: Hash,
    /// Hash of the seal at `end - 1`.
    pub last: Hash,
}

/// What a receiver holds of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHeld {
    /// The epoch of the chain.
    pub epoch: Epoch,
    /// The lane of the chain.
    pub lane: Lane,
    /// Ascending, disjoint, not adjoining.
    pub ranges: Vec<HeldRange>,
}

/// What the peer said of a chain that it holds makes no sense: nothing is known of that chain then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("held chain: {0}")]
pub struct HeldError(&'static str);

impl HeldRange {
    /// Whether `sequence` is in it.
    pub fn contains(&self, sequence: u64) -> bool {
        (self.first..self.end).contains(&sequence)
    }

    /// The head of the chain at the end of it.
    pub fn head(&self) -> Head {
        Head {
            next: self.end,
            hash: self.last,
        }
    }
}

impl From<HeldRange> for wire::Range {
    fn from(range: HeldRange) -> wire::Range {
        wire::Range {
            first: range.first,
            end: range.end,
            previous: range.previous.into(),
            last: range.last.into(),
        }
    }
}

impl TryFrom<&wire::Range> for HeldRange {
    type Error = HeldError;

    fn try_from(range: &wire::Range) -> Result<HeldRange, HeldError> {
        let hash =
            |bytes: &[u8]| Hash::try_from(bytes).map_err(|_| HeldError("a hash has 32 bytes"));
        let range = HeldRange {
            first: range.first,
            end: range.end,
            previous: hash(&range.previous)?,
            last: hash(&range.last)?,
        };
        if range.first >= range.end {
            return Err(HeldError("a range has at least one number"));
        }
        if (range.first == 0) != range.previous.is_zero() || range.last.is_zero() {
            return Err(HeldError("a hash is zeros exactly before sequence 0"));
        }
        Ok(range)
    }
}

impl From<&ChainHeld> for wire::ChainHeld {
    fn from(chain: &ChainHeld) -> wire::ChainHeld {
        wire::ChainHeld {
            epoch: chain.epoch.into(),
            lane: chain.lane.into(),
            ranges: chain.ranges.iter().map(|&range| range.into()).collect(),
        }
    }
}

impl TryFrom<&wire::ChainHeld> for ChainHeld {
    type Error = HeldError;

    fn try_from(chain: &wire::ChainHeld) -> Result<ChainHeld, HeldError> {
        let ranges = chain
            .ranges
            .iter()
            .map(HeldRange::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        if !ranges.is_sorted_by(|before, after| before.end < after.first) {
            return Err(HeldError(
                "ranges are ascending, disjoint and not adjoining",
            ));
        }
        Ok(ChainHeld {
            epoch: Epoch::try_from(&chain.epoch[..])
                .map_err(|_| HeldError("an epoch has 16 bytes"))?,
            lane: Lane::try_from(chain.lane)
                .map_err(|_| HeldError("a lane is alert or routine"))?,
            ranges,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, end: u64) -> HeldRange {
        let previous = if first == 0 {
            Hash::ZERO
        } else {
            Hash::of(&first.to_le_bytes())
        };
        HeldRange {
            first,
            end,
            previous,
            last: Hash::of(&end.to_le_bytes()),
        }
    }

    fn chain(ranges: &[HeldRange]) -> ChainHeld {
        ChainHeld {
            epoch: Epoch([7; 16]),
            lane: Lane::Routine,
            ranges: ranges.to_vec(),
        }
    }

    #[test]
    fn what_is_held_comes_back() {
        for held in [
            chain(&[]),
            chain(&[range(0, 5)]),
            chain(&[range(3, 5), range(6, 7), range(9, u64::MAX)]),
        ] {
            assert_eq!(ChainHeld::try_from(&wire::ChainHeld::from(&held)), Ok(held));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |held: wire::ChainHeld| ChainHeld::try_from(&held).unwrap_err().0;
        let message = |ranges: &[HeldRange]| wire::ChainHeld::from(&chain(ranges));
        const ORDER: &str = "ranges are ascending, disjoint and not adjoining";
        assert_eq!(refused(message(&[range(5, 9), range(0, 3)])), ORDER);
        assert_eq!(refused(message(&[range(0, 5), range(4, 9)])), ORDER);
        assert_eq!(refused(message(&[range(0, 5), range(5, 9)])), ORDER);
        assert_eq!(
            refused(message(&[range(5, 5)])),
            "a range has at least one number"
        );
        assert_eq!(
            refused(message(&[range(5, 4)])),
            "a range has at least one number"
        );
        const ZEROS: &str = "a hash is zeros exactly before sequence 0";
        assert_eq!(
            refused(message(&[HeldRange {
                previous: Hash::ZERO,
                ..range(3, 4)
            }])),
            ZEROS
        );
        assert_eq!(
            refused(message(&[HeldRange {
                previous: Hash([1; 32]),
                ..range(0, 4)
            }])),
            ZEROS
        );
        assert_eq!(
            refused(message(&[HeldRange {
                last: Hash::ZERO,
                ..range(0, 4)
            }])),
            ZEROS
        );
        let mut short = message(&[range(0, 4)]);
        short.ranges[0].last.truncate(31);
        assert_eq!(refused(short), "a hash has 32 bytes");
        assert_eq!(
            refused(wire::ChainHeld {
                lane: 0,
                ..message(&[])
            }),
            "a lane is alert or routine"
        );
        assert_eq!(
            refused(wire::ChainHeld {
                epoch: vec![0; 15].into(),
                ..message(&[])
            }),
            "an epoch has 16 bytes"
        );
    }

    #[test]
    fn a_range_knows_its_numbers_and_its_head() {
        let range = range(3, 5);
        assert!(!range.contains(2) && range.contains(3) && range.contains(4) && !range.contains(5));
        assert_eq!(
            range.head(),
            Head {
                next: 5,
                hash: range.last
            }
        );
    }
}
