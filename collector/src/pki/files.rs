use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

pub(super) const CERTIFICATE: &str = "ca.pem";
pub(super) const KEY: &str = "ca.key";
pub(super) const REVOCATIONS: &str = "crl.pem";
pub(super) const REGISTER: &str = "issued.jsonl";

/// Makes a folder (0700) with those above it; one that is there stays as it is.
pub(super) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("making the folder {}", folder.display()))
}

pub(super) fn must_not_exist(file: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("looking for {}", file.display())),
        Ok(_) => bail!(
            "{} exists already: nothing is ever overwritten",
            file.display()
        ),
    }
}

/// Writes a file that is not there yet (0600), to the disk.
pub(super) fn write_new(file: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        opened.write_all(contents)?;
        opened.sync_all()
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!(
                "{} exists already: nothing is ever overwritten",
                file.display()
            )
        }
        other => other.with_context(|| format!("writing {}", file.display())),
    }
}

/// Puts a new file in the place of an old one, as a whole: whoever reads it sees the one or the other, a power cut included.
pub(super) fn replace(file: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let beside = PathBuf::from(format!("{}.new", file.display()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", beside.display()));
        }
        _ => {}
    }
    write_new(&beside, contents)?;
    fs::rename(&beside, file).with_context(|| format!("replacing {}", file.display()))?;
    sync_folder(file.parent().unwrap_or(Path::new("")))
}

/// Makes new names in a folder survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("syncing the folder {}", folder.display()))
}

/// Whether the file is there with these contents; with others: an error.
pub(super) fn holds(file: &Path, contents: &str) -> anyhow::Result<bool> {
    match read_if_there(file)? {
        None => Ok(false),
        Some(found) if found == contents => Ok(true),
        Some(_) => bail!(
            "{} is another CA's: use another folder, nothing is ever overwritten",
            file.display()
        ),
    }
}

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

pub(super) fn read_if_there(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other
            .map(Some)
            .with_context(|| format!("reading {}", file.display())),
    }
}

/// Reads a secret; one that group or others can read is refused.
pub(super) fn read_secret(file: &Path) -> anyhow::Result<String> {
    let opened = File::open(file).with_context(|| format!("reading {}", file.display()))?;
    let mode = opened
        .metadata()
        .with_context(|| format!("reading {}", file.display()))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        bail!(
            "{} is readable by group or others (mode {mode:04o}): run chmod 600",
            file.display()
        );
    }
    io::read_to_string(opened).with_context(|| format!("reading {}", file.display()))
}
