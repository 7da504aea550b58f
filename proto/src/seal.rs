//! The header of a batch: encode, hash, chain.

use crate::name::SpiffeId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);
impl Hash {
    pub const ZERO: Hash = Hash([0; 32]);
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        todo!()
    }
}
// Display, Debug: hex. TryFrom<&[u8]>.

/// One run of a sealer: 16 random bytes, shown in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub [u8; 16]);
impl Epoch {
    pub fn random() -> Epoch {
        todo!()
    }
}
// Display (32 hex digits), Debug, FromStr, TryFrom<&[u8]>.

/// A lane; an alert overtakes every routine backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    Alert,
    Routine,
}
impl Lane {
    /// Alert first: the order in which lanes are served.
    pub const ALL: [Lane; 2] = [Lane::Alert, Lane::Routine];
    /// 0 alert, 1 routine: index into per-lane arrays and the spool's lane number.
    pub fn index(self) -> usize {
        todo!()
    }
    pub fn other(self) -> Lane {
        todo!()
    }
    /// `alert` or `routine`.
    pub fn as_str(self) -> &'static str {
        todo!()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    Unknown,
    Synchronized,
    Unsynchronized,
}

/// How far a chain reaches: the first sequence number not there yet, and the hash of the seal before it ([`Hash::ZERO`] at 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub next: u64,
    pub hash: Hash,
}
impl Head {
    pub const START: Head = Head {
        next: 0,
        hash: Hash::ZERO,
    };
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousEpoch {
    pub epoch: Epoch,
    /// by Lane::index
    pub heads: [Head; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    pub epoch: Epoch,
    pub lane: Lane,
    pub first: u64,
    pub end: u64,
    pub reason: String,
    pub events: u64,
    pub last: Hash,
}

/// A seal as used: can only be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    pub sealer: SpiffeId,
    pub epoch: Epoch,
    pub lane: Lane,
    pub sequence: u64,
    pub previous: Hash,
    pub other: Head,
    pub payload: crate::payload::PayloadInfo,
    pub sealed_unix_nano: i64,
    pub first_observed_unix_nano: i64,
    pub last_observed_unix_nano: i64,
    pub clock: ClockState,
    pub labels: BTreeMap<String, String>,
    pub previous_epoch: Option<PreviousEpoch>,
    pub voids: Vec<Void>,
}

/// Why bytes are not a seal. All are the batch's own defect, but `Version` and `PayloadFormat`, which configuration (an upgrade) cures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// to be split into variants by what a caller would do differently
    #[error("seal version {0} is not readable here")]
    Version(u32),
    #[error("{0}")]
    Malformed(String),
}

impl Seal {
    /// Deterministic (BTreeMap, prost field order).
    pub fn encode(&self) -> Bytes {
        todo!()
    }
    /// Checks every limit and rule that needs no context: lengths, names, `sequence == 0` has previous zeros and only it may name an epoch before…
    pub fn decode(bytes: &[u8]) -> Result<Seal, SealError> {
        todo!()
    }
}
