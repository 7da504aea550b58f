//! The closed sets of words for what is refused: in status messages, logs and metric labels.

use std::fmt;

use crate::wire::RejectReason;

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
