//! What the reader's thread is told by the others: coalesced, so that nobody ever waits to say it.
//!
//! Memory: names of hints (bounded there), one acknowledgement a lane, and what the line raises, which it raises once a stream.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use watchline_node::uplink::{Forked, Owner, SetAside, Vitals};
use watchline_proto::Epoch;
use watchline_spool::{ItemNo, LANES, ReadError};

use crate::{
    board::Board,
    config::Reloadable,
    gaps::{Gap, GapReason},
    hints::Hints,
};

/// What came since the reader looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) hints: Hints,
    /// Everything before these items has been stored by the next hop.
    pub(crate) acked: Option<[ItemNo; LANES]>,
    pub(crate) set_aside: Vec<SetAside>,
    pub(crate) forked: Option<Forked>,
    pub(crate) holes: Vec<ReadError>,
    /// The next hop has answered, and holds chains of these epochs of ours.
    pub(crate) welcomed: Option<Vec<Epoch>>,
    pub(crate) reload: Option<Box<Reloadable>>,
    /// Read no more: seal what was read.
    pub(crate) stop: bool,
    /// The uplink has ended: nothing more will be acknowledged.
    pub(crate) line_ended: bool,
}

impl News {
    /// Whether it can wait until enough has come together.
    fn can_linger(&self) -> bool {
        self.set_aside.is_empty()
            && self.forked.is_none()
            && self.holes.is_empty()
            && self.welcomed.is_none()
            && self.reload.is_none()
            && !(self.stop || self.line_ended)
    }
}

/// How long the reader wants to be left alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// At the latest.
    pub(crate) until: Instant,
    /// Hints do not wake it before.
    pub(crate) linger_until: Instant,
    /// Acknowledgements wake it: it needs the room that they make.
    pub(crate) wants_room: bool,
}

#[derive(Debug, Default)]
struct State {
    news: News,
    /// What the one who waits asked for; `None` when nobody waits.
    rest: Option<Rest>,
}

/// See the module. Shared by the threads of the process.
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    board: Arc<Board>,
}

impl Inbox {
    pub(crate) fn new(board: Arc<Board>) -> Inbox {
        Inbox {
            state: Mutex::default(),
            wake: Condvar::new(),
            board,
        }
    }

    /// Waits for news, at most until `rest.until`, and takes them.
    pub(crate) fn wait(&self, rest: Rest) -> News {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let News { hints, acked, .. } = &state.news;
            let hinted = !hints.is_empty();
            if !state.news.can_linger()
                || now >= rest.until
                || hinted && now >= rest.linger_until
                || acked.is_some() && rest.wants_room
            {
                state.rest = None;
                return std::mem::take(&mut state.news);
            }
            let until = if hinted {
                rest.until.min(rest.linger_until)
            } else {
                rest.until
            };
            state.rest = Some(rest);
            let waited = self
                .wake
                .wait_timeout(state, until.saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn hint(&self, hint: impl FnOnce(&mut Hints)) {
        let mut state = self.state();
        let had_hints = !state.news.hints.is_empty();
        hint(&mut state.news.hints);
        if !had_hints && state.rest.is_some() {
            self.wake.notify_one();
        }
    }

    pub(crate) fn reload(&self, reloadable: Box<Reloadable>) {
        self.tell(|news| news.reload = Some(reloadable));
    }

    pub(crate) fn stop(&self) {
        self.tell(|news| news.stop = true);
    }

    pub(crate) fn line_ended(&self) {
        self.tell(|news| news.line_ended = true);
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.state().news);
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner for Inbox {
    fn acked(&self, next: [ItemNo; LANES]) {
        let mut state = self.state();
        state.news.acked = Some(match state.news.acked {
            Some(before) => std::array::from_fn(|lane| before[lane].max(next[lane])),
            None => next,
        });
        if state.rest.is_some_and(|rest| rest.wants_room) {
            self.wake.notify_one();
        }
    }

    fn set_aside(&self, set_aside: SetAside) {
        self.tell(|news| news.set_aside.push(set_aside));
    }

    fn forked(&self, forked: Forked) {
        self.tell(|news| news.forked = Some(forked));
    }

    fn hole(&self, error: ReadError) {
        self.tell(|news| news.holes.push(error));
    }

    fn welcomed(&self, held: Vec<Epoch>) {
        self.tell(|news| news.welcomed = Some(held));
    }

    fn vitals(&self) -> Vitals {
        self.board.vitals()
    }
}

/// The gap that a batch set aside is.
pub(crate) fn set_aside_gap(set_aside: &SetAside) -> Gap {
    let SetAside {
        lane,
        reason,
        detail,
        events,
        file,
        ..
    } = set_aside;
    let detail = format!(
        "the next hop refused a batch of the {lane} lane ({}: {detail}); its bytes are kept in {}",
        reason.word(),
        file.display()
    );
    Gap {
        records: Some(*events),
        ..Gap::new(GapReason::SetAside, detail)
    }
}

/// A moment far enough away for "never".
pub(crate) const NEVER: Duration = Duration::from_secs(24 * 3600);
