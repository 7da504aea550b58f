//! What two ends of the line must agree on, to the byte.
//!
//! Pure: no I/O, no clock, no policy. [`wire`] has the messages as they travel, [`name`] who is who, [`payload`]
//! the columns that the events of a batch travel in, [`seal`] the header of a batch, [`chain`] what links seals and
//! how far a chain reaches, [`signature`] and [`statement`] what a sealer signs, [`stored`] a batch as an item of a
//! spool, [`limits`] what is checked before memory is taken, [`refusal`] the words for what is refused, [`codec`]
//! how messages are read.
//!
//! Nothing here panics on bytes from outside: everything that decodes has a target in `tests/fuzz`.

pub mod chain;
pub mod codec;
pub mod hash;
pub mod lane;
pub mod limits;
pub mod name;
pub mod payload;
pub mod refusal;
#[cfg(test)]
mod samples;
mod scan;
pub mod seal;
pub mod signature;
pub mod statement;
pub mod stored;

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

pub use chain::{ChainHeld, EpochChain, HeldRange};
pub use limits::*;
pub use name::{Agency, PeerName, Role, SpiffeId, TrustDomain};
pub use refusal::Refusal;
pub use seal::{ClockState, Epoch, Hash, Head, Lane, PreviousEpoch, Seal, SealError, Void};
pub use statement::Statement;
