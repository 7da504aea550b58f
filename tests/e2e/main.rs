//! The whole line, end to end, with the real programs. Each test has a lab of its own; each name is a promise.

mod alerts;
mod commands;
mod configuration;
mod delivery;
mod dial;
mod failover;
mod health;
mod identity;
mod kills;
mod kinds;
mod outputs;
mod pki;
mod rotation;
mod tailing;
mod verify;
