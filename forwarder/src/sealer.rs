//! Batches become sealed batches: numbered, chained, hashed.
//!
//! The chain moves only when the frame that holds the seals has been appended: until then a payload may be sealed again, and
//! again, for instance while the spool is full.

use std::collections::BTreeMap;

use bytes::Bytes;
use watchline_proto::{
    ClockState, Epoch, EpochChain, Lane, Seal, SealError, SpiffeId, Void,
    chain::Draft,
    payload::Payload,
    stored::{self, StoredError},
};

/// Where the chain's state is kept in the spool.
pub(crate) const EPOCH_KEY: &[u8] = b"epoch";

/// One sealed batch, as an item of the spool.
#[derive(Debug, Clone)]
pub(crate) struct SealedItem {
    pub(crate) lane: Lane,
    pub(crate) bytes: Bytes,
}

/// What was sealed, and the chain behind it: not in force before [`Sealer::commit`].
pub(crate) struct Sealing {
    chain: EpochChain,
    pub(crate) items: Vec<SealedItem>,
}

impl Sealing {
    /// The state to store in the frame that holds the items.
    pub(crate) fn state(&self) -> (Bytes, Option<Bytes>) {
        (
            Bytes::from_static(EPOCH_KEY),
            Some(self.chain.encode_state().into()),
        )
    }
}

/// Why a stored item could not be sealed anew. It is our own, so this is damage that its checksum did not show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResealError {
    #[error("stored batch")]
    Stored(#[source] StoredError),
    #[error("seal of the stored batch")]
    Seal(#[source] SealError),
}

/// Knows the chain of this run.
pub(crate) struct Sealer {
    chain: EpochChain,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) clock: ClockState,
}

impl Sealer {
    /// Begins a new epoch behind the one whose state `stored` is.
    pub(crate) fn start(
        sealer: SpiffeId,
        stored: Option<&[u8]>,
        labels: BTreeMap<String, String>,
    ) -> Sealer {
        let chain = match stored.map(EpochChain::decode_state) {
            None => EpochChain::start(sealer, Epoch::random()),
            Some(Ok(before)) => before.succeed(sealer, Epoch::random()),
            Some(Err(error)) => {
                tracing::error!(%error, "the epoch before this one cannot be read: the new one does not name it");
                EpochChain::start(sealer, Epoch::random())
            }
        };
        tracing::info!(epoch = %chain.epoch(), previous = ?chain.previous_epoch().map(|previous| previous.epoch), "new epoch");
        Sealer {
            chain,
            labels,
            clock: ClockState::Unknown,
        }
    }

    /// The sealer of an epoch as it was stored.
    pub(crate) fn stored_name(stored: &[u8]) -> Option<SpiffeId> {
        EpochChain::decode_state(stored)
            .ok()
            .map(|chain| chain.sealer().clone())
    }

    pub(crate) fn chain(&self) -> &EpochChain {
        &self.chain
    }

    /// Seals payloads in their order; the first seal carries `voids`.
    pub(crate) fn seal(
        &self,
        payloads: &[(Lane, Payload)],
        voids: &[Void],
        now_unix_nano: i64,
    ) -> Result<Sealing, SealError> {
        let mut sealing = Sealing {
            chain: self.chain.clone(),
            items: Vec::with_capacity(payloads.len()),
        };
        for (no, (lane, payload)) in payloads.iter().enumerate() {
            let sealed = sealing.chain.seal(Draft {
                lane: *lane,
                payload,
                labels: &self.labels,
                clock: self.clock,
                sealed_unix_nano: now_unix_nano,
                voids: if no == 0 { voids } else { &[] },
            })?;
            let bytes = stored::encode(&stored::unsigned(sealed.bytes, payload.bytes.clone()));
            sealing.items.push(SealedItem { lane: *lane, bytes });
        }
        Ok(sealing)
    }

    /// A sealing with nothing in it yet, for [`Sealer::seal_anew`].
    pub(crate) fn sealing(&self) -> Sealing {
        Sealing {
            chain: self.chain.clone(),
            items: Vec::new(),
        }
    }

    /// Seals a stored item anew, at the end of the chain of `sealing`: the same payload, labels, times and voids.
    pub(crate) fn seal_anew(
        &self,
        sealing: &mut Sealing,
        item: Bytes,
    ) -> Result<Lane, ResealError> {
        let batch = stored::decode(item).map_err(ResealError::Stored)?;
        let before = Seal::decode(&batch.seal).map_err(ResealError::Seal)?;
        let payload = Payload {
            bytes: batch.payload,
            info: before.payload,
            first_observed_unix_nano: before.first_observed_unix_nano,
            last_observed_unix_nano: before.last_observed_unix_nano,
        };
        let draft = Draft {
            lane: before.lane,
            payload: &payload,
            labels: &before.labels,
            clock: before.clock,
            sealed_unix_nano: before.sealed_unix_nano,
            voids: &before.voids,
        };
        let sealed = sealing.chain.seal(draft).map_err(ResealError::Seal)?;
        let bytes = stored::encode(&stored::unsigned(sealed.bytes, payload.bytes));
        sealing.items.push(SealedItem {
            lane: before.lane,
            bytes,
        });
        Ok(before.lane)
    }

    /// The frame with these seals has been appended.
    pub(crate) fn commit(&mut self, sealing: Sealing) {
        self.chain = sealing.chain;
    }

    /// Begins another epoch, behind the one whose state the spool holds.
    pub(crate) fn next_epoch(&mut self, sealer: SpiffeId, stored: Option<&[u8]>) {
        *self = Sealer {
            clock: self.clock,
            ..Sealer::start(sealer, stored, std::mem::take(&mut self.labels))
        };
    }
}

/// The batches of a segment that is given up, as ranges that say so: one for each run of sequence numbers. Items that cannot be
/// read are left out; the gap counts them.
pub(crate) fn voids_of<'a>(
    items: impl Iterator<Item = &'a Bytes>,
    reason: &str,
) -> (Vec<Void>, u64) {
    let mut voids: Vec<Void> = Vec::new();
    let mut events = 0;
    for item in items {
        let Some((seal, hash)) = stored::decode(item.clone()).ok().and_then(|batch| {
            Some((
                Seal::decode(&batch.seal).ok()?,
                watchline_proto::Hash::of(&batch.seal),
            ))
        }) else {
            continue;
        };
        let in_it = u64::from(seal.payload.events);
        events += in_it;
        let (epoch, lane, next) = (seal.epoch, seal.lane, seal.sequence + 1);
        match voids.last_mut() {
            Some(void) if void.epoch == epoch && void.lane == lane && void.end == seal.sequence => {
                (void.end, void.last) = (next, hash);
                void.events += in_it;
            }
            _ => voids.push(Void {
                epoch,
                lane,
                first: seal.sequence,
                end: next,
                reason: reason.to_owned(),
                events: in_it,
                last: hash,
            }),
        }
        // A batch that is given up takes the voids it carried along: they are said again.
        voids.extend(seal.voids);
    }
    (voids, events)
}
