//! Reading a directory that nobody has open, without changing it: for checking what is held.

use std::{any::Any, collections::BTreeMap, io, path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    Access, Damage, Disk, DiskFile, Listed, OpenError, Reader,
    log::{Log, Shared},
    recovery::{self, LOCK, Recovered},
    segment::{self, Segment},
};

/// A directory as it is.
pub struct Inspection {
    /// Stands at the oldest item held in each lane. Damage in the middle comes as errors, as always.
    pub reader: Reader,
    /// Damage that recovery met: state and marks behind the newest snapshot, and items there.
    pub damage: Vec<Damage>,
    _lock: Box<dyn Any + Send>,
}

/// Whether a directory holds segments of a spool, sound or not.
pub fn is_spool(disk: &dyn Disk, directory: &Path) -> io::Result<bool> {
    let listed = disk.list(directory)?;
    Ok(listed
        .iter()
        .any(|entry| entry.is_file && segment::number_of(&entry.name).is_some()))
}

/// Reads what [`Spool::open`](crate::Spool::open) would find, and changes nothing: nothing is cut, set aside or begun, so also a copy on
/// a read-only medium can be looked at. As long as the result lives no process can open the spool; one that has it open is
/// [`OpenError::Locked`].
pub fn inspect(disk: Arc<dyn Disk>, directory: &Path) -> Result<Inspection, OpenError> {
    let lock_path = directory.join(LOCK);
    let lock = disk
        .lock_to_read(&lock_path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked {
                path: directory.to_owned(),
            },
            _ => OpenError::Io {
                action: "lock",
                path: lock_path.clone(),
                source,
            },
        })?;
    let disk: Arc<dyn Disk> = Arc::new(ReadOnly(disk));
    let recovered = match recovery::recover(&*disk, directory, &[], None) {
        Err(OpenError::Io { path, source, .. })
            if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            // What recovery would have set aside, to begin anew.
            let mut nothing = Recovered::default();
            nothing.damage.push(Damage {
                segment: path,
                offset: 0,
                bytes: 0,
                frames: Default::default(),
                items: Default::default(),
                reason: "no snapshot can be read",
                kept: None,
            });
            nothing
        }
        other => other?,
    };
    let mut log = Log::empty();
    log.used_bytes = recovered.segments.iter().map(Segment::file_bytes).sum();
    log.end.offset = recovered.segments.back().map_or(0, |last| last.row.log_end);
    log.end.frame = recovered.frame;
    log.end.items = recovered.items;
    log.end.bytes = recovered.bytes;
    log.synced = log.end;
    log.segments = recovered.segments;
    log.removed = recovered.removed;
    let shared = Arc::new(Shared::of(directory, log));
    Ok(Inspection {
        reader: Reader::new(disk, shared, ""),
        damage: recovered.damage,
        _lock: lock,
    })
}

/// How often a look at a directory is taken again, when its owner deleted what was being read.
const LOOKS: usize = 5;

/// The state that a directory holds, whether a process has it open or not: as of about now, each key as one of its frames left it, those
/// of one frame all or none of them. Changes nothing and takes no lock. A directory without a spool holds none.
pub fn state_of(
    disk: Arc<dyn Disk>,
    directory: &Path,
) -> Result<BTreeMap<Bytes, Bytes>, OpenError> {
    let disk = ReadOnly(disk);
    let mut looks = 1;
    loop {
        match recovery::recover(&disk, directory, &[], None) {
            Ok(recovered) => return Ok(recovered.state),
            Err(OpenError::Io { source, .. })
                if looks < LOOKS
                    && matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ReadOnlyFilesystem
                    ) =>
            {
                looks += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Refuses whatever would change something.
struct ReadOnly(Arc<dyn Disk>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnly {
    fn make_directory(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send>> {
        refused()
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        self.0.lock_to_read(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        self.0.list(directory)
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        match access {
            Access::Read => self.0.open(path, access),
            Access::Write => refused(),
        }
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn unix_nano(&self) -> i64 {
        self.0.unix_nano()
    }
}
