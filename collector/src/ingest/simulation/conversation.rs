//! What both ends say to each other while nothing goes wrong, and when the line is cut in the middle of it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use watchline_node::uplink::Connector;
use watchline_proto::Lane;

use super::world::{Agency, SimulatedConnector, network, until};
use crate::ingest::metrics::Outcome;

#[test]
fn every_batch_is_stored_once_and_in_order_and_the_sums_agree() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(1);
    collector.join(&mut sim, "c1");
    let seen = collector.clone();
    sim.client("h1", async move {
        let running = forwarder.start();
        for n in 0..100 {
            let lane = if n % 10 == 0 {
                Lane::Alert
            } else {
                Lane::Routine
            };
            forwarder.owner.seal(lane, format!("event {n}").as_bytes());
            if n % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        let owner = &forwarder.owner;
        until("all is acknowledged", || {
            owner.acked(Lane::Alert) == 10 && owner.acked(Lane::Routine) == 90
        })
        .await;
        let status = running.status();
        assert_eq!(
            (status.acked_batches, status.sent_batches),
            ([10, 90], [10, 90])
        );
        assert!(
            status.connected_to.is_some() && status.parked.is_none() && status.last_error.is_none()
        );
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    seen.memory.assert_whole(100);
    assert_eq!(seen.metrics.all_taken(), 100);
    assert_eq!(seen.metrics.batches(Outcome::Stored), 100);
    assert!(
        seen.memory
            .stored()
            .iter()
            .all(|batch| batch.peer == batch.sealer)
    );
}

#[test]
fn a_heartbeat_tells_the_collector_what_waits_and_how_far_the_chains_reach() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(2);
    collector.join(&mut sim, "c1");
    let seen = collector.clone();
    sim.client("h1", async move {
        forwarder.owner.seal(Lane::Routine, b"an event");
        let running = forwarder.start();
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        let id = forwarder.identity.current().id.clone();
        // One comes at once, and tells of what waited then; the next is due after five seconds.
        until("a heartbeat has come", || {
            seen.peer(&id).statement.is_some()
        })
        .await;
        until("another has come", || {
            seen.peer(&id).backlog[1].batches == 0
        })
        .await;
        let status = seen.peer(&id);
        let statement = status.statement.unwrap();
        assert_eq!(
            (statement.epoch, statement.heads[1].next),
            (forwarder.owner.epoch(), 1)
        );
        assert_eq!(
            (status.streams, status.sources_last_read.get("auth")),
            (1, Some(&5))
        );
        running.end().await;
        until("gone", || seen.peer(&id).streams == 0).await;
        Ok(())
    });
    sim.run().unwrap();
    assert_eq!(collector.refusals.count("statement"), 0);
}

#[test]
fn at_stop_everything_that_is_spooled_is_still_offered() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(3);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        for n in 0..200 {
            forwarder
                .owner
                .seal(Lane::Routine, format!("event {n}").as_bytes());
        }
        let running = forwarder.start();
        running.end().await;
        assert_eq!(forwarder.owner.acked(Lane::Routine), 200);
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(200);
}

#[test]
fn at_stop_without_a_collector_the_grace_period_ends_the_waiting() {
    let agency = Agency::new();
    let forwarder = agency.forwarder("h1", &["c1"]);
    let mut sim = network(4);
    sim.host("c1", || async { std::future::pending().await });
    sim.client("h1", async move {
        forwarder.owner.seal(Lane::Routine, b"an event");
        let running = forwarder.start();
        let begin = tokio::time::Instant::now();
        running.end().await;
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_secs(5) && took < Duration::from_secs(7),
            "{took:?}"
        );
        assert_eq!(forwarder.owner.acked(Lane::Routine), 0);
        Ok(())
    });
    sim.run().unwrap();
}

/// Cuts its first connection when it has been used so many times; the others live.
#[derive(Clone)]
struct Cutting {
    reads: bool,
    left: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

struct Cut<Io> {
    io: Io,
    by: Option<Cutting>,
}

impl Connector for Cutting {
    type Io = Cut<turmoil::net::TcpStream>;

    async fn connect(&self, host: &str, port: u16) -> io::Result<Self::Io> {
        let io = SimulatedConnector.connect(host, port).await?;
        let first = self.connections.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(Cut {
            io,
            by: first.then(|| self.clone()),
        })
    }
}

impl<Io> Cut<Io> {
    /// One use more; an error when that was one too many.
    fn used(&self, reading: bool) -> io::Result<()> {
        let Some(by) = self.by.as_ref().filter(|by| by.reads == reading) else {
            return Ok(());
        };
        match by
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            }) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Cut<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.used(true)?;
        }
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Cut<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.used(false)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Delivers a few batches through a connection that is cut at its `at`th read or write; whether it was used that often.
fn cut_at(agency: &Agency, reads: bool, at: u64) -> bool {
    let name = format!("h-{reads}-{at}");
    let (mut collector, mut forwarder) = (agency.collector("c1"), agency.forwarder(&name, &["c1"]));
    collector.memory = super::world::Memory::new();
    // Without Welcome's help every repetition reaches the ledger.
    collector.memory.tell_held(at.is_multiple_of(2));
    forwarder.config.heartbeat = Duration::from_millis(50);
    let connector = Cutting {
        reads,
        left: Arc::new(AtomicU64::new(at)),
        connections: Arc::default(),
    };
    let mut sim = network(1000 + at);
    collector.join(&mut sim, "c1");
    let cutting = connector.clone();
    sim.client("h1", async move {
        let running = forwarder.start_with(connector);
        for n in 0..12 {
            let lane = if n % 4 == 0 {
                Lane::Alert
            } else {
                Lane::Routine
            };
            forwarder.owner.seal(lane, format!("event {n}").as_bytes());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let owner = &forwarder.owner;
        until("all is acknowledged", || {
            owner.acked(Lane::Alert) == 3 && owner.acked(Lane::Routine) == 9
        })
        .await;
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(12);
    assert_eq!(
        collector.metrics.all_taken(),
        [
            Outcome::Stored,
            Outcome::Duplicate,
            Outcome::Rejected,
            Outcome::Unanswered
        ]
        .map(|outcome| collector.metrics.batches(outcome))
        .iter()
        .sum::<u64>()
    );
    cutting.connections.load(Ordering::Relaxed) > 1
}

#[test]
fn a_line_that_is_cut_at_any_message_repeats_and_loses_nothing() {
    let agency = Agency::new();
    for reads in [false, true] {
        let cuts = (0..200)
            .take_while(|at| cut_at(&agency, reads, *at))
            .count();
        assert!(cuts > 12, "only {cuts} places to cut at, reading: {reads}");
    }
}
