//! `[[alert]]`

use std::collections::BTreeSet;

use watchline_node::config::Section;

use super::default;
use crate::{lanes::AlertRule, patterns::check_pattern, sources::SourceConfig};

/// OpenTelemetry's severities by name, each with the lowest of its numbers.
const SEVERITIES: [(&str, u8); 6] = [
    ("TRACE", 1),
    ("DEBUG", 5),
    ("INFO", 9),
    ("WARN", 13),
    ("ERROR", 17),
    ("FATAL", 21),
];

/// All rules that are right; the others have been reported.
pub(super) fn read(root: &mut Section<'_>, sources: &[SourceConfig]) -> Vec<AlertRule> {
    let mut names = BTreeSet::new();
    let sections = root.tables("alert");
    sections
        .into_iter()
        .filter_map(|mut section| read_one(&mut section, sources, &mut names))
        .collect()
}

fn read_one(
    section: &mut Section<'_>,
    sources: &[SourceConfig],
    names: &mut BTreeSet<String>,
) -> Option<AlertRule> {
    let name = section.required_text("name");
    if let Some(name) = &name
        && !names.insert(name.value.clone())
    {
        section.problem_at(
            name.span.clone(),
            format!("`name`: there is another rule {:?}", name.value),
        );
    }
    let matches = read_patterns(section);
    let only = section.strings("sources");
    for text in &only {
        if !sources.iter().any(|source| source.name() == text.value) {
            section.problem_at(
                text.span.clone(),
                format!("`sources`: there is no source {:?}", text.value),
            );
        }
    }
    let min_severity = section.choice("min_severity", &SEVERITIES);
    let max_rate = section
        .integer("max_rate", 1..=100_000)
        .unwrap_or(default::MAX_RATE);
    if matches.is_empty() && !section.has("min_severity") {
        section.problem(
            "matches",
            "a rule needs `matches` or `min_severity`: this one would match nothing".to_owned(),
        );
    }
    Some(AlertRule {
        name: name?.value,
        matches,
        sources: only.into_iter().map(|text| text.value).collect(),
        min_severity,
        max_rate: u32::try_from(max_rate).unwrap_or(u32::MAX),
    })
}

/// `matches`; what is no regular expression is reported.
pub(super) fn read_patterns(section: &mut Section<'_>) -> Vec<String> {
    let matches = section.strings("matches");
    for text in &matches {
        if let Err(why) = check_pattern(&text.value) {
            section.problem_at(
                text.span.clone(),
                format!(
                    "`matches`: {:?} is not a regular expression: {why}",
                    text.value
                ),
            );
        }
    }
    matches.into_iter().map(|text| text.value).collect()
}
