//! Files that are renamed or removed.

use super::*;

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
            for n in (1..5).rev() {
                if host.path(&format!("app.log.{n}")).exists() {
                    host.rename(&format!("app.log.{n}"), &format!("app.log.{}", n + 1));
                }
            }
            host.append("app.log", "late\n");
            host.rename("app.log", "app.log.1");
            host.append("app.log", format!("{generation}\n"));
        }
        host.turns(2);
        host.expect(&["1", "late", "2", "late", "3", "late", "4", "late", "5"]);
    }
}

#[test]
fn a_rotation_within_the_pattern_repeats_nothing() {
    let mut host = Host::running(&["app.log*"]);
    for generation in 0..5 {
        host.append("app.log", format!("{generation}\n"));
        host.turn();
        if generation % 2 == 0 {
            host.restart();
        }
        for n in (1..5).rev() {
            if host.path(&format!("app.log.{n}")).exists() {
                host.rename(&format!("app.log.{n}"), &format!("app.log.{}", n + 1));
            }
        }
        host.append("app.log", format!("{generation} late\n"));
        host.rename("app.log", "app.log.1");
    }
    host.turns(3);
    host.expect(&[
        "0", "0 late", "1", "1 late", "2", "2 late", "3", "3 late", "4", "4 late",
    ]);
}

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
