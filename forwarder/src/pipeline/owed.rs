//! Gaps that the line or the spool raised: stored before anything passes what they tell of.

use watchline_proto::Lane;
use watchline_spool::{Damage, ReadError};

use super::{DiskFailed, Pipeline};
use crate::{
    batch::{Batch, Moment},
    gaps::{Gap, GapReason},
};

impl Pipeline {
    /// Stores the gaps that are owed, at once and synced, before anything passes what they tell of.
    pub(super) fn say_owed(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let mut batch = Batch::new(self.settings.batch.max_bytes);
        for gap in &self.owed {
            batch.push_gap(gap, now);
        }
        let Some(payload) = batch.finish(Lane::Alert, now) else {
            return Ok(());
        };
        let damage = std::mem::take(&mut self.damage);
        let state: Vec<_> = self.owed_state.clone().into_iter().collect();
        match self.append(&[(Lane::Alert, payload)], &state, &[], &damage, now) {
            Ok(()) => {
                self.owed_state = None;
                for gap in self.owed.drain(..) {
                    tracing::warn!(
                        reason = gap.reason.as_str(),
                        records = gap.records,
                        bytes = gap.bytes,
                        detail = gap.detail,
                        "gap"
                    );
                    self.metrics.gap(&gap);
                }
                self.board
                    .post(|posted| posted.chain = Some(self.sealer.chain().clone()));
                self.sync()
            }
            Err(refused) => {
                self.damage = damage;
                self.wait_for_room(refused)
            }
        }
    }

    pub(super) fn owe_damage(&mut self, damage: Vec<Damage>) {
        for damage in damage {
            let batches: u64 = damage
                .items
                .iter()
                .map(|items| items.end.0 - items.start.0)
                .sum();
            let detail = format!(
                "the spool was damaged ({}): {batches} batches cannot be read",
                damage.reason
            );
            self.owed.push(Gap {
                bytes: damage.bytes,
                ..Gap::new(GapReason::Damaged, detail)
            });
            self.damage.push(damage);
        }
    }

    pub(super) fn owe_hole(&mut self, hole: ReadError) {
        match hole {
            ReadError::Damaged(damage) => self.owe_damage(vec![damage]),
            // What was given up has its gap already.
            ReadError::Gone { lane, to, .. } if to <= self.dropped[lane] => {}
            ReadError::Gone { lane, from, to } => {
                let detail = format!(
                    "{} batches of the spool are no longer held (lane {lane})",
                    to.0 - from.0
                );
                self.owed.push(Gap::new(GapReason::NoLongerHeld, detail));
            }
            // May pass; the uplink tries again.
            ReadError::Io { .. } => {}
        }
    }
}
