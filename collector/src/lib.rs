//! watchline-collector
