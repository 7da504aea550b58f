use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use watchline_proto::SpiffeId;
use webpki::aws_lc_rs as algorithms;

use super::{
    Refused, authority,
    trust::{CERTIFICATE_ALGORITHMS, Trust, Usage},
};

/// What a peer may prove its key with: the two kinds of keys that may also sign batches.
static HANDSHAKE_ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: CERTIFICATE_ALGORITHMS,
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[algorithms::ECDSA_P256_SHA256],
        ),
        (SignatureScheme::ED25519, &[algorithms::ED25519]),
    ],
};

/// The one provider, hybrid post-quantum key exchange first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    Arc::new(provider)
}

/// The listening end: TLS 1.3, client certificate required, no tickets and no session storage (a resumed session would not be
/// verified again), ALPN h2.
pub(super) fn server_config(
    guard: &Arc<Guard>,
    key: &Arc<CertifiedKey>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::clone(guard) as Arc<dyn ClientCertVerifier>)
        .with_cert_resolver(Arc::new(Ours(Arc::clone(key))));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The dialling end: TLS 1.3, our certificate, no resumption, ALPN h2.
pub(super) fn client_config(
    guard: &Arc<Guard>,
    key: &Arc<CertifiedKey>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(guard) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::new(Ours(Arc::clone(key))));
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Our own certificate, whatever the other end asks for: there is only one, and a refusal says more than none shown.
#[derive(Debug)]
struct Ours(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Ours {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl rustls::client::ResolvesClientCert for Ours {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Decides in the handshake who gets through: chain, scope, revocation, then role and agency.
pub(super) struct Guard {
    pub(super) own: SpiffeId,
    pub(super) trust: Arc<Trust>,
}

impl Guard {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Refused> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates)
            .cloned()
            .collect();
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        let standing = self.trust.verify(&chain, now, usage)?;
        if standing.revoked.is_some() {
            return Err(Refused::Revoked);
        }
        match usage {
            Usage::Server => authority::may_be_dialled(&self.own, &standing.id),
            Usage::Client | Usage::Any => authority::may_dial_us(&self.own, &standing.id),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Guard {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Peers have one certificate: nothing to choose from, and nothing to tell strangers.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, Usage::Client)
            .map_err(Refused::into_tls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &HANDSHAKE_ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        HANDSHAKE_ALGORITHMS.supported_schemes()
    }
}

impl ServerCertVerifier for Guard {
    /// The SPIFFE name is what counts; the DNS name or address that was dialled is how it was found, and no part of who it is.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, Usage::Server)
            .map_err(Refused::into_tls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &HANDSHAKE_ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        HANDSHAKE_ALGORITHMS.supported_schemes()
    }
}

/// Cannot happen: the configurations above have TLS 1.3 only.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken here".to_owned())
}
