//! Health over plain HTTP: `/livez`, `/readyz`, `/readyz/ingest`, `/metrics`, `/status`.
//!
//! Each component sets its own named check in [`Checks`]; [`serve`] answers from them. Healthy means that data flows: a check that
//! nobody has set yet is failing ("starting"). Limits: 64 connections at once, 16 KiB a request head, 10 s to send one,
//! a minute a connection. There is no TLS and no authentication here: that is why `/status` answers only to
//! loopback and reasons are left out when listening beyond it.

mod ask;
mod checks;
mod command;
mod metrics;
mod server;
pub mod table;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use ask::ask;
pub use checks::{CheckState, Checks};
pub use command::status;
pub use metrics::register_build_info;

/// How long until a failed bind is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// What the endpoints answer from.
pub struct Endpoints {
    /// All of them decide `/readyz`.
    pub checks: Checks,
    /// Those that decide `/readyz/ingest`; empty: no such path.
    pub ingest_checks: &'static [&'static str],
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
    /// Makes the answer of `/status`. Called on the runtime's thread for each request: it must not wait for a disk.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// Serves until `stop`. Failing to bind is logged (once, at ERROR) and retried every few seconds; it is never fatal.
pub async fn serve(listen: SocketAddr, endpoints: Endpoints, stop: CancellationToken) {
    let mut failed = false;
    let listener = loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => break listener,
            Err(error) if failed => {
                tracing::debug!(%listen, %error, "health endpoint still cannot listen")
            }
            Err(error) => {
                failed = true;
                tracing::error!(%listen, %error, "health endpoint cannot listen, is retried; data flows all the same");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_AGAIN) => {}
            () = stop.cancelled() => return,
        }
    };
    tracing::info!(%listen, "health endpoint listens");
    serve_on(listener, endpoints, stop).await;
}

/// Serves on a socket that listens already, until `stop`; then waits a moment for answers under way.
pub async fn serve_on(listener: TcpListener, endpoints: Endpoints, stop: CancellationToken) {
    // A listener that cannot say where it listens is treated as one beyond loopback: it says less.
    let shows_reasons = listener
        .local_addr()
        .is_ok_and(|address| is_loopback(address.ip()));
    server::run(listener, server::router(endpoints, shows_reasons), stop).await;
}

/// IPv4 addresses that arrive over an IPv6 socket count as what they are.
fn is_loopback(address: std::net::IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
