//! Opening what is there: the newest complete snapshot, the frames behind it, and what became of the rest.
//!
//! A bad frame is damage only if something that survived says that it was durable: a later frame of the same segment
//! (by the durable mark in its header) or a later segment (by its first frame number: a segment is begun only after
//! everything before it was synced). Otherwise the log ends there, whatever lies behind.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    Access, Damage, Disk, FrameNo, Items, LANES, Mark,
    blocks::{Blocks, Found, READ_AHEAD},
    damage::{self, Hole, QUARANTINE},
    frame::{Entries, Entry, FrameHeader, Kind},
    log,
    segment::{self, Opening, Point, Row, Segment, SegmentHeader},
    snapshot::{self, Marks, Snapshot, State},
};

/// The files of a spool that are no segments.
pub(crate) const LOCK: &str = "lock";
pub(crate) const RESERVE: &str = "reserve";

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// True when the directory held no spool before.
    pub created: bool,
    /// Random, made with the directory: a new one when the spool was made anew.
    pub buffer_id: [u8; 16],
    /// Places where durable bytes were damaged, set aside in `quarantine/`. Each must become a gap event by the caller;
    /// put it into [`Frame::settled`](crate::Frame::settled) of the frame with that event, or it is reported again.
    /// What lies in older segments is found, and reported, by the readers that get there.
    pub damage: Vec<Damage>,
    /// Items held that some required reader has not passed (of everything held where no reader is required), per lane.
    pub items: [u64; LANES],
    /// Their bytes.
    pub bytes: [u64; LANES],
}

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing was touched. Another process, or another [`Spool`](crate::Spool) of this one, owns it.
    #[error("spool {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing was touched. A later version of this program wrote it.
    #[error("spool {} has format {found}, this program reads up to {known}; it was left untouched", path.display())]
    TooNew {
        /// The segment.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The disk failed, or is full, read-only or not ours. Nothing that was durable is lost: trying again may succeed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Everything that a writer goes on from.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) created: bool,
    pub(crate) buffer_id: [u8; 16],
    pub(crate) state: State,
    pub(crate) marks: Marks,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) frame: FrameNo,
    pub(crate) items: Items,
    pub(crate) bytes: [u64; LANES],
    pub(crate) damage: Vec<Damage>,
    /// Greater than that of any file.
    pub(crate) next_segment: u64,
    /// Greater than any incarnation's count seen.
    pub(crate) next_incarnation: u32,
    /// Whether two segments with a complete snapshot must be made, not one.
    pub(crate) needs_two: bool,
    /// Files to remove, and files to cut, once a new segment is durable.
    pub(crate) stale: Vec<u64>,
    pub(crate) cuts: Vec<(u64, u64)>,
}

/// What the process itself knows when it opens again after a failure: frames from here on do not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    pub(crate) durable: FrameNo,
    pub(crate) items: Items,
}

/// Reads the directory; changes nothing but the quarantine.
pub(crate) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    required: &[String],
    live: Option<Live>,
) -> Result<Recovered, OpenError> {
    let files = list(disk, directory)?;
    let mut recovered = Recovered {
        next_segment: files
            .taken
            .iter()
            .next_back()
            .map_or(0, |number| number + 1),
        next_incarnation: 1,
        ..Recovered::default()
    };

    // Back to the newest complete snapshot.
    let mut base = None;
    let mut broken = Vec::new();
    for (&number, &bytes) in files.segments.iter().rev() {
        let path = segment::path_of(directory, number);
        let candidate = Candidate::examine(disk, &path, number, bytes)?;
        if let Some(incarnation) = candidate.incarnation {
            recovered.next_incarnation = recovered
                .next_incarnation
                .max((incarnation >> 32) as u32)
                .saturating_add(1);
        }
        if candidate.snapshot.is_some() {
            base = Some(candidate);
            break;
        }
        broken.push(candidate);
    }
    broken.reverse();
    recovered.needs_two = base.is_none() || !broken.is_empty();

    let Some(mut base) = base else {
        recovered.created = true;
        return set_aside(disk, directory, broken, recovered);
    };
    let (Some(snapshot), Some(header)) = (base.snapshot.take(), base.header.clone()) else {
        return Ok(recovered); // examine() gives both or neither
    };
    recovered.buffer_id = header.buffer_id;
    if !broken.is_empty() {
        tracing::warn!(
            segment = base.number,
            newer = broken.len(),
            "the newest snapshot is not readable: using the one before"
        );
    }

    let mut replay = Replay::from(snapshot, &header);
    let mut candidates = vec![base];
    candidates.extend(broken);
    replay_all(&mut replay, directory, candidates, live)?;
    replay.check_older(directory, &files.segments, required);
    replay.finish(disk, directory, &mut recovered);

    let table: Vec<u64> = recovered
        .segments
        .iter()
        .map(|segment| segment.row.segment)
        .collect();
    for (&number, &bytes) in &files.segments {
        match table
            .binary_search(&number)
            .map(|index| recovered.segments[index].row.log_end)
        {
            Ok(end) if bytes > end => recovered.cuts.push((number, end)),
            Ok(_) => {}
            Err(_) => recovered.stale.push(number), // given up, or never completed
        }
    }
    Ok(recovered)
}

struct Files {
    /// Segment files by number, with their length.
    segments: BTreeMap<u64, u64>,
    /// All numbers that a new file cannot have.
    taken: std::collections::BTreeSet<u64>,
}

fn list(disk: &dyn Disk, directory: &Path) -> Result<Files, OpenError> {
    let mut files = Files {
        segments: BTreeMap::new(),
        taken: Default::default(),
    };
    for entry in disk
        .list(directory)
        .map_err(OpenError::io("list", directory))?
    {
        match segment::number_of(&entry.name) {
            Some(number) => {
                files.taken.insert(number);
                if entry.is_file {
                    files.segments.insert(number, entry.bytes);
                } else {
                    tracing::warn!(name = ?entry.name, "not a regular file: left alone");
                }
            }
            None if [LOCK, RESERVE, QUARANTINE]
                .iter()
                .any(|&known| entry.name == known) => {}
            None => {
                tracing::warn!(name = ?entry.name, "a file in the spool's directory that is not the spool's: left alone")
            }
        }
    }
    Ok(files)
}

/// Nothing tells where the log began: keep what there is for people, and begin anew.
fn set_aside(
    disk: &dyn Disk,
    directory: &Path,
    broken: Vec<Candidate>,
    mut recovered: Recovered,
) -> Result<Recovered, OpenError> {
    let never_begun = broken.iter().all(|candidate| candidate.start.is_none())
        && broken.iter().all(|c| c.number == 0);
    recovered.buffer_id = random()?;
    if never_begun {
        recovered.stale = broken.iter().map(|candidate| candidate.number).collect();
        return Ok(recovered);
    }
    recovered.created = false;
    let folder = directory.join(QUARANTINE);
    disk.make_directory(&folder)
        .map_err(OpenError::io("make directory", &folder))?;
    for candidate in broken {
        let from = segment::path_of(directory, candidate.number);
        let to = folder.join(format!("damaged-{}", segment::file_name(candidate.number)));
        disk.rename(&from, &to)
            .map_err(OpenError::io("set aside", &from))?;
        recovered.damage.push(Damage {
            segment: from,
            offset: 0,
            bytes: candidate.bytes,
            frames: FrameNo(0)..FrameNo(0),
            items: std::array::from_fn(|_| Default::default()..Default::default()),
            reason: "no snapshot can be read: the spool was made anew".to_owned(),
            kept: Some(to),
        });
    }
    Ok(recovered)
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    let filled =
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"));
    filled.map_err(OpenError::io("ask for", Path::new("random numbers")))?;
    Ok(bytes)
}

/// A segment that may have to be read.
struct Candidate {
    number: u64,
    bytes: u64,
    blocks: Blocks,
    header: Option<SegmentHeader>,
    incarnation: Option<u64>,
    snapshot: Option<Snapshot>,
    /// Where the log begins, if it does.
    start: Option<u64>,
    /// What it says of all that was before it.
    first: Option<(FrameNo, Items)>,
}

impl Candidate {
    fn examine(
        disk: &dyn Disk,
        path: &Path,
        number: u64,
        bytes: u64,
    ) -> Result<Candidate, OpenError> {
        let file = disk
            .open(path, Access::Read)
            .map_err(OpenError::io("open", path))?;
        let opening = SegmentHeader::read(&*file, number).map_err(OpenError::io("read", path))?;
        let header = match opening {
            Opening::Header(header) => Some(header),
            Opening::TooNew(found) => {
                return Err(OpenError::TooNew {
                    path: path.to_owned(),
                    found,
                    known: segment::FORMAT,
                });
            }
            Opening::Bad => None,
        };
        let mut candidate = Candidate {
            number,
            bytes,
            blocks: Blocks::of(file, true),
            incarnation: header.as_ref().map(|header| header.incarnation),
            first: header
                .as_ref()
                .map(|header| (header.first_frame, header.first_item)),
            header,
            snapshot: None,
            start: None,
        };
        candidate.look().map_err(OpenError::io("read", path))?;
        Ok(candidate)
    }

    fn look(&mut self) -> io::Result<()> {
        if let Some(header) = &self.header
            && let Some((snapshot, start)) = snapshot::read(&mut self.blocks, header, self.bytes)?
        {
            self.snapshot = Some(snapshot);
            self.start = Some(start);
            return Ok(());
        }
        // A frame behind a snapshot proves that the snapshot was complete once.
        if let Some((start, frame)) =
            self.blocks
                .find_frame(0, self.bytes, self.incarnation, FrameNo(0))?
        {
            self.start = Some(start);
            self.incarnation = Some(frame.incarnation);
            self.first.get_or_insert((frame.number, frame.first));
        }
        Ok(())
    }
}

/// What a later segment, or the process, says of where a segment's log ended.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Frames below were durable.
    frame: FrameNo,
    items: Items,
    /// Frames from there on, in this segment, do not count.
    ends: bool,
}

fn replay_all(
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

struct Replay {
    state: State,
    marks: Marks,
    segments: Vec<Segment>,
    settled: Vec<Hole>,
    damage: Vec<(u64, Damage)>,
    /// Segments below were given up on purpose.
    oldest: u64,
    frame: FrameNo,
    items: Items,
    bytes: [u64; LANES],
}

impl Replay {
    fn from(snapshot: Snapshot, header: &SegmentHeader) -> Replay {
        Replay {
            state: snapshot.state,
            marks: snapshot.marks,
            segments: snapshot.rows.into_iter().map(Segment::of).collect(),
            settled: snapshot.settled,
            damage: Vec::new(),
            oldest: 0,
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
            reason: "a durable frame cannot be read".to_owned(),
            kept: None,
        };
        self.damage.push((number, damage));
        (self.frame, self.items) = (frame, items);
        Ok(end)
    }

    /// Older segments are not read, but they must be there.
    fn check_older(&mut self, directory: &Path, present: &BTreeMap<u64, u64>, required: &[String]) {
        let passed = log::passed(required, &self.marks);
        let mut missing = Vec::new();
        self.segments.retain_mut(|segment| {
            let row = &segment.row;
            if row.segment < self.oldest {
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
                        reason: "the segment is missing".to_owned(),
                        kept: None,
                    },
                ));
                segment.missing = true;
            }
            needed
        });
        missing.append(&mut self.damage);
        self.damage = missing;
    }

    fn finish(self, disk: &dyn Disk, directory: &Path, recovered: &mut Recovered) {
        recovered.segments = self.segments.into();
        let find = |segments: &VecDeque<Segment>, number: u64| {
            segments
                .binary_search_by_key(&number, |segment| segment.row.segment)
                .ok()
        };
        for hole in self.settled {
            if let Some(index) = find(&recovered.segments, hole.segment) {
                recovered.segments[index].add_hole(hole, true);
            }
        }
        for (number, mut damage) in self.damage {
            let Some(index) = find(&recovered.segments, number) else {
                continue;
            };
            let hole = damage.hole(number);
            if recovered.segments[index].add_hole(hole, false) {
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
