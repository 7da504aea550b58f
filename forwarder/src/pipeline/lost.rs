//! Whether the state of this host was lost: the next hop knows the forwarder, and here nothing is known.
//!
//! A new state does not say whether the host is new. So it is marked until the first Welcome tells what the next hop holds. Until then sources
//! with `start_at = "end"` wait, for [`WAIT`] at most: no line is lost by that, what is written meanwhile is read. Then, in this
//! order of what is known:
//!
//! | Welcome | sources with `start_at = "end"` | gap `state_lost` |
//! |---|---|---|
//! | holds chains of this forwarder | begin at the beginning | yes |
//! | holds none | begin at the end | no |
//! | does not come in time | begin at the end | when it comes after all and holds chains |

use std::time::{Duration, Instant};

use bytes::Bytes;
use watchline_proto::Epoch;

use super::Pipeline;
use crate::{
    gaps::{Gap, GapReason},
    sealer::EPOCH_KEY,
    sources::FirstStart,
};

/// Sources wait so long for the first Welcome of a new state.
const WAIT: Duration = Duration::from_secs(30);
/// Where the mark of a new state is kept in the spool.
const NEW_STATE_KEY: &[u8] = b"new_state";
const UNCONFIRMED: &[u8] = &[1];
/// The gap is stored, sources have yet to begin.
const LOST: &[u8] = &[2];

/// How far a new state has been confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewState {
    /// The next hop has not answered yet; sources wait until then.
    Waiting(Option<Instant>),
    /// … and sources have begun without an answer.
    Unanswered,
    /// The state was lost, and the gap says so; sources begin at the beginning.
    Lost,
}

impl NewState {
    /// What `spool` says; `None`: it is an old state, or one that was confirmed.
    pub(super) fn of(spool: &watchline_spool::Spool) -> Option<NewState> {
        match spool.state(NEW_STATE_KEY).as_deref() {
            Some(LOST) => Some(NewState::Lost),
            Some(_) => Some(NewState::Waiting(None)),
            None => (spool.state(EPOCH_KEY).is_none()).then_some(NewState::Waiting(None)),
        }
    }

    pub(super) fn first_start(self) -> FirstStart {
        match self {
            NewState::Waiting(_) => FirstStart::Wait,
            NewState::Unanswered => FirstStart::AsConfigured,
            NewState::Lost => FirstStart::FromBeginning,
        }
    }
}

impl Pipeline {
    /// The next hop holds chains of these epochs of ours.
    pub(super) fn welcomed(&mut self, held: &[Epoch]) {
        let begun_at_end = match self.new_state {
            Some(NewState::Waiting(_)) => false,
            Some(NewState::Unanswered) => true,
            Some(NewState::Lost) | None => return,
        };
        let chain = self.sealer.chain();
        let previous = chain.previous_epoch().map(|previous| previous.epoch);
        let is_ours = |epoch: &Epoch| *epoch == chain.epoch() || Some(*epoch) == previous;
        if held.iter().all(is_ours) {
            self.new_state = None;
            self.sources.begin(FirstStart::AsConfigured);
            self.look_at_everything = true;
            return self.store_new_state(None);
        }
        let detail = if begun_at_end {
            "the next hop knows this forwarder and nothing was known here: sources with start_at = \"end\" had begun there before it answered, what was written before is not read"
        } else {
            "the next hop knows this forwarder and nothing was known here: all sources are read from their beginning, records may repeat"
        };
        self.owed.push(Gap::new(GapReason::StateLost, detail));
        self.new_state = Some(NewState::Lost);
        self.sources.begin(FirstStart::FromBeginning);
        self.look_at_everything = true;
        self.store_new_state(Some(LOST));
    }

    /// Sources wait no longer than they should; what was lost is settled when they have begun.
    pub(super) fn tend_new_state(&mut self, now: Instant) {
        match self.new_state {
            Some(NewState::Waiting(None)) => {
                self.new_state = Some(NewState::Waiting(Some(now)));
                self.store_new_state(Some(UNCONFIRMED));
            }
            Some(NewState::Waiting(Some(since)))
                if now.saturating_duration_since(since) >= WAIT =>
            {
                tracing::warn!(
                    "the next hop has not answered yet: sources begin where their configuration says"
                );
                self.new_state = Some(NewState::Unanswered);
                self.sources.begin(FirstStart::AsConfigured);
                self.look_at_everything = true;
            }
            Some(NewState::Lost) if self.owed.is_empty() && self.sources.have_begun() => {
                self.new_state = None;
                self.sources.begin(FirstStart::AsConfigured);
                self.store_new_state(None);
            }
            _ => {}
        }
    }

    /// With the next frame.
    fn store_new_state(&mut self, value: Option<&'static [u8]>) {
        self.owed_state = Some((
            Bytes::from_static(NEW_STATE_KEY),
            value.map(Bytes::from_static),
        ));
    }
}
