//! The child process: started, read to its end, ended and reaped. Never two at a time.
//!
//! No `PR_SET_PDEATHSIG`: setting it in a child takes `unsafe`. It is not needed: `journalctl` watches its standard output and ends when nobody
//! holds the other end any more, however we went.

use std::{
    ffi::OsString,
    io::{self, Read},
    ops::ControlFlow,
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::export::{Entry, FormatError, Parser};

/// Read from the child at once.
const BLOCK_BYTES: usize = 64 << 10;
/// How long a child may take to end once it has closed its pipes.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// Kept of one line of what the tool says.
const LINE_BYTES: usize = 512;

/// Why the tool gave no more entries. What it gave before is sound; the source goes on behind that when it is started again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot read from journalctl")]
    Read(#[source] io::Error),
    #[error("what journalctl writes is not the export format")]
    Format(#[source] FormatError),
    #[error("journalctl ended: {status}{}{}", if said.is_empty() { "" } else { ": " }, said)]
    Ended { status: ExitStatus, said: String },
    #[error("journalctl ended by itself")]
    Quit,
    #[error("the journal moved on while it was opened")]
    Moved,
    #[error("the journal is empty")]
    Empty,
}

/// What one run of the tool came to.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself, with success.
    Whole,
    /// Its entries were no longer wanted.
    Enough,
    /// The source is to stop.
    Stopped,
}

/// How the tool is called.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) program: PathBuf,
    pub(super) directory: Option<PathBuf>,
}

/// What the tool said about damage while it ran.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The last complaint.
    pub(super) last: String,
    /// A file could not be searched, and was left out.
    pub(super) left_out: bool,
    /// How often something was damaged, and what was said of it first.
    pub(super) damaged: u64,
    pub(super) first: String,
}

/// Starts and ends children. Shared by the source and its thread.
#[derive(Debug, Default)]
pub(super) struct Control {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    child: Option<Child>,
}

impl Control {
    /// Ends the child that runs, if one does, and lets none be started any more.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(child) = &mut state.child {
            let _ = child.kill();
        }
        self.stopped.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Waits; `true`: the source is to stop.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let state = self.state();
        let waited = self
            .stopped
            .wait_timeout_while(state, time, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// Runs the tool and gives each of its entries to `take`, until that breaks or the tool ends. It has ended and is reaped when this
    /// returns. `said` is called for what it says about itself, from another thread.
    pub(super) fn run(
        &self,
        tool: &Tool,
        arguments: &[OsString],
        max_record: usize,
        said: &Mutex<Said>,
        mut take: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Ended, ToolError> {
        let Some((stdout, stderr)) = self.start(tool, arguments)? else {
            return Ok(Ended::Stopped);
        };
        let taken = thread::scope(|scope| {
            scope.spawn(|| listen(stderr, said));
            let taken = read(stdout, max_record, &mut take);
            if !matches!(taken, Ok(ControlFlow::Continue(()))) {
                self.kill();
            }
            taken
        });
        let status = self.reap();
        if self.is_stopped() {
            return Ok(Ended::Stopped);
        }
        match (taken?, status) {
            (ControlFlow::Break(()), _) => Ok(Ended::Enough),
            (ControlFlow::Continue(()), Some(status)) if !status.success() => {
                Err(ToolError::Ended {
                    status,
                    said: lock(said).last.clone(),
                })
            }
            (ControlFlow::Continue(()), _) => Ok(Ended::Whole),
        }
    }

    fn start(
        &self,
        tool: &Tool,
        arguments: &[OsString],
    ) -> Result<Option<(ChildStdout, ChildStderr)>, ToolError> {
        let mut command = Command::new(&tool.program);
        command.args(["--output=export", "--no-pager", "--merge"]);
        if let Some(directory) = &tool.directory {
            let mut argument = OsString::from("--directory=");
            argument.push(directory);
            command.arg(argument);
        }
        command.args(arguments);
        command.env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // It says that something is damaged only when asked for everything; each line then begins with its level.
        command.envs([
            ("LANG", "C"),
            ("SYSTEMD_LOG_LEVEL", "debug"),
            ("SYSTEMD_LOG_TARGET", "console-prefixed"),
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut state = self.state();
        if state.stopped {
            return Ok(None);
        }
        let started = command.spawn().map_err(|source| ToolError::Start {
            program: tool.program.clone(),
            source,
        });
        let child = state.child.insert(started?);
        Ok(child.stdout.take().zip(child.stderr.take()))
    }

    fn kill(&self) {
        if let Some(child) = &mut self.state().child {
            let _ = child.kill();
        }
    }

    /// Its pipes are at their end, so it has ended or is about to; one that does not within [`LAST_BREATH`] is ended.
    fn reap(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        let until = Instant::now() + LAST_BREATH;
        loop {
            match state.child.as_mut()?.try_wait() {
                Ok(None) if state.stopped || Instant::now() >= until => break,
                Ok(None) => {}
                Ok(Some(status)) => {
                    state.child = None;
                    return Some(status);
                }
                Err(_) => break,
            }
            let waited = self.stopped.wait_timeout(state, Duration::from_millis(2));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut child = state.child.take()?;
        let _ = child.kill();
        child.wait().ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Entries from standard output, until it ends or `take` breaks.
fn read(
    mut stdout: ChildStdout,
    max_record: usize,
    take: &mut impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ToolError> {
    let mut parser = Parser::new(max_record);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = match stdout.read(&mut block) {
            Ok(0) => return Ok(ControlFlow::Continue(())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ToolError::Read(error)),
        };
        let mut input = &block[..read];
        while let Some(entry) = parser.next(&mut input).map_err(ToolError::Format)? {
            if take(entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

/// Lines from standard error, each cut at [`LINE_BYTES`], until it ends.
fn listen(mut stderr: ChildStderr, said: &Mutex<Said>) {
    let mut block = [0; 4096];
    let mut line = Vec::new();
    loop {
        let read = match stderr.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        for &byte in &block[..read] {
            if byte == b'\n' {
                lock(said).take(&line);
                line.clear();
            } else if line.len() < LINE_BYTES {
                line.push(byte);
            }
        }
    }
    lock(said).take(&line);
}

impl Said {
    /// One line, like `<31>Entry item 3 is bad, skipping over it.`: facility and level, then what it says.
    fn take(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let (level, text) = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some((level, text)) => (level.parse().map_or(4, |level: u16| level & 7), text.trim()),
            None => (4, line.trim()),
        };
        let left_out = text.contains("Can't iterate through");
        if left_out || text.contains("bad, skipping over it") || text.contains("ignoring file") {
            if self.damaged == 0 {
                text.clone_into(&mut self.first);
            }
            self.damaged += 1;
            self.left_out |= left_out;
        }
        if level <= 4 && !text.is_empty() {
            text.clone_into(&mut self.last);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_chatter_and_complaints() {
        let mut said = Said::default();
        said.take(b"<31>File /x/a.journal added.");
        said.take(b"");
        assert_eq!((said.damaged, said.last.as_str()), (0, ""));
        said.take(b"<31>Entry item 3 is bad, skipping over it.");
        said.take(b"<31>Journal file /x/b.journal is truncated, ignoring file.");
        assert_eq!((said.damaged, said.left_out), (2, false));
        said.take(b"<27>Failed to open /x: No such file or directory");
        assert_eq!(said.last, "Failed to open /x: No such file or directory");
        said.take(b"<31>Can't iterate through /x/a.journal, ignoring: Bad message");
        assert!(said.left_out);
        assert_eq!(said.first, "Entry item 3 is bad, skipping over it.");
    }
}
