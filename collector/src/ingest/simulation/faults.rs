//! Networks and processes that fail.

use std::time::Duration;

use tokio::time::Instant;
use watchline_proto::Lane;

use super::world::{Agency, network, until};

#[test]
fn a_partition_is_noticed_by_the_keep_alive_and_healed() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(10);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        let running = forwarder.start();
        forwarder.owner.seal(Lane::Routine, b"before");
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        turmoil::partition("h1", "c1");
        let begin = Instant::now();
        forwarder.owner.seal(Lane::Routine, b"meanwhile");
        until("the loss is noticed", || {
            running.status().connected_to.is_none()
        })
        .await;
        let took = begin.elapsed();
        assert!(took <= Duration::from_secs(21), "{took:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(forwarder.owner.acked(Lane::Routine), 1);
        turmoil::repair("h1", "c1");
        let begin = Instant::now();
        until("acknowledged after the repair", || {
            forwarder.owner.acked(Lane::Routine) == 2
        })
        .await;
        assert!(
            begin.elapsed() <= Duration::from_secs(41),
            "{:?}",
            begin.elapsed()
        );
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(2);
}

#[test]
fn a_long_line_is_slow_and_loses_nothing() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(11);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        let running = forwarder.start();
        for n in 0..50 {
            forwarder
                .owner
                .seal(Lane::Routine, format!("event {n}").as_bytes());
        }
        until("acknowledged", || {
            forwarder.owner.acked(Lane::Routine) == 50
        })
        .await;
        running.end().await;
        Ok(())
    });
    sim.set_link_latency("h1", "c1", Duration::from_millis(700));
    sim.run().unwrap();
    collector.memory.assert_whole(50);
}

#[test]
fn a_collector_that_is_killed_again_and_again_stores_each_batch_once() {
    for seed in 20..24 {
        let agency = Agency::new();
        let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
        let mut sim = network(seed);
        collector.join(&mut sim, "c1");
        let owner = std::sync::Arc::clone(&forwarder.owner);
        sim.client("h1", async move {
            let running = forwarder.start();
            for n in 0..400 {
                let lane = if n % 20 == 0 {
                    Lane::Alert
                } else {
                    Lane::Routine
                };
                forwarder.owner.seal(lane, format!("event {n}").as_bytes());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let owner = &forwarder.owner;
            until("all is acknowledged", || {
                owner.acked(Lane::Alert) == 20 && owner.acked(Lane::Routine) == 380
            })
            .await;
            running.end().await;
            Ok(())
        });
        let mut kills = 0;
        while !sim.step().unwrap() {
            if kills < 10 && owner.acked(Lane::Routine) > 35 * kills {
                kills += 1;
                sim.bounce("c1");
            }
        }
        assert_eq!(kills, 10);
        collector.memory.assert_whole(400);
    }
}

#[test]
fn a_lost_acknowledgement_means_sent_again_and_stored_once() {
    for tells_held in [true, false] {
        let agency = Agency::new();
        let (collector, mut forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
        forwarder.config.answer_within = Duration::from_secs(10);
        collector.memory.answer(false);
        collector.memory.tell_held(tells_held);
        let mut sim = network(30);
        collector.join(&mut sim, "c1");
        let memory = collector.memory.clone();
        sim.client("h1", async move {
            let running = forwarder.start();
            for n in 0..10 {
                forwarder
                    .owner
                    .seal(Lane::Routine, format!("event {n}").as_bytes());
            }
            until("stored", || memory.count() == 10).await;
            // It is stored and says nothing: the stream is given up.
            until("given up", || running.status().reconnects > 0).await;
            assert_eq!(forwarder.owner.acked(Lane::Routine), 0);
            memory.answer(true);
            until("acknowledged", || {
                forwarder.owner.acked(Lane::Routine) == 10
            })
            .await;
            // What Welcome proves to be held is not even sent; what it does not tell is answered as stored.
            assert_eq!(memory.duplicates() > 0, !tells_held);
            running.end().await;
            Ok(())
        });
        sim.run().unwrap();
        collector.memory.assert_whole(10);
    }
}

#[test]
fn with_two_collectors_the_stream_is_up_on_the_other_at_once() {
    let agency = Agency::new();
    let (first, second) = (agency.collector("c1"), agency.collector("c2"));
    let forwarder = agency.forwarder("h1", &["c1", "c2"]);
    let mut sim = network(40);
    first.join(&mut sim, "c1");
    second.join(&mut sim, "c2");
    let (memories, owner) = (
        [first.memory.clone(), second.memory.clone()],
        std::sync::Arc::clone(&forwarder.owner),
    );
    sim.client("h1", async move {
        let running = forwarder.start();
        forwarder.owner.seal(Lane::Routine, b"before");
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        // Told by its status: the other end was killed.
        until("lost", || running.status().reconnects > 0).await;
        let begin = Instant::now();
        forwarder.owner.seal(Lane::Routine, b"after");
        until("acknowledged elsewhere", || {
            forwarder.owner.acked(Lane::Routine) == 2
        })
        .await;
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "{:?}",
            begin.elapsed()
        );
        running.end().await;
        Ok(())
    });
    let mut killed = false;
    while !sim.step().unwrap() {
        if !killed && owner.acked(Lane::Routine) == 1 {
            killed = true;
            sim.crash(if memories[0].count() == 1 { "c1" } else { "c2" });
        }
    }
    assert_eq!(memories.map(|memory| memory.count()), [1, 1]);
}

#[test]
fn a_collector_that_drains_is_left_without_a_pause() {
    let agency = Agency::new();
    let collectors = [agency.collector("c1"), agency.collector("c2")];
    let forwarder = agency.forwarder("h1", &["c1", "c2"]);
    let mut sim = network(50);
    for (collector, name) in collectors.iter().zip(["c1", "c2"]) {
        collector.join(&mut sim, name);
    }
    let [first, second] = collectors.clone();
    sim.client("h1", async move {
        let running = forwarder.start();
        let mut longest = Duration::ZERO;
        for n in 0..300_u64 {
            if n == 100 {
                let stopped = if first.memory.count() > 0 {
                    &first
                } else {
                    &second
                };
                stopped.stop.cancel();
            }
            let begin = Instant::now();
            forwarder
                .owner
                .seal(Lane::Routine, format!("event {n}").as_bytes());
            until("acknowledged", || {
                forwarder.owner.acked(Lane::Routine) == n + 1
            })
            .await;
            longest = longest.max(begin.elapsed());
        }
        // A round trip is 20 ms at most; a lost stream would have cost a new handshake.
        assert!(longest < Duration::from_millis(150), "{longest:?}");
        assert_eq!(running.status().reconnects, 1);
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    let counts = collectors.map(|collector| collector.memory.count());
    assert_eq!(counts[0] + counts[1], 300);
    assert!(counts.iter().all(|count| *count >= 100), "{counts:?}");
}

#[test]
fn a_stream_has_a_bounded_life_and_moves_without_a_pause() {
    let agency = Agency::new();
    let (collector, mut forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    forwarder.config.stream_life = Duration::from_secs(1);
    let mut sim = network(52);
    collector.join(&mut sim, "c1");
    let seen = collector.clone();
    sim.client("h1", async move {
        let running = forwarder.start();
        let mut longest = Duration::ZERO;
        let mut n = 0;
        while running.status().reconnects < 4 {
            let begin = Instant::now();
            forwarder
                .owner
                .seal(Lane::Routine, format!("event {n}").as_bytes());
            until("acknowledged", || {
                forwarder.owner.acked(Lane::Routine) == n + 1
            })
            .await;
            longest = longest.max(begin.elapsed());
            n += 1;
            assert!(n < 3000, "{:?}", running.status());
        }
        assert!(longest < Duration::from_millis(150), "{longest:?}");
        // The old ones are gone.
        let id = forwarder.identity.current().id.clone();
        until("one stream is left", || seen.peer(&id).streams <= 1).await;
        running.end().await;
        seen.memory.assert_whole(usize::try_from(n)?);
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn a_lone_collector_that_drains_is_dialled_again_when_it_is_back() {
    let agency = Agency::new();
    let (mut collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(51);
    let stop = collector.stop.clone();
    let again = collector.clone();
    collector.stop = stop.clone();
    sim.host("c1", move || {
        let mut collector = again.clone();
        async move {
            // A service manager starts it again.
            collector.clone().run().await?;
            collector.stop = tokio_util::sync::CancellationToken::new();
            collector.run().await
        }
    });
    sim.client("h1", async move {
        let running = forwarder.start();
        forwarder.owner.seal(Lane::Routine, b"before");
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        let begin = Instant::now();
        stop.cancel();
        forwarder.owner.seal(Lane::Routine, b"after");
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 2).await;
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{:?}",
            begin.elapsed()
        );
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(2);
}
