//! Where an output's files lie and what they are called.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use time::{OffsetDateTime, macros::format_description};
use tracing::warn;

use super::{disk::Disk, trouble::Trouble};

/// One output's files: the one that is written, and the closed ones beside it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    directory: PathBuf,
    prefix: OsString,
    suffix: &'static str,
    /// Whether closed files are made read-only.
    pub(crate) read_only: bool,
    keep: Option<usize>,
}

impl Place {
    /// A file of lines: closed files are named `<path>.<UTC stamp>-<n>`; the newest `keep` of them stay.
    pub(crate) fn of_file(path: &Path, keep: Option<usize>) -> Place {
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Place {
            path: path.to_owned(),
            directory: directory.to_owned(),
            prefix,
            suffix: "",
            read_only: false,
            keep,
        }
    }

    /// An archive: `current.wla` is written, closed files are named `<UTC stamp>-<n>.wla`, read-only, and stay.
    pub(crate) fn of_archive(directory: &Path) -> Place {
        Place {
            path: directory.join("current.wla"),
            directory: directory.to_owned(),
            prefix: OsString::new(),
            suffix: ".wla",
            read_only: true,
            keep: None,
        }
    }

    /// The file that is written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A free name for a file that is closed now.
    pub(crate) fn closed_name(&self, disk: &dyn Disk, unix_nano: i64) -> Result<PathBuf, Trouble> {
        self.free_name(disk, unix_nano, |stamp, n| {
            let mut name = self.prefix.clone();
            name.push(format!("{stamp}-{n}{}", self.suffix));
            name
        })
    }

    /// A free name for a file that is not ours and lies where ours should be.
    pub(crate) fn kept_name(&self, disk: &dyn Disk, unix_nano: i64) -> Result<PathBuf, Trouble> {
        self.free_name(disk, unix_nano, |stamp, n| {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".kept-{stamp}-{n}"));
            name
        })
    }

    fn free_name(
        &self,
        disk: &dyn Disk,
        unix_nano: i64,
        name: impl Fn(&str, u64) -> OsString,
    ) -> Result<PathBuf, Trouble> {
        let stamp = stamp(unix_nano);
        let mut n = 0;
        loop {
            let path = self.directory.join(name(&stamp, n));
            match disk.look(&path) {
                Ok(None) => return Ok(path),
                Ok(Some(_)) => n += 1,
                Err(error) => return Err(Trouble::disk("look at", &path, error)),
            }
        }
    }

    /// Removes the oldest closed files beyond `keep`, but never `newest`. What cannot be removed is tried again at the next closing.
    pub(crate) fn remove_oldest(&self, disk: &dyn Disk, newest: &Path) {
        let Some(keep) = self.keep else { return };
        let names = match disk.names(&self.directory) {
            Ok(names) => names,
            Err(error) => {
                return warn!(directory = %self.directory.display(), %error, "old files are not removed");
            }
        };
        let mut closed: Vec<((Vec<u8>, u64), OsString)> = names
            .into_iter()
            .filter_map(|name| Some((self.closed_at(&name)?, name)))
            .collect();
        closed.sort_unstable();
        let surplus = closed.len().saturating_sub(keep);
        for (_, name) in closed.into_iter().take(surplus) {
            let path = self.directory.join(name);
            if path != newest
                && let Err(error) = disk.remove(&path)
            {
                warn!(file = %path.display(), %error, "old file is not removed");
            }
        }
    }

    /// Stamp and number in the name of a closed file of ours.
    fn closed_at(&self, name: &OsStr) -> Option<(Vec<u8>, u64)> {
        let rest = name
            .as_bytes()
            .strip_prefix(self.prefix.as_bytes())?
            .strip_suffix(self.suffix.as_bytes())?;
        let (stamp, n) = rest.split_at_checked(16)?;
        let is_stamp = stamp.iter().enumerate().all(|(place, byte)| match place {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
        let n = std::str::from_utf8(n.strip_prefix(b"-")?)
            .ok()?
            .parse()
            .ok()?;
        is_stamp.then(|| (stamp.to_owned(), n))
    }
}

/// `20261123T091502Z`
fn stamp(unix_nano: i64) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_nano))
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "00000000T000000Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_this_output_closed_are_taken_for_old_ones() {
        let place = Place::of_file(Path::new("/data/events.ndjson"), Some(1));
        let closed = |name: &str| place.closed_at(OsStr::new(name)).is_some();
        assert!(closed("events.ndjson.20261123T091502Z-0"));
        assert!(closed("events.ndjson.20261123T091502Z-12"));
        for other in [
            "events.ndjson",
            "events.ndjson.1",
            "events.ndjson.20261123T091502Z",
            "events.ndjson.20261123T091502Z-0.gz",
            "events.ndjson.kept-20261123T091502Z-0",
            "other.ndjson.20261123T091502Z-0",
            "events.ndjson.20261123x091502Z-0",
        ] {
            assert!(!closed(other), "{other}");
        }
    }

    #[test]
    fn a_stamp_is_utc_and_sorts() {
        assert_eq!(stamp(1_795_425_302_000_000_001), "20261123T091502Z");
    }

    #[test]
    fn a_bare_file_name_lies_in_the_present_directory() {
        assert_eq!(
            Place::of_file(Path::new("events.ndjson"), None).directory(),
            Path::new(".")
        );
    }
}
