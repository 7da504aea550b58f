//! The closed sets of words for what is refused: in status messages, logs and metric labels.

use std::fmt;

use tonic::{Code, Status};

use crate::wire::RejectReason;

/// Why a server does not serve a stream, or ends one. Nothing is set aside for it: the client parks, says why, and
/// tries again.
///
/// Travels as a gRPC status whose message begins with the word: `wrong_agency: spiffe://… is of another agency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// No certificate, or one that is not believed.
    Unauthenticated,
    /// The role may not do this here.
    WrongRole,
    /// Of another agency, or not among those whose batches this peer may bring.
    WrongAgency,
    /// A version of protocol or seal that the server does not read.
    UnsupportedVersion,
    /// A payload format that the server does not read.
    UnsupportedFormat,
    /// The signer of a batch has sent no certificate, or one that does not chain to an anchor.
    UnknownSigner,
    /// The signer's certificate is expired, not valid yet or revoked.
    InvalidSigner,
    /// As many streams as the server serves.
    TooManyStreams,
    /// The buffer cannot take more, or cannot be written.
    NoRoom,
    /// A message that cannot be decoded.
    Malformed,
    /// A message that has no place here in the conversation.
    OutOfOrder,
    /// A message beyond a limit of the wire.
    BeyondLimit,
    /// The server is going away.
    Stopping,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 13] = [
        Refusal::Unauthenticated,
        Refusal::WrongRole,
        Refusal::WrongAgency,
        Refusal::UnsupportedVersion,
        Refusal::UnsupportedFormat,
        Refusal::UnknownSigner,
        Refusal::InvalidSigner,
        Refusal::TooManyStreams,
        Refusal::NoRoom,
        Refusal::Malformed,
        Refusal::OutOfOrder,
        Refusal::BeyondLimit,
        Refusal::Stopping,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::WrongRole => "wrong_role",
            Refusal::WrongAgency => "wrong_agency",
            Refusal::UnsupportedVersion => "unsupported_version",
            Refusal::UnsupportedFormat => "unsupported_format",
            Refusal::UnknownSigner => "unknown_signer",
            Refusal::InvalidSigner => "invalid_signer",
            Refusal::TooManyStreams => "too_many_streams",
            Refusal::NoRoom => "no_room",
            Refusal::Malformed => "malformed",
            Refusal::OutOfOrder => "out_of_order",
            Refusal::BeyondLimit => "beyond_limit",
            Refusal::Stopping => "stopping",
        }
    }

    /// The code of the status that it travels as.
    pub fn code(self) -> Code {
        match self {
            Refusal::Unauthenticated => Code::Unauthenticated,
            Refusal::WrongRole | Refusal::WrongAgency => Code::PermissionDenied,
            Refusal::UnsupportedVersion
            | Refusal::UnsupportedFormat
            | Refusal::UnknownSigner
            | Refusal::InvalidSigner => Code::FailedPrecondition,
            Refusal::TooManyStreams | Refusal::NoRoom => Code::ResourceExhausted,
            Refusal::Malformed | Refusal::OutOfOrder | Refusal::BeyondLimit => {
                Code::InvalidArgument
            }
            Refusal::Stopping => Code::Unavailable,
        }
    }

    /// The status that says it. `detail` is for people; no event contents.
    pub fn status(self, detail: impl fmt::Display) -> Status {
        Status::new(self.code(), format!("{self}: {detail}"))
    }

    /// What a status says, where it is one of ours that this program knows.
    pub fn of(status: &Status) -> Option<Refusal> {
        let word = status.message().split(':').next()?;
        let known = |refusal: &Refusal| refusal.word() == word && refusal.code() == status.code();
        Refusal::ALL.into_iter().find(known)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl RejectReason {
    /// All that are sent.
    pub const ALL: [RejectReason; 5] = [
        RejectReason::PayloadHash,
        RejectReason::Signature,
        RejectReason::Seal,
        RejectReason::Fork,
        RejectReason::TooLarge,
    ];

    /// The word for it. One that only newer programs know is `unspecified`.
    pub fn word(self) -> &'static str {
        match self {
            RejectReason::Unspecified => "unspecified",
            RejectReason::PayloadHash => "payload_hash",
            RejectReason::Signature => "signature",
            RejectReason::Seal => "seal",
            RejectReason::Fork => "fork",
            RejectReason::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_refusal_is_read_from_the_status_that_says_it() {
        for refusal in Refusal::ALL {
            assert_eq!(
                Refusal::of(&refusal.status("as agency: moh")),
                Some(refusal)
            );
        }
        let words: BTreeSet<_> = Refusal::ALL.map(Refusal::word).into();
        assert_eq!(words.len(), Refusal::ALL.len());
    }

    #[test]
    fn a_status_that_is_not_ours_says_no_refusal() {
        for status in [
            Status::new(Code::Unavailable, "no_room: another code"),
            Status::new(Code::ResourceExhausted, "no_room_left"),
            Status::new(Code::Unknown, ""),
        ] {
            assert_eq!(Refusal::of(&status), None);
        }
    }

    #[test]
    fn every_reason_that_is_sent_has_a_word_of_its_own() {
        let words: BTreeSet<_> = RejectReason::ALL.map(RejectReason::word).into();
        assert_eq!(words.len(), RejectReason::ALL.len());
        assert!(!words.contains(RejectReason::Unspecified.word()));
        // One more in the contract must be added to `ALL`.
        assert!(RejectReason::try_from(RejectReason::ALL.len() as i32 + 1).is_err());
    }
}
