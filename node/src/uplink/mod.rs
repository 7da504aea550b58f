//! The client end of the line: one stream to the next hop, kept up.
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use watchline_proto::{Hash, Lane, wire};
use watchline_spool as spool;

#[derive(Debug, Clone)]
pub struct UplinkConfig {
    pub endpoints: Vec<http::Uri>,
    pub heartbeat: Duration,
    pub grace: Duration, /* how long what is spooled is still offered after stop */
}

/// What the uplink tells the owner of the spool. Never blocks the uplink: an unbounded channel would be wrong, so it is a callback that coalesces.
pub trait Owner: Send + Sync + 'static {
    /// Everything before these items has been stored by the next hop (or set aside). Monotone per lane.
    fn acked(&self, next: [spool::ItemNo; spool::LANES]);
    /// The next hop found this batch defective; its bytes are already in quarantine. A gap event is due.
    fn set_aside(&self, set_aside: SetAside);
    /// The next hop holds another history of this chain: what is unacknowledged must be sealed anew under a new epoch.
    fn forked(&self, lane: Lane, from: spool::ItemNo);
    /// A durable hole found while reading (damage, dropped): a gap event is due.
    fn hole(&self, error: spool::ReadError);
}
#[derive(Debug, Clone)]
pub struct SetAside {
    pub lane: Lane,
    pub item: spool::ItemNo,
    pub reason: wire::RejectReason,
    pub detail: String,
    pub events: u64,
    pub file: std::path::PathBuf,
}

/// Where chains of signers are found that are not our own (a relay's store). The forwarder has none.
pub trait Chains: Send + Sync + 'static {
    fn chain(&self, signer: &Hash) -> Option<Vec<Bytes>>;
}

/// Stored items are encoded `wire::SealedBatch`; one without signature is signed when sent, with the identity of that moment.
pub struct Uplink {
    _p: (),
}
/// State for /readyz, /status and metrics.
#[derive(Debug, Clone, Default)]
pub struct UplinkStatus {
    pub connected_to: Option<String>,
    pub since_unix_nano: i64,
    pub last_error: Option<String>,
    pub acked_batches: [u64; 2],
    pub sent_batches: [u64; 2],
    pub reconnects: u64,
    pub last_ack_unix_nano: i64,
    pub parked: Option<String>,
}
