//! Opens payloads.

use std::sync::Arc;

use zstd::{bulk::Decompressor, zstd_safe::get_frame_content_size};

use super::{
    EventRef, FORMAT_COLUMNS_ZSTD_1, MAX_SEVERITY, Origin, PayloadError, PayloadInfo,
    columns::{COLUMNS, Column, Footer, RunsReader},
};
use crate::limits::{
    MAX_EVENTS, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_ORIGINS,
    MAX_PAYLOAD_BYTES, MAX_RECORD_BYTES, MAX_UNPACKED_BYTES,
};

/// Opens payloads; keeps its decompression context, and its buffer where the payload opened before is gone.
#[derive(Default)]
pub struct PayloadOpener {
    decompressor: Decompressor<'static>,
    unpacked: Arc<Vec<u8>>,
}

/// A payload opened: all of it has been checked, so that reading it cannot fail.
///
/// Holds the unpacked bytes; nothing else grows with the number of events.
pub struct Opened {
    unpacked: Arc<Vec<u8>>,
    footer: Footer,
    origins: Vec<Origin>,
}

impl PayloadOpener {
    /// Takes its memory with the first payload.
    pub fn new() -> Self {
        Self::default()
    }

    /// Unpacks and checks a payload. Limits are checked against `info` before and while unpacking: a bomb costs no
    /// more than it was sealed for, and that no more than [`MAX_UNPACKED_BYTES`]. Does not check the hash: the
    /// receiver has.
    pub fn open(&mut self, payload: &[u8], info: &PayloadInfo) -> Result<Opened, PayloadError> {
        if info.format != FORMAT_COLUMNS_ZSTD_1 {
            return Err(PayloadError::Format(info.format));
        }
        if payload.len() != info.bytes as usize {
            return Err(PayloadError::Size {
                sealed: info.bytes,
                actual: payload.len(),
            });
        }
        self.unpack(payload, info)?;
        Opened::check(Arc::clone(&self.unpacked), info).map_err(PayloadError::Malformed)
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.unpacked.capacity()
    }

    /// Leaves exactly `info.unpacked_bytes` in `self.unpacked`.
    fn unpack(&mut self, payload: &[u8], info: &PayloadInfo) -> Result<(), PayloadError> {
        let too_large = |unpacked, allowed: usize| PayloadError::TooLarge {
            unpacked,
            allowed: allowed as u64,
        };
        let sealed = info.unpacked_bytes as usize;
        if sealed > MAX_UNPACKED_BYTES {
            return Err(too_large(sealed as u64, MAX_UNPACKED_BYTES));
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(too_large(sealed as u64, MAX_PAYLOAD_BYTES));
        }
        match get_frame_content_size(payload) {
            Ok(Some(unpacked)) if unpacked == sealed as u64 => {}
            Ok(Some(unpacked)) if unpacked > sealed as u64 => {
                return Err(too_large(unpacked, sealed));
            }
            _ => {
                return Err(PayloadError::Malformed(
                    "not a zstd frame of the sealed size",
                ));
            }
        }
        if Arc::get_mut(&mut self.unpacked).is_none() {
            self.unpacked = Arc::default();
        }
        if let Some(buffer) = Arc::get_mut(&mut self.unpacked) {
            buffer.clear();
            buffer.reserve_exact(sealed);
            // What has been reserved bounds what is written, whatever the frame holds.
            match self.decompressor.decompress_to_buffer(payload, buffer) {
                Ok(bytes) if bytes == sealed => return Ok(()),
                _ => {
                    return Err(PayloadError::Malformed(
                        "the zstd frame does not unpack to the sealed size",
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Opened {
    fn check(unpacked: Arc<Vec<u8>>, info: &PayloadInfo) -> Result<Opened, &'static str> {
        let (contents, footer) = Footer::split(&unpacked).ok_or("there is no footer")?;
        let lengths = footer.columns.iter().map(|&length| u64::from(length));
        if u64::from(footer.bodies) + lengths.sum::<u64>() != contents.len() as u64 {
            return Err("the footer's lengths do not add up");
        }
        if footer.events != info.events || footer.events == 0 || footer.events as usize > MAX_EVENTS
        {
            return Err("the number of events is not the sealed one, or beyond the limit");
        }
        let [origins, ..] = Columns::split(&unpacked, &footer).columns;
        let origins = read_origins(Column(origins)).ok_or("origins")?;
        let opened = Opened {
            unpacked,
            footer,
            origins,
        };
        let mut rows = opened.rows();
        while rows.next()?.is_some() {}
        Ok(opened)
    }

    /// Events in the payload; at least 1.
    pub fn len(&self) -> usize {
        self.footer.events as usize
    }

    /// Never: a payload has at least one event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events in their order, borrowed. Start later with [`Iterator::skip`], which costs a few nanoseconds an
    /// event.
    pub fn events(&self) -> impl Iterator<Item = EventRef<'_>> {
        let mut rows = self.rows();
        // Opening has read them all once: there is no error left.
        std::iter::from_fn(move || rows.next().ok().flatten())
    }

    fn rows(&self) -> Rows<'_> {
        let Columns { bodies, columns } = Columns::split(&self.unpacked, &self.footer);
        let [
            _,
            lengths,
            observed,
            origin,
            severity,
            timed,
            times,
            attributes,
        ] = columns;
        Rows {
            left: self.footer.events,
            origins: &self.origins,
            bodies,
            lengths: Column(lengths),
            observed: RunsReader::new(observed),
            origin: RunsReader::new(origin),
            severity: RunsReader::new(severity),
            timed: RunsReader::new(timed),
            times: Column(times),
            last_time: 0,
            attributes: AttributesReader {
                column: Column(attributes),
                before: None,
            },
        }
    }
}

struct Columns<'a> {
    bodies: &'a [u8],
    columns: [&'a [u8]; COLUMNS],
}

impl<'a> Columns<'a> {
    /// The footer's lengths have been checked to add up; where they do not, columns are cut short.
    fn split(unpacked: &'a [u8], footer: &Footer) -> Columns<'a> {
        let mut rest = unpacked;
        let mut take = |length: u32| {
            let (column, behind) = rest.split_at(rest.len().min(length as usize));
            rest = behind;
            column
        };
        Columns {
            bodies: take(footer.bodies),
            columns: footer.columns.map(take),
        }
    }
}

fn read_origins(mut column: Column<'_>) -> Option<Vec<Origin>> {
    let count = column.count(MAX_ORIGINS)?;
    let mut origins = Vec::new();
    for _ in 0..count {
        let source = column.text(MAX_LABEL_NAME_BYTES)?.to_owned();
        let kind = column.text(MAX_LABEL_NAME_BYTES)?.to_owned();
        let attributes = read_attributes(&mut column)?;
        let attributes = attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        origins.push(Origin {
            source,
            kind,
            attributes,
        });
    }
    column.is_empty().then_some(origins)
}

fn read_attributes<'a>(column: &mut Column<'a>) -> Option<Vec<(&'a str, &'a str)>> {
    let count = column.count(MAX_LABELS)?;
    (0..count)
        .map(|_| {
            Some((
                column.text(MAX_LABEL_NAME_BYTES)?,
                column.text(MAX_LABEL_VALUE_BYTES)?,
            ))
        })
        .collect()
}

/// All columns side by side.
struct Rows<'a> {
    /// Events that are still to come.
    left: u32,
    origins: &'a [Origin],
    bodies: &'a [u8],
    lengths: Column<'a>,
    observed: RunsReader<'a>,
    origin: RunsReader<'a>,
    severity: RunsReader<'a>,
    timed: RunsReader<'a>,
    times: Column<'a>,
    last_time: i64,
    attributes: AttributesReader<'a>,
}

impl<'a> Rows<'a> {
    /// The next event; `None` after the last, when every column is used up. The error says which column is wrong.
    #[inline]
    fn next(&mut self) -> Result<Option<EventRef<'a>>, &'static str> {
        let Some(left) = self.left.checked_sub(1) else {
            return if self.is_used_up() {
                Ok(None)
            } else {
                Err("a column has more than the events")
            };
        };
        self.left = left;
        let length = self.lengths.count(MAX_RECORD_BYTES).ok_or("lengths")?;
        let (body, behind) = self
            .bodies
            .split_at_checked(length)
            .ok_or("lengths beyond the bodies")?;
        self.bodies = behind;
        let origin = self
            .origin
            .next()
            .and_then(|index| usize::try_from(index).ok());
        let severity = self
            .severity
            .next()
            .and_then(|number| u8::try_from(number).ok());
        Ok(Some(EventRef {
            body,
            origin: origin
                .and_then(|index| self.origins.get(index))
                .ok_or("origin")?,
            observed_unix_nano: self.observed.next().ok_or("observed")?,
            time_unix_nano: match self.timed.next() {
                Some(0) => None,
                Some(1) => {
                    self.last_time = self.times.difference(self.last_time).ok_or("times")?;
                    Some(self.last_time)
                }
                _ => return Err("timed"),
            },
            severity: severity
                .filter(|&number| number <= MAX_SEVERITY)
                .ok_or("severity")?,
            attributes: self.attributes.next().ok_or("attributes")?,
        }))
    }

    fn is_used_up(&self) -> bool {
        self.bodies.is_empty()
            && self.lengths.is_empty()
            && self.times.is_empty()
            && [&self.observed, &self.origin, &self.severity, &self.timed]
                .into_iter()
                .all(RunsReader::is_empty)
            && self.attributes.is_used_up()
    }
}

struct AttributesReader<'a> {
    column: Column<'a>,
    /// Events without attributes before the next that has some, once its count has been read.
    before: Option<u64>,
}

impl<'a> AttributesReader<'a> {
    /// The attributes of the next event.
    fn next(&mut self) -> Option<Vec<(&'a str, &'a str)>> {
        let before = match self.before {
            Some(before) => before,
            None if self.column.is_empty() => return Some(Vec::new()),
            None => self.column.varint()?,
        };
        if let Some(less) = before.checked_sub(1) {
            self.before = Some(less);
            return Some(Vec::new());
        }
        self.before = None;
        // An event without any does not stand in the column.
        read_attributes(&mut self.column).filter(|attributes| !attributes.is_empty())
    }

    fn is_used_up(&self) -> bool {
        self.before.is_none() && self.column.is_empty()
    }
}
