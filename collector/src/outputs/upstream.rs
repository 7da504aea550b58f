//! `kind = "upstream"`: sealed bytes passed on to the next collector, resumed from this output's mark.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tracing::error;
use watchline_node::{
    health::CheckState,
    identity::Identity,
    uplink::{
        Chains, Forked, Owner, Queue, Reading, SetAside, TcpConnector, Uplink, UplinkConfig,
        UplinkMetrics, UplinkStatus,
    },
};
use watchline_spool as spool;

use super::config::UpstreamConfig;
use crate::{buffer::Buffer, watch::OwnEvents};

/// How long the event about a loss may take to become durable before it is asked for again.
const DURABLE_WITHIN: Duration = Duration::from_secs(10);

/// What an upstream output is made of.
pub struct UpstreamOutput {
    /// The output's name in the configuration.
    pub name: String,
    /// The name of its reader and mark in the buffer.
    pub reader_name: String,
    /// Its `[[output]]`.
    pub config: UpstreamConfig,
    /// Folder for batches that the next hop would not have.
    pub quarantine: PathBuf,
    /// Program, version and commit, for Hello.
    pub software: String,
}

impl UpstreamOutput {
    /// The uplink of this output. Nothing is dialled before it runs; it reads the disk on the blocking pool.
    pub fn uplink(
        self,
        reader: spool::Reader,
        buffer: &Buffer,
        identity: Identity,
        chains: Arc<dyn Chains>,
        events: Arc<dyn OwnEvents>,
        metrics: &UplinkMetrics,
    ) -> Uplink {
        let delivery = Delivery {
            buffer: buffer.clone(),
            output: self.name.clone(),
            reader: self.reader_name.clone(),
            events,
            losses: Arc::default(),
        };
        let config = UplinkConfig {
            heartbeat: self.config.heartbeat,
            grace: self.config.grace,
            software: self.software,
            reading: Reading::BlockingPool,
            ..UplinkConfig::new(self.name, self.config.endpoints, self.quarantine)
        };
        let queue = Queue {
            reader,
            view: buffer.view(),
            name: self.reader_name,
        };
        Uplink::new(
            config,
            identity,
            queue,
            Arc::new(delivery),
            chains,
            TcpConnector,
            metrics,
        )
    }
}

/// What `/readyz` says of an uplink.
pub fn check_of(status: &UplinkStatus) -> CheckState {
    let reason = match (&status.parked, &status.connected_to, &status.last_error) {
        (Some(parked), _, _) => parked.clone(),
        (None, Some(_), _) => return CheckState::Ok,
        (None, None, Some(error)) => error.clone(),
        (None, None, None) => "not connected yet".to_owned(),
    };
    CheckState::Failing { reason }
}

/// The buffer's side of the uplink: acknowledgements become marks, losses become events.
struct Delivery {
    buffer: Buffer,
    output: String,
    reader: String,
    events: Arc<dyn OwnEvents>,
    losses: Arc<Mutex<Losses>>,
}

/// A mark must not pass a loss before the event about it is durable, or a crash could keep the one and forget the other.
#[derive(Debug, Default)]
struct Losses {
    /// Events that are not known to be durable.
    untold: usize,
    /// The newest mark, held back meanwhile.
    held_back: Option<spool::Mark>,
}

impl Delivery {
    fn lose(&self, attributes: Vec<(String, String)>, body: String, damage: Option<spool::Damage>) {
        let mut attributes = attributes;
        attributes.push(("watchline.output".to_owned(), self.output.clone()));
        self.events.raise("watchline.gap", attributes, body);
        locked(&self.losses).untold += 1;
        let (events, losses, buffer) = (
            Arc::clone(&self.events),
            Arc::clone(&self.losses),
            self.buffer.clone(),
        );
        tokio::task::spawn_blocking(move || {
            // Given up only when the buffer is closed: the mark then stays in front of the loss, and it is told again.
            while !events.wait_durable(DURABLE_WITHIN) {
                if buffer.is_closed() {
                    return;
                }
            }
            if let Some(damage) = damage {
                buffer.settle(damage);
            }
            let mut losses = locked(&losses);
            losses.untold -= 1;
            if losses.untold == 0
                && let Some(mark) = losses.held_back.take()
            {
                buffer.mark(mark);
            }
        });
    }
}

fn locked(losses: &Mutex<Losses>) -> MutexGuard<'_, Losses> {
    losses.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attribute(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

impl Owner for Delivery {
    fn acked(&self, next: [spool::ItemNo; spool::LANES]) {
        let mark = spool::Mark {
            reader: self.reader.clone(),
            next,
            note: Bytes::new(),
        };
        let mut losses = locked(&self.losses);
        match losses.untold {
            0 => self.buffer.mark(mark),
            _ => losses.held_back = Some(mark),
        }
    }

    fn set_aside(&self, set_aside: SetAside) {
        let reason = set_aside.reason.word();
        let body = format!(
            "output {}: the next hop refused a batch of {} events in lane {} ({reason}: {}); it is set aside in {}",
            self.output,
            set_aside.events,
            set_aside.lane,
            set_aside.detail,
            set_aside.file.display(),
        );
        let attributes = vec![
            attribute("watchline.gap.reason", "set_aside"),
            attribute("watchline.reject.reason", reason),
            attribute("watchline.gap.records", set_aside.events),
            attribute("watchline.quarantine.file", set_aside.file.display()),
            attribute("watchline.gap.lane", set_aside.lane),
        ];
        self.lose(attributes, body, None);
    }

    fn forked(&self, forked: Forked) {
        // Said of unsigned items only, and everything in this buffer is signed: a fork here is set aside like any other defect.
        error!(output = %self.output, lane = %forked.lane, "a fork of what was never sealed here");
    }

    fn hole(&self, error: spool::ReadError) {
        match error {
            spool::ReadError::Damaged(damage) => {
                let items: u64 = damage
                    .items
                    .iter()
                    .map(|range| range.end.0 - range.start.0)
                    .sum();
                let body = format!(
                    "output {}: {items} batches were damaged in the buffer before they were delivered: {}",
                    self.output, damage.reason
                );
                let attributes = vec![
                    attribute("watchline.gap.reason", "buffer_damage"),
                    attribute("watchline.gap.batches", items),
                    attribute("watchline.gap.bytes", damage.bytes),
                ];
                self.lose(attributes, body, Some(damage));
            }
            spool::ReadError::Gone { lane, from, to } => {
                let body = format!(
                    "output {}: {} batches had to be deleted before they were delivered",
                    self.output,
                    to.0.saturating_sub(from.0)
                );
                let attributes = vec![
                    attribute("watchline.gap.reason", "retention"),
                    attribute("watchline.gap.batches", to.0.saturating_sub(from.0)),
                    attribute(
                        "watchline.gap.lane",
                        if lane == 0 { "alert" } else { "routine" },
                    ),
                ];
                self.lose(attributes, body, None);
            }
            other => error!(output = %self.output, error = %other, "the buffer cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_is_ready_when_connected_and_not_parked() {
        let mut status = UplinkStatus::default();
        let failing = |reason: &str| CheckState::Failing {
            reason: reason.to_owned(),
        };
        assert_eq!(check_of(&status), failing("not connected yet"));
        status.last_error = Some("connection refused".to_owned());
        assert_eq!(check_of(&status), failing("connection refused"));
        status.connected_to = Some("https://center:7543".to_owned());
        assert_eq!(check_of(&status), CheckState::Ok);
        status.parked = Some("wrong_agency".to_owned());
        assert_eq!(check_of(&status), failing("wrong_agency"));
    }
}
