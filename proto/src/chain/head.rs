//! How far a chain reaches, and what may come next.

use crate::{chain::Epoch, hash::Hash, lane::Lane, wire};

/// How far a chain reaches: the first sequence number not there yet, and the hash of the seal before it
/// ([`Hash::ZERO`] at 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The first sequence number that is not there yet.
    pub next: u64,
    /// Hash of the seal at `next - 1`.
    pub hash: Hash,
}

/// A head that cannot be: a hash of another length, or zeros anywhere but at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chain's head has a hash of 32 bytes, zeros exactly when nothing is in the chain")]
pub struct HeadError;

impl Head {
    /// Of a chain that holds nothing.
    pub const START: Head = Head {
        next: 0,
        hash: Hash::ZERO,
    };

    /// The head after the seal at `sequence`, whose hash is `hash`.
    pub fn after(sequence: u64, hash: Hash) -> Head {
        Head {
            next: sequence.saturating_add(1),
            hash,
        }
    }

    /// Whether a seal at `sequence` that names `previous` is the next of this chain.
    pub fn is_followed_by(&self, sequence: u64, previous: Hash) -> bool {
        self.next == sequence && self.hash == previous
    }

    /// Whether the hash is zeros exactly at the start. A hash of bytes is never zeros.
    pub(crate) fn is_sound(&self) -> bool {
        (self.next == 0) == self.hash.is_zero()
    }
}

impl From<Head> for wire::Head {
    fn from(head: Head) -> wire::Head {
        wire::Head {
            next: head.next,
            hash: head.hash.into(),
        }
    }
}

impl TryFrom<&wire::Head> for Head {
    type Error = HeadError;

    fn try_from(head: &wire::Head) -> Result<Head, HeadError> {
        let hash = Hash::try_from(&head.hash[..]).map_err(|_| HeadError)?;
        Some(Head {
            next: head.next,
            hash,
        })
        .filter(Head::is_sound)
        .ok_or(HeadError)
    }
}

/// The epoch before this one, with how far its chains reached: links the runs of a sealer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousEpoch {
    /// Its id.
    pub epoch: Epoch,
    /// Where each lane ended, by [`Lane::index`].
    pub heads: [Head; 2],
}

impl PreviousEpoch {
    /// Where `lane` ended.
    pub fn head(&self, lane: Lane) -> Head {
        self.heads[lane.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_zeros_exactly_at_the_start() {
        let hash = Hash::of(b"seal");
        for (head, sound) in [
            (Head::START, true),
            (Head { next: 1, hash }, true),
            (Head { next: 0, hash }, false),
            (
                Head {
                    next: 1,
                    hash: Hash::ZERO,
                },
                false,
            ),
        ] {
            assert_eq!(
                Head::try_from(&wire::Head::from(head)),
                if sound { Ok(head) } else { Err(HeadError) }
            );
        }
        let short = wire::Head {
            next: 1,
            hash: vec![1; 31].into(),
        };
        assert_eq!(Head::try_from(&short), Err(HeadError));
    }

    #[test]
    fn only_the_next_seal_with_the_right_previous_follows() {
        let hash = Hash::of(b"seal 4");
        let head = Head::after(4, hash);
        assert!(head.is_followed_by(5, hash));
        assert!(!head.is_followed_by(4, hash));
        assert!(!head.is_followed_by(6, hash));
        assert!(!head.is_followed_by(5, Hash::of(b"another")));
        assert!(Head::START.is_followed_by(0, Hash::ZERO));
    }
}
