//! One event file, followed by record id.
//!
//! Ids count up by one within a channel, so a step of more than one is what is missing, whatever the reason. A hole is passed only when it has stayed for
//! [`HOLE_STAYS`]: what is being written or copied may be torn for a moment. A log that Windows writes in a circle is read in the order of
//! its ids.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    chunk::{self, Chunk, Ids, Next, Rendered},
    known::Known,
    position::{Last, Position},
};
use crate::{
    gaps::{Gap, GapReason},
    sources::{Intake, Place, Record, file::Inode},
};

/// How long a hole must stay before it counts as one.
const HOLE_STAYS: Duration = Duration::from_secs(5);
/// A file that holds other records than before may be about to be copied over: it counts as another history when it has not changed for
/// [`HOLE_STAYS`], or when this has passed.
const OTHER_HISTORY_AFTER: Duration = Duration::from_secs(60);

/// Names one file's position for as long as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogKey(pub(super) u64);

/// What one read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is, or may be, more.
    More,
    /// Nothing until the file changes.
    Idle,
    /// A hole has to stay first: try again with the next tick.
    Held,
    /// The batch has to be closed first.
    NoRoom,
}

/// See the module.
pub(super) struct Log {
    pub(super) key: LogKey,
    /// Where it is now; `None`: nothing leads to it but the handle.
    pub(super) path: Option<PathBuf>,
    /// Under which it was found: what its events say.
    pub(super) name: PathBuf,
    pub(super) inode: Inode,
    pub(super) file: File,
    /// Size and time of the last change, as last seen.
    pub(super) stamp: (u64, i64),
    pub(super) place: Place,
    pub(super) queued: bool,
    pub(super) moved: bool,
    pub(super) last: Option<Last>,
    pub(super) backfill_end: u64,
    pub(super) told: u64,
    /// The chunk that is read; `None`: to be looked for.
    at: Option<u64>,
    /// The chunk before it, where the order of ids came from there.
    came_from: Option<u64>,
    /// The chunk that the last record was taken from, where that is known.
    last_in: Option<u64>,
    /// Chunks that cannot be read at all, until the file changes.
    broken: BTreeSet<u64>,
    /// Chunks that hold nothing more, whatever their header says, until the file changes.
    spent: BTreeSet<u64>,
    /// Behind the last record something could not be read.
    torn: bool,
    hole_since: Option<(u64, Instant)>,
    other_since: Option<Instant>,
    changed_at: Instant,
}

/// What the headers of all chunks say.
#[derive(Debug, Default, Clone, Copy)]
struct Survey {
    /// The chunk with the lowest ids of those that hold any behind the last record.
    next: Option<u64>,
    next_first: u64,
    /// The highest id, and the chunk that has it.
    newest: Option<(u64, u64)>,
}

impl Log {
    pub(super) fn new(
        key: LogKey,
        path: PathBuf,
        (inode, file): (Inode, File),
        place: Place,
        now: Instant,
    ) -> Log {
        Log {
            key,
            name: path.clone(),
            path: Some(path),
            inode,
            file,
            stamp: (0, 0),
            place,
            queued: false,
            moved: true,
            last: None,
            backfill_end: 0,
            told: 0,
            at: None,
            came_from: None,
            last_in: None,
            broken: BTreeSet::new(),
            spent: BTreeSet::new(),
            torn: false,
            hole_since: None,
            other_since: None,
            changed_at: now,
        }
    }

    /// Goes on where `position` says.
    pub(super) fn resume(&mut self, position: &Position) {
        self.last = position.last;
        self.backfill_end = position.backfill_end;
        self.told = position.told;
        self.forget_place();
    }

    pub(super) fn position(&self, seen_unix_nano: i64) -> Position {
        Position {
            path: self.path.clone().unwrap_or_else(|| self.name.clone()),
            inode: self.inode,
            seen_unix_nano,
            backfill_end: self.backfill_end,
            told: self.told,
            last: self.last,
        }
    }

    /// The file has changed.
    pub(super) fn changed(&mut self, stamp: (u64, i64), now: Instant) {
        self.stamp = stamp;
        self.changed_at = now;
        self.broken.clear();
        self.spent.clear();
        self.queued = true;
    }

    fn forget_place(&mut self) {
        (self.at, self.came_from, self.last_in, self.torn) = (None, None, None, false);
        (self.hole_since, self.other_since) = (None, None);
        self.broken.clear();
        self.spent.clear();
    }

    /// What is there now was there before the first start; with `skip` it is passed over as well.
    pub(super) fn begin(&mut self, skip: bool) -> io::Result<()> {
        let Some((newest, no)) = self.survey()?.newest else {
            return Ok(());
        };
        self.backfill_end = newest.saturating_add(1);
        if skip && let Some(mut chunk) = Chunk::read(&self.file, no)? {
            let mut last = None;
            chunk.walk(Some(u64::MAX), &mut |next| {
                if let Next::Before { id, print } = next {
                    last = Some(Last { id, print });
                }
                true
            });
            self.last = last;
        }
        Ok(())
    }

    /// Whether the file holds the record that `position` says was taken last.
    pub(super) fn holds(&self, position: &Position) -> io::Result<bool> {
        match position.last {
            Some(last) => Ok(self.chunk_of(last)?.is_ok()),
            None => Ok(false),
        }
    }

    /// The chunk that holds a record; `Err`: whether one says that it holds its id.
    fn chunk_of(&self, last: Last) -> io::Result<Result<u64, bool>> {
        let mut claimed = false;
        for no in 0..chunk::count(self.stamp.0) {
            let holds = |ids: &Ids| (ids.first..=ids.last).contains(&last.id);
            if chunk::ids(&self.file, no)?.filter(holds).is_none() {
                continue;
            }
            let mut found = false;
            if let Some(mut chunk) = Chunk::read(&self.file, no)? {
                chunk.walk(Some(u64::MAX), &mut |next| {
                    found |=
                        matches!(next, Next::Before { id, print } if (Last { id, print }) == last);
                    claimed |= matches!(next, Next::Before { id, .. } if id == last.id);
                    !found
                });
            }
            if found {
                return Ok(Ok(no));
            }
        }
        Ok(Err(claimed))
    }

    /// Reads one chunk. Blocks on the disk only.
    pub(super) fn read(&mut self, source: &str, intake: &mut Intake<'_>) -> io::Result<Step> {
        let now = intake.now.at;
        let Some(at) = self.at else {
            return self.find(source, intake);
        };
        let Some(mut chunk) = Chunk::read(&self.file, at)? else {
            // Unused by now, or beyond reading: the ids tell what was in it.
            if chunk::ids(&self.file, at)?.is_some() {
                self.broken.insert(at);
            }
            self.at = None;
            return Ok(Step::More);
        };
        let hole_reason = match self.came_from {
            Some(from) if (from + 1) % chunk::count(self.stamp.0).max(1) != at => {
                GapReason::DamagedChunk
            }
            _ if self.torn => GapReason::DamagedChunk,
            _ => GapReason::MissingRecords,
        };
        let (mut last, mut hole_since) = (self.last, self.hole_since);
        // Whether what comes now is behind the last record.
        let mut behind = last.is_none_or(|last| chunk.ids.first > last.id);
        let (mut taken, mut unreadable, mut step) = (false, false, None);
        let mut other = false;
        let (ids, last_in) = (chunk.ids, self.last_in);
        let (place, backfill_end, name) = (&self.place, self.backfill_end, &self.name);
        let whole = chunk.walk(last.map(|last| last.id), &mut |next| {
            let rendered = match next {
                Next::Before { id, print } => {
                    if let Some(last) = last.filter(|last| last.id == id) {
                        // Elsewhere the same id is but damage.
                        other = last_in == Some(at) && last.print != print;
                        behind = true;
                    }
                    return !other;
                }
                Next::Unreadable => {
                    unreadable |= behind;
                    return true;
                }
                // An id that the header does not know, or that steps back, is none.
                Next::Record(rendered)
                    if !(ids.first..=ids.last).contains(&rendered.id)
                        || last.is_some_and(|last| rendered.id <= last.id) =>
                {
                    unreadable |= behind;
                    return true;
                }
                Next::Record(rendered) => rendered,
            };
            let missing = last.map_or(0, |last| rendered.id - last.id - 1);
            let hole = missing > 0 || unreadable && last.is_none();
            if hole && !stays(&mut hole_since, last.map_or(0, |last| last.id), now) {
                step = Some(Step::Held);
                return false;
            }
            if !take(place, backfill_end, &rendered, intake) {
                step = Some(Step::NoRoom);
                return false;
            }
            if hole {
                let reason = if unreadable {
                    GapReason::DamagedChunk
                } else {
                    hole_reason
                };
                say_missing(source, name, reason, last, rendered.id, intake);
            }
            last = Some(Last {
                id: rendered.id,
                print: rendered.print,
            });
            (taken, unreadable, behind) = (true, false, true);
            hole_since = None;
            // An alert leaves at once; the rest of the chunk is taken up again.
            if intake.batch.is_due() {
                step = Some(Step::More);
                return false;
            }
            true
        });
        (self.last, self.hole_since) = (last, hole_since);
        if other {
            return Ok(self.other_history(source, intake));
        }
        self.other_since = None;
        if taken {
            self.moved = true;
            self.last_in = Some(at);
            (self.torn, self.came_from) = (false, None);
        }
        if let Some(step) = step {
            if step == Step::Held && !taken {
                // What is missing may come up between.
                self.at = self.came_from.take();
            }
            return Ok(step);
        }
        debug_assert!(whole);
        self.torn |= unreadable;
        self.onwards(at, ids, taken, source, intake)
    }

    /// The chunk was read to its end: which comes next.
    fn onwards(
        &mut self,
        at: u64,
        ids: Ids,
        taken: bool,
        source: &str,
        intake: &mut Intake<'_>,
    ) -> io::Result<Step> {
        let next = at + 1;
        if !taken {
            self.spent.insert(at);
        }
        if let Some(last) = self.last
            && !self.spent.contains(&next)
            && next < chunk::count(self.stamp.0)
            && chunk::ids(&self.file, next)?.is_some_and(|ids| ids.first == last.id + 1)
        {
            (self.at, self.came_from) = (Some(next), Some(at));
            return Ok(Step::More);
        }
        if taken {
            // While the end of this chunk grows, the others need not be looked at.
            return Ok(Step::More);
        }
        let survey = self.survey()?;
        if let Some(next) = survey.next {
            (self.at, self.came_from) = (Some(next), Some(at));
            return Ok(Step::More);
        }
        let behind = self.last.map_or(0, |last| last.id);
        if !self.torn || self.told == behind && behind > 0 {
            return Ok(Step::Idle);
        }
        if !stays(&mut self.hole_since, behind, intake.now.at) {
            return Ok(Step::Held);
        }
        let gap = Gap {
            records: (ids.last > behind && self.last.is_some()).then(|| ids.last - behind),
            ..Gap::new(
                GapReason::DamagedChunk,
                format!("what is behind record {behind} cannot be read"),
            )
        };
        intake
            .batch
            .push_gap(&gap.in_file(source, &self.name), intake.now);
        (self.told, self.torn, self.moved) = (behind, false, true);
        Ok(Step::Idle)
    }

    /// Looks for the chunk to read.
    fn find(&mut self, source: &str, intake: &mut Intake<'_>) -> io::Result<Step> {
        let Some(last) = self.last else {
            self.at = self.survey()?.next;
            return Ok(if self.at.is_some() {
                Step::More
            } else {
                Step::Idle
            });
        };
        match self.chunk_of(last)? {
            Ok(no) => (self.at, self.last_in) = (Some(no), Some(no)),
            // There is another record with its id.
            Err(true) => return Ok(self.other_history(source, intake)),
            Err(false) => {
                let survey = self.survey()?;
                // All ids are lower: they began again.
                if survey.newest.is_some_and(|(newest, _)| newest < last.id)
                    && self.broken.is_empty()
                {
                    return Ok(self.other_history(source, intake));
                }
                self.at = survey.next;
            }
        }
        Ok(if self.at.is_some() {
            Step::More
        } else {
            Step::Idle
        })
    }

    fn survey(&self) -> io::Result<Survey> {
        let mut survey = Survey::default();
        for no in 0..chunk::count(self.stamp.0) {
            let Some(ids) = chunk::ids(&self.file, no)?.filter(|_| !self.broken.contains(&no))
            else {
                continue;
            };
            if survey.newest.is_none_or(|(newest, _)| ids.last > newest) {
                survey.newest = Some((ids.last, no));
            }
            let last = self.last.map(|last| last.id);
            if !self.spent.contains(&no)
                && last.is_none_or(|last| ids.last > last)
                && (survey.next.is_none() || ids.first < survey.next_first)
            {
                (survey.next, survey.next_first) = (Some(no), ids.first);
            }
        }
        Ok(survey)
    }

    /// The file holds other records than those that were read from it.
    fn other_history(&mut self, source: &str, intake: &mut Intake<'_>) -> Step {
        let now = intake.now.at;
        self.at = None;
        let since = *self.other_since.get_or_insert(now);
        let still = now.saturating_duration_since(self.changed_at.max(since)) >= HOLE_STAYS;
        if !still && now.saturating_duration_since(since) < OTHER_HISTORY_AFTER {
            return Step::Held;
        }
        let detail = "the log was cleared or replaced by another: it is read from its first record; what was written in between may be missing";
        let gap = Gap::new(GapReason::Rewritten, detail).in_file(source, &self.name);
        intake.batch.push_gap(&gap, intake.now);
        (self.last, self.backfill_end, self.told) = (None, 0, 0);
        self.forget_place();
        self.moved = true;
        Step::More
    }
}

/// Whether the hole behind record `id` has stayed long enough.
fn stays(since: &mut Option<(u64, Instant)>, id: u64, now: Instant) -> bool {
    let begun = match *since {
        Some((of, begun)) if of == id => begun,
        _ => since.insert((id, now)).1,
    };
    now.saturating_duration_since(begun) >= HOLE_STAYS
}

/// `false`: there is no room.
fn take(place: &Place, backfill_end: u64, rendered: &Rendered, intake: &mut Intake<'_>) -> bool {
    let known = Known::of(&rendered.json);
    let attributes: Vec<(&str, &str)> = (known.attributes.iter())
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let record = Record {
        body: &rendered.json,
        time_unix_nano: known.time_unix_nano,
        severity: known.severity,
        backfill: rendered.id < backfill_end,
        attributes: &attributes,
        ..Record::default()
    };
    intake.take(place, &record)
}

fn say_missing(
    source: &str,
    path: &Path,
    reason: GapReason,
    last: Option<Last>,
    next: u64,
    intake: &mut Intake<'_>,
) {
    let gap = match last {
        Some(last) => Gap {
            records: Some(next - last.id - 1),
            ..Gap::new(
                reason,
                format!("the records {} to {} are not there", last.id + 1, next - 1),
            )
        },
        None => Gap::new(
            reason,
            format!("what is before record {next} cannot be read"),
        ),
    };
    intake
        .batch
        .push_gap(&gap.in_file(source, path), intake.now);
}
