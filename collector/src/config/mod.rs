//! `collector.toml`: what is configured, with every default in one place.

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use watchline_node::{
    config::{Document, Problems, Section},
    identity::{IdentityConfig, NamePattern},
};

use crate::outputs::{OutputConfig, OutputKind};

/// `[buffer].max_size` by default.
pub const DEFAULT_BUFFER_BYTES: u64 = 20 << 30;
/// `[buffer].max_age` by default.
pub const DEFAULT_BUFFER_AGE: Duration = Duration::from_secs(30 * DAY);
/// `[health].listen` by default.
pub const DEFAULT_HEALTH_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7481);
/// `[watch].silent_after` by default.
pub const DEFAULT_SILENT_AFTER: Duration = Duration::from_secs(60);
/// `[ingest].max_connections` by default.
pub const DEFAULT_MAX_CONNECTIONS: usize = 16_384;

const DAY: u64 = 86_400;
const BUFFER_BYTES: RangeInclusive<u64> = (64 << 20)..=(1 << 50);
const BUFFER_AGE: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(3650 * DAY);
const SILENT_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * DAY);

/// A collector's configuration, valid.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// `[identity]`: its certificate says whether this is an agency's collector or a centre.
    pub identity: IdentityConfig,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// `[buffer]`
    pub buffer: BufferConfig,
    /// `[health]`
    pub health: HealthConfig,
    /// `[watch]`
    pub watch: WatchConfig,
    /// `[[output]]`, in the order of the file.
    pub outputs: Vec<OutputConfig>,
}

/// `[ingest]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Connections at once, those in the handshake included.
    pub max_connections: usize,
    /// `[[ingest.allow]]`: for whom else a relay may speak.
    pub allow: Vec<Allow>,
}

/// `[[ingest.allow]]`: a peer that may pass on what others have sealed, beyond its own agency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Name of the relay, as in its certificate behind the trust domain, e.g. `center/province-a`.
    pub peer: String,
    /// Patterns over the sealers' names, e.g. `agency/moh/*`.
    pub names: Vec<NamePattern>,
}

/// `[buffer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferConfig {
    /// Where it lies; one process at a time.
    pub directory: PathBuf,
    /// Quota over all of it.
    pub max_bytes: u64,
    /// How long what has been delivered is kept while there is room.
    pub max_age: Duration,
}

/// `[health]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Where `/readyz` and the others answer.
    pub listen: SocketAddr,
}

/// `[watch]`: what a reload may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// How long a forwarder may say nothing before it is called silent.
    pub silent_after: Duration,
}

impl CollectorConfig {
    /// Reads a file; on any problem, all of them.
    pub fn read(file: &Path) -> Result<CollectorConfig, Problems> {
        CollectorConfig::of(Document::read(file)?)
    }

    /// Takes a document apart.
    pub fn of(document: Document) -> Result<CollectorConfig, Problems> {
        let config = CollectorConfig::sections(&document);
        document.finish()?;
        // Nothing was reported, so every part is there; an empty list would be a mistake of this code, said as such.
        config.ok_or_else(|| Problems(Vec::new()))
    }

    fn sections(document: &Document) -> Option<CollectorConfig> {
        let mut root = document.root();
        let identity = root
            .required_table("identity")
            .and_then(|mut section| IdentityConfig::read(&mut section));
        let ingest = root
            .required_table("ingest")
            .and_then(|mut section| IngestConfig::read(&mut section));
        let buffer = root
            .required_table("buffer")
            .and_then(|mut section| BufferConfig::read(&mut section));
        let health = HealthConfig::read(root.table("health").as_mut());
        let watch = WatchConfig::read(root.table("watch").as_mut());
        let outputs = OutputConfig::read_all(&mut root);
        if let Some(buffer) = &buffer {
            for output in &outputs {
                let (key, path) = match &output.kind {
                    OutputKind::Upstream(_) => continue,
                    OutputKind::File(file) => ("path", &file.path),
                    OutputKind::Archive(archive) => ("directory", &archive.directory),
                };
                if path.starts_with(&buffer.directory) {
                    root.problem(
                        "output",
                        format!(
                            "`{key}` of output {:?} lies in the buffer's directory {}; give it a place of its own",
                            output.name,
                            buffer.directory.display()
                        ),
                    );
                }
            }
        }
        Some(CollectorConfig {
            identity: identity?,
            ingest: ingest?,
            buffer: buffer?,
            health,
            watch,
            outputs,
        })
    }

    /// What differs in `new` and needs a restart, by key; the rest takes effect with a reload.
    pub fn needs_restart(&self, new: &CollectorConfig) -> Vec<&'static str> {
        let mut keys = Vec::new();
        let mut differs = |differs: bool, key: &'static str| {
            if differs {
                keys.push(key);
            }
        };
        differs(
            format!("{:?}", self.identity) != format!("{:?}", new.identity),
            "[identity]",
        );
        differs(self.ingest != new.ingest, "[ingest]");
        differs(self.buffer != new.buffer, "[buffer]");
        differs(self.health != new.health, "[health]");
        differs(
            outputs_but_endpoints(&self.outputs) != outputs_but_endpoints(&new.outputs),
            "[[output]]",
        );
        keys
    }
}

/// Outputs without what a reload may change of them.
fn outputs_but_endpoints(outputs: &[OutputConfig]) -> Vec<OutputConfig> {
    let mut outputs = outputs.to_vec();
    for output in &mut outputs {
        if let OutputKind::Upstream(upstream) = &mut output.kind {
            upstream.endpoints.clear();
        }
    }
    outputs
}

impl IngestConfig {
    fn read(section: &mut Section<'_>) -> Option<IngestConfig> {
        let listen = section.address("listen");
        if listen.is_none() && !section.has("listen") {
            section.problem(
                "listen",
                "missing `listen`, e.g. listen = \"0.0.0.0:7443\"".to_owned(),
            );
        }
        let max_connections = section.integer("max_connections", 1..=1_000_000);
        let allow = section
            .tables("allow")
            .iter_mut()
            .filter_map(|allow| {
                let peer = allow.required_string("peer");
                let mut names = Vec::new();
                for text in allow.required_strings("names") {
                    match text.value.parse() {
                        Ok(name) => names.push(name),
                        Err(why) => {
                            let right = "patterns like \"agency/mof/*\"";
                            allow.problem_at(
                                text.span,
                                format!("`names` must hold {right}; {:?} {why}", text.value),
                            );
                        }
                    }
                }
                Some(Allow { peer: peer?, names })
            })
            .collect();
        Some(IngestConfig {
            listen: listen?,
            max_connections: max_connections
                .and_then(|connections| usize::try_from(connections).ok())
                .unwrap_or(DEFAULT_MAX_CONNECTIONS),
            allow,
        })
    }
}

impl BufferConfig {
    fn read(section: &mut Section<'_>) -> Option<BufferConfig> {
        section.choice("kind", &[("embedded", ())]);
        let directory = section.required_path("directory");
        let max_size = section.size("max_size", BUFFER_BYTES);
        let max_age = section.duration("max_age", BUFFER_AGE);
        Some(BufferConfig {
            directory: directory?,
            max_bytes: max_size.map_or(DEFAULT_BUFFER_BYTES, |size| size.0),
            max_age: max_age.unwrap_or(DEFAULT_BUFFER_AGE),
        })
    }
}

impl HealthConfig {
    fn read(section: Option<&mut Section<'_>>) -> HealthConfig {
        let listen = section.and_then(|section| section.address("listen"));
        HealthConfig {
            listen: listen.unwrap_or(DEFAULT_HEALTH_LISTEN),
        }
    }
}

impl WatchConfig {
    fn read(section: Option<&mut Section<'_>>) -> WatchConfig {
        let silent_after =
            section.and_then(|section| section.duration("silent_after", SILENT_AFTER));
        WatchConfig {
            silent_after: silent_after.unwrap_or(DEFAULT_SILENT_AFTER),
        }
    }
}
