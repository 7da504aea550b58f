//! The collector: takes sealed batches from forwarders and other collectors, stores them, acknowledges, and delivers them.
//!
//! ```text
//! ingest ──▶ verify ──▶ buffer (append_if_new, ledger) ──▶ outputs (each its own mark)
//!                 │
//!                 └──▶ watch: silence, gaps, forks ──▶ its own sealed events in the alert lane
//! ```
//!
//! **Promise.** What is acknowledged is on this collector's disk, synced, once. What is delivered was sealed by whom it says, and has
//! not been changed. Nothing is lost in silence: what cannot be delivered becomes an event.
//!
//! **Threads.** One runtime thread for the network; one that owns the buffer's disk; one for each output that writes to our own disk.
//!
//! **Not for** reading what is in a batch: only a `file` output, the last hop, opens it.

pub mod buffer;
pub mod chains;
pub mod commands;
pub mod config;
pub mod ingest;
pub mod ledger;
pub mod outputs;
pub mod pki;
pub mod run;
pub mod status;
pub mod verify;
pub mod watch;
pub mod worker;

pub use run::run;
