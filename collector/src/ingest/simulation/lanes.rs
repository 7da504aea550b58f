//! Alerts and routine batches on one line.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use watchline_node::uplink::{Connector, Reading};
use watchline_proto::Lane;

use super::world::{Agency, SimulatedConnector, network, until};

/// Does not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// A line of 4 MB/s whose socket buffer holds next to nothing.
#[derive(Clone, Default)]
struct Narrow {
    written: Arc<AtomicU64>,
}

struct NarrowIo {
    io: turmoil::net::TcpStream,
    written: Arc<AtomicU64>,
    pause: Pin<Box<Sleep>>,
}

impl Connector for Narrow {
    type Io = NarrowIo;

    async fn connect(&self, host: &str, port: u16) -> io::Result<NarrowIo> {
        let io = SimulatedConnector.connect(host, port).await?;
        Ok(NarrowIo {
            io,
            written: Arc::clone(&self.written),
            pause: Box::pin(sleep(Duration::ZERO)),
        })
    }
}

impl AsyncRead for NarrowIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for NarrowIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.pause.as_mut().poll(cx));
        let some = buf.len().min(8000);
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &buf[..some]))?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        self.pause
            .as_mut()
            .reset(Instant::now() + Duration::from_millis(2));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[test]
fn an_alert_overtakes_a_routine_backlog_but_for_one_batch() {
    const BATCH_BYTES: u64 = 200_000;
    for seed in 60..62 {
        let agency = Agency::new();
        let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
        let mut sim = network(seed);
        collector.join(&mut sim, "c1");
        let (memory, line) = (collector.memory.clone(), Narrow::default());
        sim.client("h1", async move {
            for n in 0..30 {
                forwarder
                    .owner
                    .seal(Lane::Routine, &noise(n, BATCH_BYTES as usize));
            }
            let running = forwarder.start_with(line.clone());
            until("under way", || {
                line.written.load(Ordering::Relaxed) > 5 * BATCH_BYTES + seed * 30_000
            })
            .await;
            let on_the_line = line.written.load(Ordering::Relaxed).div_ceil(BATCH_BYTES);
            forwarder.owner.seal(Lane::Alert, b"an alert");
            until("acknowledged", || forwarder.owner.acked(Lane::Alert) == 1).await;
            let stored = memory.stored();
            let before_it = stored
                .iter()
                .position(|batch| batch.lane == Lane::Alert)
                .unwrap() as u64;
            // What is being written, and one more.
            assert!(
                before_it <= on_the_line + 1,
                "{before_it} before it, {on_the_line} were on the line"
            );
            until("all", || forwarder.owner.acked(Lane::Routine) == 30).await;
            running.end().await;
            Ok(())
        });
        sim.run().unwrap();
        collector.memory.assert_whole(31);
    }
}

#[test]
fn a_full_buffer_holds_back_routine_batches_and_lets_alerts_through() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(61);
    collector.join(&mut sim, "c1");
    let memory = collector.memory.clone();
    sim.client("h1", async move {
        let running = forwarder.start();
        forwarder.owner.seal(Lane::Routine, b"before");
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        memory.set_room(false);
        for n in 0..20 {
            forwarder.owner.seal(Lane::Routine, &noise(n, 10_000));
        }
        until("throttled", || running.status().throttled.is_some()).await;
        for n in 0..5 {
            forwarder
                .owner
                .seal(Lane::Alert, format!("alert {n}").as_bytes());
            until("the alert is stored", || {
                memory
                    .stored()
                    .iter()
                    .filter(|batch| batch.lane == Lane::Alert)
                    .count()
                    == n + 1
            })
            .await;
            // Longer than the answer may take: a Throttle is an answer.
            sleep(Duration::from_secs(20)).await;
        }
        assert_eq!(memory.count(), 6);
        assert_eq!(running.status().reconnects, 0);
        memory.set_room(true);
        until("all", || {
            forwarder.owner.acked(Lane::Routine) == 21 && forwarder.owner.acked(Lane::Alert) == 5
        })
        .await;
        until("no longer throttled", || {
            running.status().throttled.is_none()
        })
        .await;
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(26);
}

#[test]
fn a_cold_backlog_is_read_beside_the_runtime_and_in_order() {
    let agency = Agency::new();
    let (collector, mut forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    forwarder.config.reading = Reading::BlockingPool;
    let mut sim = network(66);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        for n in 0..100 {
            let lane = if n % 10 == 0 {
                Lane::Alert
            } else {
                Lane::Routine
            };
            forwarder.owner.seal(lane, &noise(n, 5_000));
        }
        let running = forwarder.start();
        let owner = &forwarder.owner;
        until("all", || {
            owner.acked(Lane::Alert) == 10 && owner.acked(Lane::Routine) == 90
        })
        .await;
        owner.seal(Lane::Alert, b"one more");
        until("all", || owner.acked(Lane::Alert) == 11).await;
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(101);
}

#[test]
fn what_is_in_flight_stays_below_the_servers_limit() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    collector.memory.commit_takes(Duration::from_secs(2));
    let mut sim = network(62);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        for n in 0..40 {
            forwarder.owner.seal(Lane::Routine, &noise(n, 250_000));
        }
        let mut running = forwarder.start();
        let mut most = 0;
        while forwarder.owner.acked(Lane::Routine) < 40 {
            running.status.changed().await?;
            most = most.max(running.status().in_flight_bytes);
        }
        assert!(most > 3 << 20 && most <= 4 << 20, "{most}");
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(40);
}
