//! Builds payloads.

use std::collections::HashMap;

use bytes::Bytes;
use zstd::{bulk::Compressor, zstd_safe::compress_bound};

use super::{
    EventMeta, FORMAT_COLUMNS_ZSTD_1, MAX_SEVERITY, Origin, OriginIndex, Payload, PayloadInfo,
    columns::{COLUMNS, Footer, Runs, put_difference, put_text, put_varint},
};
use crate::{
    hash::Hash,
    limits::{
        MAX_EVENTS, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_ORIGINS,
        MAX_PAYLOAD_BYTES, MAX_RECORD_BYTES, MAX_UNPACKED_BYTES,
    },
};

/// Level 1: level 3 costs twice as much for less than a tenth in size on log lines.
const COMPRESSION_LEVEL: i32 = 1;

/// Capacity that buffers keep between batches; a rare large batch does not hold its memory for ever.
const KEPT_BYTES: usize = 1 << 20;

/// The most that attributes of an origin, or of an event, can take.
const MAX_ATTRIBUTES_BYTES: usize =
    3 + MAX_LABELS * (2 + MAX_LABEL_NAME_BYTES + 2 + MAX_LABEL_VALUE_BYTES);

/// The most that one event and a new origin for it add to a batch beside the event's body.
const MAX_EVENT_BYTES: usize =
    // length ‖ times ‖ gap before its attributes ‖ attributes
    4 + 10 + 3 + MAX_ATTRIBUTES_BYTES
    // origin
    + 2 * (2 + MAX_LABEL_NAME_BYTES) + MAX_ATTRIBUTES_BYTES
    // observed, origin, severity, timed
    + 4 * Runs::PENDING_BYTES;

/// What a batch holds whatever is in it: the runs that grow, the count of origins, the footer.
const FIXED_BYTES: usize = 4 * Runs::PENDING_BYTES + 3 + Footer::BYTES;

/// The most that is packed: so much that it can be sent even where zstd makes it longer, by one part in 256 at most.
const MAX_BUILT_BYTES: usize = MAX_PAYLOAD_BYTES - MAX_PAYLOAD_BYTES / 256;

const _: () = assert!(MAX_BUILT_BYTES <= MAX_UNPACKED_BYTES);
const _: () = assert!(
    FIXED_BYTES + MAX_RECORD_BYTES + MAX_EVENT_BYTES <= MAX_BUILT_BYTES,
    "an empty batch takes any record"
);

/// Builds one batch at a time; buffers and the compressor's tables are kept between batches.
///
/// Memory: about the unpacked bytes of a batch, their compressed form, and 1 MiB of tables.
pub struct PayloadBuilder {
    compressor: Compressor<'static>,
    /// Where a batch is compressed to, before it gets bytes of its own of the right size.
    packed: Vec<u8>,
    bodies: Vec<u8>,
    origins: Vec<u8>,
    lengths: Vec<u8>,
    observed: Runs,
    origin: Runs,
    severity: Runs,
    timed: Runs,
    times: Vec<u8>,
    attributes: Vec<u8>,
    origin_indexes: HashMap<Origin, OriginIndex>,
    events: usize,
    last_time: i64,
    /// Events since the last one that has attributes.
    without_attributes: u64,
    first_observed: i64,
    last_observed: i64,
}

impl Default for PayloadBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PayloadBuilder {
    /// An empty builder. Takes the compressor's tables at its first batch.
    pub fn new() -> Self {
        Self {
            // Setting a level is refused only while a frame is open.
            compressor: Compressor::new(COMPRESSION_LEVEL).expect("a new compressor takes level 1"),
            packed: Vec::new(),
            bodies: Vec::new(),
            origins: Vec::new(),
            lengths: Vec::new(),
            observed: Runs::default(),
            origin: Runs::default(),
            severity: Runs::default(),
            timed: Runs::default(),
            times: Vec::new(),
            attributes: Vec::new(),
            origin_indexes: HashMap::new(),
            events: 0,
            last_time: 0,
            without_attributes: 0,
            first_observed: i64::MAX,
            last_observed: i64::MIN,
        }
    }

    /// Whether the batch holds no event.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Events in the batch.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes that the batch would unpack to if it were finished now, a few dozen too many at most.
    pub fn unpacked_bytes(&self) -> usize {
        let columns = [
            &self.bodies,
            &self.origins,
            &self.lengths,
            &self.times,
            &self.attributes,
        ]
        .map(Vec::len);
        let runs = [&self.observed, &self.origin, &self.severity, &self.timed].map(Runs::len);
        FIXED_BYTES + columns.iter().sum::<usize>() + runs.iter().sum::<usize>()
    }

    /// Whether one more event with a body of `body_bytes`, whatever its attributes, and one new origin for it stay
    /// within the limits of the wire: events, origins, and the payload's size even if it does not compress.
    ///
    /// An empty builder has room for any body of up to [`MAX_RECORD_BYTES`]; none has room for a longer one.
    pub fn has_room(&self, body_bytes: usize) -> bool {
        body_bytes <= MAX_RECORD_BYTES
            && self.events < MAX_EVENTS
            && self.origin_indexes.len() < MAX_ORIGINS
            && self.unpacked_bytes() + body_bytes + MAX_EVENT_BYTES <= MAX_BUILT_BYTES
    }

    /// Same origin, same index within a batch. Indexes are void after [`finish`](Self::finish). Costs a look-up:
    /// keep the index where many events of one origin follow each other.
    ///
    /// Texts beyond [`MAX_LABEL_NAME_BYTES`] (source, kind, names) and [`MAX_LABEL_VALUE_BYTES`] (values) are cut
    /// and then end in `…`; attributes beyond [`MAX_LABELS`] are left out.
    pub fn origin(&mut self, origin: &Origin) -> OriginIndex {
        if let Some(&index) = self.origin_indexes.get(origin) {
            return index;
        }
        put_text(&mut self.origins, &origin.source, MAX_LABEL_NAME_BYTES);
        put_text(&mut self.origins, &origin.kind, MAX_LABEL_NAME_BYTES);
        put_attributes(
            &mut self.origins,
            origin
                .attributes
                .iter()
                .map(|(name, value)| (&**name, &**value)),
        );
        let index = OriginIndex(saturating_u32(self.origin_indexes.len()));
        self.origin_indexes.insert(origin.clone(), index);
        index
    }

    /// Adds an event. Costs about a copy of `body`. The caller has asked [`has_room`](Self::has_room); what is
    /// pushed without is refused when the batch is sealed. Attributes are cut as those of an
    /// [`origin`](Self::origin), a severity above 24 counts as unknown.
    ///
    /// An index that is not of this batch makes the event one of source and kind `unknown`.
    #[inline]
    pub fn push(&mut self, body: &[u8], meta: EventMeta<'_>) {
        let origin = self.checked_origin(meta.origin);
        self.bodies.extend_from_slice(body);
        put_varint(&mut self.lengths, body.len() as u64);
        self.observed.push(meta.observed_unix_nano);
        self.origin.push(i64::from(origin.0));
        self.severity
            .push(i64::from(if meta.severity > MAX_SEVERITY {
                0
            } else {
                meta.severity
            }));
        self.timed.push(i64::from(meta.time_unix_nano.is_some()));
        if let Some(time) = meta.time_unix_nano {
            put_difference(&mut self.times, self.last_time, time);
            self.last_time = time;
        }
        if meta.attributes.is_empty() {
            self.without_attributes += 1;
        } else {
            put_varint(&mut self.attributes, self.without_attributes);
            put_attributes(&mut self.attributes, meta.attributes.iter().copied());
            self.without_attributes = 0;
        }
        self.events += 1;
        self.first_observed = self.first_observed.min(meta.observed_unix_nano);
        self.last_observed = self.last_observed.max(meta.observed_unix_nano);
    }

    fn checked_origin(&mut self, index: OriginIndex) -> OriginIndex {
        if (index.0 as usize) < self.origin_indexes.len() {
            return index;
        }
        self.origin(&Origin {
            source: "unknown".to_owned(),
            kind: "unknown".to_owned(),
            attributes: Vec::new(),
        })
    }

    /// Packs and empties the builder. `None` when it holds no event.
    pub fn finish(&mut self) -> Option<Payload> {
        if self.is_empty() {
            // Origins without events do not carry over.
            self.clear();
            return None;
        }
        let unpacked = &mut self.bodies;
        let bodies = unpacked.len();
        put_varint(unpacked, self.origin_indexes.len() as u64);
        unpacked.extend_from_slice(&self.origins);
        let origins = unpacked.len() - bodies;
        let behind = [
            &self.lengths[..],
            self.observed.finish(),
            self.origin.finish(),
            self.severity.finish(),
            self.timed.finish(),
            &self.times,
            &self.attributes,
        ];
        let mut columns = [saturating_u32(origins); COLUMNS];
        for (length, column) in columns[1..].iter_mut().zip(behind) {
            *length = saturating_u32(column.len());
            unpacked.extend_from_slice(column);
        }
        Footer {
            bodies: saturating_u32(bodies),
            events: saturating_u32(self.events),
            columns,
        }
        .write(unpacked);

        self.packed.clear();
        self.packed.reserve(compress_bound(unpacked.len()));
        // With that much room zstd fails only where it finds no memory: the same end as any allocation that fails.
        self.compressor
            .compress_to_buffer(unpacked, &mut self.packed)
            .expect("zstd has memory for its tables");
        let payload = Payload {
            info: PayloadInfo {
                format: FORMAT_COLUMNS_ZSTD_1,
                hash: Hash::of(&self.packed),
                bytes: saturating_u32(self.packed.len()),
                unpacked_bytes: saturating_u32(unpacked.len()),
                events: saturating_u32(self.events),
            },
            bytes: Bytes::copy_from_slice(&self.packed),
            first_observed_unix_nano: self.first_observed,
            last_observed_unix_nano: self.last_observed,
        };
        self.clear();
        Some(payload)
    }

    fn clear(&mut self) {
        for buffer in [
            &mut self.packed,
            &mut self.bodies,
            &mut self.origins,
            &mut self.lengths,
            &mut self.times,
            &mut self.attributes,
        ] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
        for runs in [
            &mut self.observed,
            &mut self.origin,
            &mut self.severity,
            &mut self.timed,
        ] {
            runs.clear();
        }
        self.origin_indexes.clear();
        self.events = 0;
        self.last_time = 0;
        self.without_attributes = 0;
        self.first_observed = i64::MAX;
        self.last_observed = i64::MIN;
    }
}

fn put_attributes<'a>(
    out: &mut Vec<u8>,
    attributes: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) {
    put_varint(out, attributes.len().min(MAX_LABELS) as u64);
    for (name, value) in attributes.take(MAX_LABELS) {
        put_text(out, name, MAX_LABEL_NAME_BYTES);
        put_text(out, value, MAX_LABEL_VALUE_BYTES);
    }
}

/// A number beyond 32 bits is beyond every limit: the seal is refused for it.
fn saturating_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
