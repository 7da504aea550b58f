//! A stored log of each version of the format still opens, and is what `docs/formats.md` says, byte for byte.

use std::{fs, path::PathBuf};

use watchline_spool::{
    ItemNo,
    testing::{FailingDisk, recover_bytes, restamp},
};

use crate::harness::{directory, drain, open};

/// Segments 5 and 6 of version 1, written on a real disk, closed cleanly.
fn version_1() -> Vec<(String, Vec<u8>)> {
    ["00000000000000000005.seg", "00000000000000000006.seg"]
        .map(|name| {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/samples/v1")
                .join(name);
            (name.to_owned(), fs::read(path).unwrap())
        })
        .to_vec()
}

#[test]
fn a_log_of_version_1_opens_with_all_that_was_in_it() {
    let disk = FailingDisk::new();
    for (name, bytes) in version_1() {
        disk.put(&directory().join(name), &bytes);
    }
    let (spool, recovery) = open(&disk);
    assert_eq!((recovery.created, recovery.damage.len()), (false, 0));
    assert_eq!(recovery.buffer_id[..], version_1()[1].1[32..48]);
    // Of the 32 bytes of a frame of which one item is passed, half are taken as passed: 16 + 9.
    assert_eq!((recovery.items, recovery.bytes), ([1, 2], [7, 25]));
    let mark = spool.mark("uplink").unwrap();
    assert_eq!(
        (mark.next, &mark.note[..]),
        ([ItemNo(1); 2], &b"another note"[..])
    );
    assert_eq!(spool.mark("gone"), None);
    let state: Vec<_> = spool
        .state_with_prefix(b"")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(
        state,
        [
            ("epoch".into(), "three".into()),
            ("position/b".into(), "two".into())
        ]
    );
    let mut reader = spool.reader("uplink");
    assert_eq!(drain(&mut reader, 0).0, [(1, "alert 1".into())]);
    assert_eq!(
        drain(&mut reader, 1).0,
        [(1, "routine 1".into()), (2, "routine 2".into())]
    );
    reader.seek(0, ItemNo(0));
    reader.seek(1, ItemNo(0));
    assert_eq!(reader.next(0).unwrap().unwrap().bytes, "alert 0");
    assert_eq!(
        reader.next(1).unwrap().unwrap().bytes,
        "routine 0, in two parts"
    );
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn every_byte_of_the_sample_is_where_the_documentation_says() {
    for (index, (_, bytes)) in version_1().iter().enumerate() {
        assert_eq!(bytes[..8], *b"WLSPOOL\n");
        assert_eq!(
            (word(bytes, 8), word(bytes, 12)),
            (1, 96),
            "version, length"
        );
        assert_eq!(long(bytes, 16), 5 + index as u64, "segment number");
        let incarnation = long(bytes, 24);
        let first_frame = long(bytes, 48);
        assert_eq!(first_frame, [3, 5][index]);
        assert_eq!(
            [long(bytes, 56), long(bytes, 64)],
            [[0, 0], [1, 2]][index],
            "first items"
        );
        assert_eq!(
            [word(bytes, 72), word(bytes, 76), word(bytes, 88)],
            [0; 3],
            "cipher, key id, zero"
        );
        assert_eq!(word(bytes, 92), crc32c::crc32c(&bytes[..92]));

        let mut kinds = Vec::new();
        let mut at = 96;
        while at < bytes.len() {
            let frame = &bytes[at..];
            assert_eq!(frame[..4], *b"WLf1");
            assert_eq!(frame[5..8], [0; 3]);
            assert_eq!(long(frame, 8), incarnation);
            let logged = kinds.iter().filter(|&&kind| kind == 1).count() as u64;
            assert_eq!(long(frame, 16), first_frame + logged, "frame number");
            assert!(long(frame, 24) <= long(frame, 16), "durable mark");
            let body_bytes = word(frame, 72) as usize;
            assert_eq!(word(frame, 76), crc32c::crc32c(&frame[84..84 + body_bytes]));
            assert_eq!(word(frame, 80), crc32c::crc32c(&frame[..80]));
            kinds.push(frame[4]);
            at += 84 + body_bytes;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(
            kinds,
            [2, 3, 1, 1],
            "a part of a snapshot, its end, two frames"
        );
    }
    // The first log frame of the first segment, entry by entry.
    let bytes = &version_1()[0].1;
    let body = bytes
        .windows(8)
        .position(|window| window == [1, 1, 0, 0, 23, 0, 0, 0])
        .unwrap();
    let expected = [
        &b"\x01\x01\0\0\x17\0\0\0routine 0, in two parts"[..],
        b"\x01\x00\0\0\x07\0\0\0alert 0",
        b"\x01\x01\0\0\x09\0\0\0routine 1",
        b"\x02\x0a\0\0\0\x03\0\0\0position/aone",
        b"\x02\x0a\0\0\0\x03\0\0\0position/btwo",
    ]
    .concat();
    assert!(bytes[body..].starts_with(&expected));
    let header = &bytes[body - 84..];
    assert_eq!([long(header, 40), long(header, 48)], [0, 0], "first items");
    assert_eq!([word(header, 56), word(header, 60)], [1, 2], "how many");
    assert_eq!(
        [word(header, 64), word(header, 68)],
        [7, 32],
        "of how many bytes"
    );
}

#[test]
fn whatever_bytes_a_segment_has_opening_does_not_panic() {
    let (_, sample) = version_1().pop().unwrap();
    assert_eq!(
        recover_bytes(&sample),
        2 + 3,
        "two items that are in it, and those written behind them"
    );
    let mut random = 0x5eed_u64;
    for round in 0..400 {
        let mut bytes = sample.clone();
        for _ in 0..1 + round % 7 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] = [0, 1, 0xff, 0x7f, (random >> 20) as u8][round % 5];
        }
        bytes.truncate(if round % 11 == 0 {
            (random >> 40) as usize % bytes.len()
        } else {
            bytes.len()
        });
        recover_bytes(&bytes);
        restamp(&mut bytes);
        recover_bytes(&bytes);
    }
}
