//! The journal of systemd, by way of its own tool: `journalctl --output=export --follow`, one child process a source.
//!
//! ```text
//! journalctl ─pipe─▶ export ─▶ follow (a thread: restarts, cursor, filters) ─▶ feed ─▶ records
//! ```
//!
//! **The body** is the entry in the journal export format, the bytes that the tool wrote, without the empty line that ends an entry. So all
//! fields are kept, whatever they hold and however many there are: attributes are text, at most 64 of 4 KiB, and would lose what
//! matters most in evidence. What people look for first is in attributes beside it (`journald.message`, `journald._systemd_unit`, …), and a raw
//! output of such records is an export stream again, that `systemd-journal-remote` takes in.
//!
//! **Exact**: the cursor is stored in the frame that holds the entries up to it. After a restart the next entry is the one behind it: it is
//! looked for first, and a journal that no longer has it (vacuumed, replaced) is read from its oldest entry, with a gap `cursor_lost`. What
//! `journalctl` finds damaged is skipped and told (`damaged_journal`); the rest goes on. An entry longer than `max_record` is cut, flagged
//! and counted. Units and priorities are looked at here, not by the tool: its own matches drop the whole of a damaged file, and a filter that
//! changes would hide the cursor.
//!
//! **Not exact**: entries that were vacuumed between two runs are known by their cursor alone, not counted; how many entries a damaged
//! file held is not known. Damage is told by the tool's debug messages: a version that words them differently would skip in silence.
//!
//! Memory: the feed ([`FEED_BYTES`]), one entry more, and a block of the pipe; the tool maps the journal's files itself. A full feed makes the
//! tool wait.

mod config;
mod entry;
mod export;
mod follow;
mod position;
#[cfg(test)]
mod tests;
mod tool;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use watchline_spool::Spool;

pub(crate) use self::{
    config::{JournaldConfig, PRIORITIES, StartAt, Units},
    follow::default_tool,
};
use self::{
    entry::Known,
    export::Entry,
    follow::{Follow, Item, Shown},
    position::Position,
    tool::{Control, Said, lock},
};
use crate::{
    batch::SourceNo,
    gaps::{Gap, GapReason, path_text},
    hints::Hints,
    lanes::Lanes,
    sources::{
        FileStatus, FirstStart, Intake, Place, Record, Source, SourceConfig, SourceStatus,
        feed::{Feed, Waker},
    },
};

/// Entries that wait to be read.
const FEED_BYTES: usize = 1 << 20;
/// Items taken in one look, then the next source has its turn.
const ITEMS_A_READ: usize = 256;
/// Damage is told at once, then this often at most.
const TELL_DAMAGE_EVERY: Duration = Duration::from_secs(10);
/// A tool that has run for so long has no trouble, though no entry came.
const RUNS_WELL_AFTER: Duration = Duration::from_secs(5);

/// See the module. Belongs to the reader's thread.
pub(crate) struct JournaldSource {
    config: JournaldConfig,
    place: Place,
    waker: Waker,
    /// How far entries were taken; `None`: it was never started.
    position: Option<Position>,
    moved: bool,
    damage_told: Option<Instant>,
    first_start: FirstStart,
    running: Option<Running>,
}

/// The thread that follows, and what is shared with it.
struct Running {
    feed: Arc<Feed<Item>>,
    control: Arc<Control>,
    said: Arc<Mutex<Said>>,
    shown: Arc<Mutex<Shown>>,
    thread: Option<JoinHandle<()>>,
}

impl JournaldSource {
    /// Goes on where `spool` says that the source was.
    pub(crate) fn open(
        no: SourceNo,
        config: JournaldConfig,
        waker: Waker,
        lanes: &Lanes,
        spool: &Spool,
    ) -> JournaldSource {
        let position = position::stored(spool, &config.name);
        JournaldSource::new(no, config, waker, lanes, position)
    }

    fn new(
        no: SourceNo,
        config: JournaldConfig,
        waker: Waker,
        lanes: &Lanes,
        position: Option<Position>,
    ) -> JournaldSource {
        let mut source = JournaldSource {
            place: place(no, &config, lanes),
            config,
            waker,
            position,
            moved: false,
            damage_told: None,
            first_start: FirstStart::AsConfigured,
            running: None,
        };
        source.start();
        source
    }

    /// Follows from the position on.
    fn start(&mut self) {
        // Ends the one before, if there is one.
        self.running = None;
        let mut config = self.config.clone();
        if self.begins_at_end() {
            match self.first_start {
                FirstStart::Wait => return,
                FirstStart::AsConfigured => {}
                FirstStart::FromBeginning => config.start_at = StartAt::Beginning,
            }
        }
        let feed = Arc::new(Feed::new(FEED_BYTES, Arc::clone(&self.waker)));
        let (control, said, shown) = (
            Arc::<Control>::default(),
            Arc::<Mutex<Said>>::default(),
            Arc::<Mutex<Shown>>::default(),
        );
        let follow = Follow::new(
            config,
            self.position.as_ref(),
            Arc::clone(&control),
            Arc::clone(&feed),
            Arc::clone(&said),
            Arc::clone(&shown),
        );
        let thread = std::thread::Builder::new().name("journald".to_owned());
        let thread = match thread.spawn(move || follow.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                lock(&shown).trouble = Some(format!("cannot start a thread: {error}"));
                None
            }
        };
        self.running = Some(Running {
            feed,
            control,
            said,
            shown,
            thread,
        });
    }

    fn begins_at_end(&self) -> bool {
        self.position.is_none() && self.config.start_at == StartAt::End
    }

    /// One item; `false`: there is no room for it, it is to be offered again.
    fn take(&mut self, item: &Item, intake: &mut Intake<'_>) -> bool {
        match item {
            Item::Begun(position) => self.position = Some(position.clone()),
            Item::Passed(cursor) => self.advance(cursor),
            Item::Entry(entry) => return self.take_entry(entry, intake),
            Item::Lost => {
                let detail = "the entry that was taken last is no longer in the journal: it is read from its oldest entry";
                intake
                    .batch
                    .push_gap(&self.gap(GapReason::CursorLost, detail), intake.now);
                if let Some(position) = &mut self.position {
                    position.cursor = None;
                }
            }
        }
        self.moved = true;
        true
    }

    fn take_entry(&mut self, entry: &Entry, intake: &mut Intake<'_>) -> bool {
        let known = Known::of(&entry.bytes);
        let attributes: Vec<(&str, &str)> = known.attributes().collect();
        let backfill_until = self
            .position
            .as_ref()
            .map_or(i64::MIN, |position| position.backfill_until);
        let backfill = known
            .written_micros
            .is_some_and(|written| written <= backfill_until);
        let record = Record {
            body: &entry.bytes,
            cut_bytes: entry.beyond,
            time_unix_nano: known.time_unix_nano,
            severity: known.severity(),
            backfill,
            attributes: &attributes,
        };
        if !intake.take(&self.place, &record) {
            return false;
        }
        if let Some(position) = self.position.as_mut().filter(|_| !backfill) {
            // Should the clock step back, what is written from now on is new all the same.
            position.backfill_until = i64::MIN;
        }
        if let Some(cursor) = export::cursor(&entry.bytes) {
            self.advance(cursor);
        }
        self.moved = true;
        true
    }

    fn advance(&mut self, cursor: &str) {
        let position = self.position.get_or_insert_default();
        let last = position.cursor.get_or_insert_default();
        last.clear();
        last.push_str(cursor);
    }

    fn gap(&self, reason: GapReason, detail: impl Into<String>) -> Gap {
        Gap {
            source: Some(self.config.name.clone()),
            path: self.config.directory.as_deref().map(path_text),
            ..Gap::new(reason, detail)
        }
    }

    fn tell_damage(&mut self, intake: &mut Intake<'_>) {
        let due = self
            .damage_told
            .is_none_or(|told| intake.now.at.saturating_duration_since(told) >= TELL_DAMAGE_EVERY);
        let Some(running) = self.running.as_ref().filter(|_| due) else {
            return;
        };
        let (times, first) = {
            let mut said = lock(&running.said);
            (
                std::mem::take(&mut said.damaged),
                std::mem::take(&mut said.first),
            )
        };
        if times > 0 {
            let detail = format!("journalctl skipped what is damaged, {times} times: {first}");
            intake
                .batch
                .push_gap(&self.gap(GapReason::DamagedJournal, detail), intake.now);
            self.damage_told = Some(intake.now.at);
        }
    }
}

fn place(no: SourceNo, config: &JournaldConfig, lanes: &Lanes) -> Place {
    let name = (config.name.as_str(), "journald");
    Place::new(
        no,
        name,
        &config.common,
        Vec::new(),
        config.max_record,
        lanes,
    )
}

impl Source for JournaldSource {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reconfigure(&mut self, no: SourceNo, config: &SourceConfig, lanes: &Lanes) -> bool {
        let SourceConfig::Journald(config) = config else {
            return false;
        };
        self.place = place(no, config, lanes);
        if self.config != *config {
            self.config = config.clone();
            self.start();
        }
        true
    }

    fn begin(&mut self, first_start: FirstStart) {
        let changes = self.first_start != first_start;
        self.first_start = first_start;
        if changes && self.begins_at_end() {
            self.start();
        }
    }

    fn has_begun(&self) -> bool {
        self.position.is_some()
    }

    /// Entries come by themselves.
    fn look(&mut self, _: &Hints, tick: bool, intake: &mut Intake<'_>) {
        if !tick {
            return;
        }
        self.tell_damage(intake);
        let thread = self
            .running
            .as_ref()
            .and_then(|running| running.thread.as_ref());
        if self.running.is_some() && thread.is_none_or(JoinHandle::is_finished) && !self.is_ready()
        {
            tracing::error!(source = %self.config.name, "the thread that follows the journal has ended: started again");
            self.start();
        }
    }

    fn is_ready(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| !running.feed.is_empty())
    }

    fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        let Some(feed) = self
            .running
            .as_ref()
            .map(|running| Arc::clone(&running.feed))
        else {
            return false;
        };
        let mut some = false;
        for _ in 0..ITEMS_A_READ {
            let Some(item) = feed.pop() else {
                break;
            };
            some = true;
            if !self.take(&item, intake) {
                let bytes = item.bytes();
                feed.put_back(item, bytes);
                break;
            }
            if intake.batch.is_due() {
                break;
            }
        }
        some
    }

    fn owes_state(&self) -> bool {
        self.moved
    }

    fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        if let Some(position) = self.position.as_ref().filter(|_| self.moved) {
            state.push((position::key(&self.config.name), Some(position.encode())));
        }
        self.moved = false;
    }

    fn rewind(&mut self, spool: &Spool) {
        self.position = position::stored(spool, &self.config.name);
        self.moved = false;
        self.start();
    }

    /// What is not read stays in the journal.
    fn stop(&mut self) {
        self.running = None;
    }

    fn directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn status(&self) -> SourceStatus {
        let directory = self.config.directory.as_deref();
        let cursor = self
            .position
            .as_ref()
            .and_then(|position| position.cursor.as_deref());
        let journal = FileStatus {
            path: directory.map_or_else(|| "the journal of this host".to_owned(), path_text),
            offset: 0,
            size: 0,
            lag_bytes: 0,
            note: cursor.map(|cursor| format!("cursor {cursor}")),
        };
        SourceStatus {
            name: self.config.name.clone(),
            kind: "journald",
            followed: 1,
            files: vec![journal],
            trouble: self.running.as_ref().and_then(Running::trouble),
            ..SourceStatus::default()
        }
    }
}

impl Running {
    fn trouble(&self) -> Option<String> {
        let shown = lock(&self.shown);
        let well = shown
            .running_since
            .is_some_and(|since| since.elapsed() >= RUNS_WELL_AFTER);
        shown.trouble.clone().filter(|_| !well)
    }
}

/// Ends the child and waits for the thread, which has nothing else to wait for.
impl Drop for Running {
    fn drop(&mut self) {
        self.feed.close();
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
