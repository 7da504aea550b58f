//! Opening what is there: the newest complete snapshot, the frames behind it, and what became of the rest.
//!
//! A bad frame is damage only if something that survived says that it was durable: a later frame of the same segment
//! (by the durable mark in its header) or a later segment (by its first frame number: a segment is begun only after
//! everything before it was synced). Otherwise the log ends there, whatever lies behind.

mod candidate;
mod replay;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

use self::{candidate::Candidate, replay::Replay};
use crate::{
    Damage, Disk, FrameNo, Items, LANES,
    damage::QUARANTINE,
    segment::{self, Segment},
    snapshot::{Marks, State},
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
    pub(crate) removed: Items,
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
    replay::replay_all(&mut replay, directory, candidates, live)?;
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
    taken: BTreeSet<u64>,
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
            None if entry.is_file => {
                tracing::warn!(name = ?entry.name, "a file that is not the spool's: left alone")
            }
            None => {} // a program may keep directories of its own here
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
            reason: "no snapshot can be read: the spool was made anew",
            kept: Some(to.into()),
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
