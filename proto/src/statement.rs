//! How far a sealer's chains reach, said and signed by itself: what makes a cut end visible.
//!
//! Travels as bytes, like a seal, so that a relay passes on exactly what was signed.

use bytes::Bytes;
use prost::Message;

use crate::{
    chain::{Epoch, Head, HeadError},
    hash::Hash,
    limits::MAX_STATEMENT_BYTES,
    name::{NameError, SpiffeId, TrustDomain},
    signature::{SignatureError, SignedKind, SigningKey, VerifyingKey},
    wire,
};

/// A statement as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it. Equals the signer's name.
    pub sealer: SpiffeId,
    /// The epoch it is about.
    pub epoch: Epoch,
    /// When it was said, by the sealer's clock.
    pub time_unix_nano: i64,
    /// How far each lane reaches, by [`Lane::index`](crate::Lane::index).
    pub heads: [Head; 2],
    /// A clean stop: no more will come in this epoch.
    pub closing: bool,
}

/// Why bytes are not a statement. It is dropped and counted; no batch depends on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Beyond [`MAX_STATEMENT_BYTES`]; nothing of it was looked at.
    #[error("statement has {0} bytes, the limit is {MAX_STATEMENT_BYTES}")]
    TooLarge(usize),
    /// Not the encoding of any statement.
    #[error("statement cannot be decoded")]
    Undecodable(#[source] prost::DecodeError),
    /// The sealer's name is not one of ours.
    #[error("sealer of the statement")]
    Sealer(#[source] NameError),
    /// The epoch is not 16 bytes.
    #[error("epoch of the statement is not 16 bytes")]
    Epoch,
    /// A head is missing or cannot be.
    #[error("head of the statement")]
    Head(#[source] HeadError),
}

impl Statement {
    /// The bytes that are signed.
    pub fn encode(&self) -> Bytes {
        let [alert, routine] = self.heads.map(|head| Some(head.into()));
        wire::Statement {
            sealer: self.sealer.to_string(),
            epoch: self.epoch.into(),
            time_unix_nano: self.time_unix_nano,
            alert,
            routine,
            closing: self.closing,
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a statement. Whether it is signed by whom it names is for the caller to check, with [`verify`].
    pub fn decode(bytes: &[u8]) -> Result<Statement, StatementError> {
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(StatementError::TooLarge(bytes.len()));
        }
        let statement = wire::Statement::decode(bytes).map_err(StatementError::Undecodable)?;
        let head = |head: Option<&wire::Head>| {
            head.ok_or(HeadError)
                .and_then(Head::try_from)
                .map_err(StatementError::Head)
        };
        Ok(Statement {
            sealer: statement.sealer.parse().map_err(StatementError::Sealer)?,
            epoch: Epoch::try_from(&statement.epoch[..]).map_err(|_| StatementError::Epoch)?,
            time_unix_nano: statement.time_unix_nano,
            heads: [
                head(statement.alert.as_ref())?,
                head(statement.routine.as_ref())?,
            ],
            closing: statement.closing,
        })
    }

    /// Signs with the key of the certificate whose fingerprint (SHA-256 of its DER) is `signer`.
    pub fn sign(
        &self,
        key: &SigningKey,
        signer: Hash,
    ) -> Result<wire::SignedStatement, SignatureError> {
        let statement = self.encode();
        let signature = key.sign(
            SignedKind::Statement,
            self.sealer.trust_domain(),
            &statement,
        )?;
        Ok(wire::SignedStatement {
            statement,
            signature: signature.into(),
            algorithm: key.algorithm() as i32,
            signer: signer.into(),
        })
    }
}

/// Whether `signed` was signed with `key`, the key of a certificate of `trust_domain`. That its
/// [`Statement::sealer`] is that certificate's name is for the caller to check.
pub fn verify(
    signed: &wire::SignedStatement,
    key: &VerifyingKey,
    trust_domain: &TrustDomain,
) -> Result<(), SignatureError> {
    if signed.algorithm != key.algorithm() as i32 {
        return Err(SignatureError::Mismatch);
    }
    key.verify(
        SignedKind::Statement,
        trust_domain,
        &signed.statement,
        &signed.signature,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{STATEMENT_V1, each_damage, statement};

    #[test]
    fn the_stored_sample_is_read_and_made_again_to_the_byte() {
        assert_eq!(Statement::decode(STATEMENT_V1), Ok(statement()));
        assert_eq!(statement().encode(), STATEMENT_V1);
    }

    fn key() -> SigningKey {
        let rng = aws_lc_rs::rand::SystemRandom::new();
        let der = aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        SigningKey::from_pkcs8(der.as_ref()).unwrap()
    }

    #[test]
    fn damage_of_a_statement_is_an_error_or_does_not_verify() {
        let key = key();
        let verifying = key.verifying_key().unwrap();
        let signed = statement().sign(&key, Hash::of(b"certificate")).unwrap();
        let here = statement().sealer.trust_domain().clone();
        each_damage(STATEMENT_V1, |damaged| {
            let statement = Bytes::copy_from_slice(damaged);
            let damaged = wire::SignedStatement {
                statement,
                ..signed.clone()
            };
            let _ = Statement::decode(&damaged.statement);
            assert_eq!(
                verify(&damaged, &verifying, &here),
                Err(SignatureError::Mismatch)
            );
        });
    }

    #[test]
    fn each_defect_is_told_from_the_others() {
        let refused = |alter: fn(&mut wire::Statement)| {
            let mut message = wire::Statement::decode(STATEMENT_V1).unwrap();
            alter(&mut message);
            Statement::decode(&message.encode_to_vec()).unwrap_err()
        };
        assert!(matches!(
            refused(|message| message.sealer.clear()),
            StatementError::Sealer(_)
        ));
        assert_eq!(
            refused(|message| message.epoch.clear()),
            StatementError::Epoch
        );
        assert_eq!(
            refused(|message| message.alert = None),
            StatementError::Head(HeadError)
        );
        assert_eq!(
            refused(|message| message.routine = Some(wire::Head::default())),
            StatementError::Head(HeadError)
        );
        assert!(matches!(
            Statement::decode(&[0xff]),
            Err(StatementError::Undecodable(_))
        ));
        assert_eq!(
            Statement::decode(&[0; MAX_STATEMENT_BYTES + 1]),
            Err(StatementError::TooLarge(MAX_STATEMENT_BYTES + 1))
        );
    }

    #[test]
    fn a_signed_statement_verifies_as_it_was_signed_only() {
        let key = key();
        let verifying = key.verifying_key().unwrap();
        let signer = Hash::of(b"certificate");
        let signed = statement().sign(&key, signer).unwrap();
        let here = statement().sealer.trust_domain().clone();
        assert_eq!(signed.signer, signer.as_ref());
        assert_eq!(verify(&signed, &verifying, &here), Ok(()));

        let elsewhere = "other".parse().unwrap();
        assert_eq!(
            verify(&signed, &verifying, &elsewhere),
            Err(SignatureError::Mismatch)
        );
        let open = Statement {
            closing: false,
            ..statement()
        }
        .encode();
        for altered in [
            wire::SignedStatement {
                statement: open,
                ..signed.clone()
            },
            wire::SignedStatement {
                algorithm: 1,
                ..signed.clone()
            },
            wire::SignedStatement {
                signature: Bytes::new(),
                ..signed.clone()
            },
        ] {
            assert_eq!(
                verify(&altered, &verifying, &here),
                Err(SignatureError::Mismatch)
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_statement_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Statement::decode(&bytes);
        }
    }
}
