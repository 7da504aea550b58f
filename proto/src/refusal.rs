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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_that_is_sent_has_a_word_of_its_own() {
        let words: BTreeSet<_> = RejectReason::ALL.map(RejectReason::word).into();
        assert_eq!(words.len(), RejectReason::ALL.len());
        assert!(!words.contains(RejectReason::Unspecified.word()));
        // One more in the contract must be added to `ALL`.
        assert!(RejectReason::try_from(RejectReason::ALL.len() as i32 + 1).is_err());
    }
}
