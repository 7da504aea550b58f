//! The whole line, end to end, with the real programs. Each test has a lab of its own; each name is a promise.

mod delivery;
mod kills;
mod rotation;
