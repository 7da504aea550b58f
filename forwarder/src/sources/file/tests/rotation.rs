//! Files that are renamed or removed.

use super::*;

/// TAILING 11, 19.
#[test]
fn a_renamed_file_is_read_to_its_end_outside_the_pattern_too() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\n");
    host.turn();
    host.append("app.log", "2\n");
    host.rename("app.log", "app.log.1");
    host.append("app.log.1", "3\n");
    host.append("app.log", "4\n");
    host.turn();
    host.expect(&["1", "2", "3", "4"]);
    host.append("app.log.1", "late\n");
    host.restart();
    host.append("app.log", "5\n");
    host.turn();
    host.expect(&["1", "2", "3", "4", "late", "5"]);
    assert!(
        host.records()
            .iter()
            .all(|record| record.attribute("log.file.name") == Some("app.log"))
    );
}

/// TAILING 9, 10.
#[test]
fn generations_that_came_and_went_between_two_looks_are_read_in_order() {
    for stopped in [false, true] {
        let mut host = Host::running(&["app.log"]);
        host.append("app.log.7", "rotated before anybody looked\n");
        let old = fs::File::options()
            .write(true)
            .open(host.path("app.log.7"))
            .unwrap();
        old.set_modified(std::time::SystemTime::now() - Duration::from_secs(600))
            .unwrap();
        host.append("app.log", "1\n");
        host.turn();
        if stopped {
            host.restart();
        }
        for generation in 2..6 {
            host.append("app.log", "late\n");
            host.rotate("app.log");
            host.append("app.log", format!("{generation}\n"));
        }
        host.turns(2);
        host.expect(&["1", "late", "2", "late", "3", "late", "4", "late", "5"]);
    }
}

/// TAILING 10, 19.
#[test]
fn a_rotation_within_the_pattern_repeats_nothing() {
    let mut host = Host::running(&["app.log*"]);
    for generation in 0..5 {
        host.append("app.log", format!("{generation}\n"));
        host.turn();
        if generation % 2 == 0 {
            host.restart();
        }
        host.append("app.log", format!("{generation} late\n"));
        host.rotate("app.log");
    }
    host.turns(3);
    host.expect(&[
        "0", "0 late", "1", "1 late", "2", "2 late", "3", "3 late", "4", "4 late",
    ]);
}

/// TAILING 18.
#[test]
fn a_removed_file_is_read_to_its_end_through_the_handle() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\n");
    host.turn();
    host.append("app.log", "2\n");
    fs::remove_file(host.path("app.log")).unwrap();
    host.append("app.log", "3\n");
    host.turn();
    host.expect(&["1", "2", "3"]);
    host.turns(70);
    assert_eq!(
        host.source.as_ref().unwrap().tails.len(),
        1,
        "closed when it stayed idle"
    );
    assert_eq!(
        host.state
            .keys()
            .filter(|key| key.starts_with(b"position"))
            .count(),
        1
    );
}

/// TAILING 18.
#[test]
fn a_file_that_vanished_while_part_of_it_was_unread_is_a_gap() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\nhalf");
    host.turns(2);
    host.restart();
    fs::remove_file(host.path("app.log")).unwrap();
    host.turns(2);
    assert_eq!(host.bodies(), ["1"]);
    assert_eq!(host.gaps().len(), 1);
    assert_eq!(host.gaps()[0].attribute("watchline.gap.bytes"), Some("4"));
    host.restart();
    host.turns(2);
    assert_eq!(host.gaps().len(), 1, "said once");
}

/// TAILING 10, 19.
#[test]
fn generations_within_the_pattern_are_read_in_order_after_any_number_of_rotations() {
    for stopped in [false, true] {
        for backlog in [1, 3_000] {
            let mut host = Host::running(&["app.log*"]);
            host.append("app.log", "begin\n");
            host.turn();
            if stopped {
                host.restart();
            }
            let mut expected = vec!["begin".to_owned()];
            for generation in 0..12 {
                let lines = (0..backlog).map(|n| format!("{generation} {n} of some length"));
                for line in lines {
                    host.append("app.log", format!("{line}\n"));
                    expected.push(line);
                }
                host.rotate("app.log");
            }
            host.append("app.log", "end\n");
            expected.push("end".into());
            host.turns(3);
            assert_eq!(host.bodies(), expected, "stopped: {stopped}");
            assert_eq!(host.gaps().len(), 0);
        }
    }
}

/// TAILING 10.
#[test]
fn generations_of_a_name_that_was_never_seen_before_are_read_in_order() {
    for pattern in ["app.log", "app.log*"] {
        let mut host = Host::running(&[pattern]);
        for generation in 1..5 {
            host.append("app.log", format!("{generation}\n"));
            host.rotate("app.log");
        }
        if pattern == "app.log*" {
            // No file has the name itself just now.
            host.turn();
        }
        host.append("app.log", "5\n");
        host.turns(2);
        host.expect(&["1", "2", "3", "4", "5"]);
    }
}

/// TAILING 31.
#[test]
fn what_only_looks_like_an_older_generation_holds_nobody_up() {
    for other in ["app.log.err", "app.log.7"] {
        let mut host = Host::running(&["app.log*"]);
        host.append(other, "e1\n");
        host.append("app.log", "a1\n");
        host.turn();
        host.append(other, ("x".repeat(99) + "\n").repeat(20_000));
        host.append("app.log", "a2\n");
        host.turn();
        let bodies = host.bodies();
        let at = bodies.iter().position(|body| body == "a2").unwrap();
        assert!(at < 5_000, "behind {at} records of {other}");
    }
}

/// TAILING 10. An inode that was freed by the rotation leads to a newer generation by now, several times over.
#[test]
fn inodes_recycled_over_several_rotations_while_stopped_lose_and_repeat_nothing() {
    for pattern in ["app.log", "app.log*"] {
        for recycled_by in ["app.log", "app.log.1", "app.log.2", "other.log"] {
            let mut host = Host::running(&[pattern, "other.log"]);
            host.append("app.log", "1\n2\n");
            host.turn();
            host.restart();
            host.append("app.log", "3\n");
            for generation in ["4\n", "5\n6\n7\n8\n", "9\n"] {
                host.rotate("app.log");
                host.append("app.log", generation);
            }
            host.append("other.log", "");
            let ino = fs::metadata(host.path(recycled_by)).unwrap().ino();
            host.edit_position("app.log", |position| position.inode.ino = ino);
            host.turns(3);
            host.expect(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        }
    }
}

/// TAILING 11.
#[test]
fn a_rotated_name_outside_the_pattern_is_found_by_its_inode_after_a_restart() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\nbegun");
    host.turn();
    host.restart();
    host.append("app.log", " and ended\n");
    host.rename("app.log", "no-name-of-a-rotation");
    host.append("app.log", "3\n");
    host.turn();
    host.append("no-name-of-a-rotation", "late\n");
    host.restart();
    host.append("app.log", "4\n");
    host.turns(2);
    host.expect(&["1", "begun and ended", "3", "late", "4"]);
}

/// TAILING 17.
#[test]
fn a_file_deleted_and_created_again_at_once_is_two_files() {
    for max_open in [None, Some(0)] {
        let mut host = Host::running(&["app.log"]);
        host.max_open = max_open;
        let mut expected = Vec::new();
        for n in 0..30 {
            // Without a handle that keeps it the inode is recycled at once.
            host.append("app.log", format!("{n} first\n"));
            host.turn();
            fs::remove_file(host.path("app.log")).unwrap();
            host.append("app.log", format!("{n} second, longer than the first\n"));
            host.turn();
            fs::remove_file(host.path("app.log")).unwrap();
            expected.extend([
                format!("{n} first"),
                format!("{n} second, longer than the first"),
            ]);
        }
        assert_eq!(host.bodies(), expected);
        assert_eq!(host.reasons(), [""; 0]);
    }
}

/// TAILING 18.
#[test]
fn removed_files_hold_no_more_unread_bytes_than_they_may_and_the_oldest_is_given_up_first() {
    let mut host = Host::running(&["*.log"]);
    host.config.max_held = 250;
    host.restart();
    for name in ["a.log", "b.log", "c.log"] {
        host.append(name, format!("{name} begins\n"));
        host.turn();
    }
    // The line is down and the spool full: files are looked at, not read.
    for name in ["a.log", "b.log", "c.log"] {
        host.append(name, "x".repeat(99) + "\n");
        host.look();
        fs::remove_file(host.path(name)).unwrap();
        host.look();
    }
    assert_eq!(host.running_source().held_bytes(), 200);
    host.turns(2);
    assert_eq!(host.reasons(), ["given_up"]);
    let gap = host.gaps()[0];
    let path = host.path("a.log").display().to_string();
    assert_eq!(gap.attribute("log.file.path"), Some(path.as_str()));
    assert_eq!(gap.attribute("watchline.gap.bytes"), Some("100"));
    assert_eq!(gap.attribute("watchline.gap.from"), Some("13"));
    assert_eq!(host.records().len(), 5);
    assert_eq!(host.running_source().held_bytes(), 0);
}

/// TAILING 10, 32.
#[test]
fn generations_within_the_pattern_that_were_half_read_when_it_was_killed_go_on_in_order() {
    for frames in 1..6 {
        for _ in 0..8 {
            let mut host = Host::running(&["app.log*"]);
            let mut expected = vec!["begin".to_owned()];
            host.append("app.log", "begin\n");
            host.turn();
            for generation in 0..3 {
                host.rotate("app.log");
                for n in 0..1_000 {
                    let line = format!("{generation} {n} {}", "x".repeat(99));
                    host.append("app.log", format!("{line}\n"));
                    expected.push(line);
                }
            }
            host.turn_until(frames);
            host.restart();
            host.turns(3);
            assert!(host.bodies() == expected, "{frames}");
        }
    }
}
