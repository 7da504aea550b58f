//! The events of a batch in columns, compressed once.
//!
//! Format 1 ([`FORMAT_COLUMNS_ZSTD_1`]) is one zstd frame with its content size, of:
//!
//! ```text
//! bodies ‖ origins ‖ lengths ‖ observed ‖ origin ‖ severity ‖ timed ‖ times ‖ attributes ‖ footer
//! ```
//!
//! Bodies come first, so that a record is appended once and never moved. The footer has 40 bytes, ten little-endian
//! `u32`: the length of the bodies, the number of events, and the length of each column in the order above. Every
//! byte belongs to one of them. In columns, a *varint* is LEB128 of up to 64 bits; a *signed* number is a zigzag
//! varint; a *text* is a varint length and UTF-8; *runs* are pairs of a signed difference from the run before (the
//! first from 0, wrapping) and a varint count of at least 1, together one value for each event.
//!
//! | column | contents |
//! |---|---|
//! | origins | varint count; each: text source, text kind, varint count of attributes, each text name and text value |
//! | lengths | varint bytes of each body |
//! | observed | runs: nanoseconds since 1970, when the event was read |
//! | origin | runs: index into origins |
//! | severity | runs: OpenTelemetry severity number, 0 where unknown |
//! | timed | runs: 1 where the record carries a time, else 0 |
//! | times | for those: signed difference from the one before (the first from 0, wrapping), nanoseconds since 1970 |
//! | attributes | for each event that has any: varint count of events without since the one before, varint count, each text name and text value |
//!
//! Limits, checked by the opener before memory is taken: [`MAX_UNPACKED_BYTES`](crate::MAX_UNPACKED_BYTES),
//! [`MAX_EVENTS`](crate::MAX_EVENTS), [`MAX_RECORD_BYTES`](crate::MAX_RECORD_BYTES),
//! [`MAX_ORIGINS`](crate::MAX_ORIGINS), [`MAX_LABELS`](crate::MAX_LABELS) attributes of an origin and of an event.
//! The builder keeps them by itself.

mod build;
mod columns;
mod open;

use std::fmt;

use bytes::Bytes;

pub use build::PayloadBuilder;
pub use open::{Opened, PayloadOpener};

use crate::hash::Hash;

/// Format number of zstd columns, version 1.
pub const FORMAT_COLUMNS_ZSTD_1: u32 = 1;

/// The formats that this code reads: what a `Welcome` lists.
pub const READABLE_FORMATS: [u32; 1] = [FORMAT_COLUMNS_ZSTD_1];

/// The highest OpenTelemetry severity number.
pub const MAX_SEVERITY: u8 = 24;

/// What a seal says of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadInfo {
    /// Number of the format, e.g. [`FORMAT_COLUMNS_ZSTD_1`].
    pub format: u32,
    /// SHA-256 of the payload as it travels.
    pub hash: Hash,
    /// Its length as it travels.
    pub bytes: u32,
    /// Its length unpacked: original records and columns.
    pub unpacked_bytes: u32,
    /// How many events are in it.
    pub events: u32,
}

/// A finished payload.
#[derive(Clone)]
pub struct Payload {
    /// As it travels.
    pub bytes: Bytes,
    /// What its seal says of it.
    pub info: PayloadInfo,
    /// The earliest time at which one of its events was read.
    pub first_observed_unix_nano: i64,
    /// The latest.
    pub last_observed_unix_nano: i64,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Where events come from: shared by many events of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The configured name of the source.
    pub source: String,
    /// `file`, `journald`, …, or `watchline` for our own events.
    pub kind: String,
    /// Attributes that hold for all events of this origin, e.g. `log.file.path`. A path that is not UTF-8 is
    /// escaped by the source.
    pub attributes: Vec<(String, String)>,
}

/// Index of an origin within the batch being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginIndex(pub u32);

/// What is known of one event beside its bytes.
#[derive(Debug, Clone, Copy)]
pub struct EventMeta<'a> {
    /// Where it comes from, as [`PayloadBuilder::origin`] said in this batch.
    pub origin: OriginIndex,
    /// When it was read.
    pub observed_unix_nano: i64,
    /// When it happened, by the record; `None`: the record carries no time.
    pub time_unix_nano: Option<i64>,
    /// OpenTelemetry severity number 1 to 24; 0: unknown.
    pub severity: u8,
    /// Sparse: most events have none.
    pub attributes: &'a [(&'a str, &'a str)],
}

/// One event of an opened payload, borrowed from it.
#[derive(Clone, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// The original record.
    pub body: &'a [u8],
    /// Where it comes from.
    pub origin: &'a Origin,
    /// When it was read.
    pub observed_unix_nano: i64,
    /// When it happened, by the record; `None`: the record carries no time.
    pub time_unix_nano: Option<i64>,
    /// OpenTelemetry severity number 1 to 24; 0: unknown.
    pub severity: u8,
    /// Its own attributes; those of the origin hold as well.
    pub attributes: Vec<(&'a str, &'a str)>,
}

/// Shows how long the body is, never what is in it: events do not belong in logs.
impl fmt::Debug for EventRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRef")
            .field("body_bytes", &self.body.len())
            .field("source", &self.origin.source)
            .field("observed_unix_nano", &self.observed_unix_nano)
            .field("time_unix_nano", &self.time_unix_nano)
            .field("severity", &self.severity)
            .finish_non_exhaustive()
    }
}

/// Why a payload cannot be opened. The batch's own defect, but `Format`, which an upgrade cures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Made by a newer program.
    #[error("payload format {0} is not readable here")]
    Format(u32),
    /// Cut or grown since it was sealed.
    #[error("payload has {actual} bytes, its seal says {sealed}")]
    Size {
        /// Bytes by the seal.
        sealed: u32,
        /// Bytes there are.
        actual: usize,
    },
    /// It would unpack, or its seal says that it would, to more than a batch may. Nothing was unpacked.
    #[error("payload would unpack to {unpacked} bytes, its seal and the limits allow {allowed}")]
    TooLarge {
        /// Bytes after unpacking, as the payload or its seal says.
        unpacked: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// Not what any sealer of this format makes; the text says where.
    #[error("payload is malformed: {0}")]
    Malformed(&'static str),
}

#[cfg(test)]
mod tests;
