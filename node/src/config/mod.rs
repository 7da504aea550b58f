//! Reading configuration: every problem at once, each with file, line, column, and what would be right.
//!
//! A [`Document`] is a TOML file with the place of every value. Each component takes its own table as a [`Section`], asks for the
//! keys it knows, and gets `None` for what is missing or wrong; what was wrong is remembered by the document and comes out of
//! [`Document::finish`], in the order of the places. A key that nobody asked for is unknown, and that is a problem too.
//!
//! ```
//! use std::time::Duration;
//! use watchline_node::config::Document;
//!
//! let document = Document::parse("forwarder.toml", "[uplink]\nheartbeat = \"5 parsecs\"\nretires = 3\n").unwrap();
//! let mut root = document.root();
//! if let Some(mut uplink) = root.required_table("uplink") {
//!     let heartbeat = uplink.duration("heartbeat", Duration::from_secs(1)..=Duration::from_secs(60));
//!     let retries = uplink.integer("retries", 0..=9);
//!     assert_eq!((heartbeat, retries), (None, None));
//! }
//! drop(root);
//! let problems = document.finish().unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "forwarder.toml:2:13: `heartbeat` must be a time like \"250ms\", \"5s\" or \"1h\": unknown time unit \"parsecs\", \
//!      supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)\n\
//!      forwarder.toml:3:1: unknown key `retires` in [uplink]; did you mean `retries`?"
//! );
//! ```
//!
//! Not for: layering several files, environment overrides, writing configuration.

mod endpoint;
mod nearest;
mod problem;
mod section;
mod size;
mod tree;

use std::{
    cell::RefCell,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

pub use problem::{Problem, Problems};
pub use section::{Section, Text};
pub use size::ByteSize;

/// A configuration beyond this many bytes is a mistake (a log, a disk image), not a configuration.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The one variable that paths may contain: where systemd puts a service's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A configuration file as text and tree; collects problems.
#[derive(Debug)]
pub struct Document {
    file: PathBuf,
    text: String,
    tree: tree::Table,
    credentials_directory: Option<PathBuf>,
    found: RefCell<Vec<(usize, String)>>,
}

impl Document {
    /// Reads and parses `file`. An unreadable file is a problem at its first character; a file that is not TOML has one problem for
    /// each error of syntax, and is not looked at any further.
    pub fn read(file: &Path) -> Result<Document, Problems> {
        let text = read_text(file).map_err(|(text, offset, message)| {
            Problems(vec![Problem::at(
                file,
                &String::from_utf8_lossy(&text),
                offset,
                message,
            )])
        })?;
        let mut document = Document::parse(file, text)?;
        document.credentials_directory = std::env::var_os(CREDENTIALS_DIRECTORY)
            .filter(|d| !d.is_empty())
            .map(Into::into);
        Ok(document)
    }

    /// Parses `text` as if it had been read from `file`. `${CREDENTIALS_DIRECTORY}` is unset. Any text is taken without a panic.
    pub fn parse(file: impl Into<PathBuf>, text: impl Into<String>) -> Result<Document, Problems> {
        let (file, text) = (file.into(), text.into());
        match parse_tree(&text) {
            Ok(tree) => Ok(Document {
                file,
                text,
                tree,
                credentials_directory: None,
                found: RefCell::new(Vec::new()),
            }),
            Err(found) => Err(Problems::of(&file, &text, found)),
        }
    }

    /// The same document with another value for `${CREDENTIALS_DIRECTORY}`.
    pub fn with_credentials_directory(mut self, directory: Option<PathBuf>) -> Document {
        self.credentials_directory = directory;
        self
    }

    /// The file as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The top of the file. Ask once: what one root was not asked for is unknown to it.
    pub fn root(&self) -> Section<'_> {
        Section::new(self, &self.tree, 0..0, String::new())
    }

    /// `Ok` when nothing was reported. All sections must have been dropped before (the borrow checker sees to it), since
    /// it is then that they report the keys that nobody asked for.
    pub fn finish(self) -> Result<(), Problems> {
        let found = self.found.into_inner();
        if found.is_empty() {
            Ok(())
        } else {
            Err(Problems::of(&self.file, &self.text, found))
        }
    }

    fn report(&self, offset: usize, message: String) {
        self.found.borrow_mut().push((offset, message));
    }

    /// The folder that relative paths are relative to.
    fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

/// The file's text, or what was read of it, with the place of the trouble and a message.
fn read_text(file: &Path) -> Result<String, (Vec<u8>, usize, String)> {
    let unreadable = |error: std::io::Error| (Vec::new(), 0, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err((
            Vec::new(),
            0,
            format!(
                "is larger than {}: not a configuration",
                ByteSize(MAX_FILE_BYTES)
            ),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let mut bytes = error.into_bytes();
        bytes.truncate(offset);
        (bytes, offset, "is not UTF-8 text from here on".to_owned())
    })
}

/// The tree, or the errors of syntax: the first of each line, since what follows it on the same line is most often its echo.
fn parse_tree(text: &str) -> Result<tree::Table, Vec<(usize, String)>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(tree::own_table(tree.into_inner()));
    }
    let mut found: Vec<(usize, String)> = errors
        .iter()
        .map(|error| {
            (
                error.span().map_or(0, |span: Range<usize>| span.start),
                error.message().to_owned(),
            )
        })
        .collect();
    found.sort_by_key(|(offset, _)| *offset);
    found.dedup_by_key(|(offset, _)| {
        text.bytes()
            .take(*offset)
            .filter(|byte| *byte == b'\n')
            .count()
    });
    Err(found)
}

#[cfg(test)]
mod tests;
