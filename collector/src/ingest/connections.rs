//! What is open: how many from where, and whose certificate is still good.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::warn;
use watchline_node::identity::{Identity, Peer, Refusals, Refused};
use watchline_proto::SpiffeId;

use super::{IngestMetrics, listener::Limits};

/// How often expiry is looked at. A connection whose certificate is no longer good is told so at once, and cut this long after
/// that.
const LOOK: Duration = Duration::from_millis(500);

/// One connection: whom it is with, and whether it may go on.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer,
    /// Why it must end; set once, before `closing` is cancelled.
    refused: Mutex<Option<Refused>>,
    /// Its streams end now, with a reason.
    closing: CancellationToken,
    /// It is cut.
    cut: CancellationToken,
}

impl Connection {
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Resolves when the certificate is no longer good.
    pub(super) async fn refused(&self) -> Refused {
        self.closing.cancelled().await;
        lock(&self.refused).clone().unwrap_or(Refused::Revoked)
    }

    fn close(&self, refused: Refused) {
        *lock(&self.refused) = Some(refused);
        self.closing.cancel();
    }
}

/// All of them.
pub(super) struct Connections {
    limits: Limits,
    metrics: IngestMetrics,
    refusals: Refusals,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    addresses: HashMap<IpAddr, Address>,
    streams: HashMap<SpiffeId, usize>,
}

#[derive(Debug, Default)]
struct Address {
    handshakes: usize,
    connections: usize,
}

impl Connections {
    pub(super) fn new(limits: Limits, metrics: IngestMetrics, refusals: Refusals) -> Connections {
        Connections {
            limits,
            metrics,
            refusals,
            open: Mutex::default(),
        }
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// A place for a handshake from this address, or what there is too much of.
    pub(super) fn begin(self: &Arc<Self>, address: SocketAddr) -> Result<Place, &'static str> {
        let mut open = lock(&self.open);
        if open.connections.len() >= self.limits.connections {
            return Err("as many connections are open as may be");
        }
        let address = address.ip();
        let from = open.addresses.entry(address).or_default();
        if from.connections >= self.limits.connections_per_address {
            return Err("as many connections of this address are open as may be");
        }
        if from.handshakes >= self.limits.handshakes_per_address {
            return Err("as many handshakes of this address are under way as may be");
        }
        from.handshakes += 1;
        Ok(Place {
            connections: Arc::downgrade(self),
            address,
            id: None,
        })
    }

    /// The handshake has succeeded.
    pub(super) fn open<Io>(
        self: &Arc<Self>,
        stream: TlsStream<Io>,
        peer: Peer,
        mut place: Place,
    ) -> Guarded<Io> {
        let connection = Arc::new(Connection {
            peer,
            refused: Mutex::new(None),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let mut open = lock(&self.open);
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, Arc::clone(&connection));
        let from = open.addresses.entry(place.address).or_default();
        from.handshakes = from.handshakes.saturating_sub(1);
        from.connections += 1;
        place.id = Some(id);
        self.metrics.connections(open.connections.len());
        drop(open);
        let cut = Box::pin(connection.cut.clone().cancelled_owned());
        Guarded {
            stream,
            connection,
            cut,
            _place: place,
        }
    }

    /// A place for a stream of this peer; `None`: it has too many.
    pub(super) fn stream(self: &Arc<Self>, peer: &SpiffeId) -> Option<StreamPlace> {
        let mut open = lock(&self.open);
        let streams = open.streams.entry(peer.clone()).or_default();
        if *streams >= self.limits.streams_per_peer {
            return None;
        }
        *streams += 1;
        Some(StreamPlace {
            connections: Arc::downgrade(self),
            peer: peer.clone(),
        })
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.open).connections.values().cloned().collect()
    }

    fn ended(&self, place: &Place) {
        let mut open = lock(&self.open);
        if let Some(from) = open.addresses.get_mut(&place.address) {
            match place.id {
                Some(_) => from.connections = from.connections.saturating_sub(1),
                None => from.handshakes = from.handshakes.saturating_sub(1),
            }
            if from.connections == 0 && from.handshakes == 0 {
                open.addresses.remove(&place.address);
            }
        }
        if let Some(id) = place.id {
            open.connections.remove(&id);
        }
        self.metrics.connections(open.connections.len());
    }

    fn stream_ended(&self, peer: &SpiffeId) {
        let mut open = lock(&self.open);
        if let Some(streams) = open.streams.get_mut(peer) {
            *streams -= 1;
            if *streams == 0 {
                open.streams.remove(peer);
            }
        }
    }
}

/// Ends connections whose certificate is no longer good: looked at when the identity changes and as certificates expire.
pub(super) async fn watch_over(
    connections: Arc<Connections>,
    identity: Identity,
    over: CancellationToken,
) {
    let mut changes = identity.changes();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Told why, to be cut when that has had time to arrive.
    let mut closing: Vec<(Instant, Arc<Connection>)> = Vec::new();
    loop {
        let changed = tokio::select! {
            _ = look.tick() => false,
            Ok(()) = changes.changed() => true,
            () = over.cancelled() => return,
        };
        closing.retain(|(since, connection)| {
            let waits = since.elapsed() < LOOK;
            if !waits {
                connection.cut.cancel();
            }
            waits
        });
        let now = SystemTime::now();
        for connection in connections.all() {
            // Cheap unless there is something to find.
            if connection.closing.is_cancelled() || !changed && connection.peer.not_after > now {
                continue;
            }
            if let Err(refused) = identity.still_valid(&connection.peer) {
                warn!(peer = %connection.peer.id, address = ?connection.peer.address, reason = refused.reason(),
                    "certificate is no longer valid: its connection is closed");
                connections
                    .refusals
                    .refused(connection.peer.address, &refused);
                connection.close(refused);
                closing.push((Instant::now(), connection));
            }
        }
    }
}

/// A place in the limits; given back when dropped.
pub(super) struct Place {
    connections: Weak<Connections>,
    address: IpAddr,
    /// Of the open connection; `None` during the handshake.
    id: Option<u64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.upgrade() {
            connections.ended(self);
        }
    }
}

/// A stream's place in its peer's limit; given back when dropped.
pub(super) struct StreamPlace {
    connections: Weak<Connections>,
    peer: SpiffeId,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.upgrade() {
            connections.stream_ended(&self.peer);
        }
    }
}

/// A TLS connection that can be cut from outside.
pub(super) struct Guarded<Io> {
    stream: TlsStream<Io>,
    connection: Arc<Connection>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl<Io> Connected for Guarded<Io> {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.connection.cut.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.connection.cut.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
