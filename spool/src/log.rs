//! What is where: the table of segments, how far one may read, and the marks. Shared by the owner, readers and views.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    FrameNo, ItemNo, Items, LANES, LaneNo, LaneStatus,
    segment::{self, Segment},
    snapshot::{Marks, Snapshot, State},
};

pub(crate) use crate::segment::Point;

type Wake = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) directory: PathBuf,
    log: Mutex<Log>,
    wakes: Mutex<Vec<Wake>>,
}

impl Shared {
    pub(crate) fn of(directory: &Path, log: Log) -> Shared {
        Shared {
            directory: directory.to_owned(),
            log: Mutex::new(log),
            wakes: Mutex::new(Vec::new()),
        }
    }

    /// Held briefly, never during I/O. A panic elsewhere leaves numbers that are each true, so poison is ignored.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn on_change(&self, wake: Wake) {
        self.wakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(wake);
    }

    /// Tells everybody that something became readable or room was made.
    pub(crate) fn changed(&self) {
        let wakes = self
            .wakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        wakes.iter().for_each(|wake| wake());
    }

    pub(crate) fn path_of(&self, segment: u64) -> PathBuf {
        segment::path_of(&self.directory, segment)
    }
}

pub(crate) struct Log {
    /// Oldest first; the last is the one written to.
    pub(crate) segments: VecDeque<Segment>,
    /// Behind what is synced, in the last segment.
    pub(crate) synced: Point,
    /// Behind what is appended, in the last segment.
    pub(crate) end: Point,
    /// The next item of each lane ever given a number; beyond `end` after a failure.
    pub(crate) next_items: Items,
    /// Items below were removed, delivered or given up.
    pub(crate) removed: Items,
    /// As appended, and as synced.
    pub(crate) marks: Marks,
    pub(crate) durable_marks: Marks,
    pub(crate) required: Vec<String>,
    pub(crate) read_unsynced: bool,
    /// Counts the reopenings: what readers hold of an earlier one may have been cut.
    pub(crate) generation: u64,
    pub(crate) used_bytes: u64,
    pub(crate) max_bytes: u64,
}

impl Log {
    pub(crate) fn empty() -> Log {
        Log {
            segments: VecDeque::new(),
            synced: Point::default(),
            end: Point::default(),
            next_items: [ItemNo(0); LANES],
            removed: [ItemNo(0); LANES],
            marks: Marks::new(),
            durable_marks: Marks::new(),
            required: Vec::new(),
            read_unsynced: false,
            generation: 0,
            used_bytes: 0,
            max_bytes: 0,
        }
    }

    /// How far one may read.
    pub(crate) fn readable(&self) -> &Point {
        if self.read_unsynced {
            &self.end
        } else {
            &self.synced
        }
    }

    /// The segment that holds this item, or the first behind it that holds any of its lane.
    pub(crate) fn segment_of(&self, lane: LaneNo, item: ItemNo) -> Option<&Segment> {
        let index = self
            .segments
            .partition_point(|segment| segment.row.end_item[lane] <= item);
        // One in which the first items were cut before they were durable begins behind the one before it, and may hold none.
        self.segments
            .range(index..)
            .find(|segment| segment.row.first_item[lane] < segment.row.end_item[lane])
    }

    pub(crate) fn segment_mut(&mut self, number: u64) -> Option<&mut Segment> {
        let index = self
            .segments
            .binary_search_by_key(&number, |segment| segment.row.segment)
            .ok()?;
        self.segments.get_mut(index)
    }

    pub(crate) fn set_end(&mut self, end: Point) {
        self.end = end;
        if let Some(last) = self.segments.back_mut() {
            let row = &mut last.row;
            (row.log_end, row.end_frame, row.end_item, row.end_bytes) =
                (end.offset, end.frame, end.items, end.bytes);
            row.last_unix_nano = end.unix_nano;
        }
    }

    /// Nothing that is not synced counts any longer.
    pub(crate) fn cut_unsynced(&mut self) {
        let synced = self.synced;
        if let Some(last) = self.segments.back_mut() {
            self.used_bytes = self
                .used_bytes
                .saturating_sub(last.row.log_end.saturating_sub(synced.offset));
            last.cut(synced);
        }
        self.end = synced;
        self.marks = self.durable_marks.clone();
        self.generation += 1;
    }

    /// All that a snapshot of this says, but the state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let holes = self.segments.iter().flat_map(|segment| &segment.holes);
        let settled = holes.filter(|(_, settled)| settled.is_some());
        Snapshot {
            state: State::new(),
            marks: self.marks.clone(),
            rows: self.segments.iter().map(|segment| segment.row).collect(),
            settled: settled.map(|(hole, _)| *hole).collect(),
            bytes: self.end.bytes,
            removed: self.removed,
        }
    }

    /// Whether every required reader has passed this segment.
    pub(crate) fn is_passed(&self, segment: &Segment, marks: &Marks) -> bool {
        let passed = passed(&self.required, marks).map(|next| self.behind_settled(next));
        passed.is_none_or(|next| (0..LANES).all(|lane| segment.row.end_item[lane] <= next[lane]))
    }

    /// A mark that stands before damage stands behind it once its gap event is durable: nobody will ever acknowledge
    /// what cannot be read, and when it is the last of its lane nothing behind it would move the mark either.
    fn behind_settled(&self, mut next: Items) -> Items {
        let holes = self.segments.iter().flat_map(|segment| &segment.holes);
        let durable = |at: &Option<FrameNo>| at.is_some_and(|frame| frame < self.synced.frame);
        for (hole, _) in holes.filter(|(_, settled)| durable(settled)) {
            for (lane, next) in next.iter_mut().enumerate() {
                if (hole.items[lane]..hole.end_items[lane]).contains(next) {
                    *next = hole.end_items[lane];
                }
            }
        }
        next
    }

    /// What is held from these items on.
    pub(crate) fn held(&self, from: Items) -> [LaneStatus; LANES] {
        let from = self.behind_settled(from);
        std::array::from_fn(|lane| self.held_in(lane, from[lane]))
    }

    fn held_in(&self, lane: LaneNo, from: ItemNo) -> LaneStatus {
        let mut status = LaneStatus::default();
        let first = self
            .segments
            .partition_point(|segment| segment.row.end_item[lane] <= from);
        for segment in self.segments.range(first..) {
            let row = &segment.row;
            if row.first_item[lane] == row.end_item[lane] {
                continue;
            }
            let from = from.max(row.first_item[lane]);
            status.items += row.end_item[lane].0 - from.0;
            if status.oldest_unix_nano == 0 {
                // Between two remembered places the sizes are taken as even.
                let (before, behind) = segment.around(lane, from);
                let (items, bytes) = (
                    behind.items[lane].0 - before.items[lane].0,
                    behind.bytes[lane] - before.bytes[lane],
                );
                let skipped = u128::from(from.0 - before.items[lane].0) * u128::from(bytes)
                    / u128::from(items.max(1));
                status.bytes += row.end_bytes[lane] - before.bytes[lane] - skipped as u64;
                status.oldest_unix_nano = before.unix_nano;
            } else {
                status.bytes += row.end_bytes[lane] - row.first_bytes[lane];
            }
        }
        status
    }
}

/// Per lane the later one.
pub(crate) fn later(one: Items, other: Items) -> Items {
    std::array::from_fn(|lane| one[lane].max(other[lane]))
}

/// Up to where every required reader's mark has passed. `None`: no reader is required, so nothing is held for one.
pub(crate) fn passed(required: &[String], marks: &Marks) -> Option<Items> {
    let marked = required.iter().map(|reader| {
        marks
            .get(reader)
            .map_or([ItemNo(0); LANES], |mark| mark.next)
    });
    marked.reduce(|one, other| std::array::from_fn(|lane| one[lane].min(other[lane])))
}
