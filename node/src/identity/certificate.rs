use std::time::{Duration, SystemTime};

use watchline_proto::{SpiffeId, TrustDomain};
use x509_parser::{
    extensions::GeneralName,
    prelude::{ASN1Time, FromDer as _, X509Certificate},
};

use super::Refused;

/// What one certificate says, read without believing any of it.
pub(super) struct Certificate {
    /// The one SPIFFE name, or why there is none.
    pub(super) name: Result<SpiffeId, Refused>,
    pub(super) serial: Vec<u8>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key: Vec<u8>,
    pub(super) is_authority: bool,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Result<Certificate, Refused> {
        let malformed = |error: &dyn std::fmt::Display| Refused::Malformed(error.to_string());
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"bytes after its end"));
        }
        let validity = certificate.validity();
        Ok(Certificate {
            name: name_of(&certificate),
            serial: certificate.raw_serial().to_vec(),
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
            public_key: certificate.public_key().raw.to_vec(),
            is_authority: certificate.is_ca(),
        })
    }

    /// The name, if it is of this trust domain.
    pub(super) fn name_in(&self, domain: &TrustDomain) -> Result<SpiffeId, Refused> {
        let id = self.name.clone()?;
        if id.trust_domain() == domain {
            Ok(id)
        } else {
            Err(Refused::BadName(format!(
                "{id} is not of our trust domain {domain}"
            )))
        }
    }
}

fn name_of(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Refused> {
    let bad = |why: &str| Refused::BadName(why.to_owned());
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => &names.value.general_names,
        Ok(None) => return Err(bad("it has no alternative names")),
        Err(_) => return Err(bad("its alternative names are not readable")),
    };
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(bad("its alternative names are not readable")),
            _ => {}
        }
    }
    match uris[..] {
        [uri] => uri
            .parse()
            .map_err(|error: watchline_proto::name::NameError| Refused::BadName(error.to_string())),
        [] => Err(bad("it has no URI")),
        _ => Err(bad("it has more than one URI")),
    }
}

/// Times before 1970 become 1970.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or(0))
}
