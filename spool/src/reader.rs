//! Reads items lane by lane, behind the owner.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::{
    Access, Damage, Disk, FrameNo, ItemNo, Items, LANES, LaneNo,
    blocks::{Blocks, READ_AHEAD},
    damage::{self, Hole},
    disk::is_medium_error,
    frame::{self, Entries, Entry, FRAME_HEADER_BYTES, FrameHeader, Kind},
    log::{Point, Shared},
};

/// How often a place that the medium cannot read is tried before it counts as damaged.
const MEDIUM_TRIES: u32 = 3;
/// Skipping frames from this size on, only headers are read.
const LARGE_FRAME: u64 = 16 << 10;

/// Reads items lane by lane; holds at most one segment file and one block (a frame, if that is larger) a lane. `Send`;
/// one thread uses it.
pub struct Reader {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    lanes: [Cursor; LANES],
    /// Of the log, when this was last looked at.
    generation: u64,
}

/// What a reader was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadItem {
    /// Its lane.
    pub lane: LaneNo,
    /// Its place in the lane.
    pub no: ItemNo,
    /// The parts it was appended as, one after the other. A large item is a slice of the block that was read, without a
    /// copy.
    pub bytes: Bytes,
}

/// Why there is no next item.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Found just now, and set aside; the reader stands behind it. The caller raises a gap (see
    /// [`Frame::settled`](crate::Frame::settled)) and goes on. Other readers step over it without a word.
    #[error("segment {} is damaged at byte {}: {}", .0.segment.display(), .0.offset, .0.reason)]
    Damaged(Damage),
    /// These items are gone (retention, `drop_oldest`); the reader stands at `to`.
    #[error("items {} to {} of lane {lane} are no longer held", from.0, to.0)]
    Gone {
        /// The lane.
        lane: LaneNo,
        /// The first that is gone.
        from: ItemNo,
        /// The first that is held.
        to: ItemNo,
    },
    /// May pass: try again. A place that can never be read becomes `Damaged` after three tries.
    #[error("read segment {}", path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One lane of a reader.
#[derive(Default)]
struct Cursor {
    /// What the caller gets next.
    next: ItemNo,
    /// Read already, from `next` on.
    ready: VecDeque<(ItemNo, Bytes)>,
    at: Option<At>,
}

/// A place in an open segment: where a frame begins.
struct At {
    segment: u64,
    blocks: Blocks,
    offset: u64,
    frame: FrameNo,
    items: Items,
    /// How much to read when the next header is not in memory.
    ahead: usize,
    failures: u32,
}

/// What the table says of the segment that holds the next item, up to where one may read.
struct Plan {
    segment: u64,
    incarnation: u64,
    generation: u64,
    before: Point,
    end: Point,
    holes: Vec<Hole>,
}

enum Step {
    /// Nothing of the lane in it; stands behind it.
    Skipped,
    /// The items are ready; stands behind it.
    Taken,
    /// The frame cannot be read. With a sound header its extent is known.
    Bad(Option<FrameHeader>),
}

impl Reader {
    pub(crate) fn new(disk: Arc<dyn Disk>, shared: Arc<Shared>, name: &str) -> Reader {
        let log = shared.log();
        let start = |lane| {
            log.marks
                .get(name)
                .map_or(log.removed[lane], |mark| mark.next[lane])
        };
        let lanes = std::array::from_fn(|lane| Cursor {
            next: start(lane),
            ..Cursor::default()
        });
        let generation = log.generation;
        drop(log);
        Reader {
            disk,
            shared,
            lanes,
            generation,
        }
    }

    /// Another reader of the same spool, as [`Spool::reader`](crate::Spool::reader) makes it, for those who do not own the spool.
    pub fn another(&self, name: &str) -> Reader {
        Reader::new(Arc::clone(&self.disk), Arc::clone(&self.shared), name)
    }

    /// The next item of this lane, or `None` when nothing more is readable yet. Reads the disk (page cache mostly);
    /// never waits for an append.
    ///
    /// Numbers may skip: where damage was reported before, and where items that were never durable were cut.
    pub fn next(&mut self, lane: LaneNo) -> Result<Option<ReadItem>, ReadError> {
        loop {
            let Some(plan) = self.plan(lane)? else {
                return Ok(None);
            };
            let cursor = &mut self.lanes[lane];
            if let Some((no, bytes)) = cursor.ready.pop_front() {
                cursor.next = ItemNo(no.0 + 1);
                return Ok(Some(ReadItem { lane, no, bytes }));
            }
            if let Some(plan) = plan {
                self.walk(lane, &plan)?;
            }
        }
    }

    /// Where `next` will read (it may have to skip from there). When nothing that was read is outstanding, everything
    /// before it is done with: a reader may be marked there, which passes damage at the end of what is held.
    pub fn position(&self, lane: LaneNo) -> ItemNo {
        self.lanes[lane].next
    }

    /// Reads on from there.
    pub fn seek(&mut self, lane: LaneNo, to: ItemNo) {
        let cursor = &mut self.lanes[lane];
        cursor.ready.retain(|(no, _)| *no >= to);
        if cursor.ready.front().is_some_and(|(no, _)| *no != to) {
            cursor.ready.clear();
        }
        cursor.next = to;
    }

    /// Whether something is readable, without I/O. `next` may still find that all of it is damaged.
    pub fn has_next(&self, lane: LaneNo) -> bool {
        let log = self.shared.log();
        let next = self.lanes[lane].next;
        let first = log
            .segment_of(lane, next)
            .map(|segment| segment.row.first_item[lane].max(next));
        first.is_some_and(|first| first < log.readable().items[lane])
    }

    /// `None`: nothing is readable. `Some(None)`: something was read already.
    fn plan(&mut self, lane: LaneNo) -> Result<Option<Option<Plan>>, ReadError> {
        let log = self.shared.log();
        if self.generation != log.generation {
            // What was read may have been cut since.
            self.generation = log.generation;
            for cursor in &mut self.lanes {
                cursor.ready.clear();
                cursor.at = None;
            }
        }
        let cursor = &mut self.lanes[lane];
        let removed = log.removed[lane];
        if cursor.next < removed {
            let from = cursor.next;
            cursor.next = removed;
            cursor.ready.clear();
            cursor.at = None;
            return Err(ReadError::Gone {
                lane,
                from,
                to: removed,
            });
        }
        if !cursor.ready.is_empty() {
            return Ok(Some(None));
        }
        let readable = log.readable();
        let Some(segment) = log.segment_of(lane, cursor.next) else {
            return Ok(None);
        };
        // Numbers between two segments were never durable.
        let from = cursor.next.max(segment.row.first_item[lane]);
        if from >= readable.items[lane] {
            return Ok(None);
        }
        cursor.next = from;
        let newest = log
            .segments
            .back()
            .is_some_and(|last| last.row.segment == segment.row.segment);
        Ok(Some(Some(Plan {
            segment: segment.row.segment,
            incarnation: segment.row.incarnation,
            generation: log.generation,
            before: segment.around(lane, cursor.next).0,
            end: if newest { *readable } else { segment.end() },
            holes: segment.holes.iter().map(|(hole, _)| *hole).collect(),
        })))
    }

    /// Walks to the next frame with items of the lane and makes them ready, or to the end of the segment.
    fn walk(&mut self, lane: LaneNo, plan: &Plan) -> Result<(), ReadError> {
        if !self.stand(lane, plan)? {
            return Ok(());
        }
        loop {
            let cursor = &mut self.lanes[lane];
            let Some(at) = &mut cursor.at else {
                return Ok(());
            };
            if let Some(hole) = plan
                .holes
                .iter()
                .find(|hole| (hole.offset..hole.end).contains(&at.offset))
            {
                at.step_to(hole.end, hole.frames[1], hole.end_items);
                if cursor.next < at.items[lane] {
                    cursor.next = at.items[lane];
                    return Ok(());
                }
                continue;
            }
            if at.offset >= plan.end.offset {
                return self.damaged(lane, plan, None, "the segment ends before its last item");
            }
            match at.step(lane, cursor.next, plan, &mut cursor.ready) {
                Ok(Step::Skipped) => {}
                Ok(Step::Taken) => return Ok(()),
                Ok(Step::Bad(header)) => {
                    return self.damaged(lane, plan, header, "a frame cannot be read");
                }
                Err(source) => return Err(self.failed(lane, plan, source)),
            }
        }
    }

    /// Stands at a frame at or before the next item. False if the table has changed.
    fn stand(&mut self, lane: LaneNo, plan: &Plan) -> Result<bool, ReadError> {
        let cursor = &mut self.lanes[lane];
        let usable = cursor.at.as_mut().filter(|at| at.segment == plan.segment);
        if let Some(at) = usable {
            if at.items[lane] > cursor.next || at.offset < plan.before.offset {
                at.step_to(plan.before.offset, plan.before.frame, plan.before.items);
            }
            return Ok(true);
        }
        cursor.at = None;
        let path = self.shared.path_of(plan.segment);
        match self.disk.open(&path, Access::Read) {
            Ok(file) => {
                cursor.at = Some(At {
                    segment: plan.segment,
                    blocks: Blocks::of(file, false),
                    offset: plan.before.offset,
                    frame: plan.before.frame,
                    items: plan.before.items,
                    ahead: READ_AHEAD,
                    failures: 0,
                });
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let hole = Hole {
                    segment: plan.segment,
                    offset: plan.before.offset,
                    end: plan.end.offset,
                    frames: [plan.before.frame, plan.end.frame],
                    items: plan.before.items,
                    end_items: plan.end.items,
                };
                self.step_over(lane, plan, hole, "the segment is missing")?;
                Ok(false)
            }
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    fn failed(&mut self, lane: LaneNo, plan: &Plan, source: io::Error) -> ReadError {
        if let Some(at) = &mut self.lanes[lane].at
            && is_medium_error(&source)
        {
            at.failures += 1;
            if at.failures >= MEDIUM_TRIES {
                at.blocks.be_lenient();
            }
        }
        ReadError::Io {
            path: self.shared.path_of(plan.segment),
            source,
        }
    }

    /// Finds out how far the damage goes that begins where the cursor stands.
    fn damaged(
        &mut self,
        lane: LaneNo,
        plan: &Plan,
        header: Option<FrameHeader>,
        reason: &'static str,
    ) -> Result<(), ReadError> {
        let Some(at) = &mut self.lanes[lane].at else {
            return Ok(());
        };
        let (end, frame, items) = match header {
            Some(header) => (
                at.offset + header.frame_bytes(),
                FrameNo(header.number.0 + 1),
                header.end(),
            ),
            None => {
                let least = FrameNo(at.frame.0 + 1);
                match at.blocks.find_frame(
                    at.offset + 1,
                    plan.end.offset,
                    Some(plan.incarnation),
                    least,
                ) {
                    Ok(Some((offset, header))) if header.number < plan.end.frame => {
                        (offset, header.number, header.first)
                    }
                    Ok(_) => (plan.end.offset, plan.end.frame, plan.end.items),
                    Err(source) => return Err(self.failed(lane, plan, source)),
                }
            }
        };
        let hole = Hole {
            segment: plan.segment,
            offset: at.offset,
            end: end.max(at.offset),
            frames: [at.frame, frame.max(at.frame)],
            items: at.items,
            end_items: std::array::from_fn(|lane| items[lane].max(at.items[lane])),
        };
        self.step_over(lane, plan, hole, reason)
    }

    /// Stands behind the damage; an error, once for all readers, if it is news.
    fn step_over(
        &mut self,
        lane: LaneNo,
        plan: &Plan,
        hole: Hole,
        reason: &'static str,
    ) -> Result<(), ReadError> {
        let news = {
            let mut log = self.shared.log();
            if log.generation != plan.generation {
                return Ok(());
            }
            let Some(segment) = log.segment_mut(plan.segment) else {
                return Ok(());
            }; // trimmed meanwhile
            segment.add_hole(hole, None)
        };
        let cursor = &mut self.lanes[lane];
        cursor.next = cursor.next.max(hole.end_items[lane]);
        let mut kept = None;
        if let Some(at) = &mut cursor.at {
            at.step_to(hole.end, hole.frames[1], hole.end_items);
            if news {
                kept = damage::keep_bytes(
                    &*self.disk,
                    &self.shared.directory,
                    &hole,
                    &**at.blocks.file(),
                );
            }
        }
        let damage = Damage {
            segment: self.shared.path_of(plan.segment),
            offset: hole.offset,
            bytes: hole.end - hole.offset,
            frames: hole.frames[0]..hole.frames[1],
            items: std::array::from_fn(|lane| hole.items[lane]..hole.end_items[lane]),
            reason,
            kept,
        };
        if !news || !damage.lost_items() {
            return Ok(());
        }
        tracing::error!(
            segment = %damage.segment.display(), offset = damage.offset, bytes = damage.bytes,
            "durable bytes are damaged: {reason}"
        );
        Err(ReadError::Damaged(damage))
    }
}

impl At {
    fn step_to(&mut self, offset: u64, frame: FrameNo, items: Items) {
        (self.offset, self.frame, self.items) = (offset, frame, items);
        self.ahead = READ_AHEAD;
    }

    fn step(
        &mut self,
        lane: LaneNo,
        next: ItemNo,
        plan: &Plan,
        ready: &mut VecDeque<(ItemNo, Bytes)>,
    ) -> io::Result<Step> {
        let limit = plan.end.offset;
        let header = self
            .blocks
            .header(self.offset, limit, Some(plan.incarnation), self.ahead)?;
        let expected = |header: &FrameHeader| {
            header.kind == Kind::Log && header.number == self.frame && header.first == self.items
        };
        let Some(header) = header.filter(expected) else {
            return Ok(Step::Bad(None));
        };
        let behind = self.offset + header.frame_bytes();
        let (frame, items) = (FrameNo(header.number.0 + 1), header.end());
        if items[lane] <= next {
            self.step_to(behind, frame, items);
            if header.frame_bytes() >= LARGE_FRAME {
                self.ahead = FRAME_HEADER_BYTES;
            }
            return Ok(Step::Skipped);
        }
        let body = match self.blocks.body(self.offset, limit, &header)? {
            Some(body) if frame::body_is_sound(&header, &body) => body,
            _ => return Ok(Step::Bad(Some(header).filter(|_| behind <= limit))),
        };
        let mut no = header.first[lane];
        for entry in Entries::of(&body).flatten() {
            let Entry::Item { lane: its, bytes } = entry else {
                continue;
            };
            if its != lane {
                continue;
            }
            if no >= next {
                // A small item must not keep a large buffer in memory for as long as it is held.
                let shares = bytes.len() * 4 >= self.blocks.buffer_bytes();
                ready.push_back((
                    no,
                    if shares {
                        body.slice_ref(bytes)
                    } else {
                        Bytes::copy_from_slice(bytes)
                    },
                ));
            }
            no.0 += 1;
        }
        self.failures = 0;
        self.step_to(behind, frame, items);
        Ok(Step::Taken)
    }
}
