//! A sealed batch with what its way added beside it, as one item of a spool: an encoded `watchline.v1.SealedBatch`.
//!
//! A forwarder stores it without a signature, which is made when it is sent, with the certificate of that moment. A collector
//! stores it complete. Encoding copies seal and payload once; decoding copies neither.

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::{
    hash::Hash,
    limits::{MAX_PAYLOAD_BYTES, MAX_RECEIPTS, MAX_SEAL_BYTES, MAX_SIGNATURE_BYTES},
    name::{MAX_SPIFFE_ID_BYTES, NameError, SpiffeId},
    scan, wire,
};

/// What a collector adds when it has stored a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its name.
    pub collector: SpiffeId,
    /// When the batch was durable there, by its clock.
    pub stored_unix_nano: i64,
}

/// Why a batch is beyond what the wire allows. Its own defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Not the encoding of any batch.
    #[error("batch cannot be decoded")]
    Undecodable(#[source] prost::DecodeError),
    /// More of something than its limit.
    #[error("batch: {actual} {what}, the limit is {max}")]
    Limit {
        /// What was counted, with its unit.
        what: &'static str,
        /// The limit.
        max: usize,
        /// How much there is.
        actual: usize,
    },
    /// Seal or payload is missing.
    #[error("batch without a {0}")]
    Missing(&'static str),
    /// The signer's fingerprint is neither left out nor 32 bytes.
    #[error("signer's fingerprint has {0} bytes")]
    Signer(usize),
}

/// Why a receipt is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("collector of a receipt")]
pub struct ReceiptError(#[source] NameError);

/// A batch as its sealer stores it: without signature and receipts.
pub fn unsigned(seal: Bytes, payload: Bytes) -> wire::SealedBatch {
    wire::SealedBatch {
        seal,
        payload,
        ..Default::default()
    }
}

/// The item to store. Copies seal and payload, once.
pub fn encode(batch: &wire::SealedBatch) -> Bytes {
    batch.encode_to_vec().into()
}

/// Appends the item to store to `buffer`.
pub fn encode_into(batch: &wire::SealedBatch, buffer: &mut BytesMut) {
    buffer.reserve(batch.encoded_len());
    // A buffer that grows takes everything.
    let _ = batch.encode(buffer);
}

/// Reads a stored item; seal, payload and signature share its memory. All limits have been checked.
pub fn decode(item: Bytes) -> Result<wire::SealedBatch, StoredError> {
    const RECEIPTS: u32 = 6;
    let [receipts] = scan::count(&item, [RECEIPTS]).map_err(StoredError::Undecodable)?;
    limit("receipts", receipts, MAX_RECEIPTS)?;
    let batch = wire::SealedBatch::decode(item).map_err(StoredError::Undecodable)?;
    check(&batch)?;
    Ok(batch)
}

/// Checks the limits of a batch that has come over the wire. What the seal says is checked by [`Seal::decode`](crate::Seal::decode).
pub fn check(batch: &wire::SealedBatch) -> Result<(), StoredError> {
    for (part, bytes) in [("seal", &batch.seal), ("payload", &batch.payload)] {
        if bytes.is_empty() {
            return Err(StoredError::Missing(part));
        }
    }
    limit("bytes of seal", batch.seal.len(), MAX_SEAL_BYTES)?;
    limit("bytes of payload", batch.payload.len(), MAX_PAYLOAD_BYTES)?;
    limit(
        "bytes of signature",
        batch.signature.len(),
        MAX_SIGNATURE_BYTES,
    )?;
    limit("receipts", batch.receipts.len(), MAX_RECEIPTS)?;
    for receipt in &batch.receipts {
        limit(
            "bytes of a collector's name",
            receipt.collector.len(),
            MAX_SPIFFE_ID_BYTES,
        )?;
    }
    signer(batch).map(drop)
}

/// Fingerprint of the signer's certificate; `None`: not signed yet.
pub fn signer(batch: &wire::SealedBatch) -> Result<Option<Hash>, StoredError> {
    if batch.signer.is_empty() {
        return Ok(None);
    }
    Hash::try_from(&batch.signer[..])
        .map(Some)
        .map_err(|error| StoredError::Signer(error.0))
}

fn limit(what: &'static str, actual: usize, max: usize) -> Result<(), StoredError> {
    if actual > max {
        return Err(StoredError::Limit { what, max, actual });
    }
    Ok(())
}

impl From<&Receipt> for wire::Receipt {
    fn from(receipt: &Receipt) -> wire::Receipt {
        wire::Receipt {
            collector: receipt.collector.to_string(),
            stored_unix_nano: receipt.stored_unix_nano,
        }
    }
}

impl TryFrom<&wire::Receipt> for Receipt {
    type Error = ReceiptError;

    fn try_from(receipt: &wire::Receipt) -> Result<Receipt, ReceiptError> {
        let collector = receipt.collector.parse().map_err(ReceiptError)?;
        Ok(Receipt {
            collector,
            stored_unix_nano: receipt.stored_unix_nano,
        })
    }
}
