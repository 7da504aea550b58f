use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use rustls_pki_types::CertificateDer;
use watchline_proto::{Hash, SpiffeId};

use super::{Refused, certificate::Certificate};

/// Whom a connection is with: what the certificate says that its handshake verified.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The peer's name: what it may do follows from this alone.
    pub id: SpiffeId,
    /// Its certificate's serial number, big-endian.
    pub serial: Vec<u8>,
    /// SHA-256 of its certificate (DER).
    pub fingerprint: Hash,
    /// When its certificate ends.
    pub not_after: SystemTime,
    /// Where it connects from, for logs.
    pub address: Option<SocketAddr>,
    /// The certificates that it showed, its own first.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// Whom a TLS connection is with, from its peer certificates (its own first). Verifies nothing: only for connections whose
/// handshake went through [`super::Identity`]'s configurations.
pub fn peer_of(certificates: &[CertificateDer<'_>]) -> Result<Peer, Refused> {
    let first = certificates.first().ok_or(Refused::NoCertificate)?;
    let leaf = Certificate::parse(first)?;
    Ok(Peer {
        id: leaf.name?,
        serial: leaf.serial,
        fingerprint: Hash::of(first),
        not_after: leaf.not_after,
        address: None,
        chain: certificates
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect(),
    })
}
