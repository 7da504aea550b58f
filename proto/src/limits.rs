//! Limits of the wire. Each is checked before memory is taken for what it bounds.

/// No gRPC message is larger, in either direction.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Entries of all repeated fields of one message together: so much of them that decoding takes no more than a few
/// times the message's bytes.
pub const MAX_MESSAGE_ENTRIES: usize = 65_536;
/// An encoded seal.
pub const MAX_SEAL_BYTES: usize = 64 << 10;
/// A payload as it travels (compressed); with the largest seal, certificates and receipts beside it a message stays
/// below [`MAX_MESSAGE_BYTES`].
pub const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES - (256 << 10);
/// A payload unpacked: original records and columns.
pub const MAX_UNPACKED_BYTES: usize = 8 << 20;
/// Events in a batch.
pub const MAX_EVENTS: usize = 65_536;
/// One original record. A longer one is cut by its source, with a flag and a count.
pub const MAX_RECORD_BYTES: usize = 2 << 20;
/// Labels of a batch, attributes of an origin, attributes of an event.
pub const MAX_LABELS: usize = 64;
/// A label's or attribute's name, in bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 128;
/// A label's or attribute's value, in bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 4096;
/// Names and values of all labels of a batch together, in bytes: with this and [`MAX_VOIDS`] a seal stays below
/// [`MAX_SEAL_BYTES`].
pub const MAX_LABELS_BYTES: usize = 32 << 10;
/// The highest sequence number of a chain.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64;
/// The reason of a void range, in bytes.
pub const MAX_REASON_BYTES: usize = 64;
/// Void ranges in one seal.
pub const MAX_VOIDS: usize = 64;
/// Origins (source, file) in one batch.
pub const MAX_ORIGINS: usize = 4096;
/// A signature of any algorithm, in bytes.
pub const MAX_SIGNATURE_BYTES: usize = 128;
/// An encoded statement.
pub const MAX_STATEMENT_BYTES: usize = 4096;
/// Certificates in a chain, without the anchor.
pub const MAX_CHAIN_CERTIFICATES: usize = 4;
/// Receipts beside a batch: one a hop.
pub const MAX_RECEIPTS: usize = 8;
/// The protocol version that this code speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// The seal version that this code makes.
pub const SEAL_VERSION: u32 = 1;
