use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use super::{super::*, *};
use crate::{config::Document, identity::testing::Request};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A right set of files, for a test to break.
fn right() -> (tempfile::TempDir, Authority, IdentityConfig) {
    let (directory, authority) = (tempfile::tempdir().unwrap(), authority());
    let config = authority
        .forwarder("moh", "host-01")
        .write(&authority, directory.path());
    (directory, authority, config)
}

/// The message without its folder.
fn error(config: &IdentityConfig) -> String {
    let error = Identity::load(config).err().expect("an error");
    let folder = format!("{}/", error.file.parent().unwrap().display());
    error.to_string().replace(&folder, "")
}

#[test]
fn a_missing_file_is_named_with_its_key() {
    let (_directory, _, config) = right();
    fs::remove_file(&config.trust_anchors).unwrap();
    assert_eq!(
        error(&config),
        "ca.pem: cannot be read: No such file or directory (os error 2) (identity.trust_anchors)"
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let (_directory, _, config) = right();
    for mode in [0o640, 0o604, 0o644, 0o660] {
        fs::set_permissions(&config.private_key, fs::Permissions::from_mode(mode)).unwrap();
        let expected = format!(
            "host-01.key: is readable by group or others (mode {mode:04o}): run chmod 600 (identity.private_key)"
        );
        assert_eq!(error(&config), expected);
    }
    fs::set_permissions(&config.private_key, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(Identity::load(&config).is_ok());
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let (directory, _, mut config) = right();
    config.certificate = directory.path().to_owned();
    assert!(error(&config).contains("is not a regular file (identity.certificate)"));
}

#[test]
fn files_with_other_contents_say_what_is_missing() {
    let (_directory, authority, config) = right();
    testing::write(&config.certificate, "hello\n");
    assert_eq!(
        error(&config),
        "host-01.pem: holds no certificate in PEM form (identity.certificate)"
    );
    let other = authority.forwarder("moh", "host-01");
    testing::write(&config.certificate, &other.certificate);
    assert!(
        error(&config).starts_with("host-01.key: does not belong to the certificate in "),
        "{}",
        error(&config)
    );
    testing::write(&config.private_key, &other.certificate);
    assert_eq!(
        error(&config),
        "host-01.key: holds no private key in PEM form (identity.private_key)"
    );
    testing::write(
        &config.private_key,
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n",
    );
    assert!(
        error(&config).contains("not PKCS#8: run openssl pkcs8"),
        "{}",
        error(&config)
    );
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    testing::write(&config.private_key, &p384.serialize_pem());
    assert!(
        error(&config).contains("neither ECDSA P-256 nor Ed25519"),
        "{}",
        error(&config)
    );
}

#[test]
fn an_anchor_must_be_a_ca() {
    let (_directory, _, config) = right();
    fs::copy(&config.certificate, &config.trust_anchors).unwrap();
    assert_eq!(
        error(&config),
        "ca.pem: holds a certificate that is not a CA's (identity.trust_anchors)"
    );
}

#[test]
fn a_list_must_be_our_issuers_and_readable() {
    let (_directory, _, config) = right();
    let crl = config.revocations.clone().unwrap();
    testing::write(&crl, &authority().revocations());
    assert!(
        error(&config)
            .starts_with("crl.pem: holds a revocation list that our own issuer did not sign"),
        "{}",
        error(&config)
    );
    testing::write(
        &crl,
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    );
    assert!(
        error(&config).starts_with("crl.pem: holds a revocation list that is not readable"),
        "{}",
        error(&config)
    );
}

#[test]
fn a_certificate_without_a_name_of_ours_is_refused() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), authority());
    let nameless = Request {
        uris: vec![],
        ..authority.request("x", "center/x")
    };
    let config = authority
        .issue(&nameless)
        .write(&authority, directory.path());
    assert_eq!(
        error(&config),
        "x.pem: certificate has no single SPIFFE name: it has no alternative names (identity.certificate)"
    );
}

#[test]
fn our_own_expired_certificate_is_loaded_and_said() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), authority());
    let now = SystemTime::now();
    let expired = Request {
        not_before: now - 3 * DAY,
        not_after: now - DAY,
        ..authority.request("f", "agency/moh/forwarder/f")
    };
    let identity = authority.issue(&expired).load(&authority, directory.path());
    let loaded = identity.current();
    assert_eq!(loaded.own_state(now), OwnState::Expired);
    assert_eq!(loaded.own_state(now - 4 * DAY), OwnState::NotYetValid);
    assert_eq!(
        loaded.own_state(loaded.not_before + Duration::from_secs(60)),
        OwnState::Valid
    );
    assert_eq!(
        loaded.own_state(loaded.not_before + Duration::from_secs(2 * 24 * 3600 * 2 / 3)),
        OwnState::ExpiresSoon
    );
}

#[test]
fn our_own_revoked_certificate_is_loaded_and_said() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), authority());
    let issued = authority.forwarder("moh", "host-01");
    authority.revoke(&issued);
    let identity = issued.load(&authority, directory.path());
    assert_eq!(
        identity.current().own_state(SystemTime::now()),
        OwnState::Revoked
    );
}

#[test]
fn expiry_and_next_update_are_metrics() {
    let (_directory, _, config) = right();
    let identity = Identity::load(&config).unwrap();
    let mut registry = Registry::default();
    identity.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let not_after = unix_seconds(identity.current().not_after);
    assert!(
        text.contains(&format!(
            "watchline_certificate_expiry_timestamp_seconds {not_after}\n"
        )),
        "{text}"
    );
    let next_update = unix_seconds(identity.current().crl_next_update.unwrap());
    assert!(
        text.contains(&format!(
            "watchline_crl_next_update_timestamp_seconds {next_update}\n"
        )),
        "{text}"
    );
}

#[test]
fn the_section_of_the_configuration_is_read_with_all_its_problems() {
    let text = "[identity]\ncertificate = \"h.pem\"\nprivate_key = \"h.key\"\ntrust_anchors = \"ca.pem\"\n\
                [[identity.trust]]\nanchors = \"mof.pem\"\nnames = [\"agency/mof/*\"]\n";
    let document = Document::parse("/etc/w/f.toml", text).unwrap();
    let mut root = document.root();
    let config = IdentityConfig::read(&mut root.required_table("identity").unwrap()).unwrap();
    drop(root);
    document.finish().unwrap();
    assert_eq!(config.certificate.to_str(), Some("/etc/w/h.pem"));
    assert_eq!(config.revocations, None);
    assert_eq!(config.trust[0].names, ["agency/mof/*".parse().unwrap()]);

    let text =
        "[identity]\ncertificate = \"h.pem\"\n[[identity.trust]]\nnames = [\"agency/mof\"]\n";
    let document = Document::parse("f.toml", text).unwrap();
    let mut root = document.root();
    assert!(IdentityConfig::read(&mut root.required_table("identity").unwrap()).is_none());
    drop(root);
    let found: Vec<String> = document
        .finish()
        .unwrap_err()
        .0
        .iter()
        .map(|problem| problem.to_string())
        .collect();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert_eq!(
        found[3],
        "f.toml:4:10: `names` must hold patterns like \"agency/mof/*\" or \"agency/mof/forwarder/web-*\"; \"agency/mof\" has \
         the wrong number of parts"
    );
}
