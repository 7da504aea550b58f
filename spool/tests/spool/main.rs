//! The promises of the spool, each a test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by them, in its helpers too"
)]

mod basics;
mod damage;
mod directory;
mod faults;
mod full;
mod harness;
mod inspect;
mod model;
mod power_cut;
mod readers;
mod real_disk;
mod samples;
