//! Checking a chain: whether each seal names the one before it, and what is missing.

use std::ops::Range;

use watchline_proto::{Hash, Head, Void};

/// Half a SHA-256: nobody makes a second seal with the same, and there are two for each batch in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShortHash([u8; 16]);

impl From<Hash> for ShortHash {
    fn from(hash: Hash) -> ShortHash {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.0[..16]);
        ShortHash(short)
    }
}

/// One sound batch, as its chain sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    sequence: u64,
    previous: ShortHash,
    hash: ShortHash,
}

impl Link {
    pub(crate) fn new(sequence: u64, previous: Hash, hash: Hash) -> Link {
        Link {
            sequence,
            previous: previous.into(),
            hash: hash.into(),
        }
    }
}

/// What is known of one chain.
#[derive(Debug, Default)]
pub(crate) struct LaneEvidence {
    pub(crate) links: Vec<Link>,
    pub(crate) voids: Vec<Void>,
    /// The furthest head that a seal of the other lane or of the next epoch names.
    reached: Option<Head>,
}

/// What became of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) held: Vec<Range<u64>>,
    pub(crate) missing: Vec<Range<u64>>,
    /// Known losses: no longer missing.
    pub(crate) voids: Vec<Void>,
    /// The chain is checked from here; what was before need not be held.
    pub(crate) from: u64,
    /// Batches that are there more than once, all the same.
    pub(crate) repeated: u64,
    /// Number and what is wrong with it, in order.
    pub(crate) wrong: Vec<(u64, String)>,
}

impl LaneEvidence {
    /// Somebody who must know says how far the chain reaches.
    pub(crate) fn reached(&mut self, head: Head) {
        if self.reached.is_none_or(|reached| reached.next < head.next) {
            self.reached = Some(head);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.voids.is_empty()
            && self.reached.is_none_or(|head| head.next == 0)
    }

    /// `may_begin_late`: numbers before the first that is held need not be there.
    pub(crate) fn check(mut self, may_begin_late: bool) -> Findings {
        self.links.sort_by_key(|link| link.sequence);
        self.voids.sort_by_key(|void| void.first);
        let mut findings = Findings::default();
        let first = self.links.first().map(|link| link.sequence);
        let first = first
            .into_iter()
            .chain(self.voids.first().map(|void| void.first))
            .min();
        if may_begin_late {
            findings.from = first.unwrap_or_else(|| self.reached.map_or(0, |head| head.next));
        }
        let mut last: Option<Link> = None;
        let mut next = findings.from;
        for &link in &self.links {
            match last {
                Some(last) if last.sequence == link.sequence => {
                    if last.hash == link.hash {
                        findings.repeated += 1;
                    } else {
                        findings
                            .wrong
                            .push((link.sequence, "there are two different batches".to_owned()));
                    }
                    continue;
                }
                Some(last) if last.sequence + 1 == link.sequence && last.hash != link.previous => {
                    findings.wrong.push((
                        link.sequence,
                        "does not follow the batch before it".to_owned(),
                    ));
                }
                _ => {}
            }
            self.missing(next..link.sequence, &mut findings);
            let void = self.voids.iter().find(|void| void.end == link.sequence);
            if void.is_some_and(|void| ShortHash::from(void.last) != link.previous) {
                findings.wrong.push((
                    link.sequence,
                    "does not follow the void before it".to_owned(),
                ));
            }
            match findings.held.last_mut() {
                Some(range) if range.end == link.sequence => range.end += 1,
                _ => findings.held.push(link.sequence..link.sequence + 1),
            }
            next = link.sequence + 1;
            last = Some(link);
        }
        if let Some(head) = self.reached {
            self.missing(next..head.next, &mut findings);
            let at_head = head.next.checked_sub(1).and_then(|sequence| {
                let index = self
                    .links
                    .binary_search_by_key(&sequence, |link| link.sequence)
                    .ok()?;
                self.links.get(index)
            });
            if at_head.is_some_and(|link| link.hash != head.hash.into()) {
                findings.wrong.push((
                    head.next - 1,
                    "is not the batch that a later seal names".to_owned(),
                ));
            }
        }
        findings.voids = self.voids;
        findings
    }

    /// Adds what of `hole` no void explains.
    fn missing(&self, hole: Range<u64>, findings: &mut Findings) {
        let mut next = hole.start;
        for void in &self.voids {
            if void.first >= hole.end {
                break;
            }
            if next < void.first {
                findings.missing.push(next..void.first);
            }
            next = next.max(void.end);
        }
        if next < hole.end {
            findings.missing.push(next..hole.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use watchline_proto::{Epoch, Lane};

    use super::*;

    /// One range in a list; a literal would read like the numbers in it.
    fn one(range: Range<u64>) -> Vec<Range<u64>> {
        vec![range]
    }

    fn hash(number: u64) -> Hash {
        Hash::of(&number.to_le_bytes())
    }

    fn link(sequence: u64) -> Link {
        let previous = sequence.checked_sub(1).map_or(Hash::ZERO, hash);
        Link::new(sequence, previous, hash(sequence))
    }

    fn chain(numbers: impl IntoIterator<Item = u64>) -> LaneEvidence {
        LaneEvidence {
            links: numbers.into_iter().map(link).collect(),
            ..LaneEvidence::default()
        }
    }

    fn void(first: u64, end: u64) -> Void {
        Void {
            epoch: Epoch([1; 16]),
            lane: Lane::Routine,
            first,
            end,
            reason: "spool_full".to_owned(),
            events: 10,
            last: hash(end - 1),
        }
    }

    #[test]
    fn a_whole_chain_in_any_order_is_one_range() {
        let findings = chain([3, 0, 2, 1]).check(false);
        assert_eq!(findings.held, one(0..4));
        assert_eq!(
            findings,
            Findings {
                held: findings.held.clone(),
                ..Findings::default()
            }
        );
    }

    #[test]
    fn holes_are_missing_unless_voided() {
        let mut evidence = chain([0, 1, 5, 6, 9]);
        evidence.voids.push(void(3, 5));
        let findings = evidence.check(false);
        assert_eq!(findings.held, [0..2, 5..7, 9..10]);
        assert_eq!(findings.missing, [2..3, 7..9]);
        assert_eq!(findings.wrong, []);
    }

    #[test]
    fn a_chain_that_begins_late_is_missing_its_beginning_or_not() {
        assert_eq!(chain([4, 5]).check(false).missing, one(0..4));
        let findings = chain([4, 5]).check(true);
        assert_eq!((findings.missing.len(), findings.from), (0, 4));
    }

    #[test]
    fn an_end_that_others_tell_of_is_missing() {
        let mut evidence = chain([0, 1]);
        evidence.reached(Head::after(3, hash(3)));
        evidence.reached(Head::after(1, hash(1)));
        assert_eq!(evidence.check(false).missing, one(2..4));
        let mut nothing = LaneEvidence::default();
        assert!(nothing.is_empty());
        nothing.reached(Head::after(1, hash(1)));
        assert!(!nothing.is_empty());
        assert_eq!(nothing.check(false).missing, one(0..2));
    }

    #[test]
    fn a_break_a_fork_and_a_wrong_head_are_found_where_they_are() {
        let mut broken = chain([0, 1, 3]);
        broken.links.push(Link::new(2, hash(77), hash(2)));
        assert_eq!(broken.check(false).wrong[0].0, 2);

        let mut forked = chain([0, 1, 2]);
        forked.links.push(Link::new(1, hash(0), hash(99)));
        assert_eq!(forked.check(false).wrong[0].0, 1);

        let mut other_head = chain([0, 1, 2]);
        other_head.reached(Head::after(2, hash(99)));
        assert_eq!(other_head.check(false).wrong[0].0, 2);

        let mut other_void = chain([0, 3]);
        other_void.voids.push(Void {
            last: hash(99),
            ..void(1, 3)
        });
        assert_eq!(other_void.check(false).wrong[0].0, 3);
    }

    #[test]
    fn the_same_batch_twice_is_counted_and_no_more() {
        let findings = chain([0, 1, 1, 2]).check(false);
        assert_eq!((findings.repeated, findings.wrong.len()), (1, 0));
        assert_eq!(findings.held, one(0..3));
    }
}
