//! The keys of `[[source]]` with `kind = "evtx"`.

use watchline_node::config::Section;

use super::sources::{read_max_record, read_paths, read_start_at};
use crate::sources::{Common, evtx::EvtxConfig, file::StartAt};

/// All that is right, without the name; the rest has been reported.
pub(super) fn read(section: &mut Section<'_>, max_record_bytes: u64) -> Option<EvtxConfig> {
    let (paths, exclude) = read_paths(section);
    let start_at = read_start_at(section);
    let max_record = read_max_record(section, max_record_bytes);
    (!paths.is_empty()).then(|| EvtxConfig {
        name: String::new(),
        common: Common::default(),
        paths,
        exclude,
        start_at: start_at.unwrap_or(StartAt::Beginning),
        max_record,
    })
}
