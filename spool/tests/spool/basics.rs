use bytes::Bytes;
use watchline_spool::{Frame, Item, ItemNo, Mark, testing::FailingDisk};

use crate::harness::{append, drain, mark, open, read, segments};

#[test]
fn what_was_synced_is_read_back_after_a_restart() {
    let disk = FailingDisk::new();
    let (mut spool, recovery) = open(&disk);
    assert!(recovery.created);
    for number in 0..100u32 {
        append(&mut spool, (number % 2) as usize, &number.to_le_bytes()).unwrap();
    }
    spool.sync().unwrap();
    spool.close().unwrap();

    let (spool, again) = open(&disk);
    assert!(!again.created);
    assert_eq!(again.buffer_id, recovery.buffer_id);
    assert_eq!((again.items, again.bytes), ([50, 50], [200, 200]));
    assert_eq!(again.damage, []);
    for lane in 0..2 {
        let expected: Vec<Vec<u8>> = (0..100u32)
            .filter(|n| n % 2 == lane as u32)
            .map(|n| n.to_le_bytes().to_vec())
            .collect();
        assert_eq!(read(&spool, lane), expected);
    }
}

#[test]
fn state_and_marks_survive_restarts_and_many_segments() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for round in 0..50u64 {
        let value = Bytes::from(round.to_string());
        let frame = Frame {
            items: vec![Item {
                lane: 1,
                parts: &[&[7; 1000], &[8; 1000]],
            }],
            state: vec![
                (Bytes::from_static(b"position/a"), Some(value.clone())),
                (
                    Bytes::from(format!("position/{round}")),
                    Some(value.clone()),
                ),
                (
                    Bytes::from(format!("position/{}", round.wrapping_sub(2))),
                    None,
                ),
            ],
            marks: vec![Mark {
                reader: "uplink".into(),
                next: [ItemNo(0), ItemNo(round)],
                note: value,
            }],
            ..Frame::default()
        };
        spool.append(&frame).unwrap();
    }
    spool.sync().unwrap();
    drop(spool);
    assert!(segments(&disk).len() < 10, "trimmed: {:?}", segments(&disk));

    let (spool, _) = open(&disk);
    assert_eq!(spool.state(b"position/a").unwrap(), "49");
    assert_eq!(spool.state(b"position/47"), None);
    let keys: Vec<_> = spool
        .state_with_prefix(b"position/4")
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(keys, ["position/48", "position/49"]);
    assert_eq!(spool.mark("uplink").unwrap().next, [ItemNo(0), ItemNo(49)]);
    assert_eq!(spool.mark("uplink").unwrap().note, "49");
    let mut reader = spool.reader("uplink");
    let (items, errors) = drain(&mut reader, 1);
    assert!(errors.is_empty());
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].0, 49);
    assert_eq!(items[0].1.len(), 2000);
}

#[test]
fn a_reader_sees_what_is_synced_and_no_more_unless_it_may() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    let mut reader = spool.reader("uplink");
    append(&mut spool, 0, b"alert").unwrap();
    assert!(!reader.has_next(0));
    assert!(reader.next(0).unwrap().is_none());
    spool.sync().unwrap();
    assert!(reader.has_next(0));
    assert_eq!(reader.next(0).unwrap().unwrap().bytes, "alert");
    assert!(!reader.has_next(0));
    mark(&mut spool, "uplink", [1, 0]);
    assert_eq!(spool.view().backlog("uplink")[0].items, 0);
}
