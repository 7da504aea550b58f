//! One stream, from Welcome to its end.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    path::PathBuf,
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use watchline_proto::{ChainHeld, Epoch, HeldRange, Lane, wire};
use watchline_spool::{ItemNo, LANES, View};

use super::{
    Connector, Forked, LineError, SetAside, Shared, UplinkConfig,
    connect::{self, Opened, cut},
    retry::Endpoints,
    signer::{Signer, Unsendable, events_of, own_seal},
    status::now_unix_nano,
    window::{Sent, Unknown, What, Window},
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

/// What a stream waits for.
enum Event {
    Received(Result<Option<wire::ServerMessage>, tonic::Status>),
    /// The request channel takes one more message, or is gone.
    Room {
        open: bool,
    },
    Successor(Option<Opened>),
    Beat,
    Retries,
    PauseOver,
    Proved,
    NoAnswer,
    HandOverDue,
    /// Something changed: look what can be done.
    Look,
}

struct Draining {
    connecting: Option<Pin<Box<dyn Future<Output = Option<Opened>> + Send>>>,
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
        let window = Window::new(line.welcome.in_flight_bytes);
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
                () = stop.cancelled(), if !stopping => Event::Look,
                () = over.cancelled() => Event::Look,
            };
            let ended = match event {
                Event::Received(Ok(Some(message))) => self.receive(message).await,
                Event::Received(_) if self.draining.is_some() => Some(self.drained()),
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
                Event::HandOverDue => Some(self.drained()),
                Event::Look => None,
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// The stream takes nothing more; its status says why.
    async fn ended_by_server(&mut self) -> Ended {
        match timeout(CLOSE_WITHIN, self.line.inbound.message()).await {
            _ if self.draining.is_some() => self.drained(),
            Ok(Err(status)) => Ended::Lost(self.line.explain(status)),
            _ => Ended::Lost(LineError::Ended),
        }
    }

    /// Hands the next message to the line, which has room for it.
    async fn send(&mut self) -> Option<Ended> {
        if self.outbox.is_empty()
            && let Err(ended) = self.choose().await
        {
            return Some(ended);
        }
        if let Some(message) = self.outbox.pop_front() {
            self.line.gate.handed(message.encoded_len() as u64);
            // If the stream has ended meanwhile its status is read next, and the message is offered again.
            let _ = self.line.outbound.try_send(message);
        }
        None
    }

    // ---- what is sent

    /// The lane that is served next, if anything may be sent now: alert first. `gated`: respecting the gate.
    fn choice(&self, gated: bool) -> Option<Lane> {
        let now = Instant::now();
        Lane::ALL.into_iter().find(|lane| {
            let waiting = self
                .again
                .iter()
                .find_map(|(_, l, stored)| (l == lane).then_some(stored))
                .or_else(|| self.shared.feed.front(*lane).map(|item| &item.bytes));
            let Some(stored) = waiting else { return false };
            self.config.lanes.contains(lane)
                && self.paused_until[lane.index()].is_none_or(|until| until <= now)
                && self.window.has_room(*lane, stored.len() as u64)
                && (*lane == Lane::Alert || !gated || self.line.gate.is_open())
        })
    }

    /// Moves the next batch, with the certificates it needs, to the outbox.
    async fn choose(&mut self) -> Result<(), Ended> {
        let Some(lane) = self.choice(true) else {
            return Ok(());
        };
        let (what, stored) = match self.again.iter().position(|(_, l, _)| *l == lane) {
            Some(index) => match self.again.remove(index) {
                Some((path, _, stored)) => (What::Again(path), stored),
                None => return Ok(()),
            },
            None => match self.shared.feed.front(lane) {
                Some(item) => (What::Item(item.no), item.bytes.clone()),
                None => return Ok(()),
            },
        };
        let identity = self.identity.current();
        let ready = match self.signer.ready(&stored, &identity) {
            Ok(ready) => ready,
            Err(Unsendable::Unsigned(error)) => {
                return Err(Ended::Lost(LineError::Signature(error)));
            }
            Err(Unsendable::Defect(reason, detail)) => {
                self.set_aside(lane, &what, stored, reason, &detail).await?;
                if matches!(what, What::Item(_)) {
                    self.shared.feed.pop(lane);
                }
                self.tell_acked();
                return self.too_many_rejects().map_or(Ok(()), Err);
            }
        };
        if matches!(what, What::Item(_)) {
            self.shared.feed.pop(lane);
        }
        if let Some(chain) =
            self.signer
                .introduce(&ready.batch.signer, &identity, &*self.shared.chains)
        {
            self.outbox
                .push_back(message(wire::client_message::Kind::Certificates(chain)));
        }
        if self.window.is_empty() {
            self.answered_at = Instant::now();
        }
        self.window.push(lane, what, stored, ready.bytes, ready.own);
        self.shared
            .report
            .sent(lane, ready.bytes, self.window.bytes());
        self.outbox
            .push_back(message(wire::client_message::Kind::Batch(ready.batch)));
        Ok(())
    }

    fn has_next(&self) -> bool {
        !self.config.lanes.is_empty() && self.shared.feed.has_next()
    }

    fn heartbeat_interval(&self) -> Duration {
        match self.line.welcome.heartbeat_seconds {
            0 => self.config.heartbeat.max(Duration::from_millis(100)),
            seconds => Duration::from_secs(u64::from(seconds.min(3600))),
        }
    }

    fn beat(&mut self) -> Option<Ended> {
        let is_heartbeat = |m: &wire::ClientMessage| {
            matches!(m.kind, Some(wire::client_message::Kind::Heartbeat(_)))
        };
        if self.outbox.iter().any(is_heartbeat) {
            return None; // the line is stuck: the one that waits will do
        }
        let identity = self.identity.current();
        let vitals = self.shared.owner.vitals();
        let backlog = self.view.backlog(self.reader_name);
        let statement = match vitals
            .statement
            .map(|statement| statement.sign(&identity.key, identity.fingerprint))
        {
            None => None,
            Some(Ok(signed)) => Some(signed),
            Some(Err(error)) => return Some(Ended::Lost(LineError::Signature(error))),
        };
        if let Some(signed) = &statement
            && let Some(chain) =
                self.signer
                    .introduce(&signed.signer, &identity, &*self.shared.chains)
        {
            self.outbox
                .push_back(message(wire::client_message::Kind::Certificates(chain)));
        }
        let heartbeat = wire::Heartbeat {
            time_unix_nano: now_unix_nano(),
            backlog: Lane::ALL
                .into_iter()
                .map(|lane| {
                    let status = &backlog[lane.index()];
                    wire::LaneBacklog {
                        lane: wire::Lane::from(lane).into(),
                        bytes: status.bytes,
                        batches: status.items,
                        oldest_unix_nano: if status.items == 0 {
                            0
                        } else {
                            status.oldest_unix_nano
                        },
                    }
                })
                .collect(),
            source_last_read_unix_nano: vitals.sources_last_read,
            clock: wire::Clock::from(vitals.clock).into(),
            statement,
            relayed: vitals.relayed,
        };
        self.outbox
            .push_back(message(wire::client_message::Kind::Heartbeat(heartbeat)));
        None
    }

    fn look_for_retries(&mut self) {
        if !self.again.is_empty() || self.config.lanes.is_empty() {
            return;
        }
        let in_flight = self.window.again();
        self.again
            .extend(self.shared.quarantine.waiting(RETRIES_AT_ONCE, &in_flight));
    }

    // ---- what is received

    async fn receive(&mut self, message: wire::ServerMessage) -> Option<Ended> {
        use wire::server_message::Kind;
        self.answered_at = Instant::now();
        match message.kind {
            Some(Kind::Ack(ack)) => match self.window.ack(ack.through) {
                Ok(stored) => self.stored(stored),
                Err(Unknown) => return Some(broke("it acknowledges what was not sent")),
            },
            Some(Kind::Reject(reject)) => return self.rejected(reject).await,
            Some(Kind::Throttle(throttle)) => self.throttled(&throttle),
            Some(Kind::Drain(drain)) => self.drain(&drain),
            Some(Kind::Welcome(_)) => return Some(broke("a second Welcome")),
            None => {} // a later version's message
        }
        None
    }

    fn stored(&mut self, stored: Vec<Sent>) {
        let mut acked = [0; 2];
        for sent in &stored {
            acked[sent.lane.index()] += 1;
            match &sent.what {
                What::Again(path) => self.shared.quarantine.delivered(path),
                What::Item(item) => {
                    if let Some(fork) = &mut self.forked {
                        fork.stored[sent.lane.index()].push(*item);
                    }
                }
            }
        }
        if !stored.is_empty() {
            self.shared.rejects_in_a_row = 0;
            self.prove();
        }
        self.shared.report.answered(acked, self.window.bytes());
        self.tell_acked();
    }

    /// A Reject comes in the order of ordinals: everything before it is stored.
    async fn rejected(&mut self, reject: wire::Reject) -> Option<Ended> {
        match self.window.ack(reject.ordinal) {
            Ok(stored) => self.stored(stored),
            Err(Unknown) => return Some(broke("it rejects what was not sent")),
        }
        let Some(sent) = self.window.front().cloned() else {
            return Some(broke("it rejects what was not sent"));
        };
        let lane = sent.lane;
        match (&sent.what, reject.reason()) {
            (What::Item(item), wire::RejectReason::Fork) if sent.own => {
                warn!(uplink = %self.config.name, lane = lane.as_str(), item = item.0, detail = cut(&reject.detail, 512), "fork");
                let fork = self.forked.get_or_insert_with(|| Fork {
                    lane,
                    from: [None; LANES],
                    stored: Default::default(),
                });
                fork.from[lane.index()].get_or_insert(*item);
            }
            (what, reason) => {
                if let Err(ended) = self
                    .set_aside(lane, what, sent.stored.clone(), reason, &reject.detail)
                    .await
                {
                    return Some(ended);
                }
            }
        }
        if self.window.ack(reject.ordinal.saturating_add(1)).is_err() {
            return Some(broke("it rejects what was not sent"));
        }
        self.shared.report.answered([0; 2], self.window.bytes());
        self.tell_acked();
        self.too_many_rejects()
    }

    fn too_many_rejects(&mut self) -> Option<Ended> {
        if self.shared.rejects_in_a_row < REJECTS_IN_A_ROW {
            return None;
        }
        // One more reject ends the next stream, too, until something is stored.
        self.shared.rejects_in_a_row = REJECTS_IN_A_ROW - 1;
        Some(Ended::TooManyRejects)
    }

    /// Keeps the bytes, then tells the owner. If they cannot be kept the batch stays unacknowledged and the stream ends.
    async fn set_aside(
        &mut self,
        lane: Lane,
        what: &What,
        stored: Bytes,
        reason: wire::RejectReason,
        detail: &str,
    ) -> Result<(), Ended> {
        let events = events_of(&stored);
        let quarantine = self.shared.quarantine.clone();
        let again = match what {
            What::Again(path) => Some(path.clone()),
            What::Item(_) => None,
        };
        let kept = tokio::task::spawn_blocking(move || match again {
            None => quarantine.put(lane, reason, &stored),
            Some(path) => quarantine.refused_again(&path),
        });
        let file = match kept.await {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => return Err(Ended::Unwritable(super::chain_of(&error))),
            Err(error) => return Err(Ended::Unwritable(error.to_string())),
        };
        let item = match what {
            What::Item(item) => Some(*item),
            What::Again(_) => None,
        };
        let detail = cut(detail, 512).to_owned();
        error!(uplink = %self.config.name, lane = lane.as_str(), reason = reason.word(), detail, events,
            file = %file.display(), "a batch was refused for its own defect and is set aside");
        self.shared.report.set_aside(lane, reason.word());
        self.shared.rejects_in_a_row += 1;
        if item.is_some() {
            // What was offered again has had its gap event.
            self.shared.owner.set_aside(SetAside {
                lane,
                item,
                reason,
                detail,
                events,
                file,
            });
        }
        Ok(())
    }

    fn throttled(&mut self, throttle: &wire::Throttle) {
        let pause =
            Duration::from_millis(u64::from(throttle.pause_milliseconds)).min(LONGEST_PAUSE);
        let until = (!pause.is_zero()).then(|| Instant::now() + pause);
        self.paused_until[Lane::Routine.index()] = until;
        if throttle.alerts_too || until.is_none() {
            self.paused_until[Lane::Alert.index()] = until;
        }
        self.shared
            .report
            .throttled(until.map(|_| cut(&throttle.reason, 256).to_owned()));
    }

    fn resume(&mut self) {
        let now = Instant::now();
        for until in &mut self.paused_until {
            until.take_if(|until| *until <= now);
        }
        if self.paused_until == [None; 2] {
            self.shared.report.throttled(None);
        }
    }

    fn prove(&mut self) {
        if !self.proved {
            self.proved = true;
            self.shared.report.unparked();
        }
    }

    // ---- what is known to be held

    /// Passes over items that Welcome proves to be held: those of a listed range whose last seal is our own, by hash; the
    /// chain proves the rest of the range. A different hash there is a fork.
    async fn skip_held(&mut self) -> Option<Forked> {
        let own = self.identity.current().id.clone();
        let held = chains(&self.line.welcome.held);
        if held.is_empty() {
            return None;
        }
        for lane in Lane::ALL {
            loop {
                let Some((mut seal, mut hash)) = self
                    .shared
                    .feed
                    .peek(lane)
                    .await
                    .and_then(|item| own_seal(&item.bytes, &own))
                else {
                    break;
                };
                let first = self.shared.feed.next_item(lane);
                let Some(range) = held.get(&(seal.epoch, lane)).and_then(|ranges| {
                    ranges
                        .iter()
                        .find(|r| (r.first..r.end).contains(&seal.sequence))
                }) else {
                    break;
                };
                let proved = loop {
                    if seal.sequence + 1 == range.end {
                        break Some(hash == range.last);
                    }
                    self.shared.feed.pop(lane);
                    let next = self
                        .shared
                        .feed
                        .peek(lane)
                        .await
                        .and_then(|item| own_seal(&item.bytes, &own));
                    match next {
                        Some((next, next_hash))
                            if next.epoch == seal.epoch
                                && next.sequence == seal.sequence + 1
                                && next.previous == hash =>
                        {
                            (seal, hash) = (next, next_hash);
                        }
                        _ => break None,
                    }
                };
                if proved == Some(true) {
                    self.shared.feed.pop(lane);
                    continue;
                }
                let mut back = self.frontier();
                back[lane.index()] = first;
                self.shared.feed.rewind(back).await;
                if proved == Some(false) {
                    self.tell_acked();
                    return Some(Forked {
                        lane,
                        from: back,
                        stored: Default::default(),
                    });
                }
                break; // cannot be proved: offered, and answered one by one
            }
        }
        self.tell_acked();
        None
    }

    // ---- what the owner is told

    /// The first item of each lane that is not acknowledged.
    fn frontier(&self) -> [ItemNo; LANES] {
        let mut frontier = [ItemNo(0); LANES];
        for lane in Lane::ALL {
            let mut first = self
                .window
                .oldest(lane)
                .unwrap_or_else(|| self.shared.feed.next_item(lane));
            if let Some(forked) = self
                .forked
                .as_ref()
                .and_then(|fork| fork.from[lane.index()])
            {
                first = first.min(forked);
            }
            frontier[lane.index()] = first;
        }
        frontier
    }

    fn tell_acked(&mut self) {
        self.shared.owner.acked(self.frontier());
    }

    fn tell_holes(&mut self) {
        let holes = self.shared.feed.holes();
        if holes.is_empty() {
            return;
        }
        for hole in holes {
            self.shared.owner.hole(hole);
        }
        self.tell_acked();
    }

    fn said_fork(&mut self) -> Forked {
        let from = self.frontier();
        let Some(mut fork) = self.forked.take() else {
            return Forked {
                lane: Lane::Routine,
                from,
                stored: Default::default(),
            };
        };
        for lane in Lane::ALL {
            fork.stored[lane.index()].retain(|item| *item >= from[lane.index()]);
        }
        // The reader goes back there, too.
        self.forked = Some(Fork {
            lane: fork.lane,
            from: fork.from,
            stored: Default::default(),
        });
        Forked {
            lane: fork.lane,
            from,
            stored: fork.stored,
        }
    }

    // ---- drain and end

    fn drain(&mut self, drain: &wire::Drain) {
        if self.draining.is_some() {
            return;
        }
        info!(uplink = %self.config.name, reason = cut(&drain.reason, 256), elsewhere = drain.elsewhere, "the server asks to connect anew");
        if drain.elsewhere {
            self.endpoints.advance();
        }
        let round = self.endpoints.round();
        let (config, identity, connector) = (
            self.config.clone(),
            self.identity.clone(),
            self.connector.clone(),
        );
        let connecting = async move {
            for endpoint in round {
                match connect::open(&config, &identity, &connector, endpoint).await {
                    Ok(opened) => return Some(opened),
                    Err(error) => {
                        tracing::debug!(uplink = %config.name, %error, "no successor here")
                    }
                }
            }
            None
        };
        let within = Duration::from_secs(u64::from(drain.within_seconds.clamp(1, 60)));
        self.draining = Some(Draining {
            connecting: Some(Box::pin(connecting)),
            successor: None,
            deadline: Instant::now() + within,
        });
    }

    fn succeeded_by(&mut self, successor: Option<Opened>) {
        if let Some(draining) = &mut self.draining {
            draining.connecting = None;
            draining.successor = successor.map(Box::new);
            draining.deadline = draining.deadline.min(Instant::now() + HAND_OVER_WITHIN);
        }
    }

    /// Ends this stream once its successor is open, or is known not to come, and nothing is in flight.
    async fn handed_over(&mut self) -> Option<Ended> {
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

    fn drained(&mut self) -> Ended {
        let successor = self.draining.take().and_then(|draining| draining.successor);
        Ended::Drained { successor }
    }

    /// A last heartbeat, then the end.
    async fn say_goodbye(&mut self) {
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
    async fn close(&mut self) {
        let (gone, _) = tokio::sync::mpsc::channel(1);
        drop(std::mem::replace(&mut self.line.outbound, gone));
        let _ = timeout(CLOSE_WITHIN, async {
            while let Ok(Some(_)) = self.line.inbound.message().await {}
        })
        .await;
    }
}

async fn connecting(draining: &mut Option<Draining>) -> Option<Opened> {
    match draining.as_mut().and_then(|d| d.connecting.as_mut()) {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

fn message(kind: wire::client_message::Kind) -> wire::ClientMessage {
    wire::ClientMessage { kind: Some(kind) }
}

fn broke(what: &'static str) -> Ended {
    Ended::Lost(LineError::Protocol(what))
}

/// Welcome's list by chain. What cannot be read proves nothing.
fn chains(held: &[wire::ChainHeld]) -> BTreeMap<(Epoch, Lane), Vec<HeldRange>> {
    let mut chains: BTreeMap<_, Vec<HeldRange>> = BTreeMap::new();
    for chain in held
        .iter()
        .filter_map(|chain| ChainHeld::try_from(chain).ok())
    {
        chains
            .entry((chain.epoch, chain.lane))
            .or_default()
            .extend(chain.ranges);
    }
    chains
}
