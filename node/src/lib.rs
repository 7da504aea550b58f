//! What both programs need to be on the line: configuration reading, identity, uplink, lifecycle, health.
//! (interface draft)
pub mod config; pub mod identity; pub mod uplink; pub mod lifecycle; pub mod health;
