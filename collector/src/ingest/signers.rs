//! Whether a signer may be believed, and its key.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use watchline_node::identity::{Identity, VerifiedSigner};
use watchline_proto::{Hash, MAX_CHAIN_CERTIFICATES, refusal::Refusal};

use super::refusal::Refused;
use crate::chains::{ChainError, ChainStore, MAX_CERTIFICATE_BYTES};

/// Signers remembered, about 500 bytes each.
const REMEMBERED: usize = 20_000;
/// How far ahead a judgement holds: an intermediate certificate that expires is noticed this late. Its generation changes at
/// once when anchors or revocations do.
const HOLDS_FOR: Duration = Duration::from_secs(60);
/// Chains that a stream has sent and no batch has needed yet; an honest one sends a chain right before its batch.
const OFFERED: usize = 16;

/// Judges signers, and remembers.
pub(super) struct Signers {
    identity: Identity,
    chains: ChainStore,
    known: Mutex<HashMap<Hash, Known>>,
}

/// Judged good at both ends of a span, so good in all of it: validity is an interval, and revocation does not end.
struct Known {
    generation: u64,
    from: SystemTime,
    until: SystemTime,
    signer: Arc<VerifiedSigner>,
}

/// Chains that came on a stream and are not judged yet.
#[derive(Default)]
pub(super) struct Offered {
    chains: VecDeque<(Hash, Vec<Bytes>)>,
}

impl Offered {
    /// Bounded: the oldest gives way.
    pub(super) fn add(&mut self, chain: Vec<Bytes>) -> Result<(), Refused> {
        let too_large = chain.iter().any(|der| der.len() > MAX_CERTIFICATE_BYTES);
        let Some(leaf) = chain
            .first()
            .filter(|_| chain.len() <= MAX_CHAIN_CERTIFICATES && !too_large)
        else {
            return Err(ChainError::Limit.into());
        };
        let signer = Hash::of(leaf);
        // The message's memory must not hang on to a certificate.
        let chain = chain
            .iter()
            .map(|der| Bytes::copy_from_slice(der))
            .collect();
        if self.chains.len() == OFFERED {
            self.chains.pop_front();
        }
        self.chains.push_back((signer, chain));
        Ok(())
    }

    fn of(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        self.chains
            .iter()
            .rev()
            .find(|(offered, _)| offered == signer)
            .map(|(_, chain)| chain.clone())
    }

    fn remove(&mut self, signer: &Hash) {
        self.chains.retain(|(offered, _)| offered != signer);
    }
}

impl Signers {
    pub(super) fn new(identity: Identity, chains: ChainStore) -> Signers {
        Signers {
            identity,
            chains,
            known: Mutex::default(),
        }
    }

    /// The signer, if its certificate was good `at`. Its chain is kept on disk when this returns.
    pub(super) async fn at(
        &self,
        signer: &Hash,
        at: SystemTime,
        offered: &mut Offered,
    ) -> Result<Arc<VerifiedSigner>, Refused> {
        let generation = self.identity.current().generation;
        if let Some(known) = self.known(signer, generation, at) {
            return Ok(known);
        }
        let (chain, is_new) = match offered.of(signer) {
            Some(chain) => (chain, true),
            None => (
                self.kept(signer).await.ok_or_else(|| unknown(signer))?,
                false,
            ),
        };
        let der: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        let verified = Arc::new(
            self.identity
                .verify_chain(&der, at)
                .map_err(|refused| Refused::signer(&refused))?,
        );
        if is_new {
            self.chains.keep(chain).await?;
            offered.remove(signer);
        }
        self.remember(*signer, generation, at, &verified);
        Ok(verified)
    }

    async fn kept(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        let (chains, signer) = (self.chains.clone(), *signer);
        tokio::task::spawn_blocking(move || chains.get(&signer))
            .await
            .ok()?
    }

    fn known(&self, signer: &Hash, generation: u64, at: SystemTime) -> Option<Arc<VerifiedSigner>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(signer)?;
        let holds = known.generation == generation && known.from <= at && at <= known.until;
        holds.then(|| Arc::clone(&known.signer))
    }

    fn remember(&self, hash: Hash, generation: u64, at: SystemTime, signer: &Arc<VerifiedSigner>) {
        let until = (at + HOLDS_FOR).min(signer.not_after);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let entry = known.entry(hash).or_insert_with(|| Known {
            generation,
            from: at,
            until,
            signer: Arc::clone(signer),
        });
        if entry.generation == generation {
            entry.from = entry.from.min(at);
            entry.until = entry.until.max(until);
        } else {
            *entry = Known {
                generation,
                from: at,
                until,
                signer: Arc::clone(signer),
            };
        }
    }
}

fn unknown(signer: &Hash) -> Refused {
    Refused::new(
        Refusal::UnknownSigner,
        format_args!("no certificate of signer {signer} is known here"),
    )
}
