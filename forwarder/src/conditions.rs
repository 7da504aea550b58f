//! What is wrong with the forwarder itself, as events of its own: one when it begins, one with the duration when it has ended.
//!
//! | event | while |
//! |---|---|
//! | `watchline.spool.full` | nothing more can be spooled, for want of quota or of room on the disk: sources wait |
//! | `watchline.certificate.expiring` | the certificate has two thirds of its life behind it, or no peer takes it any more |
//! | `watchline.clock.unsynchronized` | the system has a time service that has not set the clock |
//! | `watchline.batch.set_aside` | batches lie in quarantine and nobody has asked for them to be offered again |
//!
//! What comes and goes within seconds is no event: a condition begins when it has held for a while, and ends when it has not for as long.
//! What was said is not kept over a restart: a condition that still holds begins anew.

use std::time::{Duration, Instant};

use crate::batch::Moment;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    SpoolFull,
    CertificateExpiring,
    ClockUnsynchronized,
    BatchSetAside,
}

impl Condition {
    pub(crate) const ALL: [Condition; 4] = [
        Condition::SpoolFull,
        Condition::CertificateExpiring,
        Condition::ClockUnsynchronized,
        Condition::BatchSetAside,
    ];

    /// `event.name`.
    pub(crate) fn event_name(self) -> &'static str {
        match self {
            Condition::SpoolFull => "watchline.spool.full",
            Condition::CertificateExpiring => "watchline.certificate.expiring",
            Condition::ClockUnsynchronized => "watchline.clock.unsynchronized",
            Condition::BatchSetAside => "watchline.batch.set_aside",
        }
    }

    /// It begins, or ends, when it has been so for this long.
    fn settles_within(self) -> Duration {
        match self {
            Condition::SpoolFull => Duration::from_secs(10),
            // After a boot the first answer takes a while.
            Condition::ClockUnsynchronized => Duration::from_secs(120),
            Condition::CertificateExpiring | Condition::BatchSetAside => Duration::ZERO,
        }
    }
}

/// How the forwarder stands, as far as the reader's thread cannot see it by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnStanding {
    /// What is wrong with the certificate.
    pub(crate) certificate: Option<String>,
    /// Batches in quarantine that do not wait to be offered again.
    pub(crate) set_aside: usize,
}

/// An event of our own that is no gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) body: String,
    pub(crate) time_unix_nano: i64,
    /// OpenTelemetry's number.
    pub(crate) severity: u8,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// OpenTelemetry's numbers: a person must come, and a change of state.
const ERROR: u8 = 17;
const INFO: u8 = 9;

/// Every condition as it is. Owes at most a beginning and an end of each.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    states: [State; Condition::ALL.len()],
    owed: Vec<Notice>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when it has held, said or not.
    since: Option<Moment>,
    is_said: bool,
    /// Since when it has not held, although it was said.
    over_since: Option<(Instant, i64)>,
}

impl Conditions {
    /// Takes what is known now: `holds` says why, in one line.
    pub(crate) fn observe(&mut self, condition: Condition, holds: Option<String>, now: Moment) {
        let state = &mut self.states[condition as usize];
        let settles_within = condition.settles_within();
        let Some(why) = holds else {
            if !state.is_said {
                state.since = None;
                return;
            }
            let (over, over_unix_nano) = *state.over_since.get_or_insert((now.at, now.unix_nano));
            let Some(since) = state.since.filter(|_| now.at - over >= settles_within) else {
                return;
            };
            let lasted = over.saturating_duration_since(since.at).as_secs();
            self.owed.push(Notice {
                name: condition.event_name(),
                body: format!("ended after {lasted} s"),
                time_unix_nano: over_unix_nano,
                severity: INFO,
                attributes: vec![
                    ("watchline.state", "ended".to_owned()),
                    ("watchline.duration_seconds", lasted.to_string()),
                ],
            });
            *state = State::default();
            return;
        };
        state.over_since = None;
        let since = *state.since.get_or_insert(now);
        if !state.is_said && now.at - since.at >= settles_within {
            state.is_said = true;
            self.owed.push(Notice {
                name: condition.event_name(),
                body: why,
                time_unix_nano: since.unix_nano,
                severity: ERROR,
                attributes: vec![("watchline.state", "begun".to_owned())],
            });
        }
        // What could not be stored meanwhile: the newest of each tells enough.
        let most = 2 * Condition::ALL.len();
        if self.owed.len() > most {
            self.owed.drain(..self.owed.len() - most);
        }
    }

    /// What is to be said; it stays so until [`Conditions::said`].
    pub(crate) fn owed(&self) -> &[Notice] {
        &self.owed
    }

    /// All that is owed is stored.
    pub(crate) fn said(&mut self) {
        self.owed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(start: Moment, seconds: u64) -> Moment {
        Moment {
            at: start.at + Duration::from_secs(seconds),
            unix_nano: start.unix_nano + seconds as i64 * 1_000_000_000,
        }
    }

    #[test]
    fn a_condition_is_said_when_it_begins_and_with_its_duration_when_it_ends() {
        let start = Moment::now();
        let mut conditions = Conditions::default();
        let mut at = |second: u64, holds: bool| {
            let holds = holds.then(|| "full".to_owned());
            conditions.observe(Condition::SpoolFull, holds, later(start, second));
            let said = conditions.owed().to_vec();
            conditions.said();
            said
        };
        assert_eq!(at(0, true), []);
        // Room for a moment: as if it had not begun.
        assert_eq!(at(8, false), []);
        assert_eq!(at(9, true), []);
        assert_eq!(at(18, true), []);
        let begun = at(19, true);
        assert_eq!((begun.len(), begun[0].name), (1, "watchline.spool.full"));
        assert_eq!(begun[0].time_unix_nano, later(start, 9).unix_nano);
        assert_eq!(
            begun[0].attributes,
            [("watchline.state", "begun".to_owned())]
        );
        assert_eq!(at(30, true), []);
        assert_eq!(at(40, false), []);
        assert_eq!(at(45, true), []);
        assert_eq!(at(50, false), []);
        assert_eq!(at(59, false), []);
        let ended = at(60, false);
        assert_eq!(ended.len(), 1);
        let duration = ("watchline.duration_seconds", "41".to_owned());
        assert!(ended[0].attributes.contains(&duration), "{ended:?}");
        assert_eq!(ended[0].time_unix_nano, later(start, 50).unix_nano);
        assert_eq!(at(61, false), []);
    }

    #[test]
    fn what_cannot_be_stored_does_not_pile_up() {
        let start = Moment::now();
        let mut conditions = Conditions::default();
        for second in 0..100 {
            let holds = (second % 2 == 0).then(|| "2 batches".to_owned());
            conditions.observe(Condition::BatchSetAside, holds, later(start, second));
        }
        assert!(conditions.owed().len() <= 9);
    }
}
