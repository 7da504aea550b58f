//! Who we are and whom we believe.
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::SystemTime};
use watchline_proto::{
    Hash, SpiffeId,
    signature::{SigningKey, VerifyingKey},
};

/// `[identity]`, validated in form (files are read by `Identity::load`).
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    pub trust_anchors: PathBuf,
    pub revocations: Option<PathBuf>,
    pub trust: Vec<ScopedTrust>,
}
/// `[[identity.trust]]`
#[derive(Debug, Clone)]
pub struct ScopedTrust {
    pub anchors: PathBuf,
    pub revocations: Option<PathBuf>,
    /// patterns over `SpiffeId::path`, `*` matches within or at the end
    pub names: Vec<String>,
}
impl IdentityConfig {
    pub fn read(section: &mut crate::config::Section<'_>) -> Option<IdentityConfig> {
        todo!()
    }
}

/// The identity in force: swapped as a whole when files change; cheap to clone.
#[derive(Clone)]
pub struct Identity {
    /* Arc<ArcSwap<Loaded>>, tokio watch for changes */ _p: (),
}
/// One consistent set of files.
pub struct Loaded {
    pub id: SpiffeId,
    pub chain: Arc<Vec<Vec<u8>>>,
    pub fingerprint: Hash,
    pub key: SigningKey,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub crl_next_update: Option<SystemTime>,
    pub generation: u64, /* + rustls configs, Trust */
}

/// Whom a connection is with: what the certificate says.
#[derive(Debug, Clone)]
pub struct Peer {
    pub id: SpiffeId,
    pub serial: Vec<u8>,
    pub fingerprint: Hash,
    pub not_after: SystemTime,
    pub address: Option<std::net::SocketAddr>,
}

/// Why a certificate is refused. `reason()` is a small closed set for `watchline_refused_total{reason}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no certificate")]
    NoCertificate,
    #[error("certificate is not readable: {0}")]
    Malformed(String),
    #[error("certificate does not chain to a trust anchor")]
    UnknownIssuer,
    #[error("certificate has expired")]
    Expired,
    #[error("certificate is not valid yet")]
    NotYetValid,
    #[error("certificate is revoked")]
    Revoked,
    #[error("certificate has no single SPIFFE name: {0}")]
    BadName(String),
    #[error("anchor may not vouch for {0}")]
    OutOfScope(SpiffeId),
    #[error("{0} may not do this")]
    WrongRole(SpiffeId),
    #[error("{0} is of another agency")]
    WrongAgency(SpiffeId),
    #[error("certificate is not meant for this use")]
    WrongUsage,
}
impl Refused {
    pub fn reason(&self) -> &'static str {
        todo!()
    }
}

impl Identity {
    /// Reads and checks all files. The error names the file. Keys that group or others can read are refused. An expired own certificate is loaded (and said).
    pub fn load(config: &IdentityConfig) -> anyhow::Result<Identity> {
        todo!()
    }
    pub fn current(&self) -> Arc<Loaded> {
        todo!()
    }
    /// Looks for changed files every half second until `stop`; a bad set is refused, the last good one stays, logged once.
    pub async fn follow_files(self, stop: tokio_util::sync::CancellationToken) {
        todo!()
    }
    /// Changes after each swap (generation).
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
    /// rustls configuration for the listening end (TLS 1.3, client certificate required, no tickets, ALPN h2) of this moment.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }
    /// For the dialling end. The server's certificate must chain and be a collector of our own agency or a centre (for a collector: likewise; a centre dials centres); its SPIFFE name is what is verified, not its DNS name.
    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        todo!()
    }
    /// Verifies a chain (leaf first, DER) against the anchors whose scope covers its name, with CRLs, at `at`; no role check. Used for signers of batches; results may be cached by fingerprint and generation.
    pub fn verify_chain(
        &self,
        chain: &[Vec<u8>],
        at: SystemTime,
    ) -> Result<VerifiedSigner, Refused> {
        todo!()
    }
    /// Whether an open connection's certificate is still good now (expiry, CRL).
    pub fn still_valid(&self, peer: &Peer) -> Result<(), Refused> {
        todo!()
    }
}
#[derive(Clone)]
pub struct VerifiedSigner {
    pub id: SpiffeId,
    pub key: VerifyingKey,
    pub fingerprint: Hash,
    pub not_after: SystemTime,
}
/// What a verified TLS connection's certificate says.
pub fn peer_of(certificates: &[rustls_pki_types::CertificateDer<'_>]) -> Result<Peer, Refused> {
    todo!()
}
