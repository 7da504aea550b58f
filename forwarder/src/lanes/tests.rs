//! The rules of a configuration; the built-in ones have their tests beside them.

use super::*;

fn rule(matches: &[&str]) -> AlertRule {
    let matches = matches.iter().map(|text| (*text).to_owned()).collect();
    AlertRule {
        name: "r".into(),
        matches,
        sources: Vec::new(),
        min_severity: None,
        max_rate: 2,
        ..AlertRule::default()
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
