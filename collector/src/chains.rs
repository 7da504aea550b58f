//! Certificate chains of signers: a write-once folder, one file a signer, named by the fingerprint of its leaf.
//!
//! A relay needs them long after the forwarder has gone, and so does whoever verifies an archive. A file is PEM, leaf first,
//! without the anchor, `<SHA-256 of the leaf in hex>.pem`, 0600; it is on disk (synced, the folder too) before the first
//! batch that needs it is appended. A file is trusted only as far as its name: the leaf is hashed again when it is read, and
//! what a chain is worth is for `Identity::verify_chain` to say.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use watchline_node::uplink::Chains;
use watchline_proto::{Hash, MAX_CHAIN_CERTIFICATES};

/// Its name within a buffer's directory.
pub const DIRECTORY: &str = "certificates";
/// One certificate, DER.
pub const MAX_CERTIFICATE_BYTES: usize = 16 << 10;
/// Chains kept in memory; about 1.5 KiB each.
const CACHED: usize = 1024;
/// A file larger than this is not one of ours.
const MAX_FILE_BYTES: u64 = (MAX_CHAIN_CERTIFICATES * MAX_CERTIFICATE_BYTES * 2) as u64;

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChainStore {
    directory: Arc<Path>,
    cache: Arc<Mutex<HashMap<Hash, Vec<Bytes>>>>,
}

/// Why a chain could not be kept. Batches that need it must not be stored.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No certificate, too many, or one too large: the sender's fault.
    #[error(
        "a chain has 1 to {MAX_CHAIN_CERTIFICATES} certificates of at most {MAX_CERTIFICATE_BYTES} bytes"
    )]
    Limit,
    /// The file system failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

impl ChainStore {
    /// Makes the folder (0700) if it is not there. Blocks on the disk.
    pub fn open(directory: PathBuf) -> Result<ChainStore, ChainError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(at("make directory", &directory))?;
        Ok(ChainStore {
            directory: directory.into(),
            cache: Arc::default(),
        })
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The chain of a signer, leaf first. Reads a small file the first time; `None` when it is not here or not readable as
    /// what its name says.
    pub fn get(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        if let Some(chain) = self.cached(signer) {
            return Some(chain);
        }
        let chain = read(&self.directory.join(file_name(signer))).ok()?;
        if Hash::of(chain.first()?) != *signer {
            return None;
        }
        self.remember(*signer, chain.clone());
        Some(chain)
    }

    /// Whether the chain is kept already, without reading it.
    pub fn has(&self, signer: &Hash) -> bool {
        self.cached(signer).is_some() || self.directory.join(file_name(signer)).exists()
    }

    /// Keeps a chain; its leaf's fingerprint. On disk, synced, when this returns. One that is here stays as it is. Blocks on
    /// the disk: from a runtime use [`ChainStore::keep`].
    pub fn put(&self, chain: &[Bytes]) -> Result<Hash, ChainError> {
        let leaf = chain.first().ok_or(ChainError::Limit)?;
        if chain.len() > MAX_CHAIN_CERTIFICATES
            || chain.iter().any(|der| der.len() > MAX_CERTIFICATE_BYTES)
        {
            return Err(ChainError::Limit);
        }
        let signer = Hash::of(leaf);
        // What is in memory has been read from disk or was put there.
        if self.cached(&signer).is_some() {
            return Ok(signer);
        }
        let path = self.directory.join(file_name(&signer));
        if !path.exists() {
            self.write(&path, chain)?;
        }
        // Also when somebody else was faster: their rename may not be synced yet.
        sync(&self.directory).map_err(at("sync", &self.directory))?;
        self.remember(signer, chain.to_vec());
        Ok(signer)
    }

    /// [`ChainStore::put`] on the blocking pool.
    pub async fn keep(&self, chain: Vec<Bytes>) -> Result<Hash, ChainError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || store.put(&chain)).await {
            Ok(kept) => kept,
            Err(error) => Err(at("write in", &self.directory)(io::Error::other(error))),
        }
    }

    fn write(&self, path: &Path, chain: &[Bytes]) -> Result<(), ChainError> {
        let half = path.with_extension(format!("{:016x}.new", rand_suffix()));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&half)?;
            file.write_all(pem(chain).as_bytes())?;
            file.sync_all()?;
            fs::rename(&half, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&half);
            at("write", path)(error)
        })
    }

    fn cached(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(signer)
            .cloned()
    }

    fn remember(&self, signer: Hash, chain: Vec<Bytes>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(signer, chain);
    }
}

impl Chains for ChainStore {
    fn chain(&self, signer: &Hash) -> Option<Vec<Bytes>> {
        self.get(signer)
    }
}

/// A chain as PEM text, leaf first.
pub fn pem(chain: &[Bytes]) -> String {
    let mut text = String::new();
    for der in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(der);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Name of a signer's file.
pub fn file_name(signer: &Hash) -> String {
    format!("{signer}.pem")
}

fn read(path: &Path) -> io::Result<Vec<Bytes>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut text)?;
    CertificateDer::pem_slice_iter(&text)
        .map(|der| {
            der.map(|der| Bytes::copy_from_slice(&der))
                .map_err(|e| io::Error::other(e.to_string()))
        })
        .collect()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn rand_suffix() -> u64 {
    let epoch = watchline_proto::Epoch::random().0;
    u64::from_be_bytes([
        epoch[0], epoch[1], epoch[2], epoch[3], epoch[4], epoch[5], epoch[6], epoch[7],
    ])
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChainError {
    let path = path.to_owned();
    move |source| ChainError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_outlives_the_process_that_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let chain = vec![Bytes::from(vec![7; 500]), Bytes::from_static(b"issuer")];
        let signer = ChainStore::open(dir.path().join("chains"))
            .unwrap()
            .put(&chain)
            .unwrap();
        let store = ChainStore::open(dir.path().join("chains")).unwrap();
        assert!(store.has(&signer));
        assert_eq!(store.get(&signer), Some(chain));
        assert_eq!(store.get(&Hash::of(b"somebody else")), None);
    }

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let store = ChainStore::open(dir.path().to_owned()).unwrap();
        let signer = store.put(&[Bytes::from_static(b"leaf")]).unwrap();
        fs::write(
            dir.path().join(file_name(&signer)),
            pem(&[Bytes::from_static(b"other")]),
        )
        .unwrap();
        assert_eq!(
            ChainStore::open(dir.path().to_owned())
                .unwrap()
                .get(&signer),
            None
        );
    }

    #[test]
    fn a_chain_beyond_the_limits_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = ChainStore::open(dir.path().to_owned()).unwrap();
        let certificate = Bytes::from_static(b"certificate");
        assert!(matches!(store.put(&[]), Err(ChainError::Limit)));
        assert!(matches!(
            store.put(&vec![certificate; MAX_CHAIN_CERTIFICATES + 1]),
            Err(ChainError::Limit)
        ));
        assert!(matches!(
            store.put(&[vec![0; MAX_CERTIFICATE_BYTES + 1].into()]),
            Err(ChainError::Limit)
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
