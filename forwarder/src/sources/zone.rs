//! The host's time zone: what a time without an offset means.
//!
//! Where the clock was put forward, a local time that did not exist is taken as if it had not been put forward yet. Where it was put back, a
//! local time was there twice: the later of both is taken, unless it lies after the moment of reading; so a record that is read when
//! it is written is right in both hours, one that is read long after may be an hour late.

use tz::TimeZone;

const DAY: i64 = 86_400;

/// See the module. As it was when it was read; a reload reads it again.
#[derive(Debug, Clone)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    /// By `TZ`, or `/etc/localtime`; UTC where there is neither, as the C library has it. `None`: it cannot be read, and times without an
    /// offset are unknown.
    pub(crate) fn host() -> Option<Zone> {
        match TimeZone::local() {
            Ok(zone) => Some(Zone(zone)),
            Err(tz::Error::Io(error)) if is_not_found(&*error) => Some(Zone(TimeZone::utc())),
            Err(error) => {
                tracing::warn!(%error, "the host's time zone cannot be read: times without an offset are unknown");
                None
            }
        }
    }

    /// By a rule as in `TZ`.
    #[cfg(test)]
    pub(crate) fn of_rule(rule: &str) -> Zone {
        Zone(TimeZone::from_posix_tz(rule).unwrap())
    }

    /// Seconds east of UTC at a moment.
    pub(crate) fn offset(&self, unix: i64) -> Option<i64> {
        let kind = self.0.find_local_time_type(unix).ok()?;
        Some(kind.ut_offset().into())
    }

    /// The abbreviation in force at a moment, as `CET`.
    pub(crate) fn abbreviation(&self, unix: i64) -> Option<&str> {
        let kind = self.0.find_local_time_type(unix).ok()?;
        Some(kind.time_zone_designation())
    }

    /// The offset that holds for a whole local day, and the days beside it; `None`: it changes, or is unknown. `day` counts from 1970.
    pub(crate) fn steady(&self, day: i64) -> Option<i64> {
        let first = self.offset(day.checked_sub(1)?.checked_mul(DAY)?)?;
        let last = self.offset(day.checked_add(2)?.checked_mul(DAY)?)?;
        (first == last).then_some(first)
    }

    /// The moment of a local time, `civil` being the seconds since 1970 as if it were UTC. See the module.
    pub(crate) fn unix(&self, civil: i64, now_unix: i64) -> Option<i64> {
        let before = civil - self.offset(civil.checked_sub(DAY)?)?;
        let after = civil - self.offset(civil.checked_add(DAY)?)?;
        let stands = |unix: i64| {
            self.offset(unix)
                .is_some_and(|offset| unix + offset == civil)
        };
        Some(match (stands(before), stands(after)) {
            (true, true) if after.max(before) <= now_unix => after.max(before),
            (true, true) => after.min(before),
            (false, true) => after,
            (_, false) => before,
        })
    }
}

fn is_not_found(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_that_was_there_twice_or_never_has_one_meaning() {
        let zone = Zone::of_rule("CET-1CEST,M3.5.0,M10.5.0/3");
        let hour = 3600;
        // 2026-10-25 02:30: once in summer time, once in winter time.
        let twice = 1_792_895_400;
        let (first, second) = (twice - 2 * hour, twice - hour);
        assert_eq!(
            zone.unix(twice, first + 5),
            Some(first),
            "read when written"
        );
        assert_eq!(zone.unix(twice, second + 5), Some(second));
        assert_eq!(zone.unix(twice, i64::MAX), Some(second), "read long after");
        // 2026-03-29 02:30 never was.
        let never = 1_774_751_400;
        assert_eq!(zone.unix(never, i64::MAX), Some(never - hour));
        assert_eq!(zone.unix(never + hour, i64::MAX), Some(never - hour));
        assert_eq!(zone.abbreviation(first), Some("CEST"));
    }
}
