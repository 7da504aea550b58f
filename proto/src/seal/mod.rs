//! The header of a batch: who sealed what, where it stands in its chain, and the hash of its payload.
//!
//! A seal travels as the bytes that its sealer encoded, never re-encoded: [`Hash::of`] these bytes is what the next
//! seal of the chain names as `previous`, and a signature is over them (see [`signature`](crate::signature)).
//! Encoding is deterministic: fields in the order of their numbers, labels in the order of their names, nothing
//! written for a default.
//!
//! [`Seal::decode`] checks every rule that needs no context. That a seal continues its chain, that the payload has
//! the sealed hash and that the signer has the sealer's name is for the receiver to check, with
//! [`Head::is_followed_by`], [`Hash::of`] and [`VerifyingKey::verify`](crate::signature::VerifyingKey::verify).

mod convert;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

pub use crate::{
    chain::{Epoch, Head, HeadError, PreviousEpoch},
    hash::Hash,
    lane::Lane,
};
use crate::{
    limits::{
        MAX_EVENTS, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_LABELS_BYTES,
        MAX_PAYLOAD_BYTES, MAX_REASON_BYTES, MAX_SEAL_BYTES, MAX_SEQUENCE, MAX_UNPACKED_BYTES,
        MAX_VOIDS, SEAL_VERSION,
    },
    name::{NameError, SpiffeId},
    payload::{FORMAT_COLUMNS_ZSTD_1, PayloadInfo},
    scan, wire,
};

/// What a sealer knows of its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClockState {
    /// The system does not say.
    Unknown,
    /// Disciplined by a time source.
    Synchronized,
    /// Running free.
    Unsynchronized,
}

/// Sequence numbers of the sealer's chains that will never come, and why: a known loss, signed with the seal that
/// carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// The epoch of the chain: this one or an earlier one of the same sealer.
    pub epoch: Epoch,
    /// The lane of the chain.
    pub lane: Lane,
    /// The first number that is void.
    pub first: u64,
    /// The first number behind them that is not void.
    pub end: u64,
    /// A word of a closed set, e.g. `spool_full`; at most [`MAX_REASON_BYTES`].
    pub reason: String,
    /// How many records were in them.
    pub events: u64,
    /// Hash of the seal at `end - 1`: what the seal at `end` names as its previous one.
    pub last: Hash,
}

/// A seal as used. What [`Seal::decode`] returns obeys every rule; one built by hand does after [`Seal::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Who sealed it. Equals the signer's name.
    pub sealer: SpiffeId,
    /// The run of the sealer.
    pub epoch: Epoch,
    /// The lane of the chain.
    pub lane: Lane,
    /// Its place in the chain, from 0; at most [`MAX_SEQUENCE`].
    pub sequence: u64,
    /// Hash of the seal before it in the chain; [`Hash::ZERO`] exactly at 0.
    pub previous: Hash,
    /// How far the chain of the other lane reached when this was sealed.
    pub other: Head,
    /// Format, hash and sizes of the payload.
    pub payload: PayloadInfo,
    /// When it was sealed, by the sealer's clock.
    pub sealed_unix_nano: i64,
    /// The earliest time at which one of its events was read, by the sealer's clock.
    pub first_observed_unix_nano: i64,
    /// The latest.
    pub last_observed_unix_nano: i64,
    /// What the sealer knows of its clock.
    pub clock: ClockState,
    /// Labels of the sealer, the same for all events.
    pub labels: BTreeMap<String, String>,
    /// The epoch before, where there was one. Only at sequence 0.
    pub previous_epoch: Option<PreviousEpoch>,
    /// Known losses in the sealer's chains.
    pub voids: Vec<Void>,
}

/// Why bytes are not a seal. All are the batch's own defect, but those of which [`SealError::is_curable`] says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Made by a newer program. An upgrade of the receiver cures it: park, set nothing aside.
    #[error("seal version {0} is not readable here")]
    Version(u32),
    /// The payload is of a newer format. An upgrade of the receiver cures it: park, set nothing aside.
    #[error("payload format {0} is not readable here")]
    PayloadFormat(u32),
    /// Beyond [`MAX_SEAL_BYTES`]; nothing of it was looked at.
    #[error("seal has {0} bytes, the limit is {MAX_SEAL_BYTES}")]
    TooLarge(usize),
    /// Not the encoding of any seal.
    #[error("seal cannot be decoded")]
    Undecodable(#[source] prost::DecodeError),
    /// The sealer's name is not one of ours.
    #[error("sealer of the seal")]
    Sealer(#[source] NameError),
    /// More of something than its limit.
    #[error("seal: {actual} {what}, the limit is {max}")]
    Limit {
        /// What was counted, with its unit.
        what: &'static str,
        /// The limit.
        max: u64,
        /// How much there is.
        actual: u64,
    },
    /// A field breaks a rule.
    #[error("seal: {field}: {rule}")]
    Invalid {
        /// The field of `watchline.v1.Seal`.
        field: &'static str,
        /// What would be right.
        rule: &'static str,
    },
}

impl SealError {
    /// Whether an upgrade of the receiver cures it. The batch is then not to be set aside.
    pub fn is_curable(&self) -> bool {
        matches!(self, SealError::Version(_) | SealError::PayloadFormat(_))
    }
}

impl Seal {
    /// The bytes that are hashed, signed and sent. At most [`MAX_SEAL_BYTES`] for a seal that passes [`Seal::check`].
    pub fn encode(&self) -> Bytes {
        wire::Seal::from(self).encode_to_vec().into()
    }

    /// Reads a seal and checks every rule that needs no context. Takes memory only for what is within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Seal, SealError> {
        if bytes.len() > MAX_SEAL_BYTES {
            return Err(SealError::TooLarge(bytes.len()));
        }
        const LABELS: u32 = 17;
        const VOIDS: u32 = 19;
        let [labels, voids] =
            scan::count(bytes, [LABELS, VOIDS]).map_err(SealError::Undecodable)?;
        limit("labels", labels, MAX_LABELS)?;
        limit("voids", voids, MAX_VOIDS)?;
        let seal = wire::Seal::decode(bytes).map_err(SealError::Undecodable)?;
        match seal.version {
            SEAL_VERSION => {}
            0 => return Err(invalid("version", "it is given")),
            newer => return Err(SealError::Version(newer)),
        }
        let seal = Seal::try_from(&seal)?;
        seal.check()?;
        Ok(seal)
    }

    /// Checks every rule that needs no context. [`Seal::decode`] has done so.
    pub fn check(&self) -> Result<(), SealError> {
        if self.sequence > MAX_SEQUENCE {
            return Err(invalid("sequence", "it is below 2^63"));
        }
        if (self.sequence == 0) != self.previous.is_zero() {
            return Err(invalid("previous", "it is zeros exactly at sequence 0"));
        }
        if !self.other.is_sound() {
            return Err(invalid("other", "its hash is zeros exactly at 0"));
        }
        if let Some(before) = &self.previous_epoch {
            if self.sequence != 0 {
                return Err(invalid(
                    "previous_epoch",
                    "only the first seal of a chain names it",
                ));
            }
            if before.epoch == self.epoch {
                return Err(invalid("previous_epoch", "it is another epoch"));
            }
            if !before.heads.iter().all(Head::is_sound) {
                return Err(invalid(
                    "previous_epoch",
                    "a head's hash is zeros exactly at 0",
                ));
            }
        }
        check_payload(&self.payload)?;
        check_labels(&self.labels)?;
        limit("voids", self.voids.len(), MAX_VOIDS)?;
        self.voids.iter().try_for_each(check_void)
    }

    /// The head of the chain after this seal, whose encoded bytes hash to `hash`.
    pub fn head_after(&self, hash: Hash) -> Head {
        Head::after(self.sequence, hash)
    }
}

/// Whether a seal can carry these labels: for a configuration to check before the first seal is made.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), SealError> {
    limit("labels", labels.len(), MAX_LABELS)?;
    let mut bytes = 0;
    for (name, value) in labels {
        if name.is_empty() {
            return Err(invalid("labels", "a label has a name"));
        }
        limit(
            "bytes in the name of a label",
            name.len(),
            MAX_LABEL_NAME_BYTES,
        )?;
        limit(
            "bytes in the value of a label",
            value.len(),
            MAX_LABEL_VALUE_BYTES,
        )?;
        bytes += name.len() + value.len();
    }
    limit("bytes in all labels", bytes, MAX_LABELS_BYTES)
}

fn check_payload(payload: &PayloadInfo) -> Result<(), SealError> {
    if payload.format == 0 {
        return Err(invalid("payload_format", "it is given"));
    }
    if payload.format != FORMAT_COLUMNS_ZSTD_1 {
        return Err(SealError::PayloadFormat(payload.format));
    }
    for (field, number) in [
        ("payload_bytes", payload.bytes),
        ("unpacked_bytes", payload.unpacked_bytes),
        ("events", payload.events),
    ] {
        if number == 0 {
            return Err(invalid(field, "it is not 0"));
        }
    }
    limit(
        "bytes of payload",
        payload.bytes as usize,
        MAX_PAYLOAD_BYTES,
    )?;
    limit(
        "bytes of unpacked payload",
        payload.unpacked_bytes as usize,
        MAX_UNPACKED_BYTES,
    )?;
    limit("events", payload.events as usize, MAX_EVENTS)
}

fn check_void(void: &Void) -> Result<(), SealError> {
    if void.first >= void.end || void.end > MAX_SEQUENCE + 1 {
        return Err(invalid(
            "voids",
            "a range has at least one number, below 2^63",
        ));
    }
    if void.last.is_zero() {
        return Err(invalid("voids", "the last seal has a hash"));
    }
    if void.reason.is_empty() {
        return Err(invalid("voids", "a reason is given"));
    }
    limit(
        "bytes in the reason of a void",
        void.reason.len(),
        MAX_REASON_BYTES,
    )
}

fn limit(what: &'static str, actual: usize, max: usize) -> Result<(), SealError> {
    if actual > max {
        return Err(SealError::Limit {
            what,
            max: max as u64,
            actual: actual as u64,
        });
    }
    Ok(())
}

fn invalid(field: &'static str, rule: &'static str) -> SealError {
    SealError::Invalid { field, rule }
}

#[cfg(test)]
mod tests;
