use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::{CheckState, Checks, Endpoints, is_loopback, metrics};

/// With 16 KiB for each one's request this bounds what strangers can make us hold to about 1 MiB.
const CONNECTIONS: usize = 64;
const REQUEST_HEAD_BYTES: usize = 16 * 1024;
/// For a request's head, and so for an idle connection between two.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A connection's whole life: nobody keeps one of the places for good.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// For answers under way when a connection's life ends.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// When accepting fails for want of descriptors, trying at once again would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

struct Shared {
    endpoints: Endpoints,
    shows_reasons: bool,
}

pub(super) fn router(endpoints: Endpoints, shows_reasons: bool) -> Router {
    let serves_ingest = !endpoints.ingest_checks.is_empty();
    let mut router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async |State(shared): State<Arc<Shared>>| readiness(&shared, None)),
        )
        .route("/metrics", get(metrics_text))
        .route("/status", get(status));
    if serves_ingest {
        let ingest = async |State(shared): State<Arc<Shared>>| {
            readiness(&shared, Some(shared.endpoints.ingest_checks))
        };
        router = router.route("/readyz/ingest", get(ingest));
    }
    router.with_state(Arc::new(Shared {
        endpoints,
        shows_reasons,
    }))
}

/// 200 or 503, with every check: `{"ready":true,"checks":{"uplink":{"state":"ok"}}}`.
fn readiness(shared: &Shared, only: Option<&[&'static str]>) -> Response {
    let checks = &shared.endpoints.checks;
    let ready = checks.ready(only);
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body =
        json!({ "ready": ready, "checks": check_states(checks, only, shared.shows_reasons) });
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn check_states(
    checks: &Checks,
    only: Option<&[&'static str]>,
    shows_reasons: bool,
) -> Map<String, Value> {
    let shown = |name: &&'static str| only.is_none_or(|only| only.contains(name));
    let state = |state: CheckState| match state {
        CheckState::Ok => json!({ "state": "ok" }),
        CheckState::Failing { reason } if shows_reasons => {
            json!({ "state": "failing", "reason": reason })
        }
        CheckState::Failing { .. } => json!({ "state": "failing" }),
    };
    checks
        .all()
        .into_iter()
        .filter(|(name, _)| shown(name))
        .map(|(name, s)| (name.to_owned(), state(s)))
        .collect()
}

async fn metrics_text(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match metrics::render(&shared.endpoints.registry, accept) {
        Ok((content_type, text)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Response {
    if !is_loopback(peer.ip()) {
        return (StatusCode::FORBIDDEN, "status is for this host alone\n").into_response();
    }
    (
        [(header::CACHE_CONTROL, "no-store")],
        Json((shared.endpoints.status)()),
    )
        .into_response()
}

pub(super) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    converse(stream, peer, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "health endpoint cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// A place first, then a connection: those without a place wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.clone().call(request);
            async move { answer.await.map_err(|never: Infallible| never) }
        });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(REQUEST_HEAD_BYTES);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = tokio::time::sleep(CONNECTION_LIFE) => None,
        () = stop.cancelled() => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        // A peer that does not take its answer is cut off when this future is dropped.
        let _ = tokio::time::timeout(LAST_ANSWER_WITHIN, connection).await;
    }
}
