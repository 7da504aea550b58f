//! What hosts log: numbered records, most of them ordinary, some of them not.

use rand::{Rng, RngExt};

/// Record number `number` of `file`. Records with a number differ from all others of a test; a few are empty, or nearly,
/// as real logs have them. None contains a line feed.
pub fn record(random: &mut impl Rng, file: &str, number: u64) -> Vec<u8> {
    let mut record = format!("{file} #{number:07} ").into_bytes();
    match random.random_range(0..100) {
        0..60 => {
            let (user, port) = (
                random.random_range(0..500),
                random.random_range(1024..65_000),
            );
            let address = random
                .random::<[u8; 4]>()
                .map(|part| part.to_string())
                .join(".");
            let pid = random.random_range(300..30_000);
            record.extend_from_slice(
                format!("sshd[{pid}]: Failed password for invalid user u{user} from {address} port {port} ssh2").as_bytes(),
            );
        }
        // CR LF: the carriage return is part of the record.
        60..70 => record.extend_from_slice(b"written by a program of another system\r"),
        70..80 => {
            let letters: String = (0..random.random_range(1..60))
                .map(|_| char::from_u32(random.random_range(0x20..0x1_F9FF)).unwrap_or('\u{fffd}'))
                .collect();
            record.extend_from_slice(letters.as_bytes());
        }
        80..87 => {
            record.extend((0..random.random_range(1..120)).map(|_| no_line_feed(random.random())))
        }
        87..90 => record.extend_from_slice(b"\xff\xfe a byte order mark and \xc3\x28 no UTF-8"),
        90..93 => record.extend(std::iter::repeat_n(b'x', random.random_range(2_000..9_000))),
        93..95 => record.extend_from_slice(b"NUL \0 inside, tab \t, quote \" and backslash \\n"),
        95..98 => record.clear(),
        _ => record = b"\r".to_vec(),
    }
    record
}

fn no_line_feed(byte: u8) -> u8 {
    if byte == b'\n' { b' ' } else { byte }
}

/// The records of a file's bytes: split at line feeds; what follows the last one is a record too, if it is not empty.
#[must_use]
pub fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    if records.last().is_some_and(Vec::is_empty) {
        records.pop();
    }
    records
}
