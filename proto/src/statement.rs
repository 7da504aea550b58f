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

/// Whether `signed` was signed with `key`, the key of a certificate of `trust_domain`. That its [`Statement::sealer`] is that certificate's name
/// is for the caller to check.
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
