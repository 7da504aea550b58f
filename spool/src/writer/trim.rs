//! Removing segments, and the reserve.

use std::io;

use bytes::Bytes;

use super::{AppendError, Spool, SyncError, append::Sizes};
use crate::{
    Access, Frame, ItemNo, LANES, LaneNo, ReadError, log, recovery::RESERVE, segment::Row,
};

/// The reserve file grows and shrinks in steps.
const RESERVE_STEP: u64 = 64 << 10;

impl Spool {
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
            let rolled = match self.roll(0) {
                Err(AppendError::NoRoom { .. }) if self.release_reserve() => self.roll(0),
                result => result,
            };
            rolled.map_err(|error| self.as_sync_error(error))?;
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

    /// Removes the oldest segment if it may go; with `wanted`, even if it would be kept for its age.
    pub(super) fn trim_oldest(&mut self, wanted: bool) -> bool {
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
            log.removed = log::later(log.removed, gone.row.end_item);
            gone.row.segment
        };
        self.given_up = Some(number + 1);
        self.remove_file(number);
        true
    }

    /// What cannot be removed stays until the next opening; nobody reads it again.
    pub(super) fn remove_file(&self, segment: u64) {
        let path = self.shared.path_of(segment);
        if let Err(error) = self.disk.remove(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a segment that is no longer needed could not be removed");
        }
    }

    /// Whether marks that are not durable yet would free the oldest segment.
    pub(super) fn marks_would_trim(&self) -> bool {
        let log = self.shared.log();
        log.segments.len() > 2
            && log.segments.front().is_some_and(|oldest| {
                log.is_passed(oldest, &log.marks) && !log.is_passed(oldest, &log.durable_marks)
            })
    }

    /// Whether the oldest segment only stays because it is one of the two newest, and is worth a snapshot.
    pub(super) fn roll_would_trim(&self) -> bool {
        let log = self.shared.log();
        let snapshot_bytes = self.snapshot_bytes(&log);
        log.segments.len() == 2
            && log.used_bytes + 2 * snapshot_bytes <= self.quota.max_bytes
            && log.segments.iter().any(|segment| {
                log.is_passed(segment, &log.marks) && segment.row.log_end > 4 * snapshot_bytes
            })
    }

    /// Keeps what the segments do not use of the reserve allocated on the file system, so that it is there when the
    /// disk is full. Best effort.
    pub(super) fn fit_reserve(&mut self) {
        let used_bytes = self.shared.log().used_bytes;
        let wanted = self.quota.reserve_left(used_bytes) / RESERVE_STEP * RESERVE_STEP;
        if self.reserve_bytes == Some(wanted) {
            return;
        }
        self.reserve_bytes = match self.resize_reserve(wanted) {
            Ok(()) => Some(wanted),
            Err(error) => {
                tracing::warn!(wanted, %error, "no room for the reserve");
                self.resize_reserve(0).ok().map(|()| 0)
            }
        };
    }

    /// Gives the reserve back to the file system, for what must be written now. False if there is none.
    pub(super) fn release_reserve(&mut self) -> bool {
        if self.reserve_bytes == Some(0) || self.resize_reserve(0).is_err() {
            return false;
        }
        self.reserve_bytes = Some(0);
        true
    }

    fn resize_reserve(&self, wanted: u64) -> io::Result<()> {
        let path = self.shared.directory.join(RESERVE);
        let file = match self.disk.open(&path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&path)?,
            other => other?,
        };
        if file.size()? > wanted {
            file.truncate(wanted)
        } else {
            file.allocate(wanted)
        }
    }
}
