//! Reading behind the owner.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use watchline_spool::{Frame, Item, ItemNo, Options, testing::FailingDisk};

use crate::harness::{append, drain, mark, open, options, try_open};

#[test]
fn an_alert_overtakes_a_backlog_without_reading_it() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(
        &disk,
        Options {
            max_bytes: 8 << 20,
            segment_bytes: 1 << 20,
            ..options()
        },
    )
    .unwrap();
    for number in 0..400u32 {
        append(&mut spool, 1, &[number as u8; 10_000]).unwrap();
    }
    append(&mut spool, 0, b"alert").unwrap();
    for number in 0..100u32 {
        append(&mut spool, 1, &[number as u8; 10_000]).unwrap();
    }
    spool.sync().unwrap();
    let mut reader = spool.reader("uplink");
    let reads = disk.reads();
    let item = reader.next(0).unwrap().unwrap();
    assert_eq!(
        (item.lane, item.no, &item.bytes[..]),
        (0, ItemNo(0), &b"alert"[..])
    );
    assert!(disk.reads() - reads <= 2, "{} reads", disk.reads() - reads);
    let reads = disk.reads();
    assert!(!reader.has_next(0));
    assert!(reader.next(0).unwrap().is_none());
    assert_eq!(
        disk.reads(),
        reads,
        "nothing to read is known without the disk"
    );
    assert_eq!(reader.next(1).unwrap().unwrap().no, ItemNo(0));
}

#[test]
fn reading_on_costs_one_read_a_block() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(
        &disk,
        Options {
            max_bytes: 64 << 20,
            segment_bytes: 4 << 20,
            ..options()
        },
    )
    .unwrap();
    for number in 0..2000u32 {
        append(
            &mut spool,
            1,
            &vec![number as u8; 1000 + number as usize % 3000],
        )
        .unwrap();
    }
    spool.sync().unwrap();
    let total: usize = (0..2000).map(|number| 1000 + number % 3000).sum();
    let reads = disk.reads();
    let (items, _) = drain(&mut spool.reader("uplink"), 1);
    assert_eq!(items.len(), 2000);
    let reads = disk.reads() - reads;
    assert!(
        reads as usize <= total / (240 << 10) + 3,
        "{reads} reads for {total} bytes"
    );
}

#[test]
fn an_alert_after_a_restart_is_found_by_headers_alone() {
    let disk = FailingDisk::new();
    let large = Options {
        max_bytes: 64 << 20,
        segment_bytes: 4 << 20,
        ..options()
    };
    let (mut spool, _) = try_open(&disk, large.clone()).unwrap();
    for _ in 0..30 {
        append(&mut spool, 1, &[1; 100_000]).unwrap();
    }
    append(&mut spool, 0, b"alert").unwrap();
    spool.sync().unwrap();
    drop(spool);
    drop(try_open(&disk, large.clone()).unwrap());
    let (spool, _) = try_open(&disk, large).unwrap();
    assert_eq!(
        spool.reader("uplink").next(0).unwrap().unwrap().bytes,
        "alert"
    );
}

#[test]
fn items_of_one_frame_come_in_their_order_each_in_its_lane() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    let names = ["a0", "b1", "c1", "d0", "e1"];
    let parts: Vec<[&[u8]; 1]> = names.iter().map(|name| [name.as_bytes()]).collect();
    let items = names.iter().zip(&parts).map(|(name, parts)| Item {
        lane: usize::from(name.ends_with('1')),
        parts: &parts[..],
    });
    let frame = Frame {
        items: items.collect(),
        ..Frame::default()
    };
    for _ in 0..3 {
        let appended = spool.append(&frame).unwrap();
        assert_eq!(appended.first[0].0 * 3, appended.first[1].0 * 2);
    }
    spool.sync().unwrap();
    let mut reader = spool.reader("uplink");
    // Interleaved, as an uplink does it.
    let mut read = Vec::new();
    for lane in [0, 1, 1, 0, 1, 0, 0, 1, 1, 1] {
        read.push(String::from_utf8(reader.next(lane).unwrap().unwrap().bytes.to_vec()).unwrap());
    }
    assert_eq!(
        read,
        ["a0", "b1", "c1", "d0", "e1", "a0", "d0", "b1", "c1", "e1"]
    );
    reader.seek(1, ItemNo(4));
    assert_eq!(reader.position(1), ItemNo(4));
    let item = reader.next(1).unwrap().unwrap();
    assert_eq!((item.no, &item.bytes[..]), (ItemNo(4), &b"c1"[..]));
    reader.seek(1, ItemNo(0));
    assert_eq!(drain(&mut reader, 1).0.len(), 9);
}

#[test]
fn a_small_item_does_not_keep_a_large_block_in_memory() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for _ in 0..100 {
        append(&mut spool, 1, &[1; 300]).unwrap();
    }
    append(&mut spool, 1, &[2; 100_000]).unwrap();
    spool.sync().unwrap();
    let (items, _) = drain(&mut spool.reader("uplink"), 1);
    let small = items[0].1.clone();
    drop(items);
    assert!(
        small
            .try_into_mut()
            .is_ok_and(|bytes| bytes.capacity() < 1000),
        "it has a buffer of its own"
    );
}

#[test]
fn backlog_counts_items_bytes_and_age_from_the_mark() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    let view = spool.view();
    assert_eq!(
        view.backlog("uplink"),
        [watchline_spool::LaneStatus::default(); 2]
    );
    let mut times = Vec::new();
    for number in 0..100u64 {
        times.push(watchline_spool::Disk::unix_nano(&disk));
        append(&mut spool, 1, &[0; 500]).unwrap();
        if number % 10 == 0 {
            append(&mut spool, 0, &[0; 30]).unwrap();
        }
        disk.advance(std::time::Duration::from_secs(2));
    }
    let [alert, routine] = view.backlog("uplink");
    assert_eq!(
        (alert.items, alert.bytes, alert.oldest_unix_nano),
        (10, 300, times[0])
    );
    assert_eq!(
        (routine.items, routine.bytes, routine.oldest_unix_nano),
        (100, 50_000, times[0])
    );
    mark(&mut spool, "uplink", [10, 37]);
    let [alert, routine] = view.backlog("uplink");
    assert_eq!(alert, watchline_spool::LaneStatus::default());
    assert_eq!(
        (routine.items, routine.bytes, routine.oldest_unix_nano),
        (63, 31_500, times[37])
    );

    // After a restart the age is known by segment only, and never too young.
    spool.sync().unwrap();
    drop(spool);
    drop(open(&disk));
    let (spool, recovery) = open(&disk);
    let [_, routine] = spool.view().backlog("uplink");
    assert_eq!((routine.items, recovery.items[1]), (63, 63));
    assert!(
        (31_000..=32_000).contains(&routine.bytes),
        "{}",
        routine.bytes
    );
    assert!(routine.oldest_unix_nano <= times[37] && routine.oldest_unix_nano >= times[0]);
}

#[test]
fn those_who_wait_are_woken_when_something_is_readable_and_when_room_was_made() {
    for read_unsynced in [false, true] {
        let disk = FailingDisk::new();
        let (mut spool, _) = try_open(
            &disk,
            Options {
                read_unsynced,
                ..options()
            },
        )
        .unwrap();
        let woken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&woken);
        spool.view().on_change(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let count = || woken.swap(0, Ordering::Relaxed);
        append(&mut spool, 1, b"one").unwrap();
        assert_eq!(count(), u64::from(read_unsynced));
        spool.sync().unwrap();
        assert_eq!(count(), u64::from(!read_unsynced));
        spool.sync().unwrap();
        assert_eq!(count(), 0, "nothing has changed");
        for _ in 0..20 {
            append(&mut spool, 1, &[0; 1500]).unwrap();
        }
        mark(&mut spool, "uplink", [0, 21]);
        count();
        spool.sync().unwrap();
        assert_eq!(count(), 1, "room was made");
    }
}

#[test]
fn a_sync_with_nothing_to_do_does_not_touch_the_disk() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    append(&mut spool, 1, b"one").unwrap();
    assert!(spool.needs_sync());
    let durable = spool.sync().unwrap();
    assert!(!spool.needs_sync());
    let (syncs, calls) = (disk.syncs(), disk.changing_calls());
    for _ in 0..5 {
        assert_eq!(spool.sync().unwrap(), durable);
    }
    assert_eq!((disk.syncs(), disk.changing_calls()), (syncs, calls));
}

#[test]
fn many_appends_are_one_sync() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    let syncs = disk.syncs();
    for number in 0..50u8 {
        append(&mut spool, 1, &[number]).unwrap();
    }
    spool.sync().unwrap();
    assert_eq!(disk.syncs() - syncs, 1);
}
