use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::{super::*, *};
use crate::identity::testing::{Issued, Request};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn collector(authority: &Authority) -> (tempfile::TempDir, Identity) {
    let directory = tempfile::tempdir().unwrap();
    let identity = authority
        .collector("moh", "collector-1")
        .load(authority, directory.path());
    (directory, identity)
}

fn chain(issued: &Issued) -> Vec<Vec<u8>> {
    vec![issued.der.to_vec()]
}

fn reason(found: Result<VerifiedSigner, Refused>) -> &'static str {
    found
        .as_ref()
        .map_or_else(|refused| refused.reason(), |_| "ok")
}

#[test]
fn a_signer_is_judged_at_the_time_of_the_receipt() {
    let authority = authority();
    let now = SystemTime::now();
    let host = Request {
        not_before: now - 10 * DAY,
        not_after: now - DAY,
        ..authority.request("host-01", "agency/moh/forwarder/host-01")
    };
    let host = authority.issue(&host);
    authority.revoke_since(&host, now - 3 * DAY);
    let (_directory, collector) = collector(&authority);
    // Twice: the second time it is remembered.
    for _ in 0..2 {
        assert_eq!(
            reason(collector.verify_chain(&chain(&host), now - 11 * DAY)),
            "not_yet_valid"
        );
        assert_eq!(
            reason(collector.verify_chain(&chain(&host), now - 4 * DAY)),
            "ok"
        );
        assert_eq!(
            reason(collector.verify_chain(&chain(&host), now - 2 * DAY)),
            "revoked"
        );
        assert_eq!(
            reason(collector.verify_chain(&chain(&host), now)),
            "expired"
        );
    }
}

#[test]
fn a_verified_signer_is_who_its_certificate_says() {
    let authority = authority();
    let (_directory, collector) = collector(&authority);
    let host = authority.forwarder("mof", "host-01");
    let signer = collector
        .verify_chain(&chain(&host), SystemTime::now())
        .ok()
        .unwrap();
    // Another agency's: what it may do here is not for this to say.
    assert_eq!(signer.id.path(), "agency/mof/forwarder/host-01");
    assert_eq!(signer.fingerprint, Hash::of(&host.der));
}

#[test]
fn what_is_no_chain_is_refused_with_its_reason() {
    let authority = authority();
    let (_directory, collector) = collector(&authority);
    let now = SystemTime::now();
    let host = authority.forwarder("moh", "host-01");
    assert_eq!(reason(collector.verify_chain(&[], now)), "no_certificate");
    assert_eq!(
        reason(collector.verify_chain(&[b"not DER".to_vec()], now)),
        "malformed_certificate"
    );
    assert_eq!(
        reason(collector.verify_chain(&[[&host.der[..], b"x"].concat()], now)),
        "malformed_certificate"
    );
    assert_eq!(
        reason(collector.verify_chain(&vec![host.der.to_vec(); 9], now)),
        "malformed_certificate"
    );
    assert_eq!(
        reason(
            collector.verify_chain(&chain(&super::authority().forwarder("moh", "host-01")), now)
        ),
        "unknown_issuer"
    );
    // A chain with something useless behind its leaf is still a chain.
    assert_eq!(
        reason(collector.verify_chain(&[host.der.to_vec(), b"junk".to_vec()], now)),
        "ok"
    );
}

#[test]
fn verification_remembers_no_more_than_the_moment_allows() {
    let authority = authority();
    let (_directory, collector) = collector(&authority);
    let now = SystemTime::now();
    let host = authority.forwarder("moh", "host-01");
    assert_eq!(reason(collector.verify_chain(&chain(&host), now)), "ok");
    assert_eq!(
        reason(collector.verify_chain(&chain(&host), now + 2 * DAY)),
        "expired"
    );
    assert_eq!(
        reason(collector.verify_chain(&chain(&host), now - 2 * HOUR)),
        "not_yet_valid"
    );
}

proptest! {
    #[test]
    fn no_certificate_makes_it_panic(bytes in any::<Vec<u8>>(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        // One CA for all cases: its keys cost more than all the rest.
        static CA: std::sync::OnceLock<(tempfile::TempDir, Identity, Vec<u8>)> = std::sync::OnceLock::new();
        let (_, collector, der) = CA.get_or_init(|| {
            let authority = authority();
            let (directory, identity) = collector(&authority);
            (directory, identity, authority.forwarder("moh", "host-01").der.to_vec())
        });
        let now = SystemTime::now();
        let _ = collector.verify_chain(&[bytes], now);
        let mut damaged = der.clone();
        for (place, mask) in &flips {
            let place = place.index(damaged.len());
            damaged[place] ^= mask;
        }
        if damaged != *der {
            prop_assert!(collector.verify_chain(&[damaged.clone()], now).is_err());
        }
        let _ = peer_of(&[CertificateDer::from(damaged)]);
    }
}

#[test]
fn anchors_alone_verify_a_signer_after_its_certificate_has_expired() {
    let authority = authority();
    let now = SystemTime::now();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, authority.certificate()).unwrap();
    let anchors = Anchors::load(&file).unwrap();
    let domain: watchline_proto::TrustDomain = "watch.example".parse().unwrap();
    let host = authority.issue(&Request {
        not_before: now - 10 * DAY,
        not_after: now - DAY,
        ..authority.request("host-01", "agency/moh/forwarder/host-01")
    });
    let verify = |issued: &Issued, at| reason(anchors.verify_chain(&domain, &chain(issued), at));
    assert_eq!(verify(&host, now - 2 * DAY), "ok");
    assert_eq!(verify(&host, now), "expired");
    let stranger = Authority::new("watch.example").forwarder("moh", "host-01");
    assert_eq!(verify(&stranger, now), "unknown_issuer");
    let other: watchline_proto::TrustDomain = "other.example".parse().unwrap();
    let found = anchors.verify_chain(&other, &chain(&host), now - 2 * DAY);
    assert_eq!(reason(found), "bad_name");
}
