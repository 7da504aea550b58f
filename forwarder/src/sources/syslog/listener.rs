//! The source's own thread: sockets in, records out, into the feed.
//!
//! It has a runtime of its own, and may wait: where the feed is full it stands still as a whole, so that the kernel's buffers fill up, senders
//! over TCP and local sockets wait, and datagrams over UDP are dropped and counted by the kernel.
//!
//! Memory: the feed; for each connection at most `max_record` bytes and 16 KiB; one datagram.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, UnixDatagram, UnixListener},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Closing, Listen, SyslogConfig, connections::Connections, framing::Framed, settings::Transport,
    tls::Tls,
};
use crate::{
    metrics::Metrics,
    sources::feed::{Closed, Feed, Waker},
};

/// How long things take; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A socket that cannot be bound is tried again after this long, then after twice as long, …
    pub(super) first_retry: Duration,
    /// … up to this.
    pub(super) last_retry: Duration,
    /// A TLS handshake may take so long.
    pub(super) handshake: Duration,
    /// The kernel's count of dropped datagrams is read this often while datagrams come.
    pub(super) count_drops: Duration,
    /// After the stop a socket is read until nothing has come for so long, …
    pub(super) quiet: Duration,
    /// … but no longer than this.
    pub(super) drain: Duration,
}

impl Pace {
    pub(super) const USUAL: Pace = Pace {
        first_retry: Duration::from_millis(100),
        last_retry: Duration::from_secs(5),
        handshake: Duration::from_secs(10),
        count_drops: Duration::from_secs(1),
        quiet: Duration::from_millis(50),
        drain: Duration::from_secs(1),
    };
}

/// A sender, as the records that it sends name it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) address: Option<String>,
    /// The subject of its certificate.
    pub(super) subject: Option<String>,
}

/// One record as it was received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) transport: Transport,
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) framed: Framed,
}

impl Received {
    /// What it counts for in the feed: its bytes and about what is around them.
    pub(super) fn bytes(&self) -> usize {
        self.framed.body.len() + 128
    }
}

/// How one socket stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Where it listens, once it does.
    pub(super) bound: Option<String>,
    pub(super) trouble: Option<String>,
    pub(super) received_bytes: u64,
    pub(super) connections: usize,
}

/// What the thread and the source share.
pub(super) struct Shared {
    pub(super) feed: Feed<Received>,
    /// Datagrams that the kernel dropped, over the source's life.
    pub(super) overflowed: Arc<AtomicU64>,
    standings: Mutex<Vec<Standing>>,
    ended: AtomicBool,
    pub(super) waker: Waker,
    metrics: Metrics,
}

impl Shared {
    pub(super) fn standings(&self) -> MutexGuard<'_, Vec<Standing>> {
        self.standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more will come into the feed.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn stands(&self, no: usize, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.standings().get_mut(no) {
            change(standing);
        }
    }

    pub(super) fn closed(&self, closing: Closing) {
        self.metrics.syslog_closed(closing);
    }
}

/// The thread, as the source holds it. Dropped, it takes no more, and what is in the feed is lost.
pub(super) struct Listening {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Listening {
    /// Listens where `config` says, as soon as that is possible.
    pub(super) fn start(
        config: &SyslogConfig,
        overflowed: Arc<AtomicU64>,
        waker: Waker,
        metrics: Metrics,
        pace: Pace,
    ) -> Listening {
        let shared = Arc::new(Shared {
            feed: Feed::new(config.buffer_bytes, Arc::clone(&waker)),
            overflowed,
            standings: Mutex::new(vec![Standing::default(); config.listen.len()]),
            ended: AtomicBool::new(false),
            waker,
            metrics,
        });
        let stop = CancellationToken::new();
        let listener = Listener {
            shared: Arc::clone(&shared),
            stop: stop.clone(),
            pace,
            max_record: config.max_record,
            buffer_bytes: config.buffer_bytes,
            max_connections: config.max_connections,
            connections: Arc::default(),
            tls: config
                .tls
                .clone()
                .map(|files| Arc::new(Mutex::new(Tls::new(files)))),
        };
        let (name, listen) = (config.name.clone(), config.listen.clone());
        let thread = thread::Builder::new()
            .name(format!("syslog {name}"))
            .spawn(move || listener.run(&listen));
        let thread = thread.map_err(|error| {
            tracing::error!(source = name, %error, "cannot start a thread: nothing is received");
            for standing in shared.standings().iter_mut() {
                standing.trouble = Some(format!("cannot start a thread: {error}"));
            }
            shared.ended.store(true, Ordering::Release);
        });
        Listening {
            shared,
            stop,
            thread: thread.ok(),
        }
    }

    /// No longer listens. What has been received is still read into the feed, as fast as that has room.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
        // Whoever waits for room gives up.
        self.shared.feed.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a syslog source panicked");
        }
    }
}

#[derive(Clone)]
pub(super) struct Listener {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    pub(super) pace: Pace,
    pub(super) max_record: usize,
    pub(super) buffer_bytes: usize,
    pub(super) max_connections: usize,
    pub(super) connections: Connections,
    pub(super) tls: Option<Arc<Mutex<Tls>>>,
}

impl Listener {
    /// Until the stop, and what was received is read.
    fn run(self, listen: &[Listen]) {
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for (no, listen) in listen.iter().enumerate() {
                    tasks.spawn(self.clone().keep(no, listen.clone()));
                }
                while tasks.join_next().await.is_some() {}
            }),
            Err(error) => {
                for standing in shared.standings().iter_mut() {
                    standing.trouble = Some(format!("cannot start: {error}"));
                }
            }
        }
        shared.ended.store(true, Ordering::Release);
        (shared.waker)();
    }

    /// Binds, again and again until it can be done, and serves.
    async fn keep(self, no: usize, listen: Listen) {
        let mut pause = self.pace.first_retry;
        loop {
            let served = match &listen {
                Listen::Udp(address) => match self.bind_udp(*address) {
                    Ok(socket) => {
                        self.bound(no, format!("udp://{}", text(socket.local_addr())));
                        self.clone().take_datagrams(no, socket).await
                    }
                    Err(error) => Err(error),
                },
                Listen::UnixDatagram(path) => {
                    match bind_unix(path, |path| UnixDatagram::bind(path)) {
                        Ok(socket) => {
                            self.bound(no, listen.to_string());
                            self.clone().take_local_datagrams(no, socket).await;
                            let _ = std::fs::remove_file(path);
                            Ok(())
                        }
                        Err(error) => Err(error),
                    }
                }
                Listen::Tcp(address) | Listen::Tls(address) => {
                    match TcpListener::bind(*address).await {
                        Ok(socket) => {
                            let scheme = listen.transport().scheme();
                            self.bound(no, format!("{scheme}://{}", text(socket.local_addr())));
                            if let (Listen::Tls(_), Some(tls)) = (&listen, &self.tls) {
                                let _ = self.refresh_tls(no, tls);
                            }
                            self.clone()
                                .accept_tcp(no, socket, listen.transport())
                                .await;
                            Ok(())
                        }
                        Err(error) => Err(error),
                    }
                }
                Listen::UnixStream(path) => {
                    match bind_unix(path, |path| UnixListener::bind(path)) {
                        Ok(socket) => {
                            self.bound(no, listen.to_string());
                            self.clone().accept_unix(no, socket).await;
                            let _ = std::fs::remove_file(path);
                            Ok(())
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            let Err(error) = served else {
                return;
            };
            let trouble = format!("cannot listen on {listen}: {error}");
            if pause == self.pace.first_retry {
                tracing::error!(trouble, "is retried");
            }
            self.shared
                .stands(no, |standing| standing.trouble = Some(trouble));
            (self.shared.waker)();
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => pause = (pause * 2).min(self.pace.last_retry),
            }
        }
    }

    fn bound(&self, no: usize, at: String) {
        tracing::info!(at, "listening");
        self.shared.stands(no, |standing| {
            standing.bound = Some(at);
            standing.trouble = None;
        });
        (self.shared.waker)();
    }

    pub(super) fn push(
        &self,
        no: usize,
        transport: Transport,
        peer: Option<&Arc<Peer>>,
        framed: Framed,
    ) -> Result<(), Closed> {
        let whole = framed.body.len() as u64 + framed.cut;
        let received = Received {
            transport,
            peer: peer.cloned(),
            framed,
        };
        let bytes = received.bytes();
        self.shared.feed.push(received, bytes)?;
        self.shared
            .stands(no, |standing| standing.received_bytes += whole);
        Ok(())
    }
}

/// Reading on after the stop.
#[derive(Debug, Default)]
pub(super) struct Ending {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Ending {
    /// Something came.
    pub(super) fn came(&mut self) {
        if self.since.is_some() {
            self.last = Some(Instant::now());
        }
    }

    /// Returns when the stop has come and nothing else for a while. Cancel safe.
    pub(super) async fn silence(&mut self, listener: &Listener) {
        listener.stop.cancelled().await;
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let last = *self.last.get_or_insert(now);
        let pace = &listener.pace;
        let until = (last + pace.quiet).min(since + pace.drain);
        sleep(until.saturating_duration_since(now)).await;
    }

    /// Whether what comes now comes too late.
    pub(super) fn is_over(&self, listener: &Listener) -> bool {
        self.since
            .is_some_and(|since| since.elapsed() >= listener.pace.drain)
    }
}

/// Binds a local socket that everybody on the host may send to, as `/dev/log`. What an earlier process left behind is replaced, a
/// socket that somebody listens on is not.
fn bind_unix<S>(path: &Path, bind: impl Fn(&Path) -> io::Result<S>) -> io::Result<S> {
    let bound = match bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let stream = std::os::unix::net::UnixStream::connect(path).err();
            let datagram = std::os::unix::net::UnixDatagram::unbound()?.connect(path);
            let refused = |error: Option<io::Error>| {
                error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            };
            if !is_socket || !refused(stream) || !refused(datagram.err()) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(bound)
}

fn text(address: io::Result<std::net::SocketAddr>) -> String {
    address.map_or_else(|error| error.to_string(), |address| address.to_string())
}
