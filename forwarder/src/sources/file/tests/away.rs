//! Directories out of reach, sizes that are not true.

use super::*;

/// TAILING 30.
#[test]
fn a_directory_that_is_gone_for_an_hour_loses_and_repeats_nothing() {
    for (max_open, restarts) in [(None, false), (Some(0), false), (None, true)] {
        let mut host = Host::new(&["logs/*.log"]);
        host.max_open = max_open;
        fs::create_dir(host.path("logs")).unwrap();
        host.turn();
        host.append("logs/a.log", "1\nhalf");
        host.append("logs/b.log", "2\n");
        host.turn();
        host.rename("logs", "elsewhere");
        if restarts {
            host.restart();
        }
        for _ in 0..60 {
            host.now.at += Duration::from_secs(60);
            host.now.unix_nano += 60_000_000_000;
            host.turn();
        }
        let status = Source::status(host.running_source());
        assert!(status.trouble.unwrap().contains("logs"));
        host.append("elsewhere/a.log", " is whole\n");
        host.rename("elsewhere", "logs");
        host.append("logs/b.log", "3\n");
        host.turns(3);
        let mut bodies = host.bodies();
        bodies.sort();
        let flushed = bodies.iter().any(|body| body == "half");
        let whole = if flushed {
            " is whole"
        } else {
            "half is whole"
        };
        assert!(bodies.contains(&whole.to_owned()), "{bodies:?}");
        assert_eq!(bodies.len(), 4 + usize::from(flushed), "{bodies:?}");
        assert_eq!(host.reasons(), [""; 0]);
        assert_eq!(Source::status(host.running_source()).trouble, None);
    }
}

/// TAILING 30. The mount point of a file system that is gone is an empty directory on another device.
#[test]
fn an_empty_directory_on_another_device_proves_nothing() {
    let mut host = Host::new(&["logs/*.log"]);
    fs::create_dir(host.path("logs")).unwrap();
    host.turn();
    host.append("logs/a.log", "1\nhalf");
    host.turn();
    host.restart();
    host.rename("logs", "elsewhere");
    fs::create_dir(host.path("logs")).unwrap();
    host.edit_position("logs/a.log", |position| position.inode.dev += 1);
    host.turns(5);
    assert_eq!(host.reasons(), [""; 0]);
    fs::remove_dir(host.path("logs")).unwrap();
    host.rename("elsewhere", "logs");
    host.append("logs/a.log", " is whole\n");
    host.turns(2);
    host.expect(&["1", "half is whole"]);
}

/// TAILING 30.
#[test]
fn a_directory_that_stays_away_for_a_day_is_a_gap() {
    let mut host = Host::new(&["logs/*.log"]);
    fs::create_dir(host.path("logs")).unwrap();
    host.turn();
    host.append("logs/a.log", "1\nhalf");
    host.turn();
    host.restart();
    host.rename("logs", "elsewhere");
    host.turn();
    host.now.at += Duration::from_secs(25 * 3600);
    host.turns(2);
    assert_eq!(host.reasons(), ["vanished"]);
}

/// TAILING 30.
#[test]
fn a_directory_that_was_removed_with_files_that_had_been_read_is_no_trouble() {
    let mut host = Host::new(&["logs/*.log"]);
    fs::create_dir(host.path("logs")).unwrap();
    host.turn();
    host.append("logs/a.log", "1\n");
    host.turn();
    host.restart();
    fs::remove_dir_all(host.path("logs")).unwrap();
    host.turns(3);
    assert_eq!(Source::status(host.running_source()).trouble, None);
    assert_eq!(host.reasons(), [""; 0]);
}

/// TAILING 30.
#[test]
fn a_stale_size_is_confirmed_before_it_is_acted_on() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "1\n");
    let stale = rustix::fs::stat(host.path("a.log")).unwrap();
    host.turn();
    host.append("a.log", "2\n3\n");
    host.turn();
    host.append("a.log", "begun");
    host.turn();
    for size in [2, 3, 7] {
        let mut source = host.source();
        let key = *source.tails.keys().next().unwrap();
        let mut batch = Batch::new(BATCH_BYTES);
        let mut intake = Intake {
            batch: &mut batch,
            lanes: &mut host.lanes,
            buffers: &mut Buffers::default(),
            now: host.now,
        };
        let mut stat = stale;
        stat.st_size = size;
        source.judge(key, &stat, &mut intake);
        assert!(batch.is_empty(), "{size}");
        host.source = Some(source);
    }
    host.append("a.log", " and ended\n");
    host.turns(2);
    host.expect(&["1", "2", "3", "begun and ended"]);
}
