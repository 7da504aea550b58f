//! Known losses, as the events that say so.
//!
//! A gap travels in the alert lane, in the same frame that moves the position or the mark past what was lost: it is there
//! exactly once, like any other event.

use std::path::Path;

use watchline_proto::payload::Origin;

/// The `kind` and the `source` of our own events; no configured source can have this name.
pub(crate) const OWN: &str = "watchline";

/// Why something is missing: a small closed set, also the label of `watchline_gap_records_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum GapReason {
    /// A file was cut or replaced while part of it was unread, and no copy of that part was found.
    Truncated,
    /// Bytes before the read offset changed: the file is read again from its beginning, so records may repeat.
    Rewritten,
    /// A file that was not read to its end is nowhere to be found.
    Vanished,
    /// Removed files held more unread bytes than `max_held`: the oldest of them was given up.
    GivenUp,
    /// The rest of a record that is longer than a record may be.
    LineCut,
    /// A block of NUL bytes where a file had been cut under its writer.
    Hole,
    /// The next hop found a batch defective; its bytes are kept in quarantine.
    SetAside,
    /// The spool's own files were damaged.
    Damaged,
    /// Batches are no longer held that had not been acknowledged.
    NoLongerHeld,
    /// The spool was full and `when_full` is `drop_oldest`.
    DroppedOldest,
    /// The next hop holds another history of this forwarder: what was unacknowledged was sealed anew.
    Forked,
    /// The next hop knows this forwarder, but there was no state here: sources are read from their beginning.
    StateLost,
    /// A batch could not be sealed: a defect of this program.
    Unsealable,
    /// What had been received could not be stored, and cannot be received again.
    NotStored,
    /// The kernel dropped datagrams that came faster than they were read.
    UdpOverflow,
    /// The journal entry that was taken last is no longer there: the journal is read from its oldest entry.
    CursorLost,
    /// Entries, fields or files of a journal that `journalctl` found damaged and skipped.
    DamagedJournal,
    /// The kernel's audit could not hand over records to the audit daemon.
    AuditLost,
    /// Records of a Windows event file that cannot be read.
    DamagedChunk,
    /// Record ids of a Windows channel that are nowhere in its file.
    MissingRecords,
}

impl GapReason {
    /// All of them.
    pub(crate) const ALL: [GapReason; 20] = [
        GapReason::Truncated,
        GapReason::Rewritten,
        GapReason::Vanished,
        GapReason::GivenUp,
        GapReason::LineCut,
        GapReason::Hole,
        GapReason::SetAside,
        GapReason::Damaged,
        GapReason::NoLongerHeld,
        GapReason::DroppedOldest,
        GapReason::Forked,
        GapReason::StateLost,
        GapReason::Unsealable,
        GapReason::NotStored,
        GapReason::UdpOverflow,
        GapReason::CursorLost,
        GapReason::DamagedJournal,
        GapReason::AuditLost,
        GapReason::DamagedChunk,
        GapReason::MissingRecords,
    ];

    /// The word in `watchline.gap.reason` and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            GapReason::Truncated => "truncated",
            GapReason::Rewritten => "rewritten",
            GapReason::Vanished => "vanished",
            GapReason::GivenUp => "given_up",
            GapReason::LineCut => "line_cut",
            GapReason::Hole => "hole",
            GapReason::SetAside => "set_aside",
            GapReason::Damaged => "damaged",
            GapReason::NoLongerHeld => "no_longer_held",
            GapReason::DroppedOldest => "dropped_oldest",
            GapReason::Forked => "forked",
            GapReason::StateLost => "state_lost",
            GapReason::Unsealable => "unsealable",
            GapReason::NotStored => "not_stored",
            GapReason::UdpOverflow => "udp_overflow",
            GapReason::CursorLost => "cursor_lost",
            GapReason::DamagedJournal => "damaged_journal",
            GapReason::AuditLost => "audit_lost",
            GapReason::DamagedChunk => "damaged_chunk",
            GapReason::MissingRecords => "missing_records",
        }
    }
}

/// One known loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Why.
    pub(crate) reason: GapReason,
    /// How many records, where that is known.
    pub(crate) records: Option<u64>,
    /// How many bytes; 0 where that is not known.
    pub(crate) bytes: u64,
    /// The source it concerns.
    pub(crate) source: Option<String>,
    /// The file it concerns.
    pub(crate) path: Option<String>,
    /// Byte offsets within the file, end exclusive.
    pub(crate) range: Option<(u64, u64)>,
    /// For people: one line, without event contents.
    pub(crate) detail: String,
}

impl Gap {
    /// A gap of which nothing more is known than why.
    pub(crate) fn new(reason: GapReason, detail: impl Into<String>) -> Gap {
        let (records, bytes, source, path, range) = (None, 0, None, None, None);
        Gap {
            reason,
            records,
            bytes,
            source,
            path,
            range,
            detail: detail.into(),
        }
    }

    pub(crate) fn in_file(mut self, source: &str, path: &Path) -> Gap {
        self.source = Some(source.to_owned());
        self.path = Some(path_text(path));
        self
    }

    /// The event's body: one line for people.
    pub(crate) fn body(&self) -> String {
        let mut body = format!("gap ({}): {}", self.reason.as_str(), self.detail);
        if let Some(path) = &self.path {
            body.push_str(&format!("; file {path}"));
        }
        body
    }

    /// The event's attributes.
    pub(crate) fn attributes(&self) -> Vec<(&'static str, String)> {
        let mut attributes = vec![
            ("event.name", "watchline.gap".to_owned()),
            ("watchline.gap.reason", self.reason.as_str().to_owned()),
        ];
        if let Some(records) = self.records {
            attributes.push(("watchline.gap.records", records.to_string()));
        }
        if self.bytes > 0 {
            attributes.push(("watchline.gap.bytes", self.bytes.to_string()));
        }
        if let Some(source) = &self.source {
            attributes.push(("watchline.gap.source", source.clone()));
        }
        if let Some(path) = &self.path {
            attributes.push(("log.file.path", path.clone()));
        }
        if let Some((from, to)) = self.range {
            attributes.push(("watchline.gap.from", from.to_string()));
            attributes.push(("watchline.gap.to", to.to_string()));
        }
        attributes
    }

    /// Where our own events come from.
    pub(crate) fn origin() -> Origin {
        Origin {
            source: OWN.to_owned(),
            kind: OWN.to_owned(),
            attributes: Vec::new(),
        }
    }
}

/// A path as text: what is not UTF-8 in it is escaped as `\xNN`, a backslash before it doubled.
pub(crate) fn path_text(path: &Path) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
