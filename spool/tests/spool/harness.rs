//! What the tests share: a disk, options small enough to roll often, and short ways to append and read.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use watchline_spool::{
    AppendError, Appended, Frame, Item, ItemNo, LANES, LaneNo, Mark, OpenError, Options, ReadError,
    Reader, Recovery, Spool, testing::FailingDisk,
};

pub(crate) const DIRECTORY: &str = "/spool";
pub(crate) const READER: &str = "uplink";

pub(crate) fn options() -> Options {
    Options {
        max_bytes: 1 << 20,
        reserve_bytes: 64 << 10,
        segment_bytes: 8 << 10,
        required_readers: vec![READER.to_owned()],
        keep_delivered: None,
        read_unsynced: false,
    }
}

pub(crate) fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

pub(crate) fn try_open(
    disk: &FailingDisk,
    options: Options,
) -> Result<(Spool, Recovery), OpenError> {
    Spool::open(Arc::new(disk.clone()), directory(), options)
}

pub(crate) fn open(disk: &FailingDisk) -> (Spool, Recovery) {
    try_open(disk, options()).unwrap()
}

pub(crate) fn append(
    spool: &mut Spool,
    lane: LaneNo,
    bytes: &[u8],
) -> Result<Appended, AppendError> {
    spool.append(&Frame {
        items: vec![Item {
            lane,
            parts: &[bytes],
        }],
        ..Frame::default()
    })
}

pub(crate) fn mark(spool: &mut Spool, reader: &str, next: [u64; LANES]) {
    let mark = Mark {
        reader: reader.to_owned(),
        next: next.map(ItemNo),
        note: Bytes::new(),
    };
    spool
        .append(&Frame {
            marks: vec![mark],
            ..Frame::default()
        })
        .unwrap();
}

/// Everything readable of a lane, and the errors met on the way.
pub(crate) fn drain(reader: &mut Reader, lane: LaneNo) -> (Vec<(u64, Bytes)>, Vec<ReadError>) {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    loop {
        match reader.next(lane) {
            Ok(Some(item)) => items.push((item.no.0, item.bytes)),
            Ok(None) => return (items, errors),
            Err(error) => errors.push(error),
        }
        assert!(
            errors.len() < 1000,
            "the reader does not get past {:?}",
            errors.last()
        );
    }
}

/// Everything readable of a lane, which must be whole.
pub(crate) fn read(spool: &Spool, lane: LaneNo) -> Vec<Bytes> {
    let mut reader = spool.reader("nobody");
    reader.seek(lane, spool.reader("nobody at all").position(lane));
    let (items, errors) = drain(&mut reader, lane);
    assert!(errors.is_empty(), "{errors:?}");
    items.into_iter().map(|(_, bytes)| bytes).collect()
}

/// The `.seg` files, oldest first.
pub(crate) fn segments(disk: &FailingDisk) -> Vec<std::path::PathBuf> {
    let mut paths = disk.paths();
    paths.retain(|path| {
        path.parent() == Some(directory()) && path.extension().is_some_and(|end| end == "seg")
    });
    paths
}
