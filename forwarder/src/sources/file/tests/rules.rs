//! Rules and labels of the source.

use super::*;
use crate::sources::{Action, Filter};

pub(super) fn filter(name: &str, matches: &str, replace: Option<&str>) -> Filter {
    Filter {
        name: name.into(),
        version: "7".into(),
        matches: vec![matches.into()],
        action: replace.map_or(Action::Drop, |replace| Action::Mask {
            replace: replace.to_owned(),
        }),
    }
}

#[test]
fn what_rules_drop_is_left_out_and_what_they_mask_says_so_and_alerts_see_it_before() {
    let mut host = Host::new(&["a.log"]);
    host.config.common.rules = vec![
        filter("debug", "^DEBUG", None),
        filter("cards", "[0-9]{4}-[0-9]{4}", Some("####")),
        filter("password", "password=(?<secret>\\S+)", Some("***")),
    ];
    host.rules = vec![AlertRule {
        name: "weak".into(),
        matches: vec!["password=letmein".into()],
        sources: Vec::new(),
        min_severity: None,
        max_rate: 1000,
        ..AlertRule::default()
    }];
    host.turn();
    let long = format!("DEBUG {}", "x".repeat(5000));
    host.append("a.log", format!("one\nDEBUG two\npaid 1234-5678\n{long}\npassword=letmein 1111-2222\nend DEBUG\nDEBUG pass"));
    host.turns(8);
    assert_eq!(
        host.bodies(),
        ["password=*** ####", "one", "paid ####", "end DEBUG"],
        "alerts are sealed first here"
    );
    let records = host.records();
    assert_eq!(
        records[0].attribute("watchline.mask"),
        Some("cards@7,password@7")
    );
    assert_eq!(records[0].attribute("watchline.alert.rule"), Some("weak"));
    assert_eq!(records[1].attribute("watchline.mask"), None);
    assert_eq!(records[2].attribute("watchline.mask"), Some("cards@7"));
    let counted: Vec<(&str, u64)> = (host.filtered.iter())
        .map(|(name, &n)| (name.as_str(), n))
        .collect();
    assert_eq!(counted, [("cards", 2), ("debug", 3), ("password", 1)]);
    assert_eq!(host.gaps(), [] as [&Record; 0]);
}

#[test]
fn labels_of_the_source_are_in_every_event_and_change_with_the_configuration() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "1\n");
    host.turn();
    host.config.common.labels = [("team".to_owned(), "web".to_owned())].into();
    let (config, mut source) = (host.config.clone(), host.source());
    source.reconfigure(SourceNo(0), config, &host.lanes);
    host.source = Some(source);
    host.append("a.log", "2\n");
    host.turn();
    let team = |at: usize| host.records()[at].attribute("watchline.label.team");
    assert_eq!((team(0), team(1)), (None, Some("web")));
    host.expect(&["1", "2"]);
}
