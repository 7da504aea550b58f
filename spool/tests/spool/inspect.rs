use std::sync::Arc;

use watchline_spool::{
    Disk as _, Frame, OpenError, ReadError, inspect, is_spool, state_of, testing::FailingDisk,
};

use crate::harness::{append, directory, drain, mark, open, segments};

fn filled() -> FailingDisk {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..60u32 {
        append(&mut spool, (number % 3 != 0).into(), &[number as u8; 500]).unwrap();
        spool.sync().unwrap();
    }
    drop(spool);
    disk
}

fn everything(disk: &FailingDisk) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    disk.paths()
        .into_iter()
        .map(|path| (path.clone(), disk.content(&path)))
        .collect()
}

#[test]
fn a_directory_is_read_whole_and_not_changed() {
    let disk = filled();
    let before = (everything(&disk), disk.changing_calls());
    let mut inspection = inspect(Arc::new(disk.clone()), directory()).unwrap();
    assert_eq!(inspection.damage, []);
    let (alert, errors) = drain(&mut inspection.reader, 0);
    assert_eq!((alert.len(), errors.len()), (20, 0));
    let (routine, errors) = drain(&mut inspection.reader, 1);
    assert_eq!((routine.len(), errors.len()), (40, 0));
    assert_eq!((everything(&disk), disk.changing_calls()), before);
}

#[test]
fn a_directory_in_use_is_not_inspected_and_an_inspected_one_not_opened() {
    let disk = filled();
    let (mut spool, _) = open(&disk);
    mark(&mut spool, "uplink", [20, 0]);
    assert!(matches!(
        inspect(Arc::new(disk.clone()), directory()),
        Err(OpenError::Locked { .. })
    ));
    drop(spool);
    let inspection = inspect(Arc::new(disk.clone()), directory()).unwrap();
    assert!(matches!(
        crate::harness::try_open(&disk, crate::harness::options()),
        Err(OpenError::Locked { .. })
    ));
    drop(inspection);
    open(&disk);
}

#[test]
fn damage_is_reported_and_left_where_it_is() {
    let disk = filled();
    let first = segments(&disk)[0].clone();
    let bits = disk.content(&first).unwrap().len() as u64 * 8;
    disk.flip_bit(&first, bits * 3 / 4);
    let before = everything(&disk);
    let mut inspection = inspect(Arc::new(disk.clone()), directory()).unwrap();
    let (_, mut errors) = drain(&mut inspection.reader, 0);
    errors.extend(drain(&mut inspection.reader, 1).1);
    assert!(matches!(errors[..], [ReadError::Damaged(_)]), "{errors:?}");
    assert_eq!(everything(&disk), before);
}

#[test]
fn a_spool_without_a_readable_snapshot_is_one_damage() {
    let disk = filled();
    for path in segments(&disk) {
        disk.flip_bit(&path, 8 * 20);
    }
    let before = everything(&disk);
    let mut inspection = inspect(Arc::new(disk.clone()), directory()).unwrap();
    assert_eq!(inspection.damage.len(), 1);
    assert_eq!(drain(&mut inspection.reader, 1).0, []);
    assert_eq!(everything(&disk), before);
}

#[test]
fn only_a_directory_with_segments_is_a_spool() {
    let disk = filled();
    assert!(is_spool(&disk, directory()).unwrap());
    let other = FailingDisk::new();
    other.put(&directory().join("current.wla"), b"WLARCHIV");
    assert!(!is_spool(&other, directory()).unwrap());
}

#[test]
fn the_state_of_a_directory_in_use_is_seen_and_nothing_is_changed() {
    let disk = FailingDisk::new();
    let (mut spool, _) = open(&disk);
    for number in 0..200u32 {
        let state = vec![(
            format!("key {}", number % 7).into(),
            Some(number.to_string().into()),
        )];
        let frame = Frame {
            state,
            ..Frame::default()
        };
        spool.append(&frame).unwrap();
        append(&mut spool, 1, &[0; 500]).unwrap();
        mark(&mut spool, "uplink", [0, u64::from(number)]);
        let before = (everything(&disk), disk.changing_calls());
        let state = state_of(Arc::new(disk.clone()), directory()).unwrap();
        let key = format!("key {}", number % 7);
        assert_eq!(state[key.as_bytes()], number.to_string());
        assert_eq!(state.len(), 7.min(number as usize + 1));
        assert_eq!((everything(&disk), disk.changing_calls()), before);
    }
}

#[test]
fn a_directory_without_a_spool_has_no_state() {
    let disk = FailingDisk::new();
    disk.make_directory(directory()).unwrap();
    let state = state_of(Arc::new(disk.clone()), directory()).unwrap();
    assert!(state.is_empty());
    assert_eq!(disk.paths(), [] as [std::path::PathBuf; 0]);
}
