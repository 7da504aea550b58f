//! `[[output]]`: what is configured of an output.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use watchline_node::config::Section;

/// One `[[output]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputConfig {
    /// Unique among outputs; names the output's mark in the buffer, so a renamed output begins anew.
    pub name: String,
    /// Whether the buffer keeps what this output has not got, whatever else is full.
    pub required: bool,
    /// What it is.
    pub kind: OutputKind,
}

/// The kinds of outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// The next collector.
    Upstream(UpstreamConfig),
    /// A file of lines.
    File(FileConfig),
    /// Sealed batches as they came.
    Archive(ArchiveConfig),
}

/// `kind = "upstream"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// `https://host:port`, at least one.
    pub endpoints: Vec<http::Uri>,
    /// How often a heartbeat is sent.
    pub heartbeat: Duration,
    /// How long what is buffered is still offered after the stop.
    pub grace: Duration,
}

/// `kind = "file"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The file that is written.
    pub path: PathBuf,
    /// What a line is.
    pub format: FileFormat,
    /// When the file is closed for a new one.
    pub rotation: Rotation,
    /// How many closed files are kept; `None`: all.
    pub keep: Option<usize>,
}

/// What a line of a file output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON object an event, with all that is known of it.
    Ndjson,
    /// The original record and a line feed. Records that contain line feeds look like several.
    Raw,
}

/// `kind = "archive"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// Where the archive's files lie.
    pub directory: PathBuf,
    /// When a file is closed for a new one.
    pub rotation: Rotation,
}

/// When a file is closed for a new one: whichever comes first. An empty file never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotation {
    /// Once it has this many bytes.
    pub size_bytes: Option<u64>,
    /// At each multiple of this in UTC, e.g. each full hour.
    pub every: Option<Duration>,
}

/// The heartbeat of an `upstream` output by default.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// The grace of an `upstream` output by default.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);
/// Size of an archive's file by default.
pub const DEFAULT_ARCHIVE_FILE_BYTES: u64 = 256 << 20;
/// Time that an archive's file stays open by default.
pub const DEFAULT_ARCHIVE_FILE_AGE: Duration = Duration::from_secs(3600);

const ROTATE_SIZE: std::ops::RangeInclusive<u64> = 4096..=(1 << 50);
const ROTATE_EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

impl OutputConfig {
    /// Reads all `[[output]]` tables of `root`; problems are reported there, and what has one is left out.
    pub fn read_all(root: &mut Section<'_>) -> Vec<OutputConfig> {
        let mut outputs: Vec<OutputConfig> = Vec::new();
        let mut names = BTreeSet::new();
        let mut paths = BTreeSet::new();
        let mut sections = root.tables("output");
        let mut read: Vec<_> = sections.iter_mut().map(OutputConfig::read).collect();
        // Without an upstream nobody else has what this collector holds: then every output holds the buffer.
        let last_hop = !read
            .iter()
            .flatten()
            .any(|(output, _)| matches!(output.kind, OutputKind::Upstream(_)));
        for (section, read) in sections.iter().zip(&mut read) {
            let Some((mut output, required)) = read.take() else {
                continue;
            };
            output.required =
                required.unwrap_or(last_hop || matches!(output.kind, OutputKind::Upstream(_)));
            if !names.insert(output.name.clone()) {
                section.problem(
                    "name",
                    format!(
                        "another output is named {:?} too; names must differ",
                        output.name
                    ),
                );
                continue;
            }
            let (key, path) = match &output.kind {
                OutputKind::Upstream(_) => {
                    outputs.push(output);
                    continue;
                }
                OutputKind::File(file) => ("path", &file.path),
                OutputKind::Archive(archive) => ("directory", &archive.directory),
            };
            if !paths.insert(path.clone()) {
                section.problem(
                    key,
                    format!("another output writes to {} too", path.display()),
                );
                continue;
            }
            outputs.push(output);
        }
        outputs
    }

    /// The name of this output's reader and mark in the buffer.
    pub fn reader(&self) -> String {
        format!("output/{}", self.name)
    }

    /// The output, and whether it says itself that it is required.
    fn read(section: &mut Section<'_>) -> Option<(OutputConfig, Option<bool>)> {
        #[derive(Clone, Copy)]
        enum Kind {
            Upstream,
            File,
            Archive,
        }
        let name = section.required_string("name").filter(|name| {
            let good = is_name(name);
            if !good {
                section.problem(
                    "name",
                    "an output's name is 1 to 63 letters, digits, `.`, `_` or `-`, beginning with a letter or digit"
                        .to_owned(),
                );
            }
            good
        });
        let kinds = [
            ("upstream", Kind::Upstream),
            ("file", Kind::File),
            ("archive", Kind::Archive),
        ];
        let kind = section.required_choice("kind", &kinds);
        let required = section.boolean("required");
        let kind = match kind? {
            Kind::Upstream => OutputKind::Upstream(UpstreamConfig::read(section)?),
            Kind::File => OutputKind::File(FileConfig::read(section)?),
            Kind::Archive => OutputKind::Archive(ArchiveConfig::read(section)?),
        };
        let output = OutputConfig {
            name: name?,
            required: false,
            kind,
        };
        Some((output, required))
    }
}

impl UpstreamConfig {
    fn read(section: &mut Section<'_>) -> Option<UpstreamConfig> {
        let endpoints = section.endpoints("endpoints");
        let heartbeat = section.duration(
            "heartbeat",
            Duration::from_millis(100)..=Duration::from_secs(3600),
        );
        let grace = section.duration("grace", Duration::ZERO..=Duration::from_secs(3600));
        if endpoints.is_empty() {
            return None; // reported by the reader
        }
        Some(UpstreamConfig {
            endpoints,
            heartbeat: heartbeat.unwrap_or(DEFAULT_HEARTBEAT),
            grace: grace.unwrap_or(DEFAULT_GRACE),
        })
    }
}

impl FileConfig {
    fn read(section: &mut Section<'_>) -> Option<FileConfig> {
        let path = section.required_path("path");
        let format = section.choice(
            "format",
            &[("ndjson", FileFormat::Ndjson), ("raw", FileFormat::Raw)],
        );
        let size = section.size("rotate_size", ROTATE_SIZE);
        let every = section.duration("rotate_every", ROTATE_EVERY);
        let keep = section.integer("keep", 1..=1_000_000);
        if keep.is_some() && size.is_none() && every.is_none() {
            section.problem(
                "keep",
                "`keep` needs `rotate_size` or `rotate_every`".to_owned(),
            );
        }
        let path = path?;
        if path.file_name().is_none() {
            section.problem("path", "the path of a file is expected".to_owned());
            return None;
        }
        Some(FileConfig {
            path,
            format: format.unwrap_or(FileFormat::Ndjson),
            rotation: Rotation {
                size_bytes: size.map(|size| size.0),
                every,
            },
            keep: keep.and_then(|keep| usize::try_from(keep).ok()),
        })
    }
}

impl ArchiveConfig {
    fn read(section: &mut Section<'_>) -> Option<ArchiveConfig> {
        let directory = section.required_path("directory");
        let size = section.size("rotate_size", ROTATE_SIZE);
        let every = section.duration("rotate_every", ROTATE_EVERY);
        Some(ArchiveConfig {
            directory: directory?,
            rotation: Rotation {
                size_bytes: Some(size.map_or(DEFAULT_ARCHIVE_FILE_BYTES, |size| size.0)),
                every: Some(every.unwrap_or(DEFAULT_ARCHIVE_FILE_AGE)),
            },
        })
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchline_node::config::Document;

    fn read(text: &str) -> Result<Vec<OutputConfig>, String> {
        let document = Document::parse("collector.toml", text).map_err(|e| e.to_string())?;
        let outputs = OutputConfig::read_all(&mut document.root());
        document.finish().map_err(|e| e.to_string())?;
        Ok(outputs)
    }

    const FILE: &str = "[[output]]\nname = \"events\"\nkind = \"file\"\npath = \"events.ndjson\"\n";
    const UPSTREAM: &str = "[[output]]\nname = \"center\"\nkind = \"upstream\"\nendpoints = [\"https://127.0.0.1:7543\"]\n";

    #[test]
    fn a_file_holds_the_buffer_where_there_is_no_upstream() {
        let required = |text: &str| -> Vec<bool> {
            read(text)
                .unwrap()
                .iter()
                .map(|output| output.required)
                .collect()
        };
        assert_eq!(required(FILE), [true]);
        assert_eq!(required(&format!("{FILE}{UPSTREAM}")), [false, true]);
        assert_eq!(required(&format!("{FILE}required = false\n")), [false]);
    }

    #[test]
    fn an_output_without_a_kind_is_reported() {
        let problems = read("[[output]]\nname = \"events\"\n").unwrap_err();
        assert!(problems.contains("missing key `kind`"), "{problems}");
    }
}
