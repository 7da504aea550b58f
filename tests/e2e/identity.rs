//! Who is let in.

use std::{fs, io::Write as _, net::TcpStream, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Line, Node, Role, Writer, lab::AGENCY, waiting::wait_until};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use watchline_proto::wire::{self, uplink_client::UplinkClient};

use crate::dial::{Presented, channel, handshake_fails};

fn refused(node: &Node, reason: &str) -> Result<f64> {
    node.metric(
        "watchline_refused_total",
        &[&format!("reason=\"{reason}\"")],
    )
}

fn wait_refused(node: &Node, reason: &str) -> Result<()> {
    wait_until(
        &format!("{} to count a peer refused for {reason}", node.name),
        || Ok(refused(node, reason)? > 0.0),
    )
}

/// Puts another certificate, of the CA in folder `ca`, into the place of a node's own.
fn replace_certificate(lab: &Lab, node: &Node, ca: &str, role: Role, name: &str) -> Result<()> {
    let fresh = tempfile::tempdir()?;
    lab.issue(ca, role, name, fresh.path())?;
    for ending in ["key", "pem"] {
        let target = node.path(format!("{}.{ending}", node.name));
        fs::rename(fresh.path().join(format!("{name}.{ending}")), target)?;
    }
    Ok(())
}

#[test]
fn a_forwarder_of_a_foreign_ca_is_refused_counted_and_delivers_once_it_has_a_valid_certificate()
-> Result<()> {
    Lab::run(|lab| {
        lab.new_ca("foreign")?;
        let mut line = Line::new(lab, &["app.log"])?;
        replace_certificate(
            lab,
            &line.forwarder,
            "foreign",
            Role::Forwarder(AGENCY),
            "host-01",
        )?;
        // Its own anchors are right, so that it believes the collector; the collector does not believe it.
        line.center.start_ready()?;
        line.collector.start_ready()?;
        line.forwarder.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"kept while refused")?;
        wait_refused(&line.collector, "unknown_issuer")?;
        line.forwarder.wait_not_ready()?;
        ensure!(
            line.events().map_or(0, |events| events.len()) == 0,
            "it was let in"
        );
        replace_certificate(
            lab,
            &line.forwarder,
            "pki",
            Role::Forwarder(AGENCY),
            "host-01",
        )?;
        line.forwarder.wait_ready()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_forwarder_holds_what_it_has_rather_than_give_it_to_a_collector_of_another_agency() -> Result<()>
{
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut foreign = lab.collector("collector-2", &[&line.center])?;
        replace_certificate(lab, &foreign, "pki", Role::Collector("mof"), "collector-2")?;
        line.forwarder
            .config
            .set("[uplink]", "collectors", [foreign.url()]);
        line.center.start_ready()?;
        line.collector.start_ready()?;
        foreign.start_ready()?;
        line.forwarder.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"not for everybody")?;
        wait_until("/readyz to say that the agency is another", || {
            let readyz = line.forwarder.get("/readyz")?;
            Ok(readyz.status == 503 && readyz.body.contains("agency"))
        })?;
        ensure!(
            line.events().map_or(0, |events| events.len()) == 0,
            "it was handed over"
        );
        line.forwarder.stop()?;
        line.forwarder
            .config
            .set("[uplink]", "collectors", [line.collector.url()]);
        line.forwarder.start()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_collector_refuses_and_counts_a_forwarder_of_another_agency() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.center.start_ready()?;
        line.collector.start_ready()?;
        lab.issue(
            "pki",
            Role::Forwarder("mof"),
            "stranger",
            &lab.path("stranger"),
        )?;
        let certificate = Presented::files(
            &lab.path("stranger/stranger.pem"),
            &lab.path("stranger/stranger.key"),
        )?;
        let address = line.collector.ingest()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(async {
            let mut client = UplinkClient::new(channel(address, &certificate).await?);
            let hello = wire::Hello {
                protocol_version: 1,
                ..wire::Hello::default()
            };
            let hello = wire::ClientMessage {
                kind: Some(wire::client_message::Kind::Hello(hello)),
            };
            let mut stream = client
                .connect(tokio_stream::iter([hello]))
                .await?
                .into_inner();
            Ok::<_, anyhow::Error>(stream.message().await?)
        });
        ensure!(
            !matches!(answer, Ok(Some(_))),
            "it was welcomed: {answer:?}"
        );
        wait_refused(&line.collector, "wrong_agency")
    })
}

#[test]
fn a_revoked_forwarder_loses_its_open_stream_and_comes_back_with_a_new_certificate() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"before")?;
        line.wait_arrived(1)?;
        let pki = lab.path("pki");
        let arguments = [
            "revoke",
            "--dir",
            pki.to_str().context("path")?,
            "--name",
            "host-01",
        ];
        lab.pki(arguments.map(Into::into))?.expect_code(0)?;
        line.forwarder.wait_not_ready()?;
        wait_refused(&line.collector, "revoked")?;
        log.append(b"kept while revoked")?;
        ensure!(line.events()?.len() == 1, "it was let in");
        replace_certificate(
            lab,
            &line.forwarder,
            "pki",
            Role::Forwarder(AGENCY),
            "host-01",
        )?;
        line.forwarder.wait_ready()?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_without_losing_the_line() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"one")?;
        line.wait_arrived(1)?;
        for (node, role) in [
            (&line.forwarder, Role::Forwarder(AGENCY)),
            (&line.collector, Role::Collector(AGENCY)),
            (&line.center, Role::Center),
        ] {
            let expiry = "watchline_certificate_expiry_timestamp_seconds";
            let before = node.metric(expiry, &[])?;
            // Certificates count in seconds: the new one must end in a later one than the old.
            let issued = fs::metadata(node.path(format!("{}.pem", node.name)))?.modified()?;
            wait_until("a later second", || {
                Ok(issued.elapsed()? > Duration::from_millis(1_100))
            })?;
            replace_certificate(lab, node, "pki", role, &node.name)?;
            wait_until(&format!("{} to use its new certificate", node.name), || {
                Ok(node.metric(expiry, &[])? > before)
            })?;
        }
        line.wait_ready()?;
        log.append(b"two")?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn a_peer_without_a_certificate_or_with_garbage_is_refused_and_the_honest_ones_are_unharmed()
-> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let address = line.collector.ingest()?;
        ensure!(
            handshake_fails(address, &Presented::Nothing)?,
            "let in without a certificate"
        );
        wait_refused(&line.collector, "no_certificate")?;
        let mut peer = TcpStream::connect(address)?;
        peer.write_all(b"GET / HTTP/1.1\r\nHost: collector\r\n\r\n")?;
        wait_refused(&line.collector, "handshake")?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"an honest record")?;
        line.finish_exact(&[&log])
    })
}

#[test]
fn grpc_health_says_serving_to_a_client_with_a_certificate_and_nothing_to_one_without() -> Result<()>
{
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        line.start()?;
        let address = line.collector.ingest()?;
        let certificate = Presented::files(
            &line.forwarder.path("host-01.pem"),
            &line.forwarder.path("host-01.key"),
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            for service in ["", "watchline.v1.Uplink"] {
                let mut client = HealthClient::new(channel(address, &certificate).await?);
                let request = HealthCheckRequest {
                    service: service.to_owned(),
                };
                let answer = client
                    .check(request)
                    .await
                    .with_context(|| format!("health of {service:?}"))?;
                ensure!(
                    answer.get_ref().status() == ServingStatus::Serving,
                    "{service:?}: {answer:?}"
                );
            }
            let without = async {
                let mut client = HealthClient::new(channel(address, &Presented::Nothing).await?);
                Ok::<_, anyhow::Error>(client.check(HealthCheckRequest::default()).await?)
            };
            ensure!(
                without.await.is_err(),
                "answered a client without a certificate"
            );
            Ok(())
        })
    })
}

#[test]
fn a_forwarder_does_not_believe_a_collector_with_the_certificate_of_a_forwarder() -> Result<()> {
    Lab::run(|lab| {
        let mut line = Line::new(lab, &["app.log"])?;
        let mut impostor = lab.collector("impostor", &[&line.center])?;
        // The anchor is right, the role is not. It listens as a collector would.
        replace_certificate(lab, &impostor, "pki", Role::Forwarder(AGENCY), "impostor")?;
        line.forwarder
            .config
            .set("[uplink]", "collectors", [impostor.url()]);
        line.center.start_ready()?;
        let mut log = Writer::create(&lab.log("app.log"))?;
        log.append(b"for collectors only")?;
        line.forwarder.start()?;
        if impostor.start_ready().is_err() {
            // Refused by the program itself: then there is nobody to be deceived by.
            return Ok(());
        }
        line.forwarder.wait_not_ready()?;
        ensure!(
            line.events().map_or(0, |events| events.len()) == 0,
            "it was believed"
        );
        line.forwarder.stop()?;
        line.collector.start_ready()?;
        line.forwarder
            .config
            .set("[uplink]", "collectors", [line.collector.url()]);
        line.forwarder.start()?;
        line.finish_exact(&[&log])
    })
}
