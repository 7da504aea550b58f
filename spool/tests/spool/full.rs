//! Quota, reserve, and a full file system.

use std::time::Duration;

use watchline_spool::{AppendError, Frame, ItemNo, Options, Spool, testing::FailingDisk};

use crate::harness::{append, directory, drain, mark, open, options, read, segments, try_open};

fn small() -> Options {
    Options {
        max_bytes: 128 << 10,
        reserve_bytes: 16 << 10,
        ..options()
    }
}

fn fill(spool: &mut Spool, lane: usize, bytes: usize) -> u64 {
    for number in 0.. {
        match append(spool, lane, &vec![number as u8; bytes]) {
            Ok(_) => {}
            Err(AppendError::Full {
                used_bytes,
                max_bytes,
            }) => {
                assert!(used_bytes <= max_bytes);
                return number;
            }
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

#[test]
fn routine_leaves_the_reserve_to_alerts_and_alerts_leave_some_to_marks() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    let routine = fill(&mut spool, 1, 1000);
    assert!(routine > 80, "{routine}");
    let alerts = fill(&mut spool, 0, 1000);
    assert!(alerts > 2, "{alerts}");
    // Marks still fit, and make room.
    mark(&mut spool, "uplink", [0, 0]);
    mark(&mut spool, "uplink", [alerts, routine / 2]);
    spool.sync().unwrap();
    append(&mut spool, 1, &[0; 1000]).unwrap();
    assert!(spool.view().used_bytes() <= spool.view().max_bytes());
}

#[test]
fn marks_make_room_even_when_only_the_two_newest_segments_are_left() {
    let disk = FailingDisk::new();
    // Segments as large as the quota allows, so that the newest hold most of it.
    let (mut spool, _) = try_open(
        &disk,
        Options {
            segment_bytes: 1 << 30,
            ..small()
        },
    )
    .unwrap();
    for round in 0..5u64 {
        let mut next = 0;
        for lane in [1, 0] {
            fill(&mut spool, lane, 1000);
            next = spool.view().next_items()[1].0;
        }
        let alerts = spool.view().next_items()[0].0;
        mark(&mut spool, "uplink", [alerts, next]);
        // Not even synced: the append that needs the room sees to that.
        let written = fill(&mut spool, 1, 1000);
        assert!(written > 50, "round {round}: {written}");
    }
}

#[test]
fn what_is_on_disk_counts_again_after_a_restart() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    fill(&mut spool, 1, 1000);
    let used_bytes = spool.view().used_bytes();
    drop(spool);
    for _ in 0..3 {
        let (mut spool, _) = try_open(&disk, small()).unwrap();
        assert!(spool.view().used_bytes() >= used_bytes);
        assert!(matches!(
            append(&mut spool, 1, &[0; 1000]),
            Err(AppendError::Full { .. })
        ));
        let files: u64 = segments(&disk)
            .iter()
            .map(|path| disk.content(path).unwrap().len() as u64)
            .sum();
        assert!(files <= small().max_bytes, "{files} bytes in files");
        drop(spool);
    }
}

#[test]
fn no_file_system_room_beyond_the_quota_is_taken() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    for lane in [1, 0] {
        fill(&mut spool, lane, 3000);
        let mine = disk
            .paths()
            .into_iter()
            .filter(|path| path.parent() == Some(directory()));
        let files: u64 = mine
            .map(|path| disk.content(&path).unwrap().len() as u64)
            .sum();
        assert!(
            files <= small().max_bytes + (64 << 10),
            "{files} bytes in files"
        );
    }
}

#[test]
fn a_frame_that_would_never_fit_is_refused_as_such() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    let Err(AppendError::TooLarge { bytes, max }) = append(&mut spool, 1, &[0; 100_000]) else {
        panic!("taken");
    };
    assert!(bytes > 100_000 && max < 100_000);
    let (mut spool, _) = try_open(
        &FailingDisk::new(),
        Options {
            max_bytes: 1 << 30,
            ..options()
        },
    )
    .unwrap();
    assert!(matches!(
        append(&mut spool, 1, &vec![0; 16 << 20]),
        Err(AppendError::TooLarge { .. })
    ));
    append(&mut spool, 1, &vec![7; (16 << 20) - 200]).unwrap();
    spool.sync().unwrap();
    assert_eq!(read(&spool, 1)[0].len(), (16 << 20) - 200);
}

#[test]
fn a_full_file_system_refuses_and_the_spool_stays_usable() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(
        &disk,
        Options {
            reserve_bytes: 0,
            ..options()
        },
    )
    .unwrap();
    append(&mut spool, 1, &[0; 1000]).unwrap();
    spool.sync().unwrap();
    disk.limit_room(30_000);
    let mut taken = 1;
    let refused = loop {
        match append(&mut spool, 1, &[taken as u8; 1000]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::NoRoom { .. }), "{refused}");
    for _ in 0..3 {
        assert!(matches!(
            append(&mut spool, 1, &[99; 1500]),
            Err(AppendError::NoRoom { .. })
        ));
    }
    spool.sync().unwrap();
    assert_eq!(read(&spool, 1).len(), taken);
    disk.heal();
    append(&mut spool, 1, b"room again").unwrap();
    spool.sync().unwrap();
    drop(spool);
    let (spool, recovery) = open(&disk);
    assert_eq!(recovery.damage, []);
    let items = read(&spool, 1);
    assert_eq!(items.len(), taken + 1);
    assert_eq!(items.last().unwrap(), "room again");
}

#[test]
fn on_a_full_file_system_the_reserve_serves_alerts_and_marks() {
    let disk = FailingDisk::new();
    let options = Options {
        reserve_bytes: 128 << 10,
        ..options()
    };
    let (mut spool, _) = try_open(&disk, options.clone()).unwrap();
    let reserve = directory().join("reserve");
    assert_eq!(disk.content(&reserve).unwrap().len(), 128 << 10);
    disk.limit_room(200 << 10);
    while append(&mut spool, 1, &[1; 1000]).is_ok() {}
    let routine = spool.view().next_items()[1].0;
    assert!(matches!(
        append(&mut spool, 1, &[1; 1000]),
        Err(AppendError::NoRoom { .. })
    ));
    for _ in 0..20 {
        append(&mut spool, 0, &[0; 1000]).unwrap();
    }
    mark(&mut spool, "uplink", [0, routine]);
    spool.sync().unwrap();
    assert_eq!(read(&spool, 0).len(), 20);
    // There is room now, so the reserve is there again.
    assert!(!disk.content(&reserve).unwrap().is_empty());
    drop(spool);
    let (spool, recovery) = try_open(&disk, options).unwrap();
    assert_eq!((recovery.items, recovery.damage.len()), ([20, 0], 0));
    drop(spool);
}

#[test]
fn a_spool_opens_on_a_full_file_system_by_its_reserve() {
    let disk = FailingDisk::new();
    let options = Options {
        reserve_bytes: 128 << 10,
        ..options()
    };
    let (mut spool, _) = try_open(&disk, options.clone()).unwrap();
    append(&mut spool, 1, b"kept").unwrap();
    spool.sync().unwrap();
    spool.close().unwrap();
    let files = disk
        .paths()
        .into_iter()
        .map(|path| disk.content(&path).unwrap().len() as u64);
    disk.limit_room(files.sum());
    let (spool, _) = try_open(&disk, options).unwrap();
    assert_eq!(read(&spool, 1), ["kept"]);
}

#[test]
fn segments_go_only_when_the_mark_beyond_them_is_durable() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..30u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    spool.sync().unwrap();
    let before = segments(&disk);
    assert!(before.len() > 4);
    mark(&mut spool, "uplink", [0, 30]);
    mark(&mut spool, "not required", [0, 30]);
    assert_eq!(segments(&disk), before, "not durable yet");
    spool.sync().unwrap();
    let after = segments(&disk);
    assert_eq!(after[..], before[before.len() - 2..], "the two newest stay");
}

#[test]
fn the_slowest_required_reader_holds_segments_and_others_do_not() {
    let disk = FailingDisk::new();
    let required = vec!["uplink".to_owned(), "archive".to_owned()];
    let (mut spool, _) = try_open(
        &disk,
        Options {
            required_readers: required,
            ..options()
        },
    )
    .unwrap();
    for number in 0..30u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    mark(&mut spool, "uplink", [0, 30]);
    spool.sync().unwrap();
    let mut late = spool.reader("late");
    assert_eq!(read(&spool, 1).len(), 30, "archive has no mark yet");
    mark(&mut spool, "archive", [0, 20]);
    spool.sync().unwrap();
    assert!(read(&spool, 1).len() < 20);
    let (_, errors) = drain(&mut late, 1);
    assert!(
        matches!(
            errors[..],
            [watchline_spool::ReadError::Gone {
                lane: 1,
                from: ItemNo(0),
                ..
            }]
        ),
        "{errors:?}"
    );
    spool.forget_reader("archive");
    append(&mut spool, 1, b"x").unwrap();
    spool.sync().unwrap();
    assert_eq!(segments(&disk).len(), 2);
    drop(spool);
    let (spool, _) = open(&disk);
    assert_eq!(spool.mark("archive"), None);
    assert!(spool.mark("uplink").is_some());
}

#[test]
fn delivered_segments_stay_for_their_time_or_until_space_is_needed() {
    let disk = FailingDisk::new();
    let keep = Options {
        keep_delivered: Some(Duration::from_secs(3600)),
        ..small()
    };
    let (mut spool, _) = try_open(&disk, keep).unwrap();
    let held = |disk: &FailingDisk| segments(disk).len();
    for number in 0..40u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    mark(&mut spool, "uplink", [0, 40]);
    spool.sync().unwrap();
    let before = held(&disk);
    assert!(before > 5);
    disk.advance(Duration::from_secs(3000));
    spool.sync().unwrap();
    assert_eq!(held(&disk), before);
    let mut again = spool.reader("again");
    again.seek(1, ItemNo(0));
    assert_eq!(
        drain(&mut again, 1).0.len(),
        40,
        "what is delivered can be read again"
    );
    disk.advance(Duration::from_secs(601));
    spool.sync().unwrap();
    assert_eq!(held(&disk), 2, "too old");

    for number in 0..200u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
        let next = spool.view().next_items()[1].0;
        mark(&mut spool, "uplink", [0, next]);
    }
    assert!(
        spool.view().used_bytes() > 60_000,
        "delivered segments are kept while there is space"
    );
}

#[test]
fn age_never_deletes_what_is_undelivered() {
    let disk = FailingDisk::new();
    let keep = Options {
        keep_delivered: Some(Duration::from_secs(60)),
        ..options()
    };
    let (mut spool, _) = try_open(&disk, keep).unwrap();
    for number in 0..40u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    spool.sync().unwrap();
    disk.advance(Duration::from_secs(1_000_000));
    append(&mut spool, 1, b"new").unwrap();
    spool.sync().unwrap();
    assert_eq!(read(&spool, 1).len(), 41);
}

#[test]
fn drop_oldest_keeps_undelivered_alerts_that_the_caller_appends_anew() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    append(&mut spool, 0, b"alert, delivered").unwrap();
    append(&mut spool, 0, b"alert, undelivered").unwrap();
    let routine = fill(&mut spool, 1, 1000);
    mark(&mut spool, "uplink", [1, 2]);
    let mut reader = spool.reader("uplink");

    let dropped = spool.oldest_undelivered("uplink").unwrap();
    let alerts: Vec<_> = dropped.iter().filter(|(lane, ..)| *lane == 0).collect();
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0].2, "alert, undelivered");
    let lost: Vec<u64> = dropped
        .iter()
        .filter(|(lane, ..)| *lane == 1)
        .map(|(_, no, _)| no.0)
        .collect();
    assert_eq!(lost, (2..2 + lost.len() as u64).collect::<Vec<_>>());
    append(&mut spool, 0, &alerts[0].2).unwrap();
    spool.drop_oldest().unwrap();

    append(&mut spool, 1, &[255; 1000]).unwrap();
    spool.sync().unwrap();
    let (items, errors) = drain(&mut reader, 0);
    assert_eq!(items, [(2, "alert, undelivered".into())]);
    assert!(
        matches!(
            errors[..],
            [watchline_spool::ReadError::Gone {
                lane: 0,
                from: ItemNo(1),
                to: ItemNo(2)
            }]
        ),
        "{errors:?}"
    );
    let (items, errors) = drain(&mut reader, 1);
    let to = ItemNo(2 + lost.len() as u64);
    assert!(
        matches!(errors[..], [watchline_spool::ReadError::Gone { lane: 1, from: ItemNo(2), to: at }] if at == to),
        "{errors:?}"
    );
    assert_eq!(items.len() as u64, routine - 2 - lost.len() as u64 + 1);

    // Dropped on purpose is not damage after a restart.
    drop(spool);
    let (_, recovery) = try_open(&disk, small()).unwrap();
    assert_eq!(recovery.damage, []);
    assert_eq!(recovery.items, [1, items.len() as u64]);
}

#[test]
fn drop_oldest_again_and_again_ends_with_nothing_to_drop() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    let count = fill(&mut spool, 1, 1000);
    let mut dropped = 0;
    loop {
        let items = spool.oldest_undelivered("uplink").unwrap();
        if items.is_empty() {
            break;
        }
        dropped += items.len() as u64;
        spool.drop_oldest().unwrap();
        assert!(spool.view().used_bytes() <= small().max_bytes);
    }
    assert!(dropped <= count);
    assert_eq!(read(&spool, 1).len() as u64, count - dropped);
    spool.drop_oldest().unwrap();
    assert_eq!(
        read(&spool, 1).len() as u64,
        count - dropped,
        "the newest is never dropped"
    );
    assert!(fill(&mut spool, 1, 1000) > 50);
}

#[test]
fn a_power_cut_while_dropping_leaves_the_segment_or_takes_it_without_damage() {
    use watchline_spool::testing::Keep;
    let before = || {
        let disk = FailingDisk::new();
        let (mut spool, _) = try_open(&disk, small()).unwrap();
        fill(&mut spool, 1, 3000);
        spool.sync().unwrap();
        (disk, spool)
    };
    let (disk, mut spool) = before();
    let calls = disk.changing_calls();
    spool.drop_oldest().unwrap();
    for cut in 0..=disk.changing_calls() - calls {
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some(cut)] {
            let (disk, mut spool) = before();
            let all = read(&spool, 1).len();
            disk.cut_power_after_calls(cut);
            let done = spool.drop_oldest().is_ok();
            disk.cut_power();
            disk.restore_power(keep);
            drop(spool);
            let (spool, recovery) = try_open(&disk, small()).unwrap();
            assert_eq!(recovery.damage, [], "cut at call {cut}, {keep:?}");
            let left = read(&spool, 1).len();
            assert!(
                left <= all && (!done || left < all),
                "cut at call {cut}, {keep:?}: {left} of {all}"
            );
        }
    }
}

#[test]
fn a_large_state_raises_the_size_of_segments_and_survives() {
    let disk = FailingDisk::new();
    let large = Options {
        max_bytes: 64 << 20,
        ..options()
    };
    let (mut spool, _) = try_open(&disk, large.clone()).unwrap();
    let value = |seed: u32| bytes::Bytes::from(seed.to_le_bytes().repeat(1000));
    for key in 0..150u32 {
        let state = vec![(key.to_le_bytes().to_vec().into(), Some(value(key)))];
        spool
            .append(&Frame {
                state,
                ..Frame::default()
            })
            .unwrap();
    }
    let huge = (
        bytes::Bytes::from_static(b"huge"),
        Some(vec![7; 700_000].into()),
    );
    spool
        .append(&Frame {
            state: vec![huge],
            ..Frame::default()
        })
        .unwrap();
    // Marks as they go, so that segments are begun and removed.
    for round in 0..1000u64 {
        append(&mut spool, 1, &vec![round as u8; 50_000]).unwrap();
        if round % 20 == 0 {
            mark(&mut spool, "uplink", [0, round]);
            spool.sync().unwrap();
        }
    }
    let sizes: Vec<usize> = segments(&disk)
        .iter()
        .map(|path| disk.content(path).unwrap().len())
        .collect();
    assert!(sizes[0] > 16 * 1_300_000, "a closed one: {sizes:?}");
    drop(spool);
    let (spool, recovery) = try_open(&disk, large).unwrap();
    assert_eq!(recovery.damage, []);
    assert_eq!(spool.state(b"huge").unwrap(), vec![7; 700_000]);
    assert!((0..150u32).all(|key| spool.state(&key.to_le_bytes()) == Some(value(key))));
}

#[test]
fn a_snapshot_that_is_large_for_the_quota_slows_but_never_stops() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(&disk, small()).unwrap();
    let state = vec![("ledger".into(), Some(vec![7; 8_000].into()))];
    spool
        .append(&Frame {
            state,
            ..Frame::default()
        })
        .unwrap();
    for round in 0..300u64 {
        while let Err(error) = append(&mut spool, 1, &[round as u8; 1000]) {
            assert!(matches!(error, AppendError::Full { .. }), "{error}");
            let next = spool.view().next_items()[1].0;
            assert!(
                spool
                    .mark("uplink")
                    .is_none_or(|mark| mark.next[1].0 < next),
                "round {round}: stuck"
            );
            mark(&mut spool, "uplink", [0, next]);
        }
        assert!(spool.view().used_bytes() <= small().max_bytes);
    }
    spool.sync().unwrap();
    drop(spool);
    let (spool, _) = try_open(&disk, small()).unwrap();
    assert_eq!(spool.state(b"ledger").unwrap().len(), 8_000);
}
