//! Known values and the bytes that they are, for tests: a stored sample of each format version under `tests-data/`.
//!
//! A sample is never written again. A new version gets a file of its own, and the old one must still be read.

use std::collections::BTreeMap;

use crate::{
    chain::{Draft, Epoch, EpochChain, Head, PreviousEpoch},
    hash::Hash,
    lane::Lane,
    payload::{
        EventMeta, EventRef, Origin, Payload, PayloadBuilder, PayloadError, PayloadInfo,
        PayloadOpener,
    },
    seal::{ClockState, Seal, Void},
    statement::Statement,
    stored,
};

pub(crate) const PAYLOAD_V1: &[u8] = include_bytes!("../tests-data/payload-v1.bin");
pub(crate) const SEAL_V1: &[u8] = include_bytes!("../tests-data/seal-v1.bin");
pub(crate) const CHAIN_STATE_V1: &[u8] = include_bytes!("../tests-data/chain-state-v1.bin");
pub(crate) const STATEMENT_V1: &[u8] = include_bytes!("../tests-data/statement-v1.bin");
pub(crate) const STORED_BATCH_V1: &[u8] = include_bytes!("../tests-data/stored-batch-v1.bin");

/// An event that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) body: Vec<u8>,
    pub(crate) origin: Origin,
    pub(crate) observed: i64,
    pub(crate) time: Option<i64>,
    pub(crate) severity: u8,
    pub(crate) attributes: Vec<(String, String)>,
}

impl From<EventRef<'_>> for Event {
    fn from(event: EventRef<'_>) -> Event {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Event {
            body: event.body.to_vec(),
            origin: event.origin.clone(),
            observed: event.observed_unix_nano,
            time: event.time_unix_nano,
            severity: event.severity,
            attributes: event.attributes.into_iter().map(owned).collect(),
        }
    }
}

pub(crate) fn push(builder: &mut PayloadBuilder, event: &Event) {
    let attributes: Vec<_> = event.attributes.iter().map(|(n, v)| (&**n, &**v)).collect();
    let origin = builder.origin(&event.origin);
    builder.push(
        &event.body,
        EventMeta {
            origin,
            observed_unix_nano: event.observed,
            time_unix_nano: event.time,
            severity: event.severity,
            attributes: &attributes,
        },
    );
}

pub(crate) fn build(events: &[Event]) -> Payload {
    let mut builder = PayloadBuilder::new();
    for event in events {
        assert!(builder.has_room(event.body.len()));
        push(&mut builder, event);
    }
    builder.finish().unwrap()
}

pub(crate) fn open(payload: &[u8], info: &PayloadInfo) -> Result<Vec<Event>, PayloadError> {
    let opened = PayloadOpener::new().open(payload, info)?;
    let events: Vec<Event> = opened.events().map(Event::from).collect();
    assert_eq!(events.len(), opened.len());
    Ok(events)
}

pub(crate) fn origin(source: &str, path: &str) -> Origin {
    Origin {
        source: source.to_owned(),
        kind: "file".to_owned(),
        attributes: vec![("log.file.path".to_owned(), path.to_owned())],
    }
}

/// Two origins, equal and unequal times of reading, with and without time, a record that is not UTF-8, an empty
/// one, attributes.
pub(crate) fn events() -> Vec<Event> {
    let auth = origin("auth", "/var/log/auth.log");
    let web = origin("web", "/var/log/nginx/access.log");
    let read = 1_790_000_000_000_000_000;
    let event = |body: &[u8], origin: &Origin, observed, time, severity| Event {
        body: body.to_vec(),
        origin: origin.clone(),
        observed,
        time,
        severity,
        attributes: Vec::new(),
    };
    let mut events = vec![
        event(
            b"sshd[1]: Accepted publickey for root",
            &auth,
            read,
            Some(read - 7_000),
            9,
        ),
        event(
            b"sshd[1]: session opened for user root",
            &auth,
            read,
            Some(read - 6_000),
            9,
        ),
        event(b"\xff\xfe not UTF-8 \x00", &web, read + 1, None, 0),
        event(b"", &web, read + 1, None, 0),
        event(b"GET / HTTP/1.1\r", &web, read - 5, Some(-1), 24),
    ];
    events[2].attributes = vec![("watchline.truncated_bytes".to_owned(), "12".to_owned())];
    events[4].attributes = vec![
        ("a".to_owned(), String::new()),
        ("é".to_owned(), "…".to_owned()),
    ];
    events
}

/// What the seal of [`PAYLOAD_V1`] says of it.
pub(crate) fn payload_info() -> PayloadInfo {
    seal().payload
}

/// [`PAYLOAD_V1`] as it was built.
pub(crate) fn payload() -> Payload {
    Payload {
        bytes: PAYLOAD_V1.into(),
        info: payload_info(),
        first_observed_unix_nano: seal().first_observed_unix_nano,
        last_observed_unix_nano: seal().last_observed_unix_nano,
    }
}

pub(crate) fn labels() -> BTreeMap<String, String> {
    [("level", "3"), ("system", "portal")]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into()
}

pub(crate) fn void() -> Void {
    Void {
        epoch: Epoch([0xee; 16]),
        lane: Lane::Routine,
        first: 40,
        end: 42,
        reason: "spool_full".to_owned(),
        events: 1734,
        last: Hash::of(b"seal 41"),
    }
}

/// The chain of [`CHAIN_STATE_V1`]: one seal in its alert lane, none in the other, an epoch before it.
pub(crate) fn chain() -> EpochChain {
    let sealer = "spiffe://watch.example/agency/moh/forwarder/host-01"
        .parse()
        .unwrap();
    let mut before = EpochChain::start(sealer, Epoch([0xee; 16]));
    before.seal(draft(Lane::Routine, &payload())).unwrap();
    let mut chain = before.succeed(before.sealer().clone(), Epoch([0x9f; 16]));
    chain.seal(draft(Lane::Alert, &payload())).unwrap();
    chain
}

pub(crate) fn draft<'a>(lane: Lane, payload: &'a Payload) -> Draft<'a> {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    Draft {
        lane,
        payload,
        labels: &NO_LABELS,
        clock: ClockState::Unknown,
        sealed_unix_nano: 1_790_000_000_000_000_002,
        voids: &[],
    }
}

/// The seal of [`SEAL_V1`], with a value other than the default in every field.
pub(crate) fn seal() -> Seal {
    Seal {
        sealer: "spiffe://watch.example/agency/moh/forwarder/host-01"
            .parse()
            .unwrap(),
        epoch: Epoch([0x9f; 16]),
        lane: Lane::Routine,
        sequence: 0,
        previous: Hash::ZERO,
        other: Head {
            next: 3,
            hash: Hash::of(b"seal 2 of the alert lane"),
        },
        payload: PayloadInfo {
            format: 1,
            hash: Hash::of(PAYLOAD_V1),
            bytes: PAYLOAD_V1.len() as u32,
            unpacked_bytes: UNPACKED_BYTES,
            events: 5,
        },
        sealed_unix_nano: 1_790_000_000_000_000_002,
        first_observed_unix_nano: 1_789_999_999_999_999_995,
        last_observed_unix_nano: 1_790_000_000_000_000_001,
        clock: ClockState::Synchronized,
        labels: labels(),
        previous_epoch: Some(PreviousEpoch {
            epoch: Epoch([0xee; 16]),
            heads: [
                Head::START,
                Head {
                    next: 42,
                    hash: Hash::of(b"seal 41"),
                },
            ],
        }),
        voids: vec![void()],
    }
}

/// Of [`PAYLOAD_V1`].
const UNPACKED_BYTES: u32 = 334;

/// The statement of [`STATEMENT_V1`].
pub(crate) fn statement() -> Statement {
    Statement {
        sealer: seal().sealer,
        epoch: Epoch([0x9f; 16]),
        time_unix_nano: 1_790_000_000_000_000_003,
        heads: [
            Head {
                next: 3,
                hash: Hash::of(b"seal 2 of the alert lane"),
            },
            Head::START,
        ],
        closing: true,
    }
}

/// The batch of [`STORED_BATCH_V1`], as a second collector stores it.
pub(crate) fn batch() -> crate::wire::SealedBatch {
    let receipt = |collector: &str, stored_unix_nano| {
        let collector = collector.parse().unwrap();
        (&stored::Receipt {
            collector,
            stored_unix_nano,
        })
            .into()
    };
    crate::wire::SealedBatch {
        signature: vec![0x30; 71].into(),
        algorithm: crate::wire::SignatureAlgorithm::EcdsaP256Sha256 as i32,
        signer: Hash::of(b"certificate").into(),
        receipts: vec![
            receipt(
                "spiffe://watch.example/agency/moh/collector/c1",
                1_790_000_000_000_000_004,
            ),
            receipt(
                "spiffe://watch.example/center/one",
                1_790_000_000_000_000_005,
            ),
        ],
        ..stored::unsigned(SEAL_V1.into(), PAYLOAD_V1.into())
    }
}

/// What becomes of `bytes` where one byte is cut off or altered: each of them is handed to `read`.
pub(crate) fn each_damage(bytes: &[u8], mut read: impl FnMut(&[u8])) {
    for length in 0..bytes.len() {
        read(&bytes[..length]);
    }
    let mut damaged = bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            damaged[at] = bytes[at] ^ (1 << bit);
            read(&damaged);
        }
        damaged[at] = !bytes[at];
        read(&damaged);
        damaged[at] = bytes[at];
    }
    damaged.push(0);
    read(&damaged);
}
