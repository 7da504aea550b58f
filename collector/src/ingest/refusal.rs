//! Why a stream is refused or ended. None of these is a batch's own defect: the sender keeps everything, parks or waits, and
//! tries again.

use std::{fmt, time::Duration};

use tonic::{Status, metadata::MetadataValue};
use watchline_node::identity;
use watchline_proto::refusal::Refusal;

use crate::{buffer::BufferError, chains::ChainError};

/// A word of the closed set, and a line for people without event contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: Refusal,
    pub(super) detail: String,
}

impl Refused {
    pub(super) fn new(why: Refusal, detail: impl fmt::Display) -> Refused {
        Refused {
            why,
            detail: cut(&detail.to_string(), 256).to_owned(),
        }
    }

    /// The signer of a batch is not believed.
    pub(super) fn signer(refused: &identity::Refused) -> Refused {
        use identity::Refused as Why;
        let why = match refused {
            Why::Expired
            | Why::NotYetValid
            | Why::Revoked
            | Why::RevocationUnknown
            | Why::WrongUsage => Refusal::InvalidSigner,
            _ => Refusal::UnknownSigner,
        };
        Refused::new(why, format_args!("signer: {refused}"))
    }

    /// How long the client is asked to stay away.
    fn retry_after(&self) -> Option<Duration> {
        matches!(self.why, Refusal::NoRoom | Refusal::TooManyStreams)
            .then_some(Duration::from_secs(1))
    }
}

impl From<BufferError> for Refused {
    fn from(error: BufferError) -> Refused {
        let why = if error == BufferError::Closed {
            Refusal::Stopping
        } else {
            Refusal::NoRoom
        };
        Refused::new(why, error)
    }
}

impl From<ChainError> for Refused {
    fn from(error: ChainError) -> Refused {
        let why = if matches!(error, ChainError::Limit) {
            Refusal::BeyondLimit
        } else {
            Refusal::NoRoom
        };
        Refused::new(why, error)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        let mut status = refused.why.status(&refused.detail);
        if let Some(delay) = refused.retry_after() {
            let value = MetadataValue::from(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            status
                .metadata_mut()
                .insert("grpc-retry-pushback-ms", value);
        }
        status
    }
}

/// At most `max` bytes of a text, at a character boundary.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
