//! The promises of the spool, each a test.

mod basics;
mod damage;
mod directory;
mod faults;
mod full;
mod harness;
mod model;
mod power_cut;
mod readers;
mod real_disk;
mod samples;
