//! What log rotation calls the files that it makes.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

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

/// Whether a name says that its contents are packed: not what a writer wrote.
pub(super) fn is_packed(name: &OsStr) -> bool {
    let name = name.as_bytes();
    [".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma", ".Z", ".zip"]
        .iter()
        .any(|extension| name.ends_with(extension.as_bytes()))
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
}
