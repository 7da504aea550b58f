//! Frames: what is sealed is appended with the state and the mark that belong to it, then synced.

use bytes::Bytes;
use watchline_proto::{Lane, SealError, Void, payload::Payload};
use watchline_spool::{AppendError, Damage, Frame, Item, Mark};

use super::{DiskFailed, MARK_WITHIN, Pipeline, READER, Refused};
use crate::{
    batch::Moment,
    board::Blocked,
    config::Sync,
    gaps::{Gap, GapReason},
};

impl Pipeline {
    /// Seals payloads and appends them with state and marks. Only when that has succeeded anything has moved.
    pub(super) fn append(
        &mut self,
        payloads: &[(Lane, Payload)],
        state: &[(Bytes, Option<Bytes>)],
        voids: &[Void],
        settled: &[Damage],
        now: Moment,
    ) -> Result<(), Refused> {
        let sealing = match self.sealer.seal(payloads, voids, now.unix_nano) {
            Ok(sealing) => sealing,
            Err(error) => return self.append_unsealable(payloads, state, &error, now),
        };
        let view = self.spool.view();
        let bytes: usize = sealing.items.iter().map(|item| item.bytes.len()).sum();
        let has_routine = payloads.iter().any(|(lane, _)| *lane == Lane::Routine);
        if has_routine
            && view.used_bytes() + bytes as u64 + self.settings.margin_bytes > view.max_bytes()
        {
            return Err(Refused::Full);
        }
        let parts: Vec<(usize, [&[u8]; 1])> = sealing
            .items
            .iter()
            .map(|item| (item.lane.index(), [&item.bytes[..]]))
            .collect();
        let items = parts
            .iter()
            .map(|(lane, parts)| Item { lane: *lane, parts })
            .collect();
        let mut state = state.to_vec();
        if !payloads.is_empty() {
            state.push(sealing.state());
        }
        let settled = settled.to_vec();
        self.append_frame(
            Frame {
                items,
                state,
                marks: self.marks(),
                settled,
            },
            now,
        )?;
        if !payloads.is_empty() {
            self.sealer.commit(sealing);
            self.last_frame = Some(now.at);
        }
        Ok(())
    }

    /// A defect of ours must not stop the line, nor be silent.
    pub(super) fn append_unsealable(
        &mut self,
        payloads: &[(Lane, Payload)],
        state: &[(Bytes, Option<Bytes>)],
        error: &SealError,
        now: Moment,
    ) -> Result<(), Refused> {
        tracing::error!(%error, "a batch cannot be sealed");
        let events = payloads
            .iter()
            .map(|(_, payload)| u64::from(payload.info.events))
            .sum();
        let gap = Gap {
            records: Some(events),
            ..Gap::new(
                GapReason::Unsealable,
                format!("a batch could not be sealed: {error}"),
            )
        };
        self.append_frame(
            Frame {
                state: state.to_vec(),
                marks: self.marks(),
                ..Frame::default()
            },
            now,
        )?;
        self.owed.push(gap);
        Ok(())
    }

    pub(super) fn append_frame(&mut self, frame: Frame<'_>, now: Moment) -> Result<(), Refused> {
        let marks = !frame.marks.is_empty();
        match self.spool.append(&frame) {
            Ok(_) => {
                self.unsynced_since.get_or_insert(now.at);
                if marks {
                    self.marked = self.acked;
                    self.unmarked_since = None;
                }
                Ok(())
            }
            Err(AppendError::Full { .. }) => Err(Refused::Full),
            Err(AppendError::NoRoom { source, .. }) => Err(Refused::NoRoom(source.to_string())),
            Err(error @ AppendError::TooLarge { .. }) => Err(Refused::TooLarge(error)),
            Err(error @ AppendError::Io { .. }) => Err(Refused::Failed(DiskFailed::Append(error))),
        }
    }

    /// The uplink's mark, when it has moved.
    pub(super) fn marks(&self) -> Vec<Mark> {
        let mark = Mark {
            reader: READER.to_owned(),
            next: self.acked,
            note: Bytes::new(),
        };
        (self.acked != self.marked)
            .then_some(mark)
            .into_iter()
            .collect()
    }

    /// Writes the mark by itself; it may use the reserve.
    pub(super) fn write_marks(&mut self, now: Moment) -> Result<(), DiskFailed> {
        if self.acked == self.marked || self.down.is_some() {
            return Ok(());
        }
        match self.append_frame(
            Frame {
                marks: self.marks(),
                ..Frame::default()
            },
            now,
        ) {
            Ok(()) => Ok(()),
            Err(refused) => self.wait_for_room(refused),
        }
    }

    pub(super) fn wait_for_room(&mut self, refused: Refused) -> Result<(), DiskFailed> {
        let blocked = match refused {
            Refused::Full => Blocked::Full,
            Refused::NoRoom(why) => Blocked::Disk(format!("no room: {why}")),
            Refused::TooLarge(error) => Blocked::Disk(error.to_string()),
            Refused::Failed(failed) => return Err(failed),
        };
        if self.blocked.as_ref() != Some(&blocked) {
            tracing::warn!(
                ?blocked,
                "nothing more can be spooled: reading waits, nothing is lost"
            );
            self.blocked = Some(blocked);
        }
        Ok(())
    }

    pub(super) fn unblock(&mut self) {
        if self.blocked.take().is_some() {
            tracing::info!("there is room again: reading goes on");
            self.look_at_everything = true;
        }
    }

    pub(super) fn sync_if_due(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let Some(since) = self.unsynced_since else {
            return Ok(());
        };
        let due = match self.settings.sync {
            // Marks alone can wait: losing them costs a question, not data.
            Sync::Always => self.last_frame.is_some_and(|last| last >= since),
            Sync::Every(interval) => now.at.saturating_duration_since(since) >= interval,
        };
        let late = now.at.saturating_duration_since(since) >= MARK_WITHIN;
        if due
            || self.stopped
            || self.blocked.is_some()
            || late && self.settings.sync == Sync::Always
        {
            self.sync()?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), DiskFailed> {
        self.spool.sync()?;
        self.unsynced_since = None;
        self.sources.synced(&self.spool);
        Ok(())
    }
}
