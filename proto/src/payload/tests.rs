use proptest::prelude::*;

use super::{
    columns::{Footer, put_varint},
    *,
};
use crate::{
    limits::*,
    samples::{self, Event, PAYLOAD_V1, build, events, open, payload_info, push},
    seal,
};

/// Packs what is no builder's work, so that only the opener stands between it and us.
fn pack(unpacked: &[u8], events: u32) -> (Vec<u8>, PayloadInfo) {
    let payload = zstd::bulk::compress(unpacked, 1).unwrap();
    let info = PayloadInfo {
        format: FORMAT_COLUMNS_ZSTD_1,
        hash: Hash::of(&payload),
        bytes: payload.len() as u32,
        unpacked_bytes: unpacked.len() as u32,
        events,
    };
    (payload, info)
}

fn unpack(payload: &[u8]) -> Vec<u8> {
    zstd::bulk::decompress(payload, MAX_UNPACKED_BYTES).unwrap()
}

/// Bytes that do not compress, the same ones each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Text that hardly compresses.
fn noise_text(bytes: usize) -> String {
    noise(bytes)
        .into_iter()
        .map(|byte| char::from(byte % 94 + b'!'))
        .collect()
}

/// The origin or event with as many attributes as may be, each as long as may be.
fn largest_attributes() -> Vec<(String, String)> {
    let text = noise_text(MAX_LABELS * 4);
    let name = |at: usize| format!("{}{}", &text[4 * at..4 * at + 4], noise_text(124));
    (0..MAX_LABELS)
        .map(|at| (name(at), noise_text(MAX_LABEL_VALUE_BYTES)))
        .collect()
}

fn event(body: Vec<u8>) -> Event {
    Event {
        body,
        origin: samples::origin("s", "/s"),
        observed: 1,
        time: None,
        severity: 0,
        attributes: Vec::new(),
    }
}

#[test]
fn the_stored_sample_of_format_1_is_read() {
    let info = payload_info();
    assert_eq!(Hash::of(PAYLOAD_V1), info.hash);
    assert_eq!(open(PAYLOAD_V1, &info).unwrap(), events());
}

#[test]
fn the_columns_of_format_1_are_those_of_the_stored_sample_to_the_byte() {
    // What zstd makes of them may change with its version; what it unpacks to may not.
    let payload = build(&events());
    assert_eq!(unpack(&payload.bytes), unpack(PAYLOAD_V1));
    assert_eq!(payload.info.unpacked_bytes, payload_info().unpacked_bytes);
    assert_eq!(payload.info.events, 5);
    assert_eq!(payload.first_observed_unix_nano, 1_789_999_999_999_999_995);
    assert_eq!(payload.last_observed_unix_nano, 1_790_000_000_000_000_001);
}

#[test]
fn damage_of_a_payload_is_an_error_or_another_value() {
    let original = events();
    // One bit means nothing to zstd (RFC 8878, 3.1.1.1.1.3). The hash in the seal covers it too.
    const UNUSED: (usize, u8) = (4, 0x10);
    samples::each_damage(PAYLOAD_V1, |damaged| {
        let info = PayloadInfo {
            bytes: damaged.len() as u32,
            ..payload_info()
        };
        let unused = damaged.get(UNUSED.0) == Some(&(PAYLOAD_V1[UNUSED.0] ^ UNUSED.1));
        assert!(
            unused || open(damaged, &info) != Ok(original.clone()),
            "{damaged:02x?}"
        );
    });
}

#[test]
fn damage_below_the_compression_is_an_error_or_another_value() {
    let original = events();
    samples::each_damage(&unpack(PAYLOAD_V1), |damaged| {
        let (payload, info) = pack(damaged, 5);
        assert!(
            open(&payload, &info) != Ok(original.clone()),
            "{damaged:02x?}"
        );
    });
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let info = PayloadInfo {
        bytes: bomb.len() as u32,
        ..payload_info()
    };
    assert_eq!(
        open(&bomb, &info).unwrap_err(),
        PayloadError::TooLarge {
            unpacked: 64 << 20,
            allowed: info.unpacked_bytes.into()
        }
    );
    let info = PayloadInfo {
        unpacked_bytes: 64 << 20,
        ..info
    };
    assert_eq!(
        open(&bomb, &info).unwrap_err(),
        PayloadError::TooLarge {
            unpacked: 64 << 20,
            allowed: MAX_UNPACKED_BYTES as u64
        }
    );
}

#[test]
fn a_bomb_of_several_frames_is_refused_within_its_sealed_size() {
    let frame = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
    let payload = frame.repeat(4096);
    let info = PayloadInfo {
        bytes: payload.len() as u32,
        unpacked_bytes: 1 << 20,
        ..payload_info()
    };
    let mut opener = PayloadOpener::new();
    let Err(error) = opener.open(&payload, &info) else {
        panic!("a bomb was opened")
    };
    assert!(matches!(error, PayloadError::Malformed(_)), "{error}");
    assert!(opener.kept_bytes() <= 1 << 20);
}

#[test]
fn a_payload_that_is_not_the_sealed_one_is_refused_by_its_size() {
    let info = payload_info();
    let cut = &PAYLOAD_V1[..PAYLOAD_V1.len() - 1];
    assert_eq!(
        open(cut, &info),
        Err(PayloadError::Size {
            sealed: info.bytes,
            actual: cut.len()
        })
    );
}

#[test]
fn a_payload_of_a_newer_format_is_told_from_a_defect() {
    let info = PayloadInfo {
        format: 2,
        ..payload_info()
    };
    assert_eq!(open(PAYLOAD_V1, &info), Err(PayloadError::Format(2)));
}

#[test]
fn a_payload_beyond_the_limit_is_refused_unread() {
    let payload = vec![0; MAX_PAYLOAD_BYTES + 1];
    let info = PayloadInfo {
        bytes: payload.len() as u32,
        ..payload_info()
    };
    let error = open(&payload, &info).unwrap_err();
    assert!(matches!(error, PayloadError::TooLarge { .. }), "{error}");
}

/// One column of a payload of one event with the body `x`, by its place; the others as they should be.
fn with_column(at: usize, column: &[u8]) -> Result<Vec<Event>, PayloadError> {
    let good: [&[u8]; 8] = [
        &[1, 1, b's', 1, b'k', 0],
        &[1],
        &[2, 1],
        &[0, 1],
        &[0, 1],
        &[0, 1],
        &[],
        &[],
    ];
    let mut columns = good;
    columns[at] = column;
    let mut unpacked = b"x".to_vec();
    unpacked.extend_from_slice(&columns.concat());
    Footer {
        bodies: 1,
        events: 1,
        columns: columns.map(|column| column.len() as u32),
    }
    .write(&mut unpacked);
    let (payload, info) = pack(&unpacked, 1);
    open(&payload, &info)
}

#[test]
fn each_column_that_is_wrong_is_named() {
    const ORIGINS: usize = 0;
    const LENGTHS: usize = 1;
    const OBSERVED: usize = 2;
    const ORIGIN: usize = 3;
    const SEVERITY: usize = 4;
    const TIMED: usize = 5;
    const TIMES: usize = 6;
    const ATTRIBUTES: usize = 7;

    assert_eq!(with_column(LENGTHS, &[1]).unwrap()[0].body, b"x");
    let too_many_origins = {
        let mut column = Vec::new();
        put_varint(&mut column, MAX_ORIGINS as u64 + 1);
        column.extend([0, 0, 0].repeat(MAX_ORIGINS + 1));
        column
    };
    let too_many_attributes = {
        let mut column = vec![0, MAX_LABELS as u8 + 1];
        column.extend([0, 0].repeat(MAX_LABELS + 1));
        column
    };
    let long_name = {
        let mut column = vec![0, 1];
        put_varint(&mut column, MAX_LABEL_NAME_BYTES as u64 + 1);
        column.extend([b'n'; MAX_LABEL_NAME_BYTES + 1]);
        column.push(0);
        column
    };
    const MORE: &str = "a column has more than the events";
    let wrong: [(usize, &[u8], &str); 26] = [
        (ORIGINS, &[], "origins"),
        (ORIGINS, &[1, 1, b's', 1, b'k', 0, 0], "origins"),
        (ORIGINS, &[2, 1, b's', 1, b'k', 0], "origins"),
        (ORIGINS, &[1, 1, 0xff, 1, b'k', 0], "origins"),
        (ORIGINS, &[0xff, 0xff, 0xff, 0xff, 0x0f], "origins"),
        (ORIGINS, &too_many_origins, "origins"),
        (LENGTHS, &[], "lengths"),
        (LENGTHS, &[0x80], "lengths"),
        (LENGTHS, &[2], "lengths beyond the bodies"),
        (LENGTHS, &[0], MORE),
        (LENGTHS, &[1, 0], MORE),
        (OBSERVED, &[], "observed"),
        (OBSERVED, &[2, 0], "observed"),
        (OBSERVED, &[2, 2], MORE),
        (ORIGIN, &[2, 1], "origin"),
        (ORIGIN, &[1, 1], "origin"),
        (SEVERITY, &[50, 1], "severity"),
        (SEVERITY, &[0x80, 4, 1], "severity"),
        (TIMED, &[4, 1], "timed"),
        (TIMED, &[2, 1], "times"),
        (TIMES, &[0], MORE),
        (ATTRIBUTES, &[0], "attributes"),
        (ATTRIBUTES, &[0, 0], "attributes"),
        (ATTRIBUTES, &[1, 1, 0, 0], MORE),
        (ATTRIBUTES, &too_many_attributes, "attributes"),
        (ATTRIBUTES, &long_name, "attributes"),
    ];
    for (at, column, expected) in wrong {
        assert_eq!(
            with_column(at, column),
            Err(PayloadError::Malformed(expected)),
            "column {at}: {column:02x?}"
        );
    }
}

#[test]
fn a_record_beyond_the_limit_is_refused() {
    let mut column = Vec::new();
    put_varint(&mut column, MAX_RECORD_BYTES as u64 + 1);
    assert_eq!(
        with_column(1, &column),
        Err(PayloadError::Malformed("lengths"))
    );
}

#[test]
fn a_footer_that_does_not_fit_is_refused() {
    let unpacked = unpack(PAYLOAD_V1);
    for (bytes, events, expected) in [
        (&unpacked[..Footer::BYTES - 1], 5, "there is no footer"),
        (&unpacked[1..], 5, "the footer's lengths do not add up"),
        (
            &unpacked[..],
            4,
            "the number of events is not the sealed one, or beyond the limit",
        ),
    ] {
        let (payload, info) = pack(bytes, events);
        assert_eq!(
            open(&payload, &info),
            Err(PayloadError::Malformed(expected))
        );
    }
    let mut none = Vec::new();
    Footer {
        bodies: 0,
        events: 0,
        columns: [0; 8],
    }
    .write(&mut none);
    let (payload, info) = pack(&none, 0);
    assert!(matches!(
        open(&payload, &info),
        Err(PayloadError::Malformed(_))
    ));
}

#[test]
fn more_events_than_a_batch_may_have_are_refused() {
    // Runs make a million events cheap to write; only lengths cost a byte each.
    let events = MAX_EVENTS as u32 + 1;
    let mut runs = vec![0];
    put_varint(&mut runs, events.into());
    let lengths = vec![0; events as usize];
    let columns: [&[u8]; 8] = [
        &[1, 0, 0, 0],
        &lengths,
        &runs,
        &runs,
        &runs,
        &runs,
        &[],
        &[],
    ];
    let mut unpacked = columns.concat();
    Footer {
        bodies: 0,
        events,
        columns: columns.map(|column| column.len() as u32),
    }
    .write(&mut unpacked);
    let (payload, info) = pack(&unpacked, events);
    assert!(matches!(
        open(&payload, &info),
        Err(PayloadError::Malformed(_))
    ));
}

#[test]
fn an_empty_builder_has_nothing_to_finish() {
    let mut builder = PayloadBuilder::new();
    builder.origin(&samples::origin("s", "/s"));
    assert!(builder.is_empty());
    assert!(builder.finish().is_none());
    assert_eq!(builder.origin(&samples::origin("t", "/t")), OriginIndex(0));
}

#[test]
fn a_batch_holds_nothing_of_the_one_before() {
    let mut builder = PayloadBuilder::new();
    for event in events() {
        push(&mut builder, &event);
    }
    let first = builder.finish().unwrap();
    for event in events() {
        push(&mut builder, &event);
    }
    let second = builder.finish().unwrap();
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(first.info, second.info);
}

#[test]
fn the_largest_record_with_the_largest_attributes_fits_an_empty_batch() {
    let mut largest = event(noise(MAX_RECORD_BYTES));
    largest.attributes = largest_attributes();
    largest.origin.attributes = largest_attributes();
    let payload = build(std::slice::from_ref(&largest));
    assert!(payload.bytes.len() <= MAX_PAYLOAD_BYTES);
    assert_eq!(open(&payload.bytes, &payload.info).unwrap(), [largest]);
}

#[test]
fn a_record_beyond_the_limit_has_no_room_even_in_an_empty_batch() {
    assert!(PayloadBuilder::new().has_room(MAX_RECORD_BYTES));
    assert!(!PayloadBuilder::new().has_room(MAX_RECORD_BYTES + 1));
    assert!(!PayloadBuilder::new().has_room(usize::MAX));
}

/// Fills a batch until it has no room and returns it sealed, opened and checked.
fn fill(mut next: impl FnMut(usize) -> Event) -> Payload {
    let mut builder = PayloadBuilder::new();
    let mut pushed = Vec::new();
    loop {
        let event = next(pushed.len());
        if !builder.has_room(event.body.len()) {
            break;
        }
        push(&mut builder, &event);
        pushed.push(event);
    }
    let at_most = builder.unpacked_bytes();
    let payload = builder.finish().unwrap();
    assert!(payload.info.unpacked_bytes as usize <= at_most);
    assert!(at_most - payload.info.unpacked_bytes as usize <= 64);
    assert!(payload.bytes.len() <= MAX_PAYLOAD_BYTES);
    assert!(open(&payload.bytes, &payload.info).unwrap() == pushed);
    samples::chain()
        .seal(samples::draft(seal::Lane::Alert, &payload))
        .unwrap();
    payload
}

#[test]
fn a_batch_that_is_full_can_be_sent_though_it_does_not_compress() {
    let noise = noise(8 << 20);
    let payload = fill(|at| event(noise[at * 1000..][..1000].to_vec()));
    assert!(payload.bytes.len() > 3 << 20, "{}", payload.bytes.len());
}

#[test]
fn a_batch_is_full_at_the_limit_of_events() {
    let payload = fill(|at| event(vec![b'x'; at % 3]));
    assert_eq!(payload.info.events as usize, MAX_EVENTS);
}

#[test]
fn a_batch_is_full_at_the_limit_of_origins() {
    let payload = fill(|at| Event {
        origin: samples::origin("s", &at.to_string()),
        ..event(Vec::new())
    });
    assert_eq!(payload.info.events as usize, MAX_ORIGINS);
}

#[test]
fn a_batch_of_the_largest_attributes_can_be_sent() {
    let attributes = largest_attributes();
    fill(|at| {
        let mut event = event(b"x".to_vec());
        event.attributes = attributes.clone();
        event.origin.attributes = attributes.clone();
        event.origin.source = at.to_string();
        event
    });
}

#[test]
fn what_is_beyond_the_limits_of_attributes_is_cut() {
    let mut event = event(b"x".to_vec());
    event.severity = 25;
    event.origin.source = "s".repeat(1000);
    event.attributes = vec![("n".repeat(129), "é".repeat(3000))];
    event
        .attributes
        .extend((0..100).map(|at| (at.to_string(), String::new())));
    let payload = build(&[event]);
    let read = &open(&payload.bytes, &payload.info).unwrap()[0];
    assert_eq!(read.severity, 0);
    assert_eq!(read.origin.source, "s".repeat(125) + "…");
    assert_eq!(read.attributes.len(), MAX_LABELS);
    assert_eq!(
        read.attributes[0],
        ("n".repeat(125) + "…", "é".repeat(2046) + "…")
    );
}

#[test]
fn an_index_of_another_batch_loses_no_event() {
    let mut builder = PayloadBuilder::new();
    let meta = EventMeta {
        origin: OriginIndex(7),
        observed_unix_nano: 1,
        time_unix_nano: None,
        severity: 0,
        attributes: &[],
    };
    builder.push(b"x", meta);
    let payload = builder.finish().unwrap();
    let read = open(&payload.bytes, &payload.info).unwrap();
    assert_eq!(read[0].body, b"x");
    assert_eq!(read[0].origin.source, "unknown");
}

#[test]
fn an_opener_reuses_its_buffer_once_the_payload_before_is_gone() {
    let payload = build(&events());
    let mut opener = PayloadOpener::new();
    let first = opener.open(&payload.bytes, &payload.info).unwrap();
    // The first is still read from: the second must not touch it.
    let second = opener.open(&payload.bytes, &payload.info).unwrap();
    assert!(first.events().eq(second.events()));
    drop((first, second));
    let kept = opener.kept_bytes();
    assert!(kept > 0);
    opener.open(&payload.bytes, &payload.info).unwrap();
    assert_eq!(opener.kept_bytes(), kept);
}

#[test]
fn debug_output_shows_nothing_of_a_record() {
    let payload = build(&events());
    let opened = PayloadOpener::new()
        .open(&payload.bytes, &payload.info)
        .unwrap();
    let shown = format!("{payload:?} {:?}", opened.events().next().unwrap());
    assert!(
        !shown.contains("sshd") && !shown.contains("115, 115"),
        "{shown}"
    );
}

fn any_text() -> impl Strategy<Value = String> {
    "[a-zé.]{0,8}"
}

fn any_event() -> impl Strategy<Value = Event> {
    let attributes = || prop::collection::vec((any_text(), any_text()), 0..3);
    let origin = (
        0..3u8,
        attributes().prop_map(|attributes| attributes.into_iter().take(1).collect()),
    )
        .prop_map(|(source, attributes)| Origin {
            source: source.to_string(),
            kind: "file".to_owned(),
            attributes,
        });
    let time = prop_oneof![Just(1_790_000_000_000_000_000), any::<i64>()];
    (
        prop::collection::vec(any::<u8>(), 0..200),
        origin,
        time.clone(),
        prop::option::of(time),
        0..=MAX_SEVERITY,
        prop_oneof![3 => Just(Vec::new()), 1 => attributes()],
    )
        .prop_map(
            |(body, origin, observed, time, severity, attributes)| Event {
                body,
                origin,
                observed,
                time,
                severity,
                attributes,
            },
        )
}

proptest! {
    #[test]
    fn events_come_back_as_they_were_pushed(events in prop::collection::vec(any_event(), 1..60)) {
        let payload = build(&events);
        prop_assert_eq!(payload.info.hash, Hash::of(&payload.bytes));
        prop_assert_eq!(open(&payload.bytes, &payload.info).unwrap(), events.clone());
        prop_assert_eq!(Some(payload.first_observed_unix_nano), events.iter().map(|event| event.observed).min());
        prop_assert_eq!(Some(payload.last_observed_unix_nano), events.iter().map(|event| event.observed).max());
    }

    #[test]
    fn any_bytes_are_opened_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), events in 0..4u32) {
        let (payload, info) = pack(&bytes, events);
        let _ = open(&payload, &info);
        let _ = open(&bytes, &PayloadInfo { bytes: bytes.len() as u32, ..info });
    }
}
