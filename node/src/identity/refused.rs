use std::{io, sync::Arc};

use rustls::{CertificateError, OtherError};
use watchline_proto::SpiffeId;

/// Why a peer or a signer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The peer showed none.
    #[error("no certificate")]
    NoCertificate,
    /// Not a certificate, or one of a form that we do not take.
    #[error("certificate is not readable: {0}")]
    Malformed(String),
    /// No anchor vouches for it: another CA, or signed by itself.
    #[error("certificate does not chain to a trust anchor")]
    UnknownIssuer,
    /// It, or one above it, has expired.
    #[error("certificate has expired")]
    Expired,
    /// It, or one above it, is not valid yet.
    #[error("certificate is not valid yet")]
    NotYetValid,
    /// Its issuer's list names it.
    #[error("certificate is revoked")]
    Revoked,
    /// Revocation lists are configured for its anchors, but none that its issuer signed.
    #[error("certificate may be revoked: there is no sound revocation list of its issuer")]
    RevocationUnknown,
    /// Not exactly one SPIFFE URI of our trust domain and form.
    #[error("certificate has no single SPIFFE name: {0}")]
    BadName(String),
    /// A scoped anchor signed a name that is not in its scope.
    #[error("anchor may not vouch for {0}")]
    OutOfScope(SpiffeId),
    /// Its role has no business here.
    #[error("{0} may not do this")]
    WrongRole(SpiffeId),
    /// Right role, wrong agency.
    #[error("{0} is of another agency")]
    WrongAgency(SpiffeId),
    /// Its key usage forbids it.
    #[error("certificate is not meant for this use")]
    WrongUsage,
    /// The peer does not speak TLS 1.3.
    #[error("peer does not speak TLS 1.3")]
    TlsVersion,
    /// The handshake failed for a reason that has nothing to do with who the peer is: garbage, a peer that went away or refused us.
    #[error("handshake failed: {0}")]
    Handshake(String),
}

impl Refused {
    /// Every [`Refused::reason`].
    pub(super) const REASONS: [&str; 14] = [
        "no_certificate",
        "malformed_certificate",
        "unknown_issuer",
        "expired",
        "not_yet_valid",
        "revoked",
        "revocation_unknown",
        "bad_name",
        "out_of_scope",
        "wrong_role",
        "wrong_agency",
        "wrong_usage",
        "tls_version",
        "handshake",
    ];

    /// A small closed set, for `watchline_refused_total{reason}`.
    pub fn reason(&self) -> &'static str {
        match self {
            Refused::NoCertificate => "no_certificate",
            Refused::Malformed(_) => "malformed_certificate",
            Refused::UnknownIssuer => "unknown_issuer",
            Refused::Expired => "expired",
            Refused::NotYetValid => "not_yet_valid",
            Refused::Revoked => "revoked",
            Refused::RevocationUnknown => "revocation_unknown",
            Refused::BadName(_) => "bad_name",
            Refused::OutOfScope(_) => "out_of_scope",
            Refused::WrongRole(_) => "wrong_role",
            Refused::WrongAgency(_) => "wrong_agency",
            Refused::WrongUsage => "wrong_usage",
            Refused::TlsVersion => "tls_version",
            Refused::Handshake(_) => "handshake",
        }
    }

    /// What a failed handshake on the listening end says about the peer.
    pub fn of_handshake(error: &io::Error) -> Refused {
        let Some(tls) = tls_error(error) else {
            return Refused::Handshake(error.to_string());
        };
        match tls {
            rustls::Error::NoCertificatesPresented => Refused::NoCertificate,
            rustls::Error::PeerIncompatible(
                rustls::PeerIncompatible::SupportedVersionsExtensionRequired
                | rustls::PeerIncompatible::Tls13RequiredForQuic
                | rustls::PeerIncompatible::Tls12NotOfferedOrEnabled
                | rustls::PeerIncompatible::Tls12NotOffered,
            ) => Refused::TlsVersion,
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Refused>()
                {
                    Some(refused) => refused.clone(),
                    None => Refused::Malformed(inner.to_string()),
                },
                CertificateError::Expired => Refused::Expired,
                CertificateError::NotValidYet => Refused::NotYetValid,
                CertificateError::Revoked => Refused::Revoked,
                CertificateError::UnknownRevocationStatus => Refused::RevocationUnknown,
                CertificateError::UnknownIssuer => Refused::UnknownIssuer,
                CertificateError::InvalidPurpose => Refused::WrongUsage,
                other => Refused::Malformed(other.to_string()),
            },
            other => Refused::Handshake(other.to_string()),
        }
    }

    /// As rustls carries it. Where TLS has an alert for it the peer learns the reason; else it learns `certificate_unknown` and the
    /// exact reason stays on our side.
    pub(super) fn into_tls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Refused::Expired => CertificateError::Expired,
            Refused::NotYetValid => CertificateError::NotValidYet,
            Refused::Revoked => CertificateError::Revoked,
            Refused::RevocationUnknown => CertificateError::UnknownRevocationStatus,
            Refused::UnknownIssuer => CertificateError::UnknownIssuer,
            Refused::WrongUsage => CertificateError::InvalidPurpose,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}
