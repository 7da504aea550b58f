//! Where a collector delivers: each output reads the buffer with a mark of its own, on a thread of its own, so that a dead one
//! holds up no other.
//!
//! `file` writes the records or NDJSON lines of opened batches, `archive` the sealed batches with their certificates as they came;
//! both are exact (`follow`): whatever is killed whenever, each batch is in the files once. `upstream` passes sealed bytes on.

pub mod archive;
pub mod config;
pub mod feed;
pub mod file;
pub(crate) mod follow;
pub mod metrics;
#[cfg(test)]
pub(crate) mod testing;
pub mod upstream;

pub use archive::ArchiveOutput;
pub use config::{OutputConfig, OutputKind};
pub use feed::{Feed, Items, MarkError, Marks, Signal};
pub use file::FileOutput;
pub use metrics::{OutputMetrics, OutputsMetrics};
