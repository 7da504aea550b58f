//! When to try again, and where.
//!
//! The one place that uses `backoff`: its `ExponentialBackoff` gives the ceiling, the full jitter below it is ours.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};
use watchline_proto::Hash;

const FIRST: Duration = Duration::from_millis(500);
const CEILING: Duration = Duration::from_secs(30);
/// What a server may ask us to wait at most.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Delays between rounds over the endpoints: full jitter, uniform between zero and a ceiling that doubles up to 30 s.
pub(super) struct Retry {
    ceiling: ExponentialBackoff,
}

impl Retry {
    pub(super) fn new() -> Retry {
        let ceiling = ExponentialBackoff {
            initial_interval: FIRST,
            current_interval: FIRST,
            multiplier: 2.0,
            randomization_factor: 0.0,
            max_interval: CEILING,
            max_elapsed_time: None, // never gives up
            ..ExponentialBackoff::default()
        };
        Retry { ceiling }
    }

    /// A stream has proved itself: start from the shortest delay again.
    pub(super) fn succeeded(&mut self) {
        self.ceiling.reset();
    }

    /// The delay before the next round; never shorter than what the server asked for.
    pub(super) fn delay(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.ceiling.next_backoff().unwrap_or(CEILING).min(CEILING);
        let jittered = ceiling.mul_f64(rand::random::<f64>());
        jittered.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
    }

    /// Before dialling the only server again that a whole fleet has just lost.
    pub(super) fn first_delay(&self) -> Duration {
        FIRST.mul_f64(rand::random::<f64>())
    }

    /// For what only a person or time cures.
    pub(super) fn longest_delay(&self) -> Duration {
        CEILING.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

/// The endpoints in the order they are tried: from a place of our own, round and round.
pub(super) struct Endpoints {
    list: Vec<http::Uri>,
    at: usize,
    /// How many were tried without success since the last time a round was over.
    tried: usize,
    nowhere: http::Uri,
}

impl Endpoints {
    /// `own_name` spreads a fleet over the endpoints: the same name starts at the same one each time.
    pub(super) fn new(list: Vec<http::Uri>, own_name: &str) -> Endpoints {
        let hash = Hash::of(own_name.as_bytes()).0;
        let place = u64::from_be_bytes([
            hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
        ]);
        let at = usize::try_from(place % list.len().max(1) as u64).unwrap_or(0);
        Endpoints {
            list,
            at,
            tried: 0,
            nowhere: http::Uri::from_static("https://nowhere.invalid"),
        }
    }

    pub(super) fn current(&self) -> &http::Uri {
        self.list.get(self.at).unwrap_or(&self.nowhere)
    }

    pub(super) fn single(&self) -> bool {
        self.list.len() <= 1
    }

    pub(super) fn len(&self) -> usize {
        self.list.len().max(1)
    }

    /// All of them in the order they would be tried, the current one first.
    pub(super) fn round(&self) -> Vec<http::Uri> {
        (0..self.list.len())
            .map(|i| self.list[(self.at + i) % self.list.len()].clone())
            .collect()
    }

    /// A stream to this one is up.
    pub(super) fn settle_on(&mut self, endpoint: &http::Uri) {
        if let Some(at) = self.list.iter().position(|uri| uri == endpoint) {
            self.at = at;
        }
    }

    /// To the next one. True when each has been tried since the last time this was true.
    pub(super) fn advance(&mut self) -> bool {
        self.at = (self.at + 1) % self.len();
        self.tried += 1;
        if self.tried >= self.len() {
            self.tried = 0;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(n: usize) -> Vec<http::Uri> {
        (0..n)
            .map(|i| format!("https://collector-{i}:7443").parse().unwrap())
            .collect()
    }

    #[test]
    fn every_endpoint_is_tried_once_a_round() {
        let mut endpoints = Endpoints::new(uris(3), "host-01");
        let mut seen = Vec::new();
        for last in [false, false, true, false, false, true] {
            seen.push(endpoints.current().clone());
            assert_eq!(endpoints.advance(), last);
        }
        assert_eq!(seen[..3], seen[3..]);
        seen.truncate(3);
        seen.sort_by_key(ToString::to_string);
        assert_eq!(seen, uris(3));
    }

    #[test]
    fn a_fleet_is_spread_over_the_endpoints() {
        let mut first = [0_u32; 4];
        for host in 0..1000 {
            first[Endpoints::new(uris(4), &format!("host-{host}")).at] += 1;
        }
        assert!(first.iter().all(|count| *count > 180), "{first:?}");
    }

    #[test]
    fn the_delay_stays_below_its_ceiling_and_above_what_the_server_asked_for() {
        let mut retry = Retry::new();
        for _ in 0..200 {
            assert!(retry.delay(None) <= CEILING);
        }
        assert!(retry.delay(Some(Duration::from_secs(40))) >= Duration::from_secs(40));
        assert!(retry.delay(Some(Duration::from_secs(40_000))) <= LONGEST_RETRY_AFTER);
        retry.succeeded();
        assert!(retry.delay(None) <= FIRST);
    }
}
