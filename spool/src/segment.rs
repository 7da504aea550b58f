//! A segment: one file of the log, its header, and what the table of segments says of it.
//!
//! ```text
//! header, 96 bytes, little-endian
//!   0  8  magic "WLSPOOL\n"
//!   8  4  format version, 1
//!  12  4  length of the header, 96
//!  16  8  segment number, as in the file name
//!  24  8  incarnation: high half counts the openings for writing, low half is random
//!  32 16  id of the buffer
//!  48  8  first frame number: every frame below it was synced before this file was made
//!  56 16  first item number, lane 0, lane 1
//!  72  4  cipher: 0 none
//!  76  4  key id: 0
//!  80  8  when it was made, nanoseconds since 1970, signed
//!  88  4  zero
//!  92  4  CRC-32C of bytes 0 to 91
//! then the snapshot, then log frames; zeros behind them are preallocated room
//! ```
//!
//! Magic, version, length and a CRC as the last four bytes stay where they are in later versions.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use crate::{
    DiskFile, FrameNo, ItemNo, Items, LANES,
    damage::Hole,
    frame::{Fields, MAX_NUMBER, put_u32, put_u64},
};

pub(crate) const FORMAT: u32 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 96;
const MAGIC: [u8; 8] = *b"WLSPOOL\n";
/// No segment is longer: 16 snapshots, or a frame.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 1 << 40;
/// No version's header is longer.
const MAX_HEADER_BYTES: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) segment: u64,
    pub(crate) incarnation: u64,
    pub(crate) buffer_id: [u8; 16],
    pub(crate) first_frame: FrameNo,
    pub(crate) first_item: Items,
    pub(crate) unix_nano: i64,
}

pub(crate) enum Opening {
    Header(SegmentHeader),
    TooNew(u32),
    Bad,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        put_u32(&mut out, FORMAT);
        put_u32(&mut out, SEGMENT_HEADER_BYTES as u32);
        put_u64(&mut out, self.segment);
        put_u64(&mut out, self.incarnation);
        out.extend_from_slice(&self.buffer_id);
        put_u64(&mut out, self.first_frame.0);
        self.first_item
            .iter()
            .for_each(|no| put_u64(&mut out, no.0));
        put_u32(&mut out, 0);
        put_u32(&mut out, 0);
        put_u64(&mut out, self.unix_nano as u64);
        put_u32(&mut out, 0);
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out
    }

    pub(crate) fn read(file: &dyn DiskFile, segment: u64) -> io::Result<Opening> {
        let mut buffer = [0; MAX_HEADER_BYTES];
        let read = match file.read_at(&mut buffer, 0) {
            Err(error) if crate::disk::is_medium_error(&error) => {
                file.read_at(&mut buffer, 0).or_else(|error| {
                    if crate::disk::is_medium_error(&error) {
                        Ok(0)
                    } else {
                        Err(error)
                    }
                })?
            }
            other => other?,
        };
        let Some((header, version)) = Self::decode(&buffer[..read]) else {
            return Ok(Opening::Bad);
        };
        Ok(match header {
            _ if version > FORMAT => Opening::TooNew(version),
            Some(header) if header.segment == segment => Opening::Header(header),
            _ => Opening::Bad,
        })
    }

    /// The version of anything that is a header, and the header if it is of this version.
    fn decode(bytes: &[u8]) -> Option<(Option<SegmentHeader>, u32)> {
        let mut fields = Fields(bytes);
        if fields.take(MAGIC.len())? != MAGIC {
            return None;
        }
        let (version, len) = (fields.u32()?, fields.u32()? as usize);
        if !(SEGMENT_HEADER_BYTES..=MAX_HEADER_BYTES).contains(&len) {
            return None;
        }
        let (covered, crc) = bytes.get(..len)?.split_at(len - 4);
        if crc32c::crc32c(covered) != Fields(crc).u32()? {
            return None;
        }
        if version != FORMAT || len != SEGMENT_HEADER_BYTES {
            return Some((None, version));
        }
        let header = SegmentHeader {
            segment: fields.u64()?,
            incarnation: fields.u64()?,
            buffer_id: fields.take(16)?.try_into().ok()?,
            first_frame: FrameNo(fields.u64()?),
            first_item: fields.items()?,
            unix_nano: {
                fields.take(8)?; // cipher and key id: nothing but 0 is written yet
                fields.u64()? as i64
            },
        };
        let sound = header.first_frame.0 < MAX_NUMBER
            && header.first_item.iter().all(|no| no.0 < MAX_NUMBER);
        Some((sound.then_some(header), version))
    }
}

/// What the table says of a segment: sixteen u64 in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) segment: u64,
    pub(crate) incarnation: u64,
    pub(crate) first_frame: FrameNo,
    pub(crate) end_frame: FrameNo,
    pub(crate) first_item: Items,
    pub(crate) end_item: Items,
    /// Item bytes of the lane in all segments before this one, since the spool was made.
    pub(crate) first_bytes: [u64; LANES],
    pub(crate) end_bytes: [u64; LANES],
    /// Where its log frames begin and end in the file.
    pub(crate) log_start: u64,
    pub(crate) log_end: u64,
    pub(crate) first_unix_nano: i64,
    pub(crate) last_unix_nano: i64,
}

impl Row {
    pub(crate) const BYTES: usize = 16 * 8;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for word in [
            self.segment,
            self.incarnation,
            self.first_frame.0,
            self.end_frame.0,
        ] {
            put_u64(out, word);
        }
        self.first_item
            .iter()
            .chain(&self.end_item)
            .for_each(|no| put_u64(out, no.0));
        self.first_bytes
            .iter()
            .chain(&self.end_bytes)
            .for_each(|&bytes| put_u64(out, bytes));
        for word in [
            self.log_start,
            self.log_end,
            self.first_unix_nano as u64,
            self.last_unix_nano as u64,
        ] {
            put_u64(out, word);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Row> {
        let row = Row {
            segment: fields.u64()?,
            incarnation: fields.u64()?,
            first_frame: FrameNo(fields.u64()?),
            end_frame: FrameNo(fields.u64()?),
            first_item: fields.items()?,
            end_item: fields.items()?,
            first_bytes: [fields.u64()?, fields.u64()?],
            end_bytes: [fields.u64()?, fields.u64()?],
            log_start: fields.u64()?,
            log_end: fields.u64()?,
            first_unix_nano: fields.u64()? as i64,
            last_unix_nano: fields.u64()? as i64,
        };
        let ordered = row.first_frame <= row.end_frame
            && row.log_start <= row.log_end
            && (0..LANES).all(|lane| {
                row.first_item[lane] <= row.end_item[lane]
                    && row.first_bytes[lane] <= row.end_bytes[lane]
            });
        let small = [
            row.end_frame.0,
            row.end_item[0].0,
            row.end_item[1].0,
            row.end_bytes[0],
            row.end_bytes[1],
        ];
        (ordered && row.log_end < MAX_SEGMENT_BYTES && small.iter().all(|&n| n < MAX_NUMBER))
            .then_some(row)
    }
}

/// A place where a frame begins, remembered so that a reader need not walk there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Point {
    pub(crate) offset: u64,
    pub(crate) frame: FrameNo,
    pub(crate) items: Items,
    pub(crate) bytes: [u64; LANES],
    pub(crate) unix_nano: i64,
}

/// A segment in memory.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) row: Row,
    /// In order; sparse, at most [`Segment::MAX_POINTS`].
    points: Vec<Point>,
    /// The least distance of two points.
    point_bytes: u64,
    point_nanos: i64,
    /// Stretches that readers step over, in order, with the frame that holds the gap event once it is appended.
    pub(crate) holes: Vec<(Hole, Option<FrameNo>)>,
    /// The file is gone; one hole covers all of it.
    pub(crate) missing: bool,
}

impl Segment {
    const MAX_POINTS: usize = 256;

    pub(crate) fn of(row: Row) -> Segment {
        Segment {
            row,
            points: Vec::new(),
            point_bytes: 64 << 10,
            point_nanos: 1_000_000_000,
            holes: Vec::new(),
            missing: false,
        }
    }

    /// Remembers the place of the frame that comes next, if it is far enough from the last one remembered. A frame
    /// that is wanted early (`urgent`) needs no distance.
    pub(crate) fn remember(&mut self, point: Point, urgent: bool) {
        let due = self.points.last().is_none_or(|last| {
            point.offset - last.offset >= self.point_bytes
                || point.unix_nano.saturating_sub(last.unix_nano) >= self.point_nanos
        });
        let urgent = urgent && self.points.len() < Self::MAX_POINTS / 2;
        if !due && !urgent {
            return;
        }
        self.points.push(point);
        if self.points.len() == Self::MAX_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.point_bytes *= 2;
            self.point_nanos *= 2;
        }
    }

    /// What it takes of the quota.
    pub(crate) fn file_bytes(&self) -> u64 {
        if self.missing { 0 } else { self.row.log_end }
    }

    /// The first frame.
    pub(crate) fn start(&self) -> Point {
        Point {
            offset: self.row.log_start,
            frame: self.row.first_frame,
            items: self.row.first_item,
            bytes: self.row.first_bytes,
            unix_nano: self.row.first_unix_nano,
        }
    }

    /// Behind the last frame.
    pub(crate) fn end(&self) -> Point {
        Point {
            offset: self.row.log_end,
            frame: self.row.end_frame,
            items: self.row.end_item,
            bytes: self.row.end_bytes,
            unix_nano: self.row.last_unix_nano,
        }
    }

    /// The last remembered place at or before an item of a lane, and the first one behind it.
    pub(crate) fn around(&self, lane: usize, item: ItemNo) -> (Point, Point) {
        let behind = self
            .points
            .partition_point(|point| point.items[lane] <= item);
        let before = if behind == 0 {
            self.start()
        } else {
            self.points[behind - 1]
        };
        (
            before,
            self.points
                .get(behind)
                .copied()
                .unwrap_or_else(|| self.end()),
        )
    }

    /// Forgets what lies at or behind a place in the file.
    pub(crate) fn cut(&mut self, end: Point) {
        self.points.retain(|point| point.offset < end.offset);
        let row = &mut self.row;
        (row.log_end, row.end_frame, row.end_item, row.end_bytes) =
            (end.offset, end.frame, end.items, end.bytes);
        row.last_unix_nano = end.unix_nano;
    }

    /// Adds a stretch to step over; false if it is known already.
    pub(crate) fn add_hole(&mut self, hole: Hole, settled: Option<FrameNo>) -> bool {
        if let Some((_, at)) = self.holes.iter_mut().find(|(known, _)| known.covers(&hole)) {
            *at = (*at).or(settled);
            return false;
        }
        self.holes.retain(|(known, _)| !hole.covers(known));
        let at = self
            .holes
            .partition_point(|(known, _)| known.offset < hole.offset);
        self.holes.insert(at, (hole, settled));
        true
    }
}

/// `<number, 20 digits>.seg`
pub(crate) fn file_name(segment: u64) -> String {
    format!("{segment:020}.seg")
}

pub(crate) fn path_of(directory: &Path, segment: u64) -> PathBuf {
    directory.join(file_name(segment))
}

pub(crate) fn number_of(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|&number: &u64| number < MAX_NUMBER)
}
