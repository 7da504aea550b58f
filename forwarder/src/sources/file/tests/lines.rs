//! Lines: what is a record, and which lane it takes.

use super::*;

#[test]
fn lines_arrive_once_and_byte_for_byte() {
    let mut host = Host::running(&["*.log"]);
    host.append("a.log", b"one\r\n\ntwo \xff\0x\nthree");
    host.turns(2);
    assert_eq!(
        host.records()
            .iter()
            .map(|r| r.body.as_slice())
            .collect::<Vec<_>>(),
        [&b"one\r"[..], b"", b"two \xff\0x"]
    );
    host.append("a.log", "!\n");
    host.restart();
    host.turn();
    assert_eq!(host.bodies().last().unwrap(), "three!");
    assert_eq!(host.records().len(), 4);
    assert_eq!(
        host.records()[0].path,
        host.path("a.log").display().to_string()
    );
    assert_eq!(host.records()[0].attribute("log.file.name"), Some("a.log"));
}

/// TAILING 22.
#[test]
fn an_incomplete_line_waits_then_goes_with_a_flag_and_its_rest_repeats_nothing() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "one\ntw");
    host.turns(3);
    host.expect(&["one"]);
    host.turns(5);
    host.expect(&["one", "tw"]);
    assert_eq!(
        host.records()[1].attribute("watchline.partial"),
        Some("true")
    );
    host.restart();
    host.turns(8);
    host.append("a.log", "o\nthree\n");
    host.turn();
    host.expect(&["one", "tw", "o", "three"]);
    assert_eq!(
        host.records()[2].attribute("watchline.continuation"),
        Some("true")
    );
    host.append("a.log", "four");
    host.turns(8);
    host.append("a.log", "\nfive\n");
    host.turn();
    host.expect(&["one", "tw", "o", "three", "four", "five"]);
}

/// TAILING 24, 25.
#[test]
fn a_line_that_is_too_long_is_cut_with_a_count_at_every_edge_and_the_next_is_exact() {
    for len in [
        1023,
        1024,
        1025,
        16 << 10,
        (64 << 10) - 1,
        64 << 10,
        (64 << 10) + 1,
        (256 << 10) + 7,
        700_000,
    ] {
        let mut host = Host::running(&["a.log"]);
        let long = "x".repeat(len);
        host.append("a.log", format!("before\n{long}\nafter\n"));
        host.turns(2);
        let records = host.records();
        assert_eq!(records.len(), 3, "{len}");
        assert_eq!(records[1].body, long.as_bytes()[..len.min(1024)], "{len}");
        let cut = (len > 1024).then(|| (len - 1024).to_string());
        assert_eq!(
            records[1].attribute("watchline.truncated_bytes"),
            cut.as_deref(),
            "{len}"
        );
        assert_eq!(records[2].body, b"after");
        host.append("a.log", "more\n");
        host.restart();
        host.turn();
        assert_eq!(host.records().len(), 4, "{len}");
        assert_eq!(host.gaps().len(), 0);
    }
}

/// TAILING 24.
#[test]
fn the_rest_of_a_long_line_that_was_cut_before_its_end_is_counted_in_a_gap() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "x".repeat(3000));
    host.turns(8);
    assert_eq!(host.records().len(), 1);
    assert_eq!(
        host.records()[0].attribute("watchline.truncated_bytes"),
        Some("1976")
    );
    host.append("a.log", "y".repeat(100));
    host.turn();
    host.restart();
    host.append("a.log", "y".repeat(11) + "\nnext\n");
    host.turns(2);
    assert_eq!(host.bodies().last().unwrap(), "next");
    assert_eq!(host.records().len(), 2);
    assert_eq!(host.gaps()[0].attribute("watchline.gap.bytes"), Some("111"));
    assert_eq!(
        host.gaps()[0].attribute("watchline.gap.reason"),
        Some("line_cut")
    );
}

/// TAILING 31: beyond the rate of its rule an alert goes the routine way.
#[test]
fn alerts_take_their_lane_with_the_name_of_the_rule() {
    let mut host = Host::new(&["a.log"]);
    host.rules = vec![AlertRule {
        name: "sudo".into(),
        matches: vec!["sudo: .*COMMAND=".into(), "^su\\[".into()],
        sources: vec!["s".into()],
        min_severity: None,
        max_rate: 2,
        ..AlertRule::default()
    }];
    host.turn();
    host.append(
        "a.log",
        "sudo: x COMMAND=y\nother\nsu[1]: z\nnot su[1]\nsudo: COMMAND=beyond the rate\n",
    );
    host.turn();
    let alerts: Vec<&Record> = host
        .sealed
        .iter()
        .filter(|record| record.lane == Lane::Alert)
        .collect();
    assert_eq!(
        alerts.iter().map(|r| r.body.as_slice()).collect::<Vec<_>>(),
        [&b"sudo: x COMMAND=y"[..], b"su[1]: z"]
    );
    assert_eq!(alerts[0].attribute("watchline.alert.rule"), Some("sudo"));
    assert_eq!(host.records().len(), 5);
    assert_eq!(host.lanes.take_excess().collect::<Vec<_>>(), [("sudo", 1)]);
}

/// TAILING 31.
#[test]
fn a_big_file_beside_a_quiet_one_takes_turns_with_it() {
    let mut host = Host::running(&["*.log"]);
    host.append("big.log", "x".repeat(99).to_string() + "\n");
    host.append("quiet.log", "first\n");
    host.turn();
    host.append("big.log", ("x".repeat(99) + "\n").repeat(50_000));
    host.append("quiet.log", "second\n");
    host.turn();
    let bodies = host.bodies();
    let at = bodies.iter().position(|body| body == "second").unwrap();
    assert!(at < 10_000, "behind {at} records of the big file");
    assert_eq!(bodies.len(), 50_003);
}

/// TAILING 22. The guard before the offset is longer when the rest is sent than when the block was read.
#[test]
fn lines_and_an_incomplete_one_that_arrive_together_after_a_long_wait_are_exact() {
    for first in [0, 3, 40, 300] {
        let mut host = Host::running(&["a.log"]);
        let begun = "b".repeat(first);
        host.append("a.log", &begun);
        host.turn();
        host.now.at += Duration::from_secs(60);
        let line = "l".repeat(300);
        host.append("a.log", format!("{line}\n{line}\nrest"));
        host.turns(10);
        host.append("a.log", " of it\nlast\n");
        host.restart();
        host.turns(2);
        let text: String = host.bodies().concat();
        assert_eq!(text, format!("{begun}{line}{line}rest of itlast"));
        assert_eq!(host.gaps().len(), 0);
    }
}
