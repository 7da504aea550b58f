//! Files that are cut or written over, and their copies.

use super::*;

/// TAILING 12, 13.
#[test]
fn copytruncate_with_the_copy_inside_the_pattern_repeats_nothing() {
    for (looks, restarts) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut host = Host::running(&["app.log*"]);
        host.append("app.log", "1\n2\n");
        host.turn();
        host.append("app.log", "3\n");
        host.copy("app.log", "app.log.1");
        if looks {
            host.turn();
        }
        if restarts {
            host.restart();
        }
        host.truncate("app.log");
        host.append("app.log", "4\n");
        host.turns(3);
        host.append("app.log", "5\n");
        host.turns(2);
        host.expect(&["1", "2", "3", "4", "5"]);
    }
}

/// TAILING 13.
#[test]
fn lines_written_before_the_cut_are_found_in_a_copy_outside_the_pattern() {
    for restarts in [false, true] {
        let mut host = Host::running(&["app.log"]);
        host.append("app.log", "1\n");
        host.turn();
        host.append("app.log", "2\n");
        host.copy("app.log", "app.log-20261123");
        host.truncate("app.log");
        if restarts {
            host.restart();
        }
        host.append("app.log", "3\n");
        host.turns(3);
        host.expect(&["1", "2", "3"]);
    }
}

/// TAILING 12.
#[test]
fn a_copy_that_was_followed_goes_on_by_itself_when_it_grows() {
    let mut host = Host::running(&["app.log*"]);
    host.append("app.log", "1\n2\n");
    host.turn();
    host.copy("app.log", "app.log.bak");
    host.turns(2);
    host.append("app.log", "3\n");
    host.turns(2);
    host.append(
        "app.log.bak",
        "its own line, longer than that of the original\n",
    );
    host.turns(2);
    host.append("app.log", "4\n");
    host.turns(2);
    host.expect(&[
        "1",
        "2",
        "3",
        "its own line, longer than that of the original",
        "4",
    ]);
}

/// TAILING 13.
#[test]
fn unread_bytes_that_were_cut_away_without_a_copy_are_a_gap() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\n");
    host.turn();
    host.append("app.log", "lost, and never completed");
    host.turns(2);
    host.truncate("app.log");
    host.append("app.log", "2\n");
    host.turns(2);
    assert_eq!(host.bodies(), ["1", "2"]);
    let gaps = host.gaps();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].attribute("watchline.gap.reason"), Some("truncated"));
    assert_eq!(gaps[0].attribute("watchline.gap.bytes"), Some("25"));
    assert_eq!(
        (
            gaps[0].attribute("watchline.gap.from"),
            gaps[0].attribute("watchline.gap.to")
        ),
        (Some("2"), Some("27"))
    );
    assert_eq!(gaps[0].lane, Lane::Alert);
}

/// TAILING 14, 16.
#[test]
fn a_file_cut_and_grown_past_the_old_offset_is_read_from_its_beginning() {
    for restarts in [false, true] {
        let mut host = Host::running(&["app.log"]);
        host.append("app.log", "the same head\nold 1\n");
        host.turn();
        if restarts {
            host.restart();
        }
        host.truncate("app.log");
        host.append("app.log", "the same head\nnew 1\nnew 2\nnew 3\n");
        host.turns(2);
        let bodies = [
            "the same head",
            "old 1",
            "the same head",
            "new 1",
            "new 2",
            "new 3",
        ];
        assert_eq!(host.bodies(), bodies);
    }
}

/// TAILING 8.
#[test]
fn a_file_rewritten_to_exactly_the_same_size_is_noticed() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "aaaa\n");
    host.turns(2);
    let file = OpenOptions::new()
        .write(true)
        .open(host.path("app.log"))
        .unwrap();
    file.write_all_at(b"bbbb\n", 0).unwrap();
    host.turns(2);
    assert_eq!(host.bodies(), ["aaaa", "bbbb"]);
    assert_eq!(
        host.gaps()[0].attribute("watchline.gap.reason"),
        Some("rewritten")
    );
}

/// TAILING 7.
#[test]
fn bytes_before_the_offset_that_changed_while_the_file_grew_are_noticed() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "first line\n");
    host.turn();
    let file = OpenOptions::new()
        .write(true)
        .open(host.path("app.log"))
        .unwrap();
    file.write_all_at(b"FIRST", 0).unwrap();
    host.append("app.log", "second\n");
    host.turns(2);
    assert_eq!(host.bodies(), ["first line", "FIRST line", "second"]);
    assert_eq!(host.gaps().len(), 1);
}

/// TAILING 15.
#[test]
fn a_hole_under_a_writer_that_went_on_is_skipped_and_counted() {
    let mut host = Host::running(&["a.log"]);
    let writer = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(host.path("a.log"))
        .unwrap();
    let first = "first\n".repeat(20_000);
    writer.write_all_at(first.as_bytes(), 0).unwrap();
    host.turn();
    host.truncate("a.log");
    host.turn();
    writer
        .write_all_at(b"second\n", first.len() as u64)
        .unwrap();
    host.turns(2);
    assert_eq!(host.bodies()[20_000..], ["second"]);
    assert_eq!(host.gaps().len(), 1);
    assert_eq!(
        host.gaps()[0].attribute("watchline.gap.bytes"),
        Some(first.len().to_string().as_str())
    );
}

/// TAILING 15, 16.
#[test]
fn a_hole_that_was_there_at_the_next_look_already_is_skipped_over_kills_too() {
    for (restarts, frames) in [
        (false, usize::MAX),
        (true, usize::MAX),
        (true, 1),
        (true, 2),
    ] {
        let mut host = Host::running(&["a.log"]);
        let writer = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(host.path("a.log"))
            .unwrap();
        let first = "first\n".repeat(200_000);
        writer.write_all_at(first.as_bytes(), 0).unwrap();
        host.turns(2);
        if restarts {
            host.restart();
        }
        host.truncate("a.log");
        writer
            .write_all_at(b"second\n", first.len() as u64)
            .unwrap();
        for _ in 0..3 {
            host.turn_until(frames);
            if restarts {
                host.restart();
            }
        }
        host.turns(3);
        assert_eq!(host.bodies()[200_000..], ["second"], "{restarts} {frames}");
        assert_eq!(host.reasons().last(), Some(&"hole"));
        let hole = host
            .gaps()
            .into_iter()
            .find(|gap| gap.attribute("watchline.gap.reason") == Some("hole"));
        assert_eq!(
            hole.unwrap().attribute("watchline.gap.bytes"),
            Some(first.len().to_string().as_str())
        );
    }
}

/// TAILING 14, 16.
#[test]
fn new_content_that_begins_as_the_old_did_is_read_whole_after_copytruncate() {
    for pattern in ["app.log", "app.log*"] {
        for restarts in [false, true] {
            for more in [1, 300] {
                let mut host = Host::running(&[pattern]);
                let banner = "the same banner\n".repeat(100);
                host.append("app.log", format!("{banner}old 1\n"));
                host.turn();
                host.append("app.log", "old 2\n");
                host.copy("app.log", "app.log.1");
                host.truncate("app.log");
                host.append("app.log", &banner);
                for n in 0..more {
                    host.append("app.log", format!("new {n}\n"));
                }
                if restarts {
                    host.restart();
                }
                host.turns(3);
                let bodies = host.bodies();
                let mut expected = vec!["the same banner".to_owned(); 100];
                expected.extend(["old 1".to_owned(), "old 2".to_owned()]);
                expected.extend(vec!["the same banner".to_owned(); 100]);
                expected.extend((0..more).map(|n| format!("new {n}")));
                assert_eq!(bodies, expected, "{pattern} {restarts} {more}");
                assert_eq!(host.reasons(), [""; 0]);
            }
        }
    }
}
