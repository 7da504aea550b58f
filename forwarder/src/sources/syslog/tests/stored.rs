//! A reader that stands still, a disk that fails, a process that ends.

use std::net::SocketAddr;

use super::*;

/// Numbered records of about 100 bytes.
fn record(no: usize) -> String {
    format!("<13>{no:06} {}", "x".repeat(90))
}

fn number(body: &str) -> usize {
    body[4..10].parse().unwrap()
}

/// TAILING 46.
#[test]
fn while_the_reader_stands_still_a_tcp_sender_waits_and_nothing_is_lost() {
    let mut host = Host::new(&["tcp://127.0.0.1:0"]);
    host.config.buffer_bytes = 64 << 10;
    host.wait_until_bound();
    let mut sender = host.tcp(0);
    sender.set_nonblocking(true).unwrap();
    // Until neither the feed nor the kernel takes any more.
    let (mut sent, mut rest) = (0, Vec::new());
    let mut full_since = None;
    loop {
        if rest.is_empty() {
            rest = format!("{}\n", record(sent)).into_bytes();
            sent += 1;
        }
        match sender.write(&rest) {
            Ok(written) => {
                rest.drain(..written);
                full_since = None;
            }
            Err(_) => {
                let since = *full_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_millis(300) {
                    break;
                }
                std::thread::yield_now();
            }
        }
        assert!(sent < 10_000_000, "nobody holds the sender up");
    }
    sender.set_nonblocking(false).unwrap();
    let writer = std::thread::spawn(move || {
        sender.write_all(&rest).unwrap();
        drop(sender);
    });
    host.wait("all records", |host| host.stored.len() == sent);
    writer.join().unwrap();
    let numbers: Vec<usize> = host.bodies().into_iter().map(number).collect();
    assert!(numbers.into_iter().eq(0..sent));
}

/// TAILING 46.
#[test]
fn datagrams_that_the_kernel_dropped_are_a_gap_with_their_exact_number() {
    for listen in ["udp://127.0.0.1:0", "udp://[::1]:0"] {
        let mut host = Host::new(&[listen]);
        host.config.buffer_bytes = 64 << 10;
        host.wait_until_bound();
        let address: SocketAddr = host.source().status().files[0]
            .path
            .strip_prefix("udp://")
            .unwrap()
            .parse()
            .unwrap();
        let sender = UdpSocket::bind((address.ip(), 0)).unwrap();
        sender.connect(address).unwrap();
        let sent = 20_000;
        for no in 0..sent {
            sender.send(record(no).as_bytes()).unwrap();
        }
        let count = |host: &Host| {
            let lost: u64 = host.gaps("udp_overflow").into_iter().flatten().sum();
            (host.bodies().len(), lost)
        };
        host.wait("what is left", |host| {
            let (received, lost) = count(host);
            received as u64 + lost == sent as u64
        });
        let (_, lost) = count(&host);
        assert!(lost > 0, "the kernel found room for all of it");
        let numbers: Vec<usize> = host.bodies().into_iter().map(number).collect();
        assert!(numbers.is_sorted());
        host.stop();
        let (received, lost) = count(&host);
        assert_eq!(received as u64 + lost, sent as u64, "said twice, or late");
    }
}

#[test]
fn what_was_received_before_the_stop_is_stored_and_the_next_start_misses_nothing() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0", "udp://127.0.0.1:0"]);
    let mut tcp = host.tcp(0);
    let udp = udp_to(host.port(1));
    for no in 0..500 {
        writeln!(tcp, "{}", record(no)).unwrap();
        // Fewer than the smallest buffer of a socket holds.
        if no < 50 {
            udp.send(record(1000 + no).as_bytes()).unwrap();
        }
    }
    host.stop();
    assert_eq!(host.stored.len(), 550);
    drop(tcp);
    host.wait_until_bound();
    host.turn();
    assert!(host.stored.iter().all(|event| !event.is_gap()));
}

#[test]
fn a_process_that_was_killed_says_at_its_next_start_that_something_may_be_missing_once() {
    let mut host = Host::listening(&["udp://127.0.0.1:0"]);
    udp_to(host.port(0)).send(b"<13>x").unwrap();
    host.wait_for_events(1);
    host.source = None;
    host.turn();
    host.lose_unsynced();
    host.wait_for_events(2);
    assert_eq!(host.gaps("not_stored"), [None]);
    assert_eq!(host.stored[1].lane, Lane::Alert);
    host.lose_unsynced();
    host.stop();
    host.wait_until_bound();
    assert_eq!(host.gaps("not_stored"), [None]);
}

#[test]
fn what_a_failed_sync_lost_is_sealed_again_in_the_same_order_and_once() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    let mut sender = host.tcp(0);
    let mut written = 0;
    let mut write = |sender: &mut TcpStream| {
        for _ in 0..50 {
            writeln!(sender, "{}", record(written)).unwrap();
            written += 1;
        }
    };
    write(&mut sender);
    host.wait_for_events(50);
    for _ in 0..3 {
        write(&mut sender);
        let before = host.appended.len();
        while host.appended.len() < before + 50 {
            host.turn();
            let _ = host.woken.recv_timeout(Duration::from_millis(20));
        }
        host.lose_unsynced();
        host.turn();
    }
    write(&mut sender);
    host.wait_for_events(250);
    let numbers: Vec<usize> = host.bodies().into_iter().map(number).collect();
    assert!(numbers.into_iter().eq(0..250));
}

#[test]
fn what_could_not_be_kept_for_a_failed_sync_is_a_gap_with_its_exact_number() {
    let mut host = Host::new(&["tcp://127.0.0.1:0"]);
    host.config.buffer_bytes = 64 << 10;
    host.wait_until_bound();
    let mut sender = host.tcp(0);
    let writer = std::thread::spawn(move || {
        for no in 0..2000 {
            writeln!(sender, "{}", record(no)).unwrap();
        }
        sender
    });
    while host.appended.len() < 2000 {
        host.turn();
        let _ = host.woken.recv_timeout(Duration::from_millis(20));
    }
    let mut sender = writer.join().unwrap();
    host.lose_unsynced();
    // And once more, with the gap not stored either.
    host.turn();
    host.lose_unsynced();
    writeln!(sender, "{}", record(2000)).unwrap();
    host.wait("the last", |host| {
        host.bodies().contains(&record(2000).as_str())
    });
    let lost: Vec<Option<u64>> = host.gaps("not_stored");
    let [Some(lost)] = lost[..] else {
        panic!("{lost:?}");
    };
    assert!(lost > 0);
    let numbers: Vec<usize> = host.bodies().into_iter().map(number).collect();
    assert!(numbers.into_iter().eq(lost as usize..=2000));
}
