//! Rules that leave out everything that a busy source brings.

use prometheus_client::encoding::text::encode;

use super::*;

const DROP_ALL: &str = "[[source.drop]]\nname = \"noise\"\nmatches = [\"^line \"]\n";

impl Host {
    fn metric(&self, line: &str) -> Option<u64> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines()
            .find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }
}

/// TAILING 35.
#[test]
fn the_position_advances_over_events_that_a_rule_dropped_all() {
    let mut host = Host::running(DROP_ALL);
    for _ in 0..3 {
        host.write(2000);
        host.turn();
    }
    let filtered = "watchline_filtered_events_total{source=\"app\",rule=\"noise\",action=\"drop\"}";
    assert_eq!(host.metric(filtered), Some(6000));
    host.kill();
    // Without the rule whatever is read again would arrive.
    host.config = host.config.replace(DROP_ALL, "");
    host.write(10);
    host.drain();
    let arrived: Vec<u64> = host.next_hop.counts().into_keys().collect();
    assert_eq!(arrived, (6000..6010).collect::<Vec<_>>());
    assert_eq!(host.next_hop.gaps("state_lost").len(), 0);
}

#[test]
fn positions_behind_dropped_events_are_stored_at_a_bounded_pace() {
    let mut host = Host::running(DROP_ALL);
    host.write(1);
    host.turn();
    let used = |host: &Host| host.pipeline.as_ref().unwrap().spool.view().used_bytes();
    let before = used(&host);
    let hints = crate::hints::Hints {
        everything: true,
        ..Default::default()
    };
    for _ in 0..100 {
        host.write(1);
        let pipeline = host.start();
        let rest = pipeline.turn(News {
            hints: hints.clone(),
            ..News::default()
        });
        let now = host.clock.lock().unwrap().at;
        assert!(rest.until > now, "the reader would spin");
    }
    assert_eq!(used(&host), before, "a frame within the second");
    host.turn();
    assert!(used(&host) > before);
    let (held, events) = (used(&host), host.next_hop.events.len());
    host.turns(3);
    host.deliver();
    assert_eq!(
        (used(&host), host.next_hop.events.len()),
        (held, events),
        "once is enough"
    );
}
