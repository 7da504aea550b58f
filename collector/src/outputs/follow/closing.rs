//! Closing a file for a new one.

use std::{path::Path, time::Duration};

use tracing::info;

use super::{Follower, Form, Now, Trouble};

impl<F: Form> Follower<F> {
    /// Whether the file is complete.
    pub(super) fn is_due(&self, now: Now) -> bool {
        let Some(open) = &self.open else { return false };
        if open.closing.is_some() {
            return true;
        }
        if open.length == 0 || !self.buffer.is_empty() {
            return false;
        }
        open.form != self.form.id()
            || self
                .rotation
                .size_bytes
                .is_some_and(|size| open.length >= size)
            || self
                .rotation
                .every
                .is_some_and(|every| now.unix_nano >= boundary(open.opened_unix_nano, every))
    }

    /// How long until time alone makes it complete.
    pub(super) fn until_rotation(&self, now: Now) -> Option<Duration> {
        let every = self.rotation.every?;
        let open = self.open.as_ref().filter(|open| open.length > 0)?;
        let left = boundary(open.opened_unix_nano, every).saturating_sub(now.unix_nano);
        Some(Duration::from_nanos(u64::try_from(left).unwrap_or(0)).max(Duration::from_millis(1)))
    }

    /// Ends the file, renames it, begins a new one.
    pub(super) fn close_file(&mut self, now: Now) -> Result<(), Trouble> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        if open.closing.is_none() && open.form == self.form.id() {
            // Marked first, so that the end needs no mark of its own between its bytes and the one below.
            self.mark(true, None)?;
            self.form
                .end_file(&mut self.rendered.records, &mut self.buffer);
            if !self.buffer.is_empty() {
                self.write(now)?;
            }
        }
        let path = self.place.path().to_owned();
        let target = self.place.closed_name(&*self.disk, now.unix_nano)?;
        if let Some(open) = &mut self.open {
            open.closing = Some(target.clone());
        }
        self.mark(true, None)?;
        self.disk
            .rename(&path, &target)
            .map_err(|error| Trouble::disk("rename", &path, error))?;
        self.finish_closing(&target, now)
    }

    /// The file has been renamed to `target`: the rest of closing it.
    pub(super) fn finish_closing(&mut self, target: &Path, now: Now) -> Result<(), Trouble> {
        self.open = None;
        let directory = self.place.directory();
        self.disk
            .sync_directory(directory)
            .map_err(|error| Trouble::disk("sync", directory, error))?;
        if self.place.read_only {
            self.disk
                .make_read_only(target)
                .map_err(|error| Trouble::disk("make read-only", target, error))?;
        }
        self.begin(now, None)?;
        self.feed.metrics.rotations.inc();
        info!(output = %self.feed.output, file = %target.display(), "file closed");
        self.place.remove_oldest(&*self.disk, target);
        Ok(())
    }
}

/// The first multiple of `every` (since 1970, UTC) after `opened`.
fn boundary(opened_unix_nano: i64, every: Duration) -> i64 {
    let every = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX).max(1);
    opened_unix_nano
        .div_euclid(every)
        .saturating_add(1)
        .saturating_mul(every)
}
