//! The same on the file system of the machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use watchline_spool::{Frame, Item, OpenError, Options, RealDisk, Spool};

use crate::harness::{append, drain, mark, options};

fn open(directory: &Path) -> Result<Spool, OpenError> {
    let options = Options {
        max_bytes: 4 << 20,
        ..options()
    };
    Spool::open(Arc::new(RealDisk), directory, options).map(|(spool, _)| spool)
}

#[test]
fn items_of_many_parts_survive_many_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("a/spool");
    let parts: Vec<Vec<u8>> = (0..3000u32)
        .map(|number| number.to_le_bytes().repeat(number as usize % 5))
        .collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    for round in 0..5u64 {
        let mut spool = open(&directory).unwrap();
        let items = vec![
            Item {
                lane: 1,
                parts: &slices,
            },
            Item {
                lane: 0,
                parts: &[b"", b"x", b""],
            },
        ];
        spool
            .append(&Frame {
                items,
                ..Frame::default()
            })
            .unwrap();
        mark(&mut spool, "uplink", [round, round]);
        spool.sync().unwrap();
        if round % 2 == 0 {
            spool.close().unwrap();
        }
    }
    let spool = open(&directory).unwrap();
    let mut reader = spool.reader("uplink");
    let (items, errors) = drain(&mut reader, 1);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].1, parts.concat());
    assert_eq!(drain(&mut reader, 0).0[0].1, "x");
}

#[test]
fn directories_are_0700_and_files_0600() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("spool");
    let mut spool = open(&directory).unwrap();
    append(&mut spool, 1, b"x").unwrap();
    spool.sync().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        files += 1;
    }
    assert!(files >= 4, "two segments, the lock, the reserve");
}

#[test]
fn a_second_spool_on_the_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path()).unwrap();
    let Err(error) = open(folder.path()) else {
        panic!("opened twice")
    };
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().ends_with("is in use by another process"));
    drop(spool);
    open(folder.path()).unwrap();
}

#[test]
fn closing_gives_back_the_room_allocated_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path()).unwrap();
    append(&mut spool, 1, b"x").unwrap();
    let used_bytes = spool.view().used_bytes();
    spool.close().unwrap();
    let sizes = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap());
    let segments = sizes.filter(|entry| entry.path().extension().is_some_and(|end| end == "seg"));
    assert_eq!(
        segments
            .map(|entry| entry.metadata().unwrap().len())
            .sum::<u64>(),
        used_bytes
    );
}

#[test]
fn a_planted_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    fs::write(&target, b"precious").unwrap();
    let directory = folder.path().join("spool");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(&target, directory.join("00000000000000000003.seg")).unwrap();
    let mut spool = open(&directory).unwrap();
    append(&mut spool, 1, b"x").unwrap();
    spool.close().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    fs::remove_file(directory.join("lock")).unwrap();
    std::os::unix::fs::symlink(&target, directory.join("lock")).unwrap();
    assert!(open(&directory).is_err());
}

#[test]
fn a_reader_on_another_thread_follows_the_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path()).unwrap();
    let mut reader = spool.reader("uplink");
    let (wake, woken) = std::sync::mpsc::channel();
    spool.view().on_change(move || {
        let _ = wake.send(());
    });
    let acknowledged = Arc::new(AtomicU64::new(0));
    let acks = Arc::clone(&acknowledged);
    const ITEMS: u64 = 3000;
    let follower = std::thread::spawn(move || {
        let mut expected = 0;
        while expected < ITEMS {
            match reader.next(1).unwrap() {
                Some(item) => {
                    assert_eq!(item.no.0, expected);
                    assert_eq!(item.bytes[..8], expected.to_le_bytes());
                    assert_eq!(item.bytes.len() as u64, 8 + expected % 4000);
                    expected += 1;
                    acks.store(expected, Ordering::Release);
                }
                None => woken.recv().unwrap(),
            }
        }
    });
    let mut marked = 0;
    for number in 0..ITEMS {
        let padding = vec![1; (number % 4000) as usize];
        let item = Item {
            lane: 1,
            parts: &[&number.to_le_bytes(), &padding],
        };
        spool
            .append(&Frame {
                items: vec![item],
                ..Frame::default()
            })
            .unwrap();
        if number % 50 == 49 {
            spool.sync().unwrap();
            let next = acknowledged.load(Ordering::Acquire);
            if next > marked {
                mark(&mut spool, "uplink", [0, next]);
                marked = next;
            }
        }
    }
    spool.sync().unwrap();
    follower.join().unwrap();
}
