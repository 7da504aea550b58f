//! What two ends of the line must agree on, to the byte.
//!
//! Pure: no I/O, no clock, no policy. [`wire`] has the messages as they travel, [`name`] who is who, [`seal`] the header of a
//! batch with its hash, chain and signature, [`payload`] the columns that the events of a batch travel in, [`limits`] what
//! is checked before memory is taken.

pub mod limits;
pub mod name;
pub mod payload;
pub mod seal;
pub mod signature;

/// The messages of `proto/watchline/v1/uplink.proto`, generated.
#[allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    unused_qualifications,
    unreachable_pub
)]
pub mod wire {
    tonic::include_proto!("watchline.v1");
}

pub use limits::*;
pub use name::{Agency, PeerName, Role, SpiffeId, TrustDomain};
pub use seal::{ClockState, Epoch, Hash, Head, Lane, PreviousEpoch, Seal, SealError, Void};
