//! Health over plain HTTP: `/livez`, `/readyz`, `/readyz/ingest`, `/metrics`, `/status`.
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio_util::sync::CancellationToken;

/// State of one named check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckState {
    Ok,
    Failing { reason: String },
}
/// The named checks of a process: each component sets its own; cheap, from any thread. A check that was never set is not ready ("starting").
#[derive(Clone)]
pub struct Checks {
    _p: (),
}
impl Checks {
    pub fn new(names: &[&'static str]) -> Checks {
        todo!()
    }
    pub fn ok(&self, name: &'static str) {
        todo!()
    }
    pub fn failing(&self, name: &'static str, reason: impl Into<String>) {
        todo!()
    }
    pub fn all(&self) -> BTreeMap<&'static str, CheckState> {
        todo!()
    }
    pub fn ready(&self, only: Option<&[&'static str]>) -> bool {
        todo!()
    }
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
}
/// What the endpoints answer from.
pub struct Endpoints {
    pub checks: Checks,
    /// checks of `/readyz/ingest`; empty: no such path
    pub ingest_checks: &'static [&'static str],
    pub registry: Arc<prometheus_client::registry::Registry>,
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}
/// Serves until `stop`. Failing to bind is logged (ERROR), counted, retried every few seconds; never fatal.
pub async fn serve(listen: SocketAddr, endpoints: Endpoints, stop: CancellationToken) {
    todo!()
}
/// For the `status` subcommand: GET `path` from `address`, within 5 s. `Err`: unreachable.
pub async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    todo!()
}
