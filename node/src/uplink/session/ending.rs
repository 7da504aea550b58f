//! How a stream ends: moved to another, or closed.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{debug, info};
use watchline_proto::wire;

use super::{CLOSE_WITHIN, Connector, Draining, Ended, HAND_OVER_WITHIN, LineError, Session};
use crate::uplink::connect::{self, Opened, cut};

/// For a move of our own accord.
const MOVE_WITHIN: Duration = Duration::from_secs(60);

impl<C: Connector> Session<'_, C> {
    /// The stream takes nothing more; its status says why.
    pub(super) async fn ended_by_server(&mut self) -> Ended {
        match timeout(CLOSE_WITHIN, self.line.inbound.message()).await {
            _ if self.moves() => self.drained(),
            Ok(Err(status)) => Ended::Lost(self.line.explain(status)),
            _ => Ended::Lost(LineError::Ended),
        }
    }

    /// The server asks us to connect anew.
    pub(super) fn drain(&mut self, drain: &wire::Drain) {
        if self
            .draining
            .as_ref()
            .is_some_and(|draining| draining.asked)
        {
            return;
        }
        info!(uplink = %self.config.name, reason = cut(&drain.reason, 256), elsewhere = drain.elsewhere,
            "the server asks to connect anew");
        if drain.elsewhere {
            self.endpoints.advance();
        }
        let within = Duration::from_secs(u64::from(drain.within_seconds.clamp(1, 60)));
        self.find_successor(true, within);
    }

    /// A stream has a bounded life: behind a TCP balancer nothing else would spread the fleet again.
    pub(super) fn move_on(&mut self) {
        if self.forked.is_none() {
            self.find_successor(false, MOVE_WITHIN);
        }
    }

    /// How long this stream is to live, spread so that a fleet does not move at once.
    pub(super) fn life(&self) -> Duration {
        self.config
            .stream_life
            .mul_f64(0.75 + rand::random::<f64>() / 2.0)
    }

    fn find_successor(&mut self, asked: bool, within: Duration) {
        let round = self.endpoints.round();
        let (config, identity, connector) = (
            self.config.clone(),
            self.identity.clone(),
            self.connector.clone(),
        );
        let connecting = async move {
            for endpoint in round {
                match connect::open(&config, &identity, &connector, endpoint).await {
                    Ok(opened) => return Some(Box::new(opened)),
                    Err(error) => debug!(uplink = %config.name, %error, "no successor here"),
                }
            }
            None
        };
        let (connecting, deadline) = (Some(Box::pin(connecting) as _), Instant::now() + within);
        self.draining = Some(Draining {
            asked,
            connecting,
            successor: None,
            deadline,
        });
    }

    pub(super) fn succeeded_by(&mut self, successor: Option<Box<Opened>>) {
        if successor.is_none()
            && self
                .draining
                .as_ref()
                .is_some_and(|draining| !draining.asked)
        {
            self.draining = None; // stay
            return;
        }
        if let Some(draining) = &mut self.draining {
            draining.connecting = None;
            draining.successor = successor;
            draining.deadline = draining.deadline.min(Instant::now() + HAND_OVER_WITHIN);
        }
    }

    /// Ends this stream once its successor is open, or is known not to come, and nothing is in flight.
    pub(super) async fn handed_over(&mut self) -> Option<Ended> {
        let decided = self
            .draining
            .as_ref()
            .is_some_and(|d| d.connecting.is_none());
        if !decided || !self.window.is_empty() {
            return None;
        }
        let ended = self.drained();
        if matches!(ended, Ended::Drained { successor: None }) {
            self.close().await;
        }
        Some(ended)
    }

    /// Whether the end of this stream is expected: the server wants it, or its successor is open.
    pub(super) fn moves(&self) -> bool {
        self.draining
            .as_ref()
            .is_some_and(|draining| draining.asked || draining.successor.is_some())
    }

    pub(super) fn hand_over_due(&mut self) -> Option<Ended> {
        if self.moves() {
            return Some(self.drained());
        }
        self.draining = None; // nobody answered in time: stay
        None
    }

    pub(super) fn drained(&mut self) -> Ended {
        let successor = self.draining.take().and_then(|draining| draining.successor);
        Ended::Drained { successor }
    }

    /// A last heartbeat, then the end.
    pub(super) async fn say_goodbye(&mut self) {
        self.outbox.clear();
        let _ = self.beat();
        let outbox = std::mem::take(&mut self.outbox);
        let _ = timeout(CLOSE_WITHIN, async {
            for message in outbox {
                if self.line.outbound.send(message).await.is_err() {
                    return;
                }
            }
        })
        .await;
        self.close().await;
    }

    /// Half-closes and lets the server finish.
    pub(super) async fn close(&mut self) {
        let (gone, _) = tokio::sync::mpsc::channel(1);
        drop(std::mem::replace(&mut self.line.outbound, gone));
        let _ = timeout(CLOSE_WITHIN, async {
            while let Ok(Some(_)) = self.line.inbound.message().await {}
        })
        .await;
    }
}

pub(super) async fn connecting(draining: &mut Option<Draining>) -> Option<Box<Opened>> {
    match draining.as_mut().and_then(|d| d.connecting.as_mut()) {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}
