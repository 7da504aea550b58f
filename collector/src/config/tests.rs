use super::*;
use crate::outputs::config::FileFormat;

const DESIGN: &str = r#"
[identity]
certificate   = "collector-1.pem"
private_key   = "collector-1.key"
trust_anchors = "ca.pem"
revocations   = "crl.pem"

[[identity.trust]]                 # further anchors, each for its names only
anchors     = "mof-ca.pem"
revocations = "mof.crl"
names       = ["agency/mof/*"]

[ingest]
listen = "0.0.0.0:7443"

[buffer]
kind      = "embedded"
directory = "buffer"
max_size  = "20GiB"
max_age   = "30d"

[health]
listen = "127.0.0.1:7481"

[watch]
silent_after = "1m"

[[output]]
name      = "center"
kind      = "upstream"
endpoints = ["https://127.0.0.1:7543"]

[[output]]
name   = "events"
kind   = "file"
path   = "events.ndjson"
format = "ndjson"

[[output]]
name      = "evidence"
kind      = "archive"
directory = "archive"
"#;

const SMALLEST: &str = r#"
[identity]
certificate = "c.pem"
private_key = "c.key"
trust_anchors = "ca.pem"
[ingest]
listen = "127.0.0.1:7443"
[buffer]
directory = "buffer"
"#;

fn read(text: &str) -> Result<CollectorConfig, Problems> {
    CollectorConfig::of(Document::parse("/etc/watchline/collector.toml", text)?)
}

fn problems(text: &str) -> Vec<String> {
    let problems = read(text).unwrap_err().0;
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_of_the_design_is_read_as_it_stands() {
    let config = read(DESIGN).unwrap();
    assert_eq!(config.ingest.listen, "0.0.0.0:7443".parse().unwrap());
    assert_eq!(config.buffer.directory, Path::new("/etc/watchline/buffer"));
    assert_eq!(config.buffer.max_bytes, 20 << 30);
    assert_eq!(config.buffer.max_age, Duration::from_secs(30 * DAY));
    assert_eq!(config.watch.silent_after, Duration::from_secs(60));
    assert_eq!(config.identity.trust.len(), 1);
    let required: Vec<(&str, bool)> = config
        .outputs
        .iter()
        .map(|output| (output.name.as_str(), output.required))
        .collect();
    assert_eq!(
        required,
        [("center", true), ("events", false), ("evidence", false)]
    );
    let OutputKind::File(file) = &config.outputs[1].kind else {
        panic!("not a file output");
    };
    assert_eq!(
        (file.path.as_path(), file.format),
        (
            Path::new("/etc/watchline/events.ndjson"),
            FileFormat::Ndjson
        )
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = read(SMALLEST).unwrap();
    assert_eq!(config.buffer.max_bytes, DEFAULT_BUFFER_BYTES);
    assert_eq!(config.buffer.max_age, DEFAULT_BUFFER_AGE);
    assert_eq!(config.health.listen, "127.0.0.1:7481".parse().unwrap());
    assert_eq!(config.watch.silent_after, Duration::from_secs(60));
    assert_eq!(config.ingest.max_connections, DEFAULT_MAX_CONNECTIONS);
    assert!(config.outputs.is_empty());
}

#[test]
fn every_problem_is_said_with_its_place() {
    let text = r#"
colour = "blue"
[identity]
certificate = "c.pem"
[ingest]
listen = "localhost"
max_connections = 0
[[ingest.allow]]
peer = "center/province-a"
names = ["agency/*/forwarder/*/x"]
[buffer]
kind = "jetstream"
directory = "buffer"
max_size = "12"
max_age = "soon"
[watch]
silent_after = "1ms"
[[output]]
name = "events"
kind = "file"
path = "buffer/events.ndjson"
"#;
    let problems = problems(text);
    for (place, about) in [
        ("collector.toml:2:1", "colour"),
        ("collector.toml:3:1", "private_key"),
        ("collector.toml:3:1", "trust_anchors"),
        ("collector.toml:6:10", "listen"),
        ("collector.toml:7:19", "max_connections"),
        ("collector.toml:12:8", "kind"),
        ("collector.toml:14:12", "max_size"),
        ("collector.toml:15:11", "max_age"),
        ("collector.toml:17:16", "silent_after"),
        ("collector.toml:18:1", "lies in the buffer's directory"),
    ] {
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains(place) && problem.contains(about)),
            "{place} {about} is not among\n{}",
            problems.join("\n")
        );
    }
}

#[test]
fn the_tables_that_must_be_there_are_named() {
    let problems = problems("");
    for table in ["[identity]", "[ingest]", "[buffer]"] {
        assert!(
            problems.iter().any(|problem| problem.contains(table)),
            "{table}: {problems:?}"
        );
    }
}

#[test]
fn a_reload_says_what_needs_a_restart() {
    let old = read(DESIGN).unwrap();
    let reload = |from: &str, to: &str| {
        assert!(DESIGN.contains(from));
        old.needs_restart(&read(&DESIGN.replace(from, to)).unwrap())
    };
    assert!(reload("https://127.0.0.1:7543", "https://10.0.0.1:7543").is_empty());
    assert!(reload("\"1m\"", "\"5m\"").is_empty());
    assert_eq!(reload("0.0.0.0:7443", "0.0.0.0:7444"), ["[ingest]"]);
    assert_eq!(reload("20GiB", "10GiB"), ["[buffer]"]);
    assert_eq!(reload("127.0.0.1:7481", "127.0.0.1:7482"), ["[health]"]);
    assert_eq!(reload("\"ca.pem\"", "\"other.pem\""), ["[identity]"]);
    assert_eq!(reload("\"ndjson\"", "\"raw\""), ["[[output]]"]);
}

#[test]
fn the_samples_in_deploy_are_valid() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for sample in ["collector.toml", "center.toml"] {
        if let Err(problems) = CollectorConfig::read(&deploy.join(sample)) {
            panic!("{problems}");
        }
    }
}
