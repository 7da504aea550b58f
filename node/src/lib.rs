//! What both programs need to be on the line: configuration reading, identity, uplink, lifecycle, health. A closed list:
//! what one program alone uses lives with that program.

pub mod config;
pub mod health;
pub mod identity;
pub mod lifecycle;
pub mod uplink;
