//! Signatures over what a sealer says: ECDSA P-256 with SHA-256 (ASN.1) or Ed25519.
//! Signed bytes: `watchline/v1/<kind>` NUL trust-domain NUL algorithm-number(1 byte) then the bytes.

use crate::{name::TrustDomain, wire::SignatureAlgorithm};

/// What is signed: keeps one kind of signed bytes from passing for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedKind {
    Seal,
    Statement,
}

/// A private key. Debug shows the algorithm only.
pub struct SigningKey(/* private */ ());
/// A public key as found in a certificate.
#[derive(Clone)]
pub struct VerifyingKey(/* private */ ());

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("key is neither ECDSA P-256 nor Ed25519")]
    UnsupportedKey,
    #[error("signature does not verify")]
    Mismatch,
}

impl SigningKey {
    /// PKCS#8 v1/v2 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignatureError> {
        todo!()
    }
    pub fn algorithm(&self) -> SignatureAlgorithm {
        todo!()
    }
    pub fn sign(&self, kind: SignedKind, trust_domain: &TrustDomain, bytes: &[u8]) -> Vec<u8> {
        todo!()
    }
    pub fn verifying_key(&self) -> VerifyingKey {
        todo!()
    }
}
impl VerifyingKey {
    /// From a certificate's SubjectPublicKeyInfo, DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, SignatureError> {
        todo!()
    }
    pub fn algorithm(&self) -> SignatureAlgorithm {
        todo!()
    }
    pub fn verify(
        &self,
        kind: SignedKind,
        trust_domain: &TrustDomain,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        todo!()
    }
}
