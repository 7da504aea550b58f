//! RFC 5425: who may send over TLS, and with which certificate we answer.
//!
//! TLS 1.3 only, both sides verified, no resumption (it would pass by a changed set of anchors). The certificate is a set of its own, not
//! the forwarder's identity on the line: senders such as rsyslog expect a host name in it. The files are read when a connection comes
//! and they have changed since; a set that cannot be used leaves the last good one in force, and that is said.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, crypto::aws_lc_rs, server::NoServerSessionStorage,
    server::WebPkiClientVerifier, version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// No certificate file is larger.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// `certificate`, `private_key`, `client_anchors` and `client_names` of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Chain, leaf first.
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
    /// Who vouches for senders.
    pub(crate) client_anchors: PathBuf,
    /// Names that a sender's certificate has to have one of: DNS name, IP address or URI, or the subject's common name. Empty: any.
    pub(crate) client_names: Vec<String>,
}

/// Why a set of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: is not a regular file of at most {MAX_FILE_BYTES} bytes", path.display())]
    NotRegular { path: PathBuf },
    #[error("{}: is readable by group or others (mode {mode:04o}): run chmod 600", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{}: {source}", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{}: holds no usable anchor", path.display())]
    NoAnchor { path: PathBuf },
    #[error("cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot be used for TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Which state of a file was read.
type Stamp = Option<[i64; 6]>;

/// The set in force.
pub(super) struct Tls {
    files: TlsFiles,
    stamps: [Stamp; 3],
    in_force: Option<Arc<ServerConfig>>,
    trouble: Option<String>,
}

impl Tls {
    pub(super) fn new(files: TlsFiles) -> Tls {
        Tls {
            files,
            stamps: [None; 3],
            in_force: None,
            trouble: None,
        }
    }

    /// Reads the files if they have changed; `false`: they have not. A set that cannot be used leaves what is in force as it is.
    pub(super) fn refresh(&mut self) -> bool {
        let TlsFiles {
            certificate,
            private_key,
            client_anchors,
            ..
        } = &self.files;
        let stamps = [certificate, private_key, client_anchors].map(|path| stamp(path));
        if stamps == self.stamps && stamps.iter().all(Option::is_some) {
            return false;
        }
        self.stamps = stamps;
        match server_config(&self.files) {
            Ok(config) => (self.in_force, self.trouble) = (Some(Arc::new(config)), None),
            Err(error) => self.trouble = Some(error.to_string()),
        }
        true
    }

    /// What is wrong with the files as they were read last.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// `None`: there was no good set yet.
    pub(super) fn in_force(&self) -> Option<Arc<ServerConfig>> {
        self.in_force.clone()
    }

    /// Whether a sender with this certificate, which the anchors vouch for, may send; its subject, as RFC 4514 writes it.
    pub(super) fn admit(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let allowed = &self.files.client_names;
        let is_allowed =
            allowed.is_empty() || names(&parsed).iter().any(|name| allowed.contains(name));
        is_allowed.then(|| parsed.subject().to_string())
    }
}

/// Every name in a certificate by which a sender may be allowed.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names: Vec<String> = (certificate.subject().iter_common_name())
        .filter_map(|name| name.as_str().ok().map(str::to_owned))
        .collect();
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for name in alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
                names.extend(v4.or(v6).ok().map(|address| address.to_string()));
            }
            _ => {}
        }
    }
    names
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let pem_of = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let (bytes, metadata) = read(&files.private_key)?;
    let mode = metadata.permissions().mode() & 0o777;
    // What systemd puts there is shown to the service's user alone, by an access list that the group's bits stand for.
    let allowed = if is_credential(&files.private_key) {
        0o740
    } else {
        0o700
    };
    if mode & !allowed != 0 {
        let path = files.private_key.clone();
        return Err(TlsError::Exposed { path, mode });
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(pem_of(&files.private_key))?;
    let (bytes, _) = read(&files.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(pem_of(&files.certificate))?;
    let (bytes, _) = read(&files.client_anchors)?;
    let anchors = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(anchors.map_err(pem_of(&files.client_anchors))?);
    if added == 0 {
        let path = files.client_anchors.clone();
        return Err(TlsError::NoAnchor { path });
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| !directory.is_empty() && path.starts_with(directory))
}

fn read(path: &Path) -> Result<(Vec<u8>, Metadata), TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    // Without waiting for the other end of a FIFO.
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    let file = File::from(file.map_err(|error| failed(error.into()))?);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        let path = path.to_owned();
        return Err(TlsError::NotRegular { path });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok((bytes, metadata))
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    let bits = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
    Some([
        bits(metadata.ino()),
        bits(metadata.size()),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ])
}
