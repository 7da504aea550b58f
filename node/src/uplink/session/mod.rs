//! One stream, from Welcome to its end.

mod answers;
mod ending;
mod frontier;
mod held;
mod send;

use std::{collections::VecDeque, future::Future, path::PathBuf, pin::Pin, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;
use watchline_proto::{Lane, wire};
use watchline_spool::{ItemNo, LANES, View};

use self::ending::connecting;
use super::{
    Connector, Forked, LineError, Shared, UplinkConfig,
    connect::{Opened, cut},
    retry::Endpoints,
    signer::Signer,
    window::Window,
};
use crate::identity::Identity;

/// A stream that lives this long without being refused has proved itself, even if nothing was there to be acknowledged.
const PROVED_AFTER: Duration = Duration::from_secs(5);
/// How often `quarantine/retry` is looked at.
const LOOK_FOR_RETRIES: Duration = Duration::from_secs(1);
/// Out of quarantine at a time.
const RETRIES_AT_ONCE: usize = 4;
/// For the other end to finish a stream that we have ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long acknowledgements of the old stream are awaited once the new one is open.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// What a server may let us have in flight at most, a lane: what is in flight is kept in memory.
const MAX_IN_FLIGHT_BYTES: u64 = 8 << 20;
/// Rejects in a row that end a stream.
const REJECTS_IN_A_ROW: u32 = 3;
/// A pause that a server may ask for at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a stream ended.
pub(super) enum Ended {
    /// In order, after stop.
    Stopped,
    Lost(LineError),
    /// The server drained it. The successor is open, or nobody else answers.
    Drained {
        successor: Option<Box<Opened>>,
    },
    TooManyRejects,
    /// A refused batch could not be kept.
    Unwritable(String),
    Forked(Forked),
}

pub(super) struct Session<'a, C> {
    config: &'a UplinkConfig,
    identity: &'a Identity,
    connector: &'a C,
    view: &'a View,
    reader_name: &'a str,
    shared: &'a mut Shared,
    endpoints: &'a mut Endpoints,
    line: Opened,
    window: Window,
    signer: Signer,
    /// Chosen already; at most one batch with the certificates it needs, and a heartbeat.
    outbox: VecDeque<wire::ClientMessage>,
    /// Out of quarantine, to be offered again; at most [`RETRIES_AT_ONCE`].
    again: VecDeque<(PathBuf, Lane, Bytes)>,
    paused_until: [Option<Instant>; 2],
    /// The last answer, or when something was first in flight after none was.
    answered_at: Instant,
    forked: Option<Fork>,
    draining: Option<Draining>,
    proved: bool,
}

/// A fork that was met; said to the owner when nothing is in flight any more.
struct Fork {
    lane: Lane,
    /// First contradicted item, per lane.
    from: [Option<ItemNo>; LANES],
    stored: [Vec<ItemNo>; LANES],
}

/// Opens a successor; `None` when nobody answers.
type Connecting = Pin<Box<dyn Future<Output = Option<Box<Opened>>> + Send>>;

/// What a stream waits for.
enum Event {
    Received(Result<Option<wire::ServerMessage>, tonic::Status>),
    /// The request channel takes one more message, or is gone.
    Room {
        open: bool,
    },
    Successor(Option<Box<Opened>>),
    Beat,
    Retries,
    PauseOver,
    Proved,
    NoAnswer,
    HandOverDue,
    LifeOver,
    /// Something changed: look what can be done.
    Look,
}

struct Draining {
    /// Asked for by the server; else our own wish, and the stream goes on if nobody else answers.
    asked: bool,
    connecting: Option<Connecting>,
    successor: Option<Box<Opened>>,
    /// What is in flight is no longer waited for.
    deadline: Instant,
}

impl<'a, C: Connector> Session<'a, C> {
    #[expect(
        clippy::too_many_arguments,
        reason = "what the uplink lends to a stream, once"
    )]
    pub(super) fn new(
        config: &'a UplinkConfig,
        identity: &'a Identity,
        connector: &'a C,
        view: &'a View,
        reader_name: &'a str,
        shared: &'a mut Shared,
        endpoints: &'a mut Endpoints,
        line: Opened,
    ) -> Session<'a, C> {
        let window = Window::new(line.welcome.in_flight_bytes.min(MAX_IN_FLIGHT_BYTES));
        Session {
            config,
            identity,
            connector,
            view,
            reader_name,
            shared,
            endpoints,
            line,
            window,
            signer: Signer::default(),
            outbox: VecDeque::new(),
            again: VecDeque::new(),
            paused_until: [None; 2],
            answered_at: Instant::now(),
            forked: None,
            draining: None,
            proved: false,
        }
    }

    /// Ends with the spool's reader at the first item of each lane that was not acknowledged. The flag: something was
    /// acknowledged, or the stream has stayed up.
    pub(super) async fn run(
        mut self,
        stop: &CancellationToken,
        over: &CancellationToken,
    ) -> (Ended, bool) {
        self.endpoints.settle_on(&self.line.endpoint);
        self.shared.report.connected(self.line.endpoint.to_string());
        info!(uplink = %self.config.name, endpoint = %self.line.endpoint, server = cut(&self.line.welcome.software, 128), "uplink is up");
        self.shared.owner.welcomed(self.epochs_held());
        let ended = match self.skip_held().await {
            Some(forked) => Ended::Forked(forked),
            None => self.carry(stop, over).await,
        };
        let frontier = self.frontier();
        self.shared.feed.rewind(frontier).await;
        (ended, self.proved)
    }

    async fn carry(&mut self, stop: &CancellationToken, over: &CancellationToken) -> Ended {
        let up_since = Instant::now();
        let mut life_ends = up_since + self.life();
        let every = self.heartbeat_interval();
        let mut heartbeat = interval_at(up_since, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retries = interval_at(up_since, LOOK_FOR_RETRIES);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.tell_holes();
            if let Some(failure) = self.shared.feed.failure() {
                return Ended::Lost(LineError::Spool(failure));
            }
            let stopping = stop.is_cancelled();
            if self.window.is_empty() && self.outbox.is_empty() {
                if self.forked.is_some() {
                    let forked = self.said_fork();
                    self.close().await;
                    return Ended::Forked(forked);
                }
                if stopping && self.again.is_empty() && !self.has_next() {
                    self.say_goodbye().await;
                    return Ended::Stopped;
                }
            }
            if over.is_cancelled() {
                self.say_goodbye().await;
                return Ended::Stopped;
            }
            if let Some(ended) = self.handed_over().await {
                return ended;
            }
            // Nothing new is chosen once this stream is about to end; what is in flight is waited for.
            let holds = self.forked.is_some()
                || self
                    .draining
                    .as_ref()
                    .is_some_and(|d| d.connecting.is_none());
            if !holds {
                self.shared.feed.fill();
            }
            let sends = !self.outbox.is_empty() || !holds && self.choice(true).is_some();
            let gate_shut = !sends && !holds && self.choice(false).is_some();
            let pause = self.paused_until.into_iter().flatten().min();
            let answer_by = self.answered_at + self.config.answer_within;
            let hand_over_by = self.draining.as_ref().map(|d| d.deadline);
            let event = tokio::select! {
                biased;
                message = self.line.inbound.message() => Event::Received(message),
                // Nobody else sends here: the room that was seen stays.
                permit = self.line.outbound.reserve(), if sends => Event::Room { open: permit.is_ok() },
                successor = connecting(&mut self.draining) => Event::Successor(successor),
                () = self.line.gate.opened(), if gate_shut => Event::Look,
                () = self.shared.feed.filled() => Event::Look,
                () = self.shared.more.notified(), if !holds => Event::Look,
                _ = heartbeat.tick() => Event::Beat,
                _ = retries.tick(), if !holds => Event::Retries,
                () = sleep_until(pause.unwrap_or(up_since)), if pause.is_some() => Event::PauseOver,
                () = sleep_until(up_since + PROVED_AFTER), if !self.proved => Event::Proved,
                () = sleep_until(answer_by), if !self.window.is_empty() => Event::NoAnswer,
                () = sleep_until(hand_over_by.unwrap_or(up_since)), if hand_over_by.is_some() => Event::HandOverDue,
                () = sleep_until(life_ends), if self.draining.is_none() && !stopping => Event::LifeOver,
                () = stop.cancelled(), if !stopping => Event::Look,
                () = over.cancelled() => Event::Look,
            };
            let ended = match event {
                Event::Received(Ok(Some(message))) => self.receive(message).await,
                Event::Received(_) if self.moves() => Some(self.drained()),
                Event::Received(Ok(None)) => Some(Ended::Lost(LineError::Ended)),
                Event::Received(Err(status)) => Some(Ended::Lost(self.line.explain(status))),
                Event::Room { open: true } => self.send().await,
                Event::Room { open: false } => Some(self.ended_by_server().await),
                Event::Successor(successor) => {
                    self.succeeded_by(successor);
                    None
                }
                Event::Beat => self.beat(),
                Event::Retries => {
                    self.look_for_retries();
                    None
                }
                Event::PauseOver => {
                    self.resume();
                    None
                }
                Event::Proved => {
                    self.prove();
                    None
                }
                Event::NoAnswer => Some(Ended::Lost(LineError::Timeout("acknowledgement"))),
                Event::HandOverDue => self.hand_over_due(),
                Event::LifeOver => {
                    life_ends = Instant::now() + self.life();
                    self.move_on();
                    None
                }
                Event::Look => None,
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }
}
