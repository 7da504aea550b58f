use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use webpki::CertRevocationList;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::{
    IdentityConfig, Refused,
    certificate::{Certificate, system_time},
    trust::AnchorSet,
};

/// Keys, certificates and lists beyond this are something else. A list of 100,000 revoked certificates has 4 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why an identity cannot be used, and by which file's fault. During a reload it means that the last good set stays in force.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem} (identity.{key})", file.display())]
pub struct LoadError {
    /// The configuration key that names the file, without `identity.`.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: Box<LoadProblem>,
}

/// What is wrong with one file of an identity. The message says all: causes are not chained, since it is shown as one line.
#[derive(Debug, thiserror::Error)]
pub enum LoadProblem {
    /// Missing, not permitted, or a failing disk.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A folder, a device, a pipe.
    #[error("is not a regular file")]
    NotRegular,
    /// More than any certificate file has.
    #[error("is larger than 16 MiB: not a certificate file")]
    TooLarge,
    /// Others could have read the key.
    #[error("is readable by group or others (mode {0:04o}): run chmod 600")]
    Exposed(u32),
    /// No PEM section of the kind that is needed.
    #[error("holds no {0} in PEM form")]
    Nothing(&'static str),
    /// A PEM section that cannot be decoded.
    #[error("is not PEM: {0}")]
    Pem(pem::Error),
    /// SEC1 or PKCS#1.
    #[error("holds a key that is not PKCS#8: run openssl pkcs8 -topk8 -nocrypt")]
    NotPkcs8,
    /// RSA, P-384 or something else.
    #[error("holds a key that is neither ECDSA P-256 nor Ed25519")]
    UnsupportedKey,
    /// The key of another certificate.
    #[error("does not belong to the certificate in {}", .0.display())]
    KeyMismatch(PathBuf),
    /// The certificate itself.
    #[error("{0}")]
    Certificate(Refused),
    /// A leaf certificate among the anchors.
    #[error("holds a certificate that is not a CA's")]
    NotAnAuthority,
    /// A revocation list that cannot be decoded.
    #[error("holds a revocation list that is not readable: {0}")]
    BadList(String),
    /// A revocation list that its issuer did not sign.
    #[error("holds a revocation list that our own issuer did not sign, or none of it")]
    ForeignList,
    /// At a reload: the list is older than the one in force.
    #[error("holds a revocation list that is older than the one in force")]
    OlderList,
    /// At a reload: the certificate began before the one in force and has expired.
    #[error("holds a certificate that is older than the one in force, and expired")]
    OlderCertificate,
    /// At a reload: another name. The process lives under the one it started with.
    #[error("names {0}; this process is {1}: restart it to change its name")]
    OtherName(
        Box<watchline_proto::SpiffeId>,
        Box<watchline_proto::SpiffeId>,
    ),
    /// rustls does not take it.
    #[error("cannot be used for TLS: {0}")]
    Tls(rustls::Error),
}

/// Files as read: not yet a consistent set.
pub(super) struct Files {
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) sets: Vec<AnchorSet>,
    pub(super) lists: Vec<List>,
}

/// What is to be known of one revocation list besides its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    pub(super) file: PathBuf,
    /// Issuer's name, DER.
    pub(super) issuer: Vec<u8>,
    pub(super) this_update: SystemTime,
    pub(super) next_update: Option<SystemTime>,
}

impl Files {
    pub(super) fn read(config: &IdentityConfig) -> Result<Files, LoadError> {
        let key = private_key(&config.private_key)
            .map_err(in_file("private_key", &config.private_key))?;
        let chain: Vec<_> = sections(&config.certificate, "certificate")
            .map_err(in_file("certificate", &config.certificate))?;
        let mut lists = Vec::new();
        let mut sets = vec![AnchorSet {
            scope: Vec::new(),
            anchors: anchors(&config.trust_anchors)
                .map_err(in_file("trust_anchors", &config.trust_anchors))?,
            revocations: revocations("revocations", config.revocations.as_deref(), &mut lists)?,
        }];
        for trust in &config.trust {
            sets.push(AnchorSet {
                scope: trust.names.clone(),
                anchors: anchors(&trust.anchors)
                    .map_err(in_file("trust.anchors", &trust.anchors))?,
                revocations: revocations(
                    "trust.revocations",
                    trust.revocations.as_deref(),
                    &mut lists,
                )?,
            });
        }
        Ok(Files {
            chain,
            key,
            sets,
            lists,
        })
    }
}

pub(super) fn in_file(key: &'static str, file: &Path) -> impl FnOnce(LoadProblem) -> LoadError {
    let file = file.to_owned();
    move |problem| LoadError {
        key,
        file,
        problem: Box::new(problem),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, LoadProblem> {
    let (bytes, mode) = read(file)?;
    let allowed = if is_credential(file) { 0o740 } else { 0o700 };
    if mode & 0o777 & !allowed != 0 {
        return Err(LoadProblem::Exposed(mode & 0o777));
    }
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key @ PrivateKeyDer::Pkcs8(_)) => Ok(key),
        Ok(_) => Err(LoadProblem::NotPkcs8),
        Err(pem::Error::NoItemsFound) => Err(LoadProblem::Nothing("private key")),
        Err(error) => Err(LoadProblem::Pem(error)),
    }
}

/// Credentials that systemd passes lie in a folder that only the service can enter; where it grants them by an access list, the
/// list's mask shows as a permission of the group.
fn is_credential(file: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| !directory.is_empty() && file.starts_with(directory))
}

pub(super) fn anchors(
    file: &Path,
) -> Result<Vec<rustls_pki_types::TrustAnchor<'static>>, LoadProblem> {
    let certificates: Vec<CertificateDer<'static>> = sections(file, "certificate")?;
    let mut anchors = Vec::with_capacity(certificates.len());
    for der in certificates {
        if !Certificate::parse(&der)
            .map_err(LoadProblem::Certificate)?
            .is_authority
        {
            return Err(LoadProblem::NotAnAuthority);
        }
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| LoadProblem::Certificate(Refused::Malformed(error.to_string())))?;
        anchors.push(anchor.to_owned());
    }
    Ok(anchors)
}

fn revocations(
    key: &'static str,
    file: Option<&Path>,
    lists: &mut Vec<List>,
) -> Result<Vec<CertRevocationList<'static>>, LoadError> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let ders: Vec<CertificateRevocationListDer<'static>> =
        sections(file, "revocation list").map_err(in_file(key, file))?;
    let mut revocations = Vec::with_capacity(ders.len());
    for der in ders {
        let (list, facts) = revocation_list(file, &der).map_err(in_file(key, file))?;
        revocations.push(list);
        lists.push(facts);
    }
    Ok(revocations)
}

fn revocation_list(
    file: &Path,
    der: &[u8],
) -> Result<(CertRevocationList<'static>, List), LoadProblem> {
    let bad = |error: &dyn std::fmt::Display| LoadProblem::BadList(error.to_string());
    let list = webpki::OwnedCertRevocationList::from_der(der).map_err(|error| bad(&error))?;
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|error| bad(&error))?;
    let facts = List {
        file: file.to_owned(),
        issuer: parsed.tbs_cert_list.issuer.as_raw().to_vec(),
        this_update: system_time(parsed.last_update()),
        next_update: parsed.next_update().map(system_time),
    };
    Ok((list.into(), facts))
}

/// All PEM sections of one kind; at least one.
fn sections<T: PemObject>(file: &Path, what: &'static str) -> Result<Vec<T>, LoadProblem> {
    let (bytes, _) = read(file)?;
    let found: Vec<T> = T::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(LoadProblem::Pem)?;
    if found.is_empty() {
        Err(LoadProblem::Nothing(what))
    } else {
        Ok(found)
    }
}

/// Contents and mode, of the same open file.
fn read(file: &Path) -> Result<(Vec<u8>, u32), LoadProblem> {
    // A pipe in its place must not hold us up.
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, rustix::fs::Mode::empty())
        .map_err(|e| LoadProblem::Read(e.into()))?;
    let opened = File::from(opened);
    let metadata = opened.metadata().map_err(LoadProblem::Read)?;
    if !metadata.is_file() {
        return Err(LoadProblem::NotRegular);
    }
    let mut bytes = Vec::new();
    opened
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(LoadProblem::Read)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadProblem::TooLarge);
    }
    Ok((bytes, metadata.permissions().mode()))
}

/// By what a changed file is known: enough to see a file replaced, appended to or rewritten in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<[i128; 6]>>);

impl Stamps {
    /// Looks at every file of the configuration. A few `stat` calls: microseconds.
    pub(super) fn of(config: &IdentityConfig) -> Stamps {
        let own = [
            &config.certificate,
            &config.private_key,
            &config.trust_anchors,
        ]
        .into_iter()
        .chain(&config.revocations);
        let scoped = config
            .trust
            .iter()
            .flat_map(|trust| std::iter::once(&trust.anchors).chain(&trust.revocations));
        Stamps(own.chain(scoped).map(|file| stamp(file)).collect())
    }
}

fn stamp(file: &Path) -> Option<[i128; 6]> {
    let metadata = std::fs::metadata(file).ok()?;
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Some([
        metadata.dev().into(),
        metadata.ino().into(),
        metadata.size().into(),
        metadata.mode().into(),
        nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    ])
}
