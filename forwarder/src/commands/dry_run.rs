//! `check --dry-run`: the sources themselves, on a copy of the spool's state that lives in memory.
//!
//! Nothing is written: the spool's directory is read without its lock, so a running forwarder is not in the way and does not notice.

use std::{
    io::Write,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use watchline_proto::{Lane, payload::PayloadOpener};
use watchline_spool::{Frame, Options, RealDisk, Spool, is_spool, state_of, testing::FailingDisk};

use crate::{
    batch::{Batch, Moment},
    config::Config,
    hints::Hints,
    lanes::Lanes,
    metrics::Metrics,
    run::own_files,
    sources::{Buffers, Intake, Outside, SourceConfig, Sources},
};

/// A source with a thread of its own is given so long for its first records.
const WAIT: Duration = Duration::from_secs(2);
/// Looks after which a file source has found what is there.
const LOOKS: usize = 3;
/// Entries of the state in one frame.
const STATE_PER_FRAME: usize = 500;
/// Bytes of a body that are shown.
const SHOWN_BYTES: usize = 2000;

/// Writes what each source would read and send, `records` of each lane.
pub(super) fn show(config: &Config, records: usize, out: &mut impl Write) -> anyhow::Result<()> {
    let spool = copy_of_state(&config.spool.directory)?;
    let own = Arc::new(own_files(config));
    for source in &config.reloadable.sources {
        let (wake, woken) = mpsc::channel();
        let outside = Outside {
            own: Arc::clone(&own),
            waker: Arc::new(move || {
                // Nobody waits any more.
                let _ = wake.send(());
            }),
            metrics: Metrics::default(),
        };
        writeln!(out, "\n{} ({})", source.name(), source.kind())?;
        if let Some(listens_on) = source.listens_on() {
            writeln!(out, "  would listen on {}", listens_on.join(", "))?;
            continue;
        }
        let mut lanes = Lanes::new(config.reloadable.alerts.clone());
        let configs = std::slice::from_ref(source);
        let mut sources = Sources::open(configs, outside, &lanes, &spool);
        let mut batch = Batch::new(config.batch.max_bytes);
        read_some(&mut sources, &mut batch, &mut lanes, &woken, source, out)?;
        show_batch(&mut batch, records, out)?;
    }
    Ok(())
}

/// A spool in memory that holds the state of the one in `directory`, and nothing else.
fn copy_of_state(directory: &Path) -> anyhow::Result<Spool> {
    const MIB: u64 = 1 << 20;
    let disk: Arc<RealDisk> = Arc::new(RealDisk);
    let has_spool = directory.exists()
        && is_spool(&*disk, directory).with_context(|| format!("read {}", directory.display()))?;
    let state = if has_spool {
        state_of(disk, directory).context("read the spool")?
    } else {
        Default::default()
    };
    let options = Options {
        max_bytes: 256 * MIB,
        reserve_bytes: MIB,
        segment_bytes: 16 * MIB,
        ..Options::default()
    };
    // The disk of the spool's tests is one in memory; nothing of it fails unless it is told to.
    let memory = Arc::new(FailingDisk::new());
    let (mut spool, _) = Spool::open(memory, Path::new("/copy"), options)?;
    let state: Vec<_> = (state.into_iter())
        .map(|(key, value)| (key, Some(value)))
        .collect();
    for some in state.chunks(STATE_PER_FRAME) {
        spool.append(&Frame {
            state: some.to_vec(),
            ..Frame::default()
        })?;
    }
    Ok(spool)
}

/// Shows which files there are and how far they are read, then reads about a batch.
fn read_some(
    sources: &mut Sources,
    batch: &mut Batch,
    lanes: &mut Lanes,
    woken: &mpsc::Receiver<()>,
    config: &SourceConfig,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut buffers = Buffers::default();
    let mut intake = Intake {
        batch,
        lanes,
        buffers: &mut buffers,
        now: Moment::now(),
    };
    for _ in 0..LOOKS {
        sources.look(&Hints::default(), true, &mut intake);
    }
    for status in sources.status() {
        let by_bytes = matches!(config.kind(), "file" | "audit");
        if by_bytes {
            let unreadable = match status.unreadable {
                0 => String::new(),
                count => format!(", {count} of them cannot be read"),
            };
            writeln!(out, "  files that match: {}{unreadable}", status.followed)?;
        }
        for file in &status.files {
            write!(out, "  {}", file.path)?;
            if by_bytes {
                write!(out, "  read {} of {} bytes", file.offset, file.size)?;
            }
            if let Some(note) = &file.note {
                write!(out, "  {note}")?;
            }
            writeln!(out)?;
        }
        let more = status.followed.saturating_sub(status.files.len());
        if more > 0 {
            writeln!(out, "  and {more} more")?;
        }
        if let Some(trouble) = &status.trouble {
            writeln!(out, "  {trouble}")?;
        }
    }
    let until = Instant::now() + WAIT;
    loop {
        while sources.is_ready() && !intake.batch.is_due() && sources.read(&mut intake) {}
        let left = until.saturating_duration_since(Instant::now());
        let has_own_thread = config.kind() == "journald";
        if !has_own_thread || !intake.batch.is_empty() || woken.recv_timeout(left).is_err() {
            return Ok(());
        }
    }
}

fn show_batch(batch: &mut Batch, records: usize, out: &mut impl Write) -> anyhow::Result<()> {
    for lane in Lane::ALL {
        let Some(payload) = batch.finish(lane, Moment::now()) else {
            continue;
        };
        let opened = PayloadOpener::new()
            .open(&payload.bytes, &payload.info)
            .context("open what was packed")?;
        for event in opened.events().take(records) {
            let known = event.origin.attributes.iter();
            let known = known.map(|(name, value)| (name.as_str(), value.as_str()));
            let attributes: Map<String, Value> = known
                .chain(event.attributes.iter().copied())
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            let shown = &event.body[..event.body.len().min(SHOWN_BYTES)];
            let mut line = json!({
                "lane": lane.as_str(),
                "rule": attributes.get("watchline.alert.rule"),
                "time_unix_nano": event.time_unix_nano,
                "severity_number": event.severity,
                "body": String::from_utf8_lossy(shown),
                "attributes": attributes,
            });
            if event.body.len() > shown.len() {
                line["body_bytes"] = event.body.len().into();
            }
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

    use watchline_node::config::Document;

    use super::*;
    use crate::{
        board::Board,
        inbox::News,
        pipeline::{Parts, Pipeline, READER, Settings},
    };

    /// Everything below a directory: name, inode, mode, size, and when it was changed.
    fn tree(directory: &Path) -> Vec<(PathBuf, [i64; 7])> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            if data.is_dir() {
                found.extend(tree(&path));
            }
            let facts = [
                data.ino() as i64,
                data.mode().into(),
                data.size() as i64,
                data.mtime(),
                data.mtime_nsec(),
                data.ctime(),
                data.ctime_nsec(),
            ];
            found.push((path, facts));
        }
        found.sort();
        found
    }

    fn config(dir: &Path) -> Config {
        let text = "[identity]\ncertificate = \"a.pem\"\nprivate_key = \"a.key\"\ntrust_anchors = \"ca.pem\"\n\
             [uplink]\ncollectors = [\"https://127.0.0.1:7443\"]\n[spool]\ndirectory = \"spool\"\nmax_size = \"64MiB\"\n\
             [[source]]\nname = \"auth\"\nkind = \"file\"\npaths = [\"logs/*.log\"]\n\
             [[source]]\nname = \"network\"\nkind = \"syslog\"\nlisten = [\"udp://127.0.0.1:1\"]\n";
        let document = Document::parse(dir.join("f.toml"), text).unwrap();
        Config::from_document(document).unwrap()
    }

    fn shown(config: &Config) -> String {
        let mut out = Vec::new();
        show(config, 2, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// A running forwarder's reader, on the disk.
    fn running(config: &Config) -> Pipeline {
        let options = Options {
            max_bytes: config.spool.max_bytes,
            reserve_bytes: 1 << 20,
            segment_bytes: 2 << 20,
            required_readers: vec![READER.to_owned()],
            ..Options::default()
        };
        let directory = &config.spool.directory;
        let (spool, recovery) = Spool::open(Arc::new(RealDisk), directory, options).unwrap();
        let parts = Parts {
            spool,
            recovery,
            outside: Outside {
                own: Arc::default(),
                waker: Arc::new(|| ()),
                metrics: Metrics::default(),
            },
            name: Box::new(|| {
                "spiffe://watch.example/agency/moh/forwarder/host-01"
                    .parse()
                    .unwrap()
            }),
            clock: Box::new(Moment::now),
            own_standing: Box::new(Default::default),
            board: Arc::new(Board::default()),
            metrics: Metrics::default(),
            watch: None,
        };
        let settings = Settings {
            batch: config.batch,
            sync: config.spool.sync,
            when_full: config.spool.when_full,
            scan_interval: config.scan_interval,
            margin_bytes: 0,
        };
        let mut reloadable = config.reloadable.clone();
        reloadable.sources.truncate(1);
        Pipeline::new(parts, settings, reloadable)
    }

    #[test]
    fn a_dry_run_shows_what_is_read_and_what_would_be_sent_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/a.log");
        fs::create_dir(dir.path().join("logs")).unwrap();
        fs::write(&log, "Nov 23 09:15:02 web-1 sshd[1]: first\n").unwrap();
        let config = config(dir.path());
        let before = tree(dir.path());
        let first = shown(&config);
        assert!(
            first.contains("auth (file)\n  files that match: 1\n"),
            "{first}"
        );
        assert!(first.contains("a.log  read 0 of 37 bytes"), "{first}");
        assert!(
            first.contains("sshd[1]: first") && first.contains("watchline.backfill"),
            "{first}"
        );
        assert!(
            first.contains("network (syslog)\n  would listen on udp://127.0.0.1:1\n"),
            "{first}"
        );
        assert_eq!(
            tree(dir.path()),
            before,
            "not even the spool's directory is made"
        );

        let mut running = running(&config);
        running.turn(News::default());
        let more = "Nov 23 09:15:03 web-1 useradd[7]: new user: name=eve, UID=1001, GID=1001, home=/home/eve, shell=/bin/sh\n\
                    second\nthird\nfourth\n";
        let mut content = fs::read_to_string(&log).unwrap();
        content.push_str(more);
        fs::write(&log, content).unwrap();
        let before = tree(dir.path());
        for _ in 0..2 {
            let then = shown(&config);
            assert!(then.contains("a.log  read 37 of "), "{then}");
            assert!(
                then.contains("\"lane\":\"alert\"") && then.contains("\"rule\":\"accounts\""),
                "{then}"
            );
            assert!(then.contains("second") && then.contains("third"), "{then}");
            assert!(
                !then.contains("first") && !then.contains("fourth"),
                "{then}"
            );
        }
        assert_eq!(tree(dir.path()), before);
        running.stop();
    }
}
