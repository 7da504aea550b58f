//! The codec of the line: protobuf, but what a message holds is counted before memory is taken for it.
//!
//! A message of 4 MiB whose repeated field has two bytes an entry would otherwise take hundreds of megabytes when
//! decoded. The bytes of a batch are not copied: they share the memory of the message.

use std::{fmt, marker::PhantomData};

use bytes::Buf;
use prost::{DecodeError, Message};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::{
    limits::MAX_MESSAGE_ENTRIES,
    refusal::Refusal,
    scan::{self, Shape},
    wire::{ClientMessage, ServerMessage},
};

/// A message of the line: where its repeated fields are.
pub trait LineMessage: Message + Default + Send + 'static {
    /// The parts of it that hold repeated fields.
    #[doc(hidden)]
    const SHAPE: Shape;
}

impl LineMessage for ClientMessage {
    // hello ‖ certificates ‖ batch ‖ heartbeat
    const SHAPE: Shape = Shape(&[
        (1, Shape::LEAF),
        (2, Shape::LEAF),
        (3, Shape::LEAF),
        (4, Shape::LEAF),
    ]);
}

impl LineMessage for ServerMessage {
    // welcome with held ‖ ack with at_center: chains with ranges
    const SHAPE: Shape = Shape(&[
        (1, Shape(&[(3, Shape::LEAF)])),
        (2, Shape(&[(2, Shape::LEAF)])),
    ]);
}

/// Reads a message of the line. Of [`bytes::Bytes`], and of what gRPC received, nothing is copied.
pub fn decode<M: LineMessage>(mut bytes: impl Buf) -> Result<M, MessageError> {
    // In one piece: shared where the buffer can, as ours does.
    let bytes = bytes.copy_to_bytes(bytes.remaining());
    let entries = scan::entries(&bytes, M::SHAPE).map_err(MessageError::Undecodable)?;
    if entries > MAX_MESSAGE_ENTRIES {
        return Err(MessageError::TooManyEntries(entries));
    }
    M::decode(bytes).map_err(MessageError::Undecodable)
}

/// Why bytes are not a message of the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not the encoding of any message.
    #[error("message cannot be decoded")]
    Undecodable(#[source] DecodeError),
    /// Beyond [`MAX_MESSAGE_ENTRIES`]; nothing of it was decoded.
    #[error("message has {0} entries, the limit is {MAX_MESSAGE_ENTRIES}")]
    TooManyEntries(usize),
}

impl From<MessageError> for Status {
    fn from(error: MessageError) -> Status {
        match error {
            MessageError::Undecodable(error) => Refusal::Malformed.status(error),
            MessageError::TooManyEntries(_) => Refusal::BeyondLimit.status(error),
        }
    }
}

/// Encodes `T`, decodes `U` with at most [`MAX_MESSAGE_ENTRIES`] entries.
#[derive(Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> fmt::Debug for BoundedCodec<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundedCodec")
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: LineMessage,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes `U` with at most [`MAX_MESSAGE_ENTRIES`] entries.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: LineMessage> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        Ok(Some(decode(message)?))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;
    use crate::{
        samples::batch,
        wire::{self, client_message, server_message},
    };

    /// A message whose field `tag` is `contents`.
    fn within(tag: u32, contents: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        encode_key(tag, WireType::LengthDelimited, &mut message);
        encode_varint(contents.len() as u64, &mut message);
        message.extend_from_slice(contents);
        message
    }

    fn empty_entries(tag: u32) -> Vec<u8> {
        within(tag, &[]).repeat(MAX_MESSAGE_ENTRIES + 1)
    }

    #[test]
    fn entries_beyond_the_limit_are_refused_before_memory_is_taken_for_them() {
        // hello.host, certificates.chain, batch.receipts, heartbeat.relayed
        for (kind, repeated) in [(1, 3), (2, 1), (3, 6), (4, 6)] {
            let error = decode::<ClientMessage>(&within(kind, &empty_entries(repeated))[..]);
            assert!(
                matches!(error, Err(MessageError::TooManyEntries(_))),
                "{kind}: {error:?}"
            );
        }
        // welcome.held, ack.at_center, and the ranges of one such chain
        for (kind, chains) in [(1, 3), (2, 2)] {
            for contents in [empty_entries(chains), within(chains, &empty_entries(3))] {
                let error = decode::<ServerMessage>(&within(kind, &contents)[..]);
                assert!(
                    matches!(error, Err(MessageError::TooManyEntries(_))),
                    "{kind}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn an_ordinary_message_is_read_without_a_copy_of_its_batch() {
        let message = ClientMessage {
            kind: Some(client_message::Kind::Batch(batch())),
        };
        let bytes = Bytes::from(message.encode_to_vec());
        let within = bytes.as_ptr_range();
        let read = decode::<ClientMessage>(bytes).unwrap();
        assert_eq!(read, message);
        let Some(client_message::Kind::Batch(batch)) = read.kind else {
            panic!("another kind")
        };
        assert!(within.contains(&batch.payload.as_ptr()));
    }

    #[test]
    fn a_message_in_pieces_is_counted_whole() {
        let ack = wire::Ack {
            through: 7,
            at_center: vec![wire::ChainHeld::default(); 3],
        };
        let message = ServerMessage {
            kind: Some(server_message::Kind::Ack(ack)),
        };
        let bytes = message.encode_to_vec();
        let (first, second) = bytes.split_at(2);
        let read = decode::<ServerMessage>(Buf::chain(first, second));
        assert_eq!(read, Ok(message));
    }

    #[test]
    fn what_cannot_be_decoded_says_so_in_its_status() {
        let error = decode::<ClientMessage>(&[0xff; 3][..]).unwrap_err();
        assert_eq!(Refusal::of(&error.into()), Some(Refusal::Malformed));
        let error = MessageError::TooManyEntries(usize::MAX);
        assert_eq!(Refusal::of(&error.into()), Some(Refusal::BeyondLimit));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<ClientMessage>(&bytes[..]);
            let _ = decode::<ServerMessage>(&bytes[..]);
        }
    }
}
