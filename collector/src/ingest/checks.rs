//! Everything that is checked of a batch before it is stored, cheapest first. Nothing is unpacked here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use watchline_node::identity::VerifiedSigner;
use watchline_proto::{
    Hash, Role, Seal, SealError, SpiffeId,
    payload::FORMAT_COLUMNS_ZSTD_1,
    refusal::Refusal,
    signature::SignedKind,
    stored::{self, Receipt, StoredError},
    wire::{self, RejectReason},
};

use super::{
    authority::{Allowed, may_bring},
    refusal::Refused,
    signers::{Offered, Signers},
};
use crate::buffer::Incoming;

/// Payload formats that this line reads.
pub(super) const PAYLOAD_FORMATS: [u32; 1] = [FORMAT_COLUMNS_ZSTD_1];

/// Why a batch is not stored.
pub(super) enum Unfit {
    /// Its own defect.
    Rejected {
        reason: RejectReason,
        detail: String,
    },
    /// What configuration can cure, or the peer's breach of the protocol: the stream ends.
    Refused(Refused),
}

impl From<Refused> for Unfit {
    fn from(refused: Refused) -> Unfit {
        Unfit::Refused(refused)
    }
}

fn defect(reason: RejectReason, detail: impl ToString) -> Unfit {
    Unfit::Rejected {
        reason,
        detail: detail.to_string(),
    }
}

/// Checks a batch that `peer` has handed over: limits, seal, authority, payload, signer, signature.
pub(super) async fn check(
    batch: wire::SealedBatch,
    peer: &SpiffeId,
    allowed: &[Allowed],
    signers: &Signers,
    offered: &mut Offered,
) -> Result<Incoming, Unfit> {
    stored::check(&batch).map_err(|error| match error {
        StoredError::Limit { .. } => defect(RejectReason::TooLarge, error),
        StoredError::Signer(_) => defect(RejectReason::Signature, error),
        _ => defect(RejectReason::Seal, error),
    })?;
    let seal = Seal::decode(&batch.seal).map_err(|error| {
        if error.is_curable() {
            let why = match error {
                SealError::Version(_) => Refusal::UnsupportedVersion,
                _ => Refusal::UnsupportedFormat,
            };
            Refused::new(why, error).into()
        } else {
            defect(RejectReason::Seal, error)
        }
    })?;
    if !PAYLOAD_FORMATS.contains(&seal.payload.format) {
        let detail = format_args!(
            "payload format {} is not readable here",
            seal.payload.format
        );
        return Err(Refused::new(Refusal::UnsupportedFormat, detail).into());
    }
    may_bring(peer, &seal.sealer, allowed)?;
    if batch.payload.len() != seal.payload.bytes as usize
        || Hash::of(&batch.payload) != seal.payload.hash
    {
        return Err(defect(
            RejectReason::PayloadHash,
            "the payload is not the one that was sealed",
        ));
    }
    let Some(fingerprint) =
        stored::signer(&batch).map_err(|error| defect(RejectReason::Signature, error))?
    else {
        return Err(defect(RejectReason::Signature, "the batch is not signed"));
    };
    let at = judged_at(&batch, peer)?;
    let signer = signers.at(&fingerprint, at, offered).await?;
    if signer.id != seal.sealer {
        let detail = format_args!("sealed by {}, signed by {}", seal.sealer, signer.id);
        return Err(Refused::new(Refusal::InvalidSigner, detail).into());
    }
    verify(&batch, &signer)?;
    Ok(Incoming {
        seal_hash: Hash::of(&batch.seal),
        seal,
        batch,
        direct_peer: peer.clone(),
    })
}

/// When the signer's certificate must have been good: now at the first collector, at the first receipt's time at later ones.
fn judged_at(batch: &wire::SealedBatch, peer: &SpiffeId) -> Result<SystemTime, Unfit> {
    let now = SystemTime::now();
    let Some(first) = batch.receipts.first() else {
        return Ok(now);
    };
    if peer.role() == Role::Forwarder {
        return Err(Refused::new(Refusal::OutOfOrder, "a forwarder adds no receipts").into());
    }
    for receipt in &batch.receipts {
        Receipt::try_from(receipt).map_err(|error| Refused::new(Refusal::Malformed, error))?;
    }
    let nanos = u64::try_from(first.stored_unix_nano).unwrap_or(0);
    // A clock that runs ahead does not make a certificate last longer.
    Ok((UNIX_EPOCH + Duration::from_nanos(nanos)).min(now))
}

fn verify(batch: &wire::SealedBatch, signer: &Arc<VerifiedSigner>) -> Result<(), Unfit> {
    if batch.algorithm != i32::from(signer.key.algorithm()) {
        return Err(defect(
            RejectReason::Signature,
            "the algorithm is not that of the signer's key",
        ));
    }
    signer
        .key
        .verify(
            SignedKind::Seal,
            signer.id.trust_domain(),
            &batch.seal,
            &batch.signature,
        )
        .map_err(|error| defect(RejectReason::Signature, error))
}
