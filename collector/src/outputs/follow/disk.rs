//! The seam to the file system: real, or a model that can be killed between any two calls.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::SystemTime,
};

use rustix::fs::{CWD, OFlags, RenameFlags};

/// Which file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// When the file was made: tells it from a later one with the same inode. 0: the file system does not say.
    pub(crate) born_unix_nano: i64,
}

impl Identity {
    /// Whether both are one file. Devices are numbered anew at a restart of the machine or container, so they are not compared.
    pub(crate) fn is_same_file(self, other: Identity) -> bool {
        let born = [self.born_unix_nano, other.born_unix_nano];
        self.inode == other.inode && (born[0] == born[1] || born.contains(&0))
    }
}

/// What lies at a path, or what a handle has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) identity: Identity,
    pub(crate) length: u64,
    pub(crate) is_file: bool,
}

/// What an output asks of its file system. Nothing here is durable before the matching sync.
pub(crate) trait Disk: Send {
    /// What lies at `path`, a link itself and not what it points to; `None`: nothing.
    fn look(&self, path: &Path) -> io::Result<Option<Found>>;
    /// Opens an existing file to read and write; never through a link.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Makes a new empty file, 0600; an error if something is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Makes one directory, 0700.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Renames; an error of kind `AlreadyExists` if something is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes what was created, renamed and removed in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Takes away everybody's permission to write, durably: 0400.
    fn make_read_only(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;
}

/// An open file.
pub(crate) trait OpenFile: Send {
    fn found(&self) -> io::Result<Found>;
    /// Fills `bytes`, or fails.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes`. After an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// The real file system.
pub(crate) struct RealDisk;

fn found(metadata: &fs::Metadata) -> Found {
    Found {
        identity: Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_unix_nano: born(metadata),
        },
        length: metadata.len(),
        is_file: metadata.is_file(),
    }
}

fn born(metadata: &fs::Metadata) -> i64 {
    let since = metadata
        .created()
        .ok()
        .and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

impl Disk for RealDisk {
    fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(found(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let no_link_no_wait = flags(OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(no_link_no_wait)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A file system without this flag: look first. Nobody else makes files of these names.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match self.look(to)? {
                Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                None => fs::rename(from, to),
            },
            other => Ok(other?),
        }
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }

    fn make_read_only(&self, path: &Path) -> io::Result<()> {
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags(OFlags::NOFOLLOW))
            .open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o400))?;
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }
}

impl OpenFile for fs::File {
    fn found(&self) -> io::Result<Found> {
        Ok(found(&self.metadata()?))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
