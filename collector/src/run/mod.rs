//! The collector at work: started in the order of the path, stopped in the same order, reloaded.

mod notices;
mod outputs;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    net::TcpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use watchline_node::{
    health::{self, CheckState, Checks},
    identity::{self, Identity, Refusals},
    lifecycle::{Systemd, Version},
    uplink::Backlog,
};
use watchline_proto::Role;
use watchline_spool::RealDisk;

pub use self::outputs::{OutputStates, quarantine_of};
use self::outputs::{Outputs, Surroundings};
use crate::{
    buffer::{self, Buffer, BufferMetrics, Notice},
    chains::ChainStore,
    config::CollectorConfig,
    ingest::{self, Ingest, IngestMetrics, Listener},
    ledger,
    status::{StatusMetrics, StatusSource, unix_nano},
    watch::{GapMetrics, OwnEventQueue, OwnEvents, OwnSealer, Silence, watch_silence},
    worker::Worker,
};

/// What decides `/readyz/ingest` and `grpc.health.v1`.
const INGEST_CHECKS: &[&str] = &["ingest", "buffer", identity::CHECK];
/// How long the last own events may take to be stored at the stop.
const OWN_EVENTS_WITHIN: Duration = Duration::from_secs(2);
/// Connections that the kernel may hold before they are accepted: a whole fleet comes back at once.
const LISTEN_BACKLOG: u32 = 4096;

/// This program's version and commit.
pub const VERSION: Version = Version::parse(env!("WATCHLINE_VERSION"));

/// Runs a collector until `stop`. `file` is read again on each of `reloads`. Returns when everything has been stopped and joined; an
/// error says what failed first.
pub async fn run(
    config: CollectorConfig,
    file: PathBuf,
    reloads: mpsc::Receiver<()>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut collector = Collector::start(config, file).await?;
    Systemd::ready();
    let failed = collector.serve(reloads, &stop).await;
    Systemd::stopping();
    stop.cancel();
    let stopped = collector.stop().await;
    match failed {
        Some(error) => Err(error),
        None => stopped,
    }
}

/// All parts of a running collector.
struct Collector {
    config: CollectorConfig,
    file: PathBuf,
    reloaded: Gauge,
    watch_config: watch::Sender<crate::config::WatchConfig>,
    events: OwnEventQueue,
    buffer: Buffer,
    /// Stops ingest; everything behind it ends when its input does.
    stop_ingest: CancellationToken,
    ingest: JoinSet<anyhow::Result<()>>,
    own_sealer: JoinSet<()>,
    outputs: Outputs,
    buffer_worker: JoinSet<anyhow::Result<()>>,
    /// Stops what only looks: identity files, silence, health, watchdog.
    stop_lookers: CancellationToken,
    lookers: JoinSet<()>,
}

impl Collector {
    async fn start(config: CollectorConfig, file: PathBuf) -> anyhow::Result<Collector> {
        let identity = Identity::load(&config.identity)?;
        let id = identity.current().id.clone();
        anyhow::ensure!(
            id.role() != Role::Forwarder,
            "the certificate is a forwarder's ({id}); a collector or center certificate is needed"
        );
        info!(%id, version = VERSION.as_str(), "collector starts");
        if config.outputs.is_empty() {
            warn!(
                "there is no [[output]]: what is stored is delivered nowhere, and deleted when it is too old"
            );
        }
        let listener = listen(config.ingest.listen)?;

        let mut registry = Registry::default();
        health::register_build_info(&mut registry, VERSION);
        identity.register(&mut registry);
        let reloaded = Gauge::default();
        reloaded.set(1);
        registry.register(
            "watchline_config_last_reload_successful",
            "0 after a reload that was refused",
            reloaded.clone(),
        );
        let output_checks: Vec<_> = config
            .outputs
            .iter()
            .map(|output| (output.clone(), outputs::check_name(output)))
            .collect();
        let mut names = INGEST_CHECKS.to_vec();
        names.extend(output_checks.iter().filter_map(|(_, check)| *check));
        let checks = Checks::new(&names);

        let gaps = GapMetrics::register(&mut registry);
        let events = OwnEventQueue::new(gaps.clone());
        let (told, damages) = mpsc::unbounded_channel();
        let notices = notices::tell(Arc::new(events.clone()), told);
        let (buffer, buffer_worker) =
            open_buffer(&config, &id, &mut registry, gaps, notices, &checks).await?;
        let buffer_worker = one(async move { Ok(buffer_worker.join().await?) });
        let chains = ChainStore::open(config.buffer.directory.join(crate::chains::DIRECTORY))?;
        let sealer = OwnSealer::new(
            events.clone(),
            buffer.clone(),
            identity.clone(),
            chains.clone(),
        );
        let own_sealer = one(sealer.run());

        let (uplink_metrics, outputs_metrics) = outputs::register(&mut registry);
        let software = format!("watchline-collector {VERSION}");
        let surroundings = Surroundings {
            buffer: buffer.clone(),
            identity: identity.clone(),
            chains: chains.clone(),
            events: events.clone(),
            checks: checks.clone(),
            buffer_directory: config.buffer.directory.clone(),
            software: software.clone(),
            uplink_metrics,
            outputs_metrics,
        };
        let outputs = Outputs::start(&output_checks, surroundings)?;
        let readers: Vec<String> = config
            .outputs
            .iter()
            .map(|output| output.reader())
            .collect();
        registry.register_collector(Box::new(Backlog::of_outputs(&buffer.view(), &readers)));

        let stop_lookers = CancellationToken::new();
        let mut lookers = JoinSet::new();
        lookers.spawn(
            identity
                .clone()
                .follow_files(checks.clone(), stop_lookers.clone()),
        );
        lookers.spawn(stopped_by(
            stop_lookers.clone(),
            notices::settle(damages, Arc::new(events.clone()), buffer.clone()),
        ));
        let refusals = Refusals::default();
        refusals.register(&mut registry);
        let ingest = Ingest::new(
            ingest::Options::new(&config.ingest, software),
            ingest::Parts {
                identity: identity.clone(),
                store: buffer.clone(),
                chains,
                refusals,
                metrics: IngestMetrics::register(&mut registry),
                ready: follow_ingest_checks(&checks, &mut lookers, stop_lookers.clone()),
            },
        );
        let peers = ingest.peers();
        let stop_ingest = CancellationToken::new();
        let ingest = one(ingest.run(listener, stop_ingest.clone()));
        checks.ok("ingest");

        let silence = Silence::new();
        let (watch_config, watched) = watch::channel(config.watch.clone());
        let known = forwarders_that_connect_here(&buffer, id.role());
        let seen = peers.clone();
        lookers.spawn(watch_silence(
            silence.clone(),
            move || seen.last_seen(),
            unix_nano,
            known,
            watched,
            Arc::new(events.clone()) as Arc<dyn OwnEvents>,
            stop_lookers.clone(),
        ));
        let source = StatusSource {
            version: VERSION.as_str(),
            id,
            started_unix_nano: unix_nano(),
            checks: checks.clone(),
            buffer: buffer.clone(),
            peers,
            silence,
            outputs: config.outputs.clone(),
            output_states: outputs.states.clone(),
        };
        registry.register_collector(Box::new(StatusMetrics::new(source.clone())));
        let endpoints = health::Endpoints {
            checks,
            ingest_checks: INGEST_CHECKS,
            registry: Arc::new(registry),
            status: Arc::new(move || serde_json::to_value(source.status()).unwrap_or_default()),
        };
        lookers.spawn(health::serve(
            config.health.listen,
            endpoints,
            stop_lookers.clone(),
        ));
        lookers.spawn(Systemd::watchdog(|| true, stop_lookers.clone()));
        Ok(Collector {
            config,
            file,
            reloaded,
            watch_config,
            events,
            buffer,
            stop_ingest,
            ingest,
            own_sealer,
            outputs,
            buffer_worker,
            stop_lookers,
            lookers,
        })
    }

    /// Until `stop`, or until a part has failed: then why.
    async fn serve(
        &mut self,
        mut reloads: mpsc::Receiver<()>,
        stop: &CancellationToken,
    ) -> Option<anyhow::Error> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                Some(()) = reloads.recv() => self.reload().await,
                Some(ended) = self.ingest.join_next() => return Some(why("ingest", ended.map_err(Into::into).flatten())),
                Some(ended) = self.own_sealer.join_next() => return Some(why("the sealer of own events", ended.map_err(Into::into))),
                Some(ended) = self.buffer_worker.join_next() => return Some(why("the buffer", ended.map_err(Into::into).flatten())),
                error = self.outputs.failed() => return Some(error),
                Some(Err(error)) = self.lookers.join_next() => return Some(error.into()),
            }
        }
    }

    async fn reload(&mut self) {
        Systemd::reloading();
        match CollectorConfig::read(&self.file) {
            Err(problems) => {
                self.reloaded.set(0);
                for problem in problems.0 {
                    error!(%problem, "configuration is not reloaded, the last good one stays");
                }
            }
            Ok(config) => {
                self.reloaded.set(1);
                for key in self.config.needs_restart(&config) {
                    warn!(
                        key,
                        "changed in the configuration file; takes effect only with a restart"
                    );
                }
                self.watch_config.send_if_modified(|watch| {
                    let changed = *watch != config.watch;
                    *watch = config.watch.clone();
                    changed
                });
                self.outputs.reload(&config.outputs).await;
                info!("configuration reloaded");
            }
        }
        Systemd::ready();
    }

    /// Ingest first, then what it fed, the disk last. A part that has failed already is only waited for.
    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_ingest.cancel();
        let ingest = joined(&mut self.ingest).await;
        self.events.close();
        let own_events = self.own_sealer.join_next();
        if tokio::time::timeout(OWN_EVENTS_WITHIN, own_events)
            .await
            .is_err()
        {
            warn!("the last own events could not be stored in time");
            self.own_sealer.shutdown().await;
        }
        let outputs = self.outputs.stop().await;
        self.buffer.close();
        let buffer = joined(&mut self.buffer_worker).await;
        self.stop_lookers.cancel();
        while self.lookers.join_next().await.is_some() {}
        info!("collector stopped");
        ingest.and(outputs).and(buffer)
    }
}

/// One task as a set: whose end can be taken note of once, and then asked for again.
fn one<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
    let mut set = JoinSet::new();
    set.spawn(task);
    set
}

/// Something that may be dropped at any await, until `stop`.
async fn stopped_by(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Waits for a task, unless its end has been taken note of already.
async fn joined(task: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    match task.join_next().await {
        Some(ended) => ended.map_err(Into::into).flatten(),
        None => Ok(()),
    }
}

fn why(part: &str, ended: anyhow::Result<()>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow::anyhow!("{part} has ended"),
        Err(error) => error.context(format!("{part} has failed")),
    }
}

/// Binds the ingest port: before anything else is touched, so that a port in use is the one line that is said.
fn listen(address: SocketAddr) -> anyhow::Result<Listener> {
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    let listener = bind().with_context(|| format!("listen on {address} ([ingest] listen)"))?;
    Ok(Listener(listener))
}

/// Opens on the blocking pool: recovery reads the disk.
async fn open_buffer(
    config: &CollectorConfig,
    id: &watchline_proto::SpiffeId,
    registry: &mut Registry,
    gaps: GapMetrics,
    notices: impl Fn(Notice) + Send + Sync + 'static,
    checks: &Checks,
) -> anyhow::Result<(Buffer, Worker)> {
    let readers = config.outputs.iter().map(|output| output.reader());
    let required = config.outputs.iter().filter(|output| output.required);
    let options = buffer::Options {
        directory: config.buffer.directory.clone(),
        max_bytes: config.buffer.max_bytes,
        max_age: config.buffer.max_age,
        readers: readers.collect(),
        required_readers: required.map(|output| output.reader()).collect(),
        limits: ledger::Limits::default(),
        collector: id.clone(),
    };
    let metrics = BufferMetrics::register(registry);
    let checks = checks.clone();
    let report = move |state| match state {
        CheckState::Ok => checks.ok("buffer"),
        CheckState::Failing { reason } => checks.failing("buffer", reason),
    };
    let open = move || Buffer::open(Arc::new(RealDisk), options, metrics, gaps, notices, report);
    Ok(tokio::task::spawn_blocking(open).await??)
}

/// Whose silence counts from the start: forwarders of an agency's collector connect to it; at a centre they may come through relays,
/// which speak for themselves.
fn forwarders_that_connect_here(
    buffer: &Buffer,
    role: Role,
) -> BTreeSet<watchline_proto::SpiffeId> {
    if role == Role::Center {
        return BTreeSet::new();
    }
    let sealers = buffer.summaries().into_iter().map(|summary| summary.sealer);
    sealers
        .filter(|sealer| sealer.role() == Role::Forwarder)
        .collect()
}

/// Whether ingest can take in what comes, for `grpc.health.v1`.
fn follow_ingest_checks(
    checks: &Checks,
    lookers: &mut JoinSet<()>,
    stop: CancellationToken,
) -> watch::Receiver<bool> {
    let (ready, receiver) = watch::channel(false);
    let (checks, mut changes) = (checks.clone(), checks.changes());
    lookers.spawn(async move {
        loop {
            ready.send_if_modified(|ready| {
                let now = checks.ready(Some(INGEST_CHECKS));
                std::mem::replace(ready, now) != now
            });
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
    receiver
}
