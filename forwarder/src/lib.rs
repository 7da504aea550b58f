//! watchline-forwarder
