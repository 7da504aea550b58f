//! The client end of the line: one stream to the next hop, kept up.
//!
//! ```text
//! spool reader ──▶ feed ──▶ choose a lane ──▶ sign ──▶ [channel of 1] ──▶ HTTP/2 ──▶ TLS ──▶ next hop
//!                              ▲                                                          │
//!                              └── window (in flight, by ordinal) ◀── Ack, Reject ◀───────┘
//! ```
//!
//! The lane is chosen at the last moment: at most one routine batch lies between the choice and the socket, so an alert
//! never waits behind more than that. What is in flight is bounded by what the server's `Welcome` allows; one batch always
//! may be. Nothing is kept here that the spool does not hold: after any failure the next stream starts again at the first
//! item that was not acknowledged, and the server answers what it holds already as stored.
//!
//! Which trouble does what:
//!
//! | what happens | the line | the batch |
//! |---|---|---|
//! | connection lost, time-out, server busy | next endpoint at once; after a round of them a full-jitter back-off | kept |
//! | refused for what configuration can cure | the same, and [`UplinkStatus::parked`] says why; tried at once when the identity changes | kept |
//! | `Reject` for the batch's own defect | goes on | to [`quarantine`], [`Owner::set_aside`] |
//! | three rejects in a row | the stream ends, says so, backs off; from then on one more reject ends it again | as above |
//! | `Reject` of a fork, of a batch sealed here | ends when what is in flight is answered | [`Owner::forked`]: sealed anew by the owner |
//! | `Drain` | a new stream is opened first, what is in flight is acknowledged on the old one, then the new one goes on | kept |

mod backlog;
mod connect;
mod feed;
mod metrics;
pub mod quarantine;
mod retry;
mod session;
mod signer;
mod status;
mod window;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use watchline_proto::{ClockState, Epoch, Hash, Lane, Statement, wire};
use watchline_spool as spool;

pub use self::backlog::Backlog;
pub use self::connect::{Connector, LineError, TcpConnector};
pub use self::metrics::UplinkMetrics;
pub use self::status::UplinkStatus;
use self::{
    connect::Opened,
    feed::Feed,
    quarantine::Quarantine,
    retry::{Endpoints, Retry},
    session::{Ended, Session},
    status::Reporter,
};
use crate::identity::Identity;

/// How an uplink is to behave. [`UplinkConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    /// Names this uplink in metrics and logs: `uplink` at a forwarder, the output's name at a collector.
    pub name: String,
    /// `https://host:port`, at least one. Which one is tried first is spread over a fleet by a hash of our own name.
    pub endpoints: Vec<http::Uri>,
    /// How often a heartbeat is sent, unless the server's Welcome asks for another interval.
    pub heartbeat: Duration,
    /// How long what is spooled is still offered after stop.
    pub grace: Duration,
    /// Program, version and commit, for Hello.
    pub software: String,
    /// Facts of the host under OpenTelemetry resource attribute names, for Hello.
    pub host: BTreeMap<String, String>,
    /// Directory for batches that were set aside; made (0700) when first needed.
    pub quarantine: PathBuf,
    /// Where the spool is read.
    pub reading: Reading,
    /// How a dead line is noticed.
    pub keep_alive: KeepAlive,
    /// About how long a stream lives before it is opened anew, make before break; each is up to a quarter shorter or longer.
    pub stream_life: Duration,
    /// How long a batch may stay without any answer before the stream is given up. A `Throttle` counts as an answer.
    pub answer_within: Duration,
    /// Lanes that this uplink carries. Empty: a standby that only shows that it is there.
    pub lanes: Vec<Lane>,
}

impl UplinkConfig {
    /// Defaults: heartbeat 5 s, grace 5 s, keep-alive 10 s + 10 s, an answer within 60 s, a stream's life about an hour,
    /// both lanes, reading inline.
    pub fn new(
        name: impl Into<String>,
        endpoints: Vec<http::Uri>,
        quarantine: PathBuf,
    ) -> UplinkConfig {
        UplinkConfig {
            name: name.into(),
            endpoints,
            heartbeat: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            software: concat!("watchline ", env!("CARGO_PKG_VERSION")).to_owned(),
            host: BTreeMap::new(),
            quarantine,
            reading: Reading::Inline,
            keep_alive: KeepAlive::default(),
            stream_life: Duration::from_secs(3600),
            answer_within: Duration::from_secs(60),
            lanes: Lane::ALL.to_vec(),
        }
    }
}

/// Where the spool is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// On the runtime's thread, one item a lane ahead. For a forwarder: what it reads was just written, so it comes from the
    /// page cache, and nobody but this uplink uses the thread.
    Inline,
    /// On the blocking pool, two items a lane ahead. For a collector, whose runtime serves others and whose backlog is cold.
    BlockingPool,
}

/// HTTP/2 pings, also while the line is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Between pings.
    pub interval: Duration,
    /// For the answer. The line is given up after `interval + timeout` of silence.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
        }
    }
}

/// What the uplink tells the owner of the spool, and asks of it. Called on the runtime's thread: nothing here may block, so
/// an owner coalesces what it is told and acts on its own thread.
pub trait Owner: Send + Sync + 'static {
    /// Everything before these items has been stored by the next hop (or set aside). Monotone per lane.
    fn acked(&self, next: [spool::ItemNo; spool::LANES]);
    /// The next hop found this batch defective; its bytes are already in quarantine, synced. A gap event is due.
    fn set_aside(&self, set_aside: SetAside);
    /// The next hop holds another history of one of our chains: what is unacknowledged, in both lanes, must be sealed anew
    /// under a new epoch, but for what `forked.stored` lists. The uplink stands still until the owner's mark has passed
    /// `forked.from` in that lane, trying the line again now and then in case the fork was the server's mistake; so this may
    /// be called again for the same items.
    fn forked(&self, forked: Forked);
    /// A durable hole found while reading (damage, dropped): a gap event is due. The reader stands behind it.
    fn hole(&self, error: spool::ReadError);
    /// A stream is up, and the next hop holds chains of these epochs of ours: all that it remembers, newest first, or as many as it tells
    /// of. Called before anything is sent on the stream.
    fn welcomed(&self, held: Vec<Epoch>) {
        let _ = held;
    }
    /// What the next heartbeat says of us. Called at each heartbeat.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
}

/// A batch that the next hop would not have.
#[derive(Debug, Clone)]
pub struct SetAside {
    /// Its lane.
    pub lane: Lane,
    /// Its place in the spool; `None` for one that was offered again out of quarantine.
    pub item: Option<spool::ItemNo>,
    /// Which of its properties is at fault.
    pub reason: wire::RejectReason,
    /// The server's words, cut to 512 bytes.
    pub detail: String,
    /// How many events are in it; 0 when its seal cannot be read.
    pub events: u64,
    /// Where its bytes are now.
    pub file: PathBuf,
}

/// Another history of one of our chains is held at the next hop. Nothing is in flight when this is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forked {
    /// The lane of the chain.
    pub lane: Lane,
    /// The first unacknowledged item of each lane; in `lane` the one that contradicts what is held.
    pub from: [spool::ItemNo; spool::LANES],
    /// Items at or after `from` that were stored all the same, ascending: not to be sealed anew.
    pub stored: [Vec<spool::ItemNo>; spool::LANES],
}

/// What a heartbeat says of the sender beside its backlog, which the uplink knows itself.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// When each source was last read, Unix nanoseconds.
    pub sources_last_read: BTreeMap<String, i64>,
    /// State of the clock.
    pub clock: ClockState,
    /// How far our own chains reach; signed here.
    pub statement: Option<Statement>,
    /// Statements of others, passed on as they came.
    pub relayed: Vec<wire::SignedStatement>,
}

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals {
            sources_last_read: BTreeMap::new(),
            clock: ClockState::Unknown,
            statement: None,
            relayed: Vec::new(),
        }
    }
}

/// Where chains of signers are found that are not our own (a relay's store).
pub trait Chains: Send + Sync + 'static {
    /// Leaf first, DER, without the anchor. May read a small file.
    fn chain(&self, signer: &Hash) -> Option<Vec<Bytes>>;
}

/// A forwarder relays for nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoChains;

impl Chains for NoChains {
    fn chain(&self, _: &Hash) -> Option<Vec<Bytes>> {
        None
    }
}

/// The spool as this uplink sees it.
pub struct Queue {
    /// Reads items; the uplink alone uses it.
    pub reader: spool::Reader,
    /// Wakes the uplink and knows its backlog.
    pub view: spool::View,
    /// The reader's name in the spool.
    pub name: String,
}

/// One uplink. Stored items are encoded `wire::SealedBatch`; one without signature is signed when sent, with the identity of
/// that moment.
pub struct Uplink<C = TcpConnector> {
    config: UplinkConfig,
    identity: Identity,
    connector: C,
    view: spool::View,
    reader_name: String,
    shared: Shared,
}

/// What outlives a stream.
struct Shared {
    feed: Feed,
    owner: Arc<dyn Owner>,
    chains: Arc<dyn Chains>,
    quarantine: Quarantine,
    /// Woken when more became readable.
    more: Arc<Notify>,
    report: Reporter,
    /// Rejects since the last batch that was stored.
    rejects_in_a_row: u32,
}

impl<C: Connector> Uplink<C> {
    /// Nothing is dialled before [`Uplink::run`].
    pub fn new(
        config: UplinkConfig,
        identity: Identity,
        queue: Queue,
        owner: Arc<dyn Owner>,
        chains: Arc<dyn Chains>,
        connector: C,
        metrics: &UplinkMetrics,
    ) -> Uplink<C> {
        let more = Arc::new(Notify::new());
        let wake = Arc::clone(&more);
        queue.view.on_change(move || wake.notify_one());
        let shared = Shared {
            feed: Feed::new(queue.reader, config.reading),
            owner,
            chains,
            quarantine: Quarantine::new(config.quarantine.clone()),
            more,
            report: Reporter::new(metrics.of(&config.name)),
            rejects_in_a_row: 0,
        };
        Uplink {
            config,
            identity,
            connector,
            view: queue.view,
            reader_name: queue.name,
            shared,
        }
    }

    /// State for `/readyz` and `/status`; changes are seen at once.
    pub fn status(&self) -> watch::Receiver<UplinkStatus> {
        self.shared.report.subscribe()
    }

    /// Keeps the line up until `stop`; then offers what is readable until all of it is acknowledged or `grace` is over, and
    /// ends the stream in order.
    pub async fn run(mut self, stop: CancellationToken) {
        let over = CancellationToken::new();
        let grace = self.config.grace;
        tokio::select! {
            biased;
            () = Box::pin(self.keep_up(&stop, &over)) => {}
            () = async {
                stop.cancelled().await;
                tokio::time::sleep(grace).await;
                over.cancel();
                std::future::pending::<()>().await;
            } => {}
        }
        self.shared.report.disconnected(None);
        info!(uplink = %self.config.name, "uplink ended");
    }

    async fn keep_up(&mut self, stop: &CancellationToken, over: &CancellationToken) {
        let mut retry = Retry::new();
        let mut endpoints = Endpoints::new(
            self.config.endpoints.clone(),
            &self.identity.current().id.to_string(),
        );
        let mut next: Option<Opened> = None;
        loop {
            if self.done(stop, over) {
                return;
            }
            let opened = match next.take() {
                Some(opened) => opened,
                None => {
                    let attempt = connect::open(
                        &self.config,
                        &self.identity,
                        &self.connector,
                        endpoints.current().clone(),
                    );
                    let opened = tokio::select! {
                        opened = attempt => opened,
                        () = over.cancelled() => return,
                    };
                    match opened {
                        Ok(opened) => opened,
                        Err(error) => {
                            self.failed(&error, endpoints.current());
                            if endpoints.advance() {
                                self.wait(retry.delay(error.retry_after()), stop, over)
                                    .await;
                            }
                            continue;
                        }
                    }
                }
            };
            let session = Session::new(
                &self.config,
                &self.identity,
                &self.connector,
                &self.view,
                &self.reader_name,
                &mut self.shared,
                &mut endpoints,
                opened,
            );
            let (ended, proved) = Box::pin(session.run(stop, over)).await;
            if proved {
                retry.succeeded();
            }
            match ended {
                Ended::Stopped => return,
                Ended::Drained {
                    successor: Some(opened),
                } => {
                    self.shared.report.reconnected("drain");
                    next = Some(*opened);
                }
                Ended::Drained { successor: None } => {
                    self.shared.report.reconnected("drain");
                    self.shared.report.disconnected(Some(
                        "the server drains and no other one answers".to_owned(),
                    ));
                    endpoints.advance();
                    self.wait(retry.delay(None), stop, over).await;
                }
                Ended::Lost(error) => {
                    self.failed(&error, endpoints.current());
                    let round_over = endpoints.advance();
                    if !proved && round_over || error.parks() {
                        self.wait(retry.delay(error.retry_after()), stop, over)
                            .await;
                    } else if endpoints.single() {
                        // Thousands lose the same server at the same moment.
                        self.wait(retry.first_delay(), stop, over).await;
                    }
                }
                Ended::TooManyRejects => {
                    let reason =
                        "three batches in a row were refused for their own defect and set aside";
                    tracing::error!(uplink = %self.config.name, "uplink stands still: {reason}");
                    self.shared.report.reconnected("rejects");
                    self.shared.report.parked(reason.to_owned());
                    self.wait(retry.longest_delay(), stop, over).await;
                }
                Ended::Unwritable(reason) => {
                    tracing::error!(uplink = %self.config.name, reason, "a refused batch cannot be set aside: uplink stands still");
                    self.shared.report.reconnected("quarantine");
                    self.shared.report.parked(reason);
                    self.wait(retry.delay(None), stop, over).await;
                }
                Ended::Forked(forked) => {
                    tracing::error!(uplink = %self.config.name, lane = forked.lane.as_str(), item = forked.from[forked.lane.index()].0,
                        "the next hop holds another history of this chain: sealing anew under a new epoch");
                    self.shared.report.reconnected("fork");
                    self.shared.report.parked(
                        "fork: waits until what is unacknowledged has been sealed anew".to_owned(),
                    );
                    let lane = forked.lane.index();
                    let from = forked.from[lane];
                    self.shared.owner.forked(forked);
                    self.sealed_anew(lane, from, retry.longest_delay(), over)
                        .await;
                }
            }
        }
    }

    /// Whether there is nothing left to do after stop.
    fn done(&mut self, stop: &CancellationToken, over: &CancellationToken) -> bool {
        over.is_cancelled() || stop.is_cancelled() && !self.shared.feed.has_next()
    }

    fn failed(&mut self, error: &LineError, endpoint: &http::Uri) {
        self.shared.report.reconnected(error.reason());
        let text = format!("{endpoint}: {}", chain_of(error));
        if error.parks() {
            if self.shared.report.parked(text.clone()) {
                warn!(uplink = %self.config.name, reason = text, "uplink is refused; what is spooled is kept");
            }
        } else if self.shared.report.disconnected(Some(text.clone())) {
            warn!(uplink = %self.config.name, error = text, "uplink is down");
        }
    }

    /// Sleeps, or less when the identity changes (what was refused may be accepted now) or the end has come.
    async fn wait(&mut self, delay: Duration, stop: &CancellationToken, over: &CancellationToken) {
        let mut changes = self.identity.changes();
        changes.mark_unchanged();
        let stopping = stop.is_cancelled();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            Ok(()) = changes.changed() => {}
            () = stop.cancelled(), if !stopping => {} // one more try at once
            () = over.cancelled() => {}
        }
    }

    /// Waits until the owner's mark has passed `from`, at most `limit`, then goes to the mark.
    async fn sealed_anew(
        &mut self,
        lane: usize,
        from: spool::ItemNo,
        limit: Duration,
        over: &CancellationToken,
    ) {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(mark) = self.view.mark(&self.reader_name)
                && mark.next[lane] > from
            {
                self.shared.feed.rewind(mark.next).await;
                self.shared.report.unparked();
                return;
            }
            tokio::select! {
                () = self.shared.more.notified() => {}
                // A mark alone wakes nobody.
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                () = over.cancelled() => return,
            }
            if tokio::time::Instant::now() >= deadline {
                return;
            }
        }
    }
}

/// An error with its causes, one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
