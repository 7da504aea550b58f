//! Flipped bits, lost segments: found, set aside, reported with what they held, stepped over.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use watchline_spool::{
    Damage, Frame, FrameNo, Item, ItemNo, ReadError, Spool,
    testing::{FailingDisk, Keep},
};

use crate::harness::{append, directory, drain, mark, open, options, segments, try_open};

const ITEMS: u64 = 12;

/// Twelve items of lane 1 and four of lane 0, over three segments, each with a state entry; then opened once more, so
/// that everything is known to have been durable.
fn small_log() -> FailingDisk {
    let disk = FailingDisk::new();
    for part in 0..2u64 {
        let (mut spool, _) = open(&disk);
        for number in part * 6..part * 6 + 6 {
            let bytes = number.to_le_bytes();
            let routine = Item {
                lane: 1,
                parts: &[&bytes, b"routine"],
            };
            let alert = Item {
                lane: 0,
                parts: &[&bytes],
            };
            let mut items = vec![routine];
            if number % 3 == 0 {
                items.push(alert);
            }
            let state = vec![(format!("key/{number}").into(), Some("value".into()))];
            spool
                .append(&Frame {
                    items,
                    state,
                    ..Frame::default()
                })
                .unwrap();
            spool.sync().unwrap();
        }
        spool.close().unwrap();
    }
    drop(open(&disk));
    disk
}

/// Items that were reported as lost, and items that were read.
fn account(spool: &Spool, found: &[Damage], lane: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut lost: BTreeSet<u64> = BTreeSet::new();
    let mut add =
        |damage: &Damage| lost.extend(damage.items[lane].start.0..damage.items[lane].end.0);
    found.iter().for_each(&mut add);
    let mut reader = spool.reader("uplink");
    let (items, errors) = drain(&mut reader, lane);
    for error in &errors {
        match error {
            ReadError::Damaged(damage) => add(damage),
            other => panic!("{other}"),
        }
    }
    (lost, items.into_iter().map(|(no, _)| no).collect())
}

#[test]
fn no_flipped_bit_loses_anything_in_silence() {
    let pristine = small_log();
    let contents: Vec<(PathBuf, Vec<u8>)> = segments(&pristine)
        .into_iter()
        .map(|path| (path.clone(), pristine.content(&path).unwrap()))
        .collect();
    let newest = segments(&pristine).pop().unwrap();
    let mut damaged = 0;
    for (path, content) in &contents {
        for bit in 0..content.len() as u64 * 8 {
            if (bit / 8 > 400 || *path == newest)
                && content[(bit / 8) as usize] == 0
                && bit % 8 != 3
            {
                continue; // preallocated zeros: one bit of each will do
            }
            let disk = FailingDisk::new();
            for (path, content) in &contents {
                disk.put(path, content);
            }
            disk.flip_bit(path, bit);
            let what = format!("bit {bit} of {}", path.display());
            let (spool, recovery) = open(&disk);
            // One reader for both lanes, as the damage is reported to one of them.
            let mut reader = spool.reader("uplink");
            let mut lost = [BTreeSet::new(), BTreeSet::new()];
            let mut read = [BTreeSet::new(), BTreeSet::new()];
            let mut reports = recovery.damage.clone();
            for (lane, read) in read.iter_mut().enumerate() {
                let (items, errors) = drain(&mut reader, lane);
                for (no, bytes) in items {
                    let number = if lane == 1 { no } else { no * 3 };
                    assert_eq!(bytes[..8], number.to_le_bytes(), "{what}");
                    read.insert(no);
                }
                for error in errors {
                    match error {
                        ReadError::Damaged(damage) => reports.push(damage),
                        other => panic!("{what}: {other}"),
                    }
                }
            }
            for damage in &reports {
                for (lane, lost) in lost.iter_mut().enumerate() {
                    lost.extend(damage.items[lane].start.0..damage.items[lane].end.0);
                }
                assert!(
                    damage
                        .kept
                        .as_ref()
                        .is_none_or(|kept| disk.content(kept).is_some()),
                    "{what}"
                );
            }
            damaged += usize::from(!reports.is_empty());
            for (lane, count) in [(0, ITEMS / 3), (1, ITEMS)] {
                for no in 0..count {
                    assert!(
                        lost[lane].contains(&no) != read[lane].contains(&no),
                        "{what}: item {no} of lane {lane}: read {:?}, lost {:?}",
                        read[lane],
                        lost[lane]
                    );
                }
                assert!(
                    lost[lane].len() <= 1,
                    "{what}: more than one frame is lost: {:?}",
                    lost[lane]
                );
            }
        }
    }
    assert!(damaged > 1000, "{damaged} bits hurt an item");
}

/// A log whose frames 0 to 9 are synced one by one and lie in the newest segment.
fn ten_frames() -> (FailingDisk, PathBuf) {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..10u8 {
        append(&mut spool, 1, &[number; 100]).unwrap();
        spool.sync().unwrap();
    }
    drop(spool);
    let path = segments(&disk).pop().unwrap();
    (disk, path)
}

/// Where a frame with this content begins to hold it.
fn offset_of(disk: &FailingDisk, path: &Path, content: u8) -> u64 {
    let bytes = disk.content(path).unwrap();
    bytes
        .windows(100)
        .position(|window| window == [content; 100])
        .unwrap() as u64
}

#[test]
fn a_bad_frame_that_a_later_one_calls_durable_is_damage() {
    let (disk, path) = ten_frames();
    let offset = offset_of(&disk, &path, 4);
    disk.flip_bit(&path, (offset + 50) * 8);
    let (spool, recovery) = open(&disk);
    let [damage] = &recovery.damage[..] else {
        panic!("{:?}", recovery.damage)
    };
    assert_eq!(damage.segment, path);
    assert_eq!(damage.frames, FrameNo(4)..FrameNo(5));
    assert_eq!(damage.items, [ItemNo(0)..ItemNo(0), ItemNo(4)..ItemNo(5)]);
    let kept = disk.content(damage.kept.as_ref().unwrap()).unwrap();
    assert!(kept.starts_with(b"WLf1") && kept.len() as u64 == damage.bytes);
    assert!(
        damage
            .kept
            .as_ref()
            .unwrap()
            .starts_with(directory().join("quarantine"))
    );

    // Reported once: the reader goes on in silence.
    let (items, errors) = drain(&mut spool.reader("uplink"), 1);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(
        items.iter().map(|(no, _)| *no).collect::<Vec<_>>(),
        [0, 1, 2, 3, 5, 6, 7, 8, 9]
    );
    assert_eq!(
        recovery.items,
        [0, 10],
        "what is damaged is held until a mark has passed it"
    );
}

#[test]
fn a_bad_frame_that_nobody_calls_durable_ends_the_log_even_before_good_looking_ones() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..10u8 {
        append(&mut spool, 1, &[number; 100]).unwrap(); // never synced
    }
    disk.cut_power();
    disk.restore_power(Keep::Everything);
    drop(spool);
    let path = segments(&disk).pop().unwrap();
    let offset = offset_of(&disk, &path, 4);
    disk.flip_bit(&path, (offset + 50) * 8);
    let (mut spool, recovery) = open(&disk);
    assert_eq!(recovery.damage, []);
    assert_eq!(recovery.items, [0, 4]);
    let appended = append(&mut spool, 1, b"new").unwrap();
    assert_eq!((appended.frame, appended.first[1]), (FrameNo(4), ItemNo(4)));
    spool.sync().unwrap();
    drop(spool);
    let (spool, recovery) = open(&disk);
    assert_eq!(recovery.damage, []);
    let (items, errors) = drain(&mut spool.reader("uplink"), 1);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(items.len(), 5);
    assert_eq!(items[4].1, "new");
}

#[test]
fn a_whole_zeroed_block_in_the_middle_is_one_damage_with_all_its_items() {
    let (disk, path) = ten_frames();
    let mut bytes = disk.content(&path).unwrap();
    let (from, to) = (
        offset_of(&disk, &path, 2) as usize,
        offset_of(&disk, &path, 6) as usize,
    );
    bytes[from..to].fill(0);
    disk.put(&path, &bytes);
    let (spool, recovery) = open(&disk);
    let [damage] = &recovery.damage[..] else {
        panic!("{:?}", recovery.damage)
    };
    assert_eq!(damage.items[1], ItemNo(2)..ItemNo(7));
    let (lost, read) = account(&spool, &recovery.damage, 1);
    assert_eq!(lost, (2..7).collect());
    assert_eq!(read, [0, 1, 7, 8, 9].into());
}

#[test]
fn a_reader_finds_damage_in_an_older_segment_once_and_goes_on() {
    let (disk, path) = ten_frames();
    drop(open(&disk)); // a newer segment, whose snapshot makes that one unnecessary
    let offset = offset_of(&disk, &path, 3);
    disk.flip_bit(&path, (offset + 1) * 8);
    let (mut spool, recovery) = open(&disk);
    assert_eq!(
        recovery.damage,
        [],
        "older segments are not read at the start"
    );
    let mut first = spool.reader("uplink");
    let (items, errors) = drain(&mut first, 1);
    assert_eq!(items.len(), 9);
    let [ReadError::Damaged(damage)] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(damage.items[1], ItemNo(3)..ItemNo(4));
    assert!(damage.kept.is_some());
    let mut second = spool.reader("another");
    second.seek(1, ItemNo(0));
    let (items, errors) = drain(&mut second, 1);
    assert_eq!((items.len(), errors.len()), (9, 0), "once for all readers");

    // Reported again by the next run, until its gap event is stored.
    drop(spool);
    (spool, _) = open(&disk);
    let (_, errors) = drain(&mut spool.reader("uplink"), 1);
    let [ReadError::Damaged(again)] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(again.items, damage.items);
    let gap = Item {
        lane: 0,
        parts: &[b"gap"],
    };
    spool
        .append(&Frame {
            items: vec![gap],
            settled: vec![again.clone()],
            ..Frame::default()
        })
        .unwrap();
    spool.sync().unwrap();
    for _ in 0..3 {
        drop(spool);
        (spool, _) = open(&disk);
        let (items, errors) = drain(&mut spool.reader("uplink"), 1);
        assert_eq!((items.len(), errors.len()), (9, 0));
    }
}

#[test]
fn damage_that_recovery_reported_is_reported_again_until_settled() {
    let (disk, path) = ten_frames();
    let offset = offset_of(&disk, &path, 5);
    disk.flip_bit(&path, offset * 8);
    let (spool, first) = open(&disk);
    assert_eq!(first.damage.len(), 1);
    drop(spool);
    // The newest snapshot is behind it now: the reader finds it.
    let (mut spool, second) = open(&disk);
    assert_eq!(second.damage, []);
    let (_, errors) = drain(&mut spool.reader("uplink"), 1);
    let [ReadError::Damaged(damage)] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(damage.items, first.damage[0].items);
    spool
        .append(&Frame {
            settled: vec![damage.clone()],
            ..Frame::default()
        })
        .unwrap();
    spool.sync().unwrap();
    drop(spool);
    let (spool, _) = open(&disk);
    assert_eq!(drain(&mut spool.reader("uplink"), 1).1.len(), 0);
}

#[test]
fn the_state_behind_damage_is_that_of_later_frames() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..5u8 {
        let state = vec![
            ("key".into(), Some(vec![number; 100].into())),
            (vec![number; 3].into(), Some("x".into())),
        ];
        spool
            .append(&Frame {
                state,
                ..Frame::default()
            })
            .unwrap();
        spool.sync().unwrap();
    }
    drop(spool);
    let path = segments(&disk).pop().unwrap();
    let offset = offset_of(&disk, &path, 2);
    disk.flip_bit(&path, offset * 8);
    let (spool, recovery) = open(&disk);
    assert_eq!(recovery.damage.len(), 1);
    assert!(!recovery.damage[0].lost_items());
    assert_eq!(spool.state(b"key").unwrap(), vec![4; 100]);
    assert_eq!(spool.state(&[2; 3]), None);
    assert_eq!(spool.state(&[3; 3]).unwrap(), "x");
}

#[test]
fn a_missing_segment_is_damage_with_all_its_items() {
    let disk = FailingDisk::new();
    for part in 0..4u8 {
        let (mut spool, _) = open(&disk);
        for number in part * 5..part * 5 + 5 {
            append(&mut spool, 1, &[number; 100]).unwrap();
        }
        spool.sync().unwrap();
    }
    let (spool, _) = open(&disk);
    let used_bytes = spool.view().used_bytes();
    drop(spool);
    let missing = segments(&disk)[1].clone(); // 0 had no frames, the first has five
    disk.delete(&missing);
    let (spool, recovery) = open(&disk);
    let [damage] = &recovery.damage[..] else {
        panic!("{:?}", recovery.damage)
    };
    assert_eq!(
        (&damage.segment, damage.items[1].clone()),
        (&missing, ItemNo(5)..ItemNo(10))
    );
    assert!(
        spool.view().used_bytes() < used_bytes,
        "what is not there takes no room"
    );
    let (lost, read) = account(&spool, &recovery.damage, 1);
    assert_eq!(lost, (5..10).collect());
    assert_eq!(read, (0..5).chain(10..20).collect());
}

#[test]
fn a_missing_segment_that_everybody_has_passed_is_no_damage() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(
        &disk,
        watchline_spool::Options {
            keep_delivered: Some(std::time::Duration::from_secs(3600)),
            ..options()
        },
    )
    .unwrap();
    for number in 0..20u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    mark(&mut spool, "uplink", [0, 15]);
    spool.sync().unwrap();
    drop(spool);
    let delivered = segments(&disk)[1].clone();
    disk.delete(&delivered);
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.damage, []);
}

#[test]
fn a_segment_that_vanishes_under_a_reader_is_damage() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..20u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    spool.sync().unwrap();
    disk.delete(&segments(&disk)[2]);
    let (items, errors) = drain(&mut spool.reader("uplink"), 1);
    let [ReadError::Damaged(damage)] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(
        items.len() as u64,
        20 - (damage.items[1].end.0 - damage.items[1].start.0)
    );
    assert!(damage.lost_items());
}

#[test]
fn without_any_snapshot_everything_is_set_aside_and_the_spool_made_anew() {
    let disk = small_log();
    let (spool, before) = open(&disk);
    drop(spool);
    for path in segments(&disk) {
        disk.flip_bit(&path, 100); // the header
        disk.flip_bit(&path, 97 * 8); // and the first part of the snapshot
    }
    let count = segments(&disk).len();
    let (mut spool, recovery) = open(&disk);
    assert!(!recovery.created);
    assert_ne!(recovery.buffer_id, before.buffer_id);
    assert_eq!(recovery.damage.len(), count);
    for damage in &recovery.damage {
        assert!(disk.content(damage.kept.as_ref().unwrap()).is_some());
    }
    assert_eq!(recovery.items, [0, 0]);
    append(&mut spool, 1, b"new").unwrap();
    spool.sync().unwrap();
    drop(spool);
    let (_, recovery) = open(&disk);
    assert_eq!((recovery.items, recovery.damage.len()), ([0, 1], 0));
}

#[test]
fn a_place_that_can_never_be_read_becomes_damage_after_some_tries() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    append(&mut spool, 1, &[1; 100]).unwrap();
    spool.sync().unwrap();
    let mut reader = spool.reader("uplink");
    let eio = |times| watchline_spool::testing::Fault {
        operation: watchline_spool::testing::Operation::Read,
        after: 0,
        times,
        errno: 5,
    };
    disk.fail(eio(1));
    assert!(
        matches!(reader.next(1), Err(ReadError::Io { .. })),
        "may pass"
    );
    assert_eq!(reader.next(1).unwrap().unwrap().no, ItemNo(0));

    reader.seek(1, ItemNo(0));
    let mut reader = spool.reader("uplink");
    disk.fail(eio(1000));
    let outcomes: Vec<bool> = (0..4)
        .map(|_| matches!(reader.next(1), Err(ReadError::Damaged(damage)) if damage.lost_items()))
        .collect();
    assert_eq!(outcomes, [false, false, false, true]);
}

#[test]
fn settled_damage_at_the_end_of_a_lane_holds_nothing() {
    let (disk, path) = ten_frames();
    drop(open(&disk));
    let offset = offset_of(&disk, &path, 9);
    disk.flip_bit(&path, offset * 8);
    let (mut spool, _) = open(&disk);
    let (_, errors) = drain(&mut spool.reader("uplink"), 1);
    let [ReadError::Damaged(damage)] = &errors[..] else {
        panic!("{errors:?}")
    };
    // All that can be read has been acknowledged; the damaged item never will be.
    mark(&mut spool, "uplink", [0, 9]);
    spool.sync().unwrap();
    assert_eq!(spool.view().backlog("uplink")[1].items, 1);
    let gap = Item {
        lane: 0,
        parts: &[b"gap"],
    };
    let settled = vec![damage.clone()];
    spool
        .append(&Frame {
            items: vec![gap],
            settled,
            ..Frame::default()
        })
        .unwrap();
    mark(&mut spool, "uplink", [1, 9]);
    spool.sync().unwrap();
    assert_eq!(
        spool.view().backlog("uplink"),
        [watchline_spool::LaneStatus::default(); 2]
    );
    assert!(disk.content(&path).is_none(), "the segment is gone");
}
