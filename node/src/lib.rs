//! What both programs need to be on the line: configuration reading, identity, uplink, lifecycle, health.
//! (interface draft)
pub mod config;
pub mod health;
pub mod identity;
pub mod lifecycle;
pub mod uplink;
