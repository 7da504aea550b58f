use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::Value;
use watchline_node::identity::testing::Authority;
use watchline_proto::{Lane, stored};
use watchline_spool::{Frame, Item, Options, Spool};

use super::*;
use crate::{
    chains::ChainStore,
    outputs::{
        archive,
        config::Rotation,
        follow::{Follower, Now, Place, RealDisk, Turn, testing::World},
        testing::{KnownChains, Sealer},
    },
};

/// When the first batch was received, Unix nanoseconds: within the life of certificates made by these tests.
static RECEIVED: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap() + 3_600_000_000_000
});

/// Two hosts, two epochs of one of them, alerts among the routine batches, in a few files.
struct Evidence {
    directory: tempfile::TempDir,
    anchors: PathBuf,
}

fn items(authority: &Authority) -> (Vec<(Lane, Bytes)>, Vec<Sealer>) {
    let mut hosts = vec![
        Sealer::host(authority, "host-01", 1),
        Sealer::host(authority, "host-02", 2),
    ];
    let mut items = Vec::new();
    for number in 0..40 {
        let host = &mut hosts[number % 2];
        if number == 20 {
            host.restart(3);
        }
        host.received = *RECEIVED + number as i64;
        let lane = if number % 7 == 3 {
            Lane::Alert
        } else {
            Lane::Routine
        };
        items.push((lane, host.item(lane)));
    }
    (items, hosts)
}

fn write_anchors(authority: &Authority, directory: &Path) -> PathBuf {
    let anchors = directory.join("ca.pem");
    fs::write(&anchors, authority.certificate()).unwrap();
    anchors
}

/// An archive of these items. The first file is begun before any of them was received, but for the last call's.
fn archive_of(authority: &Authority, items: &[(Lane, Bytes)], hosts: &[Sealer]) -> Evidence {
    archive_in_files_of(Some(6_000), authority, items, hosts)
}

fn archive_in_files_of(
    size_bytes: Option<u64>,
    authority: &Authority,
    items: &[(Lane, Bytes)],
    hosts: &[Sealer],
) -> Evidence {
    let directory = tempfile::tempdir().unwrap();
    let anchors = write_anchors(authority, directory.path());
    let world = World::new(1);
    let chains = Arc::new(KnownChains::default());
    hosts.iter().for_each(|host| chains.add(&host.issued));
    let place = Place::of_archive(&directory.path().join("archive"));
    let rotation = Rotation {
        size_bytes,
        every: None,
    };
    let form = archive::Evidence::new(chains);
    let mut output = Follower::new(world.feed(), form, Box::new(RealDisk), place, rotation);
    // One by one: in the order of arrival, though alerts overtake what waits.
    for (lane, item) in items {
        world.push(lane.index(), item.clone());
        let now = Now {
            unix_nano: *RECEIVED - 1,
            instant: Instant::now(),
        };
        while output.turn(now).unwrap() == Turn::More {}
    }
    output.finish().unwrap();
    Evidence { directory, anchors }
}

impl Evidence {
    fn archive(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.archive())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    fn alter(&self, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut content = fs::read(file).unwrap();
        change(&mut content);
        fs::write(file, content).unwrap();
    }

    fn verify(&self) -> (Verdict, Value) {
        verify(&self.archive(), &self.anchors)
    }
}

fn verify(directory: &Path, anchors: &Path) -> (Verdict, Value) {
    let mut out = Vec::new();
    let verdict = run(directory, anchors, true, &mut out).unwrap();
    (verdict, serde_json::from_slice(&out).unwrap())
}

/// The records of an archive's file: where each begins and ends.
fn records(content: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut records = Vec::new();
    let mut at = 36;
    while at < content.len() {
        let length = u32::from_le_bytes(content[at..at + 4].try_into().unwrap()) as usize;
        records.push(at..at + 20 + length);
        at += 20 + length;
    }
    records
}

fn sound() -> Evidence {
    let authority = Authority::new("watch.example");
    let (items, hosts) = items(&authority);
    archive_of(&authority, &items, &hosts)
}

#[test]
fn an_archive_is_sound_and_its_report_names_every_chain() {
    let evidence = sound();
    assert!(evidence.files().len() > 3);
    let (verdict, report) = evidence.verify();
    assert_eq!(verdict, Verdict::Sound, "{report:#}");
    assert_eq!(report["batches"], 40);
    assert_eq!(report["chains"].as_array().unwrap().len(), 6);
    let mut text = Vec::new();
    run(&evidence.archive(), &evidence.anchors, false, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("\ncomplete and sound\n"), "{text}");
    assert!(text.contains("agency/moh/forwarder/host-01"), "{text}");
}

#[test]
fn any_removed_batch_is_missing() {
    let authority = Authority::new("watch.example");
    let (items, hosts) = items(&authority);
    for gone in 0..items.len() {
        let left = [&items[..gone], &items[gone + 1..]].concat();
        let (verdict, report) = archive_of(&authority, &left, &hosts).verify();
        // Of the very last of a chain nothing that is left tells, unless a seal of the other lane came behind it.
        let told = gone < items.len() - 14;
        assert!(
            verdict == Verdict::Incomplete || !told,
            "{gone}: {verdict:?} {report:#}"
        );
        assert_eq!(
            report["problems"].as_array().unwrap().len(),
            0,
            "{gone}: {report:#}"
        );
    }
}

#[test]
fn any_altered_byte_is_unsound() {
    let evidence = sound();
    for file in evidence.files() {
        let length = fs::read(&file).unwrap().len();
        for at in (0..length).step_by(97) {
            evidence.alter(&file, |content| content[at] ^= 0x10);
            let (verdict, report) = evidence.verify();
            assert_eq!(
                verdict,
                Verdict::Unsound,
                "{} at {at}: {report:#}",
                file.display()
            );
            evidence.alter(&file, |content| content[at] ^= 0x10);
        }
    }
    assert_eq!(evidence.verify().0, Verdict::Sound);
}

#[test]
fn a_batch_altered_with_its_checksum_is_unsound_where_it_is() {
    let authority = Authority::new("watch.example");
    let (mut items, hosts) = items(&authority);
    let mut batch = stored::decode(items[10].1.clone()).unwrap();
    let mut payload = batch.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    batch.payload = payload.into();
    items[10].1 = stored::encode(&batch);
    let (verdict, report) = archive_of(&authority, &items, &hosts).verify();
    assert_eq!(verdict, Verdict::Unsound);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{report:#}");
    let what = problems[0]["what"].as_str().unwrap();
    assert!(
        what.starts_with("payload is not the one that was sealed"),
        "{what}"
    );
}

#[test]
fn exchanged_records_are_unsound() {
    let evidence = sound();
    let file = &evidence.files()[1];
    evidence.alter(file, |content| {
        let records = records(content);
        let [.., first, second, _end] = &records[..] else {
            panic!("{} records", records.len())
        };
        let exchanged = [&content[second.clone()], &content[first.clone()]].concat();
        content.splice(first.start..second.end, exchanged);
    });
    assert_eq!(evidence.verify().0, Verdict::Unsound);
}

#[test]
fn a_cut_closed_file_is_unsound_and_a_cut_growing_file_is_not_finished() {
    let evidence = sound();
    let closed = &evidence.files()[0];
    let whole = fs::read(closed).unwrap();
    for cut in [
        records(&whole).last().unwrap().start,
        whole.len() - 1,
        36,
        10,
        0,
    ] {
        evidence.alter(closed, |content| content.truncate(cut));
        assert_eq!(evidence.verify().0, Verdict::Unsound, "cut at {cut}");
        evidence.alter(closed, |content| content.clone_from(&whole));
    }
    let authority = Authority::new("watch.example");
    let (items, hosts) = items(&authority);
    let evidence = archive_in_files_of(None, &authority, &items, &hosts);
    let current = evidence.archive().join("current.wla");
    evidence.alter(&current, |content| content.extend_from_slice(&[7, 0, 0]));
    let (verdict, report) = evidence.verify();
    assert_eq!(verdict, Verdict::Sound, "{report:#}");
    assert_eq!(report["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_removed_file_is_missing_but_where_no_later_one_has_anything() {
    let evidence = sound();
    let files = evidence.files();
    let closed = files
        .iter()
        .filter(|file| !file.ends_with("current.wla"))
        .collect::<Vec<_>>();
    let (_last, earlier) = closed.split_last().unwrap();
    for file in earlier {
        let aside = evidence.directory.path().join("aside");
        fs::rename(file, &aside).unwrap();
        let (verdict, report) = evidence.verify();
        assert_eq!(
            verdict,
            Verdict::Incomplete,
            "{}: {report:#}",
            file.display()
        );
        fs::rename(&aside, file).unwrap();
    }
}

#[test]
fn an_unknown_anchor_a_foreign_signer_and_an_unsigned_batch_are_unsound() {
    let authority = Authority::new("watch.example");
    let (mut items, hosts) = items(&authority);
    let evidence = archive_of(&authority, &items, &hosts);
    let other = Authority::new("watch.example");
    fs::write(&evidence.anchors, other.certificate()).unwrap();
    assert_eq!(evidence.verify().0, Verdict::Unsound);

    let mut batch = stored::decode(items[10].1.clone()).unwrap();
    hosts[1].sign(&mut batch);
    let ours = items[10].1.clone();
    items[10].1 = stored::encode(&batch);
    assert_eq!(
        archive_of(&authority, &items, &hosts).verify().0,
        Verdict::Unsound
    );

    let mut batch = stored::decode(ours).unwrap();
    batch.signer = Bytes::new();
    items[10].1 = stored::encode(&batch);
    assert_eq!(
        archive_of(&authority, &items, &hosts).verify().0,
        Verdict::Unsound
    );
}

fn buffer_of(
    authority: &Authority,
    items: &[(Lane, Bytes)],
    hosts: &[Sealer],
) -> (Evidence, Spool) {
    let directory = tempfile::tempdir().unwrap();
    let anchors = write_anchors(authority, directory.path());
    let buffer = directory.path().join("buffer");
    let (mut spool, _) = Spool::open(
        Arc::new(watchline_spool::RealDisk),
        &buffer,
        Options::default(),
    )
    .unwrap();
    let store = ChainStore::open(buffer.join(crate::chains::DIRECTORY)).unwrap();
    for host in hosts {
        store
            .put(&[Bytes::copy_from_slice(&host.issued.der)])
            .unwrap();
    }
    for (lane, item) in items {
        let parts = [&item[..]];
        let item = Item {
            lane: lane.index(),
            parts: &parts,
        };
        let frame = Frame {
            items: vec![item],
            ..Frame::default()
        };
        spool.append(&frame).unwrap();
    }
    spool.sync().unwrap();
    (Evidence { directory, anchors }, spool)
}

#[test]
fn a_stopped_buffer_is_checked_and_one_in_use_refused() {
    let authority = Authority::new("watch.example");
    let (items, hosts) = items(&authority);
    let (evidence, spool) = buffer_of(&authority, &items, &hosts);
    let buffer = evidence.directory.path().join("buffer");
    let refused = run(&buffer, &evidence.anchors, true, &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("is in use"), "{refused}");
    drop(spool);
    let (verdict, report) = verify(&buffer, &evidence.anchors);
    assert_eq!(verdict, Verdict::Sound, "{report:#}");
    assert_eq!(report["batches"], 40);
}

#[test]
fn a_buffer_may_have_forgotten_the_beginning_but_no_more() {
    let authority = Authority::new("watch.example");
    let (items, hosts) = items(&authority);
    let (evidence, spool) = buffer_of(&authority, &items[4..], &hosts);
    drop(spool);
    let buffer = evidence.directory.path().join("buffer");
    assert_eq!(verify(&buffer, &evidence.anchors).0, Verdict::Sound);

    let left = [&items[..8], &items[10..]].concat();
    let (evidence, spool) = buffer_of(&authority, &left, &hosts);
    drop(spool);
    let buffer = evidence.directory.path().join("buffer");
    assert_eq!(verify(&buffer, &evidence.anchors).0, Verdict::Incomplete);
}

#[test]
fn another_directory_cannot_be_checked() {
    let authority = Authority::new("watch.example");
    let directory = tempfile::tempdir().unwrap();
    let anchors = write_anchors(&authority, directory.path());
    let error = run(directory.path(), &anchors, false, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("neither an archive"), "{error}");
}
