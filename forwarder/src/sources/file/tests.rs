//! A source against a directory, with a state that is committed or lost as a spool's frame would be.

mod audit;
mod away;
mod cuts;
mod framing;
mod identity;
mod lines;
mod packed;
mod random;
mod rotation;
mod rules;
mod scale;
mod start;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
};

use bytes::Bytes;
use proptest::prelude::*;
use watchline_proto::{
    Lane,
    payload::{Payload, PayloadOpener},
};

use super::{
    state::{first_start_key, positions_prefix, read_position},
    *,
};
use crate::{
    batch::{Batch, Moment},
    lanes::AlertRule,
    sources::Buffers,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    lane: Lane,
    path: String,
    body: Vec<u8>,
    time: Option<i64>,
    severity: u8,
    attributes: Vec<(String, String)>,
}

impl Record {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One host: its directory, what is stored, what has been sealed.
struct Host {
    dir: tempfile::TempDir,
    config: FileConfig,
    rules: Vec<AlertRule>,
    /// Events by the name of the rule that dropped or masked them.
    filtered: BTreeMap<String, u64>,
    lanes: Lanes,
    source: Option<FileSource>,
    state: BTreeMap<Bytes, Bytes>,
    sealed: Vec<Record>,
    now: Moment,
    /// Open files of the source, where they are fewer than usual.
    max_open: Option<usize>,
    /// The clock is what the test says.
    clock_stands: bool,
}

const BATCH_BYTES: usize = 64 << 10;

impl Host {
    fn new(patterns: &[&str]) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let paths = patterns
            .iter()
            .map(|pattern| format!("{}/{pattern}", dir.path().display()));
        let config = FileConfig {
            name: "s".into(),
            common: Common::default(),
            paths: paths
                .map(|path| PathPattern::parse(&path).unwrap())
                .collect(),
            exclude: Excludes::none(),
            start_at: StartAt::Beginning,
            max_record: 1024,
            idle_flush: Duration::from_secs(5),
            encoding: Encodings::All(Encoding::Utf8),
            multiline: None,
            ignore_older: None,
            time: Times::Auto,
            max_held: 1 << 30,
            records: Records::Lines,
        };
        let (rules, lanes, source) = (Vec::new(), Lanes::new(Vec::new()), None);
        Host {
            dir,
            config,
            rules,
            filtered: BTreeMap::new(),
            lanes,
            source,
            state: BTreeMap::new(),
            sealed: Vec::new(),
            now: Moment::now(),
            max_open: None,
            clock_stands: false,
        }
    }

    /// One that was started before, so that nothing is backfill.
    fn running(patterns: &[&str]) -> Host {
        let mut host = Host::new(patterns);
        host.turn();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn truncate(&self, name: &str) {
        OpenOptions::new()
            .write(true)
            .open(self.path(name))
            .unwrap()
            .set_len(0)
            .unwrap();
    }

    fn source(&mut self) -> FileSource {
        self.source.take().unwrap_or_else(|| {
            let prefix = positions_prefix("s");
            let positions = self.state.iter().filter_map(|(key, value)| {
                read_position(key.strip_prefix(prefix.as_bytes())?, value)
            });
            let started_before = self.state.contains_key(&first_start_key("s"));
            let own = Arc::new(OwnFiles::default());
            self.lanes = Lanes::new(self.rules.clone());
            let mut source = FileSource::new(
                SourceNo(0),
                self.config.clone(),
                own,
                &self.lanes,
                positions.collect(),
                started_before,
            );
            source.max_open = self.max_open.unwrap_or(source.max_open);
            source
        })
    }

    /// `app.log` becomes `app.log.1`, what was `app.log.1` becomes `app.log.2`, …
    fn rotate(&self, name: &str) {
        for n in (1..100).rev() {
            if self.path(&format!("{name}.{n}")).exists() {
                self.rename(&format!("{name}.{n}"), &format!("{name}.{}", n + 1));
            }
        }
        self.rename(name, &format!("{name}.1"));
    }

    /// Changes what is stored of the one file whose name is `name`.
    fn edit_position(&mut self, name: &str, change: impl FnOnce(&mut Position)) {
        let path = self.path(name);
        let mut stored = self.state.iter().filter_map(|(key, value)| {
            let position = Position::decode(value).ok()?;
            (position.name == path).then(|| (key.clone(), position))
        });
        let (key, mut position) = stored.next().unwrap();
        drop(stored);
        change(&mut position);
        self.state.insert(key, position.encode().into());
    }

    fn positions(&self) -> usize {
        let is_position = |key: &&Bytes| key.starts_with(b"position");
        self.state.keys().filter(is_position).count()
    }

    /// The source as it runs.
    fn running_source(&self) -> &FileSource {
        self.source.as_ref().unwrap()
    }

    /// The reasons of all gaps.
    fn reasons(&self) -> Vec<&str> {
        let reasons = self.gaps().into_iter();
        reasons
            .map(|gap| gap.attribute("watchline.gap.reason").unwrap())
            .collect()
    }

    /// A second passes, everything is looked at, everything is read and stored.
    fn turn(&mut self) {
        self.turn_until(usize::MAX);
    }

    /// As [`Host::turn`], but after so many frames whatever is in work is lost, as when the process is killed.
    fn turn_until(&mut self, frames: usize) {
        let mut source = self.source();
        let mut batch = Batch::new(BATCH_BYTES);
        let mut buffers = Buffers::default();
        self.now.at += Duration::from_secs(1);
        if !self.clock_stands {
            self.now.unix_nano = Moment::now().unix_nano.max(self.now.unix_nano);
        }
        let hints = Hints::default();
        let now = self.now;
        let mut intake = Intake {
            batch: &mut batch,
            lanes: &mut self.lanes,
            buffers: &mut buffers,
            now,
        };
        source.look(&hints, true, &mut intake);
        for _ in 0..frames {
            let mut more = true;
            while more && !batch.is_due() {
                let mut intake = Intake {
                    batch: &mut batch,
                    lanes: &mut self.lanes,
                    buffers: &mut buffers,
                    now,
                };
                more = source.read(&mut intake);
            }
            let mut state = Vec::new();
            source.moved(&mut state);
            if batch.is_empty() && state.is_empty() && !more {
                self.source = Some(source);
                return;
            }
            for (key, value) in state {
                match value {
                    Some(value) => drop(self.state.insert(key, value)),
                    None => drop(self.state.remove(&key)),
                }
            }
            for filtered in batch.take_filtered() {
                let name = filtered.filter.name.clone();
                *self.filtered.entry(name).or_default() += filtered.events;
            }
            for lane in Lane::ALL {
                let Some(payload) = batch.finish(lane, now) else {
                    continue;
                };
                self.seal(lane, &payload);
            }
        }
    }

    fn seal(&mut self, lane: Lane, payload: &Payload) {
        let opened = PayloadOpener::new()
            .open(&payload.bytes, &payload.info)
            .unwrap();
        self.sealed.extend(opened.events().map(|event| {
            Record {
                lane,
                path: event
                    .origin
                    .attributes
                    .iter()
                    .find(|(name, _)| name == "log.file.path")
                    .map_or(String::new(), |(_, path)| path.clone()),
                body: event.body.to_vec(),
                time: event.time_unix_nano,
                severity: event.severity,
                attributes: (event
                    .attributes
                    .iter()
                    .map(|&(name, value)| (name.to_owned(), value.to_owned())))
                .chain(event.origin.attributes.iter().cloned())
                .collect(),
            }
        }));
    }

    /// A second passes, everything is looked at, nothing is read: the spool is full.
    fn look(&mut self) {
        let mut source = self.source();
        let mut batch = Batch::new(BATCH_BYTES);
        self.now.at += Duration::from_secs(1);
        let mut intake = Intake {
            batch: &mut batch,
            lanes: &mut self.lanes,
            buffers: &mut Buffers::default(),
            now: self.now,
        };
        source.look(&Hints::default(), true, &mut intake);
        if let Some(payload) = batch.finish(Lane::Alert, self.now) {
            self.seal(Lane::Alert, &payload);
        }
        self.source = Some(source);
    }

    fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// The process is gone without a word, and starts again.
    fn restart(&mut self) {
        self.source = None;
    }

    fn gaps(&self) -> Vec<&Record> {
        self.sealed
            .iter()
            .filter(|record| record.attribute("event.name") == Some("watchline.gap"))
            .collect()
    }

    fn records(&self) -> Vec<&Record> {
        self.sealed
            .iter()
            .filter(|record| record.attribute("event.name").is_none())
            .collect()
    }

    fn bodies(&self) -> Vec<String> {
        self.records()
            .iter()
            .map(|record| String::from_utf8_lossy(&record.body).into_owned())
            .collect()
    }

    #[track_caller]
    fn expect(&self, bodies: &[&str]) {
        assert_eq!(self.bodies(), bodies);
        assert_eq!(self.gaps(), [] as [&Record; 0]);
    }
}
