//! Going on from what recovery found.

use std::io;

use super::{
    AppendError, Spool, SyncError,
    roll::{StartFailed, cut_file},
};
use crate::{
    Access, OpenError, Recovery, log,
    recovery::{self, Recovered},
    segment::Segment,
};

impl Spool {
    pub(super) fn go_on(&mut self, recovered: Recovered) -> Result<Recovery, OpenError> {
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
            log.removed = recovered.removed;
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
        self.sync_last()?;
        for _ in 0..if recovered.needs_two { 2 } else { 1 } {
            let started = match self.start_segment(0) {
                Err(failed) if failed.harmless && self.release_reserve() => self.start_segment(0),
                result => result,
            };
            started.map_err(|StartFailed { path, source, .. }| OpenError::Io {
                action: "start segment",
                path,
                source,
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

    /// What a process that was killed left in the page cache is about to be called durable, so it must be.
    fn sync_last(&self) -> Result<(), OpenError> {
        let last = self
            .shared
            .log()
            .segments
            .back()
            .map(|last| last.row.segment);
        let Some(path) = last.map(|number| self.shared.path_of(number)) else {
            return Ok(());
        };
        match self.disk.open(&path, Access::Write) {
            Ok(file) => file.sync_data().map_err(OpenError::io("sync", &path)),
            Err(error) => Err(OpenError::io("open", &path)(error)),
        }
    }

    /// Nothing unsynced counts any longer, and this handle is never used again.
    pub(super) fn fail(&mut self) {
        if self.active.take().is_some() {
            self.shared.log().cut_unsynced();
        }
    }

    pub(super) fn as_sync_error(&self, error: AppendError) -> SyncError {
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

    pub(super) fn not_open(&self) -> AppendError {
        AppendError::Io {
            path: self.shared.directory.clone(),
            from: self.shared.log().synced.frame,
            source: io::Error::other("the spool failed before and was not reopened"),
        }
    }
}
