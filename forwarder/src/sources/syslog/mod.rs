//! `kind = "syslog"`: records that others send, over UDP, TCP, TLS and local sockets.
//!
//! **Promise.** The body of an event is a record as it was received, without its framing. Severity, time and the attributes `syslog.*` are
//! what its header says, read as RFC 5424 or RFC 3164 has it; `network.transport`, `network.peer.address` and `tls.client.subject` are what
//! we know of the sender. A sender over UDP can claim any address.
//!
//! **Exact** is what was taken off a socket: it is in a frame once, in the order of its connection, also when the spool's disk fails and
//! what was not synced has to be sealed again. **Not exact** can be what was never taken, as syslog has no acknowledgement:
//!
//! | what | then |
//! |---|---|
//! | the reader stands still | the feed fills up; TCP, TLS and local senders wait. UDP: the kernel drops, its count becomes a gap `udp_overflow` |
//! | the disk fails, and more than `buffer` bytes were not synced yet | gap `not_stored` with the count |
//! | the process is killed | gap `not_stored` without a count at the next start: at most what the feed held |
//! | a stop | listening ends, sockets are read until they are silent, at most for a second, and all of it is stored |
//!
//! Memory: `buffer` bytes of records not taken and as many not synced, and [`listener`]'s.

mod closing;
mod connections;
mod datagrams;
mod drops;
mod framing;
mod header;
mod listener;
mod position;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use watchline_spool::Spool;

pub(crate) use self::{
    closing::Closing,
    settings::{Listen, SyslogConfig},
    tls::TlsFiles,
};
use self::{
    header::Header,
    listener::{Listening, Pace, Received},
    position::Position,
    settings::Transport,
};
use super::{
    FileStatus, Intake, Outside, Place, Record, Source, SourceConfig, SourceStatus, Stamps, Zone,
};
use crate::{
    batch::SourceNo,
    gaps::{Gap, GapReason},
    hints::Hints,
    lanes::Lanes,
};

/// The kind's name.
pub(crate) const KIND: &str = "syslog";

/// One turn takes records of about so many bytes, then the next source has its turn.
const BLOCK_BYTES: usize = 128 << 10;

/// A record and its number among all that were ever received.
type Numbered = (u64, Received);

/// See the module.
pub(crate) struct SyslogSource {
    config: SyslogConfig,
    outside: Outside,
    pace: Pace,
    /// By transport.
    places: Vec<Place>,
    /// The last one listens; those before it were changed or stopped, and are read to their end.
    listening: Vec<Listening>,
    /// Taken, and perhaps not stored.
    kept: VecDeque<Numbered>,
    kept_bytes: usize,
    /// Taken once, and to be taken again: they were not stored.
    again: VecDeque<Numbered>,
    /// The number of the next record from outside.
    fresh: u64,
    /// The number of the next record that a frame will hold. What lies between this and the next that is there is lost.
    next: u64,
    /// Datagrams that the kernel dropped, over all runs; those up to `overflow_said` are in a gap.
    overflowed: Arc<AtomicU64>,
    overflow_said: u64,
    /// What was stored when this run began, as its own number.
    began: Position,
    /// The run before did not end: something may be missing, and no frame of this run says so yet.
    before_broke: bool,
    stamps: Stamps,
    /// The host's: what stamps without an offset are in.
    zone: Option<Zone>,
    stopped: bool,
    /// All that was received is taken, after the stop.
    closed: bool,
    /// The position has to be stored.
    moved: bool,
}

impl SyslogSource {
    pub(crate) fn open(
        no: SourceNo,
        config: SyslogConfig,
        outside: Outside,
        lanes: &Lanes,
        spool: &Spool,
    ) -> SyslogSource {
        SyslogSource::open_at(no, config, outside, lanes, spool, Pace::USUAL)
    }

    fn open_at(
        no: SourceNo,
        config: SyslogConfig,
        outside: Outside,
        lanes: &Lanes,
        spool: &Spool,
        pace: Pace,
    ) -> SyslogSource {
        let stored = stored(&config.name, spool).unwrap_or_default();
        let overflowed = Arc::new(AtomicU64::new(stored.overflowed));
        let mut source = SyslogSource {
            places: places(no, &config, lanes),
            config,
            outside,
            pace,
            listening: Vec::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            again: VecDeque::new(),
            fresh: stored.taken,
            next: stored.taken,
            overflowed,
            overflow_said: stored.overflowed,
            began: Position {
                run: stored.run.wrapping_add(1),
                ..stored
            },
            before_broke: stored.is_open,
            stamps: Stamps::default(),
            zone: Zone::host(),
            stopped: false,
            closed: false,
            moved: true,
        };
        source.listen();
        source
    }

    fn listen(&mut self) {
        self.listening.push(Listening::start(
            &self.config,
            Arc::clone(&self.overflowed),
            Arc::clone(&self.outside.waker),
            self.outside.metrics.clone(),
            self.pace,
        ));
    }

    fn position(&self) -> Position {
        Position {
            is_open: !self.closed,
            run: self.began.run,
            taken: self.next,
            overflowed: self.overflow_said,
        }
    }

    /// What is lost for certain, said in the frame that passes it.
    fn say_losses(&mut self, intake: &mut Intake<'_>) {
        let name = &self.config.name;
        let mut say = |reason, records, detail: String| {
            let gap = Gap {
                records,
                source: Some(name.clone()),
                ..Gap::new(reason, detail)
            };
            intake.batch.push_gap(&gap, intake.now);
        };
        if std::mem::take(&mut self.before_broke) {
            let detail = "the forwarder did not end in order: what it had received and not stored is missing, if there was any";
            say(GapReason::NotStored, None, detail.to_owned());
            self.moved = true;
        }
        let there = self.again.front().map_or(self.fresh, |(no, _)| *no);
        if there > self.next {
            let lost = there - self.next;
            let detail = format!(
                "the spool's disk failed: {lost} records that had been received could not be kept"
            );
            say(GapReason::NotStored, Some(lost), detail);
            self.next = there;
            self.moved = true;
        }
        let overflowed = self.overflowed.load(Ordering::Acquire);
        if overflowed > self.overflow_said {
            let lost = overflowed - self.overflow_said;
            let detail = format!(
                "the kernel dropped {lost} datagrams: they came faster than they could be read"
            );
            say(GapReason::UdpOverflow, Some(lost), detail);
            self.overflow_said = overflowed;
            self.moved = true;
        }
    }

    fn has_losses(&self) -> bool {
        let there = self.again.front().map_or(self.fresh, |(no, _)| *no);
        self.before_broke
            || there > self.next
            || self.overflowed.load(Ordering::Acquire) > self.overflow_said
    }

    fn take(&mut self, received: &Received, intake: &mut Intake<'_>) -> bool {
        let framed = &received.framed;
        let header = Header::read(&framed.body, !received.transport.is_local());
        let (zone, now) = (self.zone.as_ref(), intake.now.unix_nano);
        let stamp = self.stamps.read(&framed.body, zone, now);
        let peer = received.peer.as_deref();
        let attributes = [
            ("syslog.facility", header.facility),
            ("syslog.hostname", header.hostname),
            ("syslog.appname", header.appname),
            ("syslog.procid", header.procid),
            ("syslog.msgid", header.msgid),
            (
                "network.peer.address",
                peer.and_then(|peer| peer.address.as_deref()),
            ),
            (
                "tls.client.subject",
                peer.and_then(|peer| peer.subject.as_deref()),
            ),
            ("watchline.partial", framed.partial.then_some("true")),
        ];
        let mut known = [("", ""); 8];
        let mut count = 0;
        for (name, value) in attributes {
            if let Some(value) = value {
                known[count] = (name, value);
                count += 1;
            }
        }
        let record = Record {
            body: &framed.body,
            cut_bytes: framed.cut,
            time_unix_nano: stamp.time_unix_nano,
            severity: header.severity,
            attributes: &known[..count],
            ..Record::default()
        };
        intake.take(&self.places[received.transport as usize], &record)
    }

    /// Keeps what was taken until it is stored, as far as there is room.
    fn keep(&mut self, no: u64, received: Received) {
        self.kept_bytes += received.bytes();
        self.kept.push_back((no, received));
        while self.kept_bytes > self.config.buffer_bytes {
            let Some((_, oldest)) = self.kept.pop_front() else {
                break;
            };
            self.kept_bytes -= oldest.bytes();
        }
    }

    /// Whether everything that was received has been taken.
    fn is_dry(&self) -> bool {
        self.again.is_empty()
            && self
                .listening
                .iter()
                .all(|listening| listening.shared.feed.is_empty())
    }
}

impl Source for SyslogSource {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reconfigure(&mut self, no: SourceNo, config: &SourceConfig, lanes: &Lanes) -> bool {
        let SourceConfig::Syslog(config) = config else {
            return false;
        };
        self.places = places(no, config, lanes);
        self.zone = Zone::host();
        if *config != self.config {
            self.config = config.clone();
            for listening in &self.listening {
                listening.stop();
            }
            // Binds as soon as the one before has let go.
            self.listen();
        }
        true
    }

    fn look(&mut self, _hints: &Hints, tick: bool, intake: &mut Intake<'_>) {
        self.say_losses(intake);
        if tick && self.listening.len() > 1 {
            let last = self.listening.len() - 1;
            let mut no = 0;
            self.listening.retain(|listening| {
                no += 1;
                no > last || !listening.shared.has_ended() || !listening.shared.feed.is_empty()
            });
        }
    }

    fn is_ready(&self) -> bool {
        !self.is_dry() || self.has_losses() || self.stopped && (!self.closed || self.moved)
    }

    fn read(&mut self, intake: &mut Intake<'_>) -> bool {
        // Asked before the feed is: what comes in between is in the feed.
        let ended = self.listening.iter().all(|one| one.shared.has_ended());
        self.say_losses(intake);
        let (mut bytes, mut some) = (0, false);
        while bytes < BLOCK_BYTES {
            let Some((no, received)) = self.again.pop_front() else {
                break;
            };
            if !self.take(&received, intake) {
                self.again.push_front((no, received));
                return true;
            }
            bytes += received.bytes();
            self.keep(no, received);
            (self.next, self.moved, some) = (no + 1, true, true);
        }
        for at in 0..self.listening.len() {
            while bytes < BLOCK_BYTES && self.again.is_empty() {
                let Some(received) = self.listening[at].shared.feed.pop() else {
                    break;
                };
                let size = received.bytes();
                if !self.take(&received, intake) {
                    self.listening[at].shared.feed.put_back(received, size);
                    return true;
                }
                bytes += size;
                self.keep(self.fresh, received);
                self.fresh += 1;
                (self.next, self.moved, some) = (self.fresh, true, true);
            }
        }
        if self.stopped && ended && !self.closed && self.is_dry() && !self.has_losses() {
            (self.closed, self.moved) = (true, true);
        }
        some
    }

    fn owes_state(&self) -> bool {
        self.moved
    }

    fn moved(&mut self, state: &mut Vec<(Bytes, Option<Bytes>)>) {
        if std::mem::take(&mut self.moved) {
            let key = position::key(&self.config.name);
            state.push((key, Some(self.position().encode())));
        }
    }

    fn synced(&mut self, spool: &Spool) {
        let Some(stored) = stored(&self.config.name, spool) else {
            return;
        };
        while let Some((no, _)) = self.kept.front()
            && *no < stored.taken
            && let Some((_, received)) = self.kept.pop_front()
        {
            self.kept_bytes -= received.bytes();
        }
        if self.kept.is_empty() {
            self.kept.shrink_to(64);
        }
    }

    fn rewind(&mut self, spool: &Spool) {
        let stored = stored(&self.config.name, spool).unwrap_or_default();
        self.before_broke |= self.began.is_open && stored.run != self.began.run;
        // A spool that lost its state knows less than this run began with.
        let first = stored.taken.max(self.began.taken);
        let mut again = std::mem::take(&mut self.kept);
        again.append(&mut self.again);
        again.retain(|(no, _)| *no >= first);
        self.kept_bytes = 0;
        self.again = again;
        self.next = first;
        self.overflow_said = stored.overflowed.max(self.began.overflowed);
        (self.closed, self.moved) = (false, true);
    }

    fn stop(&mut self) {
        self.stopped = true;
        for listening in &self.listening {
            listening.stop();
        }
    }

    fn directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn status(&self) -> SourceStatus {
        let standings = self
            .listening
            .last()
            .map(|one| one.shared.standings().clone());
        let standings = standings.unwrap_or_default();
        let files = self.config.listen.iter().zip(&standings);
        let files = files.map(|(listen, standing)| FileStatus {
            path: standing.bound.clone().unwrap_or_else(|| listen.to_string()),
            offset: standing.received_bytes,
            size: standing.received_bytes,
            lag_bytes: 0,
            note: standing.trouble.clone().or_else(|| {
                (standing.connections > 0).then(|| format!("{} connections", standing.connections))
            }),
        });
        SourceStatus {
            name: self.config.name.clone(),
            kind: KIND,
            files: files.collect(),
            trouble: standings.into_iter().find_map(|standing| standing.trouble),
            ..SourceStatus::default()
        }
    }
}

/// What the spool holds of a source.
fn stored(name: &str, spool: &Spool) -> Option<Position> {
    let bytes = spool.state(&position::key(name))?;
    let position = Position::decode(&bytes);
    if position.is_none() {
        tracing::error!(
            source = name,
            "the stored position cannot be read: it begins anew"
        );
    }
    position
}

fn places(no: SourceNo, config: &SyslogConfig, lanes: &Lanes) -> Vec<Place> {
    let known = (config.name.as_str(), KIND);
    let any = Place::new(
        no,
        known,
        &config.common,
        Vec::new(),
        config.max_record,
        lanes,
    );
    let place = |transport: Transport| {
        let transport = transport.as_attribute().to_owned();
        let attributes = vec![("network.transport".to_owned(), transport)];
        any.beside(&config.common, attributes)
    };
    Transport::ALL.into_iter().map(place).collect()
}
