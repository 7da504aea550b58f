//! `[[alert]]` and `[lanes]`

use std::collections::BTreeSet;

use watchline_node::config::Section;

use super::default;
use crate::{
    lanes::{AlertRule, BUILTIN_NAMES, builtin_rules},
    patterns::check_pattern,
    sources::SourceConfig,
};

/// OpenTelemetry's severities by name, each with the lowest of its numbers.
const SEVERITIES: [(&str, u8); 6] = [
    ("TRACE", 1),
    ("DEBUG", 5),
    ("INFO", 9),
    ("WARN", 13),
    ("ERROR", 17),
    ("FATAL", 21),
];

/// All rules that are right, the built-in ones behind those of the configuration; the others have been reported.
pub(super) fn read(root: &mut Section<'_>, sources: &[SourceConfig]) -> Vec<AlertRule> {
    let mut names = BTreeSet::new();
    let sections = root.tables("alert");
    let mut rules: Vec<AlertRule> = sections
        .into_iter()
        .filter_map(|mut section| read_one(&mut section, sources, &mut names))
        .collect();
    let disabled = root.table("lanes").map(|mut section| {
        let is_on = section.boolean("builtin_rules").unwrap_or(true);
        let disabled = read_disabled(&mut section);
        (is_on, disabled)
    });
    let (is_on, disabled) = disabled.unwrap_or((true, Vec::new()));
    if is_on {
        let kinds: Vec<(&str, &str)> = sources
            .iter()
            .map(|source| (source.name(), source.kind()))
            .collect();
        // A rule of the configuration takes the place of the built-in one with its name.
        let without = names.iter().chain(&disabled).map(String::as_str);
        rules.extend(builtin_rules(&kinds, &without.collect::<Vec<_>>()));
    }
    rules
}

/// `disable`: names of built-in rules.
fn read_disabled(section: &mut Section<'_>) -> Vec<String> {
    let disabled = section.strings("disable");
    for text in &disabled {
        if !BUILTIN_NAMES.contains(&text.value.as_str()) {
            let names = BUILTIN_NAMES.join(", ");
            let message = format!(
                "`disable`: there is no built-in rule {:?}; there are {names}",
                text.value
            );
            section.problem_at(text.span.clone(), message);
        }
    }
    disabled.into_iter().map(|text| text.value).collect()
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
        ..AlertRule::default()
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
