use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use watchline_spool::ReadItem;

use super::{
    testing::{Call, Dice, World},
    *,
};

const PATH: &str = "/data/events";

/// Items are lines; a batch that is `!` cannot be opened. Files begin with `H` and end with `E`, where the test asks for it.
struct TestForm {
    framed: bool,
}

impl Form for TestForm {
    fn id(&self) -> u8 {
        200 + u8::from(self.framed)
    }

    fn begin_file(&mut self, _opened_unix_nano: i64, _number: u64, out: &mut Vec<u8>) {
        if self.framed {
            out.extend_from_slice(b"H\n");
        }
    }

    fn go_back(&mut self) {}

    fn render(
        &mut self,
        item: &ReadItem,
        from: u32,
        enough: usize,
        records: &mut u64,
        out: &mut Vec<u8>,
    ) -> Result<Rendered, Unreadable> {
        if &item.bytes[..] == b"!" {
            return Err(Unreadable {
                reason: "poison".to_owned(),
                events: Some(3),
            });
        }
        let mut events = 0;
        for line in item
            .bytes
            .split_inclusive(|&byte| byte == b'\n')
            .skip(from as usize)
        {
            if out.len() >= enough {
                return Ok(Rendered {
                    events,
                    next: Some(from + events as u32),
                });
            }
            out.extend_from_slice(line);
            events += 1;
            *records += 1;
        }
        Ok(Rendered { events, next: None })
    }

    fn end_file(&mut self, records: &mut u64, out: &mut Vec<u8>) {
        if self.framed {
            out.extend_from_slice(format!("E{records}\n").as_bytes());
        }
    }
}

/// A host with one output: numbers its events and its clock.
struct Host {
    world: World,
    written: [u64; LANES],
    start: Instant,
    elapsed: Duration,
    rotation: Rotation,
    framed: bool,
    keep: Option<usize>,
}

impl Host {
    fn new(seed: u64) -> Host {
        Host {
            world: World::new(seed),
            written: [0; LANES],
            start: Instant::now(),
            elapsed: Duration::ZERO,
            rotation: Rotation::default(),
            framed: false,
            keep: None,
        }
    }

    fn now(&self) -> Now {
        let since = 1_795_425_302_000_000_000 + i64::try_from(self.elapsed.as_nanos()).unwrap();
        Now {
            unix_nano: since,
            instant: self.start + self.elapsed,
        }
    }

    fn process(&self) -> Follower<TestForm> {
        let place = match self.framed {
            true => Place::of_archive(Path::new("/data")),
            false => Place::of_file(Path::new(PATH), self.keep),
        };
        let form = TestForm {
            framed: self.framed,
        };
        Follower::new(
            self.world.feed(),
            form,
            self.world.disk(),
            place,
            self.rotation,
        )
    }

    /// A batch of so many events.
    fn append(&mut self, lane: LaneNo, events: u64) {
        let mut item = String::new();
        for _ in 0..events {
            let number = self.written[lane];
            item.push_str(&format!(
                "{lane} {number} {}\n",
                "x".repeat((number % 23) as usize)
            ));
            self.written[lane] += 1;
        }
        self.world.push(lane, item);
    }

    /// Turns until there is nothing to do, letting time pass; `false`: an error.
    fn settle(&mut self, process: &mut Follower<TestForm>) -> Result<(), Trouble> {
        for _ in 0..10_000 {
            if let Turn::Wait(wait) = process.turn(self.now())? {
                if process.unmarked_since.is_none() {
                    return Ok(());
                }
                self.elapsed += wait.unwrap_or_default();
            }
        }
        panic!("never settles");
    }

    /// All files of this output in the order of their making, whole.
    fn output(&self) -> String {
        let mut closed: Vec<PathBuf> = self.world.paths();
        let current = if self.framed {
            "/data/current.wla"
        } else {
            PATH
        };
        closed
            .retain(|path| path != Path::new(current) && path.parent() == Some(Path::new("/data")));
        closed.sort_by_key(|path| {
            let name = path.to_str().unwrap().replace(".wla", "");
            let (stamp, n) = name.rsplit_once('-').unwrap();
            (stamp.to_owned(), n.parse::<u64>().unwrap())
        });
        closed.push(current.into());
        let all = closed
            .iter()
            .filter_map(|path| self.world.content(path.to_str().unwrap()));
        String::from_utf8(all.collect::<Vec<_>>().concat()).unwrap()
    }

    /// Every event exactly once, in order within its lane.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut next = [0; LANES];
        for line in self
            .output()
            .lines()
            .filter(|line| !line.starts_with(['H', 'E']))
        {
            let mut fields = line.split(' ');
            let lane: usize = fields.next().unwrap().parse().unwrap();
            let number: u64 = fields.next().unwrap().parse().unwrap();
            prop_assert_eq!(number, next[lane], "lane {}", lane);
            prop_assert_eq!(fields.next().unwrap().len() as u64, number % 23);
            next[lane] += 1;
        }
        prop_assert_eq!(next, self.written);
        Ok(())
    }

    fn raised(&self) -> Vec<String> {
        let state = self.world.state();
        let reason = |attributes: &[(String, String)]| {
            let key = attributes
                .iter()
                .find(|(name, _)| name.ends_with(".reason"));
            key.map_or(String::new(), |(_, reason)| reason.clone())
        };
        state
            .raised
            .iter()
            .map(|(_, attributes)| reason(attributes))
            .collect()
    }
}

/// One life with rotation by size and by time, alerts among it; the same calls for the same host.
fn scenario(host: &mut Host) -> Result<(), Trouble> {
    let mut process = host.process();
    for round in 0..6 {
        host.append(1, 5 + round);
        host.settle(&mut process)?;
        if round % 2 == 0 {
            host.append(0, 1);
            host.append(1, 2);
        }
        process.turn(host.now())?;
        host.elapsed += Duration::from_secs(7);
    }
    process.finish()
}

fn killed_at_every_call(power_cut: bool, framed: bool) {
    for seed in 0..8 {
        let mut at = 0;
        loop {
            let mut host = Host::new(seed);
            host.framed = framed;
            host.rotation = Rotation {
                size_bytes: Some(100),
                every: Some(Duration::from_secs(20)),
            };
            host.world.state().calls_left = Some(at);
            let done = scenario(&mut host).is_ok() && !host.world.state().killed;
            if power_cut {
                host.world.after_power_cut();
            } else {
                host.world.after_kill();
            }
            let mut process = host.process();
            host.settle(&mut process).unwrap();
            host.append(0, 2);
            host.append(1, 2);
            host.settle(&mut process).unwrap();
            let context = format!("seed {seed}, killed at call {at}\n{}", host.output());
            host.check()
                .unwrap_or_else(|error| panic!("{error}: {context}"));
            assert_eq!(host.raised(), [""; 0], "{context}");
            if done {
                assert!(at > 50, "the scenario has only {at} calls");
                break;
            }
            at += 1;
        }
    }
}

#[test]
fn killed_at_any_call_nothing_is_lost_or_repeated() {
    killed_at_every_call(false, false);
}

#[test]
fn at_a_power_cut_at_any_call_nothing_is_lost_or_repeated() {
    killed_at_every_call(true, false);
}

#[test]
fn a_framed_form_killed_at_any_call_keeps_one_head_and_one_end_a_file() {
    killed_at_every_call(false, true);
    killed_at_every_call(true, true);
}

#[test]
fn closed_files_are_whole_and_read_only() {
    let mut host = Host::new(1);
    host.framed = true;
    host.rotation.size_bytes = Some(60);
    let mut process = host.process();
    for _ in 0..10 {
        host.append(1, 4);
        host.settle(&mut process).unwrap();
    }
    let mut closed = host.world.paths();
    closed.retain(|path| !path.ends_with("current.wla"));
    assert!(closed.len() > 5, "{closed:?}");
    for path in closed {
        let content =
            String::from_utf8(host.world.content(path.to_str().unwrap()).unwrap()).unwrap();
        let lines: Vec<_> = content.lines().collect();
        assert_eq!(lines[0], "H");
        assert_eq!(lines[lines.len() - 1], format!("E{}", lines.len() - 2));
        assert!(host.world.is_read_only(&path));
    }
}

#[test]
fn a_half_written_last_line_is_cut_and_written_again() {
    let mut host = Host::new(1);
    let mut process = host.process();
    host.append(1, 3);
    host.settle(&mut process).unwrap();
    drop(process);
    host.append(1, 2);
    host.world.after_kill();
    host.world
        .alter(PATH, |content| content.extend_from_slice(b"1 3 x"));
    let mut process = host.process();
    host.settle(&mut process).unwrap();
    host.check().unwrap();
    assert_eq!(host.raised(), [""; 0]);
}

#[test]
fn a_lone_event_is_written_in_the_turn_that_reads_it() {
    let mut host = Host::new(1);
    let mut process = host.process();
    assert_eq!(process.turn(host.now()).unwrap(), Turn::Wait(None));
    host.append(1, 1);
    process.turn(host.now()).unwrap();
    host.check().unwrap();
}

#[test]
fn alerts_come_before_the_routine_backlog() {
    let mut host = Host::new(1);
    for _ in 0..5 {
        host.append(1, 2);
    }
    host.append(0, 1);
    let mut process = host.process();
    host.settle(&mut process).unwrap();
    assert!(host.output().starts_with("0 0"), "{}", host.output());
}

fn foreign(expected: &str, kept: usize, change: impl FnOnce(&Host)) {
    let mut host = Host::new(1);
    let mut process = host.process();
    host.append(1, 3);
    host.settle(&mut process).unwrap();
    process.finish().unwrap();
    drop(process);
    host.world.after_kill();
    change(&host);
    let before = host.world.content(PATH);
    let mut process = host.process();
    host.append(1, 1);
    host.settle(&mut process).unwrap();
    assert_eq!(host.raised(), [expected]);
    assert_eq!(host.world.content(PATH).unwrap(), b"1 3 xxx\n");
    let aside: Vec<_> = host
        .world
        .paths()
        .into_iter()
        .filter(|path| path.to_str().unwrap().contains(".kept-"))
        .collect();
    assert_eq!(aside.len(), kept);
    for path in aside {
        assert_eq!(
            host.world.content(path.to_str().unwrap()),
            before,
            "kept as it was"
        );
    }
}

#[test]
fn a_file_that_was_replaced_is_kept() {
    foreign("other_file", 1, |host| {
        host.world.put(PATH, b"somebody's own")
    });
}

#[test]
fn a_file_that_was_altered_is_kept() {
    foreign("altered", 1, |host| {
        host.world.alter(PATH, |content| content[3] ^= 1)
    });
}

#[test]
fn a_file_that_was_cut_is_kept() {
    foreign("shorter", 1, |host| {
        host.world.alter(PATH, |content| content.truncate(3))
    });
}

#[test]
fn a_file_with_more_than_a_window_beyond_the_mark_is_kept() {
    foreign("longer", 1, |host| {
        host.world.alter(PATH, |content| {
            content.resize(content.len() + WINDOW_BYTES as usize + 1, b'x')
        });
    });
}

#[test]
fn a_file_that_is_gone_is_begun_anew_and_said() {
    foreign("missing", 0, |host| host.world.unlink(PATH));
}

#[test]
fn a_file_that_was_there_before_the_output_is_kept() {
    let mut host = Host::new(1);
    host.world.put(PATH, b"old\n");
    host.append(1, 1);
    let mut process = host.process();
    host.settle(&mut process).unwrap();
    assert_eq!(host.raised(), ["unmarked"]);
    assert_eq!(host.world.content(PATH).unwrap(), b"1 0 \n");
}

#[test]
fn a_file_moved_away_under_a_running_output_ends_at_its_mark() {
    let mut host = Host::new(1);
    let mut process = host.process();
    host.append(1, 3);
    host.settle(&mut process).unwrap();
    host.append(1, 1);
    process.turn(host.now()).unwrap(); // written, not marked
    host.world.moved(PATH, "/data/events.20260101T000000Z-0");
    host.append(1, 2);
    host.settle(&mut process).unwrap();
    host.check().unwrap();
    assert_eq!(host.raised(), ["missing"]);
    assert_eq!(host.world.content(PATH).unwrap(), b"1 4 xxxx\n1 5 xxxxx\n");
}

#[test]
fn another_place_in_the_configuration_begins_a_file_there() {
    let mut host = Host::new(1);
    let mut process = host.process();
    host.append(1, 3);
    host.settle(&mut process).unwrap();
    host.append(1, 1);
    process.turn(host.now()).unwrap(); // beyond the mark
    drop(process);
    host.world.after_kill();
    let place = Place::of_file(Path::new("/data/other"), None);
    let form = TestForm { framed: false };
    let mut process = Follower::new(
        host.world.feed(),
        form,
        host.world.disk(),
        place,
        Rotation::default(),
    );
    host.settle(&mut process).unwrap();
    let mut all = host.world.content(PATH).unwrap();
    all.extend(host.world.content("/data/other").unwrap());
    assert_eq!(all, b"1 0 \n1 1 x\n1 2 xx\n1 3 xxx\n");
    assert_eq!(host.raised(), [""; 0]);
}

#[test]
fn only_the_newest_closed_files_are_kept() {
    let mut host = Host::new(1);
    host.rotation.size_bytes = Some(20);
    host.keep = Some(2);
    let mut process = host.process();
    for _ in 0..8 {
        host.append(1, 4);
        host.elapsed += Duration::from_secs(1);
        host.settle(&mut process).unwrap();
    }
    let paths = host.world.paths();
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert!(
        host.output()
            .ends_with(&format!("1 {} {}\n", 31, "x".repeat(8)))
    );
}

#[test]
fn time_closes_a_file_though_nothing_comes() {
    let mut host = Host::new(1);
    host.rotation.every = Some(Duration::from_secs(60));
    let mut process = host.process();
    host.append(1, 1);
    host.settle(&mut process).unwrap();
    // 09:15:02: the next full minute is 58 seconds away.
    let Turn::Wait(Some(wait)) = process.turn(host.now()).unwrap() else {
        panic!("no end of waiting")
    };
    assert!(wait <= Duration::from_secs(58), "{wait:?}");
    host.elapsed += wait;
    process.turn(host.now()).unwrap();
    assert_eq!(host.world.content(PATH).unwrap(), b"");
    assert_eq!(
        process.turn(host.now()).unwrap(),
        Turn::Wait(None),
        "an empty file waits for content"
    );
    host.check().unwrap();
}

#[test]
fn a_poison_batch_is_set_aside_and_the_line_moves_on() {
    let mut host = Host::new(1);
    host.append(1, 1);
    host.world.push(1, "!");
    host.append(1, 1);
    let mut process = host.process();
    host.settle(&mut process).unwrap();
    host.check().unwrap();
    assert_eq!(host.raised(), ["unreadable_batch"]);
    assert_eq!(
        host.world
            .content("/data/quarantine/output-events-routine-1.batch")
            .unwrap(),
        b"!"
    );
    // Also alone: the mark passes it.
    host.world.push(1, "!");
    host.settle(&mut process).unwrap();
    assert_eq!(process.marked.next, [ItemNo(0), ItemNo(4)]);
    assert_eq!(host.raised().len(), 2);
}

fn fails_and_recovers(call: Call, kind: io::ErrorKind) {
    for seed in 0..20 {
        let mut host = Host::new(seed);
        host.rotation.size_bytes = Some(100);
        let mut process = host.process();
        host.append(1, 3);
        host.settle(&mut process).unwrap();
        host.append(1, 30);
        host.world.state().failing = Some((call, kind));
        let mut failed = false;
        for _ in 0..5 {
            host.append(0, 1);
            failed |= host.settle(&mut process).is_err();
        }
        assert!(failed, "{call:?} is not used");
        host.world.state().failing = None;
        host.settle(&mut process).unwrap();
        // What the disk has is what the output believes.
        host.world.after_power_cut();
        let mut process = host.process();
        host.settle(&mut process).unwrap();
        host.check()
            .unwrap_or_else(|error| panic!("{error}: {call:?}, seed {seed}\n{}", host.output()));
        assert_eq!(host.raised(), [""; 0]);
    }
}

#[test]
fn after_errors_of_every_kind_nothing_is_lost_or_repeated() {
    fails_and_recovers(Call::Write, io::ErrorKind::PermissionDenied);
    fails_and_recovers(Call::Write, io::ErrorKind::ReadOnlyFilesystem);
    fails_and_recovers(Call::Sync, io::ErrorKind::Other);
    fails_and_recovers(Call::Rename, io::ErrorKind::PermissionDenied);
    fails_and_recovers(Call::Create, io::ErrorKind::PermissionDenied);
    fails_and_recovers(Call::SyncDirectory, io::ErrorKind::Other);
    fails_and_recovers(Call::Mark, io::ErrorKind::Other);
}

#[test]
fn a_full_disk_is_an_error_until_there_is_room() {
    let mut host = Host::new(3);
    let mut process = host.process();
    host.append(1, 3);
    host.settle(&mut process).unwrap();
    host.world.state().room = Some(17);
    host.append(1, 20);
    for _ in 0..3 {
        let trouble = host.settle(&mut process).unwrap_err();
        assert!(
            trouble.reason().starts_with("write /data/events: "),
            "{}",
            trouble.reason()
        );
    }
    host.world.state().room = None;
    host.settle(&mut process).unwrap();
    host.check().unwrap();
    assert_eq!(host.raised(), [""; 0]);
}

#[test]
fn a_directory_that_is_gone_is_an_error_until_it_is_back() {
    let mut host = Host::new(3);
    let mut process = host.process();
    host.append(1, 3);
    host.settle(&mut process).unwrap();
    host.world.remove_directory(true);
    host.append(1, 2);
    for _ in 0..3 {
        host.settle(&mut process).unwrap_err();
    }
    host.world.remove_directory(false);
    host.settle(&mut process).unwrap();
    host.check().unwrap();
}

#[test]
fn a_batch_larger_than_a_window_is_marked_in_parts() {
    let mut host = Host::new(1);
    let line = format!("{}\n", "y".repeat(99_999));
    host.world.push(1, line.repeat(300));
    let mut process = host.process();
    let mut partial = false;
    let mut turns = 0;
    while process.turn(host.now()).unwrap() == Turn::More {
        partial |= process.marked.partial.is_some();
        turns += 1;
        assert!(turns < 1000);
    }
    assert!(partial);
    host.world.after_kill();
    host.world.push(1, "end\n");
    let mut process = host.process();
    host.settle(&mut process).unwrap();
    let content = host.world.content(PATH).unwrap();
    assert_eq!(content, format!("{}end\n", line.repeat(300)).into_bytes());
}

#[test]
fn a_line_larger_than_a_window_is_cut_and_written_again() {
    let line = format!("{}\n", "y".repeat(2 * WINDOW_BYTES as usize));
    for seed in 0..10 {
        let mut host = Host::new(seed);
        let mut process = host.process();
        host.settle(&mut process).unwrap();
        host.world.push(1, line.clone());
        host.world.state().calls_left = Some(seed % 5);
        let _ = host.settle(&mut process);
        host.world.after_kill();
        let mut process = host.process();
        host.settle(&mut process).unwrap();
        assert_eq!(
            host.world.content(PATH).unwrap(),
            line.as_bytes(),
            "seed {seed}"
        );
        assert_eq!(host.raised(), [""; 0], "seed {seed}");
    }
}

/// Anything that can happen to an output, many times; at the end everything is there once.
fn life(seed: u64) -> Result<(), TestCaseError> {
    let mut dice = Dice::new(seed);
    let mut host = Host::new(seed);
    host.framed = dice.one_in(2);
    if dice.one_in(2) {
        host.rotation.size_bytes = Some(dice.below(2000) + 1);
    }
    if dice.one_in(2) {
        host.rotation.every = Some(Duration::from_secs(1 + dice.below(60)));
    }
    let mut process = host.process();
    for _ in 0..200 {
        match dice.below(12) {
            0..5 => {
                let lane = usize::from(!dice.one_in(4));
                let events = 1 + dice.below(12);
                host.append(lane, events);
            }
            5..8 => drop(process.turn(host.now())),
            8 => host.elapsed += Duration::from_millis(dice.below(200)),
            9 => host.elapsed += Duration::from_millis(dice.below(30_000)),
            10 => {
                host.world.state().calls_left = Some(dice.below(40));
                while host.settle(&mut process).is_ok() && !host.world.state().killed {
                    host.append(1, 3);
                }
                drop(process);
                if dice.one_in(2) {
                    host.world.after_power_cut();
                } else {
                    host.world.after_kill();
                }
                process = host.process();
            }
            _ => {
                let calls = [
                    Call::Write,
                    Call::Sync,
                    Call::Mark,
                    Call::Rename,
                    Call::Create,
                    Call::SyncDirectory,
                ];
                let call = calls[dice.below(calls.len() as u64) as usize];
                host.world.state().failing = Some((call, io::ErrorKind::Other));
                host.append(1, 2);
                for _ in 0..dice.below(6) {
                    let _ = process.turn(host.now());
                }
                host.world.state().failing = None;
            }
        }
    }
    let settled = host.settle(&mut process);
    prop_assert!(settled.is_ok(), "{:?}", settled);
    host.check()?;
    prop_assert_eq!(host.raised(), [""; 0]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_event_is_there_once_and_in_order(seed: u64) {
        life(seed)?;
    }
}
