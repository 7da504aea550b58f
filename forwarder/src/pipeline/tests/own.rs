//! Events of the forwarder about itself.

use super::*;

impl Host {
    /// State and duration of what arrived under a name.
    fn own_events(&self, name: &str) -> Vec<(String, Option<u64>)> {
        let of_name =
            |event: &&Arrived| event.attributes.get("event.name").map(String::as_str) == Some(name);
        let facts = |event: &Arrived| {
            assert_eq!(event.lane, Lane::Alert);
            let seconds = event.attributes.get("watchline.duration_seconds");
            let seconds = seconds.map(|seconds| seconds.parse().unwrap());
            (event.attributes["watchline.state"].clone(), seconds)
        };
        self.next_hop
            .events
            .iter()
            .filter(of_name)
            .map(facts)
            .collect()
    }
}

#[test]
fn a_spool_that_is_full_says_so_in_the_reserve_and_how_long_it_was() {
    let mut host =
        Host::new("[spool]\ndirectory = \"/spool\"\nmax_size = \"16MiB\"\nsync = \"always\"\n");
    host.spool_bytes = 4 << 20;
    host.turn();
    let mut noise = 7_u64;
    let mut line = |host: &mut Host| {
        // Does not compress.
        let text: String = (0..2000)
            .map(|_| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'!' + (noise >> 33) as u8 % 90)
            })
            .collect();
        writeln!(host.log, "{text}").unwrap();
    };
    for _ in 0..4000 {
        line(&mut host);
    }
    for _ in 0..40 {
        host.turn();
    }
    assert!(host.start().blocked.is_some(), "the spool is not full");
    host.deliver();
    assert_eq!(
        host.own_events("watchline.spool.full"),
        [("begun".to_owned(), None)]
    );
    for _ in 0..40 {
        host.turn();
        host.deliver();
    }
    let said = host.own_events("watchline.spool.full");
    let [begun, (ended, Some(seconds))] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!((begun.0.as_str(), ended.as_str()), ("begun", "ended"));
    assert!((20..=60).contains(seconds), "{said:?}");
}

#[test]
fn a_certificate_that_expires_and_batches_set_aside_are_said_once_and_when_it_is_over() {
    let mut host = Host::running("");
    *host.own.lock().unwrap() = OwnStanding {
        certificate: Some("the certificate has two thirds of its life behind it".to_owned()),
        set_aside: 2,
    };
    host.turns(5);
    host.deliver();
    for name in [
        "watchline.certificate.expiring",
        "watchline.batch.set_aside",
    ] {
        assert_eq!(host.own_events(name), [("begun".to_owned(), None)]);
    }
    *host.own.lock().unwrap() = OwnStanding::default();
    host.turns(2);
    host.deliver();
    for name in [
        "watchline.certificate.expiring",
        "watchline.batch.set_aside",
    ] {
        let ended = host.own_events(name).pop().unwrap();
        assert_eq!(ended.0, "ended");
        assert_eq!(ended.1, Some(5), "{name}");
    }
    assert_eq!(host.own_events("watchline.spool.full"), []);
}
