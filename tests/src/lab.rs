//! A laboratory: one directory, one CA, one loopback address, and the nodes of one line.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use anyhow::Result;
use rand::RngExt;
use tempfile::TempDir;

use crate::{
    node::{Node, Toml},
    process::{Finished, Program},
    seed::Seed,
};

/// The trust domain of every lab.
pub const TRUST_DOMAIN: &str = "watch.test";
/// The agency that the hosts of a lab belong to unless a test says otherwise.
pub const AGENCY: &str = "moh";

/// What a certificate lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A forwarder of an agency.
    Forwarder(&'static str),
    /// A collector of an agency.
    Collector(&'static str),
    /// The centre.
    Center,
}

impl Role {
    fn arguments(self) -> Vec<&'static str> {
        match self {
            Role::Forwarder(agency) => vec!["--role", "forwarder", "--agency", agency],
            Role::Collector(agency) => vec!["--role", "collector", "--agency", agency],
            Role::Center => vec!["--role", "center"],
        }
    }
}

/// The logs of all processes that a lab started, for when its test fails.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Ended>>>);

/// A process that has ended: its name, and what it logged.
type Ended = (String, Vec<String>);

impl Journal {
    pub(crate) fn add(&self, name: &str, lines: Vec<String>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), lines));
    }

    fn print(&self) {
        const LINES: usize = 60;
        for (name, lines) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let skipped = lines.len().saturating_sub(LINES);
            eprintln!(
                "--- log of {name} ({} lines, {skipped} left out)",
                lines.len()
            );
            for line in &lines[skipped..] {
                eprintln!("{line}");
            }
        }
    }
}

/// One test's world. Everything in it is gone when the test has ended.
#[derive(Debug)]
pub struct Lab {
    directory: TempDir,
    address: Ipv4Addr,
    next_port: AtomicU16,
    seed: Seed,
    journal: Journal,
}

impl Lab {
    /// Runs a test in a new lab. When it fails, the logs of its processes are printed; `WATCHLINE_KEEP=1` keeps the directory.
    ///
    /// # Errors
    /// What the test returns, or that no CA could be made.
    pub fn run(test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
        let name = thread::current().name().unwrap_or("test").to_owned();
        let lab = Lab::new(&name)?;
        let printer = PrintOnPanic(lab.journal.clone());
        let result = test(&lab);
        drop(printer);
        if result.is_err() {
            lab.journal.print();
        }
        if std::env::var_os("WATCHLINE_KEEP").is_some() {
            eprintln!("{name}: kept {}", lab.directory.keep().display());
        }
        result
    }

    fn new(test: &str) -> Result<Lab> {
        let directory = tempfile::Builder::new()
            .prefix("watchline-e2e-")
            .tempdir()?;
        let mut random = rand::rng();
        let address = Ipv4Addr::new(
            127,
            random.random_range(16..=250),
            random.random_range(0..=255),
            random.random_range(1..=254),
        );
        let lab = Lab {
            directory,
            address,
            next_port: AtomicU16::new(20_001),
            seed: Seed::new(test),
            journal: Journal::default(),
        };
        fs::create_dir(lab.path("logs"))?;
        lab.new_ca("pki")?;
        Ok(lab)
    }

    /// A path in the lab's directory.
    #[must_use]
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// A log file in the lab's folder of logs.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(name)
    }

    /// What the test's random choices follow from.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// A new address to listen on. Nobody else does, also not while its process is dead: the lab has its loopback address to
    /// itself, and connections leave from 127.0.0.1.
    pub fn new_address(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.next_port.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes another CA, in a folder of the lab.
    ///
    /// # Errors
    /// `pki init` failed.
    pub fn new_ca(&self, folder: &str) -> Result<()> {
        self.pki([
            "init".into(),
            "--dir".into(),
            self.path(folder).into(),
            "--trust-domain".into(),
            TRUST_DOMAIN.into(),
        ])?
        .expect_code(0)?;
        Ok(())
    }

    /// Issues a certificate of the CA in folder `ca`, into the directory `out`.
    ///
    /// # Errors
    /// `pki issue` failed.
    pub fn issue(&self, ca: &str, role: Role, name: &str, out: &Path) -> Result<()> {
        let mut arguments: Vec<OsString> =
            vec!["issue".into(), "--dir".into(), self.path(ca).into()];
        arguments.extend(role.arguments().into_iter().map(OsString::from));
        arguments.extend(["--name".into(), name.into(), "--out".into(), out.into()]);
        self.pki(arguments)?.expect_code(0)?;
        Ok(())
    }

    /// `watchline-collector pki …`
    ///
    /// # Errors
    /// It could not be run; its exit code is the caller's to judge.
    pub fn pki(&self, arguments: impl IntoIterator<Item = OsString>) -> Result<Finished> {
        Program::Collector.run([OsString::from("pki")].into_iter().chain(arguments))
    }

    /// A forwarder of the lab's agency that tails `paths` (within the lab's folder of logs) and may dial `collectors`.
    ///
    /// # Errors
    /// Its certificate could not be issued.
    pub fn forwarder(&self, name: &str, collectors: &[&Node], paths: &[&str]) -> Result<Node> {
        let mut toml = Toml::default();
        let urls: Vec<String> = collectors.iter().map(|collector| collector.url()).collect();
        let paths: Vec<PathBuf> = paths.iter().map(|path| self.log(path)).collect();
        toml.set("[uplink]", "collectors", &urls);
        toml.set("[spool]", "directory", "spool");
        toml.set("[[source]]", "name", "app");
        toml.set("[[source]]", "kind", "file");
        toml.set("[[source]]", "paths", &paths);
        Node::new(
            self,
            Program::Forwarder,
            Role::Forwarder(AGENCY),
            name,
            toml,
        )
    }

    /// A collector of the lab's agency that relays to `centers`.
    ///
    /// # Errors
    /// Its certificate could not be issued.
    pub fn collector(&self, name: &str, centers: &[&Node]) -> Result<Node> {
        let mut toml = Toml::default();
        let urls: Vec<String> = centers.iter().map(|center| center.url()).collect();
        toml.set("[buffer]", "directory", "buffer");
        toml.set("[[output]]", "name", "center");
        toml.set("[[output]]", "kind", "upstream");
        toml.set("[[output]]", "endpoints", &urls);
        Node::new(
            self,
            Program::Collector,
            Role::Collector(AGENCY),
            name,
            toml,
        )
    }

    /// A centre that writes `events.ndjson`.
    ///
    /// # Errors
    /// Its certificate could not be issued.
    pub fn center(&self) -> Result<Node> {
        let mut toml = Toml::default();
        toml.set("[buffer]", "directory", "buffer");
        toml.set("[[output]]", "name", "events");
        toml.set("[[output]]", "kind", "file");
        toml.set("[[output]]", "path", "events.ndjson");
        toml.set("[[output]]", "format", "ndjson");
        Node::new(self, Program::Collector, Role::Center, "center", toml)
    }

    pub(crate) fn journal(&self) -> Journal {
        self.journal.clone()
    }
}

/// A test that fails by an assertion unwinds past the lab.
struct PrintOnPanic(Journal);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.print();
        }
    }
}
