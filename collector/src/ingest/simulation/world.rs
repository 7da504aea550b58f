//! The simulated hosts.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use watchline_node::{
    health::Checks,
    identity::{Identity, Refusals, testing::Authority},
    uplink::{
        Connector, Forked, NoChains, Owner, Queue, SetAside, Uplink, UplinkConfig, UplinkMetrics,
        UplinkStatus, Vitals,
    },
};
use watchline_proto::{
    ChainHeld, ClockState, Epoch, Hash, HeldRange, Lane, SpiffeId,
    chain::{Draft, EpochChain},
    payload::{EventMeta, Origin, PayloadBuilder},
    stored, wire,
};
use watchline_spool::{self as spool, ItemNo, LANES, Spool};

use crate::{
    buffer::{BufferError, Decision, Incoming},
    chains::ChainStore,
    ingest::{Accept, Committed, Ingest, IngestMetrics, Options, Parts, PeerStatus, Peers, Store},
};

pub(super) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A simulated network; prints its seed.
pub(super) fn network(seed: u64) -> turmoil::Sim<'static> {
    println!("seed {seed}");
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(10));
    builder.build()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, in virtual time, until `done`; looks each millisecond.
pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let within = Duration::from_secs(120);
    let reached = tokio::time::timeout(within, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(reached.await.is_ok(), "not within {within:?}: {what}");
}

// ---- the collector

/// What was stored, in the order it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredBatch {
    pub(super) sealer: SpiffeId,
    pub(super) epoch: Epoch,
    pub(super) lane: Lane,
    pub(super) sequence: u64,
    pub(super) hash: Hash,
    pub(super) peer: SpiffeId,
}

/// A double of the buffer: a ledger in memory that outlives the collector's process.
#[derive(Clone)]
pub(super) struct Memory {
    inner: Arc<Mutex<Inner>>,
    room: Arc<Semaphore>,
}

struct Inner {
    stored: Vec<StoredBatch>,
    duplicates: u64,
    has_room: bool,
    answers: bool,
    tells_held: bool,
    commit_takes: Duration,
    /// Replies that never come.
    withheld: Vec<oneshot::Sender<Result<Decision, BufferError>>>,
}

impl Memory {
    pub(super) fn new() -> Memory {
        let inner = Inner {
            stored: Vec::new(),
            duplicates: 0,
            has_room: true,
            answers: true,
            tells_held: true,
            commit_takes: Duration::from_millis(2),
            withheld: Vec::new(),
        };
        Memory {
            inner: Arc::new(Mutex::new(inner)),
            room: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    pub(super) fn stored(&self) -> Vec<StoredBatch> {
        lock(&self.inner).stored.clone()
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.inner).stored.len()
    }

    pub(super) fn duplicates(&self) -> u64 {
        lock(&self.inner).duplicates
    }

    /// Whether commits are answered; what is not answered is stored all the same.
    pub(super) fn answer(&self, answers: bool) {
        let mut inner = lock(&self.inner);
        inner.answers = answers;
        inner.withheld.clear();
    }

    pub(super) fn tell_held(&self, tells: bool) {
        lock(&self.inner).tells_held = tells;
    }

    pub(super) fn set_room(&self, has_room: bool) {
        lock(&self.inner).has_room = has_room;
    }

    pub(super) fn commit_takes(&self, duration: Duration) {
        lock(&self.inner).commit_takes = duration;
    }

    /// Another history of a chain, as if a clone of the host had been here.
    pub(super) fn plant(&self, batch: StoredBatch) {
        lock(&self.inner).stored.push(batch);
    }

    /// Each batch once, and each chain whole from 0.
    pub(super) fn assert_whole(&self, batches: usize) {
        let stored = self.stored();
        assert_eq!(stored.len(), batches, "{stored:#?}");
        let mut chains: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for batch in stored {
            chains
                .entry((batch.sealer, batch.epoch, batch.lane))
                .or_default()
                .push(batch.sequence);
        }
        for (chain, sequences) in chains {
            let expected: Vec<u64> = (0..sequences.len() as u64).collect();
            assert_eq!(sequences, expected, "{chain:?}");
        }
    }
}

impl Store for Memory {
    async fn append_if_new(&self, incoming: Incoming) -> Result<Committed, BufferError> {
        let _room = self.room.acquire().await;
        let (reply, committed) = oneshot::channel();
        let mut inner = lock(&self.inner);
        let seal = &incoming.seal;
        let same_place = inner.stored.iter().find(|b| {
            (&b.sealer, b.epoch, b.lane, b.sequence)
                == (&seal.sealer, seal.epoch, seal.lane, seal.sequence)
        });
        let before = inner.stored.iter().find(|b| {
            (&b.sealer, b.epoch, b.lane, b.sequence + 1)
                == (&seal.sealer, seal.epoch, seal.lane, seal.sequence)
        });
        let decision = match same_place {
            Some(held) if held.hash == incoming.seal_hash => Decision::Duplicate,
            Some(_) => Decision::Fork {
                detail: "another seal is held at this place".to_owned(),
            },
            None if before.is_some_and(|before| before.hash != seal.previous) => Decision::Fork {
                detail: "the chain does not continue what is held".to_owned(),
            },
            None => Decision::Stored,
        };
        match decision {
            Decision::Stored => {
                let batch = StoredBatch {
                    sealer: seal.sealer.clone(),
                    epoch: seal.epoch,
                    lane: seal.lane,
                    sequence: seal.sequence,
                    hash: incoming.seal_hash,
                    peer: incoming.direct_peer,
                };
                inner.stored.push(batch);
            }
            Decision::Duplicate => inner.duplicates += 1,
            Decision::Fork { .. } => {}
        }
        if inner.answers {
            let takes = inner.commit_takes;
            tokio::spawn(async move {
                tokio::time::sleep(takes).await;
                let _ = reply.send(Ok(decision));
            });
        } else {
            inner.withheld.push(reply);
        }
        Ok(committed)
    }

    async fn held_by(&self, sealer: &SpiffeId) -> Vec<wire::ChainHeld> {
        let inner = lock(&self.inner);
        if !inner.tells_held {
            return Vec::new();
        }
        // As these tests go, every chain is one range from 0.
        let mut last: HashMap<(Epoch, Lane), (u64, Hash)> = HashMap::new();
        for batch in inner.stored.iter().filter(|batch| batch.sealer == *sealer) {
            let entry = last
                .entry((batch.epoch, batch.lane))
                .or_insert((batch.sequence, batch.hash));
            if batch.sequence >= entry.0 {
                *entry = (batch.sequence, batch.hash);
            }
        }
        let held = last.into_iter().map(|((epoch, lane), (sequence, hash))| {
            let range = HeldRange {
                first: 0,
                end: sequence + 1,
                previous: Hash::ZERO,
                last: hash,
            };
            wire::ChainHeld::from(&ChainHeld {
                epoch,
                lane,
                ranges: vec![range],
            })
        });
        held.collect()
    }

    fn id(&self) -> [u8; 16] {
        [7; 16]
    }

    fn has_room(&self) -> bool {
        lock(&self.inner).has_room
    }
}

/// turmoil's listener.
struct SimulatedListener(turmoil::net::TcpListener);

impl Accept for SimulatedListener {
    type Io = turmoil::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(turmoil::net::TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// A collector: what is left of it when its process is killed, and what tests look at.
#[derive(Clone)]
pub(super) struct Collector {
    pub(super) identity: Identity,
    pub(super) memory: Memory,
    pub(super) metrics: IngestMetrics,
    pub(super) refusals: Refusals,
    peers: Arc<Mutex<Peers>>,
    pub(super) stop: CancellationToken,
    chains: PathBuf,
    options: Options,
}

impl Collector {
    pub(super) fn new(identity: Identity, directory: &Path, memory: Memory) -> Collector {
        let options = Options {
            limits: super::super::Limits::default(),
            allowed: Vec::new(),
            heartbeat: Duration::ZERO,
            software: "simulated".to_owned(),
        };
        Collector {
            identity,
            memory,
            metrics: IngestMetrics::default(),
            refusals: Refusals::default(),
            peers: Arc::default(),
            stop: CancellationToken::new(),
            chains: directory.join("chains"),
            options,
        }
    }

    /// The process, for `Sim::host`.
    pub(super) async fn run(self) -> Outcome {
        let listener = turmoil::net::TcpListener::bind("0.0.0.0:7443").await?;
        let parts = Parts {
            identity: self.identity.clone(),
            store: self.memory,
            chains: ChainStore::open(self.chains)?,
            refusals: self.refusals,
            metrics: self.metrics,
            ready: watch::channel(true).1,
        };
        let follow = tokio::spawn(
            self.identity
                .follow_files(Checks::new(&[]), self.stop.clone()),
        );
        let ingest = Ingest::new(self.options, parts);
        *lock(&self.peers) = ingest.peers();
        ingest.run(SimulatedListener(listener), self.stop).await?;
        follow.await?;
        Ok(())
    }

    /// What is known of a peer.
    pub(super) fn peer(&self, id: &SpiffeId) -> PeerStatus {
        lock(&self.peers).of(id).unwrap_or_default()
    }

    /// Adds a host that runs this collector, again and again as it is bounced.
    pub(super) fn join(&self, sim: &mut turmoil::Sim<'static>, name: &str) {
        let collector = self.clone();
        sim.host(name, move || collector.clone().run());
    }
}

// ---- the forwarder

/// turmoil's connections; may be told to cut one.
#[derive(Clone, Default)]
pub(super) struct SimulatedConnector;

impl Connector for SimulatedConnector {
    type Io = turmoil::net::TcpStream;

    async fn connect(&self, host: &str, port: u16) -> io::Result<turmoil::net::TcpStream> {
        turmoil::net::TcpStream::connect((host, port)).await
    }
}

/// A forwarder's spool with what its owner was told.
#[derive(Clone)]
pub(super) struct Forwarder {
    pub(super) identity: Identity,
    pub(super) owner: Arc<SpoolOwner>,
    pub(super) quarantine: PathBuf,
    pub(super) config: UplinkConfig,
}

/// Owns the spool and does at once what it is told: a thread would do in the program.
pub(super) struct SpoolOwner {
    spool: Mutex<Spool>,
    chain: Mutex<EpochChain>,
    acked: Mutex<[ItemNo; LANES]>,
    told: Mutex<Told>,
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) set_aside: Vec<SetAside>,
    pub(super) forked: Vec<Forked>,
    pub(super) holes: usize,
}

const READER: &str = "uplink";

impl SpoolOwner {
    pub(super) fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&lock(&self.told))
    }

    pub(super) fn acked(&self, lane: Lane) -> u64 {
        lock(&self.acked)[lane.index()].0
    }

    /// Seals one batch with one event and appends it.
    pub(super) fn seal(&self, lane: Lane, body: &[u8]) -> ItemNo {
        let sealed = self.sealed(lane, body);
        self.append(lane, &stored::encode(&sealed))
    }

    /// A batch, sealed and not stored.
    pub(super) fn sealed(&self, lane: Lane, body: &[u8]) -> wire::SealedBatch {
        let mut builder = PayloadBuilder::new();
        let origin = builder.origin(&Origin {
            source: "auth".into(),
            kind: "file".into(),
            attributes: Vec::new(),
        });
        let meta = EventMeta {
            origin,
            observed_unix_nano: 1,
            time_unix_nano: None,
            severity: 9,
            attributes: &[],
        };
        builder.push(body, meta);
        let payload = builder.finish().unwrap();
        let draft = Draft {
            lane,
            payload: &payload,
            labels: &BTreeMap::new(),
            clock: ClockState::Unknown,
            sealed_unix_nano: 1,
            voids: &[],
        };
        let sealed = lock(&self.chain).seal(draft).unwrap();
        stored::unsigned(sealed.bytes, payload.bytes)
    }

    /// Appends the bytes of an item.
    pub(super) fn append(&self, lane: Lane, item: &[u8]) -> ItemNo {
        let parts = [item];
        let frame = spool::Frame {
            items: vec![spool::Item {
                lane: lane.index(),
                parts: &parts,
            }],
            ..spool::Frame::default()
        };
        lock(&self.spool).append(&frame).unwrap().first[lane.index()]
    }

    fn mark(&self, next: [ItemNo; LANES]) {
        let mark = spool::Mark {
            reader: READER.to_owned(),
            next,
            note: Bytes::new(),
        };
        lock(&self.spool)
            .append(&spool::Frame {
                marks: vec![mark],
                ..spool::Frame::default()
            })
            .unwrap();
    }

    /// Goes on under a new epoch.
    pub(super) fn new_epoch(&self) {
        let mut chain = lock(&self.chain);
        *chain = chain.succeed(chain.sealer().clone(), Epoch::random());
    }

    pub(super) fn epoch(&self) -> Epoch {
        lock(&self.chain).epoch()
    }

    /// As the owner of a spool does when it is told of a fork: nothing before this has moved the mark.
    pub(super) fn pass(&self, next: [ItemNo; LANES]) {
        *lock(&self.acked) = next;
        self.mark(next);
    }
}

impl Owner for SpoolOwner {
    fn acked(&self, next: [ItemNo; LANES]) {
        {
            let mut acked = lock(&self.acked);
            assert!(
                next[0] >= acked[0] && next[1] >= acked[1],
                "{acked:?} then {next:?}"
            );
            if *acked == next {
                return;
            }
            *acked = next;
        }
        self.mark(next);
    }

    fn set_aside(&self, set_aside: SetAside) {
        lock(&self.told).set_aside.push(set_aside);
    }

    fn forked(&self, forked: Forked) {
        lock(&self.told).forked.push(forked);
    }

    fn hole(&self, _: spool::ReadError) {
        lock(&self.told).holes += 1;
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            sources_last_read: [("auth".to_owned(), 5)].into(),
            clock: ClockState::Synchronized,
            statement: Some(lock(&self.chain).statement(1, false)),
            relayed: Vec::new(),
        }
    }
}

/// A running uplink.
pub(super) struct Running {
    pub(super) status: watch::Receiver<UplinkStatus>,
    pub(super) stop: CancellationToken,
    task: JoinHandle<()>,
    follow: JoinHandle<()>,
}

impl Running {
    pub(super) fn status(&self) -> UplinkStatus {
        self.status.borrow().clone()
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.follow.await.unwrap();
    }
}

impl Forwarder {
    pub(super) fn new(identity: Identity, directory: &Path, endpoints: &[&str]) -> Forwarder {
        let options = spool::Options {
            max_bytes: 256 << 20,
            reserve_bytes: 1 << 20,
            segment_bytes: 1 << 20,
            required_readers: vec![READER.to_owned()],
            read_unsynced: true,
            ..spool::Options::default()
        };
        let directory = directory.join("spool");
        let (spool, _) = Spool::open(Arc::new(spool::RealDisk), &directory, options).unwrap();
        let chain = EpochChain::start(identity.current().id.clone(), Epoch::random());
        let owner = SpoolOwner {
            spool: Mutex::new(spool),
            chain: Mutex::new(chain),
            acked: Mutex::default(),
            told: Mutex::default(),
        };
        let quarantine = directory.join("quarantine");
        let endpoints = endpoints
            .iter()
            .map(|name| format!("https://{name}:7443").parse().unwrap())
            .collect();
        let config = UplinkConfig::new("uplink", endpoints, quarantine.clone());
        Forwarder {
            identity,
            owner: Arc::new(owner),
            quarantine,
            config,
        }
    }

    /// Starts an uplink on this host.
    pub(super) fn start(&self) -> Running {
        self.start_with(SimulatedConnector)
    }

    pub(super) fn start_with<C: Connector>(&self, connector: C) -> Running {
        let queue = {
            let spool = lock(&self.owner.spool);
            Queue {
                reader: spool.reader(READER),
                view: spool.view(),
                name: READER.to_owned(),
            }
        };
        let stop = CancellationToken::new();
        let uplink = Uplink::new(
            self.config.clone(),
            self.identity.clone(),
            queue,
            Arc::clone(&self.owner) as Arc<dyn Owner>,
            Arc::new(NoChains),
            connector,
            &UplinkMetrics::default(),
        );
        let status = uplink.status();
        let follow = tokio::spawn(
            self.identity
                .clone()
                .follow_files(Checks::new(&[]), stop.clone()),
        );
        let task = tokio::spawn(uplink.run(stop.clone()));
        Running {
            status,
            stop,
            task,
            follow,
        }
    }
}

/// An agency with one CA; directories go when it is dropped.
pub(super) struct Agency {
    pub(super) authority: Authority,
    pub(super) directory: tempfile::TempDir,
}

impl Agency {
    pub(super) fn new() -> Agency {
        Agency {
            authority: Authority::new("watch.example"),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.directory.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A collector of agency `moh`.
    pub(super) fn collector(&self, name: &str) -> Collector {
        let folder = self.folder(name);
        let identity = self
            .authority
            .collector("moh", name)
            .load(&self.authority, &folder);
        Collector::new(identity, &folder, Memory::new())
    }

    /// A forwarder of agency `moh`.
    pub(super) fn forwarder(&self, name: &str, endpoints: &[&str]) -> Forwarder {
        let folder = self.folder(name);
        let identity = self
            .authority
            .forwarder("moh", name)
            .load(&self.authority, &folder);
        Forwarder::new(identity, &folder, endpoints)
    }
}
