//! Starting a segment.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use super::{Active, AppendError, Spool};
use crate::{
    DiskFile,
    disk::is_no_room,
    log::Log,
    quota::Purpose,
    segment::{Row, Segment, SegmentHeader},
    snapshot,
};

impl Spool {
    /// Closes the segment and starts the next one, with room for a frame of this size.
    pub(super) fn roll(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        if self.needs_sync() {
            self.sync_active()?;
        }
        match self.start_segment(frame_bytes) {
            Ok(()) => {
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
    pub(super) fn start_segment(&mut self, frame_bytes: u64) -> Result<(), StartFailed> {
        let number = self.next_segment;
        self.next_segment += 1; // never the same name twice, whatever becomes of this one
        let path = self.shared.path_of(number);
        let (header, snapshot, end, snapshot_bytes, used_bytes) = {
            let log = self.shared.log();
            let header = SegmentHeader {
                segment: number,
                incarnation: self.incarnation,
                buffer_id: self.buffer_id,
                first_frame: log.end.frame,
                first_item: log.end.items,
                unix_nano: self.disk.unix_nano(),
            };
            let bytes = self.snapshot_bytes(&log);
            (header, log.snapshot(), log.end, bytes, log.used_bytes)
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
        let left = self
            .quota
            .limit(Purpose::Routine)
            .saturating_sub(used_bytes);
        let room = left.min(full_bytes).max(snapshot_bytes);
        if let Err(error) = file.allocate(room) {
            tracing::debug!(path = %path.display(), %error, "no room ahead: the segment grows as it is written");
        }
        let mut offset = 0;
        let write = |piece: &[u8]| {
            file.write_at(&mut [IoSlice::new(piece)], offset)?;
            offset += piece.len() as u64;
            Ok(())
        };
        let written = snapshot::write(&header, &self.state, &snapshot, write);
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
        let active = Active {
            file,
            path,
            full_bytes,
        };
        if let Some(before) = self.active.replace(active) {
            cut_file(&*before.file, &before.path, end.offset);
        }
        Ok(())
    }

    pub(super) fn snapshot_bytes(&self, log: &Log) -> u64 {
        let holes = log.segments.iter().map(|segment| segment.holes.len()).sum();
        snapshot::encoded_bytes(&self.state, &log.marks, log.segments.len(), holes)
    }
}

/// Why a segment was not started. `harmless`: no room; the one before can be written on.
pub(super) struct StartFailed {
    pub(super) harmless: bool,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Gives back room that was allocated ahead. Nothing depends on it.
pub(super) fn cut_file(file: &dyn DiskFile, path: &Path, len: u64) {
    if let Err(error) = file.truncate(len) {
        tracing::warn!(path = %path.display(), %error, "room behind a segment could not be given back");
    }
}
