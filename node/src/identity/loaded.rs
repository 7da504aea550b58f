use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use watchline_proto::{Hash, SpiffeId, signature::SigningKey};

use super::{
    IdentityConfig, LoadError, LoadProblem, Refused,
    certificate::Certificate,
    files::{Files, List, Stamps, in_file},
    tls::{self, Guard},
    trust::{Trust, Usage},
};

/// One consistent set of files.
pub struct Loaded {
    /// Our own name.
    pub id: SpiffeId,
    /// Our certificates, DER, leaf first.
    pub chain: Arc<Vec<Vec<u8>>>,
    /// SHA-256 of our leaf certificate.
    pub fingerprint: Hash,
    /// Signs what we seal.
    pub key: SigningKey,
    /// When our certificate begins.
    pub not_before: SystemTime,
    /// When our certificate ends.
    pub not_after: SystemTime,
    /// When the first of our revocation lists should have been replaced; `None`: no list, or none that says.
    pub crl_next_update: Option<SystemTime>,
    /// Counts the sets that this process has loaded; never the same twice.
    pub generation: u64,
    /// Whether our own certificate is on our own issuer's list.
    pub revoked: bool,
    pub(super) trust: Arc<Trust>,
    pub(super) server_config: Arc<rustls::ServerConfig>,
    pub(super) client_config: Arc<rustls::ClientConfig>,
    pub(super) stamps: Stamps,
    lists: Vec<List>,
}

/// How our own certificate stands: for readiness, and for the event that says it is time to renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnState {
    /// Valid, with more than a third of its life left.
    Valid,
    /// Valid, with two thirds of its life behind it.
    ExpiresSoon,
    /// No peer will take it. What is sealed waits in the spool until there is a valid one.
    Expired,
    /// It begins later: an issuer's or our own clock is wrong.
    NotYetValid,
    /// No peer that has the list will take it.
    Revoked,
}

impl OwnState {
    /// Why no peer takes us; `None` while they do.
    pub fn trouble(self) -> Option<&'static str> {
        match self {
            OwnState::Valid | OwnState::ExpiresSoon => None,
            OwnState::Expired => {
                Some("our certificate has expired; a valid one is taken as soon as it is there")
            }
            OwnState::NotYetValid => {
                Some("our certificate is not valid yet, or this clock is behind")
            }
            OwnState::Revoked => {
                Some("our certificate is revoked; another one is taken as soon as it is there")
            }
        }
    }
}

impl Loaded {
    pub(super) fn read(config: &IdentityConfig) -> Result<Loaded, LoadError> {
        // Before the files: what changes while they are read is seen as changed by the next look.
        let stamps = Stamps::of(config);
        let files = Files::read(config)?;
        let in_certificate = |problem| in_file("certificate", &config.certificate)(problem);
        let in_key = |problem| in_file("private_key", &config.private_key)(problem);

        let leaf = files
            .chain
            .first()
            .ok_or_else(|| in_certificate(LoadProblem::Nothing("certificate")))?;
        let facts = Certificate::parse(leaf)
            .map_err(|refused| in_certificate(LoadProblem::Certificate(refused)))?;
        let id = facts
            .name
            .clone()
            .map_err(|refused| in_certificate(LoadProblem::Certificate(refused)))?;
        let fingerprint = Hash::of(leaf);
        let PrivateKeyDer::Pkcs8(pkcs8) = &files.key else {
            return Err(in_key(LoadProblem::NotPkcs8));
        };
        let key = SigningKey::from_pkcs8(pkcs8.secret_pkcs8_der())
            .map_err(|_| in_key(LoadProblem::UnsupportedKey))?;
        let certified =
            CertifiedKey::from_der(files.chain.clone(), files.key.clone_key(), &tls::provider());
        let certified = Arc::new(certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                in_key(LoadProblem::KeyMismatch(config.certificate.clone()))
            }
            other => in_certificate(LoadProblem::Tls(other)),
        })?);

        let trust = Arc::new(Trust::new(id.trust_domain().clone(), files.sets));
        // As of its own beginning: an expired certificate of ours is loaded all the same, and said.
        let revoked = match trust.verify(&files.chain, facts.not_before, Usage::Any) {
            Ok(standing) => standing.revoked.is_some(),
            Err(Refused::RevocationUnknown) => {
                let file = config
                    .revocations
                    .as_deref()
                    .unwrap_or(&config.trust_anchors);
                return Err(in_file("revocations", file)(LoadProblem::ForeignList));
            }
            Err(error) => {
                // Peers may have other anchors than we have, as while a CA is being replaced.
                tracing::warn!(%id, %error, "our own certificate does not verify under our own trust anchors");
                false
            }
        };
        let guard = Arc::new(Guard {
            own: id.clone(),
            trust: Arc::clone(&trust),
        });
        let server_config = tls::server_config(&guard, &certified)
            .map_err(|e| in_certificate(LoadProblem::Tls(e)))?;
        let client_config = tls::client_config(&guard, &certified)
            .map_err(|e| in_certificate(LoadProblem::Tls(e)))?;

        static GENERATION: AtomicU64 = AtomicU64::new(1);
        Ok(Loaded {
            id,
            chain: Arc::new(
                files
                    .chain
                    .iter()
                    .map(|certificate| certificate.to_vec())
                    .collect(),
            ),
            fingerprint,
            key,
            not_before: facts.not_before,
            not_after: facts.not_after,
            crl_next_update: files.lists.iter().filter_map(|list| list.next_update).min(),
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            revoked,
            trust,
            server_config: Arc::new(server_config),
            client_config: Arc::new(client_config),
            stamps,
            lists: files.lists,
        })
    }

    /// Whether this set may take the place of `before`.
    pub(super) fn may_follow(
        &self,
        before: &Loaded,
        config: &IdentityConfig,
        now: SystemTime,
    ) -> Result<(), LoadError> {
        let in_certificate = in_file("certificate", &config.certificate);
        if self.id != before.id {
            let problem =
                LoadProblem::OtherName(Box::new(self.id.clone()), Box::new(before.id.clone()));
            return Err(in_certificate(problem));
        }
        if self.not_before < before.not_before && self.not_after <= now {
            return Err(in_certificate(LoadProblem::OlderCertificate));
        }
        // A list that went back in time would let the revoked in again.
        for list in &self.lists {
            if before
                .lists
                .iter()
                .any(|old| old.issuer == list.issuer && list.this_update < old.this_update)
            {
                return Err(in_file("revocations", &list.file)(LoadProblem::OlderList));
            }
        }
        Ok(())
    }

    /// How our own certificate stands at `now`.
    pub fn own_state(&self, now: SystemTime) -> OwnState {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        if self.revoked {
            OwnState::Revoked
        } else if now >= self.not_after {
            OwnState::Expired
        } else if now < self.not_before {
            OwnState::NotYetValid
        } else if now >= self.not_before + life * 2 / 3 {
            OwnState::ExpiresSoon
        } else {
            OwnState::Valid
        }
    }
}
