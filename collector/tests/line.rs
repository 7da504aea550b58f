//! A centre and a collector as `run` starts them, on loopback with real TLS, and a forwarder's uplink in front.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: an error ends the test"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use watchline_collector::config::CollectorConfig;
use watchline_node::{
    health,
    identity::{
        Identity,
        testing::{Authority, Issued},
    },
    uplink::{
        Forked, NoChains, Owner, Queue, SetAside, TcpConnector, Uplink, UplinkConfig, UplinkMetrics,
    },
};
use watchline_proto::{
    ClockState, Epoch, EpochChain, Lane,
    chain::Draft,
    payload::{EventMeta, Origin, PayloadBuilder},
    stored,
};
use watchline_spool::{self as spool, Frame, Item, Mark, RealDisk, Spool};

/// Ends the test where an event never comes; nothing else depends on it.
const DEADLINE: Duration = Duration::from_secs(60);

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, looking).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// One `run`, with its folder and addresses.
struct Place {
    directory: PathBuf,
    ingest: SocketAddr,
    health: SocketAddr,
    reloads: mpsc::Sender<()>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

struct Prepared {
    directory: PathBuf,
    ingest: SocketAddr,
    health: SocketAddr,
    outputs: String,
}

impl Prepared {
    fn new(
        directory: PathBuf,
        authority: &Authority,
        certificate: &Issued,
        outputs: String,
    ) -> Prepared {
        std::fs::create_dir_all(&directory).unwrap();
        certificate.write(authority, &directory);
        let prepared = Prepared {
            directory,
            ingest: free_address(),
            health: free_address(),
            outputs,
        };
        prepared.write(&certificate.name);
        prepared
    }

    fn file(&self) -> PathBuf {
        self.directory.join("collector.toml")
    }

    fn write(&self, name: &str) {
        let text = format!(
            "[identity]\ncertificate = \"{name}.pem\"\nprivate_key = \"{name}.key\"\ntrust_anchors = \"ca.pem\"\n\
             revocations = \"crl.pem\"\n[ingest]\nlisten = \"{}\"\n[buffer]\ndirectory = \"buffer\"\nmax_size = \"64MiB\"\n\
             [health]\nlisten = \"{}\"\n[watch]\nsilent_after = \"1s\"\n{}",
            self.ingest, self.health, self.outputs
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn config(&self) -> CollectorConfig {
        CollectorConfig::read(&self.file()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn start(&self) -> Place {
        let (reloads, receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let running = tokio::spawn(watchline_collector::run(
            self.config(),
            self.file(),
            receiver,
            stop.clone(),
        ));
        Place {
            directory: self.directory.clone(),
            ingest: self.ingest,
            health: self.health,
            reloads,
            stop,
            running,
        }
    }
}

impl Place {
    async fn ask(&self, path: &str) -> Option<(u16, String)> {
        health::ask(self.health, path).await.ok()
    }

    async fn status(&self) -> Option<Value> {
        let (_, body) = self.ask("/status").await?;
        serde_json::from_str(&body).ok()
    }

    async fn ready(&self, path: &str) {
        until(path, async || {
            self.ask(path).await.filter(|(code, _)| *code == 200)
        })
        .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

/// What a forwarder does with acknowledgements, as far as this test needs it.
struct Told(mpsc::UnboundedSender<[spool::ItemNo; spool::LANES]>);

impl Owner for Told {
    fn acked(&self, next: [spool::ItemNo; spool::LANES]) {
        let _ = self.0.send(next);
    }

    fn set_aside(&self, set_aside: SetAside) {
        panic!("set aside: {}", set_aside.detail);
    }

    fn forked(&self, forked: Forked) {
        panic!("forked: {forked:?}");
    }

    fn hole(&self, error: spool::ReadError) {
        panic!("hole: {error}");
    }
}

struct Forwarder {
    spool: Spool,
    chain: EpochChain,
    acked: mpsc::UnboundedReceiver<[spool::ItemNo; spool::LANES]>,
    stop: CancellationToken,
    uplink: tokio::task::JoinHandle<()>,
}

const READER: &str = "uplink";

impl Forwarder {
    fn start(directory: &Path, identity: Identity, collector: SocketAddr) -> Forwarder {
        let options = spool::Options {
            required_readers: vec![READER.to_owned()],
            ..spool::Options::default()
        };
        let (spool, _) =
            Spool::open(Arc::new(RealDisk), &directory.join("spool"), options).unwrap();
        let (told, acked) = mpsc::unbounded_channel();
        let endpoint = format!("https://{collector}").parse().unwrap();
        let chain = EpochChain::start(identity.current().id.clone(), Epoch::random());
        let uplink = Uplink::new(
            UplinkConfig {
                heartbeat: Duration::from_millis(200),
                ..UplinkConfig::new("uplink", vec![endpoint], directory.join("quarantine"))
            },
            identity,
            Queue {
                reader: spool.reader(READER),
                view: spool.view(),
                name: READER.to_owned(),
            },
            Arc::new(Told(told)),
            Arc::new(NoChains),
            TcpConnector,
            &UplinkMetrics::register(&mut Default::default()),
        );
        let stop = CancellationToken::new();
        let ended = stop.clone();
        Forwarder {
            spool,
            chain,
            acked,
            uplink: tokio::spawn(async move { Box::pin(uplink.run(ended)).await }),
            stop,
        }
    }

    fn seal(&mut self, lane: Lane, body: &str) {
        let mut builder = PayloadBuilder::new();
        let origin = builder.origin(&Origin {
            source: "auth".to_owned(),
            kind: "file".to_owned(),
            attributes: Vec::new(),
        });
        let meta = EventMeta {
            origin,
            observed_unix_nano: 1,
            time_unix_nano: None,
            severity: 9,
            attributes: &[],
        };
        builder.push(body.as_bytes(), meta);
        let payload = builder.finish().unwrap();
        let draft = Draft {
            lane,
            payload: &payload,
            labels: &BTreeMap::new(),
            clock: ClockState::Unknown,
            sealed_unix_nano: 1,
            voids: &[],
        };
        let sealed = self.chain.seal(draft).unwrap();
        let item = stored::encode(&stored::unsigned(sealed.bytes, payload.bytes));
        let parts: [&[u8]; 1] = [&item];
        let frame = Frame {
            items: vec![Item {
                lane: lane.index(),
                parts: &parts,
            }],
            ..Frame::default()
        };
        self.spool.append(&frame).unwrap();
        self.spool.sync().unwrap();
    }

    async fn acknowledged(&mut self, lane: Lane, count: u64) {
        let acked = async {
            while let Some(next) = self.acked.recv().await {
                let marks = vec![Mark {
                    reader: READER.to_owned(),
                    next,
                    note: Default::default(),
                }];
                self.spool
                    .append(&Frame {
                        marks,
                        ..Frame::default()
                    })
                    .unwrap();
                if next[lane.index()].0 >= count {
                    return;
                }
            }
            panic!("the uplink is gone");
        };
        tokio::time::timeout(DEADLINE, acked)
            .await
            .expect("an acknowledgement");
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.uplink)
            .await
            .unwrap()
            .unwrap();
    }
}

fn lines(place: &Place) -> Vec<Value> {
    let text = std::fs::read_to_string(place.directory.join("events.ndjson")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn bodies(place: &Place, lane: &str) -> Vec<String> {
    let lines = lines(place).into_iter();
    let ours = lines.filter(|line| line["lane"] == lane && line["kind"] == "file");
    ours.map(|line| line["body"].as_str().unwrap().to_owned())
        .collect()
}

const EVENTS: &str = "[[output]]\nname = \"events\"\nkind = \"file\"\npath = \"events.ndjson\"\n";

fn upstream(center: SocketAddr) -> String {
    format!(
        "[[output]]\nname = \"center\"\nkind = \"upstream\"\nendpoints = [\"https://{center}\"]\n"
    )
}

#[tokio::test]
async fn an_event_goes_through_collector_and_centre_and_silence_becomes_one() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("watch.example");
    let center = Prepared::new(
        directory.path().join("center"),
        &authority,
        &authority.center("national"),
        EVENTS.to_owned(),
    );
    let collector = Prepared::new(
        directory.path().join("collector"),
        &authority,
        &authority.collector("moh", "c1"),
        upstream(center.ingest),
    );
    let host = directory.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let identity = authority
        .forwarder("moh", "host-01")
        .load(&authority, &host);

    // The collector takes in while the centre is not there yet: ready for ingest, not ready as a whole.
    let running = collector.start();
    running.ready("/readyz/ingest").await;
    let mut forwarder = Forwarder::start(&host, identity, running.ingest);
    for number in 0..5 {
        forwarder.seal(Lane::Routine, &format!("routine {number}"));
    }
    forwarder.acknowledged(Lane::Routine, 5).await;
    let (code, reason) = running.ask("/readyz").await.unwrap();
    assert!(
        code == 503 && reason.contains("output:center"),
        "{code} {reason}"
    );

    let at_center = center.start();
    running.ready("/readyz").await;
    forwarder.seal(Lane::Alert, "alert 0");
    until("delivery", async || {
        (bodies(&at_center, "alert").len() == 1).then_some(())
    })
    .await;
    until("delivery", async || {
        (bodies(&at_center, "routine").len() == 5).then_some(())
    })
    .await;
    assert_eq!(
        bodies(&at_center, "routine"),
        (0..5)
            .map(|number| format!("routine {number}"))
            .collect::<Vec<_>>()
    );

    let status = until("the forwarder's ledger", async || {
        let status = running.status().await?;
        (status["forwarders"][0]["events"] == 6).then_some(status)
    })
    .await;
    let shown = &status["forwarders"][0];
    assert_eq!(
        (&shown["state"], &shown["name"], &shown["agency"]),
        (&"connected".into(), &"host-01".into(), &"moh".into())
    );
    assert_eq!(
        (
            &shown["lanes"]["routine"]["next"],
            &shown["missing_batches"]
        ),
        (&5.into(), &0.into())
    );
    assert_eq!(status["outputs"][0]["ok"], true);
    assert_eq!(
        at_center.status().await.unwrap()["relays"][0]["state"],
        "connected"
    );
    let (_, metrics) = running.ask("/metrics").await.unwrap();
    assert!(
        metrics.contains("watchline_events_total{stage=\"stored\"} 6"),
        "{metrics}"
    );
    assert!(
        metrics.contains("watchline_forwarders{state=\"connected\"} 1"),
        "{metrics}"
    );

    // Killed and started again, both places go on where they were; nothing comes twice.
    running.stop().await;
    at_center.stop().await;
    let (running, at_center) = (collector.start(), center.start());
    forwarder.seal(Lane::Routine, "routine 5");
    forwarder.acknowledged(Lane::Routine, 6).await;
    until("delivery", async || {
        (bodies(&at_center, "routine").len() >= 6).then_some(())
    })
    .await;
    assert_eq!(
        (
            bodies(&at_center, "routine").len(),
            bodies(&at_center, "alert").len()
        ),
        (6, 1)
    );

    // The forwarder goes silent: the collector's own event is sealed, signed, relayed, opened.
    forwarder.stop().await;
    let silent = until("the silence", async || {
        let lines = lines(&at_center).into_iter();
        lines
            .filter(|line| line["attributes"]["event.name"] == "watchline.forwarder.silent")
            .find(|line| {
                line["forwarder"] == "c1" || line["attributes"]["watchline.agency"] == "moh"
            })
    })
    .await;
    assert_eq!(
        (&silent["kind"], &silent["source"], &silent["lane"]),
        (&"watchline".into(), &"watchline".into(), &"alert".into())
    );
    assert!(
        silent["body"]
            .as_str()
            .unwrap()
            .contains("forwarder/host-01 has said nothing for"),
        "{silent}"
    );
    running.stop().await;
    at_center.stop().await;
}

#[tokio::test]
async fn a_reload_gives_an_upstream_output_its_new_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("watch.example");
    let center = Prepared::new(
        directory.path().join("center"),
        &authority,
        &authority.center("national"),
        EVENTS.to_owned(),
    );
    let mut collector = Prepared::new(
        directory.path().join("collector"),
        &authority,
        &authority.collector("moh", "c1"),
        format!("{}grace = \"0s\"\n", upstream(free_address())),
    );
    let (running, at_center) = (collector.start(), center.start());
    running.ready("/readyz/ingest").await;
    at_center.ready("/readyz").await;
    assert_eq!(running.ask("/readyz").await.unwrap().0, 503);

    let broken = std::mem::replace(&mut collector.outputs, "colour = 1\n".to_owned());
    collector.write("c1");
    running.reloads.send(()).await.unwrap();
    until("the refused reload", async || {
        let (_, metrics) = running.ask("/metrics").await?;
        metrics
            .contains("watchline_config_last_reload_successful 0")
            .then_some(())
    })
    .await;

    let (nowhere, grace) = (broken.split('"').nth(5).unwrap().to_owned(), broken);
    collector.outputs = grace.replace(&nowhere, &format!("https://{}", center.ingest));
    collector.write("c1");
    running.reloads.send(()).await.unwrap();
    running.ready("/readyz").await;
    let (_, metrics) = running.ask("/metrics").await.unwrap();
    assert!(
        metrics.contains("watchline_config_last_reload_successful 1"),
        "{metrics}"
    );
    running.stop().await;
    at_center.stop().await;
}

#[tokio::test]
async fn a_second_process_and_a_port_in_use_get_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("watch.example");
    let mut first = Prepared::new(
        directory.path().join("center"),
        &authority,
        &authority.center("national"),
        EVENTS.to_owned(),
    );
    let running = first.start();
    running.ready("/readyz").await;
    let refused = |error: anyhow::Error| format!("{error:#}");

    let second = first.start();
    let error = refused(second.running.await.unwrap().unwrap_err());
    assert!(
        error.starts_with(&format!("listen on {}", first.ingest)),
        "{error}"
    );

    first.ingest = free_address();
    first.write("national");
    let third = first.start();
    let error = refused(third.running.await.unwrap().unwrap_err());
    assert!(error.contains("is in use by another process"), "{error}");

    let forwarder = authority.forwarder("moh", "host-01");
    forwarder.write(&authority, &first.directory);
    first.write("host-01");
    let error = refused(first.start().running.await.unwrap().unwrap_err());
    assert!(
        error.contains("a collector or center certificate is needed"),
        "{error}"
    );
    running.stop().await;
}
