use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use rustls_pki_types::{CertificateDer, TrustAnchor};
use watchline_proto::TrustDomain;

use super::{
    LoadError, Refused, VerifiedSigner,
    files::{anchors, in_file},
    trust::{AnchorSet, Trust, Usage},
};

/// Trust domains kept at a time; their names come from what is checked.
const MAX_DOMAINS: usize = 64;

/// Anchors alone, without a name or key of our own: for whoever checks evidence, perhaps long after.
///
/// There is no scope (each anchor vouches for any name) and there are no revocation lists: what a list said at the time was judged by the
/// collector that took the batch.
pub struct Anchors {
    anchors: Vec<TrustAnchor<'static>>,
    trusts: Mutex<HashMap<TrustDomain, Trust>>,
}

impl Anchors {
    /// Reads the CA certificates of a PEM file.
    pub fn load(file: &Path) -> Result<Anchors, LoadError> {
        Ok(Anchors {
            anchors: anchors(file).map_err(in_file("anchors", file))?,
            trusts: Mutex::new(HashMap::new()),
        })
    }

    /// Verifies a signer's chain (leaf first, DER) as of `at`; its name must be of this trust domain. Remembered by certificate, as by
    /// [`Identity::verify_chain`](super::Identity::verify_chain).
    pub fn verify_chain<C: AsRef<[u8]>>(
        &self,
        domain: &TrustDomain,
        chain: &[C],
        at: SystemTime,
    ) -> Result<VerifiedSigner, Refused> {
        let chain: Vec<CertificateDer<'_>> = chain
            .iter()
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let mut trusts = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        if trusts.len() >= MAX_DOMAINS && !trusts.contains_key(domain) {
            trusts.clear();
        }
        let trust = trusts.entry(domain.clone()).or_insert_with(|| {
            let set = AnchorSet {
                scope: Vec::new(),
                anchors: self.anchors.clone(),
                revocations: Vec::new(),
            };
            Trust::new(domain.clone(), vec![set])
        });
        let standing = trust.verify_remembered(&chain, at, Usage::Client)?;
        Ok(VerifiedSigner {
            id: standing.id,
            key: standing.key.ok_or(Refused::WrongUsage)?,
            fingerprint: standing.fingerprint,
            not_after: standing.not_after,
        })
    }
}
