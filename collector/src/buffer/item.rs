//! What lies in the buffer: an encoded `wire::SealedBatch` with all receipts, the newest ours.
//!
//! The payload is written from where it lies: it comes first, as one field of the message, and everything else follows in a
//! message of its own. Protobuf readers take fields in any order, and concatenated messages as one.

use bytes::Bytes;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use watchline_proto::{MAX_RECEIPTS, SpiffeId, wire};

/// Field number of `SealedBatch.payload`.
const PAYLOAD_FIELD: u32 = 2;

/// A batch in the three pieces that are written one after the other.
#[derive(Debug)]
pub(super) struct StoredItem {
    head: Vec<u8>,
    payload: Bytes,
    rest: Vec<u8>,
}

impl StoredItem {
    /// Adds our receipt; after as many hops as a batch may have receipts, none: the first one's is the one that matters.
    pub(super) fn new(
        mut batch: wire::SealedBatch,
        collector: &SpiffeId,
        stored_unix_nano: i64,
    ) -> StoredItem {
        if batch.receipts.len() < MAX_RECEIPTS {
            batch.receipts.push(wire::Receipt {
                collector: collector.to_string(),
                stored_unix_nano,
            });
        }
        let payload = std::mem::take(&mut batch.payload);
        let mut head = Vec::with_capacity(8);
        encode_key(PAYLOAD_FIELD, WireType::LengthDelimited, &mut head);
        encode_varint(payload.len() as u64, &mut head);
        StoredItem {
            head,
            payload,
            rest: batch.encode_to_vec(),
        }
    }

    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [&self.head, &self.payload, &self.rest]
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.head.len() + self.payload.len() + self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchline_proto::stored;

    #[test]
    fn a_stored_item_is_the_batch_with_our_receipt() {
        let collector: SpiffeId = "spiffe://watch.example/agency/moh/collector/c1"
            .parse()
            .unwrap();
        for payload in [Bytes::from(vec![7]), Bytes::from(vec![7; 300])] {
            let mut batch = wire::SealedBatch {
                seal: Bytes::from_static(b"seal"),
                payload,
                signature: Bytes::from_static(b"signature"),
                algorithm: 1,
                signer: Bytes::from(vec![9; 32]),
                receipts: vec![wire::Receipt {
                    collector: "first".to_owned(),
                    stored_unix_nano: 1,
                }],
            };
            let item = StoredItem::new(batch.clone(), &collector, 2);
            let bytes: Bytes = item.parts().concat().into();
            assert_eq!(bytes.len(), item.len_bytes());
            batch.receipts.push(wire::Receipt {
                collector: collector.to_string(),
                stored_unix_nano: 2,
            });
            assert_eq!(stored::decode(bytes).unwrap(), batch);
        }
    }
}
