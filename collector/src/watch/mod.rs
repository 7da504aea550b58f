//! Who is there, who is silent, what is missing; and the events that say so.

mod own;
mod presence;
mod silence;

pub use own::{OwnEventQueue, OwnEvents, OwnSealer};
pub use presence::{Connected, Presence, Seen};
pub use silence::{Silence, watch_silence};
