//! Hashes of recent seals, so that a batch which comes again from the middle of a range can be shown to be the same.

use std::collections::VecDeque;
use watchline_proto::Hash;

/// Consecutive sequence numbers and the hashes of their seals.
#[derive(Debug)]
struct Run {
    first: u64,
    hashes: VecDeque<Hash>,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }
}

/// The hashes remembered of one chain. 32 bytes each while seals arrive in order; a run costs about 40 bytes more.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Ascending, disjoint, not adjoining, none empty.
    runs: Vec<Run>,
    len: usize,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn hash_at(&self, sequence: u64) -> Option<&Hash> {
        let above = self.runs.partition_point(|run| run.first <= sequence);
        let run = self.runs.get(above.checked_sub(1)?)?;
        run.hashes.get(usize::try_from(sequence - run.first).ok()?)
    }

    /// Remembers a seal that is not remembered yet.
    pub(super) fn insert(&mut self, sequence: u64, hash: Hash) {
        if self.hash_at(sequence).is_some() {
            return;
        }
        self.len += 1;
        let above = self.runs.partition_point(|run| run.first <= sequence);
        let below = above
            .checked_sub(1)
            .filter(|index| self.runs[*index].end() == sequence);
        let meets_above = self
            .runs
            .get(above)
            .is_some_and(|run| run.first == sequence + 1);
        match (below, meets_above) {
            (Some(below), true) => {
                let upper = self.runs.remove(above);
                self.runs[below].hashes.push_back(hash);
                self.runs[below].hashes.extend(upper.hashes);
            }
            (Some(below), false) => self.runs[below].hashes.push_back(hash),
            (None, true) => {
                self.runs[above].first = sequence;
                self.runs[above].hashes.push_front(hash);
            }
            (None, false) => self.runs.insert(
                above,
                Run {
                    first: sequence,
                    hashes: VecDeque::from([hash]),
                },
            ),
        }
    }

    /// Forgets until at most `keep` are left, always the lowest of the longest run: what arrives late and low is as likely to
    /// come again as what arrives in order.
    pub(super) fn shrink(&mut self, keep: usize) {
        while self.len > keep {
            let Some(longest) =
                (0..self.runs.len()).max_by_key(|index| self.runs[*index].hashes.len())
            else {
                return;
            };
            let run = &mut self.runs[longest];
            run.hashes.pop_front();
            run.first += 1;
            self.len -= 1;
            if run.hashes.is_empty() {
                self.runs.remove(longest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn hash(sequence: u64) -> Hash {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&sequence.to_le_bytes());
        Hash(bytes)
    }

    proptest! {
        #[test]
        fn a_window_remembers_what_a_map_would(sequences in prop::collection::vec(0u64..200, 0..300)) {
            let mut window = Window::default();
            let mut model = BTreeMap::new();
            for sequence in sequences {
                window.insert(sequence, hash(sequence));
                model.insert(sequence, hash(sequence));
            }
            prop_assert_eq!(window.len(), model.len());
            for sequence in 0..210 {
                prop_assert_eq!(window.hash_at(sequence), model.get(&sequence));
            }
        }

        #[test]
        fn a_shrunk_window_never_answers_wrongly(sequences in prop::collection::vec(0u64..200, 0..300), keep in 0usize..50) {
            let mut window = Window::default();
            for sequence in sequences {
                window.insert(sequence, hash(sequence));
                window.shrink(keep);
            }
            prop_assert!(window.len() <= keep);
            let found = (0..210).filter(|sequence| window.hash_at(*sequence).is_some()).count();
            prop_assert_eq!(found, window.len());
            for sequence in 0..210 {
                if let Some(found) = window.hash_at(sequence) {
                    prop_assert_eq!(*found, hash(sequence));
                }
            }
        }
    }
}
