//! What `/status` answers, and the checks behind `/readyz`.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::watch;
use watchline_node::{
    health::{CheckState, Checks},
    lifecycle::Version,
    uplink::UplinkStatus,
};
use watchline_proto::Lane;
use watchline_spool::View;

use crate::{
    batch::Moment,
    board::{Blocked, Board},
    pipeline::READER,
    sources::SourceStatus,
};

/// The checks of `/readyz`.
pub(crate) const CHECKS: [&str; 5] = [
    "uplink",
    "backlog",
    "spool",
    "sources",
    watchline_node::identity::CHECK,
];

/// A backlog from which nothing was acknowledged for so long does not move.
const BACKLOG_MOVES_WITHIN: Duration = Duration::from_secs(60);
/// Looks at the sources come once a scan interval; if none came for so long, the reader is stuck.
const LOOKS_WITHIN: Duration = Duration::from_secs(90);

/// The whole answer of `/status`.
#[derive(Debug, Serialize)]
struct Status {
    program: &'static str,
    version: &'static str,
    id: String,
    ready: bool,
    checks: std::collections::BTreeMap<&'static str, Check>,
    time_unix_nano: i64,
    started_unix_nano: i64,
    epoch: Option<String>,
    uplink: Line,
    lanes: Lanes<LaneOf>,
    spool: SpoolOf,
    sources: Vec<SourceStatus>,
    hints: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_hints: Option<String>,
    configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct Check {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    connected_to: Option<String>,
    since_unix_nano: i64,
    last_error: Option<String>,
    parked: Option<String>,
    throttled: Option<String>,
    reconnects: u64,
    in_flight_bytes: u64,
    last_ack_unix_nano: i64,
}

#[derive(Debug, Serialize)]
struct Lanes<T> {
    alert: T,
    routine: T,
}

#[derive(Debug, Serialize)]
struct LaneOf {
    /// Events sealed since the start.
    events: u64,
    /// The next sequence number of this epoch.
    next_sequence: u64,
    /// Items of the spool that the next hop has acknowledged, over the whole life of the spool.
    acknowledged_items: u64,
    /// Batches sent since the start, repetitions included.
    sent_batches: u64,
    /// Batches acknowledged since the start.
    acked_batches: u64,
    /// Batches set aside since the start.
    rejected_batches: u64,
    backlog_bytes: u64,
    backlog_batches: u64,
    /// 0 when there is none.
    backlog_oldest_unix_nano: i64,
}

#[derive(Debug, Serialize)]
struct SpoolOf {
    used_bytes: u64,
    max_bytes: u64,
    /// Why nothing can be appended just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<String>,
}

/// How the last reload went.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Configuration {
    pub(crate) file: String,
    pub(crate) last_reload_successful: bool,
    pub(crate) last_reload_unix_nano: i64,
    pub(crate) problems: Vec<String>,
    /// Tables whose changes wait for a restart.
    pub(crate) needs_restart: Vec<&'static str>,
}

/// Everything that the answers are made of. Shared by the health endpoint and the task that sets the checks.
pub(crate) struct Standing {
    pub(crate) version: Version,
    pub(crate) name: Box<dyn Fn() -> String + Send + Sync>,
    pub(crate) started: Moment,
    pub(crate) checks: Checks,
    pub(crate) board: Arc<Board>,
    pub(crate) view: View,
    pub(crate) line: watch::Receiver<UplinkStatus>,
    pub(crate) configuration: watch::Receiver<Configuration>,
}

impl Standing {
    /// Takes no lock that a disk is waited for under.
    pub(crate) fn status(&self) -> serde_json::Value {
        let line = self.line.borrow().clone();
        let backlog = self.view.backlog(READER);
        let acknowledged = self
            .view
            .mark(READER)
            .map(|mark| mark.next)
            .unwrap_or_default();
        let posted = self.board.posted().clone();
        let epoch = posted.epoch();
        let lane = |lane: Lane| {
            let at = lane.index();
            LaneOf {
                events: posted.events[at],
                next_sequence: epoch.map_or(0, |(_, next)| next[at]),
                acknowledged_items: acknowledged[at].0,
                sent_batches: line.sent_batches[at],
                acked_batches: line.acked_batches[at],
                rejected_batches: line.rejected_batches[at],
                backlog_bytes: backlog[at].bytes,
                backlog_batches: backlog[at].items,
                backlog_oldest_unix_nano: backlog[at].oldest_unix_nano,
            }
        };
        let check = |(name, state): (&'static str, CheckState)| match state {
            CheckState::Ok => (
                name,
                Check {
                    ok: true,
                    reason: None,
                },
            ),
            CheckState::Failing { reason } => (
                name,
                Check {
                    ok: false,
                    reason: Some(reason),
                },
            ),
        };
        let status = Status {
            program: "watchline-forwarder",
            version: self.version.as_str(),
            id: (self.name)(),
            ready: self.checks.ready(None),
            checks: self.checks.all().into_iter().map(check).collect(),
            time_unix_nano: Moment::now().unix_nano,
            started_unix_nano: self.started.unix_nano,
            epoch: epoch.map(|(epoch, _)| epoch.to_string()),
            lanes: Lanes {
                alert: lane(Lane::Alert),
                routine: lane(Lane::Routine),
            },
            uplink: Line {
                connected_to: line.connected_to,
                since_unix_nano: line.since_unix_nano,
                last_error: line.last_error,
                parked: line.parked,
                throttled: line.throttled,
                reconnects: line.reconnects,
                in_flight_bytes: line.in_flight_bytes,
                last_ack_unix_nano: line.last_ack_unix_nano,
            },
            spool: SpoolOf {
                used_bytes: self.view.used_bytes(),
                max_bytes: self.view.max_bytes(),
                blocked: posted.blocked.as_ref().map(said),
            },
            sources: posted.sources,
            hints: if posted.no_hints.is_none() {
                "kernel"
            } else {
                "none: looked at once a scan interval"
            },
            no_hints: posted.no_hints,
            configuration: self.configuration.borrow().clone(),
        };
        // Nothing in it can fail to be written as JSON.
        serde_json::to_value(status).unwrap_or_default()
    }

    /// Sets the checks from what is there. Call it whenever the line changes, and each second.
    pub(crate) fn check(&self, now: Moment) {
        let checks = &self.checks;
        let line = self.line.borrow().clone();
        match (&line.parked, &line.connected_to, &line.throttled) {
            (Some(why), ..) => checks.failing("uplink", why.clone()),
            (None, Some(_), None) => checks.ok("uplink"),
            (None, Some(_), Some(why)) => {
                checks.failing("uplink", format!("the next hop asks to hold back: {why}"))
            }
            (None, None, _) => {
                let why = line.last_error.as_deref().unwrap_or("no answer yet");
                checks.failing("uplink", format!("not connected: {why}"));
            }
        }
        let posted = self.board.posted();
        match &posted.blocked {
            None => checks.ok("spool"),
            Some(Blocked::Full) => checks.failing(
                "spool",
                "full: reading waits until the next hop has acknowledged more",
            ),
            Some(Blocked::Disk(why)) => checks.failing("spool", why.clone()),
        }
        match posted.looked_at {
            Some(at) if now.at.saturating_duration_since(at) <= LOOKS_WITHIN => {
                let troubled = |source: &SourceStatus| {
                    let trouble = source.trouble.as_ref()?;
                    Some(format!("{}: {trouble}", source.name))
                };
                match posted.sources.iter().find_map(troubled) {
                    None => checks.ok("sources"),
                    Some(trouble) => checks.failing("sources", trouble),
                }
            }
            Some(at) => {
                let seconds = now.at.saturating_duration_since(at).as_secs();
                checks.failing("sources", format!("not looked at for {seconds} s"));
            }
            None => checks.failing("sources", "not looked at yet"),
        }
        drop(posted);
        let backlog = self.view.backlog(READER);
        let oldest = backlog
            .iter()
            .map(|lane| lane.oldest_unix_nano)
            .filter(|&oldest| oldest > 0)
            .min();
        let quiet_since =
            oldest.map_or(now.unix_nano, |oldest| oldest.max(line.last_ack_unix_nano));
        let quiet = Duration::from_nanos(
            u64::try_from(now.unix_nano.saturating_sub(quiet_since)).unwrap_or(0),
        );
        if quiet > BACKLOG_MOVES_WITHIN {
            let bytes: u64 = backlog.iter().map(|lane| lane.bytes).sum();
            checks.failing(
                "backlog",
                format!(
                    "{bytes} bytes wait, nothing was acknowledged for {} s",
                    quiet.as_secs()
                ),
            );
        } else {
            checks.ok("backlog");
        }
    }
}

fn said(blocked: &Blocked) -> String {
    match blocked {
        Blocked::Full => "full".to_owned(),
        Blocked::Disk(why) => why.clone(),
    }
}
