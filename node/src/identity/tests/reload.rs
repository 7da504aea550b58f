use std::time::{Duration, SystemTime};

use super::{
    super::{follow::Looks, *},
    *,
};
use crate::{
    health::{CheckState, Checks},
    identity::testing::Request,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Running {
    _directory: tempfile::TempDir,
    authority: Authority,
    config: IdentityConfig,
    identity: Identity,
    looks: Looks,
}

fn running() -> Running {
    let (directory, authority) = (tempfile::tempdir().unwrap(), authority());
    let config = authority
        .forwarder("moh", "host-01")
        .write(&authority, directory.path());
    let identity = Identity::load(&config).unwrap();
    Running {
        _directory: directory,
        authority,
        config,
        identity,
        looks: Looks::default(),
    }
}

impl Running {
    fn look(&mut self) {
        self.identity.look(&mut self.looks);
    }

    fn replace(&self, issued: &testing::Issued) {
        testing::write(&self.config.certificate, &issued.certificate);
        testing::write(&self.config.private_key, &issued.private_key);
    }
}

#[test]
fn a_renewed_certificate_is_taken_at_the_next_look() {
    let mut running = running();
    let changes = running.identity.changes();
    let before = running.identity.current();
    running.look();
    assert!(!changes.has_changed().unwrap());
    running.replace(&running.authority.forwarder("moh", "host-01"));
    running.look();
    assert!(changes.has_changed().unwrap());
    let after = running.identity.current();
    assert_ne!(after.fingerprint, before.fingerprint);
    assert!(after.generation > before.generation);
    assert_eq!(running.identity.last_reload_error(), None);
}

#[test]
fn a_set_in_the_middle_of_its_replacement_is_neither_taken_nor_called_broken() {
    let mut running = running();
    let renewed = running.authority.forwarder("moh", "host-01");
    let before = running.identity.current().fingerprint;
    testing::write(&running.config.certificate, &renewed.certificate);
    running.look();
    assert_eq!(running.identity.current().fingerprint, before);
    assert_eq!(running.identity.last_reload_error(), None);
    testing::write(&running.config.private_key, &renewed.private_key);
    running.look();
    assert_ne!(running.identity.current().fingerprint, before);
}

#[test]
fn a_broken_set_is_refused_and_the_last_good_one_stays_until_it_is_mended() {
    let mut running = running();
    let before = running.identity.current().fingerprint;
    let good = std::fs::read_to_string(&running.config.certificate).unwrap();
    testing::write(&running.config.certificate, "broken");
    running.look();
    running.look();
    running.look();
    assert_eq!(running.identity.current().fingerprint, before);
    let error = running.identity.last_reload_error().unwrap();
    assert!(
        error.contains("host-01.pem: holds no certificate in PEM form"),
        "{error}"
    );
    testing::write(&running.config.certificate, &good);
    running.look();
    assert_eq!(running.identity.last_reload_error(), None);
    assert_eq!(running.identity.current().fingerprint, before);
}

#[test]
fn a_file_that_is_gone_leaves_the_last_good_set() {
    let mut running = running();
    std::fs::remove_file(&running.config.private_key).unwrap();
    running.look();
    running.look();
    assert!(
        running
            .identity
            .last_reload_error()
            .unwrap()
            .contains("cannot be read")
    );
}

#[test]
fn an_older_certificate_or_list_and_another_name_are_refused() {
    let mut running = running();
    let now = SystemTime::now();
    let old = Request {
        not_before: now - 9 * DAY,
        not_after: now - DAY,
        ..running
            .authority
            .request("host-01", "agency/moh/forwarder/host-01")
    };
    running.replace(&running.authority.issue(&old));
    running.look();
    running.look();
    let error = running.identity.last_reload_error().unwrap();
    assert!(
        error.contains("older than the one in force, and expired"),
        "{error}"
    );

    running.replace(&running.authority.forwarder("moh", "host-02"));
    running.look();
    running.look();
    let error = running.identity.last_reload_error().unwrap();
    assert!(
        error
            .contains("names spiffe://watch.example/agency/moh/forwarder/host-02; this process is"),
        "{error}"
    );

    running.replace(&running.authority.forwarder("moh", "host-01"));
    running.look();
    assert_eq!(running.identity.last_reload_error(), None);
    let list = running
        .authority
        .revocations_between(now - 2 * DAY, now + DAY);
    testing::write(running.config.revocations.as_ref().unwrap(), &list);
    running.look();
    running.look();
    let error = running.identity.last_reload_error().unwrap();
    assert!(
        error.contains("crl.pem: holds a revocation list that is older"),
        "{error}"
    );
}

#[test]
fn a_removed_anchor_ends_what_stood_on_it() {
    let mut running = running();
    let other = authority();
    let both = format!("{}{}", running.authority.certificate(), other.certificate());
    testing::write(&running.config.trust_anchors, &both);
    let lists = format!("{}{}", running.authority.revocations(), other.revocations());
    testing::write(running.config.revocations.as_ref().unwrap(), &lists);
    running.look();
    let peer = peer_of(&[other.forwarder("moh", "host-02").der]).unwrap();
    assert_eq!(running.identity.still_valid(&peer), Ok(()));
    testing::write(
        &running.config.trust_anchors,
        running.authority.certificate(),
    );
    running.look();
    assert_eq!(
        running.identity.still_valid(&peer),
        Err(Refused::UnknownIssuer)
    );
}

#[test]
fn an_expired_peer_is_no_longer_valid() {
    let running = running();
    let mut peer = peer_of(&[running.authority.forwarder("moh", "host-02").der]).unwrap();
    assert_eq!(running.identity.still_valid(&peer), Ok(()));
    peer.not_after = SystemTime::now();
    assert_eq!(running.identity.still_valid(&peer), Err(Refused::Expired));
}

#[test]
fn time_alone_changes_how_a_certificate_and_a_list_stand() {
    let mut running = running();
    let loaded = running.identity.current();
    let next_update = loaded.crl_next_update.unwrap();
    for (now, state, lists_overdue) in [
        (loaded.not_before, OwnState::Valid, false),
        (next_update, OwnState::ExpiresSoon, true),
        (loaded.not_after, OwnState::Expired, true),
    ] {
        running.identity.look_at_the_clock(&mut running.looks, now);
        let standing = running.looks.standing.unwrap();
        assert_eq!(
            (standing.state, standing.lists_overdue),
            (state, lists_overdue)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_followed_until_the_end() {
    let running = running();
    let stop = tokio_util::sync::CancellationToken::new();
    let checks = Checks::new(&[CHECK]);
    let mut changes = running.identity.changes();
    let identity = running.identity.clone();
    let following = tokio::spawn(identity.follow_files(checks.clone(), stop.clone()));
    running.replace(&running.authority.forwarder("moh", "host-01"));
    changes.changed().await.unwrap();
    stop.cancel();
    following.await.unwrap();
    assert!(checks.ready(None));
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_a_failing_check_until_there_is_a_valid_one() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), authority());
    let now = SystemTime::now();
    let expired = Request {
        not_before: now - 3 * DAY,
        not_after: now - DAY,
        ..authority.request("host-01", "agency/moh/forwarder/host-01")
    };
    let config = authority
        .issue(&expired)
        .write(&authority, directory.path());
    let identity = Identity::load(&config).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let checks = Checks::new(&[CHECK]);
    let mut changes = checks.changes();
    let following = tokio::spawn(identity.follow_files(checks.clone(), stop.clone()));
    changes.changed().await.unwrap();
    let reason =
        "our certificate has expired; a valid one is taken as soon as it is there".to_owned();
    assert_eq!(checks.all()[CHECK], CheckState::Failing { reason });
    authority
        .forwarder("moh", "host-01")
        .write(&authority, directory.path());
    changes.changed().await.unwrap();
    assert_eq!(checks.all()[CHECK], CheckState::Ok);
    stop.cancel();
    following.await.unwrap();
}
