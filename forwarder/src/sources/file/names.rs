//! What log rotation calls the files that it makes.

use std::{
    cmp::Reverse,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// Suffixes on one name that are looked behind, at most.
const MAX_SUFFIXES: usize = 4;

/// Whether `candidate` is what a rotation would call an older generation or a copy of `original` in its directory: `app.log.1`,
/// `app.log-20261123`, `app.log.bak`, `app-20261123.log`, `app.1.log` of `app.log`.
pub(super) fn is_rotated(original: &OsStr, candidate: &OsStr) -> bool {
    let (original, candidate) = (original.as_bytes(), candidate.as_bytes());
    if let Some(suffix) = candidate.strip_prefix(original) {
        return suffix.len() > 1 && b".-_~".contains(&suffix[0]) || suffix == b"~";
    }
    let Some(dot) = original
        .iter()
        .rposition(|&byte| byte == b'.')
        .filter(|&dot| dot > 0)
    else {
        return false;
    };
    let (stem, extension) = original.split_at(dot);
    let middle = candidate
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(extension));
    middle.is_some_and(|middle| {
        middle.len() > 1
            && b".-_".contains(&middle[0])
            && middle.iter().any(u8::is_ascii_digit)
            && middle
                .iter()
                .all(|byte| byte.is_ascii_digit() || b".-_:TZ".contains(byte))
    })
}

/// All names of which `candidate` could be a generation or a copy, as [`is_rotated`] has it.
pub(super) fn originals(candidate: &OsStr) -> Vec<OsString> {
    let bytes = candidate.as_bytes();
    let cuts = (1..bytes.len()).filter(|&at| b".-_~".contains(&bytes[at]));
    let suffixed = cuts.clone().map(|at| bytes[..at].to_vec());
    let extension = split_extension(bytes).map_or(&b""[..], |(_, extension)| extension);
    let stems = cuts.map(|at| [&bytes[..at], extension].concat());
    let mut originals: Vec<OsString> = suffixed.chain(stems).map(OsString::from_vec).collect();
    originals.sort_unstable();
    originals.dedup();
    originals.retain(|original| is_rotated(original, candidate));
    originals
}

/// Whether a name says that its contents are packed: not what a writer wrote.
pub(super) fn is_packed(name: &OsStr) -> bool {
    let name = name.as_bytes();
    PACKED
        .iter()
        .any(|extension| name.ends_with(extension.as_bytes()))
}

const PACKED: [&str; 8] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma", ".Z", ".zip"];

/// The name that the generations of a log have in common: `app.log` for `app.log.2`, `app.log-20261123`, `app.1.log`, `app-2026-11-23.log`;
/// any other name for itself. Only what can hardly be anything else than a generation: files of one family wait for each other.
pub(super) fn family(name: &OsStr) -> OsString {
    let mut name = name.as_bytes().to_vec();
    for _ in 0..MAX_SUFFIXES {
        let Some(shorter) = without_generation(&name) else {
            break;
        };
        name = shorter;
    }
    OsString::from_vec(name)
}

/// Orders generations that were written last at the same moment, the oldest first: a higher number is older, a later date is newer.
pub(super) fn age(name: &OsStr) -> (Reverse<u32>, &OsStr) {
    let bytes = name.as_bytes();
    let number = split_generation(bytes)
        .or_else(|| split_generation(split_extension(bytes)?.0))
        .map_or(&b""[..], |(_, generation)| &generation[1..]);
    let number = str::from_utf8(number).ok().filter(|text| text.len() <= 3);
    let number = number.and_then(|text| text.parse().ok()).unwrap_or(0);
    (Reverse(number), name)
}

fn without_generation(name: &[u8]) -> Option<Vec<u8>> {
    for word in PACKED.into_iter().chain(["~", ".old", ".prev", ".bak"]) {
        if let Some(rest) = name.strip_suffix(word.as_bytes())
            && !rest.is_empty()
        {
            return Some(rest.to_vec());
        }
    }
    if let Some((rest, _)) = split_generation(name) {
        return Some(rest.to_vec());
    }
    let (stem, extension) = split_extension(name)?;
    let (rest, _) = split_generation(stem)?;
    Some([rest, extension].concat())
}

fn split_extension(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    (dot > 0).then(|| name.split_at(dot))
}

/// Parts a name from `.1`, up to `.999`, or from a date at its end.
fn split_generation(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let begins = |from: usize| {
        let separators = (from.max(1)..name.len()).find(|&at| b".-_".contains(&name[at]))?;
        Some(name.split_at(separators))
    };
    let run = name
        .iter()
        .rposition(|byte| !byte.is_ascii_digit() && !b".-_:TZ".contains(byte))?;
    let digits = |text: &[u8]| text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let (rest, date) = begins(run + 1)?;
    let month = date.get(1..3) == Some(b"20") && digits(date) >= 6;
    if digits(date) >= 8 || month {
        return Some((rest, date));
    }
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    let (rest, number) = name.split_at(dot);
    let is_number = (2..=4).contains(&number.len()) && digits(number) == number.len() - 1;
    let behind_text = rest.last().is_some_and(|byte| !byte.is_ascii_digit());
    (is_number && behind_text).then_some((rest, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_known_and_others_are_not() {
        let rotated = |original: &str, candidate: &str| {
            is_rotated(OsStr::new(original), OsStr::new(candidate))
        };
        for candidate in [
            "app.log.1",
            "app.log.10",
            "app.log-20261123",
            "app.log-20261123.gz",
            "app.log.bak",
            "app.log~",
            "app-20261123.log",
            "app.1.log",
            "app-2026-11-23T10:00:00Z.log",
            "app_2026.11.23-1.log",
        ] {
            assert!(rotated("app.log", candidate), "{candidate}");
        }
        for candidate in [
            "app.log",
            "app.logs",
            "app-error.log",
            "app.log.",
            "ap.log.1",
            "x-app.log",
            "app-.log",
            "apple-1.log",
        ] {
            assert!(!rotated("app.log", candidate), "{candidate}");
        }
        assert!(rotated("messages", "messages.1"));
        assert!(!rotated("messages", "messages1"));
        assert!(!rotated(".log", "x-1.log"));
    }

    #[test]
    fn generations_of_one_log_are_a_family_and_other_logs_are_not() {
        for (name, of) in [
            ("app.log", "app.log"),
            ("app.log.1", "app.log"),
            ("app.log.10.gz", "app.log"),
            ("app.log-20261123", "app.log"),
            ("app.log-20261123.2", "app.log"),
            ("app.log.2026.11.23", "app.log"),
            ("app.log.old", "app.log"),
            ("app-2026-11-23.log", "app.log"),
            ("app-2026-11.log", "app.log"),
            ("app.1.log", "app.log"),
            ("messages.1", "messages"),
            ("app.log.err", "app.log.err"),
            ("tenant-1.log", "tenant-1.log"),
            ("10.0.0.1.log", "10.0.0.1.log"),
            ("PORT.1", "PORT"),
            ("20261123", "20261123"),
            (".1", ".1"),
        ] {
            assert_eq!(family(OsStr::new(name)), of, "{name}");
        }
        let mut names = ["app.log.1", "app.log.10", "app.log.2"].map(OsStr::new);
        names.sort_by_key(|name| age(name));
        assert_eq!(names, ["app.log.10", "app.log.2", "app.log.1"]);
        let mut names = ["app.log-20261124", "app.log-20261123"].map(OsStr::new);
        names.sort_by_key(|name| age(name));
        assert_eq!(names, ["app.log-20261123", "app.log-20261124"]);
    }

    #[test]
    fn every_name_that_a_file_may_be_a_copy_of_is_thought_of() {
        let originals = |name: &str| originals(OsStr::new(name));
        assert_eq!(originals("app.log.1"), ["app", "app.log"]);
        assert_eq!(
            originals("my-app-2026-11-23.log"),
            [
                "my",
                "my-app",
                "my-app-2026",
                "my-app-2026-11",
                "my-app-2026-11-23",
                "my-app-2026-11.log",
                "my-app-2026.log",
                "my-app.log"
            ]
        );
        assert_eq!(originals("app.log~"), ["app", "app.log"]);
    }
}
