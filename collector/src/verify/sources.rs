//! Where batches are read from.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader},
    ops::Range,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use watchline_proto::Lane;
use watchline_spool::{self as spool, OpenError, ReadError};

use super::batches::Checker;
use crate::{
    chains::ChainStore,
    outputs::archive::format::{Kind, ReadError as ArchiveError, Reader},
};

/// The file of an archive that grows.
const CURRENT: &str = "current.wla";
/// How often a place that cannot be read is tried.
const READ_TRIES: u32 = 5;

/// What an archive is, beside its batches.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    pub(crate) files: u64,
    /// When its first file was begun.
    pub(crate) begun_unix_nano: i64,
    pub(crate) missing_files: Vec<Range<u64>>,
}

pub(crate) fn is_archive(directory: &Path) -> io::Result<bool> {
    Ok(!files(directory)?.is_empty())
}

fn files(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && (name.ends_with(".wla") || name.starts_with("current.wla.kept-"))
            && entry.file_type()?.is_file()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads all files of an archive, also those that were set aside.
pub(crate) fn archive(directory: &Path, checker: &mut Checker) -> anyhow::Result<Archive> {
    let mut archive = Archive {
        begun_unix_nano: i64::MAX,
        ..Archive::default()
    };
    let mut numbers = BTreeSet::new();
    for name in files(directory)? {
        archive.files += 1;
        let path = directory.join(&name);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let length = file.metadata()?.len();
        let may_be_cut = name.starts_with(CURRENT);
        if length == 0 && may_be_cut {
            continue; // begun, and nothing came yet
        }
        let mut reader = match Reader::new(BufReader::with_capacity(1 << 20, file)) {
            Ok(reader) => reader,
            Err(ArchiveError::Cut) if may_be_cut => continue,
            Err(error) => {
                checker.problem(format!("{name} at byte 0"), told(&error));
                continue;
            }
        };
        archive.begun_unix_nano = archive.begun_unix_nano.min(reader.opened_unix_nano);
        numbers.insert(reader.file_number);
        let ended = records(&name, &mut reader, checker);
        match ended {
            Ok(true) => {}
            Ok(false) if may_be_cut => {}
            Ok(false) => checker.problem(format!("{name} at byte {length}"), "the file has no end: it was cut".to_owned()),
            Err(ArchiveError::Cut) if may_be_cut => checker.notes.push(format!(
                "{name}: a record at byte {} is not finished; its output will cut and write it again",
                reader.offset()
            )),
            Err(error) => checker.problem(format!("{name} at byte {}", reader.offset()), told(&error)),
        }
    }
    let mut next = 0;
    for number in numbers {
        if next < number {
            archive.missing_files.push(next..number);
        }
        next = number.saturating_add(1);
    }
    Ok(archive)
}

/// `true`: the file is complete.
fn records(
    name: &str,
    reader: &mut Reader<impl io::Read>,
    checker: &mut Checker,
) -> Result<bool, ArchiveError> {
    let mut ended = false;
    while let Some(record) = reader.next()? {
        if ended {
            return Err(ArchiveError::Damaged("there is more behind the end"));
        }
        let place = format!("{name} at byte {}", record.offset);
        match record.kind {
            Kind::Certificates => checker.certificates(&place, &record.body),
            Kind::Batch => checker.batch(&place, record.body.into()),
            Kind::End => ended = true,
            Kind::Unknown(kind) => checker.notes.push(format!(
                "{place}: a record of kind {kind}, of a newer program"
            )),
        }
    }
    Ok(ended)
}

fn told(error: &ArchiveError) -> String {
    match error {
        ArchiveError::Io(source) => format!("{error}: {source}"),
        other => other.to_string(),
    }
}

/// Reads all that a buffer holds. The process that owns it must be stopped: what it removes meanwhile would look like damage.
pub(crate) fn buffer(
    directory: &Path,
    disk: Arc<dyn spool::Disk>,
    checker: &mut Checker,
) -> anyhow::Result<()> {
    let chains = directory.join(crate::chains::DIRECTORY);
    if chains.is_dir() {
        let store =
            ChainStore::open(chains.clone()).with_context(|| chains.display().to_string())?;
        checker.use_store(store);
    }
    let mut inspection = match spool::inspect(disk, directory) {
        Err(OpenError::Locked { path }) => {
            bail!(
                "{} is in use: stop its collector first, or check its archive",
                path.display()
            )
        }
        other => other?,
    };
    for damage in &inspection.damage {
        checker.problem(
            format!("{} at byte {}", damage.segment.display(), damage.offset),
            damage.reason.to_string(),
        );
    }
    for lane in Lane::ALL {
        let mut tries = 0;
        loop {
            match inspection.reader.next(lane.index()) {
                Ok(Some(item)) => {
                    checker.batch(&format!("{} item {}", lane.as_str(), item.no.0), item.bytes);
                    tries = 0;
                }
                Ok(None) => break,
                Err(ReadError::Damaged(damage)) => {
                    checker.problem(
                        format!("{} at byte {}", damage.segment.display(), damage.offset),
                        damage.reason.to_string(),
                    );
                }
                Err(ReadError::Gone { .. }) => {}
                Err(ReadError::Io { path, source }) => {
                    tries += 1;
                    if tries >= READ_TRIES {
                        return Err(source).with_context(|| format!("read {}", path.display()));
                    }
                }
            }
        }
    }
    Ok(())
}
