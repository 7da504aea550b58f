use std::{fs, path::Path, sync::mpsc, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};
use watchline_node::{health::CheckState, identity::testing::Authority};
use watchline_proto::{Lane, stored, wire};
use watchline_spool::{ItemNo, ReadItem};

use super::*;
use crate::outputs::{
    config::Rotation,
    feed::Signal,
    follow::testing::World,
    testing::{Event, NOW, Sealer},
};

fn authority() -> Authority {
    Authority::new("watch.example")
}

fn render(format: FileFormat, batch: &wire::SealedBatch) -> Vec<u8> {
    let item = ReadItem {
        lane: 1,
        no: ItemNo(0),
        bytes: stored::encode(batch),
    };
    let mut out = Vec::new();
    let rendered = Lines::new(format)
        .render(&item, 0, usize::MAX, &mut 0, &mut out)
        .unwrap();
    assert_eq!(rendered.next, None);
    out
}

fn golden() -> (Sealer, Event) {
    let mut sealer = Sealer::host(&authority(), "host-01", 0x9f);
    sealer.labels = [("system", "portal"), ("level", "3")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    sealer.received = NOW + 123_456_789;
    let event = Event {
        time: Some(NOW - 1),
        severity: 9,
        origin_attributes: vec![("log.file.path".to_owned(), "/var/log/auth.log".to_owned())],
        ..Event::line("sshd[1]: said \"no\"\tto é\u{1f600}\r")
    };
    (sealer, event)
}

#[test]
fn an_ndjson_line_is_as_the_design_says_to_the_letter() {
    let (mut sealer, event) = golden();
    sealer.item(Lane::Routine);
    let second = Event {
        time: None,
        severity: 0,
        attributes: vec![("watchline.partial".to_owned(), "true".to_owned())],
        body: b"not \xff utf-8".to_vec(),
        ..event.clone()
    };
    let batch = sealer.batch(Lane::Routine, &[event, second]);
    let epoch = "9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f";
    let expected = [
        r#"{"v":1,"id":"watch.example/moh/host-01/EPOCH/routine/1/0","time":"2026-11-23T09:15:01.999999999Z","observed":"2026-11-23T09:15:02.000000000Z","received":"2026-11-23T09:15:02.123456789Z","agency":"moh","forwarder":"host-01","labels":{"level":"3","system":"portal"},"source":"auth","kind":"file","lane":"routine","severity":"INFO","severity_number":9,"epoch":"EPOCH","sequence":1,"index":0,"body":"sshd[1]: said \"no\"\tto é😀\r","attributes":{"log.file.path":"/var/log/auth.log"}}"#,
        r#"{"v":1,"id":"watch.example/moh/host-01/EPOCH/routine/1/1","time":null,"observed":"2026-11-23T09:15:02.000000000Z","received":"2026-11-23T09:15:02.123456789Z","agency":"moh","forwarder":"host-01","labels":{"level":"3","system":"portal"},"source":"auth","kind":"file","lane":"routine","severity":null,"severity_number":null,"epoch":"EPOCH","sequence":1,"index":1,"body":null,"body_base64":"bm90IP8gdXRmLTg=","attributes":{"log.file.path":"/var/log/auth.log","watchline.partial":"true"}}"#,
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|line| line.replace("EPOCH", epoch))
        .collect();
    let lines = String::from_utf8(render(FileFormat::Ndjson, &batch)).unwrap();
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    assert!(lines.ends_with("}}\n"));
}

#[test]
fn what_a_centre_sealed_has_no_agency_and_an_id_of_seven_parts() {
    let center = authority().center("center-1");
    let mut sealer = Sealer::new(center, "spiffe://watch.example/center/center-1", 1);
    let batch = sealer.batch(Lane::Alert, &[Event::line("x")]);
    let line: Value = serde_json::from_slice(&render(FileFormat::Ndjson, &batch)).unwrap();
    assert_eq!(line["agency"], Value::Null);
    assert_eq!(line["forwarder"], "center-1");
    let id = line["id"].as_str().unwrap();
    assert!(id.starts_with("watch.example/-/center-1/0101"), "{id}");
    assert_eq!(id.split('/').count(), 7);
}

#[test]
fn labels_of_a_source_stand_before_those_of_the_batch_and_no_record_can_set_them() {
    let (mut sealer, event) = golden();
    let label = |name: &str, value: &str| (format!("watchline.label.{name}"), value.to_owned());
    let labelled = Event {
        origin_attributes: vec![label("system", "mail"), label("team", "web")],
        attributes: vec![label("level", "claimed")],
        ..event.clone()
    };
    let batch = sealer.batch(Lane::Routine, &[labelled, event]);
    let lines = String::from_utf8(render(FileFormat::Ndjson, &batch)).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected = serde_json::json!({"level": "3", "system": "mail", "team": "web"});
    assert_eq!(lines[0]["labels"], expected);
    assert_eq!(lines[0]["attributes"], serde_json::json!({}));
    let expected = serde_json::json!({"level": "3", "system": "portal"});
    assert_eq!(lines[1]["labels"], expected);
}

#[test]
fn a_record_cannot_claim_what_only_watchline_says() {
    let names = [
        "event.name",
        "watchline.gap.reason",
        "watchline.partial",
        "user.name",
    ];
    let claims: Vec<_> = names
        .iter()
        .map(|name| ((*name).to_owned(), "claimed".to_owned()))
        .collect();
    let mut sealer = Sealer::host(&authority(), "host-01", 1);
    for (kind, expected) in [("file", &names[2..]), ("watchline", &names[..])] {
        for own in [true, false] {
            let mut event = Event {
                kind: kind.to_owned(),
                ..Event::line("x")
            };
            *(if own {
                &mut event.attributes
            } else {
                &mut event.origin_attributes
            }) = claims.clone();
            let batch = sealer.batch(Lane::Routine, &[event]);
            let line: Value = serde_json::from_slice(&render(FileFormat::Ndjson, &batch)).unwrap();
            let mut found: Vec<_> = line["attributes"]
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            found.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{kind}, own {own}");
        }
    }
}

#[test]
fn raw_lines_are_the_records_byte_for_byte() {
    let bodies: [&[u8]; 5] = [b"plain", b"", b"cr\r", b"nul\0 and \xff\xfe", b"two\nlines"];
    let events: Vec<_> = bodies.iter().map(|body| Event::line(*body)).collect();
    let batch = Sealer::host(&authority(), "host-01", 1).batch(Lane::Routine, &events);
    let expected: Vec<u8> = bodies
        .iter()
        .flat_map(|body| [body, &b"\n"[..]].concat())
        .collect();
    assert_eq!(render(FileFormat::Raw, &batch), expected);
}

#[test]
fn a_batch_rendered_in_pieces_is_the_batch() {
    let (mut sealer, event) = golden();
    let events: Vec<_> = (0..50)
        .map(|n| Event {
            body: vec![b'a'; n],
            ..event.clone()
        })
        .collect();
    let batch = sealer.batch(Lane::Routine, &events);
    let item = ReadItem {
        lane: 1,
        no: ItemNo(7),
        bytes: stored::encode(&batch),
    };
    for format in [FileFormat::Ndjson, FileFormat::Raw] {
        let whole = render(format, &batch);
        let mut pieces = Vec::new();
        let (mut from, mut records, mut lines) = (0, 0, Lines::new(format));
        loop {
            let mut out = Vec::new();
            let rendered = lines
                .render(&item, from, 700, &mut records, &mut out)
                .unwrap();
            pieces.extend(out);
            match rendered.next {
                Some(next) => from = next,
                None => break,
            }
            if from % 2 == 0 {
                lines = Lines::new(format); // another process
            }
        }
        assert_eq!(pieces, whole);
        assert_eq!(records, 50);
    }
}

#[test]
fn a_batch_that_cannot_be_opened_is_unreadable_and_never_panics() {
    let whole = stored::encode(&golden().0.batch(Lane::Routine, &[golden().1]));
    for cut in 0..whole.len() {
        let item = ReadItem {
            lane: 1,
            no: ItemNo(0),
            bytes: whole.slice(..cut),
        };
        let mut out = Vec::new();
        let rendered = Lines::new(FileFormat::Ndjson).render(&item, 0, 1000, &mut 0, &mut out);
        if rendered.is_err() {
            assert_eq!(out, b"", "cut at {cut}");
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{1,12}", ".{0,20}", "[\\x00-\\x7f]{0,20}"]
}

fn event() -> impl Strategy<Value = Event> {
    let name = prop_oneof!["[a-z.]{1,9}", Just("log.file.path".to_owned())];
    let attributes = prop::collection::vec((name, text()), 0..4).boxed();
    (
        (
            prop::collection::vec(any::<u8>(), 0..60),
            text(),
            any::<bool>(),
        ),
        (text(), attributes.clone(), attributes),
        (any::<Option<i64>>(), any::<i64>(), 0..=24_u8),
    )
        .prop_map(
            |(
                (bytes, body, utf8),
                (source, origin_attributes, attributes),
                (time, observed, severity),
            )| Event {
                body: if utf8 { body.into_bytes() } else { bytes },
                source,
                kind: "file".to_owned(),
                origin_attributes,
                attributes,
                time,
                observed,
                severity,
            },
        )
}

fn expected_attributes(event: &Event) -> Value {
    let mut all = serde_json::Map::new();
    // Of equal names in one place the first stands; the event's stand before the origin's.
    for (name, value) in event.attributes.iter().chain(&event.origin_attributes) {
        let is_claim = name.starts_with("event.") || name.starts_with("watchline.");
        if !is_claim && !all.contains_key(name) {
            all.insert(name.clone(), json!(value));
        }
    }
    Value::Object(all)
}

proptest! {
    #[test]
    fn every_event_reads_back_from_its_line(events in prop::collection::vec(event(), 1..8)) {
        let mut sealer = Sealer::host(&authority(), "host-01", 1);
        let batch = sealer.batch(Lane::Routine, &events);
        let out = render(FileFormat::Ndjson, &batch);
        let lines: Vec<_> = out.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n').collect();
        prop_assert_eq!(lines.len(), events.len());
        for (index, (line, event)) in lines.iter().zip(&events).enumerate() {
            let line: Value = serde_json::from_slice(line).unwrap();
            prop_assert_eq!(&line["index"], &json!(index));
            prop_assert_eq!(&line["source"], &json!(event.source));
            prop_assert_eq!(&line["attributes"], &expected_attributes(event));
            prop_assert_eq!(line["time"].is_null(), event.time.is_none());
            match std::str::from_utf8(&event.body) {
                Ok(body) => prop_assert_eq!(&line["body"], &json!(body)),
                Err(_) => {
                    use base64::{Engine as _, engine::general_purpose::STANDARD};
                    let body = STANDARD.decode(line["body_base64"].as_str().unwrap()).unwrap();
                    prop_assert_eq!(&body, &event.body);
                    prop_assert!(line["body"].is_null());
                }
            }
        }
    }
}

/// A running output on the real file system.
struct Running {
    world: World,
    signal: Signal,
    reports: mpsc::Receiver<CheckState>,
    thread: std::thread::JoinHandle<()>,
}

fn start(world: &World, path: &Path) -> Running {
    let mut feed = world.feed();
    let (tell, reports) = mpsc::channel();
    feed.report = Box::new(move |state| tell.send(state).unwrap());
    feed.quarantine = path.parent().unwrap().join("quarantine");
    let signal = feed.signal.clone();
    let config = FileConfig {
        path: path.to_owned(),
        format: FileFormat::Raw,
        rotation: Rotation::default(),
        keep: None,
    };
    let output = FileOutput::new(config, feed);
    let thread = std::thread::spawn(move || output.run());
    Running {
        world: world.clone(),
        signal,
        reports,
        thread,
    }
}

impl Running {
    fn push(&self, sealer: &mut Sealer, bodies: &[&str]) {
        let events: Vec<_> = bodies.iter().map(|body| Event::line(*body)).collect();
        self.world
            .push(1, stored::encode(&sealer.batch(Lane::Routine, &events)));
        self.signal.wake();
    }

    fn next_report(&self) -> CheckState {
        self.reports.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    fn stop(self) {
        self.signal.stop();
        self.thread.join().unwrap();
    }
}

#[test]
fn a_running_output_writes_what_comes_and_goes_on_after_a_restart() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.log");
    let world = World::new(1);
    let mut sealer = Sealer::host(&authority(), "host-01", 1);
    let output = start(&world, &path);
    assert_eq!(output.next_report(), CheckState::Ok);
    output.push(&mut sealer, &["one", "two"]);
    world.await_mark(1, 1);
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    output.stop();

    use std::io::Write as _;
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"thr")
        .unwrap();
    let output = start(&world, &path);
    output.push(&mut sealer, &["three"]);
    world.await_mark(1, 2);
    output.stop();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
}

#[test]
fn an_output_whose_directory_is_gone_says_so_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("out");
    let path = folder.join("events.log");
    let world = World::new(1);
    let mut sealer = Sealer::host(&authority(), "host-01", 1);
    let output = start(&world, &path);
    assert_eq!(output.next_report(), CheckState::Ok);
    output.push(&mut sealer, &["one"]);
    world.await_mark(1, 1);
    let aside = directory.path().join("aside");
    fs::rename(&folder, &aside).unwrap();
    output.push(&mut sealer, &["two"]);
    let CheckState::Failing { reason } = output.next_report() else {
        panic!("it does not say so")
    };
    assert!(
        reason.contains("events.log") && reason.contains("No such file"),
        "{reason}"
    );
    fs::rename(&aside, &folder).unwrap();
    assert_eq!(output.next_report(), CheckState::Ok);
    world.await_mark(1, 2);
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    output.stop();
}

#[test]
fn something_that_is_not_a_file_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.log");
    let target = directory.path().join("shadow");
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let world = World::new(1);
    let output = start(&world, &path);
    let CheckState::Failing { reason } = output.next_report() else {
        panic!("it takes a link")
    };
    assert!(reason.ends_with("is not a regular file"), "{reason}");
    output.stop();
}
