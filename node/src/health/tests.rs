use super::*;

use serde_json::{Value, json};

struct Running {
    address: SocketAddr,
    checks: Checks,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(listen: &str, ingest_checks: &'static [&'static str]) -> Running {
    let checks = Checks::new(&["disk", "uplink"]);
    let mut registry = Registry::default();
    register_build_info(
        &mut registry,
        crate::lifecycle::Version::parse("0.1.0 (abc)"),
    );
    let endpoints = Endpoints {
        checks: checks.clone(),
        ingest_checks,
        registry: Arc::new(registry),
        status: Arc::new(|| json!({ "hello": "there" })),
    };
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve_on(listener, endpoints, stop.clone()));
    Running {
        address,
        checks,
        stop,
        task,
    }
}

async fn json_of(address: SocketAddr, path: &str) -> (u16, Value) {
    let (code, body) = ask(address, path).await.unwrap();
    (code, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn ready_only_when_every_check_is_set_and_ok() {
    let running = start("127.0.0.1:0", &[]).await;
    let starting = json!({ "state": "failing", "reason": "starting" });
    assert_eq!(
        json_of(running.address, "/readyz").await,
        (
            503,
            json!({ "ready": false, "checks": { "disk": starting, "uplink": starting } })
        )
    );
    running.checks.ok("disk");
    running.checks.failing("uplink", "nobody listens");
    assert_eq!(
        json_of(running.address, "/readyz").await,
        (
            503,
            json!({ "ready": false, "checks": { "disk": { "state": "ok" }, "uplink": { "state": "failing", "reason": "nobody listens" } } })
        )
    );
    running.checks.ok("uplink");
    let ok = json!({ "state": "ok" });
    assert_eq!(
        json_of(running.address, "/readyz").await,
        (
            200,
            json!({ "ready": true, "checks": { "disk": ok, "uplink": ok } })
        )
    );
}

#[tokio::test]
async fn ingest_readiness_looks_at_its_own_checks_only() {
    let running = start("127.0.0.1:0", &["disk"]).await;
    running.checks.ok("disk");
    running.checks.failing("uplink", "the centre is away");
    assert_eq!(
        json_of(running.address, "/readyz/ingest").await,
        (
            200,
            json!({ "ready": true, "checks": { "disk": { "state": "ok" } } })
        )
    );
    assert_eq!(json_of(running.address, "/readyz").await.0, 503);
}

#[tokio::test]
async fn a_program_without_ingest_has_no_such_path() {
    let running = start("127.0.0.1:0", &[]).await;
    assert_eq!(ask(running.address, "/readyz/ingest").await.unwrap().0, 404);
    assert_eq!(ask(running.address, "/nothing").await.unwrap().0, 404);
}

#[tokio::test]
async fn reasons_stay_inside_when_listening_beyond_loopback() {
    let running = start("0.0.0.0:0", &[]).await;
    running.checks.ok("uplink");
    running.checks.failing("disk", "secret");
    // Asked over loopback all the same: what counts is who could ask.
    assert_eq!(
        json_of(running.address, "/readyz").await,
        (
            503,
            json!({ "ready": false, "checks": { "disk": { "state": "failing" }, "uplink": { "state": "ok" } } })
        )
    );
}

#[tokio::test]
async fn status_is_for_loopback_alone() {
    let running = start("127.0.0.1:0", &[]).await;
    assert_eq!(
        json_of(running.address, "/status").await,
        (200, json!({ "hello": "there" }))
    );
    assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap()));
    assert!(!is_loopback("::ffff:192.0.2.1".parse().unwrap()));
    assert!(!is_loopback("192.0.2.1".parse().unwrap()));
}

#[tokio::test]
async fn live_and_metrics_answer_whatever_the_checks_say() {
    let running = start("127.0.0.1:0", &[]).await;
    assert_eq!(
        ask(running.address, "/livez").await.unwrap(),
        (200, "ok\n".to_owned())
    );
    let (code, text) = ask(running.address, "/metrics").await.unwrap();
    assert_eq!(code, 200);
    assert!(
        text.contains("watchline_build_info{version=\"0.1.0\",commit=\"abc\"} 1\n"),
        "{text}"
    );
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(ask(address, "/readyz").await.is_err());
}

#[tokio::test]
async fn stop_ends_it_even_with_an_idle_connection_open() {
    let running = start("127.0.0.1:0", &[]).await;
    let idle = tokio::net::TcpStream::connect(running.address)
        .await
        .unwrap();
    assert_eq!(ask(running.address, "/livez").await.unwrap().0, 200);
    running.stop.cancel();
    running.task.await.unwrap();
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_is_retried_until_it_is_free() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap();
    let endpoints = Endpoints {
        checks: Checks::new(&[]),
        ingest_checks: &[],
        registry: Arc::new(Registry::default()),
        status: Arc::new(|| Value::Null),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(address, endpoints, stop.clone()));
    tokio::time::sleep(BIND_AGAIN * 2).await;
    assert!(!task.is_finished());
    drop(holder);
    while ask(address, "/livez").await.is_err() {
        tokio::time::sleep(BIND_AGAIN).await;
    }
    stop.cancel();
    task.await.unwrap();
}

#[test]
fn changes_count_changes_and_not_calls() {
    let checks = Checks::new(&["a"]);
    let changes = checks.changes();
    checks.ok("a");
    checks.ok("a");
    assert_eq!(*changes.borrow(), 1);
    checks.failing("a", "why");
    checks.remove("a");
    checks.remove("a");
    assert_eq!(*changes.borrow(), 3);
    assert!(checks.ready(None));
    assert!(!checks.ready(Some(&["a"])));
}
