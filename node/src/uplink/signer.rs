//! Makes a stored item ready for the line: signs what has no signature yet, and knows whose certificates this stream has
//! already carried.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;
use watchline_proto::{
    Hash, MAX_MESSAGE_BYTES, Seal, SpiffeId,
    signature::{SignatureError, SignedKind},
    stored::{self, StoredError},
    wire,
};

use super::Chains;
use crate::identity::Loaded;

/// What a message adds around a batch, rounded up.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// A batch as it will travel.
pub(super) struct Ready {
    pub(super) batch: wire::SealedBatch,
    /// Encoded length of the message.
    pub(super) bytes: u64,
    /// It had no signature: it was sealed here.
    pub(super) own: bool,
}

/// Why an item cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// Its own defect: no server would take it.
    Defect(wire::RejectReason, String),
    /// It could not be signed now.
    Unsigned(SignatureError),
}

/// Per stream.
#[derive(Default)]
pub(super) struct Signer {
    /// Fingerprints whose chains this stream has carried; at a relay one a forwarder.
    introduced: HashSet<Hash>,
}

impl Signer {
    /// Signs if need be, with the identity of this moment.
    pub(super) fn ready(&self, item: &Bytes, identity: &Loaded) -> Result<Ready, Unsendable> {
        let mut batch = stored::decode(item.clone()).map_err(|error| {
            let reason = match error {
                StoredError::Limit { .. } => wire::RejectReason::TooLarge,
                _ => wire::RejectReason::Seal,
            };
            Unsendable::Defect(reason, format!("stored item: {error}"))
        })?;
        let own = batch.signature.is_empty();
        if own {
            let signature =
                identity
                    .key
                    .sign(SignedKind::Seal, identity.id.trust_domain(), &batch.seal);
            batch.signature = signature.map_err(Unsendable::Unsigned)?.into();
            batch.algorithm = identity.key.algorithm().into();
            batch.signer = identity.fingerprint.into();
        }
        let len = batch.encoded_len();
        if len + MESSAGE_OVERHEAD_BYTES > MAX_MESSAGE_BYTES {
            let detail = format!("message of {len} bytes is larger than the line carries");
            return Err(Unsendable::Defect(wire::RejectReason::TooLarge, detail));
        }
        Ok(Ready {
            batch,
            bytes: len as u64,
            own,
        })
    }

    /// The chain that this stream must carry before something of `signer`; `None` when it has. A chain that is not known
    /// here is left out: the receiver may have it, and says so if not.
    pub(super) fn introduce(
        &mut self,
        signer: &[u8],
        identity: &Loaded,
        chains: &dyn Chains,
    ) -> Option<wire::Certificates> {
        let signer = Hash::try_from(signer).ok()?;
        if !self.introduced.insert(signer) {
            return None;
        }
        let chain = if signer == identity.fingerprint {
            identity
                .chain
                .iter()
                .map(|der| Bytes::copy_from_slice(der))
                .collect()
        } else {
            chains.chain(&signer)?
        };
        Some(wire::Certificates { chain })
    }
}

/// The seal of a stored item, if it is one of `sealer`'s own. `None` also when it cannot be read.
pub(super) fn own_seal(item: &Bytes, sealer: &SpiffeId) -> Option<(Seal, Hash)> {
    let batch = stored::decode(item.clone()).ok()?;
    let seal = Seal::decode(&batch.seal).ok()?;
    (seal.sealer == *sealer).then(|| (seal, Hash::of(&batch.seal)))
}

/// How many events a stored item says it has; 0 when it cannot be read.
pub(super) fn events_of(item: &Bytes) -> u64 {
    let Ok(batch) = stored::decode(item.clone()) else {
        return 0;
    };
    Seal::decode(&batch.seal).map_or(0, |seal| u64::from(seal.payload.events))
}
