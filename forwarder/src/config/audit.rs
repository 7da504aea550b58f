//! `[[source]]` of kind `audit`.

use watchline_node::config::Section;

use super::{
    default,
    sources::{read_pattern, read_start_at},
};
use crate::sources::{
    Common,
    file::{Encoding, Encodings, Excludes, FileConfig, PathPattern, Records, StartAt, Times},
};

/// `max_record` may be at most this: one batch takes a cluster of events with all that is decoded of them.
const MOST_BYTES: u64 = 1 << 20;

/// Problems are reported; `name` and what is common to all kinds are the caller's.
pub(super) fn read(section: &mut Section<'_>, max_record_bytes: u64) -> Option<FileConfig> {
    let texts = section.strings("paths");
    let paths: Vec<PathPattern> = if section.has("paths") {
        texts
            .iter()
            .filter_map(|text| read_pattern(section, text))
            .collect()
    } else {
        PathPattern::parse(default::AUDIT_LOG).into_iter().collect()
    };
    if section.has("paths") && texts.is_empty() {
        let message = "`paths` must have at least one entry".to_owned();
        section.problem("paths", message);
    }
    let start_at = read_start_at(section);
    let most = MOST_BYTES.min(max_record_bytes).max(64 << 10);
    let max_record = section
        .size("max_record", 64 << 10..=most)
        .map_or(default::AUDIT_MAX_RECORD.min(most), |size| size.0);
    (!paths.is_empty()).then(|| FileConfig {
        name: String::new(),
        common: Common::default(),
        paths,
        exclude: Excludes::none(),
        start_at: start_at.unwrap_or(StartAt::Beginning),
        max_record: max_record as usize,
        idle_flush: default::IDLE_FLUSH,
        encoding: Encodings::All(Encoding::Utf8),
        multiline: None,
        ignore_older: None,
        time: Times::None,
        records: Records::Audit,
        max_held: default::MAX_HELD,
    })
}
