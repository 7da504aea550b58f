//! One stream: Hello, Welcome, batches and heartbeats, to its end.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Status, Streaming};
use tracing::{debug, info};
use watchline_node::identity;
use watchline_proto::{Hash, Lane, PROTOCOL_VERSION, Statement, refusal::Refusal, statement, wire};

use super::{
    DRAIN_WITHIN, Shared, Store,
    admission::{Admission, Admitted},
    checks::{self, PAYLOAD_FORMATS, Unfit},
    connections::{Connection, StreamPlace},
    metrics::Outcome,
    peers::now_unix_nano,
    refusal::{Refused, cut},
    replies::{Replies, Reply, Size},
    signers::Offered,
};
use crate::buffer::BufferError;

/// From the opening of a stream to its Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How often a full buffer is asked whether it has room.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(250);
/// How often a client is asked again to hold back, and for how long each time.
const THROTTLE_EVERY: Duration = Duration::from_secs(1);
const THROTTLE_FOR: Duration = Duration::from_secs(3);
/// A statement costs a signature's verification: not more often, however often heartbeats come.
const STATEMENT_EVERY: Duration = Duration::from_millis(500);
/// For a client to take a message.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// How a stream ends.
enum Ended {
    /// The client has ended it, and everything is answered.
    InOrder,
    /// The client is gone.
    Gone,
    Refused(Refused),
}

/// What a stream waits for.
enum Event {
    Received(Result<Option<wire::ClientMessage>, Status>),
    Admitted(Admitted),
    Reply(Reply),
    Invalid(identity::Refused),
    Drain,
    DrainOver,
    Look,
}

pub(super) struct Session<S> {
    shared: Arc<Shared<S>>,
    connection: Arc<Connection>,
    inbound: Streaming<wire::ClientMessage>,
    outbound: mpsc::Sender<Result<wire::ServerMessage, Status>>,
    admission: Admission<S>,
    replies: Replies,
    offered: Offered,
    lanes: Vec<Lane>,
    /// The last Throttle, while the client is asked to hold back.
    throttled_at: Option<Instant>,
    /// The last statement that was verified.
    statement_at: Option<Instant>,
}

impl<S: Store> Session<S> {
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        connection: Arc<Connection>,
        inbound: Streaming<wire::ClientMessage>,
        outbound: mpsc::Sender<Result<wire::ServerMessage, Status>>,
    ) -> Session<S> {
        let admission = Admission::new(shared.store.clone(), Arc::clone(&shared.parking));
        let replies = Replies::new(shared.metrics.clone());
        Session {
            shared,
            connection,
            inbound,
            outbound,
            admission,
            replies,
            offered: Offered::default(),
            lanes: Vec::new(),
            throttled_at: None,
            statement_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let peer = self.connection.peer().clone();
        let ended = match self.greet().await {
            Ok(place) => {
                self.shared.metrics.stream_opened();
                let ended = Box::pin(self.carry()).await;
                self.shared.metrics.stream_ended();
                if self.shared.peers.ended(&peer.id) {
                    info!(peer = %peer.id, address = ?peer.address, "peer gone");
                }
                drop(place);
                ended
            }
            Err(ended) => ended,
        };
        match ended {
            Ended::InOrder => debug!(peer = %peer.id, "stream ended"),
            Ended::Gone => debug!(peer = %peer.id, "stream lost"),
            Ended::Refused(refused) => {
                self.shared
                    .refused(&peer, refused.why.word(), &refused.detail);
                let _ = timeout(TAKEN_WITHIN, self.outbound.send(Err(refused.into()))).await;
            }
        }
        let Session {
            outbound, replies, ..
        } = self;
        drop(outbound);
        replies.count_the_rest().await;
    }

    /// Hello and Welcome.
    async fn greet(&mut self) -> Result<StreamPlace, Ended> {
        let peer = self.connection.peer().clone();
        let first = timeout(HELLO_WITHIN, self.inbound.message()).await;
        let hello = match first {
            Err(_) => return Err(refuse(Refusal::OutOfOrder, "no Hello in time")),
            Ok(Err(_) | Ok(None)) => return Err(Ended::Gone),
            Ok(Ok(Some(message))) => match message.kind {
                Some(wire::client_message::Kind::Hello(hello)) => hello,
                _ => {
                    return Err(refuse(
                        Refusal::OutOfOrder,
                        "the first message is not Hello",
                    ));
                }
            },
        };
        if hello.protocol_version != PROTOCOL_VERSION {
            let detail = format!(
                "protocol version {}, this collector serves {PROTOCOL_VERSION}",
                hello.protocol_version
            );
            return Err(refuse(Refusal::UnsupportedVersion, &detail));
        }
        let place = self.shared.connections.stream(&peer.id).ok_or_else(|| {
            refuse(
                Refusal::TooManyStreams,
                "as many streams of this peer are open as may be",
            )
        })?;
        self.lanes = hello
            .lanes
            .iter()
            .filter_map(|lane| Lane::try_from(*lane).ok())
            .collect();
        let welcome = wire::Welcome {
            protocol_version: PROTOCOL_VERSION,
            buffer_id: bytes::Bytes::copy_from_slice(&self.shared.store.id()),
            held: self.shared.store.held_by(&peer.id).await,
            in_flight_bytes: self.shared.in_flight_bytes(),
            heartbeat_seconds: u32::try_from(self.shared.heartbeat.as_secs()).unwrap_or(0),
            time_unix_nano: now_unix_nano(),
            payload_formats: PAYLOAD_FORMATS.to_vec(),
            software: self.shared.software.clone(),
        };
        self.tell(wire::server_message::Kind::Welcome(welcome))
            .await?;
        if !self.lanes.is_empty() && !self.shared.store.has_room() {
            self.throttle().await?;
        }
        if self.shared.peers.opened(&peer, &hello) {
            info!(peer = %peer.id, address = ?peer.address, software = cut(&hello.software, 64), "peer connected");
        }
        Ok(place)
    }

    async fn carry(&mut self) -> Ended {
        let mut reading = true;
        let mut drain_until = None;
        loop {
            if !reading && self.replies.is_empty() {
                return Ended::InOrder;
            }
            let reads = reading && self.admission.has_place();
            let blocked = self.admission.is_blocked();
            if let Err(ended) = self.keep_throttled(blocked).await {
                return ended;
            }
            let event = tokio::select! {
                biased;
                refused = self.connection.refused() => Event::Invalid(refused),
                reply = self.replies.next() => Event::Reply(reply),
                admitted = self.admission.next() => Event::Admitted(admitted),
                message = self.inbound.message(), if reads => Event::Received(message),
                () = self.shared.drain.cancelled(), if drain_until.is_none() => Event::Drain,
                () = sleep_until(drain_until.unwrap_or_else(Instant::now)), if drain_until.is_some() => Event::DrainOver,
                () = sleep(LOOK_FOR_ROOM), if blocked || self.throttled_at.is_some() => Event::Look,
                () = self.outbound.closed() => return Ended::Gone,
            };
            let done = match event {
                Event::Invalid(refused) => Err(Ended::Refused(Refused::new(
                    Refusal::Unauthenticated,
                    refused,
                ))),
                Event::Reply(reply) => self.reply(reply).await,
                Event::Admitted(Admitted { ordinal, committed }) => {
                    match committed {
                        Ok(committed) => self.replies.committing(ordinal, committed),
                        Err(error) => self.replies.failed(ordinal, error),
                    }
                    Ok(())
                }
                Event::Received(Ok(Some(message))) => self.receive(message).await,
                Event::Received(Ok(None)) => {
                    reading = false;
                    Ok(())
                }
                Event::Received(Err(status)) => {
                    debug!(peer = %self.connection.peer().id, %status, "stream broke");
                    Err(Ended::Gone)
                }
                Event::Drain => {
                    drain_until = Some(Instant::now() + DRAIN_WITHIN);
                    let drain = wire::Drain {
                        reason: "this collector is stopping".to_owned(),
                        within_seconds: u32::try_from(DRAIN_WITHIN.as_secs()).unwrap_or(1),
                        elsewhere: true,
                    };
                    self.tell(wire::server_message::Kind::Drain(drain)).await
                }
                Event::DrainOver => Err(refuse(Refusal::Stopping, "this collector is stopping")),
                Event::Look => Ok(()),
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    async fn receive(&mut self, message: wire::ClientMessage) -> Result<(), Ended> {
        use wire::client_message::Kind;
        self.shared.peers.seen(&self.connection.peer().id);
        match message.kind {
            Some(Kind::Batch(batch)) => self.batch(batch).await,
            Some(Kind::Certificates(certificates)) => {
                self.offered.add(certificates.chain).map_err(Ended::Refused)
            }
            Some(Kind::Heartbeat(heartbeat)) => {
                self.heartbeat(heartbeat).await;
                Ok(())
            }
            Some(Kind::Hello(_)) => Err(refuse(Refusal::OutOfOrder, "a second Hello")),
            None => Ok(()), // a later version's message
        }
    }

    async fn batch(&mut self, batch: wire::SealedBatch) -> Result<(), Ended> {
        let peer = self.connection.peer().id.clone();
        let bytes = batch.encoded_len() as u64;
        let checked = checks::check(
            batch,
            &peer,
            &self.shared.allowed,
            &self.shared.signers,
            &mut self.offered,
        )
        .await;
        match checked {
            Ok(incoming) => {
                let lane = incoming.seal.lane;
                if !self.lanes.contains(&lane) {
                    return Err(refuse(
                        Refusal::OutOfOrder,
                        "a batch of a lane that Hello did not name",
                    ));
                }
                let size = Size {
                    lane,
                    events: u64::from(incoming.seal.payload.events),
                    bytes,
                };
                let ordinal = self.replies.owe(size);
                self.admission.push(ordinal, incoming);
                Ok(())
            }
            Err(Unfit::Rejected { reason, detail }) => {
                // Its lane is not known, or not believed.
                let ordinal = self.replies.owe(Size {
                    lane: Lane::Routine,
                    events: 0,
                    bytes,
                });
                self.replies.reject(ordinal, reason, detail);
                Ok(())
            }
            Err(Unfit::Refused(refusal)) => {
                self.shared.metrics.taken(Lane::Routine);
                self.shared
                    .metrics
                    .became(Lane::Routine, Outcome::Unanswered, 0, bytes);
                Err(Ended::Refused(refusal))
            }
        }
    }

    async fn heartbeat(&mut self, heartbeat: wire::Heartbeat) {
        let peer = self.connection.peer().id.clone();
        let due = self
            .statement_at
            .is_none_or(|at| at.elapsed() >= STATEMENT_EVERY);
        let signed = heartbeat.statement.as_ref().filter(|_| due);
        let statement = match signed {
            Some(signed) => self.statement(signed).await,
            None => None,
        };
        if signed.is_some() {
            self.statement_at = Some(Instant::now());
        }
        if signed.is_some() && statement.is_none() {
            self.shared.refused(
                self.connection.peer(),
                "statement",
                "it is not the peer's own or not signed by it",
            );
        }
        self.shared.peers.heartbeat(&peer, &heartbeat, statement);
    }

    /// A statement that the peer itself has signed. Others are worth nothing, and nothing depends on them.
    async fn statement(&mut self, signed: &wire::SignedStatement) -> Option<Statement> {
        let said = Statement::decode(&signed.statement).ok()?;
        let fingerprint = Hash::try_from(&signed.signer[..]).ok()?;
        let signer = self
            .shared
            .signers
            .at(
                &fingerprint,
                std::time::SystemTime::now(),
                &mut self.offered,
            )
            .await
            .ok()?;
        let own = said.sealer == signer.id && signer.id == self.connection.peer().id;
        (own && statement::verify(signed, &signer.key, signer.id.trust_domain()).is_ok())
            .then_some(said)
    }

    /// Sends what is known now in one go: one Ack a commit.
    async fn reply(&mut self, reply: Reply) -> Result<(), Ended> {
        let mut next = Some(reply);
        let mut to_ack = false;
        while let Some(reply) = next {
            match reply {
                Reply::Stored => to_ack = true,
                Reply::Rejected {
                    ordinal,
                    reason,
                    detail,
                } => {
                    // Says as well that everything before it is stored.
                    to_ack = false;
                    self.shared
                        .refused(self.connection.peer(), reason.word(), &detail);
                    let reject = wire::Reject {
                        ordinal,
                        reason: reason.into(),
                        detail,
                    };
                    self.tell(wire::server_message::Kind::Reject(reject))
                        .await?;
                }
                Reply::Failed(error) => {
                    if to_ack {
                        // What was stored before it: the last ordinal is the one that failed.
                        self.ack(self.replies.through() - 1).await?;
                    }
                    if matches!(error, BufferError::Full { .. }) {
                        self.throttle().await?;
                    }
                    return Err(Ended::Refused(error.into()));
                }
            }
            next = self.replies.try_next();
        }
        if to_ack {
            self.ack(self.replies.through()).await?;
        }
        Ok(())
    }

    async fn ack(&mut self, through: u64) -> Result<(), Ended> {
        self.tell(wire::server_message::Kind::Ack(wire::Ack {
            through,
            at_center: Vec::new(),
        }))
        .await
    }

    /// Asks the client again and again to hold back while its routine batches find no room, and tells it when they do.
    async fn keep_throttled(&mut self, blocked: bool) -> Result<(), Ended> {
        let full = !self.shared.store.has_room();
        match self.throttled_at {
            None if blocked && full => self.throttle().await,
            Some(at) if full && at.elapsed() >= THROTTLE_EVERY => self.throttle().await,
            Some(_) if !full => {
                self.throttled_at = None;
                let resume = wire::Throttle {
                    pause_milliseconds: 0,
                    alerts_too: false,
                    reason: String::new(),
                };
                self.tell(wire::server_message::Kind::Throttle(resume))
                    .await
            }
            _ => Ok(()),
        }
    }

    async fn throttle(&mut self) -> Result<(), Ended> {
        self.throttled_at = Some(Instant::now());
        let throttle = wire::Throttle {
            pause_milliseconds: u32::try_from(THROTTLE_FOR.as_millis()).unwrap_or(u32::MAX),
            alerts_too: false,
            reason: "no_room: the buffer is full until its outputs have moved on".to_owned(),
        };
        self.tell(wire::server_message::Kind::Throttle(throttle))
            .await
    }

    async fn tell(&mut self, kind: wire::server_message::Kind) -> Result<(), Ended> {
        let message = wire::ServerMessage { kind: Some(kind) };
        match timeout(TAKEN_WITHIN, self.outbound.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Ended::Gone),
        }
    }
}

fn refuse(why: Refusal, detail: &str) -> Ended {
    Ended::Refused(Refused::new(why, detail))
}
