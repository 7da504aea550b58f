//! The forwarder: reads security events on a host, seals them, keeps them until the next hop has them on disk.
//!
//! ```text
//! sources ──▶ lanes ──▶ batch ──▶ sealer ──▶ spool ──▶ uplink ══▶ next hop
//!    ▲                                         │          │
//!    └────────────── positions ◀───────────────┘ ◀─ acks ─┘
//! ```
//!
//! **Promise.** Each record of each source is in exactly one sealed batch, byte for byte, whatever happens to the files and whenever the
//! process dies; what cannot be (bytes that were gone before anyone could read them) is a gap event. The positions of
//! the sources move in the very frame that holds the events.
//!
//! **Threads.** `reader` reads, seals and owns the spool's disk; the runtime's thread has the uplink, health and signals; `hints` keeps
//! the kernel's notifications, which only make a look come sooner.
//!
//! **Formats.** Positions in the spool's state: `sources/file/position.rs`. Everything else that is stored or sent is `watchline-proto`'s.
//!
//! **Limits.** Memory is bounded by configuration: two batches, one block, a few hundred bytes a file (up to 1 KiB more while it is
//! shorter than that), whatever the backlog and the length of lines.
//!
//! **Not for** parsing: an event is its original bytes. What is looked at here is only what the lanes need.

mod batch;
mod board;
mod clock;
pub mod commands;
mod conditions;
pub mod config;
mod gaps;
mod hints;
mod inbox;
mod lanes;
mod metrics;
mod patterns;
mod pipeline;
mod run;
mod sealer;
mod sources;
mod status;
mod watcher;

pub use run::{VERSION, run};
