//! Who is there, who is silent, what is missing; and the events that say so.

mod gaps;
mod own;
mod silence;

pub use gaps::GapMetrics;
pub(crate) use own::peer_attributes;
pub use own::{OwnEventQueue, OwnEvents, OwnSealer};
pub use silence::{Silence, watch_silence};
