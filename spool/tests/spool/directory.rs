//! What else may be in a directory, and who may not use it.

use watchline_spool::{
    OpenError,
    testing::{FailingDisk, Fault, Operation},
};

use crate::harness::{append, directory, open, options, read, segments, try_open};

fn with_items() -> FailingDisk {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..5u8 {
        append(&mut spool, 1, &[number]).unwrap();
    }
    spool.sync().unwrap();
    spool.close().unwrap();
    disk
}

#[test]
fn a_second_owner_is_refused_while_the_first_one_lives() {
    let disk = FailingDisk::new();
    let (spool, _) = open(&disk);
    match try_open(&disk, options()) {
        Err(OpenError::Locked { path }) => assert_eq!(path, directory()),
        other => panic!("{:?}", other.map(|(_, recovery)| recovery)),
    }
    drop(spool);
    open(&disk);
}

#[test]
fn a_newer_format_is_left_untouched() {
    let disk = with_items();
    let path = segments(&disk).pop().unwrap();
    let mut bytes = disk.content(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
    bytes[92..96].copy_from_slice(&crc);
    disk.put(&path, &bytes);
    let calls = disk.changing_calls();
    match try_open(&disk, options()) {
        Err(
            error @ OpenError::TooNew {
                found: 9, known: 1, ..
            },
        ) => {
            assert!(error.to_string().contains("left untouched"));
        }
        other => panic!("{:?}", other.map(|(_, recovery)| recovery)),
    }
    assert_eq!(disk.changing_calls(), calls, "nothing was changed");
    assert_eq!(disk.content(&path).unwrap(), bytes);
}

#[test]
fn an_empty_or_cut_newest_segment_does_not_count() {
    for len in [0, 1, 50, 95, 96, 97, 150] {
        let disk = with_items();
        let newest = segments(&disk).pop().unwrap();
        let bytes = disk.content(&newest).unwrap();
        let next = directory().join("00000000000000000009.seg");
        disk.put(&next, &bytes[..len]);
        let (spool, recovery) = open(&disk);
        assert_eq!(recovery.damage, [], "{len} bytes");
        assert_eq!(read(&spool, 1).len(), 5, "{len} bytes");
        assert!(disk.content(&next).is_none(), "{len} bytes: it is gone");
        assert!(
            segments(&disk).pop().unwrap() > next,
            "its number is not used again"
        );
    }
}

#[test]
fn a_foreign_file_is_left_alone() {
    let disk = with_items();
    let foreign = ["notes.txt", "5.seg", "0000000000000000000x.seg", ".seg"];
    for name in foreign {
        disk.put(&directory().join(name), b"mine");
    }
    let (spool, recovery) = open(&disk);
    assert_eq!((recovery.items, recovery.damage.len()), ([0, 5], 0));
    drop(spool);
    for name in foreign {
        assert_eq!(disk.content(&directory().join(name)).unwrap(), b"mine");
    }
}

#[test]
fn a_segment_whose_removal_was_lost_is_removed_again() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..20u8 {
        append(&mut spool, 1, &[number; 1500]).unwrap();
    }
    spool.sync().unwrap();
    let old = segments(&disk)[1].clone();
    let bytes = disk.content(&old).unwrap();
    crate::harness::mark(&mut spool, "uplink", [0, 18]);
    spool.sync().unwrap();
    assert!(disk.content(&old).is_none());
    append(&mut spool, 1, &[20; 1500]).unwrap();
    spool.sync().unwrap();
    drop(spool);
    for half in [bytes.len(), bytes.len() / 2, 0] {
        disk.put(&old, &bytes[..half]);
        let (spool, recovery) = open(&disk);
        assert_eq!(recovery.damage, []);
        assert!(disk.content(&old).is_none());
        assert_eq!(read(&spool, 1).last().unwrap()[0], 20);
    }
}

#[test]
fn opening_fails_cleanly_wherever_the_disk_fails_and_succeeds_later() {
    let operations = [
        Operation::Read,
        Operation::Write,
        Operation::Sync,
        Operation::Create,
        Operation::Open,
        Operation::List,
        Operation::SyncDirectory,
        Operation::Allocate,
        Operation::Truncate,
        Operation::Remove,
    ];
    for operation in operations {
        for errno in [5, 13, 28, 30] {
            for after in 0..4 {
                let disk = with_items();
                disk.fail(Fault {
                    operation,
                    after,
                    times: 1,
                    errno,
                });
                let what = format!("{operation:?} {after} with {errno}");
                match try_open(&disk, options()) {
                    Ok((spool, recovery)) => {
                        assert_eq!(
                            (recovery.items, recovery.damage.len()),
                            ([0, 5], 0),
                            "{what}"
                        );
                        drop(spool);
                    }
                    Err(OpenError::Io { .. }) => {}
                    Err(other) => panic!("{what}: {other}"),
                }
                disk.heal();
                let (spool, recovery) = open(&disk);
                assert_eq!(
                    (recovery.items, recovery.damage.len()),
                    ([0, 5], 0),
                    "{what}"
                );
                assert_eq!(read(&spool, 1).len(), 5, "{what}");
            }
        }
    }
}

#[test]
fn a_read_only_directory_is_reported_and_works_again_later() {
    let disk = with_items();
    disk.read_only(true);
    match try_open(&disk, options()) {
        Err(OpenError::Io { .. }) => {}
        other => panic!("{:?}", other.map(|(_, recovery)| recovery)),
    }
    disk.read_only(false);
    let (spool, _) = open(&disk);
    assert_eq!(read(&spool, 1).len(), 5);
}
