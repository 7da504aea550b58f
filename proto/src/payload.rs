//! The events of a batch in columns, compressed once.
//!
//! Format 1: one zstd frame of `bodies ‖ columns ‖ footer` (bodies first, so that a block read from a file is appended once and never moved).

use crate::seal::Hash;
use bytes::Bytes;

/// Format number of zstd columns, version 1.
pub const FORMAT_COLUMNS_ZSTD_1: u32 = 1;

/// What a seal says of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadInfo {
    pub format: u32,
    pub hash: Hash,
    pub bytes: u32,
    pub unpacked_bytes: u32,
    pub events: u32,
}

/// Where events come from: shared by many events of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub source: String,
    /// `file`, `journald`, …, or `watchline` for our own events.
    pub kind: String,
    /// Attributes that hold for all events of this origin, e.g. `log.file.path`. Values are UTF-8; a path that is not is escaped by the source.
    pub attributes: Vec<(String, String)>,
}

/// Index of an origin within the batch being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginIndex(pub u32);

/// What is known of one event beside its bytes.
#[derive(Debug, Clone, Copy)]
pub struct EventMeta<'a> {
    pub origin: OriginIndex,
    pub observed_unix_nano: i64,
    /// `None`: the record carries none.
    pub time_unix_nano: Option<i64>,
    /// OpenTelemetry severity number 1 to 24; 0: unknown.
    pub severity: u8,
    /// Sparse: most events have none.
    pub attributes: &'a [(&'a str, &'a str)],
}

/// Builds one batch at a time; buffers are kept between batches.
pub struct PayloadBuilder(());
impl PayloadBuilder {
    pub fn new() -> Self {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn events(&self) -> usize {
        todo!()
    }
    /// Bytes that the batch would unpack to if it were finished now (bodies + an upper bound for the columns).
    pub fn unpacked_bytes(&self) -> usize {
        todo!()
    }
    /// Whether one more event with a body of `body_bytes` (and small attributes) stays within the limits of the wire (events, unpacked, and the payload even if it does not compress).
    pub fn has_room(&self, body_bytes: usize) -> bool {
        todo!()
    }
    /// Same origin, same index within a batch. Indexes are void after `finish`.
    pub fn origin(&mut self, origin: &Origin) -> OriginIndex {
        todo!()
    }
    /// Costs about a copy of `body`. Panics never; the caller has asked `has_room`.
    pub fn push(&mut self, body: &[u8], meta: EventMeta<'_>) {
        todo!()
    }
    /// Packs and empties the builder. `None` when it holds no event.
    pub fn finish(&mut self) -> Option<Payload> {
        todo!()
    }
}
/// A finished payload.
#[derive(Debug, Clone)]
pub struct Payload {
    pub bytes: Bytes,
    pub info: PayloadInfo,
    pub first_observed_unix_nano: i64,
    pub last_observed_unix_nano: i64,
}

/// Why a payload cannot be opened. The batch's own defect, but `Format` (an upgrade cures it).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("payload format {0} is not readable here")]
    Format(u32),
    #[error("payload is {actual} bytes, the seal says {sealed}")]
    Size { sealed: u32, actual: usize },
    #[error("{0}")]
    Malformed(&'static str),
}

/// A payload opened: events in order.
pub struct Opened(());
/// One event, borrowed.
#[derive(Debug, Clone)]
pub struct EventRef<'a> {
    pub body: &'a [u8],
    pub origin: &'a Origin,
    pub observed_unix_nano: i64,
    pub time_unix_nano: Option<i64>,
    pub severity: u8,
    pub attributes: Vec<(&'a str, &'a str)>,
}

/// Opens payloads; keeps its decompression context and buffer.
pub struct PayloadOpener(());
impl PayloadOpener {
    pub fn new() -> Self {
        todo!()
    }
    /// Limits are checked against `info` before and while unpacking: a bomb costs no more than it was sealed for. Does not check the hash.
    pub fn open(&mut self, payload: &[u8], info: &PayloadInfo) -> Result<Opened, PayloadError> {
        todo!()
    }
}
impl Opened {
    pub fn events(&self) -> impl Iterator<Item = EventRef<'_>> {
        std::iter::empty()
    }
}
