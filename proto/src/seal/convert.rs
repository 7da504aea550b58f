//! Between a seal as used and its message.

use super::{ClockState, Epoch, Hash, Head, Lane, PreviousEpoch, Seal, SealError, Void, invalid};
use crate::{SEAL_VERSION, payload::PayloadInfo, wire};

impl From<&Seal> for wire::Seal {
    fn from(seal: &Seal) -> wire::Seal {
        wire::Seal {
            version: SEAL_VERSION,
            sealer: seal.sealer.to_string(),
            epoch: seal.epoch.into(),
            lane: seal.lane.into(),
            sequence: seal.sequence,
            previous: seal.previous.into(),
            other: Some(seal.other.into()),
            payload_format: seal.payload.format,
            payload_hash: seal.payload.hash.into(),
            payload_bytes: seal.payload.bytes,
            unpacked_bytes: seal.payload.unpacked_bytes,
            events: seal.payload.events,
            sealed_unix_nano: seal.sealed_unix_nano,
            first_observed_unix_nano: seal.first_observed_unix_nano,
            last_observed_unix_nano: seal.last_observed_unix_nano,
            clock: wire::Clock::from(seal.clock) as i32,
            labels: seal.labels.clone(),
            previous_epoch: seal.previous_epoch.as_ref().map(Into::into),
            voids: seal.voids.iter().map(Into::into).collect(),
        }
    }
}

/// Lengths and enums only; [`Seal::check`] has the rules.
impl TryFrom<&wire::Seal> for Seal {
    type Error = SealError;

    fn try_from(seal: &wire::Seal) -> Result<Seal, SealError> {
        Ok(Seal {
            sealer: seal.sealer.parse().map_err(SealError::Sealer)?,
            epoch: epoch("epoch", &seal.epoch)?,
            lane: lane("lane", seal.lane)?,
            sequence: seal.sequence,
            previous: hash("previous", &seal.previous)?,
            other: head("other", seal.other.as_ref())?,
            payload: PayloadInfo {
                format: seal.payload_format,
                hash: hash("payload_hash", &seal.payload_hash)?,
                bytes: seal.payload_bytes,
                unpacked_bytes: seal.unpacked_bytes,
                events: seal.events,
            },
            sealed_unix_nano: seal.sealed_unix_nano,
            first_observed_unix_nano: seal.first_observed_unix_nano,
            last_observed_unix_nano: seal.last_observed_unix_nano,
            clock: ClockState::from_wire(seal.clock),
            labels: seal.labels.clone(),
            previous_epoch: seal
                .previous_epoch
                .as_ref()
                .map(previous_epoch)
                .transpose()?,
            voids: seal.voids.iter().map(void).collect::<Result<_, _>>()?,
        })
    }
}

impl From<ClockState> for wire::Clock {
    fn from(clock: ClockState) -> wire::Clock {
        match clock {
            ClockState::Unknown => wire::Clock::Unknown,
            ClockState::Synchronized => wire::Clock::Synchronized,
            ClockState::Unsynchronized => wire::Clock::Unsynchronized,
        }
    }
}

impl ClockState {
    /// From the number of `wire::Clock`. A state that only newer programs know is unknown to us; nothing is refused
    /// for its clock.
    pub fn from_wire(number: i32) -> ClockState {
        match wire::Clock::try_from(number) {
            Ok(wire::Clock::Synchronized) => ClockState::Synchronized,
            Ok(wire::Clock::Unsynchronized) => ClockState::Unsynchronized,
            Ok(wire::Clock::Unknown) | Err(_) => ClockState::Unknown,
        }
    }
}

impl From<&PreviousEpoch> for wire::PreviousEpoch {
    fn from(previous: &PreviousEpoch) -> wire::PreviousEpoch {
        wire::PreviousEpoch {
            epoch: previous.epoch.into(),
            alert: Some(previous.head(Lane::Alert).into()),
            routine: Some(previous.head(Lane::Routine).into()),
        }
    }
}

impl From<&Void> for wire::Void {
    fn from(void: &Void) -> wire::Void {
        wire::Void {
            epoch: void.epoch.into(),
            lane: void.lane.into(),
            first: void.first,
            end: void.end,
            reason: void.reason.clone(),
            events: void.events,
            last: void.last.into(),
        }
    }
}

fn previous_epoch(previous: &wire::PreviousEpoch) -> Result<PreviousEpoch, SealError> {
    const FIELD: &str = "previous_epoch";
    Ok(PreviousEpoch {
        epoch: epoch(FIELD, &previous.epoch)?,
        heads: [
            head(FIELD, previous.alert.as_ref())?,
            head(FIELD, previous.routine.as_ref())?,
        ],
    })
}

fn void(void: &wire::Void) -> Result<Void, SealError> {
    const FIELD: &str = "voids";
    Ok(Void {
        epoch: epoch(FIELD, &void.epoch)?,
        lane: lane(FIELD, void.lane)?,
        first: void.first,
        end: void.end,
        reason: void.reason.clone(),
        events: void.events,
        last: hash(FIELD, &void.last)?,
    })
}

fn epoch(field: &'static str, bytes: &[u8]) -> Result<Epoch, SealError> {
    Epoch::try_from(bytes).map_err(|_| invalid(field, "an epoch has 16 bytes"))
}

fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash, SealError> {
    Hash::try_from(bytes).map_err(|_| invalid(field, "a hash has 32 bytes"))
}

fn lane(field: &'static str, number: i32) -> Result<Lane, SealError> {
    Lane::try_from(number).map_err(|_| invalid(field, "a lane is alert or routine"))
}

fn head(field: &'static str, head: Option<&wire::Head>) -> Result<Head, SealError> {
    let head = head.ok_or_else(|| invalid(field, "a head is given"))?;
    Head::try_from(head)
        .map_err(|_| invalid(field, "a head's hash has 32 bytes, zeros exactly at 0"))
}
