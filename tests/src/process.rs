//! A program as a process: started, watched through its log, killed by its own id.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::waiting::{DEADLINE, wait_for, wait_until};

/// The two programs under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `watchline-forwarder`
    Forwarder,
    /// `watchline-collector`
    Collector,
}

impl Program {
    /// Where cargo put it: in the target directory that this test program itself lies in.
    ///
    /// # Errors
    /// It has not been built.
    pub fn path(self) -> Result<PathBuf> {
        let name = match self {
            Program::Forwarder => "watchline-forwarder",
            Program::Collector => "watchline-collector",
        };
        let mut folder = env::current_exe().context("find this test program")?;
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        let path = folder.join(name);
        ensure!(
            path.is_file(),
            "{} has not been built: run tests/run, or cargo build --workspace",
            path.display()
        );
        Ok(path)
    }

    /// A command line of this program, with nothing of the test's own environment that would change what it does.
    ///
    /// # Errors
    /// It has not been built.
    pub fn command<I: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Result<Command> {
        let mut command = Command::new(self.path()?);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("CREDENTIALS_DIRECTORY");
        Ok(command)
    }

    /// Runs a command that ends by itself.
    ///
    /// # Errors
    /// It could not be started, or did not end before the deadline (then it is killed).
    pub fn run<I: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = I>) -> Result<Finished> {
        let mut child = self
            .command(arguments)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        let ended = wait_for("a command to end", DEADLINE, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill().context("kill a command that does not end")?;
            child.wait().context("wait for a killed command")?;
        }
        let (stdout, stderr) = (join(out), join(err));
        let status = ended.with_context(|| format!("it said: {stdout}{stderr}"))?;
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks ends what was said; what came before still counts.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn join(thread: JoinHandle<String>) -> String {
    thread.join().unwrap_or_default()
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// Its exit code; -1 if a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Itself, if the exit code is `code`.
    ///
    /// # Errors
    /// It is another one; the error tells all that the command said.
    pub fn expect_code(self, code: i32) -> Result<Finished> {
        ensure!(
            self.code() == code,
            "exit code {} instead of {code}\n--- stdout\n{}--- stderr\n{}",
            self.code(),
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

/// A running program. Killed, by its id, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program run --config config`; what it logs is kept.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(name: &str, program: Program, config: &Path) -> Result<Process> {
        let mut command = program.command([
            OsStr::new("run"),
            OsStr::new("--config"),
            config.as_os_str(),
        ])?;
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().context("standard error of a child")?;
        let reader = thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    locked(&lines).push(String::from_utf8_lossy(&line).into_owned());
                }
            }
        });
        Ok(Process {
            name: name.to_owned(),
            child,
            lines,
            reader: Some(reader),
        })
    }

    /// The operating system's number for it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }

    /// Waits until a line of its log holds `text`.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_until(&format!("{:?} in the log of {}", text, self.name), || {
            Ok(locked(&self.lines).iter().any(|line| line.contains(text)))
        })
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It had ended by itself: no program of the line may.
    pub fn kill(mut self) -> Result<Vec<String>> {
        if let Some(status) = self.child.try_wait()? {
            self.finish_log();
            anyhow::bail!("{} had ended by itself with {status}", self.name);
        }
        self.child.kill()?;
        self.child.wait()?;
        self.finish_log();
        Ok(self.log())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It did not before the deadline.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let status = wait_for(&format!("{} to end", self.name), DEADLINE, || {
            Ok(self.child.try_wait()?)
        })?;
        self.finish_log();
        Ok(status)
    }

    fn finish_log(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has already said so.
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is fine; there is nobody to tell of anything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish_log();
    }
}

fn locked(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
