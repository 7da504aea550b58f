//! `when_full = "drop_oldest"`: what is given up is said, signed, and counted.

use bytes::Bytes;
use watchline_proto::{Lane, MAX_VOIDS};
use watchline_spool::{Frame, Item, ItemNo, ReadError};

use super::{DiskFailed, Pipeline, READER, Refused};
use crate::{
    batch::{Batch, Moment},
    gaps::{Gap, GapReason},
    sealer::voids_of,
};

/// The word in void ranges.
const REASON: &str = "spool_full";
/// Alerts that are appended anew in one frame.
const FRAME_BYTES: usize = 2 << 20;

impl Pipeline {
    /// Gives up the oldest segment: its alerts are appended anew, its routine batches become void ranges and a gap, then it is
    /// deleted. `false` when there is nothing to give up, or no room to say so.
    pub(super) fn drop_oldest(&mut self, now: Moment) -> Result<bool, DiskFailed> {
        let items = loop {
            match self.spool.oldest_undelivered(READER) {
                Ok(items) => break items,
                Err(ReadError::Damaged(damage)) => self.owe_damage(vec![damage]),
                Err(ReadError::Gone { .. }) => {}
                Err(error @ ReadError::Io { .. }) => return Err(DiskFailed::Read(Box::new(error))),
            }
        };
        if items.is_empty() {
            return Ok(false);
        }
        let (alerts, routine): (Vec<_>, Vec<_>) = items
            .into_iter()
            .partition(|(lane, ..)| *lane == Lane::Alert.index());
        if !self.append_again(&alerts, now)? || !self.say_dropped(&routine, now)? {
            return Ok(false);
        }
        for (lane, no, _) in alerts.iter().chain(&routine) {
            self.dropped[*lane] = self.dropped[*lane].max(ItemNo(no.0 + 1));
        }
        self.spool.drop_oldest()?;
        self.unsynced_since = None;
        Ok(true)
    }

    /// The same sealed batches once more, behind what is there: the next hop stores each of them once.
    fn append_again(
        &mut self,
        alerts: &[(usize, ItemNo, Bytes)],
        now: Moment,
    ) -> Result<bool, DiskFailed> {
        let mut rest = alerts;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(.., item)| {
                bytes += item.len();
                bytes <= FRAME_BYTES
            });
            let (some, others) = rest.split_at(fits.count().max(1));
            let parts: Vec<(usize, [&[u8]; 1])> = some
                .iter()
                .map(|(lane, _, item)| (*lane, [&item[..]]))
                .collect();
            let items = parts
                .iter()
                .map(|(lane, parts)| Item { lane: *lane, parts })
                .collect();
            match self.append_frame(
                Frame {
                    items,
                    ..Frame::default()
                },
                now,
            ) {
                Ok(()) => {}
                Err(Refused::Failed(failed)) => return Err(failed),
                Err(Refused::Full | Refused::NoRoom(_) | Refused::TooLarge(_)) => return Ok(false),
            }
            rest = others;
        }
        Ok(true)
    }

    fn say_dropped(
        &mut self,
        routine: &[(usize, ItemNo, Bytes)],
        now: Moment,
    ) -> Result<bool, DiskFailed> {
        if routine.is_empty() {
            return Ok(true);
        }
        let (voids, events) = voids_of(routine.iter().map(|(.., item)| item), REASON);
        let batches = routine.len();
        let detail =
            format!("the spool was full: the oldest {batches} routine batches were given up");
        let bytes = routine.iter().map(|(.., item)| item.len() as u64).sum();
        let gap = Gap {
            records: Some(events),
            bytes,
            ..Gap::new(GapReason::DroppedOldest, detail)
        };
        let mut chunks: Vec<&[_]> = voids.chunks(MAX_VOIDS).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for (no, voids) in chunks.into_iter().enumerate() {
            let mut batch = Batch::new(self.settings.batch.max_bytes);
            if no == 0 {
                batch.push_gap(&gap, now);
            } else {
                let detail = "the spool was full: further ranges of what was given up";
                batch.push_gap(&Gap::new(GapReason::DroppedOldest, detail), now);
            }
            let Some(payload) = batch.finish(Lane::Alert, now) else {
                continue;
            };
            match self.append(&[(Lane::Alert, payload)], &[], voids, &[], now) {
                Ok(()) => {}
                Err(Refused::Failed(failed)) => return Err(failed),
                Err(Refused::Full | Refused::NoRoom(_) | Refused::TooLarge(_)) => return Ok(false),
            }
        }
        tracing::error!(
            events,
            batches,
            "the spool was full: the oldest routine batches were given up"
        );
        self.metrics.gap(&gap);
        Ok(true)
    }
}
