//! watchline-forwarder
#![allow(dead_code, missing_docs)]
mod batch;
mod board;
mod clock;
pub mod config;
mod gaps;
mod hints;
mod inbox;
mod lanes;
mod metrics;
mod pipeline;
mod sealer;
mod sources;
mod watcher;
