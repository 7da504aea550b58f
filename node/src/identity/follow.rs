use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Identity, LoadError, OwnState, files::Stamps, loaded::Loaded};
use crate::health::Checks;

/// Between two looks at the files. A revocation is in force within this time, and open streams end within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The name of the check that [`Identity::follow_files`] keeps.
pub const CHECK: &str = "identity";

/// What the looks have seen so far.
#[derive(Default)]
pub(super) struct Looks {
    failed: Option<Failed>,
    pub(super) standing: Option<Standing>,
}

/// Files that could not be put in force.
struct Failed {
    stamps: Stamps,
    /// Whether that was said.
    said: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    generation: u64,
    pub(super) state: OwnState,
    pub(super) lists_overdue: bool,
}

impl Identity {
    /// Looks for changed files every half second until `stop`; a bad set is refused, the last good one stays, which is logged once. A
    /// new set is for new connections and signatures; what an open connection is still worth, [`Identity::still_valid`] says.
    /// Keeps the check [`CHECK`]: failing while our own certificate is one that nobody takes.
    pub async fn follow_files(self, checks: Checks, stop: CancellationToken) {
        let mut looks = Looks::default();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            self.look(&mut looks);
            self.look_at_the_clock(&mut looks, SystemTime::now());
            match looks.standing.and_then(|standing| standing.state.trouble()) {
                None => checks.ok(CHECK),
                Some(trouble) => checks.failing(CHECK, trouble),
            }
        }
    }

    /// One look. Files are replaced one by one, so that a set which does not fit together is tried again while it changes, and
    /// called broken only when it has stayed the same for one look.
    pub(super) fn look(&self, looks: &mut Looks) {
        let stamps = Stamps::of(&self.shared.config);
        if stamps == self.shared.current.load().stamps {
            if self.set_reload_error(None) {
                tracing::info!("identity files are again those in force");
            }
            looks.failed = None;
            return;
        }
        let before = looks.failed.take();
        let unchanged = before
            .as_ref()
            .is_some_and(|failed| failed.stamps == stamps);
        let said = unchanged && before.is_some_and(|failed| failed.said);
        if said {
            looks.failed = Some(Failed { stamps, said });
            return;
        }
        if let Err(error) = self.reload() {
            if unchanged {
                tracing::warn!(%error, "identity not reloaded, the last good one stays in force");
                self.set_reload_error(Some(error.to_string()));
            }
            looks.failed = Some(Failed {
                stamps,
                said: unchanged,
            });
        }
    }

    /// Says so when time alone has changed how things stand; a new set has said it already.
    pub(super) fn look_at_the_clock(&self, looks: &mut Looks, now: SystemTime) {
        let loaded = self.current();
        let standing = Standing {
            generation: loaded.generation,
            state: loaded.own_state(now),
            lists_overdue: loaded
                .crl_next_update
                .is_some_and(|next_update| next_update <= now),
        };
        let before = looks.standing.replace(standing);
        if before
            .is_some_and(|before| before != standing && before.generation == standing.generation)
        {
            self.say_how_it_stands(now);
        }
    }

    /// Reads the files now and puts them in force, as a whole, or says why not and changes nothing.
    pub fn reload(&self) -> Result<(), LoadError> {
        let config = &self.shared.config;
        let loaded = Loaded::read(config)?;
        let now = SystemTime::now();
        loaded.may_follow(&self.shared.current.load(), config, now)?;
        let generation = loaded.generation;
        self.shared.current.store(Arc::new(loaded));
        self.set_reload_error(None);
        self.say_how_it_stands(now);
        self.shared.generation.send_replace(generation);
        Ok(())
    }

    /// Whether that changed anything.
    fn set_reload_error(&self, error: Option<String>) -> bool {
        let mut held = self
            .shared
            .reload_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.shared.reloaded.set(error.is_none().into());
        std::mem::replace(&mut *held, error.clone()) != error
    }
}
