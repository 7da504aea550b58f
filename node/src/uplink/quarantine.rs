//! Batches that the next hop refused for their own defect: their bytes are kept, can be listed, and can be offered again.
//!
//! `<spool directory>/quarantine/<unix nanoseconds>-<lane>-<reason>.batch` holds the stored item, an encoded
//! `wire::SealedBatch`, byte for byte. `retry` moves files to `quarantine/retry/`, where the running process finds them
//! within a second and offers them again; a file there goes when it has been stored, or back to `quarantine/` when it is
//! refused again. Files are 0600, directories 0700. What is here is bounded: at [`MAX_FILES`] or [`MAX_BYTES`] nothing more
//! is set aside and the line stands still, because dropping evidence in silence would be worse.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use watchline_proto::{Lane, MAX_MESSAGE_BYTES, Seal, stored, wire};

use super::status::now_unix_nano;

/// Files in quarantine, those that wait to be offered again included.
pub const MAX_FILES: usize = 1024;
/// Bytes in quarantine, likewise.
pub const MAX_BYTES: u64 = 512 << 20;

const SUFFIX: &str = ".batch";
const RETRY: &str = "retry";

/// A batch in quarantine, for `quarantine list`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was set aside.
    pub since_unix_nano: i64,
    /// Its lane.
    pub lane: Lane,
    /// Why: a word, as of [`wire::RejectReason::word`].
    pub reason: String,
    /// It waits to be offered again.
    pub waits_for_retry: bool,
    /// Its seal; `None` when it cannot be read.
    pub seal: Option<Seal>,
}

/// The directory of one spool.
#[derive(Debug, Clone)]
pub struct Quarantine {
    directory: PathBuf,
}

/// Why a batch could not be set aside, or the directory not be read. The batch stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// See [`MAX_FILES`] and [`MAX_BYTES`].
    #[error("quarantine {} is full ({files} files, {bytes} bytes): look at it, then retry or remove", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// In it.
        files: usize,
        /// In it.
        bytes: u64,
    },
    /// The file system failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QuarantineError {
    let path = path.to_owned();
    move |source| QuarantineError::Io {
        action,
        path,
        source,
    }
}

impl Quarantine {
    /// `directory` is made when something is first put there.
    pub fn new(directory: PathBuf) -> Quarantine {
        Quarantine { directory }
    }

    /// Keeps the bytes, synced before this returns. Blocks on the disk.
    pub fn put(
        &self,
        lane: Lane,
        reason: wire::RejectReason,
        stored: &[u8],
    ) -> Result<PathBuf, QuarantineError> {
        let (files, bytes) = self.held()?;
        if files >= MAX_FILES || bytes + stored.len() as u64 > MAX_BYTES {
            return Err(QuarantineError::Full {
                path: self.directory.clone(),
                files,
                bytes,
            });
        }
        make_directory(&self.directory)?;
        let mut since = now_unix_nano();
        loop {
            let name = format!("{since:020}-{}-{}{SUFFIX}", lane.as_str(), reason.word());
            let path = self.directory.join(name);
            let mut file = match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
            {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    since += 1;
                    continue;
                }
                Err(e) => return Err(io_error("create", &path)(e)),
            };
            let written = file
                .write_all(stored)
                .and_then(|()| file.sync_all())
                .and_then(|()| sync_directory(&self.directory));
            if let Err(e) = written {
                let _ = fs::remove_file(&path); // half a batch is of no use; the whole is still in the spool
                return Err(io_error("write", &path)(e));
            }
            return Ok(path);
        }
    }

    /// What is set aside, oldest first, and then what waits to be offered again. Blocks on the disk.
    pub fn list(&self) -> Result<Vec<Entry>, QuarantineError> {
        let mut entries = Vec::new();
        for (directory, waits_for_retry) in [
            (self.directory.clone(), false),
            (self.directory.join(RETRY), true),
        ] {
            for path in batches_in(&directory)? {
                let Some((since_unix_nano, lane, reason)) = parse_name(&path) else {
                    continue;
                };
                // Gone since the listing: the running process was faster.
                let Ok(item) = read_bounded(&path) else {
                    continue;
                };
                let seal = stored::decode(item.clone())
                    .ok()
                    .and_then(|batch| Seal::decode(&batch.seal).ok());
                let bytes = item.len() as u64;
                entries.push(Entry {
                    path,
                    bytes,
                    since_unix_nano,
                    lane,
                    reason,
                    waits_for_retry,
                    seal,
                });
            }
        }
        Ok(entries)
    }

    /// Asks the running process to offer all that is set aside again; how many. Blocks on the disk.
    pub fn retry(&self) -> Result<usize, QuarantineError> {
        let waiting = batches_in(&self.directory)?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let retry = self.directory.join(RETRY);
        make_directory(&retry)?;
        let mut moved = 0;
        for path in waiting {
            let Some(name) = path.file_name() else {
                continue;
            };
            fs::rename(&path, retry.join(name)).map_err(io_error("move", &path))?;
            moved += 1;
        }
        sync_directory(&retry).map_err(io_error("sync", &retry))?;
        sync_directory(&self.directory).map_err(io_error("sync", &self.directory))?;
        Ok(moved)
    }

    /// The oldest files that wait to be offered again, with their bytes: at most `most`, none of `except`.
    pub(super) fn waiting(&self, most: usize, except: &[PathBuf]) -> Vec<(PathBuf, Lane, Bytes)> {
        // Most of the time there is no such directory: one system call.
        let Ok(files) = batches_in(&self.directory.join(RETRY)) else {
            return Vec::new();
        };
        let mut waiting = Vec::new();
        for path in files.into_iter().filter(|path| !except.contains(path)) {
            if waiting.len() == most {
                break;
            }
            let Some((_, lane, _)) = parse_name(&path) else {
                continue;
            };
            let Ok(stored) = read_bounded(&path) else {
                continue;
            };
            waiting.push((path, lane, stored));
        }
        waiting
    }

    /// One that was offered again has been stored.
    pub(super) fn delivered(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(file = %path.display(), %error, "a delivered batch stays in quarantine; it will be offered once more");
        }
    }

    /// One that was offered again was refused again.
    pub(super) fn refused_again(&self, path: &Path) -> Result<PathBuf, QuarantineError> {
        let back = self.directory.join(path.file_name().unwrap_or_default());
        fs::rename(path, &back).map_err(io_error("move", path))?;
        Ok(back)
    }

    fn held(&self) -> Result<(usize, u64), QuarantineError> {
        let mut held = (0, 0);
        for directory in [self.directory.clone(), self.directory.join(RETRY)] {
            for path in batches_in(&directory)? {
                held.0 += 1;
                held.1 += fs::metadata(&path).map_or(0, |meta| meta.len());
            }
        }
        Ok(held)
    }
}

fn make_directory(path: &Path) -> Result<(), QuarantineError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) => Err(io_error("make directory", path)(e)),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Batch files in a directory, oldest first; empty when there is no such directory.
fn batches_in(directory: &Path) -> Result<Vec<PathBuf>, QuarantineError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error("list", directory)(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", directory))?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn parse_name(path: &Path) -> Option<(i64, Lane, String)> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let mut parts = name.splitn(3, '-');
    let since = parts.next()?.parse().ok()?;
    let lane = parts.next()?;
    let lane = Lane::ALL.into_iter().find(|l| l.as_str() == lane)?;
    Some((since, lane, parts.next()?.to_owned()))
}

fn read_bounded(path: &Path) -> io::Result<Bytes> {
    let file = OpenOptions::new().read(true).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// When a batch was set aside, for people.
pub fn set_aside_at(entry: &Entry) -> SystemTime {
    SystemTime::UNIX_EPOCH
        + std::time::Duration::from_nanos(u64::try_from(entry.since_unix_nano).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_set_aside_keeps_its_bytes_until_it_is_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(dir.path().join("quarantine"));
        assert!(quarantine.list().unwrap().is_empty());
        let path = quarantine
            .put(Lane::Alert, wire::RejectReason::PayloadHash, b"some bytes")
            .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"some bytes");
        let listed = quarantine.list().unwrap();
        assert_eq!(
            (
                listed[0].lane,
                listed[0].reason.as_str(),
                listed[0].waits_for_retry
            ),
            (Lane::Alert, "payload_hash", false)
        );

        assert_eq!(quarantine.retry().unwrap(), 1);
        assert!(quarantine.list().unwrap()[0].waits_for_retry);
        let (path, lane, bytes) = quarantine.waiting(10, &[]).remove(0);
        assert_eq!((lane, &bytes[..]), (Lane::Alert, &b"some bytes"[..]));
        assert!(
            quarantine
                .waiting(10, std::slice::from_ref(&path))
                .is_empty()
        );

        let back = quarantine.refused_again(&path).unwrap();
        assert_eq!(fs::read(&back).unwrap(), b"some bytes");
        quarantine.retry().unwrap();
        quarantine.delivered(&path);
        assert!(quarantine.list().unwrap().is_empty());
    }

    #[test]
    fn a_full_quarantine_takes_no_more_and_drops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(dir.path().to_owned());
        for n in 0..MAX_FILES {
            fs::write(dir.path().join(format!("{n:020}-routine-seal.batch")), b"x").unwrap();
        }
        let full = quarantine
            .put(Lane::Routine, wire::RejectReason::Seal, b"y")
            .unwrap_err();
        assert!(
            matches!(
                full,
                QuarantineError::Full {
                    files: MAX_FILES,
                    ..
                }
            ),
            "{full}"
        );
        assert_eq!(quarantine.list().unwrap().len(), MAX_FILES);
    }
}
