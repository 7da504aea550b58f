//! Signatures over what a sealer says: ECDSA P-256 with SHA-256 (ASN.1) or Ed25519.
//!
//! What is signed is never the bytes alone:
//!
//! ```text
//! "watchline/v1/<kind>" 00 <trust domain> 00 <algorithm, 1 byte> <bytes>
//! ```
//!
//! so that bytes of one kind never pass for another's, a name of one trust domain never for the same name of another, and a
//! signature never for one of another algorithm. Neither of the first two parts can hold a zero byte.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, ParsedPublicKey,
    },
};

use crate::{name::TrustDomain, wire::SignatureAlgorithm};

/// What is signed: keeps one kind of signed bytes from passing for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedKind {
    /// An encoded seal.
    Seal,
    /// An encoded statement.
    Statement,
}

/// A private key. Cheap to clone; `Debug` shows the algorithm only.
#[derive(Clone)]
pub struct SigningKey(Arc<KeyPairs>);

enum KeyPairs {
    EcdsaP256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A public key as found in a certificate. Cheap to clone.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: SignatureAlgorithm,
    key: Arc<ParsedPublicKey>,
}

/// Why a key or a signature is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key is of another kind, or not a valid key. Configuration cures it.
    #[error("key is neither ECDSA P-256 nor Ed25519")]
    UnsupportedKey,
    /// The bytes, the kind, the trust domain or the key are not those that were signed.
    #[error("signature does not verify")]
    Mismatch,
    /// The library could not sign. Not seen in practice; nothing was sent, the batch can be signed again.
    #[error("signing failed")]
    Signing,
}

impl SigningKey {
    /// From PKCS#8 v1 or v2, DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignatureError> {
        // Each refuses the other's: the algorithm stands in the DER.
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Ok(Self(Arc::new(KeyPairs::EcdsaP256(pair))));
        }
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(|pair| Self(Arc::new(KeyPairs::Ed25519(pair))))
            .map_err(|_| SignatureError::UnsupportedKey)
    }

    /// What its signatures are made with.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        match *self.0 {
            KeyPairs::EcdsaP256(_) => SignatureAlgorithm::EcdsaP256Sha256,
            KeyPairs::Ed25519(_) => SignatureAlgorithm::Ed25519,
        }
    }

    /// Signs `bytes` as `kind`. About 20 µs.
    pub fn sign(
        &self,
        kind: SignedKind,
        trust_domain: &TrustDomain,
        bytes: &[u8],
    ) -> Result<Vec<u8>, SignatureError> {
        let message = signed_bytes(kind, trust_domain, self.algorithm(), bytes);
        let signature = match &*self.0 {
            KeyPairs::EcdsaP256(pair) => pair.sign(&SystemRandom::new(), &message),
            KeyPairs::Ed25519(pair) => pair.try_sign(&message),
        };
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SignatureError::Signing)
    }

    /// The public half.
    pub fn verifying_key(&self) -> Result<VerifyingKey, SignatureError> {
        match &*self.0 {
            KeyPairs::EcdsaP256(pair) => VerifyingKey::parse(
                SignatureAlgorithm::EcdsaP256Sha256,
                pair.public_key().as_ref(),
            ),
            KeyPairs::Ed25519(pair) => {
                VerifyingKey::parse(SignatureAlgorithm::Ed25519, pair.public_key().as_ref())
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.algorithm())
            .finish()
    }
}

/// DER of a SubjectPublicKeyInfo up to the key itself: SEQUENCE { AlgorithmIdentifier { ecPublicKey, prime256v1 }, BIT STRING }
/// of an uncompressed point, the only form that X.509 certificates of ours and of common tools have.
const SPKI_ECDSA_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same for id-Ed25519.
const SPKI_ED25519: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl VerifyingKey {
    /// From a certificate's SubjectPublicKeyInfo, DER. DER has one form for each key, so the head of it tells the kind.
    pub fn from_spki(der: &[u8]) -> Result<Self, SignatureError> {
        if let Some(point) = der.strip_prefix(&SPKI_ECDSA_P256) {
            Self::parse(SignatureAlgorithm::EcdsaP256Sha256, point)
        } else if let Some(key) = der.strip_prefix(&SPKI_ED25519) {
            Self::parse(SignatureAlgorithm::Ed25519, key)
        } else {
            Err(SignatureError::UnsupportedKey)
        }
    }

    fn parse(algorithm: SignatureAlgorithm, key: &[u8]) -> Result<Self, SignatureError> {
        let (parsed, bytes) = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => {
                (ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key), 65)
            }
            SignatureAlgorithm::Ed25519 => (ParsedPublicKey::new(&ED25519, key), 32),
            SignatureAlgorithm::Unspecified => return Err(SignatureError::UnsupportedKey),
        };
        match parsed {
            Ok(parsed) if key.len() == bytes => Ok(Self {
                algorithm,
                key: Arc::new(parsed),
            }),
            _ => Err(SignatureError::UnsupportedKey),
        }
    }

    /// What it verifies. A signature that says it is of another algorithm is not this key's.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Whether `signature` was made over `bytes` as `kind` by the private half. About 70 µs.
    pub fn verify(
        &self,
        kind: SignedKind,
        trust_domain: &TrustDomain,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let message = signed_bytes(kind, trust_domain, self.algorithm, bytes);
        self.key
            .verify_sig(&message, signature)
            .map_err(|_| SignatureError::Mismatch)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey")
            .field(&self.algorithm)
            .finish()
    }
}

fn signed_bytes(
    kind: SignedKind,
    trust_domain: &TrustDomain,
    algorithm: SignatureAlgorithm,
    bytes: &[u8],
) -> Vec<u8> {
    let domain: &[u8] = match kind {
        SignedKind::Seal => b"watchline/v1/seal",
        SignedKind::Statement => b"watchline/v1/statement",
    };
    // The enum has three values: it fits a byte.
    let algorithm = [algorithm as u8];
    [
        domain,
        &[0],
        trust_domain.as_ref().as_bytes(),
        &[0],
        &algorithm,
        bytes,
    ]
    .concat()
}
