//! Connections: who gets one, and the records that come over it.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Closing,
    framing::Framer,
    listener::{Ending, Listener, Peer, Shared},
    settings::Transport,
    tls::Tls,
};

/// Who holds how many connections.
pub(super) type Connections = Arc<Mutex<HashMap<PeerKey, usize>>>;

/// Whom a connection counts for: an address, or a user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    Address(IpAddr),
    User(u32),
}

/// A connection's place among those that are allowed.
struct Held {
    connections: Connections,
    shared: Arc<Shared>,
    no: usize,
    key: PeerKey,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = connections.get_mut(&self.key) {
            *held -= 1;
            if *held == 0 {
                connections.remove(&self.key);
            }
        }
        drop(connections);
        self.shared
            .stands(self.no, |standing| standing.connections -= 1);
    }
}

impl Listener {
    pub(super) async fn accept_tcp(self, no: usize, socket: TcpListener, transport: Transport) {
        let (mut conversations, mut ending) = (JoinSet::new(), Ending::default());
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                // Those that had connected before the stop are heard.
                () = ending.silence(&self) => break,
                Some(_) = conversations.join_next() => continue,
            };
            ending.came();
            if ending.is_over(&self) {
                break;
            }
            let Ok((stream, from)) = accepted else {
                // No descriptors left, perhaps.
                self.shared.closed(Closing::AcceptFailed);
                sleep(self.pace.first_retry).await;
                continue;
            };
            let ip = from.ip().to_canonical();
            let Some(held) = self.hold(no, PeerKey::Address(ip)) else {
                self.shared.closed(Closing::TooMany);
                continue;
            };
            keep_alive(&stream);
            let peer = Peer {
                address: Some(ip.to_string()),
                subject: None,
            };
            let this = self.clone();
            if transport == Transport::Tls {
                conversations.spawn(this.converse_tls(held, stream, peer));
            } else {
                let peer = Some(Arc::new(peer));
                conversations.spawn(this.converse(held, stream, transport, peer));
            }
        }
        drop(socket);
        while conversations.join_next().await.is_some() {}
    }

    pub(super) async fn accept_unix(self, no: usize, socket: UnixListener) {
        let (mut conversations, mut ending) = (JoinSet::new(), Ending::default());
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                // Those that had connected before the stop are heard.
                () = ending.silence(&self) => break,
                Some(_) = conversations.join_next() => continue,
            };
            ending.came();
            if ending.is_over(&self) {
                break;
            }
            let Ok((stream, _)) = accepted else {
                self.shared.closed(Closing::AcceptFailed);
                sleep(self.pace.first_retry).await;
                continue;
            };
            let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
            let Some(held) = self.hold(no, PeerKey::User(user)) else {
                self.shared.closed(Closing::TooMany);
                continue;
            };
            let this = self.clone();
            conversations.spawn(this.converse(held, stream, Transport::UnixStream, None));
        }
        drop(socket);
        while conversations.join_next().await.is_some() {}
    }

    /// A place for one more connection. One sender may have at most half of them, so that no one locks out the others.
    fn hold(&self, no: usize, key: PeerKey) -> Option<Held> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let all: usize = connections.values().sum();
        let own = connections.get(&key).copied().unwrap_or(0);
        if all >= self.max_connections || own >= self.max_connections.div_ceil(2) {
            return None;
        }
        connections.insert(key, own + 1);
        drop(connections);
        self.shared.stands(no, |standing| standing.connections += 1);
        Some(Held {
            connections: Arc::clone(&self.connections),
            shared: Arc::clone(&self.shared),
            no,
            key,
        })
    }

    async fn converse_tls(self, held: Held, stream: TcpStream, peer: Peer) {
        let Some(tls) = &self.tls else {
            return;
        };
        let Some(config) = self.refresh_tls(held.no, tls) else {
            return self.shared.closed(Closing::Tls);
        };
        let handshake = tokio::select! {
            () = self.stop.cancelled() => return,
            handshake = timeout(self.pace.handshake, TlsAcceptor::from(config).accept(stream)) => handshake,
        };
        let stream = match handshake {
            Err(_) => return self.shared.closed(Closing::HandshakeTimeout),
            Ok(Err(error)) => {
                tracing::debug!(peer = peer.address, %error, "TLS handshake failed");
                return self.shared.closed(Closing::Tls);
            }
            Ok(Ok(stream)) => stream,
        };
        let certificate = stream.get_ref().1.peer_certificates();
        let subject = certificate
            .and_then(|chain| chain.first())
            .and_then(|certificate| {
                let tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
                tls.admit(certificate)
            });
        if subject.is_none() {
            return self.shared.closed(Closing::NotAllowed);
        }
        let peer = Arc::new(Peer { subject, ..peer });
        self.clone()
            .converse(held, stream, Transport::Tls, Some(peer))
            .await;
    }

    /// The certificate in force, and what is wrong with the files as they are now.
    pub(super) fn refresh_tls(&self, no: usize, tls: &Mutex<Tls>) -> Option<Arc<ServerConfig>> {
        let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
        if tls.refresh()
            && let Some(trouble) = tls.trouble()
        {
            tracing::error!(trouble, "the certificate of a syslog source is not taken");
        }
        self.shared.stands(no, |standing| {
            standing.trouble = tls.trouble().map(str::to_owned);
        });
        tls.in_force()
    }

    /// Takes the records of one connection until it ends, or the stop and a while of silence.
    async fn converse<S: AsyncRead + Unpin>(
        self,
        held: Held,
        mut stream: S,
        transport: Transport,
        peer: Option<Arc<Peer>>,
    ) {
        let no = held.no;
        let mut framer = Framer::new(self.max_record, transport == Transport::UnixStream);
        let mut buffer = vec![0; 16 << 10];
        let mut ending = Ending::default();
        let closing = loop {
            let read = tokio::select! {
                biased;
                read = stream.read(&mut buffer) => read,
                () = ending.silence(&self) => break Closing::Stopped,
            };
            let mut input = match read {
                Ok(0) => break Closing::ByPeer,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    break Closing::ByPeer;
                }
                Err(_) => break Closing::Failed,
            };
            let broken = loop {
                match framer.next(&mut input) {
                    Ok(Some(framed)) => {
                        if self.push(no, transport, peer.as_ref(), framed).is_err() {
                            return;
                        }
                    }
                    Ok(None) => break None,
                    Err(broken) => break Some(broken),
                }
            };
            ending.came();
            if let Some(broken) = broken {
                tracing::debug!(%broken, "a syslog connection is closed");
                break Closing::BadCount;
            }
            if ending.is_over(&self) {
                break Closing::Stopped;
            }
            tokio::task::yield_now().await;
        };
        if let Some(framed) = framer.end() {
            let _ = self.push(no, transport, peer.as_ref(), framed);
        }
        self.shared.closed(closing);
    }
}

/// A sender that has vanished gives its place back after about two minutes.
fn keep_alive(stream: &TcpStream) {
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    // Without it the connection is as good, but its place may be held for ever.
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive);
}
