//! The collector: takes sealed batches from forwarders and other collectors, stores them, acknowledges, and delivers them.
//!
//! ```text
//! ingest ──▶ verify ──▶ buffer (append_if_new, ledger) ──▶ outputs (each its own mark)
//!                 │
//!                 └──▶ watch: silence, gaps, forks ──▶ its own sealed events in the alert lane
//! ```

pub mod buffer;
pub mod chains;
pub mod commands;
pub mod config;
pub mod ingest;
pub mod ledger;
pub mod outputs;
pub mod pki;
pub mod status;
pub mod verify;
pub mod watch;
pub mod worker;
