//! The configuration as used: it can only be valid.
//!
//! [`Config::read`] reports every problem at once, each with its place. What SIGHUP may change is [`Reloadable`].

mod alerts;
mod audit;
mod common;
mod evtx;
mod journald;
mod sources;
mod syslog;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use watchline_node::{
    config::{Document, Problems, Section},
    identity::IdentityConfig,
};
use watchline_proto::seal::check_labels;

use crate::{lanes::AlertRule, sources::SourceConfig};

const MIB: u64 = 1 << 20;

/// Everything that `forwarder.toml` says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[identity]`. Its files are followed by themselves; which files they are needs a restart.
    pub identity: IdentityConfig,
    /// `[spool]`
    pub spool: SpoolConfig,
    /// `[health] listen`
    pub health: SocketAddr,
    /// `[batch]`
    pub batch: BatchConfig,
    /// `[scan] interval`: how often every source is looked at, hints or not.
    pub scan_interval: Duration,
    /// What a reload may change.
    pub reloadable: Reloadable,
}

/// What SIGHUP takes anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloadable {
    /// `[uplink]`
    pub uplink: LineConfig,
    /// `[labels]`: travel with every batch.
    pub labels: BTreeMap<String, String>,
    pub(crate) sources: Vec<SourceConfig>,
    pub(crate) alerts: Vec<AlertRule>,
}

/// `[uplink]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineConfig {
    /// `collectors`: next hops, `https://host:port`.
    pub collectors: Vec<http::Uri>,
    /// `heartbeat`
    pub heartbeat: Duration,
    /// `grace`: how long what is spooled is still offered after stop.
    pub grace: Duration,
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// `directory`
    pub directory: PathBuf,
    /// `max_size`
    pub max_bytes: u64,
    /// `when_full`
    pub when_full: WhenFull,
    /// `sync`
    pub sync: Sync,
}

/// `[spool] when_full`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Stop reading: what is not read waits in its files.
    Block,
    /// Give up the oldest routine batches, as a gap.
    DropOldest,
}

/// `[spool] sync`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before a batch is offered.
    Always,
    /// At this interval: a power cut may repeat what was sent since, under a new epoch. It loses nothing.
    Every(Duration),
}

/// `[batch]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchConfig {
    /// `max_size`: unpacked bytes at which a batch is closed.
    pub max_bytes: usize,
    /// `linger`: batches at a steady trickle are at least this far apart. A lone event never waits.
    pub linger: Duration,
}

/// The defaults, in one place.
mod default {
    use super::*;

    pub(super) const HEALTH: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);
    pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
    pub(super) const GRACE: Duration = Duration::from_secs(5);
    pub(super) const SPOOL_BYTES: u64 = 1 << 30;
    pub(super) const SYNC: Duration = Duration::from_secs(1);
    pub(super) const BATCH_BYTES: u64 = 256 << 10;
    pub(super) const LINGER: Duration = Duration::from_millis(4);
    pub(super) const SCAN_INTERVAL: Duration = Duration::from_secs(1);
    pub(super) const MAX_RECORD: u64 = 256 << 10;
    pub(super) const IDLE_FLUSH: Duration = Duration::from_secs(5);
    pub(super) const MULTILINE_TIMEOUT: Duration = Duration::from_secs(2);
    pub(super) const MAX_HELD: u64 = 1 << 30;
    pub(super) const AUDIT_LOG: &str = "/var/log/audit/audit.log";
    pub(super) const AUDIT_MAX_RECORD: u64 = MIB;
    pub(super) const MAX_RATE: i64 = 100;
    pub(super) const REPLACE: &str = "***";
    pub(super) const RULE_VERSION: &str = "1";
    pub(super) const SYSLOG_CONNECTIONS: i64 = 64;
    pub(super) const SYSLOG_BUFFER: u64 = 4 << 20;
}

impl Config {
    /// Reads and checks a file. Does not look at certificates, nor at what is to be read.
    pub fn read(file: &Path) -> Result<Config, Problems> {
        let document = Document::read(file)?;
        Config::from_document(document)
    }

    pub(crate) fn from_document(document: Document) -> Result<Config, Problems> {
        let mut root = document.root();
        let identity = root
            .required_table("identity")
            .and_then(|mut section| IdentityConfig::read(&mut section));
        let uplink = root
            .required_table("uplink")
            .and_then(|mut section| LineConfig::read(&mut section));
        let spool = root
            .required_table("spool")
            .and_then(|mut section| SpoolConfig::read(&mut section));
        let health = root
            .table("health")
            .and_then(|mut section| section.address("listen"));
        let batch = root
            .table("batch")
            .map(|mut section| BatchConfig::read(&mut section));
        let scan = root.table("scan");
        let scan_interval = scan.and_then(|mut scan| {
            scan.duration(
                "interval",
                Duration::from_millis(100)..=Duration::from_secs(60),
            )
        });
        let labels = root
            .table("labels")
            .map(|mut section| read_labels(&mut section));
        let max_record_bytes = spool
            .as_ref()
            .map_or(u64::MAX, |spool| spool.max_bytes / 64);
        let sources = sources::read(&mut root, max_record_bytes);
        let alerts = alerts::read(&mut root, &sources);
        drop(root);
        document.finish()?;
        // Nothing was reported, so everything is there.
        let (Some(identity), Some(uplink), Some(spool)) = (identity, uplink, spool) else {
            return Err(Problems(Vec::new()));
        };
        let batch = batch.unwrap_or(BatchConfig {
            max_bytes: default::BATCH_BYTES as usize,
            linger: default::LINGER,
        });
        Ok(Config {
            identity,
            spool,
            health: health.unwrap_or(default::HEALTH),
            batch,
            scan_interval: scan_interval.unwrap_or(default::SCAN_INTERVAL),
            reloadable: Reloadable {
                uplink,
                labels: labels.unwrap_or_default(),
                sources,
                alerts,
            },
        })
    }

    /// Names of tables in which `other` differs where only a restart takes the difference.
    pub fn needs_restart(&self, other: &Config) -> Vec<&'static str> {
        let identity = |config: &Config| format!("{:?}", config.identity);
        let differs = [
            ("[identity]", identity(self) != identity(other)),
            ("[spool]", self.spool != other.spool),
            ("[health]", self.health != other.health),
            ("[batch]", self.batch != other.batch),
            ("[scan]", self.scan_interval != other.scan_interval),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(table, _)| table)
            .collect()
    }
}

impl LineConfig {
    fn read(section: &mut Section<'_>) -> Option<LineConfig> {
        let collectors = section.endpoints("collectors");
        let heartbeat = section.duration(
            "heartbeat",
            Duration::from_millis(100)..=Duration::from_secs(300),
        );
        let grace = section.duration("grace", Duration::ZERO..=Duration::from_secs(600));
        (!collectors.is_empty()).then(|| LineConfig {
            collectors,
            heartbeat: heartbeat.unwrap_or(default::HEARTBEAT),
            grace: grace.unwrap_or(default::GRACE),
        })
    }
}

impl SpoolConfig {
    fn read(section: &mut Section<'_>) -> Option<SpoolConfig> {
        let directory = section.required_path("directory");
        let max_bytes = section.size("max_size", 16 * MIB..=1 << 50);
        let when_full = section.choice(
            "when_full",
            &[
                ("block", WhenFull::Block),
                ("drop_oldest", WhenFull::DropOldest),
            ],
        );
        let sync = match section.text("sync") {
            Some(text) if text.value == "always" => Some(Sync::Always),
            Some(_) => section
                .duration("sync", Duration::from_millis(10)..=Duration::from_secs(60))
                .map(Sync::Every),
            None => None,
        };
        Some(SpoolConfig {
            directory: directory?,
            max_bytes: max_bytes.map_or(default::SPOOL_BYTES, |size| size.0),
            when_full: when_full.unwrap_or(WhenFull::Block),
            sync: sync.unwrap_or(Sync::Every(default::SYNC)),
        })
    }
}

impl BatchConfig {
    fn read(section: &mut Section<'_>) -> BatchConfig {
        let max_bytes = section.size("max_size", 16 << 10..=MIB);
        let linger = section.duration("linger", Duration::ZERO..=Duration::from_secs(5));
        BatchConfig {
            max_bytes: max_bytes.map_or(default::BATCH_BYTES, |size| size.0) as usize,
            linger: linger.unwrap_or(default::LINGER),
        }
    }
}

fn read_labels(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in section.string_map() {
        let one = BTreeMap::from([(name.value.clone(), value.value.clone())]);
        if let Err(error) = check_labels(&one) {
            section.problem_at(name.span, error.to_string());
        }
        labels.insert(name.value, value.value);
    }
    if let Err(error) = check_labels(&labels) {
        let span = section.span();
        section.problem_at(span, error.to_string());
    }
    labels
}
