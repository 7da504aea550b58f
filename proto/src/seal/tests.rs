use proptest::prelude::*;

use super::*;
use crate::samples::{SEAL_V1, each_damage, seal, void};

#[test]
fn the_stored_sample_of_version_1_is_read_and_made_again_to_the_byte() {
    assert_eq!(Seal::decode(SEAL_V1), Ok(seal()));
    assert_eq!(seal().encode(), SEAL_V1);
    assert_eq!(
        Hash::of(SEAL_V1).to_string(),
        "26857a5eb995dc301b7a1fd8b9f7486a5a934fc8ad7c646fad5e37af581f9857"
    );
}

#[test]
fn damage_of_a_seal_is_an_error_or_another_value() {
    each_damage(SEAL_V1, |damaged| {
        assert!(Seal::decode(damaged) != Ok(seal()), "{damaged:02x?}");
    });
}

#[test]
fn fields_of_a_newer_program_are_ignored() {
    let mut bytes = SEAL_V1.to_vec();
    prost::encoding::string::encode(1000, &"new".to_owned(), &mut bytes);
    assert_eq!(Seal::decode(&bytes), Ok(seal()));
}

/// The error of a sample altered as its message, as an encoder without our rules would send it.
fn refused(alter: impl FnOnce(&mut wire::Seal)) -> SealError {
    let mut message = wire::Seal::from(&seal());
    alter(&mut message);
    Seal::decode(&message.encode_to_vec()).unwrap_err()
}

/// The same for one that is not the first of its chain.
fn refused_later(alter: impl FnOnce(&mut wire::Seal)) -> SealError {
    refused(|seal| {
        seal.sequence = 7;
        seal.previous = Hash::of(b"seal 6").into();
        seal.previous_epoch = None;
        alter(seal);
    })
}

#[test]
fn a_newer_version_or_payload_format_is_curable_and_nothing_else_is() {
    let version = refused(|seal| seal.version = 2);
    assert_eq!(version, SealError::Version(2));
    assert!(version.is_curable());
    let format = refused(|seal| seal.payload_format = 2);
    assert_eq!(format, SealError::PayloadFormat(2));
    assert!(format.is_curable());
    assert!(!refused(|seal| seal.version = 0).is_curable());
    assert!(!refused(|seal| seal.payload_format = 0).is_curable());
}

#[test]
fn a_seal_beyond_the_limit_is_refused_unread() {
    let bytes = vec![0xff; MAX_SEAL_BYTES + 1];
    assert_eq!(
        Seal::decode(&bytes),
        Err(SealError::TooLarge(MAX_SEAL_BYTES + 1))
    );
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let error = Seal::decode(&[0xff; 20]).unwrap_err();
    assert!(matches!(error, SealError::Undecodable(_)), "{error}");
    let error = Seal::decode(&[]).unwrap_err();
    assert_eq!(
        error,
        SealError::Invalid {
            field: "version",
            rule: "it is given"
        }
    );
}

#[test]
fn a_sealer_without_a_name_of_ours_is_refused() {
    let error = refused(|seal| seal.sealer = "spiffe://d/agency/moh/forwarder/../x".to_owned());
    assert!(matches!(error, SealError::Sealer(_)), "{error}");
}

#[test]
fn each_field_that_breaks_a_rule_is_named() {
    let field = |error: SealError| match error {
        SealError::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    let start = || Some(wire::Head::from(Head::START));
    assert_eq!(
        field(refused(|seal| seal.epoch = vec![1; 15].into())),
        "epoch"
    );
    assert_eq!(field(refused(|seal| seal.lane = 0)), "lane");
    assert_eq!(field(refused(|seal| seal.lane = 9)), "lane");
    assert_eq!(
        field(refused(|seal| seal.previous = vec![1; 32].into())),
        "previous"
    );
    assert_eq!(
        field(refused(|seal| seal.previous = vec![0; 31].into())),
        "previous"
    );
    assert_eq!(
        field(refused_later(|seal| seal.previous = vec![0; 32].into())),
        "previous"
    );
    assert_eq!(
        field(refused_later(|seal| seal.sequence = MAX_SEQUENCE + 1)),
        "sequence"
    );
    assert_eq!(field(refused(|seal| seal.other = None)), "other");
    assert_eq!(
        field(refused(|seal| seal.other = Some(wire::Head {
            next: 1,
            ..start().unwrap()
        }))),
        "other"
    );
    assert_eq!(
        field(refused(|seal| seal.payload_hash = Bytes::new())),
        "payload_hash"
    );
    assert_eq!(
        field(refused(|seal| seal.payload_bytes = 0)),
        "payload_bytes"
    );
    assert_eq!(
        field(refused(|seal| seal.unpacked_bytes = 0)),
        "unpacked_bytes"
    );
    assert_eq!(field(refused(|seal| seal.events = 0)), "events");
    let previous = wire::Seal::from(&seal()).previous_epoch;
    assert_eq!(
        field(refused_later(|seal| seal.previous_epoch = previous.clone())),
        "previous_epoch"
    );
    let with_previous = |alter: fn(&mut wire::PreviousEpoch)| {
        let mut altered = previous.clone().unwrap();
        alter(&mut altered);
        field(refused(|seal| seal.previous_epoch = Some(altered)))
    };
    assert_eq!(
        with_previous(|previous| previous.epoch = vec![0x9f; 16].into()),
        "previous_epoch"
    );
    assert_eq!(
        with_previous(|previous| previous.epoch = Bytes::new()),
        "previous_epoch"
    );
    assert_eq!(
        with_previous(|previous| previous.alert = None),
        "previous_epoch"
    );
    let with_void = |alter: fn(&mut wire::Void)| field(refused(|seal| alter(&mut seal.voids[0])));
    assert_eq!(with_void(|void| void.end = void.first), "voids");
    assert_eq!(with_void(|void| void.end = u64::MAX), "voids");
    assert_eq!(with_void(|void| void.last = vec![0; 32].into()), "voids");
    assert_eq!(with_void(|void| void.reason.clear()), "voids");
    assert_eq!(with_void(|void| void.epoch = Bytes::new()), "voids");
    assert_eq!(with_void(|void| void.lane = 0), "voids");
    assert_eq!(
        field(refused(|seal| drop(
            seal.labels.insert(String::new(), String::new())
        ))),
        "labels"
    );
}

#[test]
fn each_limit_is_kept() {
    let over = |error: SealError| match error {
        SealError::Limit { what, max, actual } => {
            assert_eq!(actual, max + 1, "{what}");
            what
        }
        other => panic!("{other}"),
    };
    let label =
        |name: String, value: String| over(refused(|seal| drop(seal.labels.insert(name, value))));
    assert_eq!(
        label("n".repeat(MAX_LABEL_NAME_BYTES + 1), String::new()),
        "bytes in the name of a label"
    );
    assert_eq!(
        label("n".to_owned(), "v".repeat(MAX_LABEL_VALUE_BYTES + 1)),
        "bytes in the value of a label"
    );
    assert_eq!(
        over(refused(|seal| {
            seal.labels = (0..=MAX_LABELS)
                .map(|at| (at.to_string(), String::new()))
                .collect();
        })),
        "labels"
    );
    assert_eq!(
        over(refused(|seal| {
            let value = |at| if at == 8 { 1 } else { MAX_LABELS_BYTES / 8 - 1 };
            seal.labels = (0..=8)
                .map(|at| (at.to_string(), "v".repeat(value(at))))
                .collect();
            seal.labels.remove("8");
            seal.labels.insert("8".to_owned(), String::new());
        })),
        "bytes in all labels"
    );
    assert_eq!(
        over(refused(
            |seal| seal.voids = vec![seal.voids[0].clone(); MAX_VOIDS + 1]
        )),
        "voids"
    );
    assert_eq!(
        over(refused(
            |seal| seal.voids[0].reason = "r".repeat(MAX_REASON_BYTES + 1)
        )),
        "bytes in the reason of a void"
    );
    assert_eq!(
        over(refused(
            |seal| seal.payload_bytes = MAX_PAYLOAD_BYTES as u32 + 1
        )),
        "bytes of payload"
    );
    assert_eq!(
        over(refused(
            |seal| seal.unpacked_bytes = MAX_UNPACKED_BYTES as u32 + 1
        )),
        "bytes of unpacked payload"
    );
    assert_eq!(
        over(refused(|seal| seal.events = MAX_EVENTS as u32 + 1)),
        "events"
    );
}

#[test]
fn entries_beyond_the_limit_are_refused_before_memory_is_taken_for_them() {
    // Two bytes a void: decoded they would take a hundred times that.
    let voids = [0x9a, 0x01, 0x00].repeat(MAX_SEAL_BYTES / 3);
    let error = Seal::decode(&voids).unwrap_err();
    assert!(
        matches!(error, SealError::Limit { what: "voids", .. }),
        "{error}"
    );
}

#[test]
fn the_largest_seal_of_all_limits_stays_within_its_own() {
    let mut largest = seal();
    let label = |at: usize| {
        (
            format!("{at:0>128}"),
            "v".repeat(MAX_LABELS_BYTES / MAX_LABELS - 128),
        )
    };
    largest.labels = (0..MAX_LABELS).map(label).collect();
    let void = Void {
        first: MAX_SEQUENCE,
        end: MAX_SEQUENCE + 1,
        events: u64::MAX,
        reason: "r".repeat(MAX_REASON_BYTES),
        ..void()
    };
    largest.voids = vec![void; MAX_VOIDS];
    largest.sealed_unix_nano = i64::MIN;
    largest.sealer = format!(
        "spiffe://{}/agency/{}/forwarder/{}",
        "d".repeat(255),
        "a".repeat(63),
        "n".repeat(63)
    )
    .parse()
    .unwrap();
    assert_eq!(largest.check(), Ok(()));
    let bytes = largest.encode();
    assert!(bytes.len() <= MAX_SEAL_BYTES, "{}", bytes.len());
    assert_eq!(Seal::decode(&bytes), Ok(largest));
}

#[test]
fn a_clock_state_of_a_newer_program_is_unknown() {
    let mut message = wire::Seal::from(&seal());
    message.clock = 9;
    assert_eq!(
        Seal::decode(&message.encode_to_vec()).unwrap().clock,
        ClockState::Unknown
    );
}

prop_compose! {
    fn any_seal()(
        sequence in prop_oneof![Just(0), 1..=MAX_SEQUENCE],
        lane in prop::sample::select(&Lane::ALL[..]),
        other in prop_oneof![Just(0), any::<u64>()],
        hash: [u8; 32],
        times: [i64; 3],
        clock in prop::sample::select(&[ClockState::Unknown, ClockState::Synchronized, ClockState::Unsynchronized][..]),
        labels in prop::collection::btree_map("[a-zé]{1,5}", any::<String>(), 0..4),
        voids in prop::collection::vec((0..100u64, 1..100u64, any::<u64>(), "[a-z_]{1,20}"), 0..4),
        sizes in (1..=MAX_PAYLOAD_BYTES as u32, 1..=MAX_UNPACKED_BYTES as u32, 1..=MAX_EVENTS as u32),
        named: bool,
    ) -> Seal {
        let hash = Hash(hash);
        let seal = seal();
        Seal {
            lane,
            sequence,
            previous: if sequence == 0 { Hash::ZERO } else { hash },
            other: if other == 0 { Head::START } else { Head { next: other, hash } },
            payload: PayloadInfo { hash, bytes: sizes.0, unpacked_bytes: sizes.1, events: sizes.2, ..seal.payload },
            sealed_unix_nano: times[0],
            first_observed_unix_nano: times[1],
            last_observed_unix_nano: times[2],
            clock,
            labels,
            previous_epoch: seal.previous_epoch.filter(|_| named && sequence == 0),
            voids: voids.into_iter().map(|(first, length, events, reason)| {
                Void { first, end: first + length, events, reason, last: hash, lane, ..void() }
            }).collect(),
            ..seal
        }
    }
}

proptest! {
    #[test]
    fn a_seal_comes_back_and_is_made_again_to_the_byte(seal in any_seal()) {
        prop_assume!(seal.check().is_ok());
        let bytes = seal.encode();
        prop_assert!(bytes.len() <= MAX_SEAL_BYTES);
        let read = Seal::decode(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&seal));
        prop_assert_eq!(read.unwrap().encode(), bytes);
    }

    #[test]
    fn any_bytes_are_a_seal_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Seal::decode(&bytes);
    }
}
