//! Power cuts at every byte and every call.

use bytes::Bytes;
use watchline_spool::{
    Frame, Item, Options,
    testing::{FailingDisk, Keep},
};

use crate::harness::{append, drain, mark, open, options, try_open};

/// What a writer was told before the power went.
#[derive(Default)]
struct Told {
    appended: u64,
    synced: u64,
    /// Of the newest opening: what it found.
    opened: bool,
}

/// Appends frames of one item and one state entry, both the number of the frame, until the disk fails.
fn write(disk: &FailingDisk, options: Options, frames: u64, bytes: usize, told: &mut Told) {
    let Ok((mut spool, _)) = try_open(disk, options) else {
        return;
    };
    told.opened = true;
    for number in told.appended..told.appended + frames {
        let padding = vec![number as u8; bytes];
        let item = Item {
            lane: 1,
            parts: &[&number.to_le_bytes(), &padding],
        };
        let frame = Frame {
            items: vec![item],
            state: vec![(
                Bytes::from_static(b"number"),
                Some(Bytes::copy_from_slice(&number.to_le_bytes())),
            )],
            ..Frame::default()
        };
        // A frame that fails may be there in whole: its caller knows nothing of it.
        told.appended = number + 1;
        if spool.append(&frame).is_err() {
            return;
        }
        if number % 3 == 2 {
            if spool.sync().is_err() {
                return;
            }
            told.synced = number + 1;
        }
    }
}

/// A prefix is there that holds all that was synced, whole frames only; and one can go on.
fn check(disk: &FailingDisk, options: Options, bytes: usize, told: &Told, what: &str) {
    let (mut spool, recovery) = try_open(disk, options).unwrap();
    assert_eq!(recovery.damage, [], "{what}");
    let (items, errors) = drain(&mut spool.reader("uplink"), 1);
    assert!(errors.is_empty(), "{what}: {errors:?}");
    let count = items.len() as u64;
    assert!(
        (told.synced..=told.appended).contains(&count),
        "{what}: {count} of {} synced and {} appended",
        told.synced,
        told.appended
    );
    for (number, (no, item)) in (0..count).zip(&items) {
        assert_eq!(*no, number, "{what}");
        assert_eq!(item[..8], number.to_le_bytes(), "{what}");
        assert!(item[8..].iter().all(|&byte| byte == number as u8), "{what}");
        assert_eq!(item.len(), 8 + bytes, "{what}");
    }
    let state = spool.state(b"number").map(|value| value.to_vec());
    let expected = count.checked_sub(1).map(|last| last.to_le_bytes().to_vec());
    assert_eq!(state, expected, "{what}: state and items are of one frame");

    append(&mut spool, 1, b"and on").unwrap();
    spool.sync().unwrap();
    let mut reader = spool.reader("uplink");
    let (items, _) = drain(&mut reader, 1);
    assert_eq!(items.last().unwrap().1, "and on", "{what}");
}

fn keeps(seed: u64) -> [Keep; 4] {
    [
        Keep::Nothing,
        Keep::Everything,
        Keep::Some(seed),
        Keep::Some(!seed),
    ]
}

#[test]
fn synced_frames_survive_a_power_cut_at_every_byte() {
    let whole = FailingDisk::new();
    write(&whole, options(), 6, 5, &mut Told::default());
    let total = whole.written_bytes();
    assert!(total > 1000, "{total} bytes");
    for bytes in 0..=total {
        for keep in keeps(bytes) {
            let disk = FailingDisk::new();
            disk.cut_power_after_bytes(bytes);
            let mut told = Told::default();
            write(&disk, options(), 6, 5, &mut told);
            disk.cut_power();
            disk.restore_power(keep);
            check(
                &disk,
                options(),
                5,
                &told,
                &format!("cut at byte {bytes}, {keep:?}"),
            );
        }
    }
}

#[test]
fn a_snapshot_interrupted_at_any_call_leaves_the_one_before() {
    // Each opening and each full segment writes one; three openings, several segments.
    let run = |disk: &FailingDisk, told: &mut Told| {
        for _ in 0..3 {
            write(disk, options(), 8, 1500, told);
        }
    };
    let whole = FailingDisk::new();
    run(&whole, &mut Told::default());
    let total = whole.changing_calls();
    assert!(total > 60, "{total} calls");
    for calls in 0..=total {
        for keep in keeps(calls) {
            let disk = FailingDisk::new();
            disk.cut_power_after_calls(calls);
            let mut told = Told::default();
            run(&disk, &mut told);
            disk.cut_power();
            disk.restore_power(keep);
            check(
                &disk,
                options(),
                1500,
                &told,
                &format!("cut at call {calls}, {keep:?}"),
            );
        }
    }
}

#[test]
fn a_power_cut_while_recovering_from_a_power_cut_loses_nothing() {
    let before = || {
        let disk = FailingDisk::new();
        let mut told = Told::default();
        write(&disk, options(), 7, 900, &mut told);
        disk.cut_power();
        disk.restore_power(Keep::Some(7));
        (disk, told)
    };
    let (disk, _) = before();
    let calls = disk.changing_calls();
    drop(open(&disk));
    for cut in 0..disk.changing_calls() - calls {
        for keep in keeps(cut) {
            let (disk, told) = before();
            disk.cut_power_after_calls(cut);
            assert!(try_open(&disk, options()).is_err() || disk.is_off());
            disk.cut_power();
            disk.restore_power(keep);
            check(
                &disk,
                options(),
                900,
                &told,
                &format!("cut at call {cut}, {keep:?}"),
            );
        }
    }
}

#[test]
fn a_power_cut_while_trimming_brings_nothing_back_and_takes_nothing_away() {
    let run = |disk: &FailingDisk, marked: &mut u64| -> Option<()> {
        let (mut spool, _) = try_open(disk, options()).ok()?;
        for number in 0..24u64 {
            append(&mut spool, 1, &[number as u8; 1500]).ok()?;
            if number % 6 == 5 {
                let next = [0, number - 2].map(watchline_spool::ItemNo);
                let mark = watchline_spool::Mark {
                    reader: "uplink".into(),
                    next,
                    note: Bytes::new(),
                };
                spool
                    .append(&Frame {
                        marks: vec![mark],
                        ..Frame::default()
                    })
                    .ok()?;
                spool.sync().ok()?;
                *marked = number - 2;
            }
        }
        Some(())
    };
    let whole = FailingDisk::new();
    run(&whole, &mut 0).unwrap();
    for calls in 0..=whole.changing_calls() {
        for keep in keeps(calls) {
            let disk = FailingDisk::new();
            disk.cut_power_after_calls(calls);
            let mut marked = 0;
            run(&disk, &mut marked);
            disk.cut_power();
            disk.restore_power(keep);
            let (spool, recovery) = open(&disk);
            let what = format!("cut at call {calls}, {keep:?}");
            assert_eq!(recovery.damage, [], "{what}");
            let next = spool.mark("uplink").map_or(0, |mark| mark.next[1].0);
            assert!(next >= marked, "{what}: a synced mark is back at {next}");
            let (items, errors) = drain(&mut spool.reader("uplink"), 1);
            assert!(errors.is_empty(), "{what}: {errors:?}");
            for (number, (no, item)) in (next..).zip(&items) {
                assert_eq!((*no, item[0]), (number, number as u8), "{what}");
            }
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_appended() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    append(&mut spool, 0, b"not synced").unwrap();
    mark(&mut spool, "uplink", [0, 0]);
    disk.cut_power();
    disk.restore_power(Keep::Everything);
    let (spool, _) = open(&disk);
    assert_eq!(drain(&mut spool.reader("uplink"), 0).0.len(), 1);
}
