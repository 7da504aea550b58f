//! Starts everything in the order of the path, reloads, stops in the order of the path.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use watchline_node::{
    health::{self, Checks, Endpoints, register_build_info},
    identity::{Identity, OwnState, Refusals},
    lifecycle::{Systemd, Version},
    uplink::{
        Backlog, NoChains, Queue, TcpConnector, Uplink, UplinkConfig, UplinkMetrics, UplinkStatus,
    },
};
use watchline_proto::Role;
use watchline_spool::{OpenError, Options, RealDisk, Recovery, Spool, View};

use crate::{
    batch::Moment,
    board::Board,
    conditions::OwnStanding,
    config::{Config, LineConfig, SpoolConfig, Sync},
    inbox::Inbox,
    metrics::Metrics,
    pipeline::{self, Parts, Pipeline, READER, Settings},
    sources::{Outside, OwnFiles},
    status::{CHECKS, Configuration, Standing},
    watcher,
};

/// Version and commit of this program.
pub const VERSION: Version = Version::parse(env!("WATCHLINE_VERSION"));

/// The checks are set this often when nothing else sets them.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A spool that could not be opened for want of room is tried again after this long.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// Runs the forwarder until `stop`: then what was read is sealed, what is spooled is offered for the grace period, acknowledgements
/// are written down, and the spool is closed. Each message on `reloads` reads `file` anew.
///
/// Must be called on a current-thread runtime: the spool is read on it.
///
/// # Errors
/// The identity could not be loaded, the spool not be opened, or a part of the forwarder failed. What was appended to the spool is there
/// at the next start.
pub async fn run(
    config: Config,
    file: PathBuf,
    mut reloads: mpsc::Receiver<()>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let identity = Identity::load(&config.identity).context("[identity]")?;
    let own_id = identity.current().id.clone();
    ensure!(
        own_id.role() == Role::Forwarder,
        "the certificate is not a forwarder's: {own_id}"
    );
    let options = spool_options(&config.spool);
    let margin_bytes = 2 * options.segment_bytes;
    let Some((spool, recovery)) = open_spool(&config.spool, options, &stop).await? else {
        return Ok(());
    };
    let view = spool.view();

    let mut registry = Registry::default();
    register_build_info(&mut registry, VERSION);
    let metrics = Metrics::register(&mut registry);
    let uplink_metrics = UplinkMetrics::register(&mut registry);
    registry.register_collector(Box::new(Backlog::of(view.clone(), READER)));
    identity.register(&mut registry);
    // Nobody dials a forwarder; the name is there for whoever adds up all programs.
    Refusals::default().register(&mut registry);

    let board = Arc::new(Board::default());
    let inbox = Arc::new(Inbox::new(Arc::clone(&board)));
    let (watch_directories, hints) =
        watcher::start(Arc::clone(&inbox), Arc::clone(&board), metrics.clone())
            .context("start the hints' thread")?;
    let reader = spool.reader(READER);
    let named = identity.clone();
    let fed = Arc::clone(&inbox);
    let parts = Parts {
        spool,
        recovery,
        outside: Outside {
            own: Arc::new(own_files(&config)),
            waker: Arc::new(move || fed.hint(|hints| hints.fed = true)),
            metrics: metrics.clone(),
        },
        name: Box::new(move || named.current().id.clone()),
        clock: Box::new(Moment::now),
        own_standing: {
            let identity = identity.clone();
            let quarantine = config.spool.directory.join("quarantine");
            Box::new(move || own_standing(&identity, &quarantine))
        },
        board: Arc::clone(&board),
        metrics: metrics.clone(),
        watch: Some(watch_directories),
    };
    let settings = Settings {
        batch: config.batch,
        sync: config.spool.sync,
        when_full: config.spool.when_full,
        scan_interval: config.scan_interval,
        margin_bytes,
    };
    let pipeline = Pipeline::new(parts, settings, config.reloadable.clone());
    // The uplink goes on until everything that was read is in the spool.
    let line_stop = CancellationToken::new();
    let (reader_done, mut reader_ended) = oneshot::channel();
    let (line_may_begin, may_begin) = oneshot::channel();
    let reader_thread = {
        let (inbox, line_stop) = (Arc::clone(&inbox), line_stop.clone());
        thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                let ended = pipeline::thread::run(
                    pipeline,
                    &inbox,
                    || {
                        // The line may have been given up meanwhile.
                        let _ = line_may_begin.send(());
                    },
                    || line_stop.cancel(),
                );
                // Nobody waits any more: the process is ending.
                let _ = reader_done.send(());
                ended
            })
    }
    .context("start the reader's thread")?;

    let background = CancellationToken::new();
    let (line_status, line_seen) = watch::channel(UplinkStatus::default());
    let (reloaded, configuration) = watch::channel(Configuration {
        file: file.display().to_string(),
        last_reload_successful: true,
        ..Configuration::default()
    });
    let standing = Arc::new(Standing {
        version: VERSION,
        name: {
            let identity = identity.clone();
            Box::new(move || identity.current().id.to_string())
        },
        started: Moment::now(),
        checks: Checks::new(&CHECKS),
        board,
        view: view.clone(),
        line: line_seen,
        configuration,
    });
    let endpoints = Endpoints {
        checks: standing.checks.clone(),
        ingest_checks: &[],
        registry: Arc::new(registry),
        status: {
            let standing = Arc::clone(&standing);
            Arc::new(move || standing.status())
        },
    };
    let tasks = [
        tokio::spawn(health::serve(config.health, endpoints, background.clone())),
        tokio::spawn(
            identity
                .clone()
                .follow_files(standing.checks.clone(), background.clone()),
        ),
        tokio::spawn(Systemd::watchdog(|| true, background.clone())),
        tokio::spawn(set_checks(standing, background.clone())),
    ]
    .map(AbortOnDropHandle::new);

    let quarantine = config.spool.directory.join("quarantine");
    let (line_config, line_wanted) = watch::channel(config.reloadable.uplink.clone());
    let mut line = AbortOnDropHandle::new(tokio::spawn(keep_line(Line {
        wanted: line_wanted,
        quarantine,
        identity: identity.clone(),
        view,
        reader,
        inbox: Arc::clone(&inbox),
        metrics: uplink_metrics,
        status: line_status,
        may_begin,
        stop: line_stop.clone(),
    })));
    Systemd::ready();
    tracing::info!(id = %own_id, version = %VERSION, "forwarder started");

    let mut in_force = config;
    let mut failed = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = reloads.recv() => {
                Systemd::reloading();
                reload(&file, &mut in_force, &inbox, &line_config, &metrics, &reloaded);
                Systemd::ready();
            }
            _ = &mut reader_ended => {
                failed = Some(anyhow::anyhow!("the reader's thread ended"));
                break;
            }
            ended = &mut line => {
                failed = Some(match ended {
                    Ok(()) => anyhow::anyhow!("the uplink ended"),
                    Err(error) => anyhow::Error::new(error).context("the uplink failed"),
                });
                break;
            }
        }
    }
    Systemd::stopping();
    inbox.stop();
    if failed.is_some() {
        line_stop.cancel();
    } else {
        // Cancelled by the reader when it has sealed what it read; the line then ends within its grace period.
        if let Err(error) = (&mut line).await {
            failed = Some(anyhow::Error::new(error).context("the uplink failed"));
        }
    }
    inbox.line_ended();
    let joined = tokio::task::spawn_blocking(move || (reader_thread.join(), hints.join())).await;
    background.cancel();
    for task in tasks {
        // Each ends with its token; one that panicked has been logged by the hook.
        let _ = task.await;
    }
    match joined.context("join the threads")? {
        (Ok(closed), Ok(())) => closed.context("close the spool")?,
        (Err(_), _) => failed = Some(anyhow::anyhow!("the reader's thread panicked")),
        (_, Err(_)) => failed = failed.or(Some(anyhow::anyhow!("the hints' thread panicked"))),
    }
    tracing::info!("forwarder stopped");
    failed.map_or(Ok(()), Err)
}

/// Opens the spool; a file system without room is waited for. `None`: told to stop meanwhile.
async fn open_spool(
    config: &SpoolConfig,
    options: Options,
    stop: &CancellationToken,
) -> anyhow::Result<Option<(Spool, Recovery)>> {
    loop {
        match Spool::open(Arc::new(RealDisk), &config.directory, options.clone()) {
            Ok(opened) => return Ok(Some(opened)),
            Err(OpenError::Io {
                action,
                path,
                source,
            }) if is_no_room(&source) => {
                tracing::error!(action, path = %path.display(), error = %source, "no room to open the spool, is retried; nothing is lost");
            }
            Err(error) => return Err(anyhow::Error::new(error).context("open the spool")),
        }
        tokio::select! {
            () = tokio::time::sleep(OPEN_AGAIN) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

fn is_no_room(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

/// What the spool is opened with.
fn spool_options(config: &SpoolConfig) -> Options {
    const MIB: u64 = 1 << 20;
    Options {
        max_bytes: config.max_bytes,
        reserve_bytes: (config.max_bytes / 16).clamp(MIB, 16 * MIB),
        segment_bytes: (config.max_bytes / 32).clamp(MIB / 4, 16 * MIB),
        required_readers: vec![READER.to_owned()],
        keep_delivered: None,
        read_unsynced: config.sync != Sync::Always,
    }
}

/// How the certificate and the quarantine stand.
fn own_standing(identity: &Identity, quarantine: &Path) -> OwnStanding {
    let certificate = match identity.current().own_state(SystemTime::now()) {
        OwnState::Valid => None,
        OwnState::ExpiresSoon => Some("the certificate has two thirds of its life behind it"),
        OwnState::Expired => Some("the certificate has expired: no peer takes it"),
        OwnState::NotYetValid => Some("the certificate begins later: a clock is wrong"),
        OwnState::Revoked => Some("the certificate is revoked: no peer takes it"),
    };
    // Where there is no such directory, nothing was ever set aside.
    let files = std::fs::read_dir(quarantine)
        .into_iter()
        .flatten()
        .flatten();
    let is_batch = |file: &std::fs::DirEntry| {
        let name = file.file_name();
        Path::new(&name).extension().is_some_and(|it| it == "batch")
    };
    OwnStanding {
        certificate: certificate.map(str::to_owned),
        set_aside: files.filter(is_batch).count(),
    }
}

/// What is never read, whatever the patterns say.
pub(crate) fn own_files(config: &Config) -> OwnFiles {
    OwnFiles::new(
        vec![config.identity.private_key.clone()],
        vec![config.spool.directory.clone()],
    )
}

/// Takes what may change from the file as it is now; an invalid one changes nothing.
fn reload(
    file: &Path,
    in_force: &mut Config,
    inbox: &Inbox,
    line: &watch::Sender<LineConfig>,
    metrics: &Metrics,
    reloaded: &watch::Sender<Configuration>,
) {
    let (problems, needs_restart) = match Config::read(file) {
        Err(problems) => {
            for problem in &problems.0 {
                tracing::error!(%problem, "configuration is not taken, the last good one stays");
            }
            (
                problems.0.iter().map(ToString::to_string).collect(),
                Vec::new(),
            )
        }
        Ok(new) => {
            let needs_restart = in_force.needs_restart(&new);
            if !needs_restart.is_empty() {
                tracing::warn!(tables = ?needs_restart, "changes that only a restart takes");
            }
            line.send_if_modified(|line| {
                let changed = *line != new.reloadable.uplink;
                line.clone_from(&new.reloadable.uplink);
                changed
            });
            if new.reloadable != in_force.reloadable {
                inbox.reload(Box::new(new.reloadable.clone()));
            }
            in_force.reloadable = new.reloadable;
            tracing::info!("configuration reloaded");
            (Vec::new(), needs_restart)
        }
    };
    metrics.reloaded(problems.is_empty());
    reloaded.send_modify(|reloaded| {
        reloaded.last_reload_successful = problems.is_empty();
        reloaded.last_reload_unix_nano = Moment::now().unix_nano;
        (reloaded.problems, reloaded.needs_restart) = (problems, needs_restart);
    });
}

/// What [`keep_line`] keeps.
struct Line {
    wanted: watch::Receiver<LineConfig>,
    quarantine: PathBuf,
    identity: Identity,
    view: View,
    reader: watchline_spool::Reader,
    inbox: Arc<Inbox>,
    metrics: UplinkMetrics,
    status: watch::Sender<UplinkStatus>,
    may_begin: oneshot::Receiver<()>,
    stop: CancellationToken,
}

/// Keeps one uplink running; another one with each change of `[uplink]`, after the one before has ended.
async fn keep_line(line: Line) {
    let Line {
        mut wanted,
        quarantine,
        identity,
        view,
        reader,
        inbox,
        metrics,
        status,
        may_begin,
        stop,
    } = line;
    // An error: the reader's thread is gone, and the process is ending.
    let _ = may_begin.await;
    // Once at least, so that what is spooled is offered even when the stop comes before the start.
    loop {
        let line = wanted.borrow_and_update().clone();
        let config = UplinkConfig {
            heartbeat: line.heartbeat,
            grace: line.grace,
            software: format!("watchline-forwarder {VERSION}"),
            host: host_facts(),
            ..UplinkConfig::new(READER, line.collectors, quarantine.clone())
        };
        let queue = Queue {
            reader: reader.another(READER),
            view: view.clone(),
            name: READER.to_owned(),
        };
        let owner = Arc::clone(&inbox);
        let uplink = Uplink::new(
            config,
            identity.clone(),
            queue,
            owner,
            Arc::new(NoChains),
            TcpConnector,
            &metrics,
        );
        let mut changes = uplink.status();
        let this_stop = stop.child_token();
        let mut running = std::pin::pin!(uplink.run(this_stop.clone()));
        let mut is_wanted = true;
        loop {
            tokio::select! {
                () = &mut running => break,
                Ok(()) = changes.changed() => {
                    let now = changes.borrow_and_update().clone();
                    status.send_replace(now);
                }
                Ok(()) = wanted.changed(), if is_wanted => {
                    is_wanted = false;
                    this_stop.cancel();
                }
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Facts of the host, by the names of OpenTelemetry's resource attributes.
fn host_facts() -> BTreeMap<String, String> {
    let uname = rustix::system::uname();
    let fact = |name: &str, value: std::borrow::Cow<'_, str>| (name.to_owned(), value.into_owned());
    BTreeMap::from([
        fact("host.name", uname.nodename().to_string_lossy()),
        fact("host.arch", uname.machine().to_string_lossy()),
        fact("os.type", "linux".into()),
        fact(
            "os.description",
            format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            )
            .into(),
        ),
    ])
}

/// Sets the checks whenever the line changes, and each second.
async fn set_checks(standing: Arc<Standing>, stop: CancellationToken) {
    let mut line = standing.line.clone();
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        let changed = async {
            // Counters change with every batch; what the check is made of seldom does.
            loop {
                if line.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = line.borrow_and_update();
                let now = Some((
                    now.connected_to.clone(),
                    now.parked.clone(),
                    now.throttled.clone(),
                ));
                if now != seen {
                    seen = now;
                    return;
                }
            }
        };
        tokio::select! {
            _ = ticks.tick() => {}
            () = changed => {}
            () = stop.cancelled() => return,
        }
        standing.check(Moment::now());
    }
}
