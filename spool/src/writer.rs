//! The one owner of a directory: appends, syncs, marks, trims.

use std::{
    any::Any,
    io::{self, IoSlice},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Access, Disk, DiskFile, Frame, FrameNo, ItemNo, LANES, LaneNo, Mark, OpenError, Options,
    ReadError, Reader, Recovery, View,
    disk::is_no_room,
    frame::{self, FRAME_HEADER_BYTES, FrameHeader, ITEM_HEADER_BYTES, Kind},
    log::{self, Log, Shared},
    quota::{Purpose, Quota},
    recovery::{self, LOCK, Live, RESERVE, Recovered},
    segment::{Row, Segment, SegmentHeader},
    snapshot::{self, State},
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
    reserve: Option<Arc<dyn DiskFile>>,
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

/// Why a frame was not appended. Nothing of it is stored in any case.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Back-pressure: wait until the readers have moved on, then append the same frame again. Marks and state still
    /// fit then, in a frame without items.
    #[error("spool is full: {used_bytes} of {max_bytes} bytes are still needed by a reader")]
    Full {
        /// Bytes in segment files.
        used_bytes: u64,
        /// The quota.
        max_bytes: u64,
    },
    /// The file system has no room (ENOSPC, EDQUOT). The spool stays usable: try again later.
    #[error("no room on the file system of {}", path.display())]
    NoRoom {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It would never fit: the caller must make smaller frames.
    #[error("frame of {bytes} bytes is larger than {max} bytes")]
    TooLarge {
        /// Of the whole frame.
        bytes: u64,
        /// 16 MiB, or less with a small quota.
        max: u64,
    },
    /// The disk failed. Nothing at or after `from` is stored; call [`Spool::reopen`] to go on.
    #[error("append to segment {} at frame {from:?}", path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// The durable mark.
        from: FrameNo,
        /// What the system said.
        source: io::Error,
    },
}

/// The disk failed: nothing at or after `from` is stored. Call [`Spool::reopen`].
#[derive(Debug, thiserror::Error)]
#[error("sync segment {} from frame {from:?}", path.display())]
pub struct SyncError {
    /// The segment.
    pub path: PathBuf,
    /// The durable mark.
    pub from: FrameNo,
    /// What the system said.
    pub source: io::Error,
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
            reserve: None,
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
        self.make_room(sizes.frame_bytes, Purpose::of(sizes.items))?;
        self.write(frame, &sizes)
    }

    /// Makes everything appended durable, then removes segments that are no longer needed. Costs nothing when
    /// everything is durable. Returns the durable mark (exclusive).
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

    /// For `drop_oldest`: what the oldest segment that a required reader still needs holds undelivered for `reader`,
    /// read from disk, lane by lane in order. Takes as much memory as it returns: at most a segment. Empty when there
    /// is nothing to drop (only the newest segment is left). Damage found on the way is an error like any reader's:
    /// note it and call again.
    pub fn oldest_undelivered(
        &mut self,
        reader: &str,
    ) -> Result<Vec<(LaneNo, ItemNo, Bytes)>, ReadError> {
        let Some(row) = self.oldest_needed() else {
            return Ok(Vec::new());
        };
        let mut items = Vec::new();
        let mut from = self.reader(reader);
        for lane in 0..LANES {
            from.seek(lane, from.position(lane).max(row.first_item[lane]));
            while from.position(lane) < row.end_item[lane] {
                match from.next(lane) {
                    Ok(Some(item)) if item.no < row.end_item[lane] => {
                        items.push((lane, item.no, item.bytes))
                    }
                    Ok(_) => break,
                    Err(ReadError::Gone { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(items)
    }

    /// Deletes that segment whatever readers need. The caller has appended (and need not have synced: this syncs first)
    /// what must survive of it. An error means that it is still there, or that it is known to be gone; in both cases
    /// the spool must be reopened.
    pub fn drop_oldest(&mut self) -> Result<(), SyncError> {
        self.sync()?;
        let Some(row) = self.oldest_needed() else {
            return Ok(());
        };
        // Two segments with a snapshot must be left.
        while self
            .shared
            .log()
            .segments
            .iter()
            .rev()
            .take(2)
            .any(|kept| kept.row.segment == row.segment)
        {
            self.roll(0).map_err(|error| self.as_sync_error(error))?;
        }
        self.given_up = Some(row.segment + 1);
        let frame = Frame::default();
        let sizes = Sizes::of(&frame, &self.forgotten);
        self.write(&frame, &sizes)
            .map_err(|error| self.as_sync_error(error))?;
        self.sync_active()?;
        while self
            .shared
            .log()
            .segments
            .front()
            .is_some_and(|oldest| oldest.row.segment <= row.segment)
        {
            self.remove_oldest();
        }
        self.shared.changed();
        Ok(())
    }

    /// Ends cleanly: syncs, gives back what was allocated ahead, gives up the lock.
    pub fn close(mut self) -> Result<(), SyncError> {
        if !self.forgotten.is_empty() || self.given_up.is_some() {
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

// Going on after opening.
impl Spool {
    fn go_on(&mut self, recovered: Recovered) -> Result<Recovery, OpenError> {
        let directory = self.shared.directory.clone();
        let [a, b, c, d] = recovery::random()?;
        self.incarnation = u64::from(recovered.next_incarnation) << 32
            | u64::from(u32::from_le_bytes([a, b, c, d]));
        self.next_segment = self.next_segment.max(recovered.next_segment);
        self.buffer_id = recovered.buffer_id;
        self.state = recovered.state;
        {
            let mut log = self.shared.log();
            log.used_bytes = recovered.segments.iter().map(Segment::file_bytes).sum();
            log.segments = recovered.segments;
            log.marks = recovered.marks.clone();
            log.durable_marks = recovered.marks;
            // What was appended and lost keeps its numbers: nobody may take a new item for it.
            let items = std::array::from_fn(|lane| recovered.items[lane].max(log.next_items[lane]));
            log.next_items = items;
            log.end.offset = log.segments.back().map_or(0, |last| last.row.log_end);
            log.end.frame = recovered.frame;
            log.end.items = items;
            log.end.bytes = recovered.bytes;
            log.synced = log.end;
            log.generation += 1;
        }
        for _ in 0..if recovered.needs_two { 2 } else { 1 } {
            self.start_segment(0).map_err(|failed| OpenError::Io {
                action: "start segment",
                path: failed.path,
                source: failed.source,
            })?;
        }
        // Only now is what was there before unnecessary.
        for number in recovered.stale {
            self.remove_file(number);
        }
        for (number, len) in recovered.cuts {
            let path = self.shared.path_of(number);
            match self.disk.open(&path, Access::Write) {
                Ok(file) => cut_file(&*file, &path, len),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "room behind a segment could not be given back")
                }
            }
        }
        while self.trim_oldest(false) {}
        self.fit_reserve();
        let log = self.shared.log();
        let from = log::passed(&log.required, &log.durable_marks).unwrap_or_default();
        let held = log.held(from);
        tracing::info!(
            directory = %directory.display(), segments = log.segments.len(), used_bytes = log.used_bytes,
            frame = log.end.frame.0, damaged = recovered.damage.len(), "spool opened"
        );
        Ok(Recovery {
            created: recovered.created,
            buffer_id: recovered.buffer_id,
            damage: recovered.damage,
            items: held.map(|lane| lane.items),
            bytes: held.map(|lane| lane.bytes),
        })
    }

    /// Nothing unsynced counts any longer, and this handle is never used again.
    fn fail(&mut self) {
        if self.active.take().is_some() {
            self.shared.log().cut_unsynced();
        }
    }

    fn as_sync_error(&self, error: AppendError) -> SyncError {
        let from = self.shared.log().synced.frame;
        match error {
            AppendError::Io { path, source, from } => SyncError { path, from, source },
            AppendError::NoRoom { path, source } => SyncError { path, from, source },
            other => SyncError {
                path: self.shared.directory.clone(),
                from,
                source: io::Error::other(other),
            },
        }
    }

    fn not_open(&self) -> AppendError {
        AppendError::Io {
            path: self.shared.directory.clone(),
            from: self.shared.log().synced.frame,
            source: io::Error::other("the spool failed before and was not reopened"),
        }
    }

    /// The oldest segment that a required reader needs, if it is not the newest.
    fn oldest_needed(&self) -> Option<Row> {
        let log = self.shared.log();
        let needed = log
            .segments
            .iter()
            .find(|segment| !log.is_passed(segment, &log.marks))?;
        let newest = log.segments.back()?;
        (needed.row.segment != newest.row.segment).then_some(needed.row)
    }
}

// Writing.
impl Spool {
    /// Makes sure that a frame fits the quota and the segment; starts a new segment where it must.
    fn make_room(&mut self, frame_bytes: u64, purpose: Purpose) -> Result<(), AppendError> {
        let limit = self.quota.limit(purpose);
        let mut rolls = 0;
        loop {
            let Some(active) = &self.active else {
                return Err(self.not_open());
            };
            let (used_bytes, snapshot_bytes) = {
                let log = self.shared.log();
                let has_frames = log
                    .segments
                    .back()
                    .is_some_and(|last| last.row.first_frame < last.row.end_frame);
                let rolls = has_frames && log.end.offset + frame_bytes > active.full_bytes;
                (
                    log.used_bytes,
                    if rolls {
                        Some(self.snapshot_bytes(&log))
                    } else {
                        None
                    },
                )
            };
            if used_bytes + frame_bytes + snapshot_bytes.unwrap_or(0) <= limit {
                return if snapshot_bytes.is_some() {
                    self.roll(frame_bytes)
                } else {
                    Ok(())
                };
            }
            // Marks that would make room must be durable first.
            if self.marks_would_trim() {
                self.sync_active().map_err(AppendError::from)?;
            }
            if self.trim_oldest(true) {
                self.shared.changed();
            } else if rolls < 2 && self.roll_would_trim() {
                rolls += 1;
                self.roll(0)?;
            } else {
                return Err(AppendError::Full {
                    used_bytes,
                    max_bytes: self.quota.max_bytes,
                });
            }
        }
    }

    fn write(&mut self, frame: &Frame<'_>, sizes: &Sizes) -> Result<Appended, AppendError> {
        let Some(active) = &self.active else {
            return Err(self.not_open());
        };
        let (place, durable) = {
            let log = self.shared.log();
            (log.end, log.synced.frame)
        };
        let header = FrameHeader {
            kind: Kind::Log,
            incarnation: self.incarnation,
            number: place.frame,
            durable,
            unix_nano: self.disk.unix_nano(),
            first: place.items,
            items: sizes.items,
            item_bytes: sizes.item_bytes,
            body_bytes: 0, // follow
            body_crc: 0,
        };
        let given_up = self.given_up;
        let written = encode(
            &mut self.scratch,
            header,
            frame,
            &self.forgotten,
            given_up,
            |header, parts| {
                active.file.write_at(parts, place.offset)?;
                Ok(header)
            },
        );
        let header = match written {
            Ok(header) => header,
            Err(source) => {
                let path = active.path.clone();
                if is_no_room(&source) {
                    return Err(AppendError::NoRoom { path, source }); // the next frame is written over what there is of it
                }
                self.fail();
                return Err(AppendError::Io {
                    path,
                    from: durable,
                    source,
                });
            }
        };
        self.take_state(frame);
        self.forgotten.clear();
        self.given_up = None;
        {
            let mut log = self.shared.log();
            for mark in &frame.marks {
                log.marks.insert(mark.reader.clone(), mark.clone());
            }
            if let Some(segment) = log.segments.back_mut() {
                if segment.row.first_frame == place.frame {
                    segment.row.first_unix_nano = header.unix_nano;
                }
                segment.remember(
                    log::Point {
                        unix_nano: header.unix_nano,
                        ..place
                    },
                    header.items[0] > 0,
                );
            }
            let mut end = place;
            end.offset += header.frame_bytes();
            end.frame.0 += 1;
            end.items = header.end();
            (0..LANES).for_each(|lane| end.bytes[lane] += u64::from(header.item_bytes[lane]));
            end.unix_nano = header.unix_nano;
            log.used_bytes += header.frame_bytes();
            log.next_items = end.items;
            log.set_end(end);
            settle(&mut log, frame, &self.shared);
        }
        if self.options.read_unsynced && !frame.items.is_empty() {
            self.shared.changed();
        }
        Ok(Appended {
            frame: place.frame,
            first: place.items,
        })
    }

    fn take_state(&mut self, frame: &Frame<'_>) {
        for (key, value) in &frame.state {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
    }

    fn sync_active(&mut self) -> Result<(), SyncError> {
        let Some(active) = &self.active else {
            return Err(self.as_sync_error(self.not_open()));
        };
        if let Err(source) = active.file.sync_data() {
            let path = active.path.clone();
            let from = self.shared.log().synced.frame;
            self.fail();
            return Err(SyncError { path, from, source });
        }
        let mut log = self.shared.log();
        log.synced = log.end;
        if log.marks != log.durable_marks {
            log.durable_marks = log.marks.clone();
        }
        Ok(())
    }

    /// Closes the segment and starts the next one, with room for a frame of this size.
    fn roll(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        if self.needs_sync() {
            self.sync_active()?;
        }
        let Some(active) = &self.active else {
            return Err(self.not_open());
        };
        let (file, path) = (Arc::clone(&active.file), active.path.clone());
        let end = self.shared.log().end.offset;
        match self.start_segment(frame_bytes) {
            Ok(()) => {
                cut_file(&*file, &path, end);
                self.fit_reserve();
                if !self.options.read_unsynced {
                    self.shared.changed();
                }
                Ok(())
            }
            Err(failed) if failed.harmless => Err(AppendError::NoRoom {
                path: failed.path,
                source: failed.source,
            }),
            Err(failed) => {
                let from = self.shared.log().synced.frame;
                self.fail();
                Err(AppendError::Io {
                    path: failed.path,
                    from,
                    source: failed.source,
                })
            }
        }
    }

    /// Writes a new segment with a snapshot of everything, durable. Everything before it must be durable.
    fn start_segment(&mut self, frame_bytes: u64) -> Result<(), StartFailed> {
        let number = self.next_segment;
        self.next_segment += 1; // never the same name twice, whatever becomes of this one
        let path = self.shared.path_of(number);
        let (header, rows, settled, marks, end, snapshot_bytes, used_bytes) = {
            let log = self.shared.log();
            let header = SegmentHeader {
                segment: number,
                incarnation: self.incarnation,
                buffer_id: self.buffer_id,
                first_frame: log.end.frame,
                first_item: log.end.items,
                unix_nano: self.disk.unix_nano(),
            };
            let rows: Vec<Row> = log.segments.iter().map(|segment| segment.row).collect();
            let holes = log.segments.iter().flat_map(|segment| &segment.holes);
            let settled: Vec<_> = holes
                .filter(|(_, settled)| *settled)
                .map(|(hole, _)| *hole)
                .collect();
            (
                header,
                rows,
                settled,
                log.marks.clone(),
                log.end,
                self.snapshot_bytes(&log),
                log.used_bytes,
            )
        };
        let failed = |harmless| {
            let path = path.clone();
            move |source: io::Error| StartFailed {
                harmless: harmless && is_no_room(&source),
                path,
                source,
            }
        };
        let file = self.disk.create(&path).map_err(failed(true))?;
        let full_bytes = self
            .quota
            .segment_bytes(snapshot_bytes)
            .max(snapshot_bytes + frame_bytes);
        let room = self
            .quota
            .max_bytes
            .saturating_sub(used_bytes)
            .min(full_bytes);
        if let Err(error) = file.allocate(room) {
            tracing::debug!(path = %path.display(), %error, "no room ahead: the segment grows as it is written");
        }
        let mut offset = 0;
        let write = |piece: &[u8]| {
            file.write_at(&mut [IoSlice::new(piece)], offset)?;
            offset += piece.len() as u64;
            Ok(())
        };
        let written = snapshot::write(
            &header,
            &self.state,
            &marks,
            rows.into_iter(),
            settled.into_iter(),
            end.bytes,
            write,
        );
        let log_start = match written {
            Ok(bytes) => bytes,
            Err(source) => {
                // Not complete, so it does not count, even if it cannot be removed.
                let _ = self.disk.remove(&path);
                return Err(failed(true)(source));
            }
        };
        // From here on it may count after a crash: on an error nothing may be appended before it was looked at again.
        file.sync_data().map_err(failed(false))?;
        self.disk
            .sync_directory(&self.shared.directory)
            .map_err(failed(false))?;
        {
            let mut log = self.shared.log();
            log.end.offset = log_start;
            log.end.unix_nano = header.unix_nano;
            log.synced = log.end;
            let row = Row {
                segment: number,
                incarnation: header.incarnation,
                first_frame: end.frame,
                end_frame: end.frame,
                first_item: end.items,
                end_item: end.items,
                first_bytes: end.bytes,
                end_bytes: end.bytes,
                log_start,
                log_end: log_start,
                first_unix_nano: header.unix_nano,
                last_unix_nano: header.unix_nano,
            };
            log.segments.push_back(Segment::of(row));
            log.used_bytes += log_start;
        }
        self.quota.snapshot_bytes = snapshot_bytes;
        self.active = Some(Active {
            file,
            path,
            full_bytes,
        });
        Ok(())
    }

    fn snapshot_bytes(&self, log: &Log) -> u64 {
        let holes = log.segments.iter().map(|segment| segment.holes.len()).sum();
        snapshot::encoded_bytes(&self.state, &log.marks, log.segments.len(), holes)
    }
}

/// Why a segment was not started. `harmless`: no room; the one before can be written on.
struct StartFailed {
    harmless: bool,
    path: PathBuf,
    source: io::Error,
}

// Removing.
impl Spool {
    /// Removes the oldest segment if it may go; with `wanted`, even if it would be kept for its age.
    fn trim_oldest(&mut self, wanted: bool) -> bool {
        {
            let log = self.shared.log();
            let Some(oldest) = log.segments.front() else {
                return false;
            };
            if log.segments.len() <= 2 || !log.is_passed(oldest, &log.durable_marks) {
                return false;
            }
            if !wanted && let Some(age) = self.options.keep_delivered {
                let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                if self
                    .disk
                    .unix_nano()
                    .saturating_sub(oldest.row.last_unix_nano)
                    <= age
                {
                    return false;
                }
            }
        }
        self.remove_oldest()
    }

    fn remove_oldest(&mut self) -> bool {
        let number = {
            let mut log = self.shared.log();
            let Some(gone) = log.segments.pop_front() else {
                return false;
            };
            log.used_bytes = log.used_bytes.saturating_sub(gone.file_bytes());
            gone.row.segment
        };
        self.given_up = Some(number + 1);
        self.remove_file(number);
        true
    }

    /// What cannot be removed stays until the next opening; nobody reads it again.
    fn remove_file(&self, segment: u64) {
        let path = self.shared.path_of(segment);
        if let Err(error) = self.disk.remove(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a segment that is no longer needed could not be removed");
        }
    }

    /// Whether marks that are not durable yet would free the oldest segment.
    fn marks_would_trim(&self) -> bool {
        let log = self.shared.log();
        log.segments.len() > 2
            && log.segments.front().is_some_and(|oldest| {
                log.is_passed(oldest, &log.marks) && !log.is_passed(oldest, &log.durable_marks)
            })
    }

    /// Whether the oldest segment only stays because it is one of the two newest, and is worth a snapshot.
    fn roll_would_trim(&self) -> bool {
        let log = self.shared.log();
        let snapshot_bytes = self.snapshot_bytes(&log);
        log.segments.len() == 2
            && log.used_bytes + 2 * snapshot_bytes <= self.quota.max_bytes
            && log.segments.iter().any(|segment| {
                log.is_passed(segment, &log.marks) && segment.row.log_end > 4 * snapshot_bytes
            })
    }

    /// Keeps what the segments do not use of the reserve allocated on the file system.
    fn fit_reserve(&mut self) {
        let _ = (&self.reserve, RESERVE, self.quota.reserve_left(0));
    }
}

impl From<SyncError> for AppendError {
    fn from(error: SyncError) -> Self {
        AppendError::Io {
            path: error.path,
            from: error.from,
            source: error.source,
        }
    }
}

/// Gives back room that was allocated ahead. Nothing depends on it.
fn cut_file(file: &dyn DiskFile, path: &Path, len: u64) {
    if let Err(error) = file.truncate(len) {
        tracing::warn!(path = %path.display(), %error, "room behind a segment could not be given back");
    }
}

fn settle(log: &mut Log, frame: &Frame<'_>, shared: &Shared) {
    for damage in &frame.settled {
        let number = damage
            .segment
            .file_name()
            .and_then(crate::segment::number_of);
        if let Some(number) = number
            && damage.segment == shared.path_of(number)
            && let Some(segment) = log.segment_mut(number)
        {
            segment.add_hole(damage.hole(number), true);
        }
    }
}

struct Sizes {
    /// At most.
    frame_bytes: u64,
    items: [u32; LANES],
    item_bytes: [u32; LANES],
}

impl Sizes {
    fn of(frame: &Frame<'_>, forgotten: &[String]) -> Sizes {
        let mut sizes = Sizes {
            frame_bytes: FRAME_HEADER_BYTES as u64,
            items: [0; LANES],
            item_bytes: [0; LANES],
        };
        for item in &frame.items {
            let bytes: usize = item.parts.iter().map(|part| part.len()).sum();
            sizes.frame_bytes += (ITEM_HEADER_BYTES + bytes) as u64;
            sizes.items[item.lane] += 1;
            sizes.item_bytes[item.lane] =
                sizes.item_bytes[item.lane].saturating_add(bytes.min(u32::MAX as usize) as u32);
        }
        let state = frame.state.iter().map(|(key, value)| match value {
            Some(value) => 9 + key.len() + value.len(),
            None => 5 + key.len(),
        });
        let marks = frame
            .marks
            .iter()
            .map(|mark| 23 + mark.reader.len() + mark.note.len());
        let forgotten = forgotten.iter().map(|reader| 3 + reader.len());
        let rest: usize = state.chain(marks).chain(forgotten).sum();
        // Whether a segment was given up is decided later: the entry for it is always counted.
        sizes.frame_bytes += (rest + frame.settled.len() * 73 + 9) as u64;
        sizes
    }
}

/// Builds a frame and gives it to `write` in parts: items are not copied together first.
fn encode(
    scratch: &mut Vec<u8>,
    mut header: FrameHeader,
    frame: &Frame<'_>,
    forgotten: &[String],
    given_up: Option<u64>,
    write: impl FnOnce(FrameHeader, &mut [IoSlice<'_>]) -> io::Result<FrameHeader>,
) -> io::Result<FrameHeader> {
    scratch.clear();
    scratch.resize(FRAME_HEADER_BYTES, 0);
    for item in &frame.items {
        let bytes: usize = item.parts.iter().map(|part| part.len()).sum();
        frame::put_item_header(scratch, item.lane, bytes as u32);
    }
    let rest = scratch.len();
    for (key, value) in &frame.state {
        match value {
            Some(value) => frame::put_set(scratch, key, value),
            None => frame::put_delete(scratch, key),
        }
    }
    for mark in &frame.marks {
        assert!(
            mark.reader.len() <= usize::from(u16::MAX),
            "a reader's name is too long"
        );
        frame::put_mark(scratch, &mark.reader, mark.next, &mark.note);
    }
    forgotten
        .iter()
        .for_each(|reader| frame::put_forget(scratch, reader));
    for damage in &frame.settled {
        let number = damage
            .segment
            .file_name()
            .and_then(crate::segment::number_of);
        frame::put_settled(scratch, &damage.hole(number.unwrap_or(u64::MAX / 2)));
    }
    if let Some(segment) = given_up {
        frame::put_oldest(scratch, segment);
    }

    let item_headers = scratch[FRAME_HEADER_BYTES..rest].chunks_exact(ITEM_HEADER_BYTES);
    let mut crc = 0;
    header.body_bytes = (scratch.len() - FRAME_HEADER_BYTES) as u32;
    for (item, item_header) in frame.items.iter().zip(item_headers) {
        crc = crc32c::crc32c_append(crc, item_header);
        for part in item.parts {
            crc = crc32c::crc32c_append(crc, part);
            header.body_bytes += part.len() as u32;
        }
    }
    header.body_crc = crc32c::crc32c_append(crc, &scratch[rest..]);
    let head = header.encode();
    scratch[..FRAME_HEADER_BYTES].copy_from_slice(&head);

    let (head, body) = scratch.split_at(FRAME_HEADER_BYTES);
    let (item_headers, rest) = body.split_at(rest - FRAME_HEADER_BYTES);
    let mut parts = Vec::with_capacity(
        2 + frame
            .items
            .iter()
            .map(|item| 1 + item.parts.len())
            .sum::<usize>(),
    );
    parts.push(IoSlice::new(head));
    for (item, item_header) in frame
        .items
        .iter()
        .zip(item_headers.chunks_exact(ITEM_HEADER_BYTES))
    {
        parts.push(IoSlice::new(item_header));
        parts.extend(item.parts.iter().map(|part| IoSlice::new(part)));
    }
    parts.push(IoSlice::new(rest));
    write(header, &mut parts)
}
