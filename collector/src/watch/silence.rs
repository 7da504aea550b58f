//! Silence and return: a peer that has said nothing for a while, and one that is back, become an event each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use watchline_proto::{Role, SpiffeId};

use super::{OwnEvents, Presence, own::peer_attributes};
use crate::config::WatchConfig;

/// Who is silent, and since when. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    silent: Arc<Mutex<BTreeMap<SpiffeId, Instant>>>,
}

impl Silence {
    /// Nobody is.
    pub fn new() -> Silence {
        Silence::default()
    }

    /// Since when a peer has been silent.
    pub fn since(&self, peer: &SpiffeId) -> Option<Instant> {
        self.silent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(peer)
            .copied()
    }

    /// Looks at everybody once, and raises what has changed.
    fn look(&self, presence: &Presence, silent_after: Duration, events: &dyn OwnEvents) {
        let now = Instant::now();
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        for (peer, seen) in presence.all() {
            let quiet = now.saturating_duration_since(seen.last);
            let (gone, back) = match peer.role() {
                Role::Forwarder => ("watchline.forwarder.silent", "watchline.forwarder.resumed"),
                Role::Collector | Role::Center => {
                    ("watchline.collector.silent", "watchline.collector.resumed")
                }
            };
            if quiet > silent_after {
                if !silent.contains_key(&peer) {
                    let since_start = match seen.remembered {
                        true => " since this collector started",
                        false => "",
                    };
                    let body = format!(
                        "{peer} has said nothing for {} s{since_start}",
                        quiet.as_secs()
                    );
                    events.raise(gone, with_seconds(&peer, quiet), body);
                    silent.insert(peer, seen.last);
                }
            } else if let Some(since) = silent.remove(&peer) {
                let silence = seen.last.saturating_duration_since(since);
                let body = format!("{peer} is back after {} s", silence.as_secs());
                events.raise(back, with_seconds(&peer, silence), body);
            }
        }
    }
}

fn with_seconds(peer: &SpiffeId, silence: Duration) -> Vec<(String, String)> {
    let mut attributes = peer_attributes(peer);
    attributes.push((
        "watchline.silence.seconds".to_owned(),
        format!("{:.3}", silence.as_secs_f64()),
    ));
    attributes
}

/// Looks at everybody four times in each `silent_after`, until `stop`. Peers in `known` have been here before this process
/// started.
pub async fn watch_silence(
    silence: Silence,
    presence: Presence,
    known: Vec<SpiffeId>,
    mut config: watch::Receiver<WatchConfig>,
    events: Arc<dyn OwnEvents>,
    stop: CancellationToken,
) {
    for peer in &known {
        presence.remember(peer);
    }
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
                _ = ticks.tick() => silence.look(&presence, silent_after, &*events),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (presence, silence, told) =
            (Presence::new(), Silence::new(), Arc::new(Told::default()));
        let stop = CancellationToken::new();
        let (_config, receiver) = watch::channel(WatchConfig {
            silent_after: Duration::from_secs(60),
        });
        let task = tokio::spawn(watch_silence(
            silence.clone(),
            presence.clone(),
            vec![peer("gone")],
            receiver,
            Arc::clone(&told) as Arc<dyn OwnEvents>,
            stop.clone(),
        ));
        let here = presence.connected(&peer("here"));
        let dropped = presence.connected(&peer("dropped"));
        drop(dropped);
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            here.heard();
        }
        let mut names: Vec<String> = told
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|(name, body)| format!("{name}: {body}"))
            .collect();
        names.sort();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].contains("forwarder/dropped has said nothing for"));
        assert!(
            names[1].contains("forwarder/gone")
                && names[1].ends_with("since this collector started")
        );
        assert!(silence.since(&peer("gone")).is_some() && silence.since(&peer("here")).is_none());

        let _back = presence.connected(&peer("dropped"));
        tokio::time::sleep(Duration::from_secs(20)).await;
        let last = told.0.lock().unwrap().last().cloned().unwrap();
        assert_eq!(last.0, "watchline.forwarder.resumed");
        assert!(
            last.1.contains("forwarder/dropped is back after 1"),
            "{}",
            last.1
        );
        stop.cancel();
        task.await.unwrap();
    }
}
