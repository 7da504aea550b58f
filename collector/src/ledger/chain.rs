//! What is held of one chain: ranges of sequence numbers with the hashes at their edges, and the holes that are accounted for.

use watchline_proto::{Hash, Head};

/// Sequence numbers from `first` up to, not including, `end`, all held and each continuing the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first number held.
    pub first: u64,
    /// The first number that is not held.
    pub end: u64,
    /// Hash of the seal before `first`, as the seal at `first` names it; zeros when `first` is 0.
    pub previous: Hash,
    /// Hash of the seal at `end - 1`.
    pub last: Hash,
    /// When a seal was last added to it.
    pub grown_unix_nano: i64,
}

/// Sequence numbers that the sealer has said will never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoidRange {
    /// The first number void.
    pub first: u64,
    /// The first number that is not void.
    pub end: u64,
    /// Hash of the seal at `end - 1`.
    pub last: Hash,
    /// How many records were in them.
    pub events: u64,
}

/// Why a seal contradicts what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForkReason {
    /// Another seal is held at this sequence number.
    #[error("another seal is held at this sequence number")]
    OtherSeal,
    /// The number is held, but its seal's hash is no longer known: equality cannot be shown.
    #[error("this sequence number is held, and too long ago to show that it is the same seal")]
    Unproven,
    /// The seal names another predecessor than the one that is held.
    #[error("the seal names another predecessor than the one that is held")]
    BrokenChain,
    /// The epoch is over and was incomplete for so long that its ranges are no longer told apart.
    #[error("this epoch was closed long ago, incomplete")]
    Folded,
}

/// Where a seal would stand in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    New,
    Held,
    Fork(ForkReason),
}

/// Two statements of one sealer that do not agree. What is held stays held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The seal at this sequence number is named by two hashes.
    Hash {
        /// Whose seal.
        sequence: u64,
    },
    /// A seal at or behind the place where the sealer says that the epoch ended: the sealer has lost state (a power cut, a
    /// spool restored from a backup), and its records may come again under another epoch.
    BeyondEnd {
        /// Of the last such seal held.
        sequence: u64,
    },
}

/// What is held of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Numbers below this are no longer told apart: held, but for `forgotten` of them.
    pub floor: u64,
    /// Numbers below `floor` that never came.
    pub forgotten: u64,
    /// Ascending, disjoint. Two that adjoin have hashes that disagree.
    pub ranges: Vec<Range>,
    /// Ascending, disjoint, not adjoining. What is also held counts as held.
    pub voids: Vec<VoidRange>,
    /// Where the sealer says that the chain ends, once its epoch is over.
    pub end: Option<Head>,
    /// Batches stored.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
}

impl Chain {
    /// Judges a seal by the ranges alone. `known` is the hash of the seal held at `sequence`, where it is still remembered.
    pub(super) fn place(
        &self,
        sequence: u64,
        hash: &Hash,
        previous: &Hash,
        known: Option<&Hash>,
    ) -> Place {
        let above = self.ranges.partition_point(|range| range.first <= sequence);
        let below = above.checked_sub(1).map(|index| &self.ranges[index]);
        let held_as = match below {
            Some(range) if sequence + 1 == range.end => Some(Some(&range.last)),
            Some(range) if sequence < range.end => Some(known),
            _ if sequence < self.floor => Some(known),
            _ => None,
        };
        match held_as {
            Some(Some(held)) if held == hash => return Place::Held,
            Some(Some(_)) => return Place::Fork(ForkReason::OtherSeal),
            Some(None) => return Place::Fork(ForkReason::Unproven),
            None => {}
        }
        let held_before = below
            .filter(|range| range.end == sequence)
            .map(|range| &range.last)
            .or_else(|| {
                self.voids
                    .iter()
                    .find(|void| void.end == sequence)
                    .map(|void| &void.last)
            });
        match held_before {
            Some(last) if last != previous => Place::Fork(ForkReason::BrokenChain),
            _ => Place::New,
        }
    }

    /// Adds a seal that [`Chain::place`] found new. Ranges that meet become one; where the range above names another
    /// predecessor, both stay as they are and the disagreement is returned.
    pub(super) fn insert(
        &mut self,
        sequence: u64,
        hash: Hash,
        previous: Hash,
        now_unix_nano: i64,
    ) -> Option<Mismatch> {
        let above = self.ranges.partition_point(|range| range.first <= sequence);
        let at = match above.checked_sub(1) {
            Some(below) if self.ranges[below].end == sequence => {
                let range = &mut self.ranges[below];
                range.end = sequence + 1;
                range.last = hash;
                range.grown_unix_nano = now_unix_nano;
                below
            }
            _ => {
                self.ranges.insert(
                    above,
                    Range {
                        first: sequence,
                        end: sequence + 1,
                        previous,
                        last: hash,
                        grown_unix_nano: now_unix_nano,
                    },
                );
                above
            }
        };
        if let Some(next) = self.ranges.get(at + 1).copied()
            && next.first == sequence + 1
        {
            if next.previous != hash {
                return Some(Mismatch::Hash { sequence });
            }
            let range = &mut self.ranges[at];
            range.end = next.end;
            range.last = next.last;
            range.grown_unix_nano = now_unix_nano.max(next.grown_unix_nano);
            self.ranges.remove(at + 1);
        }
        match self.end {
            Some(end) if sequence >= end.next => Some(Mismatch::BeyondEnd { sequence }),
            Some(end) if sequence + 1 == end.next && end.hash != hash => {
                Some(Mismatch::Hash { sequence })
            }
            _ => None,
        }
    }

    /// Whether a seal at `sequence` would open a range of its own.
    pub(super) fn opens_range(&self, sequence: u64) -> bool {
        !self
            .ranges
            .iter()
            .any(|range| range.end == sequence || range.first == sequence + 1)
    }

    /// Gives up telling the lowest range apart, if nothing was added to it since `quiet_since`. False: it is too young.
    pub(super) fn raise_floor(&mut self, quiet_since_unix_nano: i64) -> bool {
        let [lowest, next, ..] = self.ranges[..] else {
            return false;
        };
        if lowest.grown_unix_nano > quiet_since_unix_nano {
            return false;
        }
        self.forgotten += count(&self.holes(next.first));
        self.floor = next.first;
        self.ranges.remove(0);
        self.voids.retain(|void| void.end > next.first);
        true
    }

    /// Notes that numbers will never come. Returns false when there is no place for one more range: the hole then stays.
    pub(super) fn void(&mut self, new: VoidRange, limit: usize) -> (bool, Option<Mismatch>) {
        let mismatch = self
            .hash_at_edge(new.end - 1)
            .filter(|held| *held != new.last)
            .map(|_| Mismatch::Hash {
                sequence: new.end - 1,
            });
        if self
            .voids
            .iter()
            .any(|void| void.first <= new.first && new.end <= void.end)
            || new.end <= self.floor
        {
            return (true, mismatch);
        }
        let from = self.voids.partition_point(|void| void.end < new.first);
        let to = self.voids.partition_point(|void| void.first <= new.end);
        if from == to && self.voids.len() >= limit {
            return (false, mismatch);
        }
        let mut merged = new;
        for void in &self.voids[from..to] {
            merged.first = merged.first.min(void.first);
            merged.events = merged.events.saturating_add(void.events);
            if void.end > merged.end {
                merged.end = void.end;
                merged.last = void.last;
            }
        }
        self.voids.splice(from..to, [merged]);
        (true, mismatch)
    }

    /// Notes where the chain ends. A range that ends there with another hash, or goes beyond, is a disagreement.
    pub(super) fn close(&mut self, end: Head) -> Option<Mismatch> {
        self.end = Some(end);
        let beyond = self.ranges.last().filter(|range| range.end > end.next);
        if let Some(range) = beyond {
            return Some(Mismatch::BeyondEnd {
                sequence: range.end - 1,
            });
        }
        let sequence = end.next.checked_sub(1)?;
        self.hash_at_edge(sequence)
            .filter(|held| *held != end.hash)
            .map(|_| Mismatch::Hash { sequence })
    }

    /// Hash of the seal at `sequence`, where a range's edge knows it.
    fn hash_at_edge(&self, sequence: u64) -> Option<Hash> {
        self.ranges.iter().find_map(|range| {
            if range.end == sequence + 1 {
                Some(range.last)
            } else if range.first == sequence + 1 {
                Some(range.previous)
            } else {
                None
            }
        })
    }

    /// The first number beyond all that is held, void or said to exist.
    pub fn next(&self) -> u64 {
        let held = self.ranges.last().map_or(self.floor, |range| range.end);
        let void = self.voids.last().map_or(0, |void| void.end);
        held.max(void).max(self.end.map_or(0, |end| end.next))
    }

    /// Numbers that are neither held nor void, from the floor up to `upto`.
    pub fn holes(&self, upto: u64) -> Vec<std::ops::Range<u64>> {
        let mut covered: Vec<(u64, u64)> = self
            .ranges
            .iter()
            .map(|range| (range.first, range.end))
            .chain(self.voids.iter().map(|void| (void.first, void.end)))
            .collect();
        covered.sort_unstable();
        let mut holes = Vec::new();
        let mut at = self.floor;
        for (first, end) in covered {
            if first >= upto {
                break;
            }
            if first > at {
                holes.push(at..first);
            }
            at = at.max(end);
        }
        if at < upto {
            holes.push(at..upto);
        }
        holes
    }

    /// How many numbers are missing up to [`Chain::next`], the forgotten ones included.
    pub fn missing(&self) -> u64 {
        self.forgotten + count(&self.holes(self.next()))
    }

    /// Numbers that the sealer says will never come.
    pub fn void_batches(&self) -> u64 {
        self.voids.iter().map(|void| void.end - void.first).sum()
    }

    /// Records that were in them.
    pub fn void_events(&self) -> u64 {
        self.voids
            .iter()
            .fold(0, |sum, void| sum.saturating_add(void.events))
    }

    /// Whether the sealer has ended the chain and every number up to there is held or void, without a disagreement.
    pub fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| {
            self.forgotten == 0
                && self.holes(end.next).is_empty()
                && self
                    .ranges
                    .windows(2)
                    .all(|pair| pair[0].end != pair[1].first)
                && end
                    .next
                    .checked_sub(1)
                    .and_then(|last| self.hash_at_edge(last))
                    .is_none_or(|hash| hash == end.hash)
        })
    }

    /// When a seal was last added.
    pub(super) fn grown_unix_nano(&self) -> i64 {
        self.ranges
            .iter()
            .map(|range| range.grown_unix_nano)
            .max()
            .unwrap_or(0)
    }
}

fn count(holes: &[std::ops::Range<u64>]) -> u64 {
    holes.iter().map(|hole| hole.end - hole.start).sum()
}
