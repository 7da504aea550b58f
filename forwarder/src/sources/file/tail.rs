//! One file while it is read: blocks in, records out, never a byte twice.

mod events;
mod sift;
mod split;
mod take;

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use regex::bytes::Regex;
use watchline_proto::payload::Origin;

use super::{
    FileConfig,
    framing::Encoding,
    identity::{GUARD_BYTES, Guard, HEAD_BYTES, Head, Inode, Print, read_whole},
    names,
    packed::Packed,
    position::{FileKey, LineState, Position},
};
use crate::{
    batch::{Moment, SourceNo},
    gaps::path_text,
    lanes::Matcher,
    sources::{Rules, Zone},
};

/// Says that the original bytes are not UTF-8.
const ENCODING: &str = "log.file.encoding";

/// Why the bytes before the offset are not those that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The file is shorter than what was read of it.
    Truncated,
    /// Other bytes are in their place.
    Rewritten,
}

/// What came of one look.
#[derive(Debug)]
pub(super) enum Taken {
    /// The offset moved. `more`: there is more to read right now.
    Some { more: bool },
    /// The end, or a line that is not complete.
    Nothing,
    /// The batch has to be closed first.
    NoRoom,
    /// This is not the content that the offset belongs to.
    Changed(Change),
    /// Reading failed; to be tried again.
    Failed(io::Error),
}

/// Whether the position has to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moved {
    No,
    /// Found, or followed a copy: there are no events that it has to be stored with.
    Found,
    /// Events were taken: it belongs into their frame.
    Read,
}

/// Bytes behind the offset that are no complete line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) size: u64,
    pub(super) since: Instant,
}

/// One file's content, from the moment it was found until it is gone or replaced.
pub(super) struct Tail {
    pub(super) key: FileKey,
    pub(super) name: PathBuf,
    /// The name that its generations have in common.
    pub(super) family: PathBuf,
    /// Bytes before this were there when the newest generation of its family was found: they come first.
    pub(super) owed_until: u64,
    /// Where it lies; `None`: it has no name that is known.
    pub(super) path: Option<PathBuf>,
    pub(super) inode: Inode,
    pub(super) offset: u64,
    pub(super) head: Head,
    pub(super) guard: Guard,
    pub(super) line: LineState,
    pub(super) backfill_end: u64,
    pub(super) found_unix_nano: i64,
    pub(super) confirmed_unix_nano: i64,
    pub(super) copy_of: Option<FileKey>,

    pub(super) handle: Option<File>,
    /// Where `handle` is filled from, when it goes on inside a packed file.
    pub(super) packed: Option<Packed>,
    /// Whether a pattern of the source leads to it.
    pub(super) in_pattern: bool,
    /// Size when last looked at.
    pub(super) size: u64,
    /// The largest size that is known of this content: seen before its bytes were found to stand.
    pub(super) known_size: u64,
    /// Modification and change time at which the bytes before the offset were last seen to stand; `None`: look again.
    pub(super) stood_at: Option<(i64, i64)>,
    pub(super) waiting: Option<Waiting>,
    /// There is no line feed between the offset and here.
    no_feed_before: u64,
    /// Whether it is known to be no copy of another file.
    pub(super) classified: bool,
    /// Its content began when another was cut: NUL bytes at its beginning are a hole under a writer that went on.
    pub(super) after_cut: bool,
    hole_bytes: u64,
    pub(super) idle_since: Instant,
    pub(super) moved: Moved,
    pub(super) queued: bool,
    pub(super) seen_in_round: u64,
    /// What its events say of the file; labels are added when it is read.
    origin: Origin,
    /// Complete, for as long as the configuration stays: as usual, and as backfill.
    origins: Option<[Arc<Origin>; 2]>,
    /// Once it is known.
    encoding: Option<Encoding>,
    /// What the kernel has said of records that its audit lost; `None`: nothing since the start.
    lost_records: Option<u64>,
}

/// What all files of a source are read by.
pub(super) struct Terms<'a> {
    pub(super) no: SourceNo,
    pub(super) config: &'a FileConfig,
    pub(super) matcher: Option<&'a Matcher>,
    pub(super) rules: Option<&'a Rules>,
    /// Found in the first line of a record, where records have several.
    pub(super) start: Option<&'a Regex>,
    /// What a time without an offset means.
    pub(super) zone: Option<&'a Zone>,
}

impl Tail {
    /// A file that was never read.
    pub(super) fn new(
        source: &str,
        key: FileKey,
        name: PathBuf,
        inode: Inode,
        now: Moment,
    ) -> Tail {
        let family = match name.file_name() {
            Some(base) => name.with_file_name(names::family(base)),
            None => name.clone(),
        };
        let path = path_text(&name);
        let base = name
            .file_name()
            .map(|base| path_text(base.as_ref()))
            .unwrap_or_default();
        let origin = Origin {
            source: source.to_owned(),
            kind: "file".to_owned(),
            attributes: vec![
                ("log.file.path".to_owned(), path),
                ("log.file.name".to_owned(), base),
            ],
        };
        Tail {
            key,
            path: Some(name.clone()),
            name,
            family,
            owed_until: 0,
            inode,
            offset: 0,
            head: Head::EMPTY,
            guard: Guard::default(),
            line: LineState::Start,
            backfill_end: 0,
            found_unix_nano: now.unix_nano,
            confirmed_unix_nano: now.unix_nano,
            copy_of: None,
            handle: None,
            packed: None,
            in_pattern: true,
            size: 0,
            known_size: 0,
            stood_at: None,
            waiting: None,
            no_feed_before: 0,
            classified: false,
            after_cut: false,
            hole_bytes: 0,
            idle_since: now.at,
            moved: Moved::Found,
            queued: false,
            seen_in_round: 0,
            origin,
            origins: None,
            encoding: None,
            lost_records: None,
        }
    }

    /// Goes on where `position` ended, in `file`; `Err` when that is not the content it belongs to.
    pub(super) fn resume(
        source: &str,
        key: FileKey,
        position: &Position,
        file: &File,
        now: Moment,
    ) -> io::Result<Result<Tail, Change>> {
        let (head, guard) = match standing(position, file)? {
            Ok(standing) => standing,
            Err(change) => return Ok(Err(change)),
        };
        Ok(Ok(Tail::at(source, key, position, head, guard, now)))
    }

    /// Goes on where `position` ended, with the bytes that have proved it.
    pub(super) fn at(
        source: &str,
        key: FileKey,
        position: &Position,
        head: Head,
        guard: Guard,
        now: Moment,
    ) -> Tail {
        let mut tail = Tail::new(source, key, position.name.clone(), position.inode, now);
        tail.path = Some(position.path.clone());
        tail.offset = position.offset;
        (tail.head, tail.guard) = (head, guard);
        if position.in_hole {
            (tail.after_cut, tail.hole_bytes) = (true, position.offset);
        }
        tail.line = position.line;
        tail.backfill_end = position.backfill_end;
        tail.found_unix_nano = position.found_unix_nano;
        tail.confirmed_unix_nano = position.confirmed_unix_nano;
        tail.copy_of = position.copy_of;
        tail.known_size = position.known_size;
        tail.classified = position.offset > 0;
        tail.moved = Moved::No;
        tail
    }

    pub(super) fn position(&self) -> Position {
        Position {
            name: self.name.clone(),
            path: self.path.clone().unwrap_or_else(|| self.name.clone()),
            inode: self.inode,
            offset: self.offset,
            head: self.head.print(),
            guard: self.guard.print(),
            line: self.line,
            backfill_end: self.backfill_end,
            known_size: self.known_size.max(self.offset),
            found_unix_nano: self.found_unix_nano,
            confirmed_unix_nano: self.confirmed_unix_nano,
            missing_since_unix_nano: 0,
            replaced: false,
            in_hole: self.after_cut && self.hole_bytes == self.offset,
            packed: self.packed.is_some(),
            copy_of: self.copy_of,
        }
    }

    /// The configuration changed.
    pub(super) fn forget_origins(&mut self) {
        self.origins = None;
        self.encoding = None;
    }

    fn encoding(&mut self, file: &File, config: &FileConfig) -> io::Result<Encoding> {
        if self.encoding.is_none() {
            self.encoding = config.encoding.of(file)?;
        }
        Ok(self.encoding.unwrap_or(Encoding::Utf8))
    }

    /// As usual, and as backfill.
    fn origins(&mut self, config: &FileConfig, encoding: Encoding) -> [Arc<Origin>; 2] {
        let origins = self.origins.get_or_insert_with(|| {
            let mut usual = self.origin.clone();
            config.records.kind().clone_into(&mut usual.kind);
            let encoding = encoding
                .name()
                .map(|name| (ENCODING.to_owned(), name.to_owned()));
            usual.attributes.extend(encoding);
            usual.attributes.extend(config.common.attributes());
            let mut backfill = usual.clone();
            let flag = ("watchline.backfill".to_owned(), "true".to_owned());
            backfill.attributes.push(flag);
            [Arc::new(usual), Arc::new(backfill)]
        });
        origins.clone()
    }

    /// Bytes that are there and could be read now.
    pub(super) fn unread_bytes(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }

    /// Puts the offset to `offset` without taking what lies before: a file that is not read from its beginning, or a copy of one
    /// that has been read. `false` when the file is shorter.
    pub(super) fn skip_to(&mut self, file: &File, offset: u64) -> io::Result<bool> {
        let Some(guard) = Guard::read(file, offset)? else {
            return Ok(false);
        };
        let mut head = vec![0; offset.min(HEAD_BYTES as u64) as usize];
        if !read_whole(file, &mut head, 0)? {
            return Ok(false);
        }
        (self.head, self.guard, self.offset) = (Head::of(&head), guard, offset);
        self.line = LineState::Start;
        self.waiting = None;
        self.no_feed_before = 0;
        self.moved = self.moved.max(Moved::Found);
        Ok(true)
    }

    /// Whether the bytes before the offset are still those that were read.
    pub(super) fn stands(&self, file: &File) -> io::Result<bool> {
        Ok(self.guard.stands(file, self.offset)? && self.head.begins(file)?)
    }

    /// Whether it can be opened again by its name.
    pub(super) fn is_closable(&self) -> bool {
        self.handle.is_some() && self.path.is_some() && self.packed.is_none()
    }

    pub(super) fn waits_longer_than(&self, at_most: Duration, now: Instant) -> bool {
        self.waiting.is_some() && self.waited(now) >= at_most
    }

    /// How long what is not complete has been waiting.
    fn waited(&self, now: Instant) -> Duration {
        self.waiting.map_or(Duration::ZERO, |waiting| {
            now.saturating_duration_since(waiting.since)
        })
    }
}

/// The bytes that prove a position, where `file` has them.
pub(super) fn standing(
    position: &Position,
    file: &File,
) -> io::Result<Result<(Head, Guard), Change>> {
    let mut head = vec![0; position.head.len.into()];
    if !read_whole(file, &mut head, 0)? {
        return Ok(Err(Change::Truncated));
    }
    let Some(guard) = Guard::read(file, position.offset)? else {
        return Ok(Err(Change::Truncated));
    };
    if Print::of(&head) != position.head || guard.print() != position.guard {
        return Ok(Err(Change::Rewritten));
    }
    Ok(Ok((Head::of_proven(head, position.head), guard)))
}

const _: () = assert!(GUARD_BYTES <= HEAD_BYTES);
