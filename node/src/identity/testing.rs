//! Certificates for tests: a CA in memory that issues what `watchline-collector pki` would, and what it never would.
//!
//! Public because the tests of every crate need it; nothing outside tests calls it, so that it is in no program. It panics where a
//! test could only fail.
//!
//! ```
//! use watchline_node::identity::testing::Authority;
//!
//! let directory = tempfile::tempdir().unwrap();
//! let authority = Authority::new("watch.example");
//! let identity = authority.forwarder("moh", "host-01").load(&authority, directory.path());
//! assert_eq!(identity.current().id.path(), "agency/moh/forwarder/host-01");
//! ```

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Identity, IdentityConfig};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A CA.
pub struct Authority {
    trust_domain: String,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    revoked: Mutex<Vec<RevokedCertParams>>,
    lists: Mutex<u64>,
}

/// What a certificate is to say. [`Authority::issue`] takes it as it is, right or wrong.
#[derive(Debug, Clone)]
pub struct Request {
    /// File name without its ending.
    pub name: String,
    /// URI names; one SPIFFE name in a right certificate.
    pub uris: Vec<String>,
    /// Beginning.
    pub not_before: SystemTime,
    /// End.
    pub not_after: SystemTime,
    /// Extended key usages.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
}

/// A certificate with its key.
pub struct Issued {
    /// File name without its ending.
    pub name: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// The certificate, DER.
    pub der: CertificateDer<'static>,
    /// PKCS#8, PEM.
    pub private_key: String,
    /// Big-endian.
    pub serial: Vec<u8>,
}

impl Authority {
    /// A CA for names of this trust domain.
    pub fn new(trust_domain: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        let number = u64::from_be_bytes(random());
        parameters.distinguished_name.push(
            DnType::CommonName,
            format!("Test CA {number:016x} of {trust_domain}"),
        );
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters
            .self_signed(&key)
            .expect("a CA certificate")
            .pem();
        Authority {
            trust_domain: trust_domain.to_owned(),
            certificate,
            issuer: Issuer::new(parameters, key),
            revoked: Mutex::new(Vec::new()),
            lists: Mutex::new(0),
        }
    }

    /// A certificate for `agency/<agency>/forwarder/<name>`, an hour old, valid for a day.
    pub fn forwarder(&self, agency: &str, name: &str) -> Issued {
        self.issue(&self.request(name, &format!("agency/{agency}/forwarder/{name}")))
    }

    /// A certificate for `agency/<agency>/collector/<name>`.
    pub fn collector(&self, agency: &str, name: &str) -> Issued {
        self.issue(&self.request(name, &format!("agency/{agency}/collector/{name}")))
    }

    /// A certificate for `center/<name>`.
    pub fn center(&self, name: &str) -> Issued {
        self.issue(&self.request(name, &format!("center/{name}")))
    }

    /// What [`Authority::forwarder`] and the others ask for, to be changed before it is issued.
    pub fn request(&self, name: &str, path: &str) -> Request {
        let now = SystemTime::now();
        Request {
            name: name.to_owned(),
            uris: vec![format!("spiffe://{}/{path}", self.trust_domain)],
            not_before: now - HOUR,
            not_after: now + DAY,
            usages: vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
        }
    }

    /// Issues it.
    pub fn issue(&self, request: &Request) -> Issued {
        let (parameters, key) = request.parameters();
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        request.issued(certificate, &key, &parameters)
    }

    /// The CA's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// From now on [`Authority::revocations`] names it.
    pub fn revoke(&self, issued: &Issued) {
        self.revoke_since(issued, SystemTime::now());
    }

    /// The same, with a date of revocation.
    pub fn revoke_since(&self, issued: &Issued, since: SystemTime) {
        self.revoked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&issued.serial),
                revocation_time: since.into(),
                reason_code: None,
                invalidity_date: None,
            });
    }

    /// The list as of now, PEM, good for a day. Each is newer than the one before, also within a second.
    pub fn revocations(&self) -> String {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        *lists += 1;
        // Behind now by more than a test makes lists.
        let this_update = SystemTime::now() - HOUR + Duration::from_secs(*lists);
        self.revocations_between(this_update, this_update + DAY)
    }

    /// The list with its dates, PEM.
    pub fn revocations_between(&self, this_update: SystemTime, next_update: SystemTime) -> String {
        let list = CertificateRevocationListParams {
            this_update: this_update.into(),
            next_update: next_update.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: self
                .revoked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer)
            .and_then(|list| list.pem())
            .expect("a revocation list")
    }
}

impl Request {
    /// A certificate that signs itself.
    pub fn self_signed(&self) -> Issued {
        let (parameters, key) = self.parameters();
        let certificate = parameters.self_signed(&key).expect("a certificate");
        self.issued(certificate, &key, &parameters)
    }

    fn parameters(&self) -> (CertificateParams, KeyPair) {
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, self.name.clone());
        let name = |uri: &String| SanType::URI(uri.as_str().try_into().expect("a URI"));
        parameters.subject_alt_names = self.uris.iter().map(name).collect();
        parameters.not_before = self.not_before.into();
        parameters.not_after = self.not_after.into();
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = self.usages.clone();
        parameters.use_authority_key_identifier_extension = true;
        let mut serial = random::<16>();
        // Positive, and with its first byte not left out in DER.
        serial[0] = serial[0] & 0x7f | 0x40;
        parameters.serial_number = Some(SerialNumber::from_slice(&serial));
        (parameters, KeyPair::generate().expect("a key"))
    }

    fn issued(
        &self,
        certificate: rcgen::Certificate,
        key: &KeyPair,
        parameters: &CertificateParams,
    ) -> Issued {
        Issued {
            name: self.name.clone(),
            certificate: certificate.pem(),
            der: certificate.der().clone(),
            private_key: key.serialize_pem(),
            serial: parameters
                .serial_number
                .as_ref()
                .map(SerialNumber::to_bytes)
                .unwrap_or_default(),
        }
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` (0600) with `authority`'s `ca.pem` and `crl.pem` into a folder, and says what `[identity]` would.
    pub fn write(&self, authority: &Authority, directory: &Path) -> IdentityConfig {
        write(&directory.join("ca.pem"), authority.certificate());
        write(&directory.join("crl.pem"), &authority.revocations());
        let certificate = directory.join(format!("{}.pem", self.name));
        let private_key = directory.join(format!("{}.key", self.name));
        write(&certificate, &self.certificate);
        write(&private_key, &self.private_key);
        IdentityConfig {
            certificate,
            private_key,
            trust_anchors: directory.join("ca.pem"),
            revocations: Some(directory.join("crl.pem")),
            trust: Vec::new(),
        }
    }

    /// [`Issued::write`] and [`Identity::load`].
    pub fn load(&self, authority: &Authority, directory: &Path) -> Identity {
        Identity::load(&self.write(authority, directory)).expect("an identity")
    }

    /// The private key as rustls takes it.
    pub fn private_key_der(&self) -> PrivateKeyDer<'static> {
        use rustls_pki_types::pem::PemObject as _;
        PrivateKeyDer::from_pem_slice(self.private_key.as_bytes()).expect("a key")
    }
}

/// Replaces a file as an operator should: written beside it, then renamed over it. Mode 0600.
pub fn write(file: &Path, contents: &str) {
    let beside = PathBuf::from(format!("{}.new", file.display()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&beside)
        .and_then(|mut file| std::io::Write::write_all(&mut file, contents.as_bytes()))
        .expect("written");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("private");
    fs::rename(&beside, file).expect("renamed");
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}
