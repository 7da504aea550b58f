//! Real handshakes over an in-memory pipe, one for each way of being refused.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{super::*, *};
use crate::identity::testing::{Issued, Request};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What both ends saw: the listening end's peer, or why there is none; the dialling end's first read.
struct Met {
    server: Result<Peer, Refused>,
    client: io::Result<()>,
    /// What the dialling end negotiated.
    group: Option<rustls::NamedGroup>,
    alpn: Option<Vec<u8>>,
    resumed: bool,
}

async fn meet(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Met {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async move {
        let mut stream = tokio_rustls::TlsAcceptor::from(server)
            .accept(near)
            .await
            .map_err(|e| Refused::of_handshake(&e))?;
        let peer = peer_of(stream.get_ref().1.peer_certificates().unwrap_or_default());
        // The dialling end knows that it was taken when it can read.
        let _ = stream.write_all(b"!").await;
        let _ = stream.shutdown().await;
        peer
    };
    let connect = async move {
        let name = ServerName::try_from("anything.example").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(client)
            .connect(name, far)
            .await?;
        let connection = stream.get_ref().1;
        let group = connection
            .negotiated_key_exchange_group()
            .map(|group| group.name());
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let read = stream.read_u8().await.map(|_| ());
        io::Result::Ok((group, alpn, resumed, read))
    };
    let (server, client) = tokio::join!(accept, connect);
    match client {
        Ok((group, alpn, resumed, read)) => Met {
            server,
            client: read,
            group,
            alpn,
            resumed,
        },
        Err(error) => Met {
            server,
            client: Err(error),
            group: None,
            alpn: None,
            resumed: false,
        },
    }
}

/// The folder lives as long as the line of the test.
fn load(authority: &Authority, issued: &Issued) -> (tempfile::TempDir, Identity) {
    let directory = tempfile::tempdir().unwrap();
    let identity = issued.load(authority, directory.path());
    (directory, identity)
}

/// A dialling end that shows these certificates, whatever they are worth, and believes everybody that `believer` believes.
fn shows(believer: &Identity, issued: &Issued) -> Arc<ClientConfig> {
    let mut config = (*believer.client_config()).clone();
    let certified = rustls::sign::CertifiedKey::from_der(
        vec![issued.der.clone()],
        issued.private_key_der(),
        &tls::provider(),
    )
    .unwrap();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    Arc::new(config)
}

/// What a collector of `moh` says to a dialling end with this certificate.
async fn collector_says(authority: &Authority, issued: &Issued) -> Met {
    let (_a, collector) = load(authority, &authority.collector("moh", "collector-1"));
    let (_b, friend) = load(authority, &authority.forwarder("moh", "friend"));
    meet(collector.server_config(), shows(&friend, issued)).await
}

async fn collector_refuses(authority: &Authority, request: &Request) -> Refused {
    let met = collector_says(authority, &authority.issue(request)).await;
    assert!(met.client.is_err());
    met.server.unwrap_err()
}

fn alert(error: &io::Error) -> rustls::AlertDescription {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("no alert: {other:?}, {error}"),
    }
}

#[tokio::test]
async fn a_forwarder_and_a_collector_of_its_agency_meet_over_hybrid_key_exchange() {
    let authority = authority();
    let (_a, collector) = load(&authority, &authority.collector("moh", "collector-1"));
    let issued = authority.forwarder("moh", "host-01");
    let (_b, forwarder) = load(&authority, &issued);
    let met = meet(collector.server_config(), forwarder.client_config()).await;
    met.client.unwrap();
    let peer = met.server.unwrap();
    assert_eq!(peer.id, forwarder.current().id);
    assert_eq!(
        (peer.fingerprint, &peer.serial),
        (forwarder.current().fingerprint, &issued.serial)
    );
    assert_eq!(met.group, Some(rustls::NamedGroup::X25519MLKEM768));
    assert_eq!(met.alpn.as_deref(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let authority = authority();
    let (_a, collector) = load(&authority, &authority.collector("moh", "collector-1"));
    let (_b, friend) = load(&authority, &authority.forwarder("moh", "friend"));
    let mut config = (*friend.client_config()).clone();
    config.client_auth_cert_resolver = Arc::new(Nothing);
    let met = meet(collector.server_config(), Arc::new(config)).await;
    assert_eq!(met.server.unwrap_err(), Refused::NoCertificate);
    assert_eq!(
        alert(&met.client.unwrap_err()),
        rustls::AlertDescription::CertificateRequired
    );
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let authority = authority();
    let issued = authority
        .request("host-01", "agency/moh/forwarder/host-01")
        .self_signed();
    let met = collector_says(&authority, &issued).await;
    assert_eq!(met.server.unwrap_err(), Refused::UnknownIssuer);
    assert_eq!(
        alert(&met.client.unwrap_err()),
        rustls::AlertDescription::UnknownCA
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let stranger = Authority::new(DOMAIN);
    let met = collector_says(&authority(), &stranger.forwarder("moh", "host-01")).await;
    assert_eq!(met.server.unwrap_err(), Refused::UnknownIssuer);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = authority();
    let now = SystemTime::now();
    let request = Request {
        not_before: now - 2 * DAY,
        not_after: now - DAY,
        ..authority.request("host-01", "agency/moh/forwarder/host-01")
    };
    let met = collector_says(&authority, &authority.issue(&request)).await;
    assert_eq!(met.server.unwrap_err(), Refused::Expired);
    assert_eq!(
        alert(&met.client.unwrap_err()),
        rustls::AlertDescription::CertificateExpired
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused() {
    let authority = authority();
    let now = SystemTime::now();
    let request = Request {
        not_before: now + DAY,
        not_after: now + 2 * DAY,
        ..authority.request("host-01", "agency/moh/forwarder/host-01")
    };
    assert_eq!(
        collector_refuses(&authority, &request).await,
        Refused::NotYetValid
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let authority = authority();
    let issued = authority.forwarder("moh", "host-01");
    authority.revoke(&issued);
    let met = collector_says(&authority, &issued).await;
    assert_eq!(met.server.unwrap_err(), Refused::Revoked);
    assert_eq!(
        alert(&met.client.unwrap_err()),
        rustls::AlertDescription::CertificateRevoked
    );
}

#[tokio::test]
async fn a_wrong_role_is_refused() {
    let authority = authority();
    let center = authority.request("center-1", "center/center-1");
    let refused = collector_refuses(&authority, &center).await;
    assert!(
        matches!(&refused, Refused::WrongRole(id) if id.path() == "center/center-1"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_wrong_agency_is_refused() {
    let authority = authority();
    for path in [
        "agency/mof/forwarder/host-01",
        "agency/mof/collector/host-01",
    ] {
        let refused = collector_refuses(&authority, &authority.request("host-01", path)).await;
        assert!(
            matches!(&refused, Refused::WrongAgency(id) if id.path() == path),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_for_another_use_is_refused() {
    let authority = authority();
    let request = Request {
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        ..authority.request("host-01", "agency/moh/forwarder/host-01")
    };
    assert_eq!(
        collector_refuses(&authority, &request).await,
        Refused::WrongUsage
    );
}

#[tokio::test]
async fn a_certificate_without_exactly_one_name_of_ours_is_refused() {
    let authority = authority();
    let right = authority.request("host-01", "agency/moh/forwarder/host-01");
    let name = right.uris[0].clone();
    for uris in [
        vec![],
        vec![name.clone(), "https://example/".to_owned()],
        vec![name.clone(), name.clone()],
        vec!["spiffe://watch.example/agency/moh/printer/x".to_owned()],
        vec!["spiffe://other.example/agency/moh/forwarder/host-01".to_owned()],
    ] {
        let refused = collector_refuses(
            &authority,
            &Request {
                uris: uris.clone(),
                ..right.clone()
            },
        )
        .await;
        assert!(
            matches!(refused, Refused::BadName(_)),
            "{uris:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_peer_that_speaks_tls_1_2_only_is_refused() {
    let authority = authority();
    let (_a, collector) = load(&authority, &authority.collector("moh", "collector-1"));
    // This program has no TLS 1.2 to speak: a ClientHello that offers nothing newer, by hand.
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let accept = tokio_rustls::TlsAcceptor::from(collector.server_config()).accept(near);
    let speak = async move {
        far.write_all(&client_hello_tls12()).await.unwrap();
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (accepted, answer) = tokio::join!(async { accept.await.map(|_| ()) }, speak);
    assert_eq!(
        Refused::of_handshake(&accepted.unwrap_err()),
        Refused::TlsVersion
    );
    // An alert record: fatal, protocol_version.
    assert_eq!((answer[0], &answer[5..7]), (21, &[2, 70][..]));
}

/// A ClientHello for TLS 1.2 with ECDHE-ECDSA-AES128-GCM.
fn client_hello_tls12() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // groups: secp256r1
        &[0, 11, 0, 2, 1, 0],            // point formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],      // signature algorithms: ecdsa_secp256r1_sha256
        &[0, 23, 0, 0],                  // extended master secret
    ]
    .concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite, no compression
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![
        22,
        3,
        1,
        0,
        hello.len() as u8 + 4,
        1,
        0,
        0,
        hello.len() as u8,
    ];
    record.extend(hello);
    record
}

#[tokio::test]
async fn garbage_is_a_failed_handshake() {
    let authority = authority();
    let (_a, collector) = load(&authority, &authority.collector("moh", "collector-1"));
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    far.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let error = tokio_rustls::TlsAcceptor::from(collector.server_config())
        .accept(near)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(Refused::of_handshake(&error).reason(), "handshake");
}

/// A centre of `ours` that also takes what `theirs` signs for agency `mof`.
fn center_with_scope(
    ours: &Authority,
    theirs: &Authority,
    lists: bool,
) -> (tempfile::TempDir, Identity) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = ours.center("center-1").write(ours, directory.path());
    let anchors = directory.path().join("mof-ca.pem");
    testing::write(&anchors, theirs.certificate());
    let crl = directory.path().join("mof.crl");
    testing::write(&crl, &theirs.revocations());
    config.trust.push(ScopedTrust {
        anchors,
        revocations: lists.then_some(crl),
        names: vec!["agency/mof/*".parse().unwrap()],
    });
    let identity = Identity::load(&config).unwrap();
    (directory, identity)
}

#[tokio::test]
async fn a_scoped_anchor_vouches_inside_its_scope_and_not_outside() {
    let (ours, theirs) = (authority(), authority());
    let (_a, center) = center_with_scope(&ours, &theirs, true);
    let (_b, friend) = load(&ours, &ours.forwarder("moh", "friend"));

    let inside = theirs.forwarder("mof", "host-01");
    let met = meet(center.server_config(), shows(&friend, &inside)).await;
    assert_eq!(
        met.server.unwrap().id.path(),
        "agency/mof/forwarder/host-01"
    );

    for outside in [
        theirs.forwarder("moh", "host-01"),
        theirs.collector("mo", "f"),
        theirs.center("mof"),
    ] {
        let refused = meet(center.server_config(), shows(&friend, &outside))
            .await
            .server
            .unwrap_err();
        assert!(matches!(refused, Refused::OutOfScope(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn each_anchor_set_has_its_own_revocation_lists() {
    let (ours, theirs) = (authority(), authority());
    let inside = theirs.forwarder("mof", "host-01");
    theirs.revoke(&inside);
    let (_b, friend) = load(&ours, &ours.forwarder("moh", "friend"));

    let (_a, checks) = center_with_scope(&ours, &theirs, true);
    let refused = meet(checks.server_config(), shows(&friend, &inside))
        .await
        .server
        .unwrap_err();
    assert_eq!(refused, Refused::Revoked);
    // No list configured for that set: not checked, whatever the other set has.
    let (_c, does_not) = center_with_scope(&ours, &theirs, false);
    assert!(
        meet(does_not.server_config(), shows(&friend, &inside))
            .await
            .server
            .is_ok()
    );
}

#[tokio::test]
async fn an_issuer_without_a_list_is_refused_where_lists_are_configured() {
    let (ours, other) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let config = ours.center("center-1").write(&ours, directory.path());
    testing::write(
        &config.trust_anchors,
        &format!("{}{}", ours.certificate(), other.certificate()),
    );
    let center = Identity::load(&config).unwrap();
    let (_b, friend) = load(&ours, &ours.forwarder("moh", "friend"));
    let met = meet(
        center.server_config(),
        shows(&friend, &other.forwarder("moh", "host-01")),
    )
    .await;
    assert_eq!(met.server.unwrap_err(), Refused::RevocationUnknown);

    // Old and new anchor side by side, each with its list: both are taken.
    let lists = format!("{}{}", ours.revocations(), other.revocations());
    testing::write(config.revocations.as_ref().unwrap(), &lists);
    center.reload().unwrap();
    assert!(
        meet(
            center.server_config(),
            shows(&friend, &other.forwarder("moh", "host-01"))
        )
        .await
        .server
        .is_ok()
    );
    assert!(
        meet(
            center.server_config(),
            shows(&friend, &ours.forwarder("moh", "host-01"))
        )
        .await
        .server
        .is_ok()
    );
}

#[tokio::test]
async fn a_list_past_its_date_still_applies() {
    let authority = authority();
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (
        authority.forwarder("moh", "good"),
        authority.forwarder("moh", "bad"),
    );
    authority.revoke(&bad);
    let config = authority
        .collector("moh", "collector-1")
        .write(&authority, directory.path());
    let now = SystemTime::now();
    testing::write(
        config.revocations.as_ref().unwrap(),
        &authority.revocations_between(now - 2 * DAY, now - DAY),
    );
    let collector = Identity::load(&config).unwrap();
    let (_b, friend) = load(&authority, &authority.forwarder("moh", "friend"));
    assert!(
        meet(collector.server_config(), shows(&friend, &good))
            .await
            .server
            .is_ok()
    );
    let refused = meet(collector.server_config(), shows(&friend, &bad))
        .await
        .server
        .unwrap_err();
    assert_eq!(refused, Refused::Revoked);
}

/// What a dialling end makes of a listening end with this certificate.
async fn dialled(
    authority: &Authority,
    dialler: &Issued,
    listener: &Issued,
) -> Result<(), Refused> {
    let (_a, dialler) = load(authority, dialler);
    let (_b, friend) = load(authority, &authority.center("friend"));
    let mut config = (*friend.server_config()).clone();
    let certified = rustls::sign::CertifiedKey::from_der(
        vec![listener.der.clone()],
        listener.private_key_der(),
        &tls::provider(),
    )
    .unwrap();
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    // Its own view of the dialling end is of no interest here: it takes everybody's certificate.
    meet(Arc::new(config), dialler.client_config())
        .await
        .client
        .map_err(|error| Refused::of_handshake(&error))
}

#[tokio::test]
async fn who_may_be_dialled_follows_from_role_and_agency() {
    let authority = authority();
    let forwarder = |agency: &str| authority.forwarder(agency, "f");
    let collector = |agency: &str| authority.collector(agency, "c");
    let center = || authority.center("z");
    for (dialler, listener, expected) in [
        (forwarder("moh"), collector("moh"), "ok"),
        (forwarder("moh"), center(), "ok"),
        (forwarder("moh"), collector("mof"), "wrong_agency"),
        (forwarder("moh"), forwarder("moh"), "wrong_role"),
        (collector("moh"), collector("moh"), "ok"),
        (collector("moh"), center(), "ok"),
        (collector("moh"), collector("mof"), "wrong_agency"),
        (collector("moh"), forwarder("moh"), "wrong_role"),
        (center(), center(), "ok"),
        (center(), collector("moh"), "wrong_role"),
    ] {
        let found = dialled(&authority, &dialler, &listener).await;
        let reason = found.as_ref().map_or_else(Refused::reason, |()| "ok");
        assert_eq!(
            reason, expected,
            "{} dials {}: {found:?}",
            dialler.name, listener.name
        );
    }
}

#[tokio::test]
async fn who_may_dial_follows_from_role_and_agency() {
    let authority = authority();
    let (_a, center) = load(&authority, &authority.center("center-1"));
    let (_b, forwarder) = load(&authority, &authority.forwarder("moh", "f"));
    let (_c, friend) = load(&authority, &authority.center("friend"));
    for anyone in [
        authority.forwarder("mof", "f"),
        authority.collector("moh", "c"),
        authority.center("z"),
    ] {
        assert!(
            meet(center.server_config(), shows(&friend, &anyone))
                .await
                .server
                .is_ok(),
            "{}",
            anyone.name
        );
        // A forwarder that listened would take nobody. The dialling end refuses it as well, whichever comes first.
        assert!(
            meet(forwarder.server_config(), shows(&friend, &anyone))
                .await
                .server
                .is_err(),
            "{}",
            anyone.name
        );
    }
    let (_d, collector) = load(&authority, &authority.collector("moh", "c"));
    for same_agency in [
        authority.forwarder("moh", "f"),
        authority.collector("moh", "d"),
    ] {
        let (_e, peer) = load(&authority, &same_agency);
        assert!(
            meet(collector.server_config(), peer.client_config())
                .await
                .server
                .is_ok()
        );
    }
}

#[tokio::test]
async fn a_listening_end_without_a_server_certificate_is_refused() {
    let authority = authority();
    let client_only = Request {
        usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
        ..authority.request("c", "agency/moh/collector/c")
    };
    let found = dialled(
        &authority,
        &authority.forwarder("moh", "f"),
        &authority.issue(&client_only),
    )
    .await;
    assert_eq!(found, Err(Refused::WrongUsage));
}

#[tokio::test]
async fn nothing_is_resumed_so_that_a_revocation_meets_everybody_who_comes_back() {
    let authority = authority();
    let directory = tempfile::tempdir().unwrap();
    let config = authority
        .collector("moh", "collector-1")
        .write(&authority, directory.path());
    let collector = Identity::load(&config).unwrap();
    let issued = authority.forwarder("moh", "host-01");
    let (_b, forwarder) = load(&authority, &issued);
    // A dialling end that would resume if it could.
    let mut eager = (*forwarder.client_config()).clone();
    eager.resumption = rustls::client::Resumption::in_memory_sessions(16);
    let eager = Arc::new(eager);

    for _ in 0..2 {
        let met = meet(collector.server_config(), Arc::clone(&eager)).await;
        assert!(met.server.is_ok() && !met.resumed);
    }
    let peer = meet(collector.server_config(), Arc::clone(&eager))
        .await
        .server
        .unwrap();
    assert_eq!(collector.still_valid(&peer), Ok(()));

    authority.revoke(&issued);
    testing::write(
        config.revocations.as_ref().unwrap(),
        &authority.revocations(),
    );
    collector.reload().unwrap();
    assert_eq!(collector.still_valid(&peer), Err(Refused::Revoked));
    let met = meet(collector.server_config(), Arc::clone(&eager)).await;
    assert_eq!(met.server.unwrap_err(), Refused::Revoked);
    assert!(met.client.is_err());
}
