//! Which lane an event takes: the `[[alert]]` rules, held against whole blocks rather than line by line.
//!
//! Without a rule everything is routine. An event is an alert when a rule of its source matches it: any of the rule's patterns
//! (if it has some) is found in the record, and the record's severity is at least `min_severity` (if given; an unknown
//! severity is not). The built-in rules ([`builtin`]) come behind them. Each rule lets at most `max_rate` alerts a second through; what is beyond goes the routine way and is counted.

mod builtin;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::builtin::{NAMES as BUILTIN_NAMES, rules as builtin_rules};
use crate::patterns::Patterns;

/// One `[[alert]]`, valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AlertRule {
    /// Travels with the event as `watchline.alert.rule`.
    pub(crate) name: String,
    /// Regular expressions over the bytes of one record; any of them. Empty: the severity alone decides.
    pub(crate) matches: Vec<String>,
    /// Names of the sources it applies to; empty: all.
    pub(crate) sources: Vec<String>,
    /// OpenTelemetry severity number, 1 to 24.
    pub(crate) min_severity: Option<u8>,
    /// Alerts a second.
    pub(crate) max_rate: u32,
    /// Patterns that have to be found too, each of them. Only built-in rules have what follows.
    pub(crate) requires: Vec<String>,
    /// Patterns none of which may be found.
    pub(crate) unless: Vec<String>,
    /// Plain text, one of which is in every record that the rule matches. Empty: not known.
    pub(crate) signs: Vec<String>,
}

/// Index of a rule among the configured ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleNo(usize);

/// The rules in force.
pub(crate) struct Lanes {
    rules: Vec<Rule>,
}

struct Rule {
    rule: AlertRule,
    rate: Rate,
    /// Events that matched beyond the rate, since they were taken away last.
    excess: u64,
}

/// A bucket that holds one second's worth.
struct Rate {
    tokens: f64,
    filled: Option<Instant>,
}

impl Lanes {
    pub(crate) fn new(rules: Vec<AlertRule>) -> Lanes {
        let rate = |rule: &AlertRule| Rate {
            tokens: f64::from(rule.max_rate),
            filled: None,
        };
        let rules = rules.into_iter().map(|rule| Rule {
            rate: rate(&rule),
            rule,
            excess: 0,
        });
        Lanes {
            rules: rules.collect(),
        }
    }

    /// What holds for one source; `None` when no rule does.
    pub(crate) fn matcher(&self, source: &str) -> Option<Arc<Matcher>> {
        let applies = |rule: &&(usize, &Rule)| {
            let sources = &rule.1.rule.sources;
            sources.is_empty() || sources.iter().any(|name| name == source)
        };
        let rules: Vec<(RuleNo, &AlertRule)> = (self.rules.iter().enumerate())
            .filter(|rule| applies(&rule))
            .map(|(no, rule)| (RuleNo(no), &rule.rule))
            .collect();
        Matcher::compile(&rules).map(Arc::new)
    }

    pub(crate) fn name(&self, rule: RuleNo) -> &str {
        &self.rules[rule.0].rule.name
    }

    /// Whether one more alert of this rule may overtake now.
    pub(crate) fn admit(&mut self, rule: RuleNo, now: Instant) -> bool {
        let Rule { rule, rate, excess } = &mut self.rules[rule.0];
        let most = f64::from(rule.max_rate);
        let passed = rate.filled.map_or(Duration::ZERO, |filled| {
            now.saturating_duration_since(filled)
        });
        rate.tokens = (rate.tokens + passed.as_secs_f64() * most).min(most);
        rate.filled = Some(now);
        if rate.tokens >= 1.0 {
            rate.tokens -= 1.0;
            return true;
        }
        *excess += 1;
        false
    }

    /// How many events each rule sent the routine way since the last call.
    pub(crate) fn take_excess(&mut self) -> impl Iterator<Item = (&str, u64)> {
        self.rules
            .iter_mut()
            .filter(|rule| rule.excess > 0)
            .map(|rule| (rule.rule.name.as_str(), std::mem::take(&mut rule.excess)))
    }
}

/// The compiled rules of one source.
#[derive(Debug)]
pub(crate) struct Matcher {
    texts: Patterns,
    /// Those with patterns, in the order of the configuration.
    rules: Vec<Compiled>,
    /// Rules that ask for a severity alone.
    severities: Vec<(RuleNo, u8)>,
}

/// A rule, its patterns as indexes of the matcher's.
#[derive(Debug)]
struct Compiled {
    no: RuleNo,
    least_severity: u8,
    matches: Range<usize>,
    requires: Range<usize>,
    unless: Range<usize>,
}

impl Matcher {
    fn compile(rules: &[(RuleNo, &AlertRule)]) -> Option<Matcher> {
        let (mut texts, mut screens, mut signs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut compiled, mut severities) = (Vec::new(), Vec::new());
        for &(no, rule) in rules {
            let least_severity = rule.min_severity.unwrap_or(0);
            if rule.matches.is_empty() {
                severities.push((no, least_severity.max(1)));
                continue;
            }
            let known = if rule.signs.is_empty() {
                (&rule.matches, &mut screens)
            } else {
                (&rule.signs, &mut signs)
            };
            known.1.extend(known.0.iter().map(String::as_str));
            let mut add = |patterns: &'_ [String]| {
                let from = texts.len();
                texts.extend(patterns.iter().cloned());
                from..texts.len()
            };
            compiled.push(Compiled {
                no,
                least_severity,
                matches: add(&rule.matches),
                requires: add(&rule.requires),
                unless: add(&rule.unless),
            });
        }
        if compiled.is_empty() && severities.is_empty() {
            return None;
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        signs.sort_unstable();
        signs.dedup();
        Some(Matcher {
            texts: Patterns::screened(&texts, &screens, &signs),
            rules: compiled,
            severities,
        })
    }

    /// See [`Patterns::suspects`]: the lines that [`Matcher::rule`] has to look at.
    pub(crate) fn suspects(&self, block: &[u8], starts: &mut Vec<usize>) {
        if self.severities.is_empty() {
            self.texts.suspects(block, starts);
        } else {
            Patterns::every_line(block, starts);
        }
    }

    /// The first rule, in the order of the configuration, that this record matches.
    pub(crate) fn rule(&self, record: &[u8], severity: u8) -> Option<RuleNo> {
        let by_severity = self
            .severities
            .iter()
            .find(|(_, least)| severity >= *least)
            .map(|(no, _)| *no);
        let found: Vec<usize> = self.texts.found_in(record).collect();
        let any_of = |range: &Range<usize>| found.iter().any(|at| range.contains(at));
        let all_of = |range: &Range<usize>| range.clone().all(|at| found.contains(&at));
        let by_pattern = self.rules.iter().find(|rule| {
            severity >= rule.least_severity
                && any_of(&rule.matches)
                && all_of(&rule.requires)
                && !any_of(&rule.unless)
        });
        let by_pattern = by_pattern.filter(|_| !found.is_empty()).map(|rule| rule.no);
        match (by_severity, by_pattern) {
            (Some(a), Some(b)) => Some(if a.0 < b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}
