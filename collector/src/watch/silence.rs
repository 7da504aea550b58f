//! Silence and return: a peer that has said nothing for a while, and one that is back, become an event each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use watchline_proto::{Role, SpiffeId};

use super::{OwnEvents, own::peer_attributes};
use crate::config::WatchConfig;

/// When peers were last heard, Unix nanoseconds.
type LastSeen = Vec<(SpiffeId, i64)>;

/// Who is silent, and since when. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    silent: Arc<Mutex<BTreeMap<SpiffeId, i64>>>,
}

impl Silence {
    /// Nobody is.
    pub fn new() -> Silence {
        Silence::default()
    }

    /// Whether a peer has been called silent and is not back.
    pub fn is_silent(&self, peer: &SpiffeId) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.contains_key(peer)
    }

    /// Looks at everybody once, and raises what has changed. `known` have not been heard since `started`.
    fn look(
        &self,
        now: i64,
        silent_after: Duration,
        seen: LastSeen,
        known: (&BTreeSet<SpiffeId>, i64),
        events: &dyn OwnEvents,
    ) {
        let (known, started) = known;
        let heard: BTreeMap<SpiffeId, i64> = seen.into_iter().collect();
        let remembered = known.iter().filter(|peer| !heard.contains_key(*peer));
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let everybody = heard
            .iter()
            .map(|(peer, last)| (peer, *last, ""))
            .chain(remembered.map(|peer| (peer, started, " since this collector started")));
        for (peer, last, since_start) in everybody {
            let quiet = between(last, now);
            let (gone, back) = match peer.role() {
                Role::Forwarder => ("watchline.forwarder.silent", "watchline.forwarder.resumed"),
                Role::Collector | Role::Center => {
                    ("watchline.collector.silent", "watchline.collector.resumed")
                }
            };
            if quiet > silent_after {
                if !silent.contains_key(peer) {
                    let body = format!(
                        "{peer} has said nothing for {} s{since_start}",
                        quiet.as_secs()
                    );
                    events.raise(gone, with_seconds(peer, quiet), body);
                    silent.insert(peer.clone(), last);
                }
            } else if let Some(since) = silent.remove(peer) {
                let silence = between(since, last);
                let body = format!("{peer} is back after {} s", silence.as_secs());
                events.raise(back, with_seconds(peer, silence), body);
            }
        }
    }
}

fn between(earlier: i64, later: i64) -> Duration {
    Duration::from_nanos(later.saturating_sub(earlier).try_into().unwrap_or(0))
}

fn with_seconds(peer: &SpiffeId, silence: Duration) -> Vec<(String, String)> {
    let mut attributes = peer_attributes(peer);
    attributes.push((
        "watchline.silence.seconds".to_owned(),
        format!("{:.3}", silence.as_secs_f64()),
    ));
    attributes
}

/// Looks at everybody four times in each `silent_after`, until `stop`. `seen` says when peers were last heard, `clock` what time it
/// is, both in Unix nanoseconds. Peers in `known` have been here before this process started.
pub async fn watch_silence(
    silence: Silence,
    seen: impl Fn() -> LastSeen,
    clock: impl Fn() -> i64,
    known: BTreeSet<SpiffeId>,
    mut config: watch::Receiver<WatchConfig>,
    events: Arc<dyn OwnEvents>,
    stop: CancellationToken,
) {
    let started = clock();
    loop {
        let silent_after = config.borrow_and_update().silent_after;
        let period = (silent_after / 4).clamp(Duration::from_millis(100), Duration::from_secs(15));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = config.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return, // whoever reloads is gone: stopping
                },
                _ = ticks.tick() => silence.look(clock(), silent_after, seen(), (&known, started), &*events),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[derive(Default)]
    struct Told(Mutex<Vec<(&'static str, String)>>);

    impl OwnEvents for Told {
        fn raise(&self, name: &'static str, _: Vec<(String, String)>, body: String) {
            self.0.lock().unwrap().push((name, body));
        }

        fn wait_durable(&self, _: Duration) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_return_are_told_once_each() {
        let peer = |name: &str| -> SpiffeId {
            format!("spiffe://watch.example/agency/moh/forwarder/{name}")
                .parse()
                .unwrap()
        };
        let (silence, told) = (Silence::new(), Arc::new(Told::default()));
        let seen: Arc<Mutex<BTreeMap<SpiffeId, i64>>> = Arc::default();
        let began = Instant::now();
        let clock = move || began.elapsed().as_nanos() as i64;
        let hear = {
            let seen = Arc::clone(&seen);
            move |name: &str| {
                seen.lock().unwrap().insert(peer(name), clock());
            }
        };
        let stop = CancellationToken::new();
        let (_config, receiver) = watch::channel(WatchConfig {
            silent_after: Duration::from_secs(60),
        });
        let task = tokio::spawn(watch_silence(
            silence.clone(),
            move || seen.lock().unwrap().clone().into_iter().collect(),
            clock,
            BTreeSet::from([peer("gone"), peer("here")]),
            receiver,
            Arc::clone(&told) as Arc<dyn OwnEvents>,
            stop.clone(),
        ));
        hear("dropped");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            hear("here");
        }
        let bodies = || -> BTreeSet<String> {
            let told = told.0.lock().unwrap();
            told.iter()
                .map(|(name, body)| format!("{name}: {body}"))
                .collect()
        };
        let silent: Vec<String> = bodies().into_iter().collect();
        assert_eq!(silent.len(), 2, "{silent:?}");
        assert!(
            silent[0].contains("forwarder/dropped has said nothing for 75 s"),
            "{silent:?}"
        );
        assert!(
            silent[1].contains("forwarder/gone")
                && silent[1].ends_with("since this collector started")
        );
        assert!(silence.is_silent(&peer("gone")) && !silence.is_silent(&peer("here")));

        hear("dropped");
        tokio::time::sleep(Duration::from_secs(20)).await;
        let last = told.0.lock().unwrap().last().cloned().unwrap();
        assert_eq!(last.0, "watchline.forwarder.resumed");
        assert!(
            last.1.contains("forwarder/dropped is back after 100"),
            "{}",
            last.1
        );
        assert!(!silence.is_silent(&peer("dropped")));
        stop.cancel();
        task.await.unwrap();
    }
}
