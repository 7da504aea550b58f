//! Signatures over what a sealer says: ECDSA P-256 with SHA-256 (ASN.1) or Ed25519.
//!
//! What is signed is never the bytes alone:
//!
//! ```text
//! "watchline/v1/<kind>" 00 <trust domain> 00 <algorithm, 1 byte> <bytes>
//! ```
//!
//! so that bytes of one kind never pass for another's, a name of one trust domain never for the same name of
//! another, and a signature never for one of another algorithm. Neither of the first two parts can hold a zero
//! byte.

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

/// DER of a SubjectPublicKeyInfo up to the key itself: SEQUENCE { AlgorithmIdentifier { ecPublicKey, prime256v1 },
/// BIT STRING } of an uncompressed point, the only form that X.509 certificates of ours and of common tools have.
const SPKI_ECDSA_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same for id-Ed25519.
const SPKI_ED25519: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl VerifyingKey {
    /// From a certificate's SubjectPublicKeyInfo, DER. DER has one form for each key, so the head of it tells the
    /// kind.
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::{encoding::AsDer, rsa::KeySize, signature::ECDSA_P384_SHA384_ASN1_SIGNING};

    use super::*;

    fn keys() -> [SigningKey; 2] {
        let rng = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        [p256.as_ref(), ed25519.as_ref()].map(|der| SigningKey::from_pkcs8(der).unwrap())
    }

    fn domain(text: &str) -> TrustDomain {
        text.parse().unwrap()
    }

    #[test]
    fn a_signature_verifies_with_the_key_that_made_it_and_no_other() {
        let (here, bytes) = (domain("watch.example"), b"seal");
        let [p256, ed25519] = keys();
        for (key, other) in [
            (&p256, &keys()[0]),
            (&ed25519, &keys()[1]),
            (&p256, &ed25519),
        ] {
            let signature = key.sign(SignedKind::Seal, &here, bytes).unwrap();
            assert!(signature.len() <= crate::MAX_SIGNATURE_BYTES);
            let verify = |key: &SigningKey| {
                key.verifying_key()
                    .unwrap()
                    .verify(SignedKind::Seal, &here, bytes, &signature)
            };
            assert_eq!(verify(key), Ok(()));
            assert_eq!(verify(other), Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn a_signature_is_good_for_its_kind_its_trust_domain_and_its_bytes_only() {
        let here = domain("watch.example");
        for key in keys() {
            let signature = key.sign(SignedKind::Seal, &here, b"seal").unwrap();
            let verify = |kind, domain: &TrustDomain, bytes: &[u8], signature: &[u8]| {
                key.verifying_key()
                    .unwrap()
                    .verify(kind, domain, bytes, signature)
            };
            let mismatch = Err(SignatureError::Mismatch);
            assert_eq!(
                verify(SignedKind::Statement, &here, b"seal", &signature),
                mismatch
            );
            assert_eq!(
                verify(SignedKind::Seal, &domain("other"), b"seal", &signature),
                mismatch
            );
            assert_eq!(
                verify(SignedKind::Seal, &here, b"seal.", &signature),
                mismatch
            );
            assert_eq!(verify(SignedKind::Seal, &here, b"seal", &[]), mismatch);
            for at in 0..signature.len() {
                let mut damaged = signature.clone();
                damaged[at] ^= 1;
                assert_eq!(verify(SignedKind::Seal, &here, b"seal", &damaged), mismatch);
            }
        }
    }

    #[test]
    fn no_two_kinds_domains_algorithms_or_bytes_share_their_signed_bytes() {
        use SignatureAlgorithm::{EcdsaP256Sha256, Ed25519};
        let mut all = Vec::new();
        for kind in [SignedKind::Seal, SignedKind::Statement] {
            for trust_domain in ["a", "ab"] {
                for algorithm in [EcdsaP256Sha256, Ed25519] {
                    for bytes in [&b""[..], b"b", b"\0b", b"\0\x01b"] {
                        all.push(signed_bytes(kind, &domain(trust_domain), algorithm, bytes));
                    }
                }
            }
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(
            signed_bytes(SignedKind::Seal, &domain("d"), Ed25519, b"x"),
            b"watchline/v1/seal\0d\0\x02x"
        );
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let rng = SystemRandom::new();
        let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &rng).unwrap();
        let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa = rsa.as_der().unwrap();
        for der in [p384.as_ref(), rsa.as_ref(), b"", b"not DER"] {
            assert_eq!(
                SigningKey::from_pkcs8(der).unwrap_err(),
                SignatureError::UnsupportedKey
            );
        }
    }

    #[test]
    fn the_public_key_of_a_certificate_is_the_one_that_verifies() {
        for key in keys() {
            let spki = match &*key.0 {
                KeyPairs::EcdsaP256(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
                KeyPairs::Ed25519(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            };
            let verifying = VerifyingKey::from_spki(&spki).unwrap();
            assert_eq!(verifying.algorithm(), key.algorithm());
            let signature = key.sign(SignedKind::Statement, &domain("d"), b"x").unwrap();
            verifying
                .verify(SignedKind::Statement, &domain("d"), b"x", &signature)
                .unwrap();

            let mut longer = spki.clone();
            longer.push(0);
            for wrong in [&spki[..spki.len() - 1], &longer, &spki[1..], &[]] {
                assert_eq!(
                    VerifyingKey::from_spki(wrong).unwrap_err(),
                    SignatureError::UnsupportedKey
                );
            }
        }
        let off_curve = [&SPKI_ECDSA_P256[..], &[4; 65]].concat();
        assert_eq!(
            VerifyingKey::from_spki(&off_curve).unwrap_err(),
            SignatureError::UnsupportedKey
        );
    }

    #[test]
    fn debug_output_shows_nothing_of_a_key() {
        let [p256, _] = keys();
        assert_eq!(format!("{p256:?}"), "SigningKey(EcdsaP256Sha256)");
        assert_eq!(
            format!("{:?}", p256.verifying_key().unwrap()),
            "VerifyingKey(EcdsaP256Sha256)"
        );
    }
}
