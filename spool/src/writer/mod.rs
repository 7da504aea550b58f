//! The one owner of a directory: appends, syncs, marks, trims.

mod append;
mod errors;
mod reopen;
mod roll;
mod trim;

use std::{
    any::Any,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

pub use self::errors::{AppendError, SyncError};
use self::{append::Sizes, roll::cut_file};
use crate::{
    Disk, DiskFile, Frame, FrameNo, ItemNo, LANES, Mark, OpenError, Options, Reader, Recovery,
    View,
    log::{Log, Shared},
    quota::{Purpose, Quota},
    recovery::{self, LOCK, Live},
    snapshot::State,
};

/// The one owner of a directory: appends, syncs, marks, trims. A thread owns it; all calls may block on the disk.
///
/// Dropping it is a crash: what was appended but not synced may be lost. [`Spool::close`] ends it cleanly.
pub struct Spool {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    quota: Quota,
    options: Options,
    /// `None` after the disk failed, until reopened.
    active: Option<Active>,
    state: State,
    /// Readers whose marks the next frame removes.
    forgotten: Vec<String>,
    /// Segments below are gone, and the next frame says so.
    given_up: Option<u64>,
    /// Size of the reserve file, once known.
    reserve_bytes: Option<u64>,
    buffer_id: [u8; 16],
    next_segment: u64,
    incarnation: u64,
    scratch: Vec<u8>,
    _lock: Box<dyn Any + Send>,
}

/// The segment written to.
struct Active {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Size at which it is closed.
    full_bytes: u64,
}

/// Where a frame came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Durable once [`Spool::sync`] has returned a greater one.
    pub frame: FrameNo,
    /// Number of the first item of this frame in each lane; the others follow.
    pub first: [ItemNo; LANES],
}

impl Spool {
    /// Takes the directory's lock (making it with mode 0700 where it is missing), recovers, starts a new segment with a
    /// snapshot, synced. Reads the newest segment or two, not the backlog.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: Options,
    ) -> Result<(Spool, Recovery), OpenError> {
        disk.make_directory(directory)
            .map_err(OpenError::io("make directory", directory))?;
        let lock_path = directory.join(LOCK);
        let lock = disk
            .lock(&lock_path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock => OpenError::Locked {
                    path: directory.to_owned(),
                },
                _ => OpenError::Io {
                    action: "lock",
                    path: lock_path,
                    source,
                },
            })?;
        let recovered = recovery::recover(&*disk, directory, &options.required_readers, None)?;
        let log = Log {
            required: options.required_readers.clone(),
            read_unsynced: options.read_unsynced,
            max_bytes: options.max_bytes,
            ..Log::empty()
        };
        let mut spool = Spool {
            disk,
            shared: Arc::new(Shared::of(directory, log)),
            quota: Quota::of(&options),
            options,
            active: None,
            state: State::new(),
            forgotten: Vec::new(),
            given_up: None,
            reserve_bytes: None,
            buffer_id: recovered.buffer_id,
            next_segment: 0,
            incarnation: 0,
            scratch: Vec::new(),
            _lock: lock,
        };
        let recovery = spool.go_on(recovered)?;
        Ok((spool, recovery))
    }

    /// After a failed append or sync: gives up the handles, cuts the log at the durable mark, recovers, starts a new
    /// segment. An error leaves everything as it was: call again later, appends fail until then.
    ///
    /// State and marks are as they were at the durable mark. Readers made before stay valid; where they had read beyond
    /// the cut they go on behind it. Item numbers of what was cut are not used again.
    pub fn reopen(&mut self) -> Result<Recovery, OpenError> {
        self.fail();
        let live = {
            let log = self.shared.log();
            Live {
                durable: log.synced.frame,
                items: log.synced.items,
            }
        };
        let directory = self.shared.directory.clone();
        let recovered = recovery::recover(
            &*self.disk,
            &directory,
            &self.options.required_readers,
            Some(live),
        )?;
        let recovery = self.go_on(recovered)?;
        self.shared.changed();
        Ok(recovery)
    }

    /// Appends a frame: all of it is there after a crash, or nothing. Durable only after [`Spool::sync`].
    ///
    /// # Panics
    ///
    /// If an item's lane is not below [`LANES`], or a reader's name is longer than 65,535 bytes.
    pub fn append(&mut self, frame: &Frame<'_>) -> Result<Appended, AppendError> {
        let sizes = Sizes::of(frame, &self.forgotten);
        if sizes.frame_bytes > self.quota.max_frame_bytes() {
            return Err(AppendError::TooLarge {
                bytes: sizes.frame_bytes,
                max: self.quota.max_frame_bytes(),
            });
        }
        let purpose = Purpose::of(sizes.items);
        match self.try_append(frame, &sizes, purpose) {
            Err(AppendError::NoRoom { .. })
                if purpose != Purpose::Routine && self.release_reserve() =>
            {
                self.try_append(frame, &sizes, purpose)
            }
            result => result,
        }
    }

    /// Makes everything appended durable, then removes segments that are no longer needed. Costs nothing when
    /// everything is durable (also after a failure that was not followed by [`Spool::reopen`] yet: nothing is appended
    /// then). Returns the durable mark (exclusive).
    pub fn sync(&mut self) -> Result<FrameNo, SyncError> {
        let mut changed = false;
        if self.needs_sync() {
            self.sync_active()?;
            changed = !self.options.read_unsynced;
        } else if self.options.keep_delivered.is_none() {
            return Ok(self.shared.log().synced.frame);
        }
        while self.trim_oldest(false) {
            changed = true;
        }
        if changed {
            self.fit_reserve();
            self.shared.changed();
        }
        Ok(self.shared.log().synced.frame)
    }

    /// Whether something was appended that is not durable.
    pub fn needs_sync(&self) -> bool {
        let log = self.shared.log();
        self.active.is_some() && log.synced.frame < log.end.frame
    }

    /// State as last appended, synced or not.
    pub fn state(&self, key: &[u8]) -> Option<Bytes> {
        self.state.get(key).cloned()
    }

    /// All state whose key begins so, in order of the keys.
    pub fn state_with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let from = self
            .state
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// A reader's mark as last appended, synced or not.
    pub fn mark(&self, reader: &str) -> Option<Mark> {
        self.shared.log().marks.get(reader).cloned()
    }

    /// Removes a reader's mark and its hold; stored with the next append.
    pub fn forget_reader(&mut self, reader: &str) {
        self.options
            .required_readers
            .retain(|required| required != reader);
        let mut log = self.shared.log();
        log.required.retain(|required| required != reader);
        if log.marks.remove(reader).is_some() {
            self.forgotten.push(reader.to_owned());
        }
    }

    /// A reader that starts at its mark, or where it has none at the oldest item still held. Send; one thread uses it.
    pub fn reader(&self, name: &str) -> Reader {
        Reader::new(Arc::clone(&self.disk), Arc::clone(&self.shared), name)
    }

    /// Numbers for status and metrics, from any thread.
    pub fn view(&self) -> View {
        View {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Ends cleanly: syncs, gives back what was allocated ahead, gives up the lock.
    pub fn close(mut self) -> Result<(), SyncError> {
        if !self.forgotten.is_empty() {
            let appended = self.append(&Frame::default());
            if let Err(error @ AppendError::Io { .. }) = appended {
                return Err(self.as_sync_error(error));
            }
        }
        self.sync()?;
        if let Some(active) = self.active.take() {
            cut_file(&*active.file, &active.path, self.shared.log().synced.offset);
        }
        Ok(())
    }
}
