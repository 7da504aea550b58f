//! Following the buffer into files, exactly.
//!
//! A **window** is what lies between two marks. Its bytes are written as soon as they are there, synced together, and then marked: one
//! atomic record of both lanes' places, the file's identity, its length and a guard over its last bytes. Whatever is killed whenever, the
//! file is cut at start to the length of the mark that survived, and what lay beyond is written again from the buffer.
//!
//! Nothing is written beyond the `limit` that the last *durable* mark names, at most [`WINDOW_BYTES`] further than that mark (or one write
//! where a single line is larger). So a file that is longer than its mark's limit, or whose guard does not match, is not as this output left
//! it: it is renamed aside, a new one is begun, and an event says so.
//!
//! Closing a file for a new one, each step after the one before is durable: content (with its end, where the form has one) · a mark
//! that names what the file will be renamed to · the rename · read-only, where the form asks for it · the new empty file · a mark that
//! names it. A start in between goes on where that ended.

mod closing;
mod disk;
mod gaps;
mod items;
mod note;
mod place;
mod settle;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trouble;

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use tracing::{error, info, warn};
use watchline_node::health::CheckState;
use watchline_spool::{ItemNo, LANES, LaneNo, Mark, ReadItem};

pub(crate) use disk::{Disk, RealDisk};
use disk::{Identity, OpenFile};
use note::{Note, Tail};
pub(crate) use place::Place;
pub(crate) use trouble::Trouble;

use super::{config::Rotation, feed::Feed};

/// Bytes that may be written beyond a durable mark.
pub(crate) const WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that are rendered before they are written.
const CHUNK_BYTES: usize = 1 << 20;
/// How long what is written may stay without a sync and a mark: many small writes share them.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a gap event is waited for before the mark moves past the gap. Not for ever: the buffer may be full because of this very mark.
const GAP_WAIT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What the content of a file is: how an item becomes bytes.
pub(crate) trait Form: Send {
    /// Number of the form in notes. A file has one form.
    fn id(&self) -> u8;
    /// What each file begins with, written with its first item. `number`: of the file, from 0.
    fn begin_file(&mut self, opened_unix_nano: i64, number: u64, out: &mut Vec<u8>);
    /// Appends the item's events from index `from` on. May stop after an event once `out` has `enough` bytes. `records` counts on.
    /// On an error nothing has been appended.
    fn render(
        &mut self,
        item: &ReadItem,
        from: u32,
        enough: usize,
        records: &mut u64,
        out: &mut Vec<u8>,
    ) -> Result<Rendered, Unreadable>;
    /// What was rendered since the last mark is void: it will be rendered again.
    fn go_back(&mut self);
    /// What a complete file ends with; well below a window.
    fn end_file(&mut self, records: &mut u64, out: &mut Vec<u8>);
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) events: u64,
    /// The event to go on with; `None`: the item is done.
    pub(crate) next: Option<u32>,
}

/// An item that cannot be opened: its own defect, however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Unreadable {
    pub(crate) reason: String,
    /// How many events its seal names, where it can be read.
    pub(crate) events: Option<u64>,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    next: [ItemNo; LANES],
    /// The item at this lane's `next` has so many events done.
    partial: Option<(LaneNo, u32)>,
    /// In the present file.
    records: u64,
}

/// The file that is written.
struct Open {
    file: Box<dyn OpenFile>,
    form: u8,
    identity: Identity,
    length: u64,
    /// The last durable mark lets the file become this long.
    limit: u64,
    tail: Tail,
    /// When its first byte was written.
    opened_unix_nano: i64,
    number: u64,
    unsynced: bool,
    /// Complete: on its way to this name.
    closing: Option<PathBuf>,
}

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) unix_nano: i64,
    pub(crate) instant: Instant,
}

impl Now {
    fn real() -> Now {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            unix_nano: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            instant: Instant::now(),
        }
    }
}

/// What to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Turn again.
    More,
    /// Nothing to do until something is readable, or until so much time has passed.
    Wait(Option<Duration>),
}

/// Follows the buffer into one place of files. `marked <= written <= rendered`, in items as in bytes.
pub(crate) struct Follower<F> {
    feed: Feed,
    form: F,
    disk: Box<dyn Disk>,
    place: Place,
    rotation: Rotation,
    /// What the last mark says.
    marked: Progress,
    note: Option<Note>,
    /// What is in the file.
    written: Progress,
    /// What is in the file or in `buffer`.
    rendered: Progress,
    /// At most [`CHUNK_BYTES`] and one line or archived batch.
    buffer: Vec<u8>,
    buffered_events: u64,
    buffered_batches: u64,
    /// Rendered in part.
    item: Option<ReadItem>,
    open: Option<Open>,
    /// When the first unmarked change was made.
    unmarked_since: Option<Instant>,
    /// Events about losses were raised since the last mark.
    gaps_raised: bool,
    /// The mark whose file was told to be another.
    told_of: Option<Note>,
}

impl<F: Form> Follower<F> {
    /// Nothing is touched before the first turn.
    pub(crate) fn new(
        mut feed: Feed,
        form: F,
        disk: Box<dyn Disk>,
        place: Place,
        rotation: Rotation,
    ) -> Follower<F> {
        let mark = feed.marks.current(&feed.reader);
        let note = mark
            .as_ref()
            .and_then(|mark| match Note::decode(&mark.note) {
                Ok(note) => Some(note),
                Err(error) => {
                    error!(output = %feed.output, %error, "file is taken for another's");
                    None
                }
            });
        if let Some(mark) = &mark {
            for (lane, next) in mark.next.into_iter().enumerate() {
                feed.items.seek(lane, next);
            }
        }
        let progress = Progress {
            next: std::array::from_fn(|lane| feed.items.position(lane)),
            partial: note.as_ref().and_then(|note| note.partial),
            records: note.as_ref().map_or(0, |note| note.records),
        };
        Follower {
            feed,
            form,
            disk,
            place,
            rotation,
            marked: progress,
            note,
            written: progress,
            rendered: progress,
            buffer: Vec::new(),
            buffered_events: 0,
            buffered_batches: 0,
            item: None,
            open: None,
            unmarked_since: None,
            gaps_raised: false,
            told_of: None,
        }
    }

    /// Turns until the stop; errors are reported and tried again.
    pub(crate) fn run(mut self) {
        let mut retry = FIRST_RETRY;
        let mut told: Option<CheckState> = None;
        while !self.feed.signal.is_stopped() {
            match self.turn(Now::real()) {
                Ok(turn) => {
                    if told != Some(CheckState::Ok) {
                        info!(output = %self.feed.output, file = %self.place.path().display(), "output works");
                        self.feed.metrics.failing.set(0);
                        (self.feed.report)(CheckState::Ok);
                        told = Some(CheckState::Ok);
                    }
                    retry = FIRST_RETRY;
                    if let Turn::Wait(at_most) = turn {
                        self.feed.signal.wait(at_most);
                    }
                }
                Err(trouble) => {
                    let state = CheckState::Failing {
                        reason: trouble.reason(),
                    };
                    if told.as_ref() != Some(&state) {
                        error!(output = %self.feed.output, error = %trouble.reason(), "output fails, trying again");
                        self.feed.metrics.failing.set(1);
                        (self.feed.report)(state.clone());
                        told = Some(state);
                    }
                    self.feed.signal.wait_for_stop(retry);
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
        if let Err(trouble) = self.finish() {
            warn!(output = %self.feed.output, error = %trouble.reason(), "last window is not marked, it will be written again");
        }
    }

    /// One step: opens the file, closes it when it is time, writes what is readable, marks. After an error: turn again, later.
    pub(crate) fn turn(&mut self, now: Now) -> Result<Turn, Trouble> {
        let turn = self.step(now);
        if let Err(trouble) = &turn {
            self.feed.metrics.failures.inc();
            if trouble.leaves_the_file_unknown() {
                self.let_go();
            }
        }
        turn
    }

    /// Marks what is written. What is only rendered is left for the next start.
    pub(crate) fn finish(&mut self) -> Result<(), Trouble> {
        if self.unmarked_since.is_some() {
            self.mark(true, None)
        } else {
            Ok(())
        }
    }

    fn step(&mut self, now: Now) -> Result<Turn, Trouble> {
        if self.open.is_none() {
            self.settle(now)?;
        }
        if self.is_due(now) {
            self.close_file(now)?;
        }
        self.render(now)?;
        if !self.buffer.is_empty() {
            if !self.is_as_left()? {
                self.leave()?;
                return Ok(Turn::More);
            }
            self.write(now)?;
            return Ok(Turn::More);
        }
        if self.written != self.rendered {
            // Only gaps: passed without a byte.
            self.written = self.rendered;
            self.unmarked_since.get_or_insert(now.instant);
        }
        let Some(since) = self.unmarked_since else {
            return Ok(Turn::Wait(self.until_rotation(now)));
        };
        let left = SETTLE.saturating_sub(now.instant.saturating_duration_since(since));
        if left > Duration::ZERO {
            return Ok(Turn::Wait(Some(left)));
        }
        self.mark(false, None)?;
        Ok(Turn::More)
    }

    /// Renders until there is enough for a write or nothing more to read.
    fn render(&mut self, now: Now) -> Result<(), Trouble> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let left = self
            .rotation
            .size_bytes
            .map_or(u64::MAX, |size| size.saturating_sub(open.length));
        let enough = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .clamp(1, CHUNK_BYTES);
        while self.buffer.len() < enough {
            let item = match self.item.take() {
                Some(item) => item,
                None => {
                    match items::next_item(
                        &mut self.feed,
                        &mut self.rendered,
                        &mut self.gaps_raised,
                    ) {
                        Ok(Some(item)) => item,
                        Ok(None) => return Ok(()),
                        // What is rendered is written first; the error comes again.
                        Err(_) if !self.buffer.is_empty() => return Ok(()),
                        Err(trouble) => return Err(trouble),
                    }
                }
            };
            if open.length == 0 && self.buffer.is_empty() {
                open.opened_unix_nano = now.unix_nano;
                self.form
                    .begin_file(now.unix_nano, open.number, &mut self.buffer);
            }
            let from = self.rendered.partial.map_or(0, |(_, events)| events);
            match self.form.render(
                &item,
                from,
                enough,
                &mut self.rendered.records,
                &mut self.buffer,
            ) {
                Ok(Rendered {
                    events,
                    next: Some(next),
                }) => {
                    self.buffered_events += events;
                    self.rendered.partial = Some((item.lane, next));
                    self.item = Some(item);
                    continue;
                }
                Ok(Rendered { events, next: None }) => {
                    self.buffered_events += events;
                    self.buffered_batches += 1;
                }
                Err(unreadable) => {
                    gaps::set_aside(&self.feed, &*self.disk, &item, &unreadable)?;
                    self.gaps_raised = true;
                }
            }
            self.rendered.partial = None;
            self.rendered.next[item.lane] = ItemNo(item.no.0 + 1);
        }
        Ok(())
    }

    /// Writes the buffer behind what is there, marking first where the limit asks for it.
    fn write(&mut self, now: Now) -> Result<(), Trouble> {
        let bytes = self.buffer.len() as u64;
        if let Some(open) = &self.open
            && open.length + bytes > open.limit
        {
            let limit = open.length + bytes.max(WINDOW_BYTES);
            self.mark(true, Some(limit))?;
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.unsynced = true;
        let written = open.file.write_at(&self.buffer, open.length);
        written.map_err(|error| Trouble::disk("write", self.place.path(), error))?;
        open.length += bytes;
        open.tail.push(&self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(2 * CHUNK_BYTES);
        self.written = self.rendered;
        self.unmarked_since.get_or_insert(now.instant);
        self.feed.metrics.written_bytes.inc_by(bytes);
        self.feed
            .metrics
            .events
            .inc_by(std::mem::take(&mut self.buffered_events));
        self.feed
            .metrics
            .batches
            .inc_by(std::mem::take(&mut self.buffered_batches));
        Ok(())
    }

    /// Syncs what is written and marks it. `limit`: how long the file may become from now on, for a durable mark.
    fn mark(&mut self, durable: bool, limit: Option<u64>) -> Result<(), Trouble> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if open.unsynced {
            open.file
                .sync()
                .map_err(|error| Trouble::disk("sync", self.place.path(), error))?;
            open.unsynced = false;
        }
        if self.gaps_raised {
            if !self.feed.events.wait_durable(GAP_WAIT) {
                error!(output = %self.feed.output, "events about losses are not stored yet; passing the losses");
            }
            self.gaps_raised = false;
        }
        let note = Note {
            form: open.form,
            identity: open.identity,
            length: open.length,
            limit: match limit {
                Some(limit) => limit,
                None if durable => open.length + WINDOW_BYTES,
                None => open.limit,
            },
            guard: open.tail.guard(),
            opened_unix_nano: open.opened_unix_nano,
            number: open.number,
            records: self.written.records,
            partial: self.written.partial,
            path: self.place.path().to_owned(),
            closing: open.closing.clone(),
        };
        let mark = Mark {
            reader: self.feed.reader.clone(),
            next: self.written.next,
            note: note.encode(),
        };
        if durable {
            self.feed.marks.mark_synced(mark)?;
            open.limit = note.limit;
        } else {
            self.feed.marks.mark(mark);
        }
        self.feed.metrics.marks.inc();
        self.note = Some(note);
        self.marked = self.written;
        self.unmarked_since = None;
        Ok(())
    }

    /// Whether the path leads to the open file and nobody else has written to it or cut it.
    fn is_as_left(&self) -> Result<bool, Trouble> {
        let Some(open) = &self.open else {
            return Ok(true);
        };
        let path = self.place.path();
        let found = self
            .disk
            .look(path)
            .map_err(|error| Trouble::disk("look at", path, error))?;
        Ok(found
            .is_some_and(|found| found.identity == open.identity && found.length == open.length))
    }

    /// Somebody moved the file, or cut it, or wrote to it. What is in it is marked if only its name has changed; the next turn finds out
    /// what lies at the path now.
    fn leave(&mut self) -> Result<(), Trouble> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let found = open
            .file
            .found()
            .map_err(|error| Trouble::disk("look at", self.place.path(), error))?;
        if found.length == open.length {
            self.mark(true, None)?;
        }
        self.let_go();
        Ok(())
    }

    /// Gives up the file and goes back to the mark.
    fn let_go(&mut self) {
        self.open = None;
        self.item = None;
        self.buffer.clear();
        self.buffered_events = 0;
        self.buffered_batches = 0;
        self.unmarked_since = None;
        self.written = self.marked;
        self.rendered = self.marked;
        self.form.go_back();
        for (lane, next) in self.marked.next.into_iter().enumerate() {
            self.feed.items.seek(lane, next);
        }
    }
}
