//! What every `[[source]]` can say: `[source.labels]`, `[[source.drop]]`, `[[source.mask]]`.

use std::collections::BTreeSet;

use watchline_node::config::Section;
use watchline_proto::MAX_LABEL_NAME_BYTES;

use super::{alerts::read_patterns, default, read_labels};
use crate::sources::{Action, Common, Filter, LABEL_PREFIX};

/// Labels of one source: half of what an origin can carry.
const MAX_SOURCE_LABELS: usize = 32;
/// Bytes of a rule's `name`, and of its `version`: several of them fit into one attribute.
const MAX_NAME_BYTES: usize = 63;
/// Bytes of `replace`.
const MAX_REPLACE_BYTES: usize = 64;

/// Problems are reported; what is wrong is left out.
pub(super) fn read(section: &mut Section<'_>) -> Common {
    let mut labels = std::collections::BTreeMap::new();
    if let Some(mut table) = section.table("labels") {
        labels = read_labels(&mut table);
        let longest = MAX_LABEL_NAME_BYTES - LABEL_PREFIX.len();
        if labels.len() > MAX_SOURCE_LABELS || labels.keys().any(|name| name.len() > longest) {
            let span = table.span();
            let message = format!(
                "a source has at most {MAX_SOURCE_LABELS} labels, their names at most {longest} bytes"
            );
            table.problem_at(span, message);
        }
    }
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for mut table in section.tables("drop") {
        rules.extend(read_filter(&mut table, Action::Drop, &mut names));
    }
    for mut table in section.tables("mask") {
        let replace = read_replace(&mut table);
        rules.extend(read_filter(
            &mut table,
            Action::Mask { replace },
            &mut names,
        ));
    }
    Common { labels, rules }
}

fn read_replace(table: &mut Section<'_>) -> String {
    let Some(text) = table.text("replace") else {
        return default::REPLACE.to_owned();
    };
    if text.value.len() > MAX_REPLACE_BYTES {
        let message = format!("`replace` must be at most {MAX_REPLACE_BYTES} bytes long");
        table.problem_at(text.span, message);
    }
    text.value
}

fn read_filter(
    table: &mut Section<'_>,
    action: Action,
    names: &mut BTreeSet<String>,
) -> Option<Filter> {
    let name = read_word(table, "name");
    if name.is_none() && !table.has("name") {
        table.required_text("name");
    }
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        let message = format!("`name`: this source has another rule {name:?}");
        table.problem("name", message);
    }
    let version = read_word(table, "version");
    let matches = read_patterns(table);
    if matches.is_empty() && !table.has("matches") {
        table.required_strings("matches");
    } else if matches.is_empty() {
        let message = "`matches` must have at least one entry".to_owned();
        table.problem("matches", message);
    }
    let finds_nothing =
        |text: &String| crate::patterns::pattern(text).is_ok_and(|pattern| pattern.is_match(b""));
    if matches!(action, Action::Mask { .. }) && matches.iter().any(finds_nothing) {
        let message = "`matches`: a pattern that finds the empty text masks nothing".to_owned();
        table.problem("matches", message);
    }
    Some(Filter {
        name: name?,
        version: version.unwrap_or_else(|| default::RULE_VERSION.to_owned()),
        matches,
        action,
    })
}

/// A word that stands in `watchline.mask`, where `@` and `,` have a meaning.
fn read_word(table: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = table.text(key)?;
    let right = (1..=MAX_NAME_BYTES).contains(&text.value.len())
        && !text
            .value
            .contains(|c: char| c.is_control() || "@,".contains(c));
    if !right {
        let message = format!(
            "`{key}` must be 1 to {MAX_NAME_BYTES} bytes without `@`, `,` or control characters"
        );
        table.problem_at(text.span, message);
        return None;
    }
    Some(text.value)
}
