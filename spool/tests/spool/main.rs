//! The promises of the spool, each a test.

mod basics;
mod harness;
