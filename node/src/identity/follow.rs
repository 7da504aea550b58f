use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Identity, LoadError, files::Stamps, loaded::Loaded};

/// Between two looks at the files. A revocation is in force within this time, and open streams end within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the looks have seen so far.
#[derive(Default)]
pub(super) struct Looks {
    /// The files as they were when the last attempt at them failed.
    failed: Option<Stamps>,
    /// Whether that was said.
    said: bool,
}

impl Identity {
    /// Looks for changed files every half second until `stop`; a bad set is refused, the last good one stays, which is logged once. A
    /// new set is for new connections and signatures; what an open connection is still worth, [`Identity::still_valid`] says.
    pub async fn follow_files(self, stop: CancellationToken) {
        let mut looks = Looks::default();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look(&mut looks),
                () = stop.cancelled() => return,
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
            *looks = Looks::default();
            return;
        }
        let unchanged = looks.failed.as_ref() == Some(&stamps);
        if unchanged && looks.said {
            return;
        }
        match self.reload() {
            Ok(()) => *looks = Looks::default(),
            Err(error) if unchanged => {
                tracing::warn!(%error, "identity not reloaded, the last good one stays in force");
                self.set_reload_error(Some(error.to_string()));
                looks.said = true;
            }
            Err(_) => {
                *looks = Looks {
                    failed: Some(stamps),
                    said: false,
                }
            }
        }
    }

    /// Reads the files now and puts them in force, as a whole, or says why not and changes nothing.
    pub fn reload(&self) -> Result<(), LoadError> {
        let config = &self.shared.config;
        let loaded = Loaded::read(config)?;
        loaded.may_follow(&self.shared.current.load(), config, SystemTime::now())?;
        let generation = loaded.generation;
        self.shared.current.store(Arc::new(loaded));
        self.set_reload_error(None);
        self.say_how_it_stands();
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
        std::mem::replace(&mut *held, error.clone()) != error
    }
}
