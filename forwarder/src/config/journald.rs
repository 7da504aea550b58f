//! The keys of `[[source]]` with `kind = "journald"`.

use std::path::PathBuf;

use watchline_node::config::Section;

use super::sources::read_max_record;
use crate::sources::{
    Common,
    journald::{JournaldConfig, PRIORITIES, StartAt, Units, default_tool},
};

/// All that is right, without the name; the rest has been reported.
pub(super) fn read(section: &mut Section<'_>, max_record_bytes: u64) -> Option<JournaldConfig> {
    let directory = section.path("directory");
    let units = section.strings("units");
    for unit in &units {
        if let Err(error) = Units::new(std::slice::from_ref(&unit.value)) {
            let message = format!("`units`: {error}");
            section.problem_at(unit.span.clone(), message);
        }
    }
    let units: Vec<String> = units.into_iter().map(|unit| unit.value).collect();
    let words: [(&str, u8); 8] = std::array::from_fn(|at| (PRIORITIES[at], at as u8));
    let min_priority = section.choice("min_priority", &words);
    let start_at = section.choice(
        "start_at",
        &[("beginning", StartAt::Beginning), ("end", StartAt::End)],
    );
    let max_record = read_max_record(section, max_record_bytes);
    let journalctl = if section.has("journalctl") {
        read_tool(section)
    } else {
        Some(default_tool())
    };
    Some(JournaldConfig {
        name: String::new(),
        common: Common::default(),
        directory: directory.map(|directory| std::path::absolute(&directory).unwrap_or(directory)),
        units: (!units.is_empty())
            .then(|| Units::new(&units).ok())
            .flatten(),
        min_priority,
        start_at: start_at.unwrap_or(StartAt::Beginning),
        max_record,
        journalctl: journalctl?,
    })
}

/// A name without a slash is looked for where programs are; anything else is a path like all others.
fn read_tool(section: &mut Section<'_>) -> Option<PathBuf> {
    let text = section.text("journalctl")?;
    if text.value.contains('/') {
        section.resolve("journalctl", &text)
    } else if text.value.is_empty() {
        let message = "`journalctl` must not be empty: a program like \"journalctl\"".to_owned();
        section.problem_at(text.span, message);
        None
    } else {
        Some(PathBuf::from(text.value))
    }
}
