//! A source with real sockets on loopback and real senders, its spool on a disk in memory.

mod senders;
mod stored;
mod streams;

use std::{
    io::Write as _,
    net::{TcpStream, UdpSocket},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use watchline_proto::{Lane, payload::PayloadOpener};
use watchline_spool::{
    Frame, Options,
    testing::{FailingDisk, Fault, Operation},
};

use super::*;
use crate::{
    batch::{Batch, Moment},
    lanes::AlertRule,
    metrics::Metrics,
    sources::{Buffers, Common},
};

/// Nothing here takes so long; a test that waits for it has failed.
const LONG: Duration = Duration::from_secs(30);

const PACE: Pace = Pace {
    first_retry: Duration::from_millis(5),
    last_retry: Duration::from_millis(20),
    handshake: Duration::from_millis(300),
    count_drops: Duration::from_millis(20),
    ..Pace::USUAL
};

/// One event as a frame has it.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    lane: Lane,
    body: Vec<u8>,
    severity: u8,
    time_unix_nano: Option<i64>,
    attributes: Vec<(String, String)>,
}

impl Event {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name)?;
        Some(&found.1)
    }

    fn is_gap(&self) -> bool {
        self.attribute("watchline.gap.reason").is_some()
    }
}

/// The reader's thread, in short.
struct Host {
    config: SyslogConfig,
    lanes: Lanes,
    disk: FailingDisk,
    spool: Spool,
    source: Option<SyslogSource>,
    batch: Batch,
    metrics: Metrics,
    waker: crate::sources::feed::Waker,
    woken: mpsc::Receiver<()>,
    /// In frames that are synced, and in those that are not yet.
    stored: Vec<Event>,
    appended: Vec<Event>,
}

impl Host {
    fn new(listen: &[&str]) -> Host {
        let (wake, woken) = mpsc::channel();
        let disk = FailingDisk::new();
        let (spool, _) = open_spool(&disk);
        let listen = listen.iter().map(|listen| match listen.split_once("://") {
            Some(("udp", rest)) => Listen::Udp(rest.parse().unwrap()),
            Some(("tcp", rest)) => Listen::Tcp(rest.parse().unwrap()),
            Some(("tls", rest)) => Listen::Tls(rest.parse().unwrap()),
            Some(("unix", rest)) => Listen::UnixDatagram(rest.into()),
            Some(("unix-stream", rest)) => Listen::UnixStream(rest.into()),
            _ => panic!("{listen}"),
        });
        Host {
            config: SyslogConfig {
                name: "s".into(),
                common: Common::default(),
                listen: listen.collect(),
                max_record: 1024,
                max_connections: 8,
                buffer_bytes: 1 << 20,
                tls: None,
            },
            lanes: Lanes::new(Vec::new()),
            disk,
            spool,
            source: None,
            batch: Batch::new(64 << 10),
            metrics: Metrics::default(),
            waker: Arc::new(move || {
                let _ = wake.send(());
            }),
            woken,
            stored: Vec::new(),
            appended: Vec::new(),
        }
    }

    /// One that listens already.
    fn listening(listen: &[&str]) -> Host {
        let mut host = Host::new(listen);
        host.wait_until_bound();
        host
    }

    fn outside(&self) -> Outside {
        Outside {
            own: Arc::default(),
            waker: Arc::clone(&self.waker),
            metrics: self.metrics.clone(),
        }
    }

    fn source(&mut self) -> &mut SyslogSource {
        let outside = self.outside();
        let Host {
            source,
            config,
            lanes,
            spool,
            ..
        } = self;
        source.get_or_insert_with(|| {
            SyslogSource::open_at(SourceNo(0), config.clone(), outside, lanes, spool, PACE)
        })
    }

    /// Reads what is there and appends it, unsynced.
    fn turn(&mut self) {
        self.source();
        let mut buffers = Buffers::default();
        loop {
            let (source, now) = (self.source.as_mut().unwrap(), Moment::now());
            let mut intake = Intake {
                batch: &mut self.batch,
                lanes: &mut self.lanes,
                buffers: &mut buffers,
                now,
            };
            source.look(&Hints::default(), true, &mut intake);
            let mut more = true;
            while more && !intake.batch.is_due() {
                more = source.is_ready() && source.read(&mut intake);
            }
            if self.batch.is_empty() && !source.owes_state() {
                return;
            }
            for lane in Lane::ALL {
                if let Some(payload) = self.batch.finish(lane, now) {
                    let opened = PayloadOpener::new()
                        .open(&payload.bytes, &payload.info)
                        .unwrap();
                    self.appended.extend(opened.events().map(|event| {
                        Event {
                            lane,
                            body: event.body.to_vec(),
                            severity: event.severity,
                            time_unix_nano: event.time_unix_nano,
                            attributes: event
                                .attributes
                                .iter()
                                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                                .chain(event.origin.attributes.clone())
                                .collect(),
                        }
                    }));
                }
            }
            let mut state = Vec::new();
            source.moved(&mut state);
            let frame = Frame {
                state,
                ..Frame::default()
            };
            self.spool.append(&frame).unwrap();
        }
    }

    fn sync(&mut self) {
        self.spool.sync().unwrap();
        self.stored.append(&mut self.appended);
        if let Some(source) = &mut self.source {
            source.synced(&self.spool);
        }
    }

    /// The disk loses what is not synced, as after a failed sync.
    fn lose_unsynced(&mut self) {
        if self.spool.needs_sync() {
            self.disk.fail(Fault {
                operation: Operation::Sync,
                after: 0,
                times: 1,
                errno: 5,
            });
            assert!(self.spool.sync().is_err());
            self.spool.reopen().unwrap();
        }
        self.appended.clear();
        self.batch.clear();
        if let Some(source) = &mut self.source {
            source.rewind(&self.spool);
        }
    }

    /// Turns, synced, until `done`.
    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Host) -> bool) {
        let since = Instant::now();
        loop {
            self.turn();
            self.sync();
            if done(self) {
                return;
            }
            assert!(since.elapsed() < LONG, "{what}: {:#?}", self.stored);
            let _ = self.woken.recv_timeout(Duration::from_millis(20));
        }
    }

    fn wait_for_events(&mut self, count: usize) {
        self.wait(&format!("{count} events"), |host| {
            host.stored.len() >= count
        });
        assert_eq!(self.stored.len(), count, "{:#?}", self.stored);
    }

    fn wait_for_closing(&mut self, closing: Closing, count: u64) {
        self.wait(&format!("{closing:?}"), |host| {
            host.metrics.syslog_closed_so_far(closing) == count
        });
    }

    fn wait_until_bound(&mut self) {
        self.wait("listening", |host| {
            let status = host.source().status();
            let all = host.config.listen.len();
            status.files.len() == all
                && host
                    .source()
                    .listening
                    .iter()
                    .all(|one| one.shared.standings().iter().all(|one| one.bound.is_some()))
        });
    }

    /// Stops, and reads what was received to its end.
    fn stop(&mut self) {
        self.source().stop();
        self.wait("the end", |host| !host.source().is_ready());
        self.source = None;
    }

    /// The port that the entry of `listen` got.
    fn port(&mut self, no: usize) -> u16 {
        let bound = self.source().status().files[no].path.clone();
        bound.rsplit(':').next().unwrap().parse().unwrap()
    }

    fn tcp(&mut self, no: usize) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port(no))).unwrap()
    }

    fn bodies(&self) -> Vec<&str> {
        self.stored
            .iter()
            .filter(|event| !event.is_gap())
            .map(Event::text)
            .collect()
    }

    fn gaps(&self, reason: &str) -> Vec<Option<u64>> {
        let of = |event: &&Event| event.attribute("watchline.gap.reason") == Some(reason);
        let records = |event: &Event| {
            let records = event.attribute("watchline.gap.records")?;
            Some(records.parse().unwrap())
        };
        self.stored.iter().filter(of).map(records).collect()
    }
}

fn open_spool(disk: &FailingDisk) -> (Spool, watchline_spool::Recovery) {
    let options = Options {
        max_bytes: 64 << 20,
        reserve_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    Spool::open(Arc::new(disk.clone()), Path::new("/spool"), options).unwrap()
}

fn udp_to(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
}

#[test]
fn a_record_over_udp_is_kept_byte_for_byte_with_what_its_header_says() {
    let mut host = Host::listening(&["udp://127.0.0.1:0"]);
    let record = b"<165>1 2003-10-11T22:14:15.003Z web-1 evntslog 77 ID47 - a\0b\nc\xff ";
    let sender = udp_to(host.port(0));
    sender.send(record).unwrap();
    sender.send(b"").unwrap();
    sender.send(b"no header").unwrap();
    host.wait_for_events(2);
    let event = &host.stored[0];
    assert_eq!(event.body, record);
    assert_eq!((event.lane, event.severity), (Lane::Routine, 10));
    assert_eq!(event.time_unix_nano, Some(1_065_910_455_003_000_000));
    for (name, value) in [
        ("syslog.facility", "local4"),
        ("syslog.hostname", "web-1"),
        ("syslog.appname", "evntslog"),
        ("syslog.procid", "77"),
        ("syslog.msgid", "ID47"),
        ("network.peer.address", "127.0.0.1"),
        ("network.transport", "udp"),
    ] {
        assert_eq!(event.attribute(name), Some(value), "{name}");
    }
    assert_eq!(event.attributes.len(), 7);
    let event = &host.stored[1];
    assert_eq!((event.severity, event.time_unix_nano), (0, None));
    assert_eq!(event.attributes.len(), 2, "{event:?}");
}

#[test]
fn a_severity_in_the_header_makes_an_alert_where_a_rule_says_so() {
    let mut host = Host::new(&["udp://127.0.0.1:0"]);
    host.lanes = Lanes::new(vec![AlertRule {
        name: "severe".into(),
        matches: Vec::new(),
        sources: Vec::new(),
        min_severity: Some(17),
        max_rate: 10,
        ..AlertRule::default()
    }]);
    host.wait_until_bound();
    let sender = udp_to(host.port(0));
    sender.send(b"<11>error").unwrap();
    sender.send(b"<14>information").unwrap();
    host.wait_for_events(2);
    let lanes: Vec<Lane> = host.stored.iter().map(|event| event.lane).collect();
    assert_eq!(lanes, [Lane::Alert, Lane::Routine]);
    assert_eq!(
        host.stored[0].attribute("watchline.alert.rule"),
        Some("severe")
    );
}

#[test]
fn a_port_in_use_is_said_and_taken_as_soon_as_it_is_free() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut host = Host::new(&[&format!("udp://{address}"), "tcp://127.0.0.1:0"]);
    host.wait("the trouble", |host| {
        host.source().status().trouble.is_some()
    });
    let trouble = host.source().status().trouble.unwrap();
    assert!(
        trouble.contains(&address.to_string()) && trouble.contains("in use"),
        "{trouble}"
    );
    host.wait("the other socket", |host| host.port(1) != 0);
    drop(other);
    host.wait_until_bound();
    assert_eq!(host.source().status().trouble, None);
    udp_to(address.port()).send(b"<13>x").unwrap();
    host.wait_for_events(1);
}

#[test]
fn a_reload_listens_elsewhere_and_loses_nothing_that_was_received() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    let mut before = host.tcp(0);
    before.write_all(b"<13>before\n").unwrap();
    host.wait_for_events(1);
    before.write_all(b"<13>meanwhile\n").unwrap();
    let mut config = host.config.clone();
    config.listen = vec![Listen::Udp("127.0.0.1:0".parse().unwrap())];
    host.config = config.clone();
    let lanes = Lanes::new(Vec::new());
    assert!(
        host.source()
            .reconfigure(SourceNo(0), &SourceConfig::Syslog(config), &lanes)
    );
    host.wait("the end of the one before", |host| {
        host.source().listening.len() == 1
    });
    host.wait_until_bound();
    udp_to(host.port(0)).send(b"<13>after").unwrap();
    host.wait_for_events(3);
    assert_eq!(host.bodies(), ["<13>before", "<13>meanwhile", "<13>after"]);
}
