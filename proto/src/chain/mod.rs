//! The chains of a sealer: one for each lane, in one epoch.
//!
//! [`EpochChain`] is what a sealer has to remember: its epoch and how far each lane reaches. It is pure; who owns
//! it stores its state in the same frame of the spool as the seal that moved it, so that after a crash neither is
//! ahead of the other.
//!
//! State, version 1: `01 ‖ epoch (16) ‖ alert ‖ routine ‖ 00 | 01 previous epoch (16) ‖ alert ‖ routine ‖ sealer
//! (UTF-8, to the end)`, where a head is `next` as a little-endian `u64` and 32 bytes of hash.

mod epoch;
mod head;
mod held;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use epoch::{Epoch, EpochError};
pub use head::{Head, HeadError, PreviousEpoch};
pub use held::{ChainHeld, HeldError, HeldRange};

use crate::{
    hash::Hash,
    lane::Lane,
    name::SpiffeId,
    payload::Payload,
    seal::{ClockState, Seal, SealError, Void},
    statement::Statement,
};

/// The chains of one sealer in one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochChain {
    sealer: SpiffeId,
    epoch: Epoch,
    heads: [Head; 2],
    previous_epoch: Option<PreviousEpoch>,
}

/// What goes into a seal beside what the chain knows.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The lane of the batch.
    pub lane: Lane,
    /// The batch.
    pub payload: &'a Payload,
    /// Labels of the sealer, the same for all its batches.
    pub labels: &'a BTreeMap<String, String>,
    /// What the sealer knows of its clock.
    pub clock: ClockState,
    /// Now.
    pub sealed_unix_nano: i64,
    /// Known losses that no seal has carried yet, at most [`MAX_VOIDS`](crate::MAX_VOIDS).
    pub voids: &'a [Void],
}

/// A seal made: its bytes are not to be encoded again.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The encoded seal.
    pub bytes: Bytes,
    /// Hash of these bytes.
    pub hash: Hash,
    /// What they say.
    pub seal: Seal,
}

impl EpochChain {
    /// The first epoch of a sealer that remembers no other.
    pub fn start(sealer: SpiffeId, epoch: Epoch) -> EpochChain {
        EpochChain {
            sealer,
            epoch,
            heads: [Head::START; 2],
            previous_epoch: None,
        }
    }

    /// An epoch after one that is known only by its heads: for a collector, whose ledger holds its own chains too.
    pub fn after(
        sealer: SpiffeId,
        epoch: Epoch,
        previous_epoch: Option<PreviousEpoch>,
    ) -> EpochChain {
        EpochChain {
            previous_epoch,
            ..EpochChain::start(sealer, epoch)
        }
    }

    /// The epoch after this one, of `sealer`. Its first seals name this one, or the one before where nothing was
    /// sealed in this one, so that nobody waits for an epoch that never was. Another sealer's epochs are not named:
    /// a renewed name starts anew.
    pub fn succeed(&self, sealer: SpiffeId, epoch: Epoch) -> EpochChain {
        let previous_epoch = if sealer != self.sealer {
            None
        } else if self.heads == [Head::START; 2] {
            self.previous_epoch
        } else {
            Some(PreviousEpoch {
                epoch: self.epoch,
                heads: self.heads,
            })
        };
        EpochChain {
            previous_epoch,
            ..EpochChain::start(sealer, epoch)
        }
    }

    /// Who seals.
    pub fn sealer(&self) -> &SpiffeId {
        &self.sealer
    }

    /// The epoch of every seal made here.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How far `lane` reaches.
    pub fn head(&self, lane: Lane) -> Head {
        self.heads[lane.index()]
    }

    /// The epoch that the first seals name.
    pub fn previous_epoch(&self) -> Option<&PreviousEpoch> {
        self.previous_epoch.as_ref()
    }

    /// Makes the next seal of a lane and moves its head. On an error (labels, voids or a payload beyond the limits)
    /// nothing has moved.
    pub fn seal(&mut self, draft: Draft<'_>) -> Result<Sealed, SealError> {
        let head = self.head(draft.lane);
        let seal = Seal {
            sealer: self.sealer.clone(),
            epoch: self.epoch,
            lane: draft.lane,
            sequence: head.next,
            previous: head.hash,
            other: self.head(draft.lane.other()),
            payload: draft.payload.info.clone(),
            sealed_unix_nano: draft.sealed_unix_nano,
            first_observed_unix_nano: draft.payload.first_observed_unix_nano,
            last_observed_unix_nano: draft.payload.last_observed_unix_nano,
            clock: draft.clock,
            labels: draft.labels.clone(),
            previous_epoch: self.previous_epoch.filter(|_| head.next == 0),
            voids: draft.voids.to_vec(),
        };
        seal.check()?;
        let bytes = seal.encode();
        let hash = Hash::of(&bytes);
        self.heads[draft.lane.index()] = seal.head_after(hash);
        Ok(Sealed { bytes, hash, seal })
    }

    /// How far the chains reach, for the sealer to sign. `closing`: a clean stop, no more will come in this epoch.
    pub fn statement(&self, time_unix_nano: i64, closing: bool) -> Statement {
        Statement {
            sealer: self.sealer.clone(),
            epoch: self.epoch,
            time_unix_nano,
            heads: self.heads,
            closing,
        }
    }

    /// The state to store, see the module.
    pub fn encode_state(&self) -> Vec<u8> {
        let mut state = vec![STATE_VERSION];
        put_epoch(&mut state, self.epoch, &self.heads);
        match &self.previous_epoch {
            None => state.push(0),
            Some(previous) => {
                state.push(1);
                put_epoch(&mut state, previous.epoch, &previous.heads);
            }
        }
        state.extend_from_slice(self.sealer.to_string().as_bytes());
        state
    }

    /// Reads what [`encode_state`](Self::encode_state) wrote.
    pub fn decode_state(state: &[u8]) -> Result<EpochChain, ChainStateError> {
        match state.first() {
            Some(&STATE_VERSION) => {}
            Some(&newer) if newer > STATE_VERSION => return Err(ChainStateError::Version(newer)),
            _ => return Err(ChainStateError::Malformed),
        }
        read_state(&state[1..]).ok_or(ChainStateError::Malformed)
    }
}

/// Why stored bytes are not the state of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainStateError {
    /// Written by a newer program: leave it untouched.
    #[error("chain state of version {0} is not readable here")]
    Version(u8),
    /// Not what we write. The sealer starts an epoch without a previous one; nothing sealed is lost by that.
    #[error("chain state is malformed")]
    Malformed,
}

const STATE_VERSION: u8 = 1;

fn put_epoch(state: &mut Vec<u8>, epoch: Epoch, heads: &[Head; 2]) {
    state.extend_from_slice(&epoch.0);
    for head in heads {
        state.extend_from_slice(&head.next.to_le_bytes());
        state.extend_from_slice(&head.hash.0);
    }
}

fn read_state(mut state: &[u8]) -> Option<EpochChain> {
    let (epoch, heads) = take_epoch(&mut state)?;
    let previous_epoch = match take::<1>(&mut state)? {
        [0] => None,
        [1] => take_epoch(&mut state).map(|(epoch, heads)| Some(PreviousEpoch { epoch, heads }))?,
        _ => return None,
    };
    if previous_epoch.is_some_and(|previous| previous.epoch == epoch) {
        return None;
    }
    let sealer = str::from_utf8(state).ok()?.parse().ok()?;
    Some(EpochChain {
        sealer,
        epoch,
        heads,
        previous_epoch,
    })
}

fn take_epoch(state: &mut &[u8]) -> Option<(Epoch, [Head; 2])> {
    Some((Epoch(take(state)?), [take_head(state)?, take_head(state)?]))
}

fn take_head(state: &mut &[u8]) -> Option<Head> {
    let head = Head {
        next: u64::from_le_bytes(take(state)?),
        hash: Hash(take(state)?),
    };
    Some(head).filter(Head::is_sound)
}

fn take<const N: usize>(state: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = state.split_first_chunk()?;
    *state = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests;
