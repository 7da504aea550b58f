//! The forwarder's own conditions: looked at with each tick, said in the alert lane, where the reserve has room for them.

use watchline_proto::{ClockState, Lane};

use super::{DiskFailed, Pipeline};
use crate::{
    batch::{Batch, Moment},
    board::Blocked,
    conditions::Condition,
};

impl Pipeline {
    /// Takes in how things stand, and says what has begun or ended.
    pub(super) fn look_at_itself(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let own = (self.own_standing)();
        let full = match &self.blocked {
            Some(Blocked::Full) => Some("the spool is full: sources wait".to_owned()),
            Some(Blocked::Disk(why)) => Some(format!("nothing can be spooled: {why}")),
            None => None,
        };
        let clock = (self.sealer.clock == ClockState::Unsynchronized)
            .then(|| "the time service has not set the clock".to_owned());
        let set_aside = (own.set_aside > 0)
            .then(|| format!("{} batches are set aside in quarantine", own.set_aside));
        for (condition, holds) in [
            (Condition::SpoolFull, full),
            (Condition::CertificateExpiring, own.certificate),
            (Condition::ClockUnsynchronized, clock),
            (Condition::BatchSetAside, set_aside),
        ] {
            self.conditions.observe(condition, holds, now);
        }
        self.say_conditions(now)
    }

    fn say_conditions(&mut self, now: Moment) -> Result<(), DiskFailed> {
        let mut batch = Batch::new(self.settings.batch.max_bytes);
        for notice in self.conditions.owed() {
            batch.push_notice(notice, now);
        }
        let Some(payload) = batch.finish(Lane::Alert, now) else {
            return Ok(());
        };
        match self.append(&[(Lane::Alert, payload)], &[], &[], &[], now) {
            Ok(()) => {
                for notice in self.conditions.owed() {
                    tracing::warn!(event = notice.name, detail = notice.body, "own condition");
                }
                self.conditions.said();
                self.board
                    .post(|posted| posted.chain = Some(self.sealer.chain().clone()));
                Ok(())
            }
            // They are owed until the next tick.
            Err(refused) => self.wait_for_room(refused),
        }
    }
}
