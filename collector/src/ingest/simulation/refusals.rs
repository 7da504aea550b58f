//! What is refused: batches for their own defect, peers for what configuration can cure.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, time::Instant};
use watchline_node::{
    identity::{
        Identity,
        testing::{Authority, write},
    },
    uplink::quarantine::Quarantine,
};
use watchline_proto::{Hash, Lane, stored, wire::RejectReason};

use super::world::{Agency, Forwarder, StoredBatch, network, until};

/// A sealed batch whose payload has changed since.
fn append_broken(forwarder: &Forwarder, lane: Lane) -> Vec<u8> {
    let mut batch = forwarder.owner.sealed(lane, b"what was sealed");
    let mut payload = batch.payload.to_vec();
    payload[10] ^= 1;
    batch.payload = Bytes::from(payload);
    let item = stored::encode(&batch).to_vec();
    forwarder.owner.append(lane, &item);
    item
}

#[test]
fn a_batch_with_a_defect_is_set_aside_and_the_line_goes_on() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(70);
    collector.join(&mut sim, "c1");
    let refusals = collector.refusals.clone();
    let seen = forwarder.clone();
    sim.client("h1", async move {
        let owner = &forwarder.owner;
        owner.seal(Lane::Routine, b"first");
        let broken = append_broken(&forwarder, Lane::Routine);
        // The chain goes on behind it.
        owner.seal(Lane::Routine, b"third");
        let running = forwarder.start();
        until("all is acknowledged", || owner.acked(Lane::Routine) == 3).await;
        let set_aside = owner.told(|told| told.set_aside.clone());
        assert_eq!(set_aside.len(), 1);
        assert_eq!(
            (set_aside[0].reason, set_aside[0].events),
            (RejectReason::PayloadHash, 1)
        );
        assert_eq!(std::fs::read(&set_aside[0].file)?, broken);
        assert_eq!(
            (
                running.status().reconnects,
                running.status().rejected_batches
            ),
            (0, [0, 1])
        );

        // Offered again, it is refused again, and no second gap is raised.
        let quarantine = Quarantine::new(forwarder.quarantine.clone());
        assert_eq!(quarantine.retry()?, 1);
        until("refused again", || {
            running.status().rejected_batches == [0, 2]
        })
        .await;
        until("set aside again", || {
            quarantine
                .list()
                .unwrap()
                .iter()
                .all(|entry| !entry.waits_for_retry)
        })
        .await;
        assert_eq!(quarantine.list()?.len(), 1);
        assert_eq!(owner.told(|told| told.set_aside.len()), 1);
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    assert_eq!(refusals.count("payload_hash"), 2);
    assert_eq!(collector.memory.count(), 2);
    assert_eq!(seen.owner.acked(Lane::Routine), 3);
}

#[test]
fn a_batch_that_was_refused_by_mistake_is_delivered_when_offered_again() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let mut sim = network(71);
    collector.join(&mut sim, "c1");
    let memory = collector.memory.clone();
    sim.client("h1", async move {
        let quarantine = Quarantine::new(forwarder.quarantine.clone());
        let sound = forwarder.owner.sealed(Lane::Alert, b"an alert");
        quarantine.put(
            Lane::Alert,
            RejectReason::Signature,
            &stored::encode(&sound),
        )?;
        quarantine.retry()?;
        let running = forwarder.start();
        until("stored", || memory.count() == 1).await;
        until("gone from quarantine", || {
            quarantine.list().unwrap().is_empty()
        })
        .await;
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn three_defects_in_a_row_stop_the_stream_and_it_says_so() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    // The double's ledger knows no holes.
    collector.memory.tell_held(false);
    let mut sim = network(72);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        let owner = &forwarder.owner;
        for _ in 0..5 {
            append_broken(&forwarder, Lane::Routine);
        }
        owner.seal(Lane::Routine, b"sound");
        let running = forwarder.start();
        until("parked", || running.status().parked.is_some()).await;
        assert_eq!(owner.told(|told| told.set_aside.len()), 3);
        assert_eq!(owner.acked(Lane::Routine), 3);
        assert!(running.status().parked.unwrap().contains("in a row"));
        // One at a time from then on, until something is stored.
        let begin = Instant::now();
        until("all", || owner.acked(Lane::Routine) == 6).await;
        assert!(
            begin.elapsed() > Duration::from_secs(30),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(owner.told(|told| told.set_aside.len()), 5);
        until("no longer parked", || running.status().parked.is_none()).await;
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    assert_eq!(collector.memory.count(), 1);
}

#[test]
fn a_fork_is_never_acknowledged_and_ends_in_a_new_epoch() {
    // By Welcome, and by a Reject.
    for tells_held in [true, false] {
        let agency = Agency::new();
        let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
        let owner = Arc::clone(&forwarder.owner);
        // A clone of this host has been here with the same epoch.
        collector.memory.tell_held(tells_held);
        collector.memory.plant(StoredBatch {
            sealer: forwarder.identity.current().id.clone(),
            epoch: owner.epoch(),
            lane: Lane::Routine,
            sequence: 0,
            hash: Hash::of(b"another history"),
            peer: forwarder.identity.current().id.clone(),
        });
        let mut sim = network(73);
        collector.join(&mut sim, "c1");
        let memory = collector.memory.clone();
        sim.client("h1", async move {
            owner.seal(Lane::Routine, b"routine 0");
            owner.seal(Lane::Routine, b"routine 1");
            if !tells_held {
                owner.seal(Lane::Alert, b"alert 0");
            }
            let running = forwarder.start();
            until("told of the fork", || {
                owner.told(|told| !told.forked.is_empty())
            })
            .await;
            let forked = owner.told(|told| told.forked[0].clone());
            assert_eq!(
                (forked.lane, forked.from[1].0, forked.stored.concat().len()),
                (Lane::Routine, 0, 0)
            );
            assert_eq!(owner.acked(Lane::Routine), 0);
            assert_eq!(owner.acked(Lane::Alert), u64::from(!tells_held));
            assert!(running.status().parked.unwrap().contains("fork"));
            // What the owner does: seal anew, and pass what was sealed before.
            owner.new_epoch();
            let first = owner.seal(Lane::Routine, b"routine 0");
            owner.seal(Lane::Routine, b"routine 1");
            let alerts = owner.acked(Lane::Alert);
            owner.pass([watchline_spool::ItemNo(alerts), first]);
            until("all", || owner.acked(Lane::Routine) == first.0 + 2).await;
            running.end().await;
            assert_eq!(
                memory
                    .stored()
                    .iter()
                    .filter(|batch| batch.epoch == owner.epoch())
                    .count(),
                2
            );
            Ok(())
        });
        sim.run().unwrap();
    }
}

#[test]
fn a_collector_of_another_agency_parks_the_line_and_once_cured_everything_is_delivered() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    // Somebody issued its certificate with the wrong agency code.
    let folder = agency.directory.path().join("c1");
    let wrong = agency.authority.collector("mof", "c1");
    let config = wrong.write(&agency.authority, &folder);
    let mut sim = network(74);
    let process = collector.clone();
    sim.host("c1", move || {
        let mut process = process.clone();
        process.identity = Identity::load(&config).unwrap();
        process.run()
    });
    let cured = Arc::new(AtomicBool::new(false));
    let (authority, cures) = (agency.authority, Arc::clone(&cured));
    sim.client("h1", async move {
        for n in 0..20 {
            forwarder
                .owner
                .seal(Lane::Routine, format!("event {n}").as_bytes());
        }
        let running = forwarder.start();
        until("parked", || running.status().parked.is_some()).await;
        let reason = running.status().parked.unwrap();
        assert!(reason.contains("another agency"), "{reason}");
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(forwarder.owner.acked(Lane::Routine), 0);
        authority.collector("moh", "c1").write(&authority, &folder);
        cures.store(true, Ordering::Relaxed);
        until("all", || forwarder.owner.acked(Lane::Routine) == 20).await;
        assert_eq!(forwarder.owner.told(|told| told.set_aside.len()), 0);
        until("no longer parked", || running.status().parked.is_none()).await;
        running.end().await;
        Ok(())
    });
    while !sim.step().unwrap() {
        if cured.swap(false, Ordering::Relaxed) {
            sim.bounce("c1");
        }
    }
    collector.memory.assert_whole(20);
}

#[test]
fn a_forwarder_whose_certificate_is_refused_parks_says_why_and_goes_on_with_a_new_one() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let folder = agency.directory.path().join("h1");
    // Its certificate has been revoked; a new one comes later.
    let revoked = agency.authority.forwarder("moh", "h1");
    write(&folder.join("h1.key"), &revoked.private_key);
    write(&folder.join("h1.pem"), &revoked.certificate);
    forwarder.identity.reload().unwrap();
    agency.authority.revoke(&revoked);
    write(
        &agency.directory.path().join("c1/crl.pem"),
        &agency.authority.revocations(),
    );
    collector.identity.reload().unwrap();
    let renewed = agency.authority.forwarder("moh", "h1");
    let mut sim = network(75);
    collector.join(&mut sim, "c1");
    let refusals = collector.refusals.clone();
    sim.client("h1", async move {
        forwarder.owner.seal(Lane::Routine, b"an event");
        let running = forwarder.start();
        until("parked", || running.status().parked.is_some()).await;
        let reason = running.status().parked.unwrap();
        assert!(reason.contains("CertificateRevoked"), "{reason}");
        assert!(refusals.count("revoked") > 0);
        tokio::time::sleep(Duration::from_secs(200)).await;
        write(&folder.join("h1.key"), &renewed.private_key);
        write(&folder.join("h1.pem"), &renewed.certificate);
        let begin = Instant::now();
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        // At once, whatever the back-off was at.
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(forwarder.owner.told(|told| told.set_aside.len()), 0);
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(1);
}

#[test]
fn a_revoked_peers_open_stream_is_closed_within_a_second() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let folder = agency.directory.path().join("h1");
    let issued = agency.authority.forwarder("moh", "h1");
    write(&folder.join("h1.key"), &issued.private_key);
    write(&folder.join("h1.pem"), &issued.certificate);
    forwarder.identity.reload().unwrap();
    let mut sim = network(76);
    collector.join(&mut sim, "c1");
    let crl = agency.directory.path().join("c1/crl.pem");
    let memory = collector.memory.clone();
    sim.client("h1", async move {
        let running = forwarder.start();
        forwarder.owner.seal(Lane::Routine, b"an event");
        until("acknowledged", || forwarder.owner.acked(Lane::Routine) == 1).await;
        agency.authority.revoke(&issued);
        write(&crl, &agency.authority.revocations());
        let begin = Instant::now();
        until("closed", || running.status().connected_to.is_none()).await;
        assert!(
            begin.elapsed() < Duration::from_millis(1100),
            "{:?}",
            begin.elapsed()
        );
        assert!(running.status().parked.is_some());
        forwarder.owner.seal(Lane::Routine, b"another");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(memory.count(), 1);
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn a_forwarder_cannot_seal_as_another_host() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    let other = agency.forwarder("h2", &["c1"]);
    let mut sim = network(77);
    collector.join(&mut sim, "c1");
    sim.client("h1", async move {
        let foreign = other.owner.sealed(Lane::Routine, b"not mine");
        forwarder
            .owner
            .append(Lane::Routine, &stored::encode(&foreign));
        let running = forwarder.start();
        until("parked", || running.status().parked.is_some()).await;
        assert!(running.status().parked.unwrap().contains("wrong_agency"));
        assert_eq!(forwarder.owner.acked(Lane::Routine), 0);
        assert_eq!(forwarder.owner.told(|told| told.set_aside.len()), 0);
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    assert_eq!(collector.memory.count(), 0);
}

#[test]
fn strangers_and_slow_handshakes_harm_nobody() {
    let agency = Agency::new();
    let (collector, forwarder) = (agency.collector("c1"), agency.forwarder("h1", &["c1"]));
    // Same names, another CA.
    let stranger = Agency {
        authority: Authority::new("watch.example"),
        directory: tempfile::tempdir().unwrap(),
    };
    let stranger = stranger.forwarder("h1", &["c1"]);
    let mut sim = network(78);
    collector.join(&mut sim, "c1");
    let refusals = collector.refusals.clone();
    sim.client("slow", async move {
        let mut open = Vec::new();
        for _ in 0..100 {
            let mut connection = turmoil::net::TcpStream::connect(("c1", 7443)).await?;
            connection.write_all(b"\x16\x03").await?;
            open.push(connection);
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok(())
    });
    sim.client("garbage", async move {
        let mut connection = turmoil::net::TcpStream::connect(("c1", 7443)).await?;
        connection.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok(())
    });
    sim.client("stranger", async move {
        stranger.owner.seal(Lane::Routine, b"an event");
        let running = stranger.start();
        until("parked", || running.status().parked.is_some()).await;
        running.end().await;
        assert_eq!(stranger.owner.acked(Lane::Routine), 0);
        Ok(())
    });
    sim.client("h1", async move {
        let running = forwarder.start();
        for n in 0..10 {
            forwarder
                .owner
                .seal(Lane::Routine, format!("event {n}").as_bytes());
            let begin = Instant::now();
            until("acknowledged", || {
                forwarder.owner.acked(Lane::Routine) == n + 1
            })
            .await;
            assert!(
                begin.elapsed() < Duration::from_secs(1),
                "{:?}",
                begin.elapsed()
            );
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        running.end().await;
        Ok(())
    });
    sim.run().unwrap();
    collector.memory.assert_whole(10);
    assert!(
        refusals.count("handshake") >= 101,
        "{}",
        refusals.count("handshake")
    );
}
