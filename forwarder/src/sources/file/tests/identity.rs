//! Which file is this.

use super::*;

/// TAILING 1, 2.
#[test]
fn a_recycled_inode_is_a_new_file() {
    // What a recycled inode looks like: a stored position whose inode has other, longer content.
    for text in ["completely other content\nand more of it\n", "x\n"] {
        let mut host = Host::running(&["*.log"]);
        host.append("a.log", "1\n2\n3\n");
        host.turn();
        host.restart();
        let file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(host.path("a.log"))
            .unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        host.rename("a.log", "b.log");
        host.turns(2);
        assert_eq!(host.bodies()[3..], text.lines().collect::<Vec<_>>());
    }
}

/// TAILING 5.
#[test]
fn a_device_number_that_changed_makes_no_new_file() {
    let mut host = Host::running(&["a.log"]);
    host.append("a.log", "1\n2\n");
    host.turn();
    host.restart();
    let (key, value) = host
        .state
        .iter()
        .find(|(key, _)| key.starts_with(b"position"))
        .unwrap();
    let (key, mut position) = (key.clone(), Position::decode(value).unwrap());
    position.inode.dev += 1;
    host.state.insert(key, position.encode().into());
    host.append("a.log", "3\n");
    host.turns(2);
    host.expect(&["1", "2", "3"]);
}

/// TAILING 3.
#[test]
fn two_files_that_begin_alike_are_both_exact() {
    let banner = "x".repeat(200) + "\n";
    let banner = banner.repeat(10);
    let mut host = Host::running(&["*.log"]);
    host.append("a.log", &banner);
    host.append("b.log", &banner);
    host.turns(2);
    assert_eq!(host.records().len(), 20);
    host.append("a.log", "a\n");
    host.append("b.log", "b\n");
    host.restart();
    host.turn();
    assert_eq!(host.records().len(), 22);
}

/// TAILING 4.
#[test]
fn a_short_first_line_arrives_promptly_and_the_file_stays_the_same_as_it_grows() {
    let mut host = Host::running(&["a.log"]);
    let mut expected = Vec::new();
    for n in 0..100 {
        let line = format!("line {n} of a file that grows slowly");
        host.append("a.log", format!("{line}\n"));
        expected.push(line);
        if n % 7 == 0 {
            host.restart();
        }
        host.turn();
        assert_eq!(host.bodies(), expected);
    }
    assert_eq!(host.gaps().len(), 0);
    assert_eq!(
        host.state
            .keys()
            .filter(|key| key.starts_with(b"position"))
            .count(),
        1
    );
}

/// TAILING 6.
#[test]
fn a_hard_link_and_overlapping_patterns_deliver_once() {
    let mut host = Host::running(&["*.log", "a.*", "**/*.log"]);
    host.append("a.log", "1\n");
    fs::hard_link(host.path("a.log"), host.path("b.log")).unwrap();
    std::os::unix::fs::symlink("a.log", host.path("c.log")).unwrap();
    host.turns(3);
    host.append("b.log", "2\n");
    host.restart();
    host.turns(2);
    host.expect(&["1", "2"]);
}

/// TAILING 21.
#[test]
fn a_link_that_moves_on_to_the_next_file_is_followed() {
    let mut host = Host::running(&["current.log"]);
    host.append("2026-11-23.log", "1\n");
    std::os::unix::fs::symlink("2026-11-23.log", host.path("current.log")).unwrap();
    host.turns(2);
    host.append("2026-11-23.log", "2\n");
    host.append("2026-11-24.log", "3\n");
    fs::remove_file(host.path("current.log")).unwrap();
    std::os::unix::fs::symlink("2026-11-24.log", host.path("current.log")).unwrap();
    host.turns(2);
    host.expect(&["1", "2", "3"]);
}

/// TAILING 21.
#[test]
fn planted_names_are_refused_counted_and_hold_nobody_up() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let mut host = Host::running(&["*.log"]);
    host.append("real.log", "1\n");
    std::os::unix::fs::symlink("loop.log", host.path("loop.log")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", host.path("device.log")).unwrap();
    mknodat(CWD, host.path("fifo.log"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.path("socket.log")).unwrap();
    fs::create_dir(host.path("directory.log")).unwrap();
    host.turns(2);
    host.append("real.log", "2\n");
    host.turn();
    host.expect(&["1", "2"]);
    let status = Source::status(host.running_source());
    assert_eq!(
        (status.followed, status.unreadable, status.planted),
        (5, 4, 4)
    );
    fs::remove_file(host.path("fifo.log")).unwrap();
    host.append("fifo.log", "3\n");
    host.turns(2);
    host.expect(&["1", "2", "3"]);
    assert_eq!(Source::status(host.running_source()).planted, 3);
}

/// TAILING 33.
#[test]
fn stale_positions_age_out_and_are_bounded() {
    let mut host = Host::running(&["*.log"]);
    host.append("a.log", "1\n");
    host.turn();
    let (key, value) = {
        let mut positions = host.state.iter();
        let found = positions.find(|(key, _)| key.starts_with(b"position"));
        let (key, value) = found.unwrap();
        (key.clone(), value.clone())
    };
    let position = Position::decode(&value).unwrap();
    host.restart();
    for n in 1..=5_000_u64 {
        let mut gone = position.clone();
        gone.name = host.path(&format!("gone-{n}.log"));
        gone.path = gone.name.clone();
        (gone.inode.ino, gone.known_size) = (u64::MAX - n, gone.offset);
        let key = String::from_utf8(key.to_vec()).unwrap();
        let key = format!("{}{n:016x}", &key[..key.len() - 16]);
        host.state.insert(key.into(), gone.encode().into());
    }
    host.turns(3);
    assert!(host.positions() <= 4097, "{}", host.positions());
    host.now.unix_nano += 25 * 3600 * 1_000_000_000;
    host.turns(3);
    assert_eq!(host.positions(), 1);
    host.append("a.log", "2\n");
    host.turn();
    host.expect(&["1", "2"]);
}

/// TAILING 37.
#[test]
fn clock_steps_and_file_times_in_the_future_exclude_no_file_that_grows() {
    for pattern in ["a.log", "a.log*"] {
        let mut host = Host::running(&[pattern]);
        let day = 24 * 3600 * 1_000_000_000_i64;
        let mut expected = Vec::new();
        for (n, step) in [0, 10 * day, -20 * day, 0, 400 * day, -9_000 * day]
            .into_iter()
            .enumerate()
        {
            host.now.unix_nano += step;
            host.clock_stands = true;
            host.append("a.log", format!("{n}\n"));
            let file = OpenOptions::new()
                .write(true)
                .open(host.path("a.log"))
                .unwrap();
            let times = [
                host.now.unix_nano + 5 * day,
                0,
                host.now.unix_nano - 800 * day,
            ];
            let nanos = u64::try_from(times[n % 3].max(0)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_nanos(nanos))
                .unwrap();
            host.turn();
            if n % 2 == 1 {
                host.restart();
            }
            host.append("a.log", format!("{n} late\n"));
            expected.extend([format!("{n}"), format!("{n} late")]);
            if n > 2 {
                host.rotate("a.log");
                host.append("a.log", "");
            }
        }
        host.turns(3);
        assert_eq!(host.bodies(), expected);
        assert_eq!(host.reasons(), [""; 0]);
    }
}

#[test]
fn inode_numbers_of_tests_are_what_the_system_says() {
    let host = Host::new(&["a.log"]);
    host.append("a.log", "x");
    let (_, stat) = open::open(&host.path("a.log")).unwrap();
    assert_eq!(stat.st_ino, fs::metadata(host.path("a.log")).unwrap().ino());
}
