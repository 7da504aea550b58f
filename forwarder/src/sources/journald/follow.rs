//! The source's own thread: begins where the position says, follows the journal, and begins again when the tool ends.
//!
//! A cursor is looked for before it is trusted: asked for one that it does not have, `journalctl` goes to some near place without a word. It is
//! also what the run itself begins with (`--cursor`, not `--after-cursor`), so that the entry behind it is neither skipped nor taken
//! twice. Where searching fails, because a damaged file cannot be bisected, the journal is read from its oldest entry up to the cursor.
//! `--merge`: without it `--follow` shows the present boot alone.

use std::{
    ffi::OsString,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    config::{JournaldConfig, StartAt},
    entry::Known,
    export::{Entry, cursor},
    position::Position,
    tool::{Control, Ended, Said, Tool, ToolError, lock},
};
use crate::sources::feed::{Closed, Feed};

/// A tool that ended is started again after this long, then after twice as long, …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this. What it gave an entry in between begins anew.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// Its complaints are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// While no entry is wanted, how far the journal was read is said this often.
const PASS_EVERY: Duration = Duration::from_secs(5);
/// What an item takes beside its bytes, about.
const ITEM_BYTES: usize = 96;

/// What the thread says to the reader, in order.
#[derive(Debug)]
pub(super) enum Item {
    /// The source was started for the first time: this is where it begins.
    Begun(Position),
    Entry(Entry),
    /// Entries up to this cursor were passed over.
    Passed(String),
    /// The cursor is no longer in the journal; what comes next is the oldest entry.
    Lost,
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        ITEM_BYTES
            + match self {
                Item::Entry(entry) => entry.bytes.len(),
                Item::Passed(cursor) => cursor.len(),
                Item::Begun(_) | Item::Lost => 0,
            }
    }
}

/// What the thread shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Why no entries come; `None`: they do.
    pub(super) trouble: Option<String>,
    /// Since when the tool follows.
    pub(super) running_since: Option<Instant>,
}

/// See the module.
pub(super) struct Follow {
    config: JournaldConfig,
    tool: Tool,
    control: Arc<Control>,
    feed: Arc<Feed<Item>>,
    said: Arc<Mutex<Said>>,
    shown: Arc<Mutex<Shown>>,
    begun: bool,
    /// The entry that was given to the reader last.
    cursor: Option<String>,
    /// Entries given or passed over, to see whether the tool got on.
    got_on: u64,
    troubled: bool,
    logged: Option<Instant>,
}

/// Where the tool is to begin.
enum From {
    Oldest,
    /// At the entry with the cursor, found by searching.
    Cursor,
    /// At the entry with the cursor, which searching does not find: entries before it are left out.
    OldestUpToCursor,
}

impl Follow {
    pub(super) fn new(
        config: JournaldConfig,
        position: Option<&Position>,
        control: Arc<Control>,
        feed: Arc<Feed<Item>>,
        said: Arc<Mutex<Said>>,
        shown: Arc<Mutex<Shown>>,
    ) -> Follow {
        let tool = Tool {
            program: config.journalctl.clone(),
            directory: config.directory.clone(),
        };
        Follow {
            config,
            tool,
            control,
            feed,
            said,
            shown,
            begun: position.is_some(),
            cursor: position.and_then(|position| position.cursor.clone()),
            got_on: 0,
            troubled: false,
            logged: None,
        }
    }

    /// Runs until it is stopped or nobody reads any more.
    pub(super) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.got_on;
            let result = self.follow();
            if self.control.is_stopped() {
                return;
            }
            if self.got_on != before {
                pause = FIRST_PAUSE;
            }
            match result {
                Ok(()) => return,
                Err(error) => self.complain(&error),
            }
            if self.control.pause(pause) {
                return;
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn complain(&mut self, error: &ToolError) {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        if self
            .logged
            .is_none_or(|logged| logged.elapsed() >= LOG_EVERY)
        {
            tracing::warn!(source = %self.config.name, error = text, "the journal cannot be followed: tried again");
            self.logged = Some(Instant::now());
        }
        self.troubled = true;
        let mut shown = lock(&self.shown);
        shown.trouble = Some(text);
        shown.running_since = None;
    }

    /// Returns when it is stopped or nobody reads any more.
    fn follow(&mut self) -> Result<(), ToolError> {
        if !self.begun && self.begin()?.is_break() {
            return Ok(());
        }
        let from = self.from()?;
        let mut arguments = Arguments::new(&["--follow", "--no-tail"]);
        if let (From::Cursor, Some(cursor)) = (&from, &self.cursor) {
            arguments.push("--cursor=", cursor);
        }
        // Entries up to and with this one were taken before.
        let mut until = match from {
            From::Oldest => None,
            From::Cursor | From::OldestUpToCursor => self.cursor.clone(),
        };
        let must_be_first = matches!(from, From::Cursor);
        let (mut moved, mut closed) = (false, false);
        let mut passed = Instant::now();
        let (control, tool, said) = (
            Arc::clone(&self.control),
            self.tool.clone(),
            Arc::clone(&self.said),
        );
        lock(&self.shown).running_since = Some(Instant::now());
        let ended = control.run(
            &tool,
            &arguments.0,
            self.config.max_record,
            &said,
            |entry| {
                let Some(at) = cursor(&entry.bytes) else {
                    return ControlFlow::Continue(());
                };
                if let Some(last) = &until {
                    if last == at {
                        until = None;
                    } else if must_be_first {
                        // Gone since it was looked for.
                        moved = true;
                        return ControlFlow::Break(());
                    }
                    return ControlFlow::Continue(());
                }
                match self.take(at.to_owned(), entry, &mut passed) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(Closed) => {
                        closed = true;
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
        match ended {
            Ended::Stopped => Ok(()),
            Ended::Enough if closed => Ok(()),
            Ended::Enough if moved => Err(ToolError::Moved),
            Ended::Enough | Ended::Whole => Err(ToolError::Quit),
        }
    }

    fn take(&mut self, at: String, entry: Entry, passed: &mut Instant) -> Result<(), Closed> {
        if std::mem::take(&mut self.troubled) {
            lock(&self.shown).trouble = None;
        }
        self.got_on += 1;
        if self.wants(&entry) {
            self.push(Item::Entry(entry))?;
        } else if passed.elapsed() >= PASS_EVERY {
            *passed = Instant::now();
            self.push(Item::Passed(at.clone()))?;
        }
        self.cursor = Some(at);
        Ok(())
    }

    fn wants(&self, entry: &Entry) -> bool {
        if self.config.units.is_none() && self.config.min_priority.is_none() {
            return true;
        }
        let known = Known::of(&entry.bytes);
        let severe = match (self.config.min_priority, known.priority) {
            (Some(most), Some(priority)) => priority <= most,
            _ => true,
        };
        severe
            && self
                .config
                .units
                .as_ref()
                .is_none_or(|units| known.is_of(units))
    }

    fn push(&self, item: Item) -> Result<(), Closed> {
        let bytes = item.bytes();
        self.feed.push(item, bytes)
    }

    /// The first start ever: what is there now was there before.
    fn begin(&mut self) -> Result<ControlFlow<()>, ToolError> {
        let mut newest = None;
        let arguments = Arguments::new(&["--lines=1", "--quiet"]);
        if let Ended::Stopped = self.ask(&arguments, &Mutex::default(), |entry| {
            newest = Some(entry);
            ControlFlow::Continue(())
        })? {
            return Ok(ControlFlow::Break(()));
        }
        let newest = newest.as_ref().map(|entry| &entry.bytes[..]);
        let mut position = Position {
            cursor: None,
            backfill_until: i64::MIN,
        };
        match self.config.start_at {
            StartAt::Beginning => {
                let written = newest.and_then(|newest| Known::of(newest).written_micros);
                position.backfill_until = written.unwrap_or(i64::MIN);
            }
            StartAt::End => position.cursor = newest.and_then(cursor).map(str::to_owned),
        }
        self.cursor.clone_from(&position.cursor);
        if self.push(Item::Begun(position)).is_err() {
            return Ok(ControlFlow::Break(()));
        }
        self.begun = true;
        Ok(ControlFlow::Continue(()))
    }

    /// Looks for the cursor.
    fn from(&mut self) -> Result<From, ToolError> {
        let Some(last) = self.cursor.clone() else {
            return Ok(From::Oldest);
        };
        let said = Mutex::new(Said::default());
        let mut arguments = Arguments::new(&["--lines=1", "--quiet"]);
        arguments.push("--cursor=", &last);
        let mut found = false;
        let ended = self.ask(&arguments, &said, |entry| {
            found = cursor(&entry.bytes) == Some(&last);
            ControlFlow::Break(())
        });
        match ended {
            Err(ToolError::Ended { said, .. }) if said.contains("Failed to seek to cursor") => {}
            Err(error) => return Err(error),
            Ok(_) if found && !lock(&said).left_out => return Ok(From::Cursor),
            Ok(_) => {}
        }
        let (mut found, mut any) = (false, false);
        let arguments = Arguments::new(&["--quiet", "--output-fields=PRIORITY"]);
        let ended = self.ask(&arguments, &Mutex::default(), |entry| {
            any = true;
            found = cursor(&entry.bytes) == Some(&last);
            if found {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        match ended {
            Ended::Stopped => Ok(From::Oldest),
            _ if found => Ok(From::OldestUpToCursor),
            // An empty journal has lost nothing that could be told from one that is not mounted yet.
            _ if !any => Err(ToolError::Empty),
            _ => {
                if self.push(Item::Lost).is_ok() {
                    self.cursor = None;
                }
                Ok(From::Oldest)
            }
        }
    }

    fn ask(
        &self,
        arguments: &Arguments,
        said: &Mutex<Said>,
        take: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Ended, ToolError> {
        self.control
            .run(&self.tool, &arguments.0, self.config.max_record, said, take)
    }
}

/// Arguments of the tool.
struct Arguments(Vec<OsString>);

impl Arguments {
    fn new(fixed: &[&str]) -> Arguments {
        Arguments(fixed.iter().map(OsString::from).collect())
    }

    fn push(&mut self, option: &str, value: &str) {
        self.0.push(format!("{option}{value}").into());
    }
}

/// The default of `journalctl`.
pub(crate) fn default_tool() -> PathBuf {
    PathBuf::from("journalctl")
}
