//! `[[source]]`

use std::{collections::BTreeSet, time::Duration};

use watchline_node::config::{Section, Text};
use watchline_proto::MAX_RECORD_BYTES;

use super::{audit, common, default, evtx, journald, syslog};
use crate::{
    gaps::OWN,
    patterns::check_pattern,
    sources::{
        Common, SourceConfig,
        evtx::EvtxConfig,
        file::{
            Encoding, Encodings, Excludes, FileConfig, Multiline, PathPattern, Records, StartAt,
            Times,
        },
        journald::JournaldConfig,
        syslog::SyslogConfig,
    },
};

#[derive(Clone, Copy)]
enum Kind {
    Audit,
    Evtx,
    File,
    Journald,
    Syslog,
}

/// All sources that are right; the others have been reported.
pub(super) fn read(root: &mut Section<'_>, max_record_bytes: u64) -> Vec<SourceConfig> {
    let mut names = BTreeSet::new();
    let sections = root.required_tables("source");
    sections
        .into_iter()
        .filter_map(|mut section| read_one(&mut section, &mut names, max_record_bytes))
        .collect()
}

fn read_one(
    section: &mut Section<'_>,
    names: &mut BTreeSet<String>,
    max_record_bytes: u64,
) -> Option<SourceConfig> {
    let name = section
        .required_text("name")
        .and_then(|text| check_name(section, &text, names));
    let kind = if section.has("kind") {
        section.choice(
            "kind",
            &[
                ("evtx", Kind::Evtx),
                ("file", Kind::File),
                ("audit", Kind::Audit),
                ("journald", Kind::Journald),
                ("syslog", Kind::Syslog),
            ],
        )
    } else {
        section.problem(
            "kind",
            "missing key `kind` in [[source]], like: kind = \"file\"".to_owned(),
        );
        None
    };
    let common = common::read(section);
    match kind {
        Some(Kind::Audit) => {
            let audit = audit::read(section, max_record_bytes);
            Some(SourceConfig::File(FileConfig {
                name: name?,
                common,
                ..audit?
            }))
        }
        Some(Kind::File) => {
            let file = read_file(section, max_record_bytes);
            Some(SourceConfig::File(FileConfig {
                name: name?,
                common,
                ..file?
            }))
        }
        Some(Kind::Evtx) => {
            let evtx = evtx::read(section, max_record_bytes);
            Some(SourceConfig::Evtx(EvtxConfig {
                name: name?,
                common,
                ..evtx?
            }))
        }
        Some(Kind::Journald) => {
            let journald = journald::read(section, max_record_bytes);
            Some(SourceConfig::Journald(JournaldConfig {
                name: name?,
                common,
                ..journald?
            }))
        }
        Some(Kind::Syslog) => {
            let syslog = syslog::read(section, max_record_bytes);
            Some(SourceConfig::Syslog(SyslogConfig {
                name: name?,
                common,
                ..syslog?
            }))
        }
        None => {
            // Whose keys these are is not known: those of a file, fewer things to complain about.
            read_file(section, max_record_bytes);
            None
        }
    }
}

fn check_name(section: &Section<'_>, text: &Text, names: &mut BTreeSet<String>) -> Option<String> {
    let name = &text.value;
    let right = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let message = if !right {
        "`name` must be 1 to 63 letters, digits, `.`, `_` or `-`, the first of them a letter or digit".to_owned()
    } else if name == OWN {
        format!("`name` must not be {OWN:?}: that is the source of Watchline's own events")
    } else if !names.insert(name.clone()) {
        format!("`name`: there is another source {name:?}")
    } else {
        return Some(name.clone());
    };
    section.problem_at(text.span.clone(), message);
    None
}

fn read_file(section: &mut Section<'_>, max_record_bytes: u64) -> Option<FileConfig> {
    let (paths, exclude) = read_paths(section);
    let start_at = read_start_at(section);
    let max_record = read_max_record(section, max_record_bytes);
    let max_held = section.size("max_held", 0..=1 << 50);
    let idle_flush = section.duration(
        "idle_flush",
        Duration::from_millis(100)..=Duration::from_secs(3600),
    );
    let encoding = section.choice("encoding", &ENCODINGS);
    let multiline = section
        .table("multiline")
        .and_then(|mut table| read_multiline(&mut table));
    let time = section.choice("time", &[("auto", Times::Auto), ("none", Times::None)]);
    let ignore_older = section.duration(
        "ignore_older",
        Duration::from_secs(1)..=Duration::from_secs(100 * 365 * 24 * 3600),
    );
    (!paths.is_empty()).then(|| FileConfig {
        name: String::new(),
        common: Common::default(),
        paths,
        exclude,
        start_at: start_at.unwrap_or(StartAt::Beginning),
        max_record,
        idle_flush: idle_flush.unwrap_or(default::IDLE_FLUSH),
        encoding: encoding.unwrap_or(Encodings::All(Encoding::Utf8)),
        multiline,
        ignore_older,
        time: time.unwrap_or(Times::Auto),
        max_held: max_held.map_or(default::MAX_HELD, |size| size.0),
        records: Records::Lines,
    })
}

const ENCODINGS: [(&str, Encodings); 4] = [
    ("utf-8", Encodings::All(Encoding::Utf8)),
    ("utf-16le", Encodings::All(Encoding::Utf16Le)),
    ("utf-16be", Encodings::All(Encoding::Utf16Be)),
    ("auto", Encodings::Auto),
];

fn read_multiline(table: &mut Section<'_>) -> Option<Multiline> {
    let start = table.required_text("start");
    let timeout = table.duration(
        "timeout",
        Duration::from_millis(100)..=Duration::from_secs(3600),
    );
    let start = start?;
    if let Err(why) = check_pattern(&start.value) {
        table.problem_at(
            start.span,
            format!(
                "`start`: {:?} is not a regular expression: {why}",
                start.value
            ),
        );
    }
    Some(Multiline {
        start: start.value,
        timeout: timeout.unwrap_or(default::MULTILINE_TIMEOUT),
    })
}

/// `paths` and `exclude`.
pub(super) fn read_paths(section: &mut Section<'_>) -> (Vec<PathPattern>, Excludes) {
    let texts = section.required_strings("paths");
    let paths: Vec<PathPattern> = texts
        .iter()
        .filter_map(|text| read_pattern(section, text))
        .collect();
    let excludes = section.strings("exclude");
    for text in &excludes {
        if let Err(error) = Excludes::parse(std::slice::from_ref(&text.value)) {
            section.problem_at(text.span.clone(), format!("`exclude`: {error}"));
        }
    }
    let excludes: Vec<String> = excludes.into_iter().map(|text| text.value).collect();
    let excludes = Excludes::parse(&excludes).unwrap_or_else(|_| Excludes::none());
    (paths, excludes)
}

/// `max_record`, the same for all kinds.
pub(super) fn read_start_at(section: &mut Section<'_>) -> Option<StartAt> {
    section.choice(
        "start_at",
        &[("beginning", StartAt::Beginning), ("end", StartAt::End)],
    )
}

pub(super) fn read_max_record(section: &mut Section<'_>, max_record_bytes: u64) -> usize {
    let max_record = section
        .size("max_record", 1024..=MAX_RECORD_BYTES as u64)
        .map_or(default::MAX_RECORD, |size| size.0);
    if max_record > max_record_bytes {
        let message =
            "`max_record` must be at most a sixty-fourth of [spool] `max_size`".to_owned();
        section.problem("max_record", message);
    }
    max_record as usize
}

pub(super) fn read_pattern(section: &Section<'_>, text: &Text) -> Option<PathPattern> {
    let path = section.resolve("paths", text)?;
    let absolute = std::path::absolute(&path).unwrap_or(path);
    let pattern = absolute.to_str().ok_or_else(|| "is not UTF-8".to_owned());
    let pattern =
        pattern.and_then(|pattern| PathPattern::parse(pattern).map_err(|error| error.to_string()));
    pattern
        .map_err(|error| section.problem_at(text.span.clone(), format!("`paths`: {error}")))
        .ok()
}
