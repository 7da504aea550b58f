//! The senders that hosts really have: util-linux' `logger` and Debian's `rsyslogd`.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use super::*;

/// Runs `logger` to its end.
fn logger(arguments: &[&str]) {
    let status = Command::new("logger")
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .expect("`logger` is needed (Debian: bsdutils); tests/run installs it");
    assert!(status.success(), "logger {arguments:?}: {status}");
}

/// A running rsyslogd, ended when dropped. What is written to its input socket goes where `action` says.
struct Rsyslog {
    process: Child,
    input: PathBuf,
    _dir: tempfile::TempDir,
}

impl Rsyslog {
    fn start(global: &str, action: &str) -> Rsyslog {
        let dir = tempfile::tempdir().unwrap();
        let (input, config) = (dir.path().join("input"), dir.path().join("rsyslog.conf"));
        let text = format!(
            "global(workDirectory=\"{0}\" {global})\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{1}\" RateLimit.Interval=\"0\")\n\
             action(type=\"omfwd\" action.resumeRetryCount=\"-1\" {action})\n",
            dir.path().display(),
            input.display(),
        );
        fs::write(&config, text).unwrap();
        let process = Command::new("/usr/sbin/rsyslogd")
            .args(["-n", "-f"])
            .arg(&config)
            .arg("-i")
            .arg(dir.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`/usr/sbin/rsyslogd` is needed (Debian: rsyslog); tests/run installs it");
        Rsyslog {
            process,
            input,
            _dir: dir,
        }
    }

    /// Hands it one record, once it takes records.
    fn log(&self, record: &str) {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let since = Instant::now();
        while socket.send_to(record.as_bytes(), &self.input).is_err() {
            assert!(since.elapsed() < LONG, "rsyslogd does not open its socket");
            std::thread::yield_now();
        }
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn logger_is_understood_on_every_way_and_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let datagram = dir.path().join("datagram");
    let stream = dir.path().join("stream");
    let mut host = Host::listening(&[
        "udp://127.0.0.1:0",
        "tcp://127.0.0.1:0",
        &format!("unix://{}", datagram.display()),
        &format!("unix-stream://{}", stream.display()),
    ]);
    let (udp, tcp) = (host.port(0).to_string(), host.port(1).to_string());
    let network = |kind: &'static str, port: &str, form: &[&str]| {
        let mut arguments = vec!["--server", "127.0.0.1", "--port", port, kind];
        arguments.extend_from_slice(form);
        arguments.extend([
            "--priority",
            "authpriv.err",
            "--tag",
            "portal",
            "--id=4711",
            "out of order",
        ]);
        logger(&arguments);
    };
    let forms: [&[&str]; 4] = [
        &["--rfc5424"],
        &["--rfc3164"],
        &["--rfc5424", "--octet-count"],
        &["--rfc3164", "--octet-count"],
    ];
    let mut count = 0;
    for form in &forms[..2] {
        network("--udp", &udp, form);
        count += 1;
        host.wait_for_events(count);
    }
    for form in forms {
        network("--tcp", &tcp, form);
        count += 1;
        host.wait_for_events(count);
    }
    for socket in [&datagram, &stream] {
        let socket = socket.to_str().unwrap();
        logger(&[
            "--socket",
            socket,
            "--priority",
            "authpriv.err",
            "--tag",
            "portal",
            "--id=4711",
            "out of order",
        ]);
        count += 1;
        host.wait_for_events(count);
    }
    for (no, event) in host.stored.iter().enumerate() {
        assert!(
            event.text().starts_with("<83>") && event.text().ends_with("out of order"),
            "{event:?}"
        );
        assert_eq!(
            (event.severity, event.attribute("syslog.facility")),
            (17, Some("authpriv"))
        );
        assert_eq!(
            event.attribute("syslog.appname"),
            Some("portal"),
            "{event:?}"
        );
        assert_eq!(event.attribute("syslog.procid"), Some("4711"), "{event:?}");
        assert_eq!(event.attribute("watchline.partial"), None, "{no}");
        assert_eq!(
            event.attribute("syslog.hostname").is_some(),
            no < 6,
            "{event:?}"
        );
        let observed = Moment::now().unix_nano;
        let time = event.time_unix_nano.unwrap();
        assert!(time.abs_diff(observed) < 3_600_000_000_000, "{event:?}");
    }
    assert_eq!(
        host.stored
            .iter()
            .filter(|event| event.text().starts_with("<83>1 "))
            .count(),
        3
    );
}

#[test]
fn rsyslog_is_understood_over_udp_and_in_both_framings_over_tcp() {
    for (protocol, framing) in [
        ("udp", "traditional"),
        ("tcp", "traditional"),
        ("tcp", "octet-counted"),
    ] {
        for template in ["RSYSLOG_ForwardFormat", "RSYSLOG_SyslogProtocol23Format"] {
            let mut host = Host::listening(&[&format!("{protocol}://127.0.0.1:0")]);
            let action = format!(
                "target=\"127.0.0.1\" port=\"{}\" protocol=\"{protocol}\" TCP_Framing=\"{framing}\" template=\"{template}\"",
                host.port(0)
            );
            let rsyslog = Rsyslog::start("", &action);
            for no in 0..20 {
                rsyslog.log(&format!("<86>Nov 23 09:15:02 sudo[77]: record {no}"));
            }
            let of_ours = |host: &Host| {
                let ours = host
                    .stored
                    .iter()
                    .filter(|event| event.text().contains("record "));
                ours.cloned().collect::<Vec<_>>()
            };
            host.wait("20 records", |host| of_ours(host).len() >= 20);
            for (no, event) in of_ours(&host).iter().enumerate() {
                // Some of its templates end in a line feed, which is then a part of the record.
                assert!(
                    event.text().trim_end().ends_with(&format!("record {no}")),
                    "{event:?}"
                );
                assert_eq!(event.severity, 9);
                assert!(event.time_unix_nano.is_some(), "{event:?}");
                assert!(event.attribute("syslog.hostname").is_some());
                assert_eq!(event.attribute("syslog.appname"), Some("sudo"));
                assert_eq!(event.attribute("syslog.procid"), Some("77"));
            }
        }
    }
}

/// An authority and what it has issued, as files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test anchors");
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, dir: &Path, name: &str, usage: ExtendedKeyUsagePurpose) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        write_key(&dir.join(format!("{name}.key")), &key.serialize_pem());
    }
}

fn write_key(path: &Path, pem: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, pem).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A host that listens over TLS, with the files beside it.
fn tls_host(client_names: &[&str]) -> (Host, tempfile::TempDir, Authority) {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let path = dir.path();
    fs::write(path.join("ca.pem"), &authority.certificate).unwrap();
    authority.issue(path, "collector.test", ExtendedKeyUsagePurpose::ServerAuth);
    for client in ["web-1.test", "web-2.test"] {
        authority.issue(path, client, ExtendedKeyUsagePurpose::ClientAuth);
    }
    let mut host = Host::new(&["tls://127.0.0.1:0"]);
    host.config.tls = Some(TlsFiles {
        certificate: path.join("collector.test.pem"),
        private_key: path.join("collector.test.key"),
        client_anchors: path.join("ca.pem"),
        client_names: client_names.iter().map(|&name| name.to_owned()).collect(),
    });
    (host, dir, authority)
}

fn rsyslog_over_tls(port: u16, dir: &Path, name: &str, driver: &str) -> Rsyslog {
    let file = |name: &str| dir.join(name).display().to_string();
    let global = format!(
        "DefaultNetstreamDriver=\"{driver}\" DefaultNetstreamDriverCAFile=\"{}\" \
         DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\"",
        file("ca.pem"),
        file(&format!("{name}.pem")),
        file(&format!("{name}.key")),
    );
    let action = format!(
        "target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\" \
         StreamDriver=\"{driver}\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/name\" \
         StreamDriverPermittedPeers=\"collector.test\" action.resumeInterval=\"1\""
    );
    Rsyslog::start(&global, &action)
}

#[test]
fn rsyslog_over_tls_with_a_certificate_of_its_own_is_known_by_it() {
    for driver in ["gtls", "ossl"] {
        let (mut host, dir, _authority) = tls_host(&["web-1.test"]);
        host.wait_until_bound();
        let rsyslog = rsyslog_over_tls(host.port(0), dir.path(), "web-1.test", driver);
        rsyslog.log("<86>Nov 23 09:15:02 sudo[77]: over TLS");
        let is_ours = |event: &Event| event.text().ends_with("over TLS");
        host.wait(driver, |host| host.stored.iter().any(is_ours));
        let event = host.stored.iter().find(|event| is_ours(event)).unwrap();
        assert_eq!(event.attribute("tls.client.subject"), Some("CN=web-1.test"));
        assert_eq!(event.attribute("network.transport"), Some("tcp"));
    }
}

#[test]
fn a_sender_whose_name_is_not_listed_or_without_a_certificate_is_not_heard() {
    let (mut host, dir, _authority) = tls_host(&["web-1.test"]);
    host.wait_until_bound();
    let port = host.port(0);
    let _stranger = {
        let rsyslog = rsyslog_over_tls(port, dir.path(), "web-2.test", "gtls");
        rsyslog.log("<86>Nov 23 09:15:02 sudo[77]: not to be heard");
        rsyslog
    };
    host.wait("a refusal", |host| {
        host.metrics.syslog_closed_so_far(Closing::NotAllowed) > 0
    });
    let mut plain = host.tcp(0);
    plain.write_all(b"5 <13>a").unwrap();
    host.wait_for_closing(Closing::Tls, 1);
    let _silent = host.tcp(0);
    host.wait_for_closing(Closing::HandshakeTimeout, 1);
    assert_eq!(host.stored, []);
}

#[test]
fn certificates_are_taken_when_they_change_and_a_broken_set_leaves_the_last_one() {
    let (mut host, dir, authority) = tls_host(&[]);
    let key = dir.path().join("collector.test.key");
    let good = fs::read(&key).unwrap();
    fs::write(&key, "not a key").unwrap();
    host.wait_until_bound();
    host.wait("the trouble", |host| {
        host.source().status().trouble.is_some()
    });
    let _ = host.tcp(0);
    host.wait_for_closing(Closing::Tls, 1);
    fs::write(&key, good).unwrap();
    let rsyslog = rsyslog_over_tls(host.port(0), dir.path(), "web-2.test", "gtls");
    rsyslog.log("<86>Nov 23 09:15:02 sudo[77]: first");
    host.wait("the first", |host| {
        host.stored
            .iter()
            .any(|event| event.text().ends_with("first"))
    });
    assert_eq!(host.source().status().trouble, None);
    // A certificate that is there before its key.
    let other = tempfile::tempdir().unwrap();
    authority.issue(
        other.path(),
        "collector.test",
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    fs::copy(
        other.path().join("collector.test.pem"),
        dir.path().join("collector.test.pem"),
    )
    .unwrap();
    let second = rsyslog_over_tls(host.port(0), dir.path(), "web-1.test", "gtls");
    second.log("<86>Nov 23 09:15:02 sudo[77]: second");
    host.wait("the second", |host| {
        host.stored
            .iter()
            .any(|event| event.text().ends_with("second"))
    });
    assert!(host.source().status().trouble.is_some());
    drop(rsyslog);
    write_key(&key, "");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let _ = host.tcp(0);
    host.wait("the mode", |host| {
        host.source()
            .status()
            .trouble
            .is_some_and(|trouble| trouble.contains("chmod 600"))
    });
}
