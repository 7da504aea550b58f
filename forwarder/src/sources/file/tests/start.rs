//! The first start of a source.

use super::*;

#[test]
fn what_was_there_at_the_first_start_is_backfill_up_to_that_size() {
    let mut host = Host::new(&["*.log"]);
    host.rules = vec![AlertRule {
        name: "all".into(),
        matches: vec![".".into()],
        sources: Vec::new(),
        min_severity: None,
        max_rate: 1000,
        ..AlertRule::default()
    }];
    host.append("a.log", "old\nol");
    host.turn();
    host.append("a.log", "d\nnew\n");
    host.append("b.log", "b\n");
    host.restart();
    host.turn();
    let seen: HashMap<String, (Lane, bool)> = (host.records().iter())
        .map(|r| {
            (
                String::from_utf8_lossy(&r.body).into(),
                (r.lane, r.attribute("watchline.backfill").is_some()),
            )
        })
        .collect();
    let expected = [
        ("old", Lane::Routine, true),
        ("new", Lane::Alert, false),
        ("b", Lane::Alert, false),
    ];
    assert_eq!(host.records().len(), 4);
    for (body, lane, backfill) in expected {
        assert_eq!(seen[body], (lane, backfill), "{body}");
    }
}

/// TAILING 36.
#[test]
fn start_at_end_holds_for_files_that_are_there_at_the_first_start_only() {
    let mut host = Host::new(&["*.log"]);
    host.config.start_at = StartAt::End;
    host.append("a.log", "old\nbegun");
    host.turn();
    host.restart();
    host.append("b.log", "new file\n");
    host.append("a.log", " and ended\n");
    host.turn();
    let mut bodies = host.bodies();
    bodies.sort();
    assert_eq!(bodies, ["begun and ended", "new file"]);
}
