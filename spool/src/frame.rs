//! A frame: the unit of atomic append.
//!
//! ```text
//! header, 84 bytes, little-endian
//!   0  4  mark "WLf1"
//!   4  1  kind: 1 log, 2 part of a snapshot, 3 end of a snapshot
//!   5  3  zero
//!   8  8  incarnation of the writer, as in the segment's header
//!  16  8  frame number (in a snapshot: that of the first log frame behind it)
//!  24  8  durable mark when it was written: every frame below this number was synced
//!  32  8  time of writing, nanoseconds since 1970, signed
//!  40 16  number of the first item, lane 0, lane 1
//!  56  8  how many items, lane 0, lane 1
//!  64  8  how many item bytes, lane 0, lane 1
//!  72  4  length of the body
//!  76  4  CRC-32C of the body
//!  80  4  CRC-32C of bytes 0 to 79
//! body: entries, items first
//!   1 item     lane u8, zero u16, length u32, bytes
//!   2 set      key length u32, value length u32, key, value
//!   3 delete   key length u32, key
//!   4 mark     reader length u16, next item lane 0 u64, lane 1 u64, note length u32, reader, note
//!   5 forget   reader length u16, reader
//!   6 oldest   segment number u64: older segments were given up on purpose
//!   7 settled  see damage::Hole
//!   8 segment  see segment::Row, in snapshots only
//! ```

use bytes::Bytes;

use crate::{FrameNo, ItemNo, Items, LANES, LaneNo, damage::Damage, damage::Hole, segment::Row};

/// The largest frame, header included.
pub const MAX_FRAME_BYTES: u64 = 16 << 20;

/// No count, place or sum of bytes of this format gets this far; what a disk says of greater ones is not believed, so
/// that sums of them stay sound.
pub(crate) const MAX_NUMBER: u64 = 1 << 60;

pub(crate) const FRAME_MARK: [u8; 4] = *b"WLf1";
pub(crate) const FRAME_HEADER_BYTES: usize = 84;
pub(crate) const ITEM_HEADER_BYTES: usize = 8;
const MAX_BODY_BYTES: u32 = MAX_FRAME_BYTES as u32 - FRAME_HEADER_BYTES as u32;

const ITEM: u8 = 1;
const SET: u8 = 2;
const DELETE: u8 = 3;
const MARK: u8 = 4;
const FORGET: u8 = 5;
const OLDEST: u8 = 6;
const SETTLED: u8 = 7;
const SEGMENT: u8 = 8;

/// One unit of atomic append: all of it is there after a crash, or nothing.
#[derive(Debug, Default)]
pub struct Frame<'a> {
    /// What readers read, numbered in this order within each lane.
    pub items: Vec<Item<'a>>,
    /// Keyed state: `None` deletes. Read back with [`Spool::state`](crate::Spool::state); written anew into each
    /// snapshot, so it should stay small next to a segment.
    pub state: Vec<(Bytes, Option<Bytes>)>,
    /// Marks that moved.
    pub marks: Vec<Mark>,
    /// Damage whose gap event is in this frame: it is not reported again by a later opening.
    pub settled: Vec<Damage>,
}

/// One item of a frame.
#[derive(Debug)]
pub struct Item<'a> {
    /// Below [`LANES`]; anything else is a bug of the caller and panics in `append`.
    pub lane: LaneNo,
    /// Written one after the other.
    pub parts: &'a [&'a [u8]],
}

/// How far a reader has been acknowledged, exclusive, per lane, with a note of its own (a file output: file, length,
/// guard). A note is stored with the mark and given back as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// At most 65,535 bytes; what is longer panics in `append`.
    pub reader: String,
    /// The first item that is *not* acknowledged yet.
    pub next: [ItemNo; LANES],
    /// The reader's own.
    pub note: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Log = 1,
    SnapshotPart = 2,
    SnapshotEnd = 3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    pub(crate) incarnation: u64,
    pub(crate) number: FrameNo,
    pub(crate) durable: FrameNo,
    pub(crate) unix_nano: i64,
    pub(crate) first: Items,
    pub(crate) items: [u32; LANES],
    pub(crate) item_bytes: [u32; LANES],
    pub(crate) body_bytes: u32,
    pub(crate) body_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES);
        out.extend_from_slice(&FRAME_MARK);
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        for word in [
            self.incarnation,
            self.number.0,
            self.durable.0,
            self.unix_nano as u64,
        ] {
            put_u64(&mut out, word);
        }
        self.first.iter().for_each(|no| put_u64(&mut out, no.0));
        self.items
            .iter()
            .chain(&self.item_bytes)
            .for_each(|&word| put_u32(&mut out, word));
        put_u32(&mut out, self.body_bytes);
        put_u32(&mut out, self.body_crc);
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        let mut header = [0; FRAME_HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    /// `None` for what is not the header of a frame that this version could have written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if bytes[..4] != FRAME_MARK {
            return None;
        }
        let (covered, crc) = bytes.split_at(FRAME_HEADER_BYTES - 4);
        if crc32c::crc32c(covered) != Fields(crc).u32()? {
            return None;
        }
        let kind = match covered[4] {
            1 => Kind::Log,
            2 => Kind::SnapshotPart,
            3 => Kind::SnapshotEnd,
            _ => return None,
        };
        let mut fields = Fields(&covered[8..]);
        let header = FrameHeader {
            kind,
            incarnation: fields.u64()?,
            number: FrameNo(fields.u64()?),
            durable: FrameNo(fields.u64()?),
            unix_nano: fields.u64()? as i64,
            first: fields.items()?,
            items: [fields.u32()?, fields.u32()?],
            item_bytes: [fields.u32()?, fields.u32()?],
            body_bytes: fields.u32()?,
            body_crc: fields.u32()?,
        };
        let sound = header.body_bytes <= MAX_BODY_BYTES
            && header.durable <= header.number
            && header.number.0 < MAX_NUMBER
            && header.first.iter().all(|no| no.0 < MAX_NUMBER);
        sound.then_some(header)
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Number of the first item behind this frame, per lane.
    pub(crate) fn end(&self) -> Items {
        std::array::from_fn(|lane| ItemNo(self.first[lane].0 + u64::from(self.items[lane])))
    }
}

/// One entry of a body, borrowed from it.
#[derive(Debug, PartialEq)]
pub(crate) enum Entry<'a> {
    Item {
        lane: LaneNo,
        bytes: &'a [u8],
    },
    Set {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    Mark {
        reader: &'a str,
        next: Items,
        note: &'a [u8],
    },
    Forget {
        reader: &'a str,
    },
    Oldest {
        segment: u64,
    },
    Settled {
        hole: Hole,
    },
    Segment {
        row: Row,
    },
}

/// A body whose checksum holds but whose entries make no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The entries of a body, in order; ends after the first that is malformed.
pub(crate) struct Entries<'a>(Fields<'a>);

impl<'a> Entries<'a> {
    pub(crate) fn of(body: &'a [u8]) -> Self {
        Entries(Fields(body))
    }

    fn parse(&mut self) -> Option<Entry<'a>> {
        let fields = &mut self.0;
        Some(match fields.u8()? {
            ITEM => {
                let lane = LaneNo::from(fields.u8()?);
                let zero = fields.u16()?;
                if lane >= LANES || zero != 0 {
                    return None;
                }
                let bytes = fields.u32()?;
                Entry::Item {
                    lane,
                    bytes: fields.take(bytes as usize)?,
                }
            }
            SET => {
                let (key, value) = (fields.u32()?, fields.u32()?);
                Entry::Set {
                    key: fields.take(key as usize)?,
                    value: fields.take(value as usize)?,
                }
            }
            DELETE => {
                let key = fields.u32()?;
                Entry::Delete {
                    key: fields.take(key as usize)?,
                }
            }
            MARK => {
                let (reader, next, note) = (fields.u16()?, fields.items()?, fields.u32()?);
                let reader = str::from_utf8(fields.take(usize::from(reader))?).ok()?;
                Entry::Mark {
                    reader,
                    next,
                    note: fields.take(note as usize)?,
                }
            }
            FORGET => {
                let reader = fields.u16()?;
                Entry::Forget {
                    reader: str::from_utf8(fields.take(usize::from(reader))?).ok()?,
                }
            }
            OLDEST => Entry::Oldest {
                segment: fields.u64()?,
            },
            SETTLED => Entry::Settled {
                hole: Hole::decode(fields)?,
            },
            SEGMENT => Entry::Segment {
                row: Row::decode(fields)?,
            },
            _ => return None,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let entry = self.parse();
        if entry.is_none() {
            self.0 = Fields(&[]);
        }
        Some(entry.ok_or(Malformed))
    }
}

/// Whether the entries of a log frame can all be read and are as many items as its header says.
pub(crate) fn body_is_sound(header: &FrameHeader, body: &[u8]) -> bool {
    let (mut items, mut item_bytes) = ([0u32; LANES], [0u32; LANES]);
    for entry in Entries::of(body) {
        match entry {
            Ok(Entry::Item { lane, bytes }) => {
                items[lane] += 1;
                item_bytes[lane] += bytes.len() as u32;
            }
            Ok(_) => {}
            Err(Malformed) => return false,
        }
    }
    items == header.items && item_bytes == header.item_bytes
}

pub(crate) fn put_item_header(out: &mut Vec<u8>, lane: LaneNo, bytes: u32) {
    out.extend_from_slice(&[ITEM, lane as u8, 0, 0]);
    put_u32(out, bytes);
}

pub(crate) fn put_set(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.push(SET);
    put_u32(out, key.len() as u32);
    put_u32(out, value.len() as u32);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

pub(crate) fn put_delete(out: &mut Vec<u8>, key: &[u8]) {
    out.push(DELETE);
    put_u32(out, key.len() as u32);
    out.extend_from_slice(key);
}

pub(crate) fn put_mark(out: &mut Vec<u8>, reader: &str, next: Items, note: &[u8]) {
    out.push(MARK);
    out.extend_from_slice(&(reader.len() as u16).to_le_bytes());
    next.iter().for_each(|no| put_u64(out, no.0));
    put_u32(out, note.len() as u32);
    out.extend_from_slice(reader.as_bytes());
    out.extend_from_slice(note);
}

pub(crate) fn put_forget(out: &mut Vec<u8>, reader: &str) {
    out.push(FORGET);
    out.extend_from_slice(&(reader.len() as u16).to_le_bytes());
    out.extend_from_slice(reader.as_bytes());
}

pub(crate) fn put_oldest(out: &mut Vec<u8>, segment: u64) {
    out.push(OLDEST);
    put_u64(out, segment);
}

pub(crate) fn put_settled(out: &mut Vec<u8>, hole: &Hole) {
    out.push(SETTLED);
    hole.encode(out);
}

pub(crate) fn put_segment(out: &mut Vec<u8>, row: &Row) {
    out.push(SEGMENT);
    row.encode(out);
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Little-endian fields, taken from the front; `None` where there are too few bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn items(&mut self) -> Option<Items> {
        Some([ItemNo(self.u64()?), ItemNo(self.u64()?)])
    }
}
