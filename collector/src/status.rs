//! What `/status` answers, and what the watch knows of everybody: forwarders with state and ledger, outputs with lag.

use std::{collections::BTreeMap, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use watchline_node::health::{CheckState, Checks};
use watchline_proto::{Lane, Role, SpiffeId};
use watchline_spool as spool;

use crate::{
    buffer::Buffer,
    ingest::{PeerStatus, Peers},
    ledger::SealerSummary,
    outputs::{OutputConfig, OutputKind},
    run::OutputStates,
    watch::Silence,
};

/// What a peer is to the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// A stream is open, and it speaks.
    Connected,
    /// No stream is open, and it has not been quiet for long; or it is known only through a relay.
    Away,
    /// Has said nothing for longer than `silent_after`.
    Silent,
}

const STATES: [PeerState; 3] = [PeerState::Connected, PeerState::Away, PeerState::Silent];

impl PeerState {
    fn as_str(self) -> &'static str {
        match self {
            PeerState::Connected => "connected",
            PeerState::Away => "away",
            PeerState::Silent => "silent",
        }
    }
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Status {
    program: &'static str,
    version: &'static str,
    id: String,
    role: &'static str,
    started: Option<String>,
    time: Option<String>,
    ready: bool,
    checks: BTreeMap<&'static str, Check>,
    buffer: BufferStatus,
    forwarders: Vec<ForwarderStatus>,
    relays: Vec<RelayStatus>,
    outputs: Vec<OutputStatus>,
}

#[derive(Debug, Serialize)]
struct Check {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct BufferStatus {
    id: String,
    used_bytes: u64,
    max_bytes: u64,
    has_room: bool,
}

#[derive(Debug, Serialize)]
struct ForwarderStatus {
    id: String,
    agency: Option<String>,
    name: String,
    state: PeerState,
    /// Of a stream of its own; `null`: it has none here, its batches come through a relay.
    last_seen: Option<String>,
    /// When a batch of it was last stored here.
    last_stored: Option<String>,
    address: Option<String>,
    software: Option<String>,
    skew_seconds: Option<f64>,
    certificate_expires: Option<String>,
    epoch: Option<String>,
    lanes: BTreeMap<&'static str, LaneStatus>,
    batches: u64,
    events: u64,
    open_epochs: usize,
    closed_epochs: u64,
    holes: u64,
    missing_batches: u64,
    void_batches: u64,
    void_events: u64,
    forks: u64,
}

#[derive(Debug, Default, Serialize)]
struct LaneStatus {
    /// The first sequence number that the forwarder has not used yet, as far as it is known here.
    next: u64,
    ranges: usize,
    /// What waits at the forwarder, by its last heartbeat.
    backlog_bytes: u64,
    backlog_batches: u64,
}

#[derive(Debug, Serialize)]
struct RelayStatus {
    id: String,
    state: PeerState,
    last_seen: Option<String>,
    address: Option<String>,
    software: String,
    skew_seconds: f64,
    certificate_expires: Option<String>,
}

#[derive(Debug, Serialize)]
struct OutputStatus {
    name: String,
    kind: &'static str,
    required: bool,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled: Option<String>,
    lag: BTreeMap<&'static str, Lag>,
}

#[derive(Debug, Serialize)]
struct Lag {
    bytes: u64,
    batches: u64,
    /// Age of the oldest batch that has not been delivered.
    oldest_seconds: f64,
}

/// Everything that status and the metrics of forwarders are made from. Cheap to clone.
#[derive(Clone)]
pub struct StatusSource {
    /// Program, version and commit.
    pub version: &'static str,
    /// Who we are.
    pub id: SpiffeId,
    /// When this process started, Unix nanoseconds.
    pub started_unix_nano: i64,
    /// The checks of `/readyz`.
    pub checks: Checks,
    /// The buffer.
    pub buffer: Buffer,
    /// Who has been heard.
    pub peers: Peers,
    /// Who is silent.
    pub silence: Silence,
    /// The outputs as configured.
    pub outputs: Vec<OutputConfig>,
    /// How they do.
    pub output_states: OutputStates,
}

impl StatusSource {
    /// The answer, as of now. Waits for no disk.
    pub fn status(&self) -> Status {
        let now = unix_nano();
        let peers = self.peers.all();
        let mut forwarders: Vec<_> = self
            .buffer
            .summaries()
            .into_iter()
            .filter(|summary| summary.sealer.role() == Role::Forwarder)
            .map(|summary| {
                let peer = peers.get(&summary.sealer);
                self.forwarder(summary.sealer.clone(), Some(summary), peer)
            })
            .collect();
        let stored: std::collections::BTreeSet<String> =
            forwarders.iter().map(|known| known.id.clone()).collect();
        for (id, peer) in &peers {
            if id.role() == Role::Forwarder && !stored.contains(&id.to_string()) {
                forwarders.push(self.forwarder(id.clone(), None, Some(peer)));
            }
        }
        let relays = peers.iter().filter(|(id, _)| id.role() != Role::Forwarder);
        Status {
            program: "watchline-collector",
            version: self.version,
            id: self.id.to_string(),
            role: match self.id.role() {
                Role::Center => "center",
                Role::Collector => "collector",
                Role::Forwarder => "forwarder",
            },
            started: rfc3339(self.started_unix_nano),
            time: rfc3339(now),
            ready: self.checks.ready(None),
            checks: self
                .checks
                .all()
                .into_iter()
                .map(|(name, state)| (name, check(state)))
                .collect(),
            buffer: BufferStatus {
                id: hex::encode(self.buffer.id()),
                used_bytes: self.buffer.view().used_bytes(),
                max_bytes: self.buffer.view().max_bytes(),
                has_room: self.buffer.has_room(),
            },
            forwarders,
            relays: relays.map(|(id, peer)| self.relay(id, peer)).collect(),
            outputs: self
                .outputs
                .iter()
                .map(|output| self.output(output, now))
                .collect(),
        }
    }

    fn state_of(&self, id: &SpiffeId, peer: Option<&PeerStatus>) -> PeerState {
        if self.silence.is_silent(id) {
            PeerState::Silent
        } else if peer.is_some_and(|peer| peer.streams > 0) {
            PeerState::Connected
        } else {
            PeerState::Away
        }
    }

    fn forwarder(
        &self,
        id: SpiffeId,
        summary: Option<SealerSummary>,
        peer: Option<&PeerStatus>,
    ) -> ForwarderStatus {
        let mut lanes: BTreeMap<&'static str, LaneStatus> = Lane::ALL
            .into_iter()
            .map(|lane| (lane.as_str(), LaneStatus::default()))
            .collect();
        for chain in summary.iter().flat_map(|summary| &summary.chains) {
            let lane = lanes.entry(chain.lane.as_str()).or_default();
            lane.next = chain.next;
            lane.ranges = chain.ranges;
        }
        if let Some(peer) = peer {
            for lane in Lane::ALL {
                let backlog = peer.backlog[lane.index()];
                let status = lanes.entry(lane.as_str()).or_default();
                status.backlog_bytes = backlog.bytes;
                status.backlog_batches = backlog.batches;
            }
        }
        let of = |number: fn(&SealerSummary) -> u64| summary.as_ref().map_or(0, number);
        ForwarderStatus {
            state: self.state_of(&id, peer),
            agency: id.agency().map(ToString::to_string),
            name: id.name().to_string(),
            id: id.to_string(),
            last_seen: peer.and_then(|peer| rfc3339(peer.last_seen_unix_nano)),
            last_stored: summary
                .as_ref()
                .and_then(|summary| rfc3339(summary.last_stored_unix_nano)),
            address: peer
                .and_then(|peer| peer.address)
                .map(|address| address.to_string()),
            software: peer.map(|peer| peer.software.clone()),
            skew_seconds: peer.map(|peer| seconds(peer.skew_nano)),
            certificate_expires: peer.and_then(certificate_expires),
            epoch: summary
                .as_ref()
                .and_then(|summary| summary.epoch)
                .map(|epoch| epoch.to_string()),
            lanes,
            batches: of(|summary| summary.batches),
            events: of(|summary| summary.events),
            open_epochs: summary.as_ref().map_or(0, |summary| summary.open_epochs),
            closed_epochs: of(|summary| summary.closed_epochs),
            holes: of(|summary| summary.holes),
            missing_batches: of(|summary| summary.missing_batches),
            void_batches: of(|summary| summary.void_batches),
            void_events: of(|summary| summary.void_events),
            forks: of(|summary| summary.forks),
        }
    }

    fn relay(&self, id: &SpiffeId, peer: &PeerStatus) -> RelayStatus {
        RelayStatus {
            id: id.to_string(),
            state: self.state_of(id, Some(peer)),
            last_seen: rfc3339(peer.last_seen_unix_nano),
            address: peer.address.map(|address| address.to_string()),
            software: peer.software.clone(),
            skew_seconds: seconds(peer.skew_nano),
            certificate_expires: certificate_expires(peer),
        }
    }

    fn output(&self, output: &OutputConfig, now: i64) -> OutputStatus {
        let backlog = self.buffer.view().backlog(&output.reader());
        let lag = Lane::ALL.into_iter().map(|lane| {
            let spool::LaneStatus {
                items,
                bytes,
                oldest_unix_nano,
            } = backlog[lane.index()];
            let oldest = match items {
                0 => 0,
                _ => now.saturating_sub(oldest_unix_nano),
            };
            let lag = Lag {
                bytes,
                batches: items,
                oldest_seconds: seconds(oldest),
            };
            (lane.as_str(), lag)
        });
        let state = self.output_states.state(&output.name);
        let uplink = self.output_states.uplink(&output.name);
        let Check { ok, reason } = check(state.unwrap_or(CheckState::Failing {
            reason: "starting".to_owned(),
        }));
        OutputStatus {
            name: output.name.clone(),
            kind: match output.kind {
                OutputKind::Upstream(_) => "upstream",
                OutputKind::File(_) => "file",
                OutputKind::Archive(_) => "archive",
            },
            required: output.required,
            ok,
            reason,
            connected_to: uplink
                .as_ref()
                .and_then(|uplink| uplink.connected_to.clone()),
            throttled: uplink.and_then(|uplink| uplink.throttled),
            lag: lag.collect(),
        }
    }
}

fn check(state: CheckState) -> Check {
    match state {
        CheckState::Ok => Check {
            ok: true,
            reason: None,
        },
        CheckState::Failing { reason } => Check {
            ok: false,
            reason: Some(reason),
        },
    }
}

fn certificate_expires(peer: &PeerStatus) -> Option<String> {
    let expires = peer
        .certificate_expires?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    rfc3339(i64::try_from(expires.as_nanos()).ok()?)
}

fn seconds(nano: i64) -> f64 {
    nano as f64 / 1e9
}

/// `None` for 0: never.
pub(crate) fn rfc3339(unix_nano: i64) -> Option<String> {
    if unix_nano == 0 {
        return None;
    }
    let time = OffsetDateTime::from_unix_timestamp_nanos(unix_nano.into()).ok()?;
    let milliseconds = time
        .replace_nanosecond(time.nanosecond() / 1_000_000 * 1_000_000)
        .ok()?;
    milliseconds.format(&Rfc3339).ok()
}

/// Nanoseconds since 1970.
pub(crate) fn unix_nano() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `watchline_forwarders{state}` and the buffer's size, counted when asked.
pub struct StatusMetrics(StatusSource);

impl std::fmt::Debug for StatusMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatusMetrics")
    }
}

impl StatusMetrics {
    /// Counts what this source shows.
    pub fn new(source: StatusSource) -> StatusMetrics {
        StatusMetrics(source)
    }
}

impl Collector for StatusMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let source = &self.0;
        let peers = source.peers.all();
        let mut counts: BTreeMap<PeerState, i64> =
            STATES.into_iter().map(|state| (state, 0)).collect();
        let stored = source.buffer.summaries();
        let known: std::collections::BTreeSet<&SpiffeId> = stored
            .iter()
            .map(|summary| &summary.sealer)
            .chain(peers.keys())
            .collect();
        for id in known.into_iter().filter(|id| id.role() == Role::Forwarder) {
            *counts
                .entry(source.state_of(id, peers.get(id)))
                .or_default() += 1;
        }
        let mut forwarders = encoder.encode_descriptor(
            "watchline_forwarders",
            "Forwarders ever stored or heard, by state",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (state, count) in counts {
            let labels = [("state", state.as_str())];
            ConstGauge::new(count).encode(forwarders.encode_family(&labels)?)?;
        }
        let view = source.buffer.view();
        let gauges = [
            (
                "watchline_buffer_used_bytes",
                "Bytes of the buffer's files",
                view.used_bytes(),
            ),
            (
                "watchline_buffer_max_bytes",
                "The buffer's quota",
                view.max_bytes(),
            ),
        ];
        for (name, help, bytes) in gauges {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let missing: u64 = stored.iter().map(|summary| summary.missing_batches).sum();
        let gauge = ConstGauge::new(i64::try_from(missing).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "watchline_missing_batches",
            "Batches that must exist and have not come here, over all forwarders",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}
