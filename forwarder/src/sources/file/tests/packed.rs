//! Files that were packed while they were half read.

use flate2::{Compression, write::GzEncoder};

use super::*;

enum Packer {
    Gzip,
    Zstd,
}

impl Packer {
    fn pack(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Packer::Gzip => {
                let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
                packer.write_all(text).unwrap();
                packer.finish().unwrap()
            }
            Packer::Zstd => zstd::encode_all(text, 1).unwrap(),
        }
    }

    fn extension(&self) -> &str {
        match self {
            Packer::Gzip => "gz",
            Packer::Zstd => "zst",
        }
    }
}

impl Host {
    fn pack(&self, packer: &Packer, from: &str, to: &str) {
        let text = fs::read(self.path(from)).unwrap();
        fs::write(self.path(to), packer.pack(&text)).unwrap();
        fs::remove_file(self.path(from)).unwrap();
    }
}

/// TAILING 20.
#[test]
fn the_rest_of_a_file_that_was_packed_while_half_read_arrives_once_and_in_order() {
    for packer in [Packer::Gzip, Packer::Zstd] {
        for pattern in ["app.log", "app.log*"] {
            for lines in [3, 40_000] {
                let mut host = Host::running(&[pattern]);
                let mut expected = vec!["begin".to_owned()];
                host.append("app.log", "begin\n");
                host.turn();
                host.restart();
                let mut text = String::new();
                for n in 0..lines {
                    let line = format!("{n} of some length {}", n * 7919 % 1000);
                    text.push_str(&format!("{line}\n"));
                    expected.push(line);
                }
                host.append("app.log", text);
                host.rotate("app.log");
                let packed = format!("app.log.1.{}", packer.extension());
                host.pack(&packer, "app.log.1", &packed);
                host.append("app.log", "end\n");
                expected.push("end".into());
                // Killed in the middle of it, twice.
                host.turn_until(2);
                host.restart();
                host.rename(&packed, &format!("app.log.2.{}", packer.extension()));
                host.turn_until(3);
                host.restart();
                host.turns(3);
                assert!(host.bodies() == expected, "{pattern} {lines}");
                assert_eq!(host.reasons(), [""; 0]);
                host.restart();
                host.turns(70);
                assert_eq!(host.records().len(), expected.len());
                assert!(
                    host.running_source()
                        .tails
                        .values()
                        .all(|tail| tail.packed.is_none())
                );
            }
        }
    }
}

/// TAILING 20.
#[test]
fn a_packed_file_is_otherwise_never_read() {
    let mut host = Host::running(&["*.log*"]);
    host.append("app.log", "1\n");
    host.turn();
    fs::write(host.path("app.log.1.gz"), Packer::Gzip.pack(b"other\n")).unwrap();
    fs::write(
        host.path("app.log.2"),
        Packer::Gzip.pack(b"packed, called otherwise\n"),
    )
    .unwrap();
    fs::write(host.path("b.log.zst"), Packer::Zstd.pack(b"never\n")).unwrap();
    host.turns(3);
    host.expect(&["1"]);
    let files = host.running_source().status(10).1;
    assert!(
        files[0].note.as_deref().unwrap().starts_with("is packed"),
        "{files:?}"
    );
    // Read to its end before it was packed: there is nothing to read in it.
    host.restart();
    host.rename("app.log", "app.log.1");
    host.pack(&Packer::Gzip, "app.log.1", "app.log.3.gz");
    host.turns(3);
    host.expect(&["1"]);
}

/// TAILING 20.
#[test]
fn a_packed_file_with_other_content_is_not_gone_on_in() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "1\nhalf");
    host.turn();
    host.restart();
    fs::write(
        host.path("app.log.1.gz"),
        Packer::Gzip.pack(b"2\nhalf of another\n"),
    )
    .unwrap();
    fs::write(
        host.path("app.log.2.gz"),
        b"\x1f\x8b\x08\x00 no gzip at all",
    )
    .unwrap();
    fs::write(host.path("app.log.3.gz"), b"not even that").unwrap();
    fs::write(host.path("app.log.4.gz"), "").unwrap();
    fs::remove_file(host.path("app.log")).unwrap();
    host.turns(3);
    assert_eq!(host.bodies(), ["1"]);
    assert_eq!(host.reasons(), ["vanished"]);
}

/// TAILING 20.
#[test]
fn a_packed_file_that_is_cut_short_is_read_as_far_as_it_goes_and_the_rest_is_a_gap() {
    let mut host = Host::running(&["app.log"]);
    host.append("app.log", "begin\n");
    host.turn();
    let lines: String = (0..50_000)
        .map(|n| format!("{} {n}\n", n * 7919 % 50_000))
        .collect();
    host.append("app.log", &lines);
    host.look();
    host.turn_until(1);
    host.restart();
    let read = host.records().len();
    let text = fs::read(host.path("app.log")).unwrap();
    let packed = Packer::Gzip.pack(&text);
    fs::write(host.path("app.log.1.gz"), &packed[..packed.len() / 2]).unwrap();
    fs::remove_file(host.path("app.log")).unwrap();
    host.turns(10);
    assert!(host.records().len() > read);
    let bodies = host.bodies();
    let expected: Vec<&str> = lines.lines().take(bodies.len() - 2).collect();
    assert_eq!(bodies[1..bodies.len() - 1], expected);
    assert_eq!(host.reasons(), ["vanished"]);
}
