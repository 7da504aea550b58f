//! The id of one run of a sealer.

use std::{fmt, str::FromStr};

use bytes::Bytes;

use crate::hash::fmt_hex;

/// One run of a sealer: 16 random bytes, shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub [u8; 16]);

/// The text is not 32 hex digits, or the bytes are not 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 16 bytes, shown as 32 lower-case hex digits")]
pub struct EpochError;

impl Epoch {
    /// A new one. Random enough that two runs never share it.
    pub fn random() -> Epoch {
        let mut id = [0; 16];
        // Fails only where the system has no randomness at all, and then TLS does not work either: the same end as
        // rustls makes.
        aws_lc_rs::rand::fill(&mut id).expect("the system's random generator works");
        Epoch(id)
    }
}

impl TryFrom<&[u8]> for Epoch {
    type Error = EpochError;

    fn try_from(bytes: &[u8]) -> Result<Self, EpochError> {
        bytes.try_into().map(Epoch).map_err(|_| EpochError)
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(EpochError);
        }
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| EpochError)?;
        Ok(Epoch(id))
    }
}

impl From<Epoch> for Bytes {
    fn from(epoch: Epoch) -> Bytes {
        Bytes::copy_from_slice(&epoch.0)
    }
}

impl AsRef<[u8]> for Epoch {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_as_it_is_shown() {
        let epoch = Epoch::random();
        assert_eq!(epoch.to_string().len(), 32);
        assert_eq!(epoch.to_string().parse(), Ok(epoch));
        assert_eq!(Epoch::try_from(epoch.as_ref()), Ok(epoch));
        assert_ne!(epoch, Epoch::random());
    }

    #[test]
    fn other_texts_are_no_epochs() {
        for text in [
            "",
            "9f",
            &"g".repeat(32),
            &"A".repeat(32),
            &"a".repeat(33),
            &"a".repeat(34),
        ] {
            assert_eq!(text.parse::<Epoch>(), Err(EpochError), "{text:?}");
        }
        assert_eq!(Epoch::try_from(&[0; 15][..]), Err(EpochError));
    }
}
