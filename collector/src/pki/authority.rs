use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, RevokedCertParams, SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, DnsName, pem::PemObject as _,
};
use time::{Duration, OffsetDateTime};
use watchline_proto::{Role, SpiffeId, TrustDomain};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{CertificateRevocationList, FromDer as _, X509Certificate},
};

use super::{
    files,
    register::{Record, Serial},
};

const CA_LIFE: Duration = Duration::days(3650);
const LIST_LIFE: Duration = Duration::days(30);
/// Certificates begin this much before now, for peers whose clocks are behind.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// A CA as it lies in its folder.
pub(super) struct Authority {
    folder: PathBuf,
    trust_domain: TrustDomain,
    certificate_pem: String,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// What is to be issued.
pub(super) struct Request {
    pub(super) id: SpiffeId,
    pub(super) dns: Vec<DnsName<'static>>,
    pub(super) ip: Vec<IpAddr>,
    pub(super) days: u32,
}

/// What was issued; nothing of it is on disk yet.
pub(super) struct Issued {
    pub(super) serial: Serial,
    pub(super) not_after: OffsetDateTime,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

impl Authority {
    /// Makes a CA and writes `ca.key` and `ca.pem`.
    pub(super) fn create(
        folder: &Path,
        trust_domain: &TrustDomain,
        now: OffsetDateTime,
    ) -> anyhow::Result<Authority> {
        let key = KeyPair::generate().context("making the CA's key")?;
        let serial = Serial::random()?;
        let mut parameters = CertificateParams::default();
        // With its serial number in the name, two CAs of one trust domain are never mistaken for each other.
        parameters.distinguished_name =
            common_name(&format!("Watchline CA {trust_domain} {serial:.8}"));
        parameters.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        parameters.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        parameters.not_before = now - CLOCK_SKEW;
        parameters.not_after = now + CA_LIFE;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters
            .self_signed(&key)
            .context("signing the CA's certificate")?;
        files::write_new(&folder.join(files::KEY), key.serialize_pem().as_bytes())?;
        files::write_new(
            &folder.join(files::CERTIFICATE),
            certificate.pem().as_bytes(),
        )?;
        files::sync_folder(folder)?;
        Authority::open(folder)
    }

    /// Reads `ca.pem` and `ca.key`, which must belong together.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Authority> {
        let (certificate_file, key_file) =
            (folder.join(files::CERTIFICATE), folder.join(files::KEY));
        let certificate_pem = files::read(&certificate_file)?;
        let key_pem = files::read_secret(&key_file)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .with_context(|| format!("{} holds no certificate", certificate_file.display()))?;
        let (_, certificate) = X509Certificate::from_der(&der)
            .with_context(|| format!("{} is not readable", certificate_file.display()))?;
        let key = KeyPair::from_pem(&key_pem)
            .with_context(|| format!("{} holds no usable key", key_file.display()))?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            bail!(
                "{} does not belong to {}",
                key_file.display(),
                certificate_file.display()
            );
        }
        let trust_domain = trust_domain_of(&certificate).with_context(|| {
            format!(
                "{} does not name its trust domain: was it made by `pki init`?",
                certificate_file.display()
            )
        })?;
        let not_after = certificate.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .with_context(|| format!("{} cannot issue", certificate_file.display()))?;
        Ok(Authority {
            folder: folder.to_owned(),
            trust_domain,
            certificate_pem,
            not_after,
            issuer,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Issues a certificate with a new key. It does not outlive the CA.
    pub(super) fn issue(&self, request: &Request, now: OffsetDateTime) -> anyhow::Result<Issued> {
        let not_after = (now + Duration::days(request.days.into())).min(self.not_after);
        if not_after <= now {
            bail!("the CA in {} has expired", self.folder.display());
        }
        let serial = Serial::random()?;
        let mut names = vec![uri(&request.id.to_string())?];
        for dns in &request.dns {
            names.push(SanType::DnsName(Ia5String::try_from(dns.as_ref())?));
        }
        names.extend(request.ip.iter().map(|ip| SanType::IpAddress(*ip)));

        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = common_name(request.id.name().as_ref());
        parameters.subject_alt_names = names;
        parameters.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        parameters.not_before = now - CLOCK_SKEW;
        parameters.not_after = not_after;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match request.id.role() {
            Role::Forwarder => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Collector | Role::Center => vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
        };
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("making a key")?;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .context("signing the certificate")?;
        Ok(Issued {
            serial,
            not_after,
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Signs a list of all that is revoked, the expired included: archives are judged by it. Its number is larger and its date no earlier than
    /// those of the list `before` it, whatever the clock says. Returns it as PEM, and until when it is good.
    pub(super) fn revocation_list(
        &self,
        before: Option<&str>,
        records: &[Record],
        now: OffsetDateTime,
    ) -> anyhow::Result<(String, OffsetDateTime)> {
        let before = before.and_then(list_facts);
        let this_update = before.map_or(now, |(date, _)| now.max(date));
        let number = before.map_or(1, |(_, number)| number.saturating_add(1));
        let revoked_certs = records
            .iter()
            .filter_map(|record| {
                Some(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(record.serial().as_bytes()),
                    revocation_time: record.revoked()?,
                    reason_code: None,
                    invalidity_date: None,
                })
            })
            .collect();
        let list = CertificateRevocationListParams {
            this_update,
            next_update: this_update + LIST_LIFE,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list
            .signed_by(&self.issuer)
            .and_then(|list| list.pem())
            .context("signing the revocation list")?;
        Ok((pem, this_update + LIST_LIFE))
    }
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn uri(text: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(Ia5String::try_from(text)?))
}

fn trust_domain_of(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.parse().ok(),
            _ => None,
        })
}

/// Date and number of a list; `None` where it is not readable: then the next one starts over.
fn list_facts(pem: &str) -> Option<(OffsetDateTime, u64)> {
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, list) = CertificateRevocationList::from_der(&der).ok()?;
    let number =
        list.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::CRLNumber(number) => u64::try_from(number).ok(),
                _ => None,
            });
    Some((list.last_update().to_datetime(), number.unwrap_or(0)))
}
