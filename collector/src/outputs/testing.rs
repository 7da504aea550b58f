//! Batches as they lie in a buffer, for tests: sealed, signed, received.

use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use watchline_node::{
    identity::testing::{Authority, Issued},
    uplink::Chains,
};
use watchline_proto::{
    ClockState, Epoch, EpochChain, Hash, Lane, SpiffeId, Void,
    chain::Draft,
    payload::{EventMeta, Origin, PayloadBuilder},
    signature::{SignedKind, SigningKey},
    stored, wire,
};

/// When the tests happen: 2026-11-23T09:15:02Z, in nanoseconds.
pub(crate) const NOW: i64 = 1_795_425_302_000_000_000;

/// An event to be sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) body: Vec<u8>,
    pub(crate) source: String,
    pub(crate) kind: String,
    pub(crate) origin_attributes: Vec<(String, String)>,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) time: Option<i64>,
    pub(crate) observed: i64,
    pub(crate) severity: u8,
}

impl Event {
    pub(crate) fn line(body: impl Into<Vec<u8>>) -> Event {
        Event {
            body: body.into(),
            source: "auth".to_owned(),
            kind: "file".to_owned(),
            observed: NOW,
            ..Event::default()
        }
    }
}

/// A forwarder: seals and signs.
pub(crate) struct Sealer {
    pub(crate) issued: Issued,
    pub(crate) chain: EpochChain,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) voids: Vec<Void>,
    /// The first receipt's time of the next batch.
    pub(crate) received: i64,
    key: SigningKey,
}

impl Sealer {
    /// The epoch is `[epoch; 16]`.
    pub(crate) fn new(issued: Issued, id: &str, epoch: u8) -> Sealer {
        let id: SpiffeId = id.parse().unwrap();
        let der = issued.private_key_der();
        let key = SigningKey::from_pkcs8(der.secret_der()).unwrap();
        Sealer {
            issued,
            chain: EpochChain::start(id, Epoch([epoch; 16])),
            labels: BTreeMap::new(),
            voids: Vec::new(),
            received: NOW,
            key,
        }
    }

    pub(crate) fn host(authority: &Authority, name: &str, epoch: u8) -> Sealer {
        let id = format!("spiffe://watch.example/agency/moh/forwarder/{name}");
        Sealer::new(authority.forwarder("moh", name), &id, epoch)
    }

    /// Restarts: another epoch, which names this one.
    pub(crate) fn restart(&mut self, epoch: u8) {
        self.chain = self
            .chain
            .succeed(self.chain.sealer().clone(), Epoch([epoch; 16]));
    }

    pub(crate) fn batch(&mut self, lane: Lane, events: &[Event]) -> wire::SealedBatch {
        let mut builder = PayloadBuilder::new();
        for event in events {
            let origin = builder.origin(&Origin {
                source: event.source.clone(),
                kind: event.kind.clone(),
                attributes: event.origin_attributes.clone(),
            });
            let attributes: Vec<_> = event
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let meta = EventMeta {
                origin,
                observed_unix_nano: event.observed,
                time_unix_nano: event.time,
                severity: event.severity,
                attributes: &attributes,
            };
            builder.push(&event.body, meta);
        }
        let payload = builder.finish().unwrap();
        let sealed = self
            .chain
            .seal(Draft {
                lane,
                payload: &payload,
                labels: &self.labels,
                clock: ClockState::Synchronized,
                sealed_unix_nano: NOW,
                voids: &std::mem::take(&mut self.voids),
            })
            .unwrap();
        let mut batch = stored::unsigned(sealed.bytes, payload.bytes);
        self.sign(&mut batch);
        batch.receipts.push(wire::Receipt {
            collector: "spiffe://watch.example/agency/moh/collector/collector-1".to_owned(),
            stored_unix_nano: self.received,
        });
        batch
    }

    pub(crate) fn sign(&self, batch: &mut wire::SealedBatch) {
        let domain = self.chain.sealer().trust_domain();
        batch.signature = self
            .key
            .sign(SignedKind::Seal, domain, &batch.seal)
            .unwrap()
            .into();
        batch.algorithm = self.key.algorithm().into();
        batch.signer = Hash::of(&self.issued.der).into();
    }

    /// A stored batch of one event.
    pub(crate) fn item(&mut self, lane: Lane) -> Bytes {
        let body = format!("{} {}", lane.as_str(), self.chain.head(lane).next);
        stored::encode(&self.batch(lane, &[Event::line(body)]))
    }
}

/// The chains of some signers.
#[derive(Default)]
pub(crate) struct KnownChains(Mutex<BTreeMap<Hash, Vec<Bytes>>>);

impl KnownChains {
    pub(crate) fn add(&self, issued: &Issued) {
        let der = Bytes::copy_from_slice(&issued.der);
        self.0.lock().unwrap().insert(Hash::of(&der), vec![der]);
    }
}

impl Chains for KnownChains {
    fn chain(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        self.0.lock().unwrap().get(signer).cloned()
    }
}
