//! Datagrams: one is one record.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use rustix::net::{RecvFlags, SocketAddrAny, recvfrom};
use tokio::{
    io::Interest,
    net::{UdpSocket, UnixDatagram},
    time::sleep,
};

use super::{
    drops::Drops,
    framing::Framed,
    listener::{Ending, Listener, Peer},
    settings::Transport,
};

impl Listener {
    pub(super) fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // As much as the kernel allows (`net.core.rmem_max`): room for bursts.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(self.buffer_bytes);
        UdpSocket::from_std(socket)
    }

    /// Datagrams over UDP, until the stop and a while of silence.
    pub(super) async fn take_datagrams(self, no: usize, socket: UdpSocket) -> io::Result<()> {
        let mut drops = Drops::of(&socket, socket.local_addr()?);
        let mut last_peer: Option<(IpAddr, Arc<Peer>)> = None;
        let mut buffer = vec![0; self.max_record.min(64 << 10)];
        let mut ending = Ending::default();
        let mut uncounted = false;
        let mut counted_at = Instant::now();
        loop {
            let until_count =
                (counted_at + self.pace.count_drops).saturating_duration_since(Instant::now());
            let ready = tokio::select! {
                biased;
                ready = socket.readable() => Some(ready?),
                () = sleep(until_count), if uncounted => None,
                () = ending.silence(&self) => break,
            };
            if uncounted && counted_at.elapsed() >= self.pace.count_drops {
                self.count_drops(drops.as_mut());
                (uncounted, counted_at) = (false, Instant::now());
            }
            if ready.is_none() {
                continue;
            }
            for _ in 0..64 {
                let taken = socket.try_io(Interest::READABLE, || receive(&socket, &mut buffer));
                let (framed, from) = match taken {
                    Ok(taken) => taken,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // What an ICMP message said of somebody is no reason to stop listening.
                    Err(_) => continue,
                };
                uncounted = true;
                if framed.body.is_empty() {
                    continue;
                }
                let peer = from.and_then(|from| {
                    let ip = SocketAddr::try_from(from).ok()?.ip().to_canonical();
                    match &last_peer {
                        Some((last, peer)) if *last == ip => Some(Arc::clone(peer)),
                        _ => {
                            let peer = Arc::new(Peer {
                                address: Some(ip.to_string()),
                                subject: None,
                            });
                            last_peer = Some((ip, Arc::clone(&peer)));
                            Some(peer)
                        }
                    }
                });
                if self
                    .push(no, Transport::Udp, peer.as_ref(), framed)
                    .is_err()
                {
                    return Ok(());
                }
                ending.came();
            }
            if ending.is_over(&self) {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.count_drops(drops.as_mut());
        Ok(())
    }

    fn count_drops(&self, drops: Option<&mut Drops>) {
        let since = drops.map_or(0, Drops::since_last);
        if since > 0 {
            self.shared.overflowed.fetch_add(since, Ordering::Release);
            (self.shared.waker)();
        }
    }

    /// Datagrams of a local socket. Nothing is dropped there: who sends waits.
    pub(super) async fn take_local_datagrams(self, no: usize, socket: UnixDatagram) {
        let mut buffer = vec![0; self.max_record];
        let mut ending = Ending::default();
        loop {
            tokio::select! {
                biased;
                _ = socket.readable() => {}
                () = ending.silence(&self) => return,
            }
            for _ in 0..64 {
                match socket.try_io(Interest::READABLE, || receive(&socket, &mut buffer)) {
                    Ok((framed, _)) if framed.body.is_empty() => {}
                    Ok((framed, _)) => {
                        let pushed = self.push(no, Transport::UnixDatagram, None, framed);
                        if pushed.is_err() {
                            return;
                        }
                        ending.came();
                    }
                    Err(_) => break,
                }
            }
            if ending.is_over(&self) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// One datagram, cut at the buffer's length.
fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(Framed, Option<SocketAddrAny>)> {
    // With TRUNC the kernel says how long it was, however much of it was taken.
    let (taken, whole, from) = recvfrom(socket, &mut *buffer, RecvFlags::TRUNC)?;
    let taken = taken.min(buffer.len());
    let framed = Framed {
        body: buffer[..taken].to_vec(),
        cut: (whole - taken) as u64,
        partial: false,
    };
    Ok((framed, from))
}
