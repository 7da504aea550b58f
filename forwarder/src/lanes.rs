//! Which lane an event takes: the `[[alert]]` rules, held against whole blocks rather than line by line.
//!
//! Without a rule everything is routine. An event is an alert when a rule of its source matches it: any of the rule's patterns
//! (if it has some) is found in the record, and the record's severity is at least `min_severity` (if given; an unknown
//! severity is not). Each rule lets at most `max_rate` alerts a second through; what is beyond goes the routine way and is counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::patterns::Patterns;

/// One `[[alert]]`, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Rule and least severity, by pattern of `texts`.
    patterns: Vec<(RuleNo, u8)>,
    /// Rules that ask for a severity alone.
    severities: Vec<(RuleNo, u8)>,
}

impl Matcher {
    fn compile(rules: &[(RuleNo, &AlertRule)]) -> Option<Matcher> {
        let (mut texts, mut patterns, mut severities) = (Vec::new(), Vec::new(), Vec::new());
        for (no, rule) in rules {
            let least = rule.min_severity.unwrap_or(0);
            if rule.matches.is_empty() {
                severities.push((*no, least.max(1)));
            }
            for text in &rule.matches {
                texts.push(text.as_str());
                patterns.push((*no, least));
            }
        }
        if patterns.is_empty() && severities.is_empty() {
            return None;
        }
        Some(Matcher {
            texts: Patterns::compile(&texts),
            patterns,
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
        let by_pattern = (self.texts.found_in(record))
            .map(|at| self.patterns[at])
            .find(|(_, least)| severity >= *least)
            .map(|(no, _)| no);
        match (by_severity, by_pattern) {
            (Some(a), Some(b)) => Some(if a.0 < b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: &[&str]) -> AlertRule {
        let matches = matches.iter().map(|text| (*text).to_owned()).collect();
        AlertRule {
            name: "r".into(),
            matches,
            sources: Vec::new(),
            min_severity: None,
            max_rate: 2,
        }
    }

    fn lines_found(matches: &[&str], block: &str) -> Vec<String> {
        let lanes = Lanes::new(vec![rule(matches)]);
        let matcher = lanes.matcher("s").unwrap();
        let mut starts = Vec::new();
        matcher.suspects(block.as_bytes(), &mut starts);
        let mut found = Vec::new();
        for start in starts {
            let line = block[start..].split('\n').next().unwrap();
            if matcher.rule(line.as_bytes(), 0).is_some() {
                found.push(line.to_owned());
            }
        }
        found
    }

    #[test]
    fn a_block_gives_the_same_alerts_as_its_lines_one_by_one() {
        let block = "ok\nfoo\n bar\nfoo bar\n\nbaz\nend foo";
        let patterns = [
            "foo",
            "^foo",
            "foo$",
            "^$",
            "\\sbar",
            "o[^x]*b",
            "(?i)FOO",
            "\\Afoo\\z",
            "(?-m)^foo$",
            "a|e",
            "(?x) foo # comment",
            "(?s)k.*z",
            "nothing",
            "",
        ];
        for a in patterns {
            for b in patterns {
                let matcher = Lanes::new(vec![rule(&[a, b])]).matcher("s").unwrap();
                let expected: Vec<&str> = block
                    .split('\n')
                    .filter(|line| matcher.rule(line.as_bytes(), 0).is_some())
                    .collect();
                assert_eq!(lines_found(&[a, b], block), expected, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn alerts_beyond_the_rate_of_a_rule_are_held_to_it() {
        let mut lanes = Lanes::new(vec![rule(&["x"])]);
        let start = Instant::now();
        let admitted = (0..10).filter(|_| lanes.admit(RuleNo(0), start)).count();
        assert_eq!(admitted, 2);
        assert_eq!(lanes.take_excess().collect::<Vec<_>>(), [("r", 8)]);
        assert!(lanes.admit(RuleNo(0), start + Duration::from_millis(500)));
        assert!(!lanes.admit(RuleNo(0), start + Duration::from_millis(500)));
    }

    #[test]
    fn rules_apply_to_their_sources_and_an_unknown_severity_is_no_severity() {
        let severe = AlertRule {
            min_severity: Some(17),
            matches: Vec::new(),
            ..rule(&[])
        };
        let there = AlertRule {
            sources: vec!["there".into()],
            ..rule(&["x"])
        };
        let lanes = Lanes::new(vec![severe, there]);
        let here = lanes.matcher("here").unwrap();
        assert_eq!(here.rule(b"x", 0), None);
        assert_eq!(here.rule(b"x", 17), Some(RuleNo(0)));
        assert_eq!(
            lanes.matcher("there").unwrap().rule(b"x", 0),
            Some(RuleNo(1))
        );
        assert!(Lanes::new(Vec::new()).matcher("here").is_none());
    }
}
