use std::{fs, os::unix::fs::PermissionsExt as _, time::SystemTime};

use clap::Parser;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use watchline_node::identity::{Identity, IdentityConfig, OwnState, Refused, peer_of};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A folder for a CA and for what it issues.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    /// With a CA in `ca`.
    fn with_ca() -> Place {
        let place = Place::new();
        place.done("init --dir ca --trust-domain watch.example");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `pki LINE`; what follows `--dir` and `--out` is a folder of this place.
    fn run(&self, line: &str) -> anyhow::Result<ExitCode> {
        let mut folder_next = false;
        let words = line.split_whitespace().map(|word| {
            let is_folder = std::mem::replace(&mut folder_next, word == "--dir" || word == "--out");
            if is_folder {
                self.path(word).display().to_string()
            } else {
                word.to_owned()
            }
        });
        execute(Cli::try_parse_from(std::iter::once("pki".to_owned()).chain(words))?.command)
    }

    fn done(&self, line: &str) {
        assert_eq!(self.run(line).unwrap(), ExitCode::SUCCESS, "{line}");
    }

    /// The error's first line, without this place's path.
    fn fails(&self, line: &str) -> String {
        let error = self.run(line).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }

    fn is_usage(&self, line: &str) {
        match self.run(line) {
            Ok(code) => assert_eq!(code, ExitCode::from(exit::USAGE), "{line}"),
            Err(error) => assert_eq!(
                error.downcast::<clap::Error>().unwrap().exit_code(),
                2,
                "{line}"
            ),
        }
    }

    fn identity(&self, out: &str, name: &str) -> IdentityConfig {
        IdentityConfig {
            certificate: self.path(out).join(format!("{name}.pem")),
            private_key: self.path(out).join(format!("{name}.key")),
            trust_anchors: self.path(out).join("ca.pem"),
            revocations: Some(self.path("ca/crl.pem")),
            trust: Vec::new(),
        }
    }

    fn certificate(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(file)).unwrap()
    }

    fn records(&self) -> Vec<Record> {
        Register::open(&self.path("ca")).unwrap().records().to_vec()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn days_until(time: SystemTime) -> u64 {
    let left = time.duration_since(SystemTime::now()).unwrap();
    (left + std::time::Duration::from_secs(60)).as_secs() / (24 * 3600)
}

#[test]
fn what_is_issued_loads_as_an_identity_with_its_defaults() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role forwarder --agency moh --name host-01 --out out/host-01");
    let loaded = Identity::load(&place.identity("out/host-01", "host-01"))
        .unwrap()
        .current();
    assert_eq!(
        loaded.id.to_string(),
        "spiffe://watch.example/agency/moh/forwarder/host-01"
    );
    assert_eq!(days_until(loaded.not_after), 397);
    assert_eq!(days_until(loaded.crl_next_update.unwrap()), 30);
    assert_eq!(loaded.own_state(SystemTime::now()), OwnState::Valid);

    let ca = place.certificate("ca/ca.pem");
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let life = ca.validity().not_after.timestamp() - ca.validity().not_before.timestamp();
    assert_eq!(life / (24 * 3600), 3650);
    assert!(ca.is_ca());
}

#[test]
fn keys_and_folders_are_private() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role center --name center-1 --out out");
    for file in ["ca/ca.key", "out/center-1.key"] {
        assert_eq!(mode(&place.path(file)), 0o600, "{file}");
    }
    for folder in ["ca", "out"] {
        assert_eq!(mode(&place.path(folder)), 0o700, "{folder}");
    }
}

#[test]
fn a_ca_key_that_others_can_read_is_refused() {
    let place = Place::with_ca();
    fs::set_permissions(place.path("ca/ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = place.fails("issue --dir ca --role center --name center-1 --out out");
    assert_eq!(
        error,
        "ca/ca.key is readable by group or others (mode 0640): run chmod 600"
    );
}

#[test]
fn certificates_say_what_their_role_needs_and_no_more() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role forwarder --agency moh --name f --out out --days 7");
    place.done("issue --dir ca --role collector --agency moh --name c --out out --dns c.moh.example --dns c --ip 192.0.2.1 --ip ::1");
    let mut serials = Vec::new();
    for (name, is_server) in [("f", false), ("c", true)] {
        let der = place.certificate(&format!("out/{name}.pem"));
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.client_auth, usage.server_auth), (true, is_server));
        assert!(!certificate.is_ca());
        let oids: Vec<String> = certificate
            .extensions()
            .iter()
            .map(|extension| extension.oid.to_id_string())
            .collect();
        // Subject and authority key identifiers.
        assert!(
            oids.contains(&"2.5.29.14".to_owned()) && oids.contains(&"2.5.29.35".to_owned()),
            "{oids:?}"
        );
        let serial = certificate.raw_serial();
        assert!(serial.len() == 16 && serial[0] & 0x80 == 0, "{serial:?}");
        serials.push(serial.to_vec());
        let now = x509_parser::time::ASN1Time::now().timestamp();
        assert!(certificate.validity().not_before.timestamp() <= now - 60);
    }
    assert_ne!(serials[0], serials[1]);
    assert_eq!(
        days_until(
            peer_of(&[place.certificate("out/f.pem")])
                .unwrap()
                .not_after
        ),
        7
    );
    let der = place.certificate("out/c.pem");
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = &certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    assert_eq!(
        names[..],
        [
            GeneralName::URI("spiffe://watch.example/agency/moh/collector/c"),
            GeneralName::DNSName("c.moh.example"),
            GeneralName::DNSName("c"),
            GeneralName::IPAddress(&[192, 0, 2, 1]),
            GeneralName::IPAddress(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ]
    );
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::with_ca();
    let before = fs::read(place.path("ca/ca.key")).unwrap();
    assert_eq!(
        place.fails("init --dir ca --trust-domain watch.example"),
        "ca/ca.pem exists already: nothing is ever overwritten"
    );
    assert_eq!(fs::read(place.path("ca/ca.key")).unwrap(), before);

    let issue = "issue --dir ca --role center --name z --out out";
    place.done(issue);
    assert_eq!(
        place.fails(issue),
        "out/z.pem exists already: nothing is ever overwritten"
    );
    fs::remove_file(place.path("out/z.pem")).unwrap();
    assert_eq!(
        place.fails(issue),
        "out/z.key exists already: nothing is ever overwritten"
    );
    assert_eq!(place.records().len(), 1);

    // The same ca.pem is fine, another's is not.
    place.done("issue --dir ca --role center --name y --out out");
    place.done("init --dir other --trust-domain watch.example");
    let error = place.fails("issue --dir other --role center --name x --out out");
    assert!(error.starts_with("out/ca.pem is another CA's"), "{error}");
    assert!(!place.path("out/x.pem").exists());
}

#[test]
fn a_revoked_certificate_is_refused_by_those_who_have_the_new_list() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role collector --agency moh --name c --out c");
    place.done("issue --dir ca --role forwarder --agency moh --name f --out f");
    let collector = Identity::load(&place.identity("c", "c")).unwrap();
    let peer = peer_of(&[place.certificate("f/f.pem")]).unwrap();
    assert_eq!(collector.still_valid(&peer), Ok(()));

    place.done("revoke --dir ca --name f");
    collector.reload().unwrap();
    assert_eq!(collector.still_valid(&peer), Err(Refused::Revoked));
    let other = peer_of(&[place.certificate("c/c.pem")]).unwrap();
    assert_eq!(collector.still_valid(&other), Ok(()));

    // Signed again, in the same second or a later one: still revoked, still newer than what is in force.
    place.done("crl --dir ca");
    place.done("revoke --dir ca --name f");
    collector.reload().unwrap();
    assert_eq!(collector.still_valid(&peer), Err(Refused::Revoked));
}

#[test]
fn what_to_revoke_must_be_one_certificate() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role forwarder --agency moh --name host --out a");
    place.done("issue --dir ca --role forwarder --agency mof --name host --out b");
    place.done("issue --dir ca --role collector --agency mof --name host --out c");
    let list = fs::read(place.path("ca/crl.pem")).unwrap();
    place.is_usage("revoke --dir ca --name host");
    place.is_usage("revoke --dir ca --name host --agency mof");
    assert!(
        place
            .records()
            .iter()
            .all(|record| record.revoked().is_none())
    );
    assert_eq!(fs::read(place.path("ca/crl.pem")).unwrap(), list);

    assert_eq!(
        place.fails("revoke --dir ca --name nobody"),
        "no certificate in ca/issued.jsonl matches"
    );
    assert_eq!(
        place.fails("revoke --dir ca --serial 00:11"),
        "no certificate in ca/issued.jsonl matches"
    );

    place.done("revoke --dir ca --name host --agency mof --role collector");
    // What is revoked no longer makes the name ambiguous.
    place.done("revoke --dir ca --name host --agency mof");
    let [first, second, third] = &place.records()[..] else {
        panic!("three were issued")
    };
    assert!(first.revoked().is_none() && second.revoked().is_some() && third.revoked().is_some());

    // A renewed name has two certificates: the serial number says which.
    place.done("issue --dir ca --role forwarder --agency moh --name host --out d");
    place.is_usage("revoke --dir ca --name host --agency moh");
    let with_colons: Vec<String> = hex::encode_upper(first.serial().as_bytes())
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect();
    place.done(&format!(
        "revoke --dir ca --serial {}",
        with_colons.join(":")
    ));
    assert!(place.records()[0].revoked().is_some() && place.records()[3].revoked().is_none());
}

#[test]
fn wrong_usage_is_told_before_anything_is_touched() {
    let place = Place::with_ca();
    for line in [
        "issue --dir ca --role center --agency moh --name z --out out",
        "issue --dir ca --role forwarder --name z --out out",
        "issue --dir ca --role printer --name z --out out",
        "issue --dir ca --role center --name ../z --out out",
        "issue --dir ca --role center --name ca --out out",
        "issue --dir ca --role center --name z --days 0 --out out",
        "issue --dir ca --role center --name z --ip host --out out",
        "issue --dir ca --role center --name z --dns *bad* --out out",
        "issue --dir ca --role center --name z",
        "init --dir x --trust-domain Watch.Example",
        "revoke --dir ca",
        "revoke --dir ca --name z --serial 11",
        "revoke --dir ca --serial 11 --agency moh",
        "revoke --dir ca --serial xyz",
    ] {
        place.is_usage(line);
    }
    assert!(!place.path("out").exists() && !place.path("x").exists());
    assert!(place.records().is_empty());
}

#[test]
fn a_folder_without_a_ca_is_one_clear_line() {
    let place = Place::new();
    for line in [
        "list --dir ca",
        "crl --dir ca",
        "revoke --dir ca --name z",
        "issue --dir ca --role center --name z --out out",
    ] {
        assert_eq!(
            place.fails(line),
            "opening ca/issued.jsonl: is this the folder of a CA made by `pki init`?"
        );
    }
}

#[test]
fn a_key_of_another_ca_is_refused() {
    let place = Place::with_ca();
    place.done("init --dir other --trust-domain watch.example");
    fs::copy(place.path("other/ca.key"), place.path("ca/ca.key")).unwrap();
    assert_eq!(
        place.fails("crl --dir ca"),
        "ca/ca.key does not belong to ca/ca.pem"
    );
}

#[test]
fn the_list_shows_what_was_issued_and_how_it_stands() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role forwarder --agency moh --name host-01 --out a");
    place.done("issue --dir ca --role center --name center-1 --out b --days 1");
    place.done("revoke --dir ca --name host-01");
    let records = place.records();
    let later = OffsetDateTime::now_utc() + time::Duration::days(2);
    let mut out = Vec::new();
    list::table(&records, later, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        format!(
            "{:<32}  ROLE       AGENCY  NAME      NOT AFTER   STATE",
            "SERIAL"
        )
    );
    let revoked = list::day(records[0].revoked().unwrap());
    let end = list::day(records[0].not_after());
    assert_eq!(
        lines[1],
        format!(
            "{}  forwarder  moh     host-01   {end}  revoked {revoked}",
            records[0].serial()
        )
    );
    assert!(
        lines[2].contains("  center     -       center-1  ") && lines[2].ends_with("  expired"),
        "{text}"
    );

    let mut out = Vec::new();
    list::json(&records, later, &mut out).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        found[0]["id"],
        "spiffe://watch.example/agency/moh/forwarder/host-01"
    );
    assert_eq!(
        (&found[0]["state"], &found[1]["state"]),
        (&"revoked".into(), &"expired".into())
    );
    assert_eq!(found[1]["agency"], serde_json::Value::Null);
    place.done("list --dir ca");
    place.done("list --dir ca --json");
}

#[test]
fn an_entry_that_a_crash_cut_off_is_no_entry() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role center --name z --out out");
    let file = place.path("ca/issued.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    for cut in [1, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(place.records().is_empty());
        assert_eq!(fs::read(&file).unwrap(), b"");
    }
    fs::write(&file, format!("{whole}{}", &whole[..9])).unwrap();
    assert_eq!(place.records().len(), 1);
    place.done("issue --dir ca --role center --name y --out out");
    assert_eq!(place.records().len(), 2);
}

#[test]
fn a_damaged_entry_is_named_and_not_skipped() {
    let place = Place::with_ca();
    place.done("issue --dir ca --role center --name z --out out");
    let file = place.path("ca/issued.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{whole}garbage\n")).unwrap();
    assert_eq!(
        place.fails("list --dir ca"),
        "ca/issued.jsonl:2: not an entry of this register"
    );
}

#[test]
fn two_at_once_take_turns() {
    let place = Place::with_ca();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for number in 0..4 {
                    let name = format!("host-{worker}-{number}");
                    place.done(&format!(
                        "issue --dir ca --role forwarder --agency moh --name {name} --out {name}"
                    ));
                    place.done(&format!("revoke --dir ca --name {name}"));
                }
            });
        }
    });
    let records = place.records();
    assert_eq!(records.len(), 16);
    assert!(records.iter().all(|record| record.revoked().is_some()));
    place.done("issue --dir ca --role collector --agency moh --name c --out c");
    let collector = Identity::load(&place.identity("c", "c")).unwrap();
    for record in &records {
        let peer =
            peer_of(&[place.certificate(&format!("{0}/{0}.pem", record.id().name()))]).unwrap();
        assert_eq!(collector.still_valid(&peer), Err(Refused::Revoked));
    }
}
