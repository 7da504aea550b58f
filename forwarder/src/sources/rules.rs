//! What every `[[source]]` can say, whatever its kind: labels, and rules that leave events out or parts of them.
//!
//! A rule looks at the bytes of one record (of a file in UTF-16: at its text). The first drop rule that is found leaves the whole event
//! out; else every mask rule in the order of the configuration replaces what it finds. Alert rules see the record before masking; a dropped
//! event is no alert. What was masked says so in `watchline.mask`; both are counted by rule. A record that is cut is masked as what is left
//! of it, and the parts of a line that was sent in parts are masked each by itself: a secret that lies across the edge is not found.

use std::{collections::BTreeMap, sync::Arc};

use regex::bytes::Regex;

use crate::patterns::{Patterns, pattern};

/// The attribute that a label of the source travels as, with the label's name behind it.
pub(crate) const LABEL_PREFIX: &str = "watchline.label.";
/// The group of a mask's pattern that is replaced instead of all that the pattern finds.
const SECRET: &str = "secret";

/// See the module. Valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Common {
    /// Hold over the labels of the batch.
    pub(crate) labels: BTreeMap<String, String>,
    /// `[[source.drop]]` in their order, then `[[source.mask]]` in theirs.
    pub(crate) rules: Vec<Filter>,
}

/// A `[[source.drop]]` or `[[source.mask]]`, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Regular expressions; any of them. Not empty.
    pub(crate) matches: Vec<String>,
    pub(crate) action: Action,
}

/// What a rule does with what it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Drop,
    Mask {
        /// Stands in the place of what was found.
        replace: String,
    },
}

impl Action {
    /// The word in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Action::Drop => "drop",
            Action::Mask { .. } => "mask",
        }
    }
}

impl Common {
    /// What an origin of this source carries beside its own attributes.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (String, String)> {
        self.labels
            .iter()
            .map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value.clone()))
    }
}

/// The rules of one source, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    patterns: Patterns,
    /// Index into `rules`, by pattern.
    of_pattern: Vec<usize>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    filter: Arc<Filter>,
    /// Of a mask; those of a drop rule are only held against the record in `patterns`.
    regexes: Vec<Regex>,
}

/// What becomes of one record.
#[derive(Debug)]
pub(crate) enum Verdict<'a> {
    Keep,
    Drop(&'a Arc<Filter>),
    /// What is sent instead is in the buffer; these replaced something in it.
    Mask(Vec<&'a Arc<Filter>>),
}

impl Rules {
    /// `None`: the source has none, and pays nothing for them.
    pub(crate) fn compile(common: &Common) -> Option<Arc<Rules>> {
        let (mut texts, mut of_pattern) = (Vec::new(), Vec::new());
        let mut rules = Vec::new();
        for (no, filter) in common.rules.iter().enumerate() {
            texts.extend(filter.matches.iter().map(String::as_str));
            of_pattern.extend(filter.matches.iter().map(|_| no));
            let masks = matches!(filter.action, Action::Mask { .. });
            let regexes = filter.matches.iter().filter(|_| masks);
            rules.push(Rule {
                filter: Arc::new(filter.clone()),
                // Each was compiled when the configuration was read.
                regexes: regexes.filter_map(|text| pattern(text).ok()).collect(),
            });
        }
        (!rules.is_empty()).then(|| {
            Arc::new(Rules {
                patterns: Patterns::compile(&texts),
                of_pattern,
                rules,
            })
        })
    }

    /// See [`Patterns::suspects`]: the lines that [`Rules::judge`] has to look at.
    pub(crate) fn suspects(&self, block: &[u8], starts: &mut Vec<usize>) {
        self.patterns.suspects(block, starts);
    }

    /// What becomes of `record`. `masked` is overwritten; it grows to `most` bytes and one replacement.
    pub(crate) fn judge(&self, record: &[u8], most: usize, masked: &mut Vec<u8>) -> Verdict<'_> {
        let mut found: Vec<usize> = (self.patterns.found_in(record))
            .map(|pattern| self.of_pattern[pattern])
            .collect();
        found.dedup();
        let mut by = Vec::new();
        let mut scratch = Vec::new();
        for rule in found.into_iter().map(|no| &self.rules[no]) {
            let Action::Mask { replace } = &rule.filter.action else {
                // Drop rules come first: nothing has been masked yet.
                return Verdict::Drop(&rule.filter);
            };
            let mut replaced = false;
            for regex in &rule.regexes {
                let text = if by.is_empty() && !replaced {
                    record
                } else {
                    &masked[..]
                };
                if replace_all(regex, text, replace.as_bytes(), most, &mut scratch) {
                    std::mem::swap(masked, &mut scratch);
                    replaced = true;
                }
            }
            if replaced {
                by.push(&rule.filter);
            }
        }
        if by.is_empty() {
            Verdict::Keep
        } else {
            Verdict::Mask(by)
        }
    }
}

/// The value of `watchline.mask`.
pub(crate) fn mask_attribute(by: &[&Arc<Filter>]) -> String {
    let names: Vec<String> = (by.iter())
        .map(|filter| format!("{}@{}", filter.name, filter.version))
        .collect();
    names.join(",")
}

/// Copies `text` to `out` with each match, or its group `secret` where the pattern has one, replaced; stops beyond `most` bytes (then the
/// caller cuts it there). `false`: nothing was replaced.
fn replace_all(regex: &Regex, text: &[u8], replace: &[u8], most: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    let has_secret = regex.capture_names().flatten().any(|name| name == SECRET);
    let mut at = 0;
    let mut put = |range: std::ops::Range<usize>| {
        if !range.is_empty() && out.len() <= most {
            out.extend_from_slice(&text[at..range.start]);
            out.extend_from_slice(replace);
            at = range.end;
        }
    };
    if has_secret {
        for captures in regex.captures_iter(text) {
            if let Some(secret) = captures.name(SECRET) {
                put(secret.range());
            }
        }
    } else {
        for found in regex.find_iter(text) {
            put(found.range());
        }
    }
    if out.len() <= most {
        out.extend_from_slice(&text[at..]);
    }
    at > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, matches: &[&str], action: Action) -> Filter {
        Filter {
            name: name.into(),
            version: "1".into(),
            matches: matches.iter().map(|text| (*text).to_owned()).collect(),
            action,
        }
    }

    fn mask(name: &str, matches: &[&str], replace: &str) -> Filter {
        let replace = replace.to_owned();
        filter(name, matches, Action::Mask { replace })
    }

    /// What is sent, and what is said of it; `None`: it is dropped.
    fn judged(rules: &[Filter], record: &str) -> Option<(String, String)> {
        let common = Common {
            rules: rules.to_vec(),
            ..Common::default()
        };
        let rules = Rules::compile(&common).unwrap();
        let mut masked = Vec::new();
        match rules.judge(record.as_bytes(), 1 << 20, &mut masked) {
            Verdict::Keep => Some((record.to_owned(), String::new())),
            Verdict::Drop(_) => None,
            Verdict::Mask(by) => Some((String::from_utf8(masked).unwrap(), mask_attribute(&by))),
        }
    }

    #[test]
    fn every_match_is_replaced_or_only_its_secret() {
        let cards = mask("cards", &["[0-9]{4}"], "***");
        let password = mask("password", &[r"password=(?<secret>\S+)", r"pin=\d+"], "#");
        let both = [cards, password];
        let expect = |record: &str, body: &str, by: &str| {
            assert_eq!(judged(&both, record), Some((body.into(), by.into())));
        };
        expect("1234 and 5678", "*** and ***", "cards@1");
        expect(
            "password=x password=y",
            "password=# password=#",
            "password@1",
        );
        expect(
            "1234 password=abc pin=1",
            "*** password=# #",
            "cards@1,password@1",
        );
        expect("nothing of it", "nothing of it", "");
        expect("$0 $1 1234", "$0 $1 ***", "cards@1");
    }

    #[test]
    fn a_dropped_record_is_not_masked_first() {
        let rules = [
            filter("noise", &["^debug", "trace$"], Action::Drop),
            mask("digits", &["[0-9]"], "*"),
        ];
        assert_eq!(judged(&rules, "debug 1"), None);
        assert_eq!(judged(&rules, "1 trace"), None);
        assert_eq!(
            judged(&rules, "info 1"),
            Some(("info *".into(), "digits@1".into()))
        );
    }

    #[test]
    fn a_replacement_that_is_longer_than_what_it_replaces_stays_bounded() {
        let rules = Common {
            rules: vec![mask("all", &["x"], &"y".repeat(64))],
            ..Common::default()
        };
        let rules = Rules::compile(&rules).unwrap();
        let mut masked = Vec::new();
        let record = vec![b'x'; 1000];
        let _ = rules.judge(&record, 1000, &mut masked);
        assert!(
            (1000..=1000 + 64).contains(&masked.len()),
            "{}",
            masked.len()
        );
    }
}
