//! The ledger in the spool's state: one entry a chain, one a sealer.
//!
//! | key | value |
//! |---|---|
//! | `chain/<sealer>/<epoch, hex>/<lane>` | version byte 1, then `ChainState` |
//! | `forwarder/<sealer>` | version byte 1, then `SealerState` |
//!
//! `<sealer>` is the whole SPIFFE ID, slashes included; epoch and lane are the last two parts. Reading never panics and takes no
//! more memory than the bytes read; unknown fields are ignored.

use super::{
    chain::{Chain, Range, VoidRange},
    sealer::{Folded, FoldedChain, SealerRecord},
};
use bytes::Bytes;
use prost::Message;
use watchline_proto::{Epoch, Hash, Head, Lane, SpiffeId};

const VERSION: u8 = 1;
const CHAIN_PREFIX: &str = "chain/";
const SEALER_PREFIX: &str = "forwarder/";

/// Prefixes of the ledger's keys, for reading them back.
pub const KEY_PREFIXES: [&str; 2] = [CHAIN_PREFIX, SEALER_PREFIX];

/// Why an entry of the state cannot be read. The chain counts as unknown then: what comes again of it is stored again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by a newer program.
    #[error("ledger entry has version {0}, this program reads up to {VERSION}")]
    Version(u8),
    /// Not what was written.
    #[error("ledger entry is malformed: {0}")]
    Malformed(&'static str),
}

/// One entry as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Chain(SpiffeId, Epoch, Lane, Chain),
    Sealer(SpiffeId, SealerRecord),
}

#[derive(Clone, PartialEq, Message)]
struct ChainState {
    #[prost(uint64, tag = "1")]
    floor: u64,
    #[prost(uint64, tag = "2")]
    forgotten: u64,
    #[prost(message, repeated, tag = "3")]
    ranges: Vec<RangeState>,
    #[prost(message, repeated, tag = "4")]
    voids: Vec<VoidState>,
    #[prost(message, optional, tag = "5")]
    end: Option<HeadState>,
    #[prost(uint64, tag = "6")]
    batches: u64,
    #[prost(uint64, tag = "7")]
    events: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RangeState {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    end: u64,
    #[prost(bytes = "bytes", tag = "3")]
    previous: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    last: Bytes,
    #[prost(sint64, tag = "5")]
    grown_unix_nano: i64,
}

#[derive(Clone, PartialEq, Message)]
struct VoidState {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    end: u64,
    #[prost(bytes = "bytes", tag = "3")]
    last: Bytes,
    #[prost(uint64, tag = "4")]
    events: u64,
}

#[derive(Clone, PartialEq, Message)]
struct HeadState {
    #[prost(uint64, tag = "1")]
    next: u64,
    #[prost(bytes = "bytes", tag = "2")]
    hash: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct SealerState {
    #[prost(sint64, tag = "1")]
    first_stored_unix_nano: i64,
    #[prost(sint64, tag = "2")]
    last_stored_unix_nano: i64,
    #[prost(bytes = "bytes", tag = "3")]
    epoch: Bytes,
    #[prost(sint64, tag = "4")]
    epoch_sealed_unix_nano: i64,
    #[prost(uint64, tag = "5")]
    forks: u64,
    #[prost(message, repeated, tag = "6")]
    folded: Vec<FoldedState>,
    #[prost(uint64, tag = "7")]
    folded_away: u64,
    #[prost(uint64, tag = "8")]
    folded_batches: u64,
    #[prost(uint64, tag = "9")]
    folded_events: u64,
    #[prost(uint64, tag = "10")]
    folded_missing: u64,
    #[prost(uint64, tag = "11")]
    folded_void_batches: u64,
    #[prost(uint64, tag = "12")]
    folded_void_events: u64,
}

#[derive(Clone, PartialEq, Message)]
struct FoldedState {
    #[prost(bytes = "bytes", tag = "1")]
    epoch: Bytes,
    #[prost(message, repeated, tag = "2")]
    chains: Vec<HeadState>,
    #[prost(bool, tag = "3")]
    incomplete: bool,
}

pub(super) fn chain_key(sealer: &SpiffeId, epoch: Epoch, lane: Lane) -> Bytes {
    Bytes::from(format!("{CHAIN_PREFIX}{sealer}/{epoch}/{}", lane.as_str()))
}

pub(super) fn sealer_key(sealer: &SpiffeId) -> Bytes {
    Bytes::from(format!("{SEALER_PREFIX}{sealer}"))
}

fn bytes_of(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(&hash.0)
}

fn versioned(message: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&message.encode_to_vec());
    Bytes::from(bytes)
}

pub(super) fn encode_chain(chain: &Chain) -> Bytes {
    versioned(&ChainState {
        floor: chain.floor,
        forgotten: chain.forgotten,
        ranges: chain
            .ranges
            .iter()
            .map(|range| RangeState {
                first: range.first,
                end: range.end,
                previous: bytes_of(&range.previous),
                last: bytes_of(&range.last),
                grown_unix_nano: range.grown_unix_nano,
            })
            .collect(),
        voids: chain
            .voids
            .iter()
            .map(|void| VoidState {
                first: void.first,
                end: void.end,
                last: bytes_of(&void.last),
                events: void.events,
            })
            .collect(),
        end: chain.end.as_ref().map(|head| HeadState {
            next: head.next,
            hash: bytes_of(&head.hash),
        }),
        batches: chain.batches,
        events: chain.events,
    })
}

pub(super) fn encode_sealer(record: &SealerRecord) -> Bytes {
    versioned(&SealerState {
        first_stored_unix_nano: record.first_stored_unix_nano,
        last_stored_unix_nano: record.last_stored_unix_nano,
        epoch: record
            .epoch
            .map(|epoch| Bytes::copy_from_slice(&epoch.0))
            .unwrap_or_default(),
        epoch_sealed_unix_nano: record.epoch_sealed_unix_nano,
        forks: record.forks,
        folded: record
            .folded
            .iter()
            .map(|folded| FoldedState {
                epoch: Bytes::copy_from_slice(&folded.epoch.0),
                chains: folded
                    .chains
                    .iter()
                    .map(|chain| HeadState {
                        next: chain.next,
                        hash: bytes_of(&chain.last),
                    })
                    .collect(),
                incomplete: !folded.complete,
            })
            .collect(),
        folded_away: record.folded_away,
        folded_batches: record.folded_batches,
        folded_events: record.folded_events,
        folded_missing: record.folded_missing,
        folded_void_batches: record.folded_void_batches,
        folded_void_events: record.folded_void_events,
    })
}

/// Reads one entry of the spool's state. `None`: the key is not the ledger's.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Result<Entry, StateError>> {
    let key = std::str::from_utf8(key).ok()?;
    if let Some(rest) = key.strip_prefix(CHAIN_PREFIX) {
        Some(decode_chain_entry(rest, value))
    } else {
        key.strip_prefix(SEALER_PREFIX)
            .map(|sealer| Ok(Entry::Sealer(sealer_name(sealer)?, decode_sealer(value)?)))
    }
}

fn sealer_name(text: &str) -> Result<SpiffeId, StateError> {
    text.parse()
        .map_err(|_| StateError::Malformed("the key names no sealer"))
}

fn decode_chain_entry(rest: &str, value: &[u8]) -> Result<Entry, StateError> {
    let malformed = || StateError::Malformed("the key names no chain");
    let mut parts = rest.rsplitn(3, '/');
    let (Some(lane), Some(epoch), Some(sealer)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed());
    };
    let lane = Lane::ALL
        .into_iter()
        .find(|known| known.as_str() == lane)
        .ok_or_else(malformed)?;
    let epoch: Epoch = epoch.parse().map_err(|_| malformed())?;
    Ok(Entry::Chain(
        sealer_name(sealer)?,
        epoch,
        lane,
        decode_chain(value)?,
    ))
}

fn unversioned<M: Message + Default>(value: &[u8]) -> Result<M, StateError> {
    match value.split_first() {
        Some((&VERSION, rest)) => {
            M::decode(rest).map_err(|_| StateError::Malformed("not a message of this version"))
        }
        Some((&version, _)) => Err(StateError::Version(version)),
        None => Err(StateError::Malformed("empty")),
    }
}

fn hash_from(bytes: &Bytes) -> Result<Hash, StateError> {
    Hash::try_from(&bytes[..]).map_err(|_| StateError::Malformed("a hash has not 32 bytes"))
}

fn head_from(state: &HeadState) -> Result<Head, StateError> {
    Ok(Head {
        next: state.next,
        hash: hash_from(&state.hash)?,
    })
}

pub(super) fn decode_chain(value: &[u8]) -> Result<Chain, StateError> {
    let state: ChainState = unversioned(value)?;
    let mut chain = Chain {
        floor: state.floor,
        forgotten: state.forgotten,
        end: state.end.as_ref().map(head_from).transpose()?,
        batches: state.batches,
        events: state.events,
        ..Chain::default()
    };
    let mut at = state.floor;
    for range in &state.ranges {
        if range.first < at || range.end <= range.first {
            return Err(StateError::Malformed("ranges are not ascending"));
        }
        at = range.end;
        chain.ranges.push(Range {
            first: range.first,
            end: range.end,
            previous: hash_from(&range.previous)?,
            last: hash_from(&range.last)?,
            grown_unix_nano: range.grown_unix_nano,
        });
    }
    let mut at = 0;
    for void in &state.voids {
        if void.first < at || void.end <= void.first {
            return Err(StateError::Malformed("void ranges are not ascending"));
        }
        at = void.end;
        chain.voids.push(VoidRange {
            first: void.first,
            end: void.end,
            last: hash_from(&void.last)?,
            events: void.events,
        });
    }
    Ok(chain)
}

pub(super) fn decode_sealer(value: &[u8]) -> Result<SealerRecord, StateError> {
    let state: SealerState = unversioned(value)?;
    let epoch_from = |bytes: &Bytes| {
        Epoch::try_from(&bytes[..]).map_err(|_| StateError::Malformed("an epoch has not 16 bytes"))
    };
    let mut record = SealerRecord {
        first_stored_unix_nano: state.first_stored_unix_nano,
        last_stored_unix_nano: state.last_stored_unix_nano,
        epoch: match state.epoch.is_empty() {
            true => None,
            false => Some(epoch_from(&state.epoch)?),
        },
        epoch_sealed_unix_nano: state.epoch_sealed_unix_nano,
        forks: state.forks,
        folded: Default::default(),
        folded_away: state.folded_away,
        folded_batches: state.folded_batches,
        folded_events: state.folded_events,
        folded_missing: state.folded_missing,
        folded_void_batches: state.folded_void_batches,
        folded_void_events: state.folded_void_events,
    };
    for folded in &state.folded {
        let [alert, routine] = &folded.chains[..] else {
            return Err(StateError::Malformed("a folded epoch has not two lanes"));
        };
        let chain_from = |state: &HeadState| {
            head_from(state).map(|head| FoldedChain {
                next: head.next,
                last: head.hash,
            })
        };
        record.folded.push_back(Folded {
            epoch: epoch_from(&folded.epoch)?,
            chains: [chain_from(alert)?, chain_from(routine)?],
            complete: !folded.incomplete,
        });
    }
    Ok(record)
}
