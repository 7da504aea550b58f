//! The seam to the file system: real, or failing in tests.

use std::{
    any::Any,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, OFlags},
    io::Errno,
};

/// What a spool needs of a file system (and of the clock). All calls may block.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory, mode 0700, and its parents, and as far as one may makes them survive a power cut; nothing to
    /// do when it is there.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes an exclusive lock that ends when the result is dropped or the process ends.
    /// [`io::ErrorKind::WouldBlock`]: somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>>;

    /// Takes a lock that keeps [`Disk::lock`] away, without making a file; nothing to do where there is no file.
    /// [`io::ErrorKind::WouldBlock`]: somebody has that lock.
    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send>>;

    /// Everything in a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>>;

    /// Makes a file that must not be there yet, mode 0600, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that is there; follows no link.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file within the file system, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what was created, renamed or removed in a directory survive a power cut.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The wall clock, in nanoseconds since 1970.
    fn unix_nano(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// An open file. Calls do not move a position, so one handle serves several threads.
pub trait DiskFile: Send + Sync {
    /// Reads into `buffer` from `offset` on; less than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all parts one after the other from `offset` on. On an error some of it may have been written.
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes the file `len` bytes long and takes the room for them; what is new reads as zeros. Where the file system
    /// cannot, nothing happens.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes the file exactly `len` bytes long.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes the content, and what of the metadata is needed to read it, survive a power cut. After an error nothing
    /// is known of what was written since the last success, and trying again on this handle proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name within the directory.
    pub name: OsString,
    /// Its length in bytes; 0 for what is not a regular file.
    pub bytes: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                return Ok(());
            }
            Err(error) => match path.parent() {
                Some(parent) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_directory(parent)?;
                    fs::DirBuilder::new().mode(0o700).create(path)?;
                }
                _ => return Err(error),
            },
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if let Err(error) = self.sync_directory(parent) {
            // One may be allowed to make something there but not to open it.
            tracing::warn!(path = %parent.display(), %error, "the new directory may not survive a power cut");
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let file = options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let file = match options().read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Box::new(())),
            Err(error) => return Err(error),
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Box::new(file))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        fs::read_dir(directory)?
            .map(|entry| {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let is_file = metadata.is_file();
                Ok(Listed {
                    name: entry.file_name(),
                    bytes: if is_file { metadata.len() } else { 0 },
                    is_file,
                })
            })
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)?,
        )))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            options()
                .read(true)
                .write(access == Access::Write)
                .open(path)?,
        )))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Mode 0600 where a file is made, links are not followed, and a planted FIFO does not block.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    options
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        /// What Linux takes in one call.
        const MAX_PARTS: usize = 1024;
        IoSlice::advance_slices(&mut parts, 0); // drops empty parts in front
        while !parts.is_empty() {
            let some = &parts[..parts.len().min(MAX_PARTS)];
            match rustix::io::pwritev(&self.0, some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    offset += bytes as u64;
                    IoSlice::advance_slices(&mut parts, bytes);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Whether the file system is out of room, which passes without anything having gone wrong.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether the medium itself could not be read (a bad sector), which may well last.
pub(crate) fn is_medium_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
