//! Accepts connections: no more at a time than there is room for, and no handshake for ever.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use watchline_node::identity::{Identity, Refused, peer_of};

use super::connections::{Connections, Guarded, Place};

/// What is accepted at a time. Worst memory of idle connections: about 60 KiB each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes under way.
    pub handshakes: usize,
    /// Handshakes under way from one address: somebody slow does not keep the others out.
    pub handshakes_per_address: usize,
    /// How long one may take.
    pub handshake_within: Duration,
    /// Open connections.
    pub connections: usize,
    /// Open connections from one address; many forwarders may come through one.
    pub connections_per_address: usize,
    /// Open streams of one name: its line, the line that takes over, and what a dead network has left behind.
    pub streams_per_peer: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshakes: 512,
            handshakes_per_address: 128,
            handshake_within: Duration::from_secs(10),
            connections: 20_000,
            connections_per_address: 16_384,
            streams_per_peer: 8,
        }
    }
}

/// Accepts byte streams. A trait because the simulated network of the tests is the second one.
pub trait Accept: Send + 'static {
    /// The byte stream.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next one. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

/// TCP as the line wants it: no delay, kernel keep-alive, user time-out.
#[derive(Debug)]
pub struct Listener(pub TcpListener);

impl Accept for Listener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_keepalive(
            &socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10))
                .with_retries(3),
        )?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
        Ok((stream, address))
    }
}

/// Accepts until `stop`. Connections whose handshake succeeded go to `accepted`.
pub(super) async fn accept<A: Accept>(
    mut listener: A,
    limits: Limits,
    identity: Identity,
    connections: Arc<Connections>,
    accepted: mpsc::Sender<io::Result<Guarded<A::Io>>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.handshakes));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        // The rest waits in the kernel's queue.
        let place = tokio::select! {
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let (io, address) = tokio::select! {
            next = listener.accept() => match next {
                Ok(next) => next,
                Err(error) if passes(&error) => {
                    debug!(%error, "accept");
                    continue;
                }
                Err(error) => {
                    // No descriptors, no memory: this would spin.
                    connections.refusals().refused_because(None, "accept", &error);
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(200)) => {}
                        () = stop.cancelled() => break,
                    }
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let begun = match connections.begin(address) {
            Ok(begun) => begun,
            Err(crowd) => {
                connections.refusals().refused_because(
                    Some(address),
                    "too_many_connections",
                    &crowd,
                );
                continue;
            }
        };
        let tls = identity.server_config();
        let (connections, accepted) = (Arc::clone(&connections), accepted.clone());
        let within = limits.handshake_within;
        handshakes.spawn(async move {
            let shaken = shake_hands(io, address, begun, tls, &connections, within).await;
            drop(place);
            if let Some(connection) = shaken {
                // Fails only when the server has ended.
                let _ = accepted.send(Ok(connection)).await;
            }
        });
    }
    handshakes.shutdown().await;
}

async fn shake_hands<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    address: SocketAddr,
    place: Place,
    tls: Arc<rustls::ServerConfig>,
    connections: &Arc<Connections>,
    within: Duration,
) -> Option<Guarded<Io>> {
    let shaken = timeout(within, TlsAcceptor::from(tls).accept(io)).await;
    let refused = match shaken {
        Ok(Ok(stream)) => match peer_of(stream.get_ref().1.peer_certificates().unwrap_or_default())
        {
            Ok(mut peer) => {
                peer.address = Some(address);
                return Some(connections.open(stream, peer, place));
            }
            Err(refused) => refused,
        },
        Ok(Err(error)) => Refused::of_handshake(&error),
        Err(_) => Refused::Handshake("it took too long".to_owned()),
    };
    connections.refusals().refused(Some(address), &refused);
    None
}

/// Errors of the one connection that was just about to be accepted.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
