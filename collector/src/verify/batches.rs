//! Checking one batch after another.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use watchline_node::identity::{Anchors, Refused};
use watchline_proto::{
    Epoch, Hash, Head, Lane, PreviousEpoch, Seal, SpiffeId, Void, signature::SignedKind, stored,
    wire,
};

use super::chains::{LaneEvidence, Link};
use crate::chains::ChainStore;

/// Problems that are kept with their text; of more, only how many.
const MAX_PROBLEMS: usize = 1000;

/// Something that is not what was sealed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Problem {
    /// File and byte, item of a buffer, or number in a chain.
    pub(crate) place: String,
    pub(crate) what: String,
}

/// What one epoch of a sealer left.
#[derive(Debug, Default)]
pub(crate) struct EpochEvidence {
    pub(crate) lanes: [LaneEvidence; 2],
    /// The earliest first receipt among its batches.
    pub(crate) first_received_unix_nano: Option<i64>,
    pub(crate) previous: Option<PreviousEpoch>,
}

/// Takes batches in any order and remembers what chains are made of.
pub(crate) struct Checker {
    anchors: Anchors,
    /// Chains met in an archive.
    met: HashMap<Hash, Vec<Bytes>>,
    /// Chains beside a buffer.
    store: Option<ChainStore>,
    pub(crate) sealers: BTreeMap<SpiffeId, BTreeMap<Epoch, EpochEvidence>>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) more_problems: u64,
    /// Worth knowing, and nothing wrong.
    pub(crate) notes: Vec<String>,
    pub(crate) batches: u64,
    pub(crate) events: u64,
}

impl Checker {
    pub(crate) fn new(anchors: Anchors) -> Checker {
        Checker {
            anchors,
            met: HashMap::new(),
            store: None,
            sealers: BTreeMap::new(),
            problems: Vec::new(),
            more_problems: 0,
            notes: Vec::new(),
            batches: 0,
            events: 0,
        }
    }

    pub(crate) fn use_store(&mut self, store: ChainStore) {
        self.store = Some(store);
    }

    pub(crate) fn problem(&mut self, place: String, what: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { place, what });
        } else {
            self.more_problems += 1;
        }
    }

    /// Certificates, as they stand in an archive. What they are worth is judged with each batch.
    pub(crate) fn certificates(&mut self, place: &str, record: &[u8]) {
        use prost::Message as _;
        match wire::Certificates::decode(record) {
            Ok(wire::Certificates { chain }) if !chain.is_empty() => {
                self.met.insert(Hash::of(&chain[0]), chain);
            }
            _ => self.problem(
                place.to_owned(),
                "certificates cannot be decoded".to_owned(),
            ),
        }
    }

    /// A stored batch. Counted, and linked into its chain if it is what its sealer signed; else a problem.
    pub(crate) fn batch(&mut self, place: &str, item: Bytes) {
        self.batches += 1;
        match self.check(item) {
            Ok(sound) => {
                self.events += u64::from(sound.seal.payload.events);
                self.link(sound);
            }
            Err(what) => self.problem(place.to_owned(), what),
        }
    }

    fn check(&self, item: Bytes) -> Result<SoundBatch, String> {
        let batch = stored::decode(item).map_err(|error| error.to_string())?;
        let seal = Seal::decode(&batch.seal).map_err(|error| format!("seal: {error}"))?;
        let of = format!(
            "{} {} {} {}",
            seal.sealer,
            seal.epoch,
            seal.lane.as_str(),
            seal.sequence
        );
        self.check_sealed(&batch, &seal)
            .map_err(|what| format!("{what} ({of})"))?;
        let received = batch
            .receipts
            .first()
            .map(|receipt| receipt.stored_unix_nano);
        Ok(SoundBatch {
            hash: Hash::of(&batch.seal),
            received_unix_nano: received.unwrap_or(seal.sealed_unix_nano),
            seal,
        })
    }

    fn check_sealed(&self, batch: &wire::SealedBatch, seal: &Seal) -> Result<(), String> {
        let bytes = seal.payload.bytes;
        if batch.payload.len() != bytes as usize {
            return Err(format!(
                "payload has {} bytes, its seal says {bytes}",
                batch.payload.len()
            ));
        }
        if Hash::of(&batch.payload) != seal.payload.hash {
            return Err("payload is not the one that was sealed".to_owned());
        }
        let signer = stored::signer(batch).map_err(|error| error.to_string())?;
        let signer = signer.ok_or("not signed")?;
        let Some(receipt) = batch.receipts.first() else {
            return Err("no receipt says when it was received".to_owned());
        };
        stored::Receipt::try_from(receipt).map_err(|error| error.to_string())?;
        let Ok(received) = u64::try_from(receipt.stored_unix_nano) else {
            return Err("received before 1970".to_owned());
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(received);
        let chain = self
            .chain(&signer)
            .ok_or_else(|| format!("certificates of signer {signer} are not here"))?;
        let domain = seal.sealer.trust_domain();
        let verified = self.anchors.verify_chain(domain, &chain, at);
        let verified = verified
            .map_err(|refused: Refused| format!("signer at the time of receipt: {refused}"))?;
        if verified.id != seal.sealer {
            return Err(format!("signed by {}", verified.id));
        }
        if batch.algorithm != i32::from(verified.key.algorithm()) {
            return Err("signature is of another algorithm than the signer's key".to_owned());
        }
        let verified = verified
            .key
            .verify(SignedKind::Seal, domain, &batch.seal, &batch.signature);
        verified.map_err(|error| error.to_string())
    }

    fn chain(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        match self.met.get(signer) {
            Some(chain) => Some(chain.clone()),
            None => self.store.as_ref().and_then(|store| store.get(signer)),
        }
    }

    fn link(&mut self, batch: SoundBatch) {
        let SoundBatch {
            seal,
            hash,
            received_unix_nano,
        } = batch;
        let epochs = self.sealers.entry(seal.sealer).or_default();
        for void in seal.voids {
            let Void { epoch, lane, .. } = void;
            epochs.entry(epoch).or_default().lanes[lane.index()]
                .voids
                .push(void);
        }
        let epoch = epochs.entry(seal.epoch).or_default();
        let earliest = epoch
            .first_received_unix_nano
            .map_or(received_unix_nano, |first| first.min(received_unix_nano));
        epoch.first_received_unix_nano = Some(earliest);
        epoch.previous = epoch.previous.or(seal.previous_epoch);
        epoch.lanes[seal.lane.other().index()].reached(seal.other);
        epoch.lanes[seal.lane.index()]
            .links
            .push(Link::new(seal.sequence, seal.previous, hash));
    }

    /// What later epochs say of earlier ones: how far they reached.
    pub(crate) fn link_epochs(&mut self) {
        for (sealer, epochs) in &mut self.sealers {
            let named: Vec<(PreviousEpoch, Option<i64>)> = epochs
                .values()
                .filter_map(|epoch| Some((epoch.previous?, epoch.first_received_unix_nano)))
                .collect();
            for (previous, received) in named {
                let begun = |epoch: &EpochEvidence| {
                    epoch
                        .first_received_unix_nano
                        .zip(received)
                        .is_some_and(|(first, after)| first < after)
                };
                let is_held = epochs
                    .get(&previous.epoch)
                    .is_some_and(EpochEvidence::holds_any);
                if !is_held && !epochs.values().any(begun) {
                    if previous
                        != (PreviousEpoch {
                            epoch: previous.epoch,
                            heads: [Head::START; 2],
                        })
                    {
                        self.notes.push(format!(
                            "{sealer}: nothing is held of epoch {} and before",
                            previous.epoch
                        ));
                    }
                    continue;
                }
                let epoch = epochs.entry(previous.epoch).or_default();
                for lane in Lane::ALL {
                    epoch.lanes[lane.index()].reached(previous.head(lane));
                }
            }
        }
    }
}

impl EpochEvidence {
    fn holds_any(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.links.is_empty())
    }
}

struct SoundBatch {
    seal: Seal,
    hash: Hash,
    received_unix_nano: i64,
}
