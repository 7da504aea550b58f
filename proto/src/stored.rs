//! A sealed batch with what its way added beside it, as one item of a spool: an encoded `watchline.v1.SealedBatch`.
//!
//! A forwarder stores it without a signature, which is made when it is sent, with the certificate of that moment. A
//! collector stores it complete. Encoding copies seal and payload once; decoding copies neither.

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

/// Checks the limits of a batch that has come over the wire. What the seal says is checked by
/// [`Seal::decode`](crate::Seal::decode).
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{PAYLOAD_V1, SEAL_V1, STORED_BATCH_V1, batch, each_damage};

    #[test]
    fn the_stored_sample_is_read_and_made_again_to_the_byte() {
        assert_eq!(decode(STORED_BATCH_V1.into()), Ok(batch()));
        assert_eq!(encode(&batch()), STORED_BATCH_V1);
        let mut buffer = BytesMut::from(&b"before"[..]);
        encode_into(&batch(), &mut buffer);
        assert_eq!(buffer.strip_prefix(b"before"), Some(STORED_BATCH_V1));
    }

    #[test]
    fn damage_of_a_stored_batch_is_an_error_or_another_value() {
        each_damage(STORED_BATCH_V1, |damaged| {
            let damaged = Bytes::copy_from_slice(damaged);
            assert!(decode(damaged.clone()) != Ok(batch()), "{damaged:02x?}");
        });
    }

    #[test]
    fn decoding_copies_neither_seal_nor_payload() {
        let item = Bytes::from_static(STORED_BATCH_V1);
        let within = item.as_ptr_range();
        let batch = decode(item).unwrap();
        for part in [&batch.seal, &batch.payload, &batch.signature, &batch.signer] {
            assert!(within.contains(&part.as_ptr()));
        }
    }

    #[test]
    fn a_batch_that_is_not_signed_yet_has_no_signer() {
        let stored = unsigned(SEAL_V1.into(), PAYLOAD_V1.into());
        let read = decode(encode(&stored)).unwrap();
        assert_eq!(read, stored);
        assert_eq!(signer(&read), Ok(None));
        assert_eq!(signer(&batch()), Ok(Some(Hash::of(b"certificate"))));
    }

    #[test]
    fn receipts_come_back() {
        for receipt in &batch().receipts {
            assert_eq!(
                wire::Receipt::from(&Receipt::try_from(receipt).unwrap()),
                *receipt
            );
        }
        let unnamed = wire::Receipt {
            collector: "c1".to_owned(),
            stored_unix_nano: 1,
        };
        assert!(Receipt::try_from(&unnamed).is_err());
    }

    #[test]
    fn each_limit_is_kept() {
        let refused = |alter: fn(&mut wire::SealedBatch)| {
            let mut batch = batch();
            alter(&mut batch);
            let error = check(&batch).unwrap_err();
            assert_eq!(decode(encode(&batch)), Err(error.clone()));
            error
        };
        let over = |error| match error {
            StoredError::Limit { what, max, actual } if actual == max + 1 => what,
            other => panic!("{other}"),
        };
        assert_eq!(
            refused(|batch| batch.seal.clear()),
            StoredError::Missing("seal")
        );
        assert_eq!(
            refused(|batch| batch.payload.clear()),
            StoredError::Missing("payload")
        );
        assert_eq!(
            refused(|batch| batch.signer.truncate(31)),
            StoredError::Signer(31)
        );
        assert_eq!(
            over(refused(
                |batch| batch.seal = vec![0; MAX_SEAL_BYTES + 1].into()
            )),
            "bytes of seal"
        );
        assert_eq!(
            over(refused(
                |batch| batch.payload = vec![0; MAX_PAYLOAD_BYTES + 1].into()
            )),
            "bytes of payload"
        );
        assert_eq!(
            over(refused(
                |batch| batch.signature = vec![0; MAX_SIGNATURE_BYTES + 1].into()
            )),
            "bytes of signature"
        );
        assert_eq!(
            over(refused(
                |batch| batch.receipts = vec![wire::Receipt::default(); MAX_RECEIPTS + 1]
            )),
            "receipts"
        );
        assert_eq!(
            over(refused(
                |batch| batch.receipts[0].collector = "c".repeat(MAX_SPIFFE_ID_BYTES + 1)
            )),
            "bytes of a collector's name"
        );
        assert!(matches!(
            decode(Bytes::from_static(&[0xff])),
            Err(StoredError::Undecodable(_))
        ));
    }

    #[test]
    fn receipts_beyond_the_limit_are_refused_before_memory_is_taken_for_them() {
        let item = Bytes::from([0x32, 0x00].repeat(1 << 20));
        let error = decode(item).unwrap_err();
        assert!(
            matches!(
                error,
                StoredError::Limit {
                    what: "receipts",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn the_largest_batch_fits_a_message() {
        let mut largest = batch();
        largest.seal = vec![0; MAX_SEAL_BYTES].into();
        largest.payload = vec![0; MAX_PAYLOAD_BYTES].into();
        largest.signature = vec![0; MAX_SIGNATURE_BYTES].into();
        let receipt = wire::Receipt {
            collector: "c".repeat(MAX_SPIFFE_ID_BYTES),
            stored_unix_nano: i64::MIN,
        };
        largest.receipts = vec![receipt; MAX_RECEIPTS];
        assert_eq!(check(&largest), Ok(()));
        let message = wire::ClientMessage {
            kind: Some(wire::client_message::Kind::Batch(largest)),
        };
        assert!(message.encoded_len() <= crate::MAX_MESSAGE_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_batch_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(bytes.into());
        }
    }
}
