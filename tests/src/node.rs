//! One place of the line: a program with its configuration, certificate and data, started and stopped many times.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    http::{self, Answer},
    lab::{Journal, Lab, Role},
    process::{Finished, Process, Program},
    waiting::{DEADLINE, wait_for},
};

/// A configuration as a test changes it: tables in order, each with its keys.
#[derive(Debug, Clone, Default)]
pub struct Toml {
    tables: Vec<(String, Vec<(String, Value)>)>,
}

impl Toml {
    /// Sets a key of the last table with this header (`[spool]`, `[[source]]`), which is added if there is none.
    pub fn set(&mut self, header: &str, key: &str, value: impl serde::Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        let place = self
            .tables
            .iter()
            .rposition(|(present, _)| present == header);
        let place = place.unwrap_or_else(|| {
            self.table(header);
            self.tables.len() - 1
        });
        let keys = &mut self.tables[place].1;
        match keys.iter_mut().find(|(present, _)| present == key) {
            Some((_, present)) => *present = value,
            None => keys.push((key.to_owned(), value)),
        }
    }

    /// Adds a table, also where one with this header is.
    pub fn table(&mut self, header: &str) {
        self.tables.push((header.to_owned(), Vec::new()));
    }

    /// Takes a key away.
    pub fn remove(&mut self, header: &str, key: &str) {
        for (_, keys) in self
            .tables
            .iter_mut()
            .filter(|(present, _)| present == header)
        {
            keys.retain(|(present, _)| present != key);
        }
    }

    /// As text. Strings, numbers, booleans and arrays of them are written alike in JSON and TOML.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (header, keys) in &self.tables {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{header}");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }
}

/// One place of the line.
#[derive(Debug)]
pub struct Node {
    /// Of the certificate and of its folder in the lab.
    pub name: String,
    /// Written to disk at each start.
    pub config: Toml,
    program: Program,
    directory: PathBuf,
    health: SocketAddr,
    ingest: Option<SocketAddr>,
    process: Option<Process>,
    journal: Journal,
    starts: usize,
}

impl Node {
    pub(crate) fn new(
        lab: &Lab,
        program: Program,
        role: Role,
        name: &str,
        mut config: Toml,
    ) -> Result<Node> {
        let directory = lab.path(name);
        fs::create_dir(&directory).with_context(|| format!("make the folder of {name}"))?;
        lab.issue("pki", role, name, &directory)?;
        config.set("[identity]", "certificate", format!("{name}.pem"));
        config.set("[identity]", "private_key", format!("{name}.key"));
        config.set("[identity]", "trust_anchors", "ca.pem");
        config.set("[identity]", "revocations", lab.path("pki/crl.pem"));
        let health = lab.new_address();
        config.set("[health]", "listen", health);
        let ingest = match program {
            Program::Forwarder => None,
            Program::Collector => Some(lab.new_address()),
        };
        if let Some(ingest) = ingest {
            config.set("[ingest]", "listen", ingest);
        }
        let name = name.to_owned();
        Ok(Node {
            name,
            config,
            program,
            directory,
            health,
            ingest,
            process: None,
            journal: lab.journal(),
            starts: 0,
        })
    }

    /// A path in its folder, which relative paths of its configuration are relative to.
    #[must_use]
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.join(relative)
    }

    /// Where it listens for the hop before it.
    #[must_use]
    pub fn url(&self) -> String {
        self.ingest
            .map_or_else(String::new, |address| format!("https://{address}"))
    }

    /// Where it listens for the hop before it.
    ///
    /// # Errors
    /// It is a forwarder.
    pub fn ingest(&self) -> Result<SocketAddr> {
        self.ingest.context("a forwarder does not listen")
    }

    /// Where its configuration is.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Writes its configuration without starting it.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write_config(&self) -> Result<()> {
        fs::write(self.config_path(), self.config.render()).context("write a configuration")
    }

    /// Runs a subcommand with its configuration.
    ///
    /// # Errors
    /// It could not be run; its exit code is the caller's to judge.
    pub fn command(&self, arguments: &[&str]) -> Result<Finished> {
        let config = self.config_path();
        let config = config.to_str().context("a path that is not UTF-8")?;
        self.program
            .run(arguments.iter().copied().chain(["--config", config]))
    }

    /// Starts it; does not wait for anything.
    ///
    /// # Errors
    /// It could not be started, or runs already.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        self.write_config()?;
        self.starts += 1;
        let name = format!("{} (start {})", self.name, self.starts);
        self.process = Some(Process::start(&name, self.program, &self.config_path())?);
        Ok(())
    }

    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    /// It did not before the deadline.
    pub fn start_ready(&mut self) -> Result<()> {
        self.start()?;
        self.wait_ready()
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// It did not before the deadline, or ended.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_for_readiness(200)
    }

    /// Waits until `/readyz` answers 503.
    ///
    /// # Errors
    /// It did not before the deadline, or ended.
    pub fn wait_not_ready(&mut self) -> Result<()> {
        self.wait_for_readiness(503)
    }

    fn wait_for_readiness(&mut self, status: u16) -> Result<()> {
        let health = self.health;
        let name = self.name.clone();
        let process = self.process()?;
        let what = format!("/readyz of {name} to answer {status}");
        let ran = wait_for(&what, DEADLINE, || {
            if !process.is_running()? {
                return Ok(Some(false));
            }
            let answer = http::get(health, "/readyz")?;
            ensure!(
                answer.status == status,
                "it answers {} {}",
                answer.status,
                answer.body
            );
            Ok(Some(true))
        })?;
        ensure!(ran, "{name} has ended while it was waited for");
        Ok(())
    }

    /// GET from its health endpoint.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn get(&self, path: &str) -> Result<Answer> {
        http::get(self.health, path)
    }

    /// `/status`, parsed.
    ///
    /// # Errors
    /// Nobody answers, or not with JSON.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.get("/status")?.body).context("/status is not JSON")
    }

    /// The sum of a metric's samples whose labels hold all of `labels` (written `lane="alert"`); 0 where there is none.
    ///
    /// # Errors
    /// Nobody answers, or not with metrics.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let mut sum = 0.0;
        for line in self
            .get("/metrics")?
            .body
            .lines()
            .filter(|line| !line.starts_with('#'))
        {
            let Some(rest) = line.strip_prefix(name) else {
                continue;
            };
            if !rest.starts_with(['{', ' ']) || !labels.iter().all(|label| rest.contains(label)) {
                continue;
            }
            let (_, value) = rest.rsplit_once(' ').context("a sample without value")?;
            sum += value
                .parse::<f64>()
                .context("a sample that is not a number")?;
        }
        Ok(sum)
    }

    /// The running process.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process
            .as_mut()
            .with_context(|| format!("{} does not run", self.name))
    }

    /// Whether a test has started it and not stopped it.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It does not run, or had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        let process = self
            .process
            .take()
            .with_context(|| format!("{} does not run", self.name))?;
        let lines = process.kill()?;
        self.journal.add(
            &format!("{} (start {}, killed)", self.name, self.starts),
            lines,
        );
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process()?.signal(Signal::TERM)?;
        self.wait_ended()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn wait_ended(&mut self) -> Result<ExitStatus> {
        let status = self.process()?.wait()?;
        self.retire(&format!("ended with {status}"));
        Ok(status)
    }

    /// [`Node::terminate`], which must end with exit code 0. Waits for its first word first: a process that has only just been started ends by the
    /// signal itself.
    ///
    /// # Errors
    /// Another exit code, or none.
    pub fn stop(&mut self) -> Result<()> {
        let what = format!("a word of {}", self.name);
        let process = self.process()?;
        wait_for(&what, DEADLINE, || {
            let listens = !process.log().is_empty() || !process.is_running()?;
            Ok(listens.then_some(()))
        })?;
        let status = self.terminate()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    fn retire(&mut self, how: &str) {
        if let Some(process) = self.process.take() {
            self.journal.add(
                &format!("{} (start {}, {how})", self.name, self.starts),
                process.log(),
            );
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.retire("still running at the end");
    }
}
