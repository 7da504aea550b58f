//! The server end of the line: accepts connections, checks what comes, hands it to the buffer, acknowledges.
//!
//! ```text
//! listener ──▶ handshake ──▶ connections ──▶ session ──▶ checks ──▶ admission ──▶ buffer
//!  (limits)   (identity of    (revoked or     one a       seal,      a byte         │
//!              this moment)    expired: cut)  stream      hash,      budget a       ▼
//!                                               ▲         signature  lane        commit
//!                                               └──────── replies, in order ◀───────┘
//! ```
//!
//! Nothing is acknowledged before the buffer has synced it. A batch's own defect is answered with `Reject` and the line goes
//! on; what configuration can cure ends the stream with a status whose message starts with a word of [`Refusal`], and
//! the sender keeps everything.
//!
//! Memory: per connection what HTTP/2 holds (at most [`STREAM_WINDOW_BYTES`] unread a stream) and one message; per lane what
//! the buffer admits; beside it [`PARKED_BYTES`] for routine batches of streams whose buffer is full, so that alerts behind
//! them can still be read.

mod admission;
mod authority;
mod checks;
mod connections;
mod listener;
mod metrics;
mod peers;
mod refusal;
mod replies;
mod session;
mod signers;
#[cfg(test)]
mod simulation;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};
use watchline_node::identity::{Identity, Peer, Refusals};
use watchline_proto::{MAX_MESSAGE_BYTES, SpiffeId, refusal::Refusal, wire};

pub use self::authority::Allowed;
pub use self::listener::{Accept, Limits, Listener};
pub use self::metrics::IngestMetrics;
pub use self::peers::{PeerStatus, Peers};
use self::{
    connections::{Connection, Connections},
    session::Session,
    signers::Signers,
};
use crate::{
    buffer::{Buffer, BufferError, Decision, Incoming},
    chains::ChainStore,
    config::IngestConfig,
};

/// Receive window of a stream: on a line of 80 ms it carries 50 MB/s.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Receive window of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Routine batches that wait for a full buffer, over all streams, beside the one that each stream may hold.
pub const PARKED_BYTES: usize = 64 << 20;
/// What all senders together may have in flight, divided among the streams that are open; see [`Ingest::in_flight_bytes`].
const IN_FLIGHT_BYTES: u64 = 512 << 20;
const IN_FLIGHT_BYTES_A_STREAM: std::ops::RangeInclusive<u64> = (256 << 10)..=(4 << 20);
/// HTTP/2 pings, and the wait for their answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// RPCs at a time on one connection: a line, its successor, health.
const STREAMS_A_CONNECTION: u32 = 8;
/// How long streams may go on after stop, to be acknowledged and to connect elsewhere.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// What answers of a stored batch travel in.
pub type Committed = oneshot::Receiver<Result<Decision, BufferError>>;

/// Where checked batches go: the buffer, or a double of it in tests.
pub trait Store: Clone + Send + Sync + 'static {
    /// See [`Buffer::append_if_new`].
    fn append_if_new(
        &self,
        incoming: Incoming,
    ) -> impl Future<Output = Result<Committed, BufferError>> + Send;
    /// See [`Buffer::held_by`].
    fn held_by(&self, sealer: &SpiffeId) -> impl Future<Output = Vec<wire::ChainHeld>> + Send;
    /// See [`Buffer::id`].
    fn id(&self) -> [u8; 16];
    /// See [`Buffer::has_room`].
    fn has_room(&self) -> bool;
}

impl Store for Buffer {
    async fn append_if_new(&self, incoming: Incoming) -> Result<Committed, BufferError> {
        Buffer::append_if_new(self, incoming).await
    }

    async fn held_by(&self, sealer: &SpiffeId) -> Vec<wire::ChainHeld> {
        Buffer::held_by(self, sealer).await
    }

    fn id(&self) -> [u8; 16] {
        Buffer::id(self)
    }

    fn has_room(&self) -> bool {
        Buffer::has_room(self)
    }
}

/// How ingest is to behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is accepted at a time.
    pub limits: Limits,
    /// Relays that may bring more than their own agency's.
    pub allowed: Vec<Allowed>,
    /// Heartbeat interval asked of senders; zero leaves it to them.
    pub heartbeat: Duration,
    /// Program, version and commit, for Welcome.
    pub software: String,
}

impl Options {
    /// As configured.
    pub fn new(config: &IngestConfig, software: String) -> Options {
        let allowed = config.allow.iter().map(|allow| Allowed {
            peer: allow.peer.clone(),
            names: allow.names.clone(),
        });
        Options {
            limits: Limits {
                connections: config.max_connections,
                ..Limits::default()
            },
            allowed: allowed.collect(),
            heartbeat: Duration::ZERO,
            software,
        }
    }
}

/// What ingest works with.
pub struct Parts<S> {
    /// Whom it believes.
    pub identity: Identity,
    /// Where checked batches go.
    pub store: S,
    /// Where certificates are kept.
    pub chains: ChainStore,
    /// Counts and logs what is refused.
    pub refusals: Refusals,
    /// Counts the rest.
    pub metrics: IngestMetrics,
    /// What `grpc.health.v1` answers.
    pub ready: watch::Receiver<bool>,
}

/// The server end of the line.
pub struct Ingest<S = Buffer> {
    limits: Limits,
    ready: watch::Receiver<bool>,
    shared: Arc<Shared<S>>,
}

/// What sessions share.
struct Shared<S> {
    identity: Identity,
    store: S,
    signers: Signers,
    metrics: IngestMetrics,
    peers: Peers,
    connections: Arc<Connections>,
    /// Bytes, in KiB.
    parking: Arc<Semaphore>,
    allowed: Vec<Allowed>,
    heartbeat: Duration,
    software: String,
    /// Cancelled on stop: sessions tell their clients to go elsewhere.
    drain: CancellationToken,
    sessions: TaskTracker,
}

impl<S: Store> Ingest<S> {
    /// Nothing is accepted before [`Ingest::run`].
    pub fn new(options: Options, parts: Parts<S>) -> Ingest<S> {
        let Parts {
            identity,
            store,
            chains,
            refusals,
            metrics,
            ready,
        } = parts;
        let connections = Connections::new(options.limits.clone(), metrics.clone(), refusals);
        let shared = Shared {
            signers: Signers::new(identity.clone(), chains),
            identity,
            store,
            metrics,
            peers: Peers::default(),
            connections: Arc::new(connections),
            parking: Arc::new(Semaphore::new(PARKED_BYTES >> 10)),
            allowed: options.allowed,
            heartbeat: options.heartbeat,
            software: options.software,
            drain: CancellationToken::new(),
            sessions: TaskTracker::new(),
        };
        Ingest {
            limits: options.limits,
            ready,
            shared: Arc::new(shared),
        }
    }

    /// Who has been seen, and what they said of themselves.
    pub fn peers(&self) -> Peers {
        self.shared.peers.clone()
    }

    /// Serves until `stop`; then accepts nothing more, tells every client to connect elsewhere, acknowledges what it has
    /// taken, and returns when all streams have ended, after 5 s at the latest.
    pub async fn run<A: Accept>(self, listener: A, stop: CancellationToken) -> anyhow::Result<()> {
        let Ingest {
            limits,
            ready,
            shared,
        } = self;
        let (accepted, incoming) = mpsc::channel(16);
        let (health, health_service) = tonic_health::server::health_reporter();
        let service = wire::uplink_server::UplinkServer::new(Service(Arc::clone(&shared)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let over = CancellationToken::new();
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_A_CONNECTION)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .http2_max_header_list_size(16 << 10)
            .http2_max_pending_accept_reset_streams(Some(16))
            .add_service(health_service)
            .add_service(service)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                stop.clone().cancelled_owned(),
            );

        let mut tasks = JoinSet::new();
        tasks.spawn(listener::accept(
            listener,
            limits,
            shared.identity.clone(),
            Arc::clone(&shared.connections),
            accepted,
            stop.clone(),
        ));
        tasks.spawn(connections::watch_over(
            Arc::clone(&shared.connections),
            shared.identity.clone(),
            over.clone(),
        ));
        tasks.spawn(follow_readiness(health, ready, stop.clone()));
        info!("ingest is up");

        let deadline = async {
            stop.cancelled().await;
            shared.drain.cancel();
            tokio::time::sleep(DRAIN_WITHIN + Duration::from_secs(1)).await;
        };
        let served = tokio::select! {
            served = server => served.map_err(anyhow::Error::from),
            () = deadline => {
                warn!("streams are still open at the end of the time to drain: they are cut");
                Ok(())
            }
            panicked = first_panic(&mut tasks) => Err(panicked),
        };
        // Sessions that are cut here end because their streams are gone.
        shared.drain.cancel();
        shared.sessions.close();
        let _ = tokio::time::timeout(DRAIN_WITHIN, shared.sessions.wait()).await;
        over.cancel();
        tasks.shutdown().await;
        info!("ingest ended");
        served
    }
}

/// Resolves only if a task panics.
async fn first_panic(tasks: &mut JoinSet<()>) -> anyhow::Error {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                return anyhow::Error::from(error).context("a task of ingest panicked");
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

async fn follow_readiness(
    health: HealthReporter,
    mut ready: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        let serving = *ready.borrow_and_update() && !stop.is_cancelled();
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        health.set_service_status("", status).await;
        health
            .set_service_status(wire::uplink_server::SERVICE_NAME, status)
            .await;
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
    }
}

impl<S> Shared<S> {
    /// What a new stream may have in flight, each lane.
    fn in_flight_bytes(&self) -> u64 {
        let streams = self.sessions.len().max(1) as u64;
        (IN_FLIGHT_BYTES / streams).clamp(
            *IN_FLIGHT_BYTES_A_STREAM.start(),
            *IN_FLIGHT_BYTES_A_STREAM.end(),
        )
    }

    /// Counts, and logs once a minute and address.
    fn refused(&self, peer: &Peer, word: &'static str, detail: &str) {
        self.connections.refusals().refused_because(
            peer.address,
            word,
            &format_args!("{}: {detail}", peer.id),
        );
    }
}

struct Service<S>(Arc<Shared<S>>);

type Answers =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<wire::ServerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl<S: Store> wire::uplink_server::Uplink for Service<S> {
    type ConnectStream = Answers;

    async fn connect(
        &self,
        request: Request<Streaming<wire::ClientMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
            return Err(Status::unauthenticated(
                "no_certificate: no client certificate",
            ));
        };
        let shared = &self.0;
        if shared.drain.is_cancelled() {
            return Err(Refusal::Stopping.status("this collector is stopping"));
        }
        // A few messages: who does not read its answers is not read from.
        let (outbound, answers) = mpsc::channel(8);
        let session = Session::new(
            Arc::clone(shared),
            connection,
            request.into_inner(),
            outbound,
        );
        shared.sessions.spawn(session.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
