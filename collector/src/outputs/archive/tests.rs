use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Instant};

use watchline_node::identity::testing::Authority;
use watchline_proto::Lane;

use super::{
    format::{Reader, Record},
    *,
};
use crate::outputs::{
    config::Rotation,
    follow::{Now, Turn, testing::World},
    testing::{KnownChains, NOW, Sealer},
};

fn output(
    world: &World,
    directory: &Path,
    size: u64,
    chains: &Arc<KnownChains>,
) -> Follower<Evidence> {
    let chains: Arc<dyn Chains> = Arc::<KnownChains>::clone(chains);
    let place = Place::of_archive(directory);
    let rotation = Rotation {
        size_bytes: Some(size),
        every: None,
    };
    Follower::new(
        world.feed(),
        Evidence::new(chains),
        Box::new(RealDisk),
        place,
        rotation,
    )
}

fn run(output: &mut Follower<Evidence>) {
    let now = Now {
        unix_nano: NOW,
        instant: Instant::now(),
    };
    while output.turn(now).unwrap() == Turn::More {}
    output.finish().unwrap();
}

fn files(directory: &Path) -> Vec<(String, Vec<Record>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let mut records = Vec::new();
        let mut number = u64::MAX; // of a file that holds nothing yet
        if !bytes.is_empty() {
            let mut reader = Reader::new(&bytes[..]).unwrap();
            number = reader.file_number;
            while let Some(record) = reader.next().unwrap() {
                records.push(record);
            }
        }
        files.push((
            number,
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            records,
        ));
    }
    files.sort_by_key(|(number, ..)| *number);
    files
        .into_iter()
        .map(|(_, name, records)| (name, records))
        .collect()
}

#[test]
fn batches_come_back_byte_for_byte_each_file_with_the_certificates_it_needs() {
    let authority = Authority::new("watch.example");
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(1);
    let chains = Arc::new(KnownChains::default());
    let mut hosts = [
        Sealer::host(&authority, "host-01", 1),
        Sealer::host(&authority, "host-02", 2),
    ];
    let mut items = Vec::new();
    for host in &mut hosts {
        chains.add(&host.issued);
    }
    for number in 0..40 {
        let item = hosts[number % 2].item(Lane::Routine);
        items.push(item.clone());
        world.push(1, item);
        if number == 20 {
            run(&mut output(&world, directory.path(), 6_000, &chains));
        }
    }
    run(&mut output(&world, directory.path(), 6_000, &chains));

    let files = files(directory.path());
    assert!(files.len() > 3, "{} files", files.len());
    let mut found = Vec::new();
    for (name, records) in &files {
        let mut signers = Vec::new();
        for record in records {
            match record.kind {
                Kind::Certificates => {
                    let certificates = wire::Certificates::decode(&record.body[..]).unwrap();
                    signers.push(Hash::of(&certificates.chain[0]));
                }
                Kind::Batch => {
                    let batch = stored::decode(record.body.clone().into()).unwrap();
                    let signer = stored::signer(&batch).unwrap().unwrap();
                    assert!(signers.contains(&signer), "{name} verifies by itself");
                    found.push(record.body.clone());
                }
                Kind::End | Kind::Unknown(_) => {}
            }
        }
        let mode = fs::metadata(directory.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        if name == "current.wla" {
            assert_eq!(mode, 0o600);
        } else {
            assert_eq!(mode, 0o400);
            assert_eq!(records.last().unwrap().kind, Kind::End);
        }
    }
    assert_eq!(found, items);
}
