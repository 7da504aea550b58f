//! The disk fails while the spool is open.

use watchline_spool::{
    AppendError, Frame, FrameNo, ItemNo, Options,
    testing::{FailingDisk, Fault, Keep, Operation},
};

use crate::harness::{append, directory, drain, mark, open, options, read, segments, try_open};

fn fault(operation: Operation, errno: i32) -> Fault {
    Fault {
        operation,
        after: 0,
        times: 1,
        errno,
    }
}

#[test]
fn after_a_failed_sync_nothing_unsynced_counts() {
    let disk = FailingDisk::new();
    let (mut spool, _) = try_open(
        &disk,
        Options {
            read_unsynced: true,
            ..options()
        },
    )
    .unwrap();
    let mut reader = spool.reader("uplink");
    append(&mut spool, 1, b"synced").unwrap();
    spool.sync().unwrap();
    append(&mut spool, 1, b"lost").unwrap();
    spool
        .append(&Frame {
            state: vec![("key".into(), Some("lost".into()))],
            ..Frame::default()
        })
        .unwrap();
    mark(&mut spool, "uplink", [0, 1]);
    assert_eq!(drain(&mut reader, 1).0.len(), 2);

    disk.fail(fault(Operation::Sync, 5));
    let error = spool.sync().unwrap_err();
    assert_eq!(error.from, FrameNo(1));
    assert!(
        !reader.has_next(1) && reader.next(1).unwrap().is_none(),
        "readers stop at the durable mark"
    );
    assert!(matches!(
        append(&mut spool, 1, b"refused"),
        Err(AppendError::Io {
            from: FrameNo(1),
            ..
        })
    ));
    assert!(spool.sync().is_err() || !spool.needs_sync());

    let recovery = spool.reopen().unwrap();
    assert_eq!((recovery.items, recovery.damage.len()), ([0, 1], 0));
    assert_eq!(spool.state(b"key"), None);
    assert_eq!(spool.mark("uplink"), None);
    assert!(!reader.has_next(1) && reader.next(1).unwrap().is_none());

    // The number of the lost item is not used again: an acknowledgement that is still on its way cannot hit.
    let appended = append(&mut spool, 1, b"new").unwrap();
    assert_eq!((appended.frame, appended.first[1]), (FrameNo(1), ItemNo(2)));
    spool.sync().unwrap();
    let (items, errors) = drain(&mut reader, 1);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(items, [(2, "new".into())]);
    mark(&mut spool, "uplink", [0, 2]);
    spool.sync().unwrap();
    assert_eq!(spool.view().backlog("uplink")[1].items, 1);

    // All of it holds after a power cut.
    drop(spool);
    disk.cut_power();
    disk.restore_power(Keep::Nothing);
    let (spool, recovery) = open(&disk);
    assert_eq!((recovery.items, recovery.damage.len()), ([0, 1], 0));
    let (items, errors) = drain(&mut spool.reader("uplink"), 1);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(items, [(2, "new".into())]);
}

#[test]
fn the_handle_of_a_failed_sync_is_never_synced_again() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    append(&mut spool, 1, b"one").unwrap();
    disk.fail(fault(Operation::Sync, 5));
    spool.sync().unwrap_err();
    let (writes, syncs) = (disk.written_bytes(), disk.syncs());
    for _ in 0..3 {
        append(&mut spool, 1, b"two").unwrap_err();
        let _ = spool.sync();
    }
    assert_eq!((disk.written_bytes(), disk.syncs()), (writes, syncs));
    spool.reopen().unwrap();
    assert_eq!(read(&spool, 1).len(), 0);
}

#[test]
fn an_append_that_fails_at_any_call_leaves_what_was_synced() {
    for operation in [
        Operation::Write,
        Operation::Sync,
        Operation::Create,
        Operation::SyncDirectory,
    ] {
        for errno in [5, 28, 30, 13] {
            for after in 0..12 {
                let disk = FailingDisk::new();
                let (mut spool, _) = open(&disk);
                let what = format!("{operation:?} {after} with {errno}");
                disk.fail(Fault {
                    operation,
                    after,
                    times: 1,
                    errno,
                });
                let mut synced = 0;
                let mut tried = 0;
                for number in 0..30u64 {
                    tried = number;
                    // Large enough that segments begin on the way.
                    let item = [number as u8; 1500];
                    match append(&mut spool, 1, &item) {
                        Ok(_) => {}
                        Err(AppendError::NoRoom { .. }) => {
                            append(&mut spool, 1, &item)
                                .unwrap_or_else(|error| panic!("{what}: {error}"));
                        }
                        Err(_) => break,
                    }
                    if number % 4 == 3 {
                        match spool.sync() {
                            Ok(_) => synced = number + 1,
                            Err(_) => break,
                        }
                    }
                }
                disk.heal();
                let recovery = spool
                    .reopen()
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(recovery.damage, [], "{what}");
                let items = read(&spool, 1);
                assert!(
                    (synced..=tried + 1).contains(&(items.len() as u64)),
                    "{what}: {} of {synced}",
                    items.len()
                );
                assert!(
                    items
                        .iter()
                        .zip(0u8..)
                        .all(|(item, number)| item[0] == number),
                    "{what}"
                );
                append(&mut spool, 1, b"on").unwrap();
                spool.sync().unwrap();
                drop(spool);
                disk.cut_power();
                disk.restore_power(Keep::Nothing);
                let (spool, recovery) = open(&disk);
                assert_eq!(recovery.damage, [], "{what}");
                let again = read(&spool, 1);
                assert_eq!(again.len(), items.len() + 1, "{what}");
                assert_eq!(again.last().unwrap(), "on", "{what}");
            }
        }
    }
}

#[test]
fn reopening_fails_as_often_as_it_must_and_then_works() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    append(&mut spool, 0, b"kept").unwrap();
    spool.sync().unwrap();
    append(&mut spool, 0, b"lost").unwrap();
    disk.fail(fault(Operation::Sync, 5));
    spool.sync().unwrap_err();
    let mut reader = spool.reader("uplink");
    disk.read_only(true);
    for _ in 0..3 {
        spool.reopen().unwrap_err();
        assert_eq!(
            reader.next(0).unwrap().unwrap().bytes,
            "kept",
            "reading goes on"
        );
        assert!(reader.next(0).unwrap().is_none());
        reader.seek(0, ItemNo(0));
    }
    disk.read_only(false);
    disk.limit_room(100);
    spool.reopen().unwrap_err();
    disk.heal();
    let recovery = spool.reopen().unwrap();
    assert_eq!((recovery.items, recovery.damage.len()), ([1, 0], 0));
    append(&mut spool, 0, b"new").unwrap();
    spool.sync().unwrap();
    assert_eq!(drain(&mut reader, 0).0.len(), 2);
}

#[test]
fn segments_that_lost_all_they_had_are_stepped_over_and_are_no_damage() {
    for fails in 1..4 {
        let disk = FailingDisk::new();
        let (mut spool, _) = open(&disk);
        let mut reader = spool.reader("uplink");
        for _ in 0..fails {
            append(&mut spool, 1, b"lost").unwrap();
            disk.fail(fault(Operation::Sync, 5));
            spool.sync().unwrap_err();
            // Once it does not work at once: then the last segment is the one that lost all.
            disk.fail(fault(Operation::Sync, 5));
            spool.reopen().unwrap_err();
            assert!(!reader.has_next(1) && reader.next(1).unwrap().is_none());
            spool.reopen().unwrap();
            assert!(!reader.has_next(1) && reader.next(1).unwrap().is_none());
        }
        append(&mut spool, 1, b"kept").unwrap();
        spool.sync().unwrap();
        for mut reader in [reader, spool.reader("another")] {
            let (items, errors) = drain(&mut reader, 1);
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(items, [(fails, "kept".into())]);
        }
    }
}

#[test]
fn the_tail_of_a_failed_segment_is_cut() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    append(&mut spool, 1, &[1; 100]).unwrap();
    spool.sync().unwrap();
    append(&mut spool, 1, &[2; 100]).unwrap();
    let path = segments(&disk).pop().unwrap();
    disk.fail(fault(Operation::Sync, 5));
    spool.sync().unwrap_err();
    spool.reopen().unwrap();
    let bytes = disk.content(&path).unwrap();
    assert!(bytes.windows(100).any(|window| window == [1; 100]));
    assert!(!bytes.windows(100).any(|window| window == [2; 100]));
}

#[test]
fn removing_that_fails_is_made_good_at_the_next_opening() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..20u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    mark(&mut spool, "uplink", [0, 20]);
    disk.fail(Fault {
        operation: Operation::Remove,
        after: 0,
        times: 100,
        errno: 13,
    });
    spool.sync().unwrap();
    assert!(segments(&disk).len() > 3);
    append(&mut spool, 1, b"last").unwrap();
    spool.sync().unwrap();
    drop(spool);
    disk.heal();
    let (spool, recovery) = open(&disk);
    assert_eq!((recovery.items, recovery.damage.len()), ([0, 1], 0));
    assert!(segments(&disk).len() <= 3, "{:?}", segments(&disk));
    assert!(
        disk.content(&directory().join("lock")).is_none(),
        "the lock of this disk is no file"
    );
    drop(spool);
}
