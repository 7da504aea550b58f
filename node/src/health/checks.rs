use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// State of one named check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckState {
    /// Data flows here.
    Ok,
    /// It does not; `reason` is one line for people, without event contents or keys.
    Failing {
        /// What is wrong, and since when or with whom.
        reason: String,
    },
}

/// The named checks of a process: each component sets its own; cheap, from any thread. A check that was never set is
/// failing, with the reason "starting".
#[derive(Debug, Clone)]
pub struct Checks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    states: Mutex<BTreeMap<&'static str, CheckState>>,
    changed: watch::Sender<u64>,
}

impl Checks {
    /// These checks, none of them set.
    pub fn new(names: &[&'static str]) -> Checks {
        let starting = |name: &&'static str| {
            (
                *name,
                CheckState::Failing {
                    reason: "starting".to_owned(),
                },
            )
        };
        let states = Mutex::new(names.iter().map(starting).collect());
        Checks {
            shared: Arc::new(Shared {
                states,
                changed: watch::Sender::new(0),
            }),
        }
    }

    /// Data flows.
    pub fn ok(&self, name: &'static str) {
        self.set(name, CheckState::Ok);
    }

    /// Data does not flow, and why.
    pub fn failing(&self, name: &'static str, reason: impl Into<String>) {
        self.set(
            name,
            CheckState::Failing {
                reason: reason.into(),
            },
        );
    }

    /// Takes a check away: for parts that a reload removes.
    pub fn remove(&self, name: &str) {
        if self.states().remove(name).is_some() {
            self.shared.changed.send_modify(|count| *count += 1);
        }
    }

    /// All checks with their states.
    pub fn all(&self) -> BTreeMap<&'static str, CheckState> {
        self.states().clone()
    }

    /// Whether all checks, or all of `only`, are ok. A name in `only` that there is no check for is not.
    pub fn ready(&self, only: Option<&[&'static str]>) -> bool {
        let states = self.states();
        match only {
            None => states.values().all(|state| *state == CheckState::Ok),
            Some(names) => names
                .iter()
                .all(|name| states.get(name) == Some(&CheckState::Ok)),
        }
    }

    /// A number that grows with each change of any check.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn set(&self, name: &'static str, state: CheckState) {
        let before = self.states().insert(name, state.clone());
        if before.as_ref() != Some(&state) {
            self.shared.changed.send_modify(|count| *count += 1);
        }
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, CheckState>> {
        self.shared
            .states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
