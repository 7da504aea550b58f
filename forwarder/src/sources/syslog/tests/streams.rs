//! TCP and local sockets: framing, limits, and who may hold what.

use std::{
    io::Read as _,
    os::unix::net::{UnixDatagram, UnixStream},
};

use super::*;

/// Whether the other side has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(LONG)).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// TAILING 45.
#[test]
fn a_nul_or_a_newline_within_a_record_stays_within_it() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    let mut counted = host.tcp(0);
    counted.write_all(b"9 <13>a\0b\nc5 <13>d").unwrap();
    host.wait_for_events(2);
    let mut lines = host.tcp(0);
    lines.write_all(b"<13>e\0f\n12 <13>g\n").unwrap();
    host.wait_for_events(4);
    assert_eq!(
        host.bodies(),
        ["<13>a\0b\nc", "<13>d", "<13>e\0f", "12 <13>g"]
    );
    assert_eq!(host.stored[0].attribute("network.transport"), Some("tcp"));
    assert_eq!(
        host.stored[0].attribute("network.peer.address"),
        Some("127.0.0.1")
    );
}

/// TAILING 45.
#[test]
fn a_record_longer_than_the_limit_is_cut_with_a_count_on_every_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let (datagram, stream) = (dir.path().join("d"), dir.path().join("s"));
    let mut host = Host::listening(&[
        "udp://127.0.0.1:0",
        "tcp://127.0.0.1:0",
        &format!("unix://{}", datagram.display()),
        &format!("unix-stream://{}", stream.display()),
    ]);
    let long = format!("<13>{}", "x".repeat(5000));
    udp_to(host.port(0)).send(long.as_bytes()).unwrap();
    host.wait_for_events(1);
    let mut tcp = host.tcp(1);
    tcp.write_all(format!("{long}\n<13>after\n").as_bytes())
        .unwrap();
    host.wait_for_events(3);
    let local = UnixDatagram::unbound().unwrap();
    local.send_to(long.as_bytes(), &datagram).unwrap();
    host.wait_for_events(4);
    let mut local = UnixStream::connect(&stream).unwrap();
    local
        .write_all(format!("{long}\0<13>after\0").as_bytes())
        .unwrap();
    host.wait_for_events(6);
    for (no, event) in host.stored.iter().enumerate() {
        if [2, 5].contains(&no) {
            assert_eq!(
                (event.text(), event.attribute("watchline.truncated_bytes")),
                ("<13>after", None)
            );
        } else {
            assert_eq!(event.text(), &long[..1024]);
            assert_eq!(
                event.attribute("watchline.truncated_bytes"),
                Some("3980"),
                "{no}"
            );
        }
    }
}

/// TAILING 45.
#[test]
fn a_wrong_octet_count_closes_that_connection_with_its_reason_and_no_other() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    let mut good = host.tcp(0);
    good.write_all(b"5 <13>a").unwrap();
    host.wait_for_events(1);
    let mut bad = host.tcp(0);
    bad.write_all(b"5 <13>bcd and what follows\n5 <13>x")
        .unwrap();
    host.wait_for_closing(Closing::BadCount, 1);
    assert!(is_closed(&mut bad));
    good.write_all(b"5 <13>c").unwrap();
    host.wait_for_events(3);
    assert_eq!(host.bodies(), ["<13>a", "<13>b", "<13>c"]);
}

/// TAILING 45.
#[test]
fn a_record_that_its_connection_ends_in_is_flagged() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    host.tcp(0).write_all(b"20 <13>cut off").unwrap();
    host.wait_for_events(1);
    host.tcp(0).write_all(b"<13>whole\n<13>no feed").unwrap();
    host.wait_for_events(3);
    let flags: Vec<_> = host
        .stored
        .iter()
        .map(|event| (event.text(), event.attribute("watchline.partial")))
        .collect();
    assert_eq!(
        flags,
        [
            ("<13>cut off", Some("true")),
            ("<13>whole", None),
            ("<13>no feed", Some("true"))
        ]
    );
    host.wait_for_closing(Closing::ByPeer, 2);
}

#[test]
fn one_sender_cannot_hold_more_than_half_of_the_connections_and_gives_them_back() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    host.config.max_connections = 8;
    let mut held: Vec<TcpStream> = (0..4).map(|_| host.tcp(0)).collect();
    host.wait("four connections", |host| {
        host.source().status().files[0].note.as_deref() == Some("4 connections")
    });
    let mut one_more = host.tcp(0);
    assert!(is_closed(&mut one_more));
    host.wait_for_closing(Closing::TooMany, 1);
    // Idle ones are as good as on the first day.
    held[3].write_all(b"<13>x\n").unwrap();
    host.wait_for_events(1);
    held.pop();
    host.wait_for_closing(Closing::ByPeer, 1);
    host.tcp(0).write_all(b"<13>y\n").unwrap();
    host.wait_for_events(2);
}

#[test]
fn a_slow_sender_holds_up_nobody_and_its_record_comes_whole() {
    let mut host = Host::listening(&["tcp://127.0.0.1:0"]);
    let mut slow = host.tcp(0);
    let mut quick = host.tcp(0);
    for (no, byte) in b"<13>slow\n".iter().enumerate() {
        slow.write_all(&[*byte]).unwrap();
        quick.write_all(b"<13>quick\n").unwrap();
        host.wait("the quick one", |host| host.stored.len() > no);
    }
    host.wait_for_events(10);
    assert_eq!(
        host.bodies()
            .iter()
            .filter(|body| **body == "<13>slow")
            .count(),
        1
    );
}

#[test]
fn a_socket_that_a_process_left_behind_is_replaced_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    drop(UnixDatagram::bind(&path).unwrap());
    let listen = format!("unix://{}", path.display());
    let mut host = Host::listening(&[&listen]);
    let mut second = Host::new(&[&listen]);
    second.wait("the trouble", |host| {
        host.source().status().trouble.is_some()
    });
    second.source = None;
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"<13>to the first", &path).unwrap();
    host.wait_for_events(1);
    assert_eq!(host.stored[0].attribute("network.transport"), Some("unix"));
    host.stop();
    assert!(!path.exists());
    // A file of somebody else is left alone.
    std::fs::write(&path, "mine").unwrap();
    let mut host = Host::new(&[&listen]);
    host.wait("the trouble", |host| {
        host.source().status().trouble.is_some()
    });
    host.source = None;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}
