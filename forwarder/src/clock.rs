//! What the system says of its clock.

use std::path::Path;

use watchline_proto::ClockState;

/// Where systemd-timesyncd keeps its files while it runs.
const TIMESYNC: &str = "/run/systemd/timesync";

/// Whether a time source disciplines the clock, as far as the system says so without asking for privileges: systemd-timesyncd's
/// own word, or what other services leave there that order themselves before time-sync.target. One that lost its servers later still says
/// that it has set the clock.
pub(crate) fn state() -> ClockState {
    state_in(Path::new(TIMESYNC))
}

fn state_in(timesync: &Path) -> ClockState {
    if timesync.join("synchronized").exists() {
        ClockState::Synchronized
    } else if timesync.is_dir() {
        // It runs, and has not.
        ClockState::Unsynchronized
    } else {
        ClockState::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_service_that_has_not_set_the_clock_is_told_from_none() {
        let dir = tempfile::tempdir().unwrap();
        let timesync = dir.path().join("timesync");
        assert_eq!(state_in(&timesync), ClockState::Unknown);
        std::fs::create_dir(&timesync).unwrap();
        assert_eq!(state_in(&timesync), ClockState::Unsynchronized);
        std::fs::write(timesync.join("synchronized"), "").unwrap();
        assert_eq!(state_in(&timesync), ClockState::Synchronized);
    }
}
