use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use watchline_proto::{Hash, SpiffeId, TrustDomain, signature::VerifyingKey};
use webpki::{
    CertRevocationList, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, aws_lc_rs as algorithms,
};

use super::{NamePattern, Refused, certificate::Certificate};

/// How certificates may be signed. ECDSA and Ed25519 are what our own CA makes; RSA with SHA-2 is what agencies' CAs often are.
pub(super) static CERTIFICATE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Certificates of a chain, and their bytes together, that are looked at.
const MAX_CHAIN: usize = 8;
const MAX_CHAIN_BYTES: usize = 64 * 1024;
/// Verified certificates that are remembered; about 500 bytes each.
const MAX_REMEMBERED: usize = 20_000;

/// Whom we believe: anchors, each set with its scope and revocation lists.
pub(super) struct Trust {
    domain: TrustDomain,
    sets: Vec<AnchorSet>,
    /// What was verified under these anchors and lists. Dies with them.
    verified: Mutex<HashMap<(Hash, Usage), Standing>>,
}

pub(super) struct AnchorSet {
    /// Empty: every name.
    pub(super) scope: Vec<NamePattern>,
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    pub(super) revocations: Vec<CertRevocationList<'static>>,
}

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Usage {
    /// The dialling end of a connection, and signing batches.
    Client,
    /// The listening end of a connection.
    Server,
    /// Checked before: only whether it still stands.
    Any,
}

/// A certificate that chains to an anchor in whose scope its name is.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) id: SpiffeId,
    pub(super) fingerprint: Hash,
    /// SubjectPublicKeyInfo as a key for batches; `None`: neither ECDSA P-256 nor Ed25519.
    pub(super) key: Option<VerifyingKey>,
    /// Of the whole path: the latest beginning and the earliest end.
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// When it was revoked, if it was.
    pub(super) revoked: Option<SystemTime>,
}

impl Trust {
    pub(super) fn new(domain: TrustDomain, sets: Vec<AnchorSet>) -> Trust {
        Trust {
            domain,
            sets,
            verified: Mutex::new(HashMap::new()),
        }
    }

    /// [`Trust::verify`], remembered: the same certificate costs its signatures once.
    pub(super) fn verify_remembered(
        &self,
        chain: &[CertificateDer<'_>],
        at: SystemTime,
        usage: Usage,
    ) -> Result<Standing, Refused> {
        let leaf = chain.first().ok_or(Refused::NoCertificate)?;
        let key = (Hash::of(leaf), usage);
        let remembered = self
            .verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(standing) = remembered
            && (standing.not_before..=standing.not_after).contains(&at)
        {
            return Ok(standing);
        }
        let standing = self.verify(chain, at, usage)?;
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MAX_REMEMBERED {
            verified.clear();
        }
        verified.insert(key, standing.clone());
        Ok(standing)
    }

    /// Verifies a chain, leaf first, as of a moment. A revoked certificate is not refused here: [`Standing::revoked`] says since
    /// when, and the caller knows whether that matters.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        at: SystemTime,
        usage: Usage,
    ) -> Result<Standing, Refused> {
        let (first, intermediates) = chain.split_first().ok_or(Refused::NoCertificate)?;
        if chain.len() > MAX_CHAIN
            || chain
                .iter()
                .map(|certificate| certificate.len())
                .sum::<usize>()
                > MAX_CHAIN_BYTES
        {
            return Err(Refused::Malformed("the chain is too long".to_owned()));
        }
        let leaf = Certificate::parse(first)?;
        let end_entity = EndEntityCert::try_from(first)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let since_epoch = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let candidate = Candidate {
            end_entity: &end_entity,
            intermediates,
            at: UnixTime::since_unix_epoch(since_epoch),
            usage,
        };

        let name = leaf.name_in(&self.domain);
        let covers = |set: &AnchorSet| name.as_ref().is_ok_and(|id| set.covers(id));
        let mut refused = Refused::UnknownIssuer;
        let (inside, outside): (Vec<_>, Vec<_>) = self.sets.iter().partition(|set| covers(set));
        for set in inside {
            match set.verify(&candidate) {
                Ok(path) => return Ok(path.standing(name?, Hash::of(first), &leaf)),
                Err(Refused::UnknownIssuer) => {}
                Err(other) => refused = other,
            }
        }
        if refused != Refused::UnknownIssuer {
            return Err(refused);
        }
        // Not believed either way. But a certificate that one of our anchors did sign deserves to be told what is wrong with its name.
        for set in outside {
            match set.verify(&candidate) {
                Ok(_) => return Err(name.map_or_else(|bad| bad, Refused::OutOfScope)),
                Err(Refused::UnknownIssuer) => {}
                Err(other) => refused = other,
            }
        }
        Err(refused)
    }
}

struct Candidate<'c> {
    end_entity: &'c EndEntityCert<'c>,
    intermediates: &'c [CertificateDer<'c>],
    at: UnixTime,
    usage: Usage,
}

/// Where a certificate stands on a way to an anchor: what the certificates between them add.
struct Path {
    not_before: SystemTime,
    not_after: SystemTime,
    revoked: Option<SystemTime>,
}

impl Path {
    fn standing(self, id: SpiffeId, fingerprint: Hash, leaf: &Certificate) -> Standing {
        Standing {
            id,
            fingerprint,
            key: VerifyingKey::from_spki(&leaf.public_key).ok(),
            not_before: self.not_before.max(leaf.not_before),
            not_after: self.not_after.min(leaf.not_after),
            revoked: self.revoked,
        }
    }
}

impl AnchorSet {
    fn covers(&self, id: &SpiffeId) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|pattern| pattern.covers(id))
    }

    /// No list configured: revocation is not checked. Configured: the certificate's issuer must have one, expired or not.
    fn verify(&self, candidate: &Candidate<'_>) -> Result<Path, Refused> {
        let lists: Vec<&CertRevocationList<'_>> = self.revocations.iter().collect();
        let options = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_depth(RevocationCheckDepth::EndEntity).build());
        match self.path(candidate, options) {
            Err(webpki::Error::CertRevoked) => {
                let mut path = self.path(candidate, None).map_err(refused)?;
                path.revoked = Some(self.revoked_since(candidate.end_entity));
                Ok(path)
            }
            other => other.map_err(refused),
        }
    }

    fn path(
        &self,
        candidate: &Candidate<'_>,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<Path, webpki::Error> {
        let verified = candidate.end_entity.verify_for_usage(
            CERTIFICATE_ALGORITHMS,
            &self.anchors,
            candidate.intermediates,
            candidate.at,
            candidate.usage,
            revocation,
            None,
        )?;
        let mut path = Path {
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + FOR_EVER,
            revoked: None,
        };
        for intermediate in verified.intermediate_certificates() {
            let above =
                Certificate::parse(&intermediate.der()).map_err(|_| webpki::Error::BadDer)?;
            path.not_before = path.not_before.max(above.not_before);
            path.not_after = path.not_after.min(above.not_after);
        }
        Ok(path)
    }

    /// The earliest date that a list of the certificate's issuer gives. Only for a certificate that webpki has found in one of them.
    fn revoked_since(&self, end_entity: &EndEntityCert<'_>) -> SystemTime {
        let entries = self
            .revocations
            .iter()
            .filter(|list| list.issuer() == end_entity.issuer())
            .filter_map(|list| {
                let entry = list.find_serial(end_entity.serial()).ok()??;
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(entry.revocation_date.as_secs()))
            });
        entries.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Beyond any certificate: ten thousand years.
const FOR_EVER: Duration = Duration::from_secs(10_000 * 365 * 24 * 3600);

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        match self {
            Usage::Client => KeyUsage::client_auth().validate(purposes),
            Usage::Server => KeyUsage::server_auth().validate(purposes),
            Usage::Any => Ok(()),
        }
    }
}

fn refused(error: webpki::Error) -> Refused {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => Refused::Expired,
        E::CertNotValidYet { .. } => Refused::NotYetValid,
        E::CertRevoked => Refused::Revoked,
        E::UnknownRevocationStatus
        | E::CrlExpired { .. }
        | E::InvalidCrlSignatureForPublicKey
        | E::IssuerNotCrlSigner
        | E::UnsupportedCrlSignatureAlgorithmContext(_)
        | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Refused::RevocationUnknown,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension | E::CaUsedAsEndEntity => {
            Refused::WrongUsage
        }
        E::UnknownIssuer
        | E::InvalidSignatureForPublicKey
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::NameConstraintViolation
        | E::PathLenConstraintViolated
        | E::EndEntityUsedAsCa
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumSignatureChecksExceeded => Refused::UnknownIssuer,
        other => Refused::Malformed(other.to_string()),
    }
}
