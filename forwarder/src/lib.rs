//! watchline-forwarder
#![allow(dead_code, missing_docs)]
mod batch;
mod gaps;
mod hints;
mod lanes;
mod sources;
