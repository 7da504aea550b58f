//! A disk that fails: what was not synced does not count, and is read again.

use watchline_spool::Recovery;

use super::{DiskFailed, Down, FIRST_REOPEN, LAST_REOPEN, Pipeline, READER};
use crate::{batch::Moment, board::Blocked, sealer::EPOCH_KEY};

impl Pipeline {
    pub(super) fn disk_failed(&mut self, failed: &DiskFailed, now: Moment) {
        let cause = std::error::Error::source(failed)
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(error = %failed, cause, "the spool's disk failed: what was not synced is read again");
        self.metrics.disk_failed();
        self.pending = None;
        self.batch.clear();
        self.unsynced_since = None;
        self.blocked = Some(Blocked::Disk(format!("{failed}: {cause}")));
        self.down = Some(Down {
            retry_at: now.at + FIRST_REOPEN,
            pause: FIRST_REOPEN,
        });
    }

    /// Whether the spool can be written to; tries to reopen it when that is due.
    pub(super) fn is_up(&mut self, now: Moment) -> bool {
        let Some(down) = &mut self.down else {
            return true;
        };
        if now.at < down.retry_at {
            return false;
        }
        match self.spool.reopen() {
            Ok(recovery) => {
                self.down = None;
                self.recovered(recovery);
                true
            }
            Err(error) => {
                down.pause = (down.pause * 2).min(LAST_REOPEN);
                down.retry_at = now.at + down.pause;
                tracing::warn!(%error, again_in = ?down.pause, "the spool cannot be reopened");
                false
            }
        }
    }

    pub(super) fn recovered(&mut self, recovery: Recovery) {
        tracing::info!(
            "the spool is open again: a new epoch, and sources go back to what is stored"
        );
        self.owe_damage(recovery.damage);
        self.marked = self
            .spool
            .mark(READER)
            .map(|mark| mark.next)
            .unwrap_or_default();
        self.acked = std::array::from_fn(|lane| self.acked[lane].max(self.marked[lane]));
        let stored = self.spool.state(EPOCH_KEY);
        self.sealer.next_epoch((self.name)(), stored.as_deref());
        self.sources.rewind(&self.spool);
        self.look_at_everything = true;
        self.unblock();
    }
}
