//! A snapshot: all that makes the segments before it unnecessary, as frames of its own kinds at the start of a segment.
//!
//! Parts of at most 256 KiB (one large value may take more) hold `set`, `mark`, `segment`, `settled` and `oldest`
//! entries; the end mark holds the number of parts (u32), the CRC-32C of all their bodies one after the other (u32),
//! the item bytes appended so far per lane (two u64), and the first item per lane that was not removed (two u64). Its
//! header holds the next frame and item numbers.

use std::{collections::BTreeMap, io};

use bytes::Bytes;

use crate::{
    Items, LANES, Mark,
    blocks::{Blocks, Found},
    damage::Hole,
    frame::{self, Entries, Entry, FRAME_HEADER_BYTES, Fields, FrameHeader, Kind, MAX_NUMBER},
    segment::{Row, SEGMENT_HEADER_BYTES, SegmentHeader},
};

const PART_BYTES: usize = 256 << 10;
const END_BODY_BYTES: usize = 40;

/// Keyed state, as the caller set it.
pub(crate) type State = BTreeMap<Bytes, Bytes>;
/// Marks by reader.
pub(crate) type Marks = BTreeMap<String, Mark>;

/// What a snapshot says.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) marks: Marks,
    pub(crate) rows: Vec<Row>,
    pub(crate) settled: Vec<Hole>,
    pub(crate) bytes: [u64; LANES],
    /// Items below were removed, delivered or given up.
    pub(crate) removed: Items,
}

/// Reads the snapshot behind a segment's header. `None`: it is not complete. Else also where the log begins.
pub(crate) fn read(
    blocks: &mut Blocks,
    header: &SegmentHeader,
    limit: u64,
) -> io::Result<Option<(Snapshot, u64)>> {
    let mut snapshot = Snapshot::default();
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    let (mut parts, mut crc) = (0u32, 0u32);
    loop {
        let Found::Frame(part, body) = blocks.frame(offset, limit, Some(header.incarnation))?
        else {
            return Ok(None);
        };
        if part.number != header.first_frame || part.first != header.first_item {
            return Ok(None);
        }
        offset += part.frame_bytes();
        match part.kind {
            Kind::Log => return Ok(None),
            Kind::SnapshotPart => {
                parts += 1;
                crc = crc32c::crc32c_append(crc, &body);
                if !snapshot.take(&body) {
                    return Ok(None);
                }
            }
            Kind::SnapshotEnd => {
                let Some(end) = End::decode(&body) else {
                    return Ok(None);
                };
                snapshot.bytes = end.bytes;
                snapshot.removed = end.removed;
                let sound = end.parts == parts
                    && end.crc == crc
                    && end.bytes.iter().all(|&bytes| bytes < MAX_NUMBER)
                    && (0..LANES).all(|lane| end.removed[lane] <= header.first_item[lane])
                    && snapshot.rows.last().is_none_or(|last| {
                        last.segment < header.segment
                            && last.end_frame <= header.first_frame
                            && (0..LANES).all(|lane| {
                                last.end_item[lane] <= header.first_item[lane]
                                    && last.end_bytes[lane] <= end.bytes[lane]
                            })
                    });
                return Ok(sound.then_some((snapshot, offset)));
            }
        }
    }
}

impl Snapshot {
    fn take(&mut self, body: &[u8]) -> bool {
        for entry in Entries::of(body) {
            match entry {
                Ok(Entry::Set { key, value }) => {
                    self.state
                        .insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
                Ok(Entry::Mark { reader, next, note }) => {
                    let mark = Mark {
                        reader: reader.to_owned(),
                        next,
                        note: Bytes::copy_from_slice(note),
                    };
                    self.marks.insert(reader.to_owned(), mark);
                }
                Ok(Entry::Segment { row }) => self.rows.push(row),
                Ok(Entry::Settled { hole }) => self.settled.push(hole),
                _ => return false,
            }
        }
        // Each row begins where the one before ends, or behind it where numbers were skipped.
        self.rows.windows(2).all(|pair| {
            pair[0].segment < pair[1].segment
                && pair[0].end_frame <= pair[1].first_frame
                && (0..LANES).all(|lane| {
                    pair[0].end_item[lane] <= pair[1].first_item[lane]
                        && pair[0].end_bytes[lane] <= pair[1].first_bytes[lane]
                })
        })
    }
}

/// Bytes that a snapshot of this takes, the segment's header included.
pub(crate) fn encoded_bytes(state: &State, marks: &Marks, rows: usize, holes: usize) -> u64 {
    let state: usize = state
        .iter()
        .map(|(key, value)| 9 + key.len() + value.len())
        .sum();
    let marks: usize = marks
        .values()
        .map(|mark| 23 + mark.reader.len() + mark.note.len())
        .sum();
    let entries = state + marks + rows * (1 + Row::BYTES) + holes * (1 + 72);
    let parts = entries / (PART_BYTES / 2) + 1;
    (SEGMENT_HEADER_BYTES + entries + (parts + 1) * FRAME_HEADER_BYTES + END_BODY_BYTES) as u64
}

/// The body of the end mark.
struct End {
    parts: u32,
    crc: u32,
    bytes: [u64; LANES],
    removed: Items,
}

impl End {
    fn decode(body: &[u8]) -> Option<End> {
        let mut fields = Fields(body);
        Some(End {
            parts: fields.u32()?,
            crc: fields.u32()?,
            bytes: [fields.u64()?, fields.u64()?],
            removed: fields.items()?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        frame::put_u32(out, self.parts);
        frame::put_u32(out, self.crc);
        self.bytes
            .iter()
            .for_each(|&bytes| frame::put_u64(out, bytes));
        self.removed.iter().for_each(|no| frame::put_u64(out, no.0));
    }
}

/// Encodes header and snapshot piece by piece, so that a large one is never in memory twice (nor the state copied: it is
/// given apart). `write` gets each piece in order. Returns the bytes written, which is where the log begins.
pub(crate) fn write<E>(
    header: &SegmentHeader,
    state: &State,
    snapshot: &Snapshot,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let opening = header.encode();
    write(&opening)?;
    let mut pieces = Pieces {
        header,
        out: vec![0; FRAME_HEADER_BYTES],
        written: opening.len() as u64,
        parts: 0,
        crc: 0,
    };
    for row in &snapshot.rows {
        frame::put_segment(&mut pieces.out, row);
        pieces.part_if_full(0, &mut write)?;
    }
    for hole in &snapshot.settled {
        frame::put_settled(&mut pieces.out, hole);
        pieces.part_if_full(0, &mut write)?;
    }
    for mark in snapshot.marks.values() {
        pieces.part_if_full(mark.note.len(), &mut write)?;
        frame::put_mark(&mut pieces.out, &mark.reader, mark.next, &mark.note);
    }
    for (key, value) in state {
        pieces.part_if_full(key.len() + value.len(), &mut write)?;
        frame::put_set(&mut pieces.out, key, value);
    }
    pieces.part(&mut write)?;
    let end = End {
        parts: pieces.parts,
        crc: pieces.crc,
        bytes: snapshot.bytes,
        removed: snapshot.removed,
    };
    end.encode(&mut pieces.out);
    pieces.emit(Kind::SnapshotEnd, &mut write)?;
    Ok(pieces.written)
}

struct Pieces<'a> {
    header: &'a SegmentHeader,
    /// Room for a frame header, then the body so far.
    out: Vec<u8>,
    written: u64,
    parts: u32,
    crc: u32,
}

impl Pieces<'_> {
    fn part_if_full<E>(
        &mut self,
        more: usize,
        write: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.out.len() + more <= PART_BYTES {
            Ok(())
        } else {
            self.part(write)
        }
    }

    fn part<E>(&mut self, write: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.out.len() == FRAME_HEADER_BYTES {
            return Ok(());
        }
        self.parts += 1;
        self.crc = crc32c::crc32c_append(self.crc, &self.out[FRAME_HEADER_BYTES..]);
        self.emit(Kind::SnapshotPart, write)
    }

    fn emit<E>(
        &mut self,
        kind: Kind,
        write: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let body = &self.out[FRAME_HEADER_BYTES..];
        let header = FrameHeader {
            kind,
            incarnation: self.header.incarnation,
            number: self.header.first_frame,
            durable: self.header.first_frame,
            unix_nano: self.header.unix_nano,
            first: self.header.first_item,
            items: [0; LANES],
            item_bytes: [0; LANES],
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body),
        };
        self.out[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        write(&self.out)?;
        self.written += self.out.len() as u64;
        self.out.truncate(FRAME_HEADER_BYTES);
        Ok(())
    }
}
