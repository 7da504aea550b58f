//! Frame after frame behind the snapshot.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    path::Path,
};

use bytes::Bytes;

use super::{Live, OpenError, Recovered, candidate::Candidate};
use crate::{
    Access, Damage, Disk, FrameNo, Items, LANES, Mark,
    blocks::{Blocks, Found, READ_AHEAD},
    damage::{self, Hole},
    frame::{Entries, Entry, FrameHeader, Kind},
    log,
    segment::{self, Point, Row, Segment, SegmentHeader},
    snapshot::{Marks, Snapshot, State},
};

/// What a later segment, or the process, says of where a segment's log ended.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Frames below were durable.
    frame: FrameNo,
    items: Items,
    /// Frames from there on, in this segment, do not count.
    ends: bool,
}

pub(super) fn replay_all(
    replay: &mut Replay,
    directory: &Path,
    mut candidates: Vec<Candidate>,
    live: Option<Live>,
) -> Result<(), OpenError> {
    let mut known: Vec<Option<Known>> = Vec::new();
    let mut next = live.map(|live| Known {
        frame: live.durable,
        items: live.items,
        ends: true,
    });
    for candidate in candidates.iter().rev() {
        known.push(next);
        let Some((frame, items)) = candidate.first else {
            continue;
        };
        if candidate.start.is_some() {
            next = Some(Known {
                frame,
                items,
                ends: true,
            });
        } else if next.is_none_or(|next| next.frame < frame) {
            // Begun but not completed: the segment before it may have been written on.
            next = Some(Known {
                frame,
                items,
                ends: false,
            });
        }
    }
    for (candidate, known) in candidates.iter_mut().zip(known.into_iter().rev()) {
        if let Some(start) = candidate.start {
            let path = segment::path_of(directory, candidate.number);
            replay
                .segment(candidate, start, known, &path)
                .map_err(OpenError::io("read", &path))?;
        }
    }
    Ok(())
}

pub(super) struct Replay {
    state: State,
    marks: Marks,
    segments: Vec<Segment>,
    settled: Vec<Hole>,
    damage: Vec<(u64, Damage)>,
    /// Segments below were removed.
    oldest: u64,
    /// Items below were removed with them.
    removed: Items,
    frame: FrameNo,
    items: Items,
    bytes: [u64; LANES],
}

impl Replay {
    pub(super) fn from(snapshot: Snapshot, header: &SegmentHeader) -> Replay {
        Replay {
            state: snapshot.state,
            marks: snapshot.marks,
            segments: snapshot.rows.into_iter().map(Segment::of).collect(),
            settled: snapshot.settled,
            damage: Vec::new(),
            oldest: 0,
            removed: snapshot.removed,
            frame: header.first_frame,
            items: header.first_item,
            bytes: snapshot.bytes,
        }
    }

    fn point(&self, offset: u64, unix_nano: i64) -> Point {
        Point {
            offset,
            frame: self.frame,
            items: self.items,
            bytes: self.bytes,
            unix_nano,
        }
    }

    fn segment(
        &mut self,
        from: &mut Candidate,
        start: u64,
        known: Option<Known>,
        path: &Path,
    ) -> io::Result<()> {
        if let Some((frame, items)) = from.first
            && frame == self.frame
            && (0..LANES).all(|lane| self.items[lane] <= items[lane])
        {
            self.items = items; // numbers may have been skipped by reopening
        }
        let made = from.header.as_ref().map_or(0, |header| header.unix_nano);
        let mut segment = Segment::of(Row {
            segment: from.number,
            incarnation: from.incarnation.unwrap_or_default(),
            first_frame: self.frame,
            first_item: self.items,
            first_bytes: self.bytes,
            log_start: start,
            first_unix_nano: made,
            ..Row::default()
        });
        let (blocks, limit, incarnation) = (&mut from.blocks, from.bytes, from.incarnation);
        let mut offset = start;
        let mut last_nano = made;
        let mut declared = None;
        while known.is_none_or(|known| !known.ends || self.frame < known.frame) {
            let found = blocks.frame(offset, limit, incarnation)?;
            let resume = match found {
                Found::Frame(header, body) if self.fits(&header) => {
                    if self.frame == segment.row.first_frame {
                        segment.row.first_unix_nano = header.unix_nano;
                    }
                    segment.remember(self.point(offset, header.unix_nano), header.items[0] > 0);
                    offset += header.frame_bytes();
                    last_nano = header.unix_nano;
                    self.apply(&header, &body);
                    continue;
                }
                Found::Frame(header, _)
                    if header.kind == Kind::Log && header.number > self.frame =>
                {
                    offset
                }
                Found::BadBody(header) if self.fits(&header) => offset + header.frame_bytes(),
                _ => offset + 1,
            };
            let declared = match declared {
                Some(declared) => declared,
                None => *declared.insert(durable_behind(
                    blocks,
                    resume,
                    limit,
                    incarnation,
                    self.frame,
                )?),
            };
            if declared.max(known.map_or(FrameNo(0), |known| known.frame)) <= self.frame {
                break; // nobody says that it was durable
            }
            offset = self.damaged(
                blocks,
                offset..limit,
                resume,
                incarnation,
                known,
                path,
                from.number,
            )?;
        }
        segment.cut(self.point(offset, last_nano));
        self.segments.push(segment);
        Ok(())
    }

    fn fits(&self, header: &FrameHeader) -> bool {
        header.kind == Kind::Log && header.number == self.frame && header.first == self.items
    }

    fn apply(&mut self, header: &FrameHeader, body: &Bytes) {
        for entry in Entries::of(body).flatten() {
            match entry {
                Entry::Item { .. } | Entry::Segment { .. } => {}
                Entry::Set { key, value } => {
                    self.state
                        .insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
                Entry::Delete { key } => {
                    self.state.remove(key);
                }
                Entry::Mark { reader, next, note } => {
                    let mark = Mark {
                        reader: reader.to_owned(),
                        next,
                        note: Bytes::copy_from_slice(note),
                    };
                    self.marks.insert(reader.to_owned(), mark);
                }
                Entry::Forget { reader } => {
                    self.marks.remove(reader);
                }
                Entry::Oldest { segment } => self.oldest = self.oldest.max(segment),
                Entry::Settled { hole } => self.settled.push(hole),
            }
        }
        self.frame.0 += 1;
        self.items = header.end();
        (0..LANES).for_each(|lane| self.bytes[lane] += u64::from(header.item_bytes[lane]));
    }

    /// Steps over durable frames that cannot be read. Returns where the next good one begins.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one place in one file"
    )]
    fn damaged(
        &mut self,
        blocks: &mut Blocks,
        bad: Range<u64>,
        resume: u64,
        incarnation: Option<u64>,
        known: Option<Known>,
        path: &Path,
        number: u64,
    ) -> io::Result<u64> {
        let mut search = resume;
        let next = loop {
            let found =
                blocks.find_frame(search, bad.end, incarnation, FrameNo(self.frame.0 + 1))?;
            let Some((at, header)) = found else {
                break None;
            };
            if known.is_some_and(|known| known.ends && header.number >= known.frame) {
                break None;
            }
            if (0..LANES).all(|lane| header.first[lane] >= self.items[lane]) {
                break Some((at, header.number, header.first));
            }
            search = at + 1;
        };
        let (end, frame, items) = match (next, known) {
            (Some(next), _) => next,
            (None, Some(known)) => {
                let items = std::array::from_fn(|lane| known.items[lane].max(self.items[lane]));
                (
                    content_end(blocks, bad.clone())?,
                    known.frame.max(self.frame),
                    items,
                )
            }
            (None, None) => (bad.end, FrameNo(self.frame.0 + 1), self.items),
        };
        let damage = Damage {
            segment: path.to_owned(),
            offset: bad.start,
            bytes: end - bad.start,
            frames: self.frame..frame,
            items: std::array::from_fn(|lane| self.items[lane]..items[lane]),
            reason: "a durable frame cannot be read",
            kept: None,
        };
        self.damage.push((number, damage));
        (self.frame, self.items) = (frame, items);
        Ok(end)
    }

    /// Older segments are not read, but they must be there.
    pub(super) fn check_older(
        &mut self,
        directory: &Path,
        present: &BTreeMap<u64, u64>,
        required: &[String],
    ) {
        let passed = log::passed(required, &self.marks);
        let mut missing = Vec::new();
        self.segments.retain_mut(|segment| {
            let row = &segment.row;
            if row.segment < self.oldest {
                self.removed = log::later(self.removed, row.end_item);
                return false;
            }
            if present.contains_key(&row.segment) {
                return true;
            }
            // A segment that all have passed was about to be removed, or was removed.
            let needed = row.first_item != row.end_item
                && passed
                    .is_some_and(|next| (0..LANES).any(|lane| next[lane] < row.end_item[lane]));
            if needed {
                missing.push((
                    row.segment,
                    Damage {
                        segment: segment::path_of(directory, row.segment),
                        offset: row.log_start,
                        bytes: row.log_end - row.log_start,
                        frames: row.first_frame..row.end_frame,
                        items: std::array::from_fn(|lane| row.first_item[lane]..row.end_item[lane]),
                        reason: "the segment is missing",
                        kept: None,
                    },
                ));
                segment.missing = true;
            } else {
                self.removed = log::later(self.removed, row.end_item);
            }
            needed
        });
        missing.append(&mut self.damage);
        self.damage = missing;
    }

    pub(super) fn finish(self, disk: &dyn Disk, directory: &Path, recovered: &mut Recovered) {
        recovered.segments = self.segments.into();
        let find = |segments: &VecDeque<Segment>, number: u64| {
            segments
                .binary_search_by_key(&number, |segment| segment.row.segment)
                .ok()
        };
        for hole in self.settled {
            if let Some(index) = find(&recovered.segments, hole.segment) {
                recovered.segments[index].add_hole(hole, Some(FrameNo(0)));
            }
        }
        for (number, mut damage) in self.damage {
            let Some(index) = find(&recovered.segments, number) else {
                continue;
            };
            let hole = damage.hole(number);
            if recovered.segments[index].add_hole(hole, None) {
                if let Ok(file) = disk.open(&damage.segment, Access::Read) {
                    damage.kept = damage::keep_bytes(disk, directory, &hole, &*file);
                }
                tracing::error!(
                    segment = %damage.segment.display(), offset = damage.offset, bytes = damage.bytes,
                    "durable bytes are damaged: {}", damage.reason
                );
                recovered.damage.push(damage);
            }
        }
        recovered.state = self.state;
        recovered.marks = self.marks;
        recovered.removed = self.removed;
        (recovered.frame, recovered.items, recovered.bytes) = (self.frame, self.items, self.bytes);
    }
}

/// The highest durable mark that any whole frame from `offset` on carries: all frames below it were durable.
fn durable_behind(
    blocks: &mut Blocks,
    mut offset: u64,
    limit: u64,
    incarnation: Option<u64>,
    bad: FrameNo,
) -> io::Result<FrameNo> {
    let mut declared = FrameNo(0);
    while let Some((at, header)) =
        blocks.find_frame(offset, limit, incarnation, FrameNo(bad.0 + 1))?
    {
        declared = declared.max(header.durable);
        offset = at + header.frame_bytes();
    }
    Ok(declared)
}

/// Where the last byte that is not zero ends.
fn content_end(blocks: &mut Blocks, range: Range<u64>) -> io::Result<u64> {
    let mut end = range.start;
    let mut at = range.start;
    while at < range.end {
        let want = (range.end - at).min(READ_AHEAD as u64) as usize;
        let Some(bytes) = blocks.bytes(at, want, range.end, want)? else {
            break;
        };
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            end = at + last as u64 + 1;
        }
        at += want as u64;
    }
    Ok(end)
}
