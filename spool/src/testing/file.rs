//! What the spool sees of the failing disk.

use std::{
    any::Any,
    ffi::OsString,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
};

use rustix::io::Errno;

use super::disk::{Change, FailingDisk, Inner, Operation};
use crate::{Access, Disk, DiskFile, Listed};

impl Disk for FailingDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.off {
            return Err(Errno::IO.into());
        }
        if inner.directories.contains(path) {
            return Ok(());
        }
        if inner.read_only {
            return Err(Errno::ROFS.into());
        }
        inner.directories.insert(path.to_owned());
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let mut inner = self.inner();
        if inner.off {
            return Err(Errno::IO.into());
        }
        if !inner.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock {
            disk: self.clone(),
            path: path.to_owned(),
            boots: inner.boots,
        }))
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        self.lock(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let mut inner = self.inner();
        inner.check(Operation::List)?;
        let inside = |path: &Path| path.parent() == Some(directory);
        let mut all: Vec<Listed> = Vec::new();
        for (path, file) in inner.names.iter().filter(|(path, _)| inside(path)) {
            let bytes = inner
                .files
                .get(file)
                .map_or(0, |content| content.seen.len() as u64);
            all.push(Listed {
                name: name_of(path),
                bytes,
                is_file: true,
            });
        }
        for path in inner.directories.iter().filter(|path| inside(path)) {
            all.push(Listed {
                name: name_of(path),
                bytes: 0,
                is_file: false,
            });
        }
        Ok(all)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.check(Operation::Create)?;
        if inner.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = inner.new_file(path);
        Ok(Arc::new(FailingFile {
            disk: self.clone(),
            file,
            boots: inner.boots,
        }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.check(Operation::Open)?;
        if inner.read_only && access == Access::Write {
            return Err(Errno::ROFS.into());
        }
        let file = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FailingFile {
            disk: self.clone(),
            file,
            boots: inner.boots,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check(Operation::Rename)?;
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check(Operation::Remove)?;
        inner
            .names
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check(Operation::SyncDirectory)?;
        let inside = |other: &Path| other.parent() == Some(path);
        let Inner {
            names,
            durable_names,
            ..
        } = &mut *inner;
        durable_names.retain(|other, _| !inside(other));
        durable_names.extend(
            names
                .iter()
                .filter(|(other, _)| inside(other))
                .map(|(other, file)| (other.clone(), *file)),
        );
        Ok(())
    }

    fn unix_nano(&self) -> i64 {
        self.inner().unix_nano
    }
}

fn name_of(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

struct Lock {
    disk: FailingDisk,
    path: PathBuf,
    boots: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.boots == self.boots {
            inner.locks.remove(&self.path);
        }
    }
}

struct FailingFile {
    disk: FailingDisk,
    file: u64,
    boots: u64,
}

impl FailingFile {
    /// A handle from before a power cut is dead.
    fn inner(&self, operation: Operation) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.disk.inner();
        if inner.boots != self.boots {
            return Err(Errno::IO.into());
        }
        inner.check(operation)?;
        Ok(inner)
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.inner(Operation::Read)?;
        inner.reads += 1;
        let seen = inner
            .files
            .get(&self.file)
            .map_or(&[][..], |content| &content.seen[..]);
        let from = &seen[seen.len().min(offset as usize)..];
        let bytes = buffer.len().min(from.len());
        buffer[..bytes].copy_from_slice(&from[..bytes]);
        Ok(bytes)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut inner = self.inner(Operation::Write)?;
        let mut bytes = parts
            .iter()
            .flat_map(|part| part.iter().copied())
            .collect::<Vec<u8>>();
        let whole = bytes.len();
        let mut error = None;
        let len = inner
            .files
            .get(&self.file)
            .map_or(0, |content| content.seen.len() as u64);
        let growth = (offset + whole as u64).saturating_sub(len);
        let missing = growth - inner.room(growth);
        if missing > 0 {
            bytes.truncate(whole - (missing as usize).min(whole));
            error = Some(Errno::NOSPC);
        }
        if let Some(power) = &mut inner.power_bytes {
            if *power <= bytes.len() as u64 {
                bytes.truncate(*power as usize);
                inner.off = true;
                error = Some(Errno::IO);
            } else {
                *power -= bytes.len() as u64;
            }
        }
        inner.written_bytes += bytes.len() as u64;
        if let Some(content) = inner.files.get_mut(&self.file) {
            let change = Change::Write { offset, bytes };
            change.apply(&mut content.seen);
            content.pending.push(change);
        }
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner(Operation::Allocate)?;
        let growth = len.saturating_sub(
            inner
                .files
                .get(&self.file)
                .map_or(0, |content| content.seen.len() as u64),
        );
        if inner.room(growth) < growth {
            return Err(Errno::NOSPC.into());
        }
        resize(&mut inner, self.file, growth > 0, len);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner(Operation::Truncate)?;
        resize(&mut inner, self.file, true, len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let checked = if inner.boots == self.boots {
            inner.check(Operation::Sync)
        } else {
            Err(Errno::IO.into())
        };
        let off = inner.off;
        let Some(content) = inner.files.get_mut(&self.file) else {
            return checked;
        };
        match &checked {
            Ok(()) => {
                for change in content.pending.drain(..) {
                    change.apply(&mut content.durable);
                }
                inner.syncs += 1;
            }
            // The kernel gives up on these pages: a later success says nothing of them.
            Err(_) if !off => content.pending.clear(),
            Err(_) => {}
        }
        checked
    }

    fn size(&self) -> io::Result<u64> {
        let inner = self.disk.inner();
        Ok(inner
            .files
            .get(&self.file)
            .map_or(0, |content| content.seen.len() as u64))
    }
}

fn resize(inner: &mut Inner, file: u64, needed: bool, len: u64) {
    if let Some(content) = inner.files.get_mut(&file)
        && needed
    {
        let change = Change::Resize { len };
        change.apply(&mut content.seen);
        content.pending.push(change);
    }
}
