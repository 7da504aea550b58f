//! What a `[[source]]` of kind `journald` says, valid.

use std::path::PathBuf;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::sources::Common;

/// Where reading begins when the source is started for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartAt {
    /// The oldest entry there is.
    Beginning,
    /// Behind the newest.
    End,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JournaldConfig {
    pub(crate) name: String,
    pub(crate) common: Common,
    /// Where the journal's files are; `None`: where this host's journald keeps them.
    pub(crate) directory: Option<PathBuf>,
    /// Entries of other units are passed over; `None`: of all units.
    pub(crate) units: Option<Units>,
    /// syslog's number, 0 (emerg) to 7 (debug): entries with a higher one are passed over; those without one are not.
    pub(crate) min_priority: Option<u8>,
    pub(crate) start_at: StartAt,
    /// Bytes of one entry; a longer one is cut.
    pub(crate) max_record: usize,
    /// The tool.
    pub(crate) journalctl: PathBuf,
}

/// syslog's words for priorities, as `journalctl --priority` has them, by number.
pub(crate) const PRIORITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// Names of units, patterns allowed. A name without a dot is that of a service.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    set: GlobSet,
    texts: Vec<String>,
}

impl Units {
    /// The error's text is for the person who wrote the pattern.
    pub(crate) fn new(texts: &[impl AsRef<str>]) -> Result<Units, String> {
        let mut set = GlobSetBuilder::new();
        for text in texts {
            let text = text.as_ref();
            let whole = if text.contains('.') {
                text.to_owned()
            } else {
                format!("{text}.service")
            };
            set.add(Glob::new(&whole).map_err(|error| format!("{text:?}: {}", error.kind()))?);
        }
        Ok(Units {
            set: set.build().map_err(|error| error.to_string())?,
            texts: texts.iter().map(|text| text.as_ref().to_owned()).collect(),
        })
    }

    pub(super) fn contains(&self, unit: &str) -> bool {
        self.set.is_match(unit)
    }
}

impl PartialEq for Units {
    fn eq(&self, other: &Units) -> bool {
        self.texts == other.texts
    }
}
