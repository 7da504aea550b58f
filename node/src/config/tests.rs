use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const SECONDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Reads every kind of value there is, as a program would, and returns what was reported.
fn problems_of(text: &str) -> Vec<String> {
    let document = match Document::parse("config.toml", text) {
        Ok(document) => document,
        Err(problems) => return problems.0.iter().map(Problem::to_string).collect(),
    };
    let mut root = document.root();
    if let Some(mut identity) = root.required_table("identity") {
        identity.required_path("certificate");
        identity.required_path("private_key");
        identity.path("revocations");
        for mut trust in identity.tables("trust") {
            trust.required_path("anchors");
            trust.required_strings("names");
        }
    }
    if let Some(mut uplink) = root.table("uplink") {
        uplink.endpoints("collectors");
        uplink.duration("heartbeat", SECONDS);
        uplink.integer("retries", 0..=9);
    }
    if let Some(mut spool) = root.table("spool") {
        spool.size("max_size", 1 << 20..=1 << 40);
        spool.choice("when_full", &[("block", 0), ("drop_oldest", 1)]);
        spool.boolean("preallocate");
    }
    if let Some(mut health) = root.table("health") {
        health.address("listen");
    }
    if let Some(mut labels) = root.table("labels") {
        labels.string_map();
    }
    for mut source in root.tables("source") {
        source.required_string("name");
        source.strings("paths");
        source.string("kind");
    }
    drop(root);
    match document.finish() {
        Ok(()) => Vec::new(),
        Err(problems) => problems.0.iter().map(Problem::to_string).collect(),
    }
}

const GOOD: &str = r#"
[identity]
certificate = "host.pem"
private_key = "host.key"

[[identity.trust]]
anchors = "mof.pem"
names = ["agency/mof/*"]

[uplink]
collectors = ["https://127.0.0.1:7443", "https://[::1]:7443/"]
heartbeat = "5s"

[spool]
max_size = "512MiB"
when_full = "block"
preallocate = true

[labels]
"any key" = "x"

[[source]]
name = "auth"
"#;

#[test]
fn a_right_file_has_no_problem() {
    assert_eq!(problems_of(GOOD), Vec::<String>::new());
}

#[test]
fn all_problems_come_at_once_in_the_order_of_their_places() {
    let text = r#"[identity]
certifcate = "ü.pem"
private_key = 7
[[identity.trust]]
names = []
[uplink]
collectors = ["https://a:1", "http://b:2", "https://c", "https://a:1", 3]
heartbeat = "2h"
retries = 10
[spol]
[spool]
max_size = 512
when_full = "blok"
preallocate = "yes"
[health]
listen = "localhost:7480"
[labels]
level = 3
[[source]]
kind = ["file"]
"#;
    assert_eq!(
        problems_of(text),
        [
            "config.toml:1:1: missing key `certificate` in [identity], like: certificate = \"path/to/it\"",
            "config.toml:2:1: unknown key `certifcate` in [identity]; did you mean `certificate`?",
            "config.toml:3:15: `private_key` must be a string, like: private_key = \"text\"; found an integer",
            "config.toml:4:1: missing key `anchors` in [[identity.trust]], like: anchors = \"path/to/it\"",
            "config.toml:5:9: `names` must have at least one entry",
            "config.toml:7:30: `collectors` must hold endpoints like \"https://host:7443\"; \"http://b:2\" must begin with https://",
            "config.toml:7:44: `collectors` must hold endpoints like \"https://host:7443\"; \"https://c\" has no port",
            "config.toml:7:57: `collectors` names \"https://a:1\" twice",
            "config.toml:7:72: `collectors` must be an array of strings; found an integer in it",
            "config.toml:8:13: `heartbeat` must be between 1s and 1h; found 2h",
            "config.toml:9:11: `retries` must be between 0 and 9; found 10",
            "config.toml:10:2: unknown table [spol]; did you mean `spool`?",
            "config.toml:12:12: `max_size` must be a size like \"64KiB\", \"512MiB\" or \"1GiB\", like: max_size = \"512MiB\"; found an integer",
            "config.toml:13:13: `when_full` must be \"block\" or \"drop_oldest\"; found \"blok\"; did you mean `block`?",
            "config.toml:14:15: `preallocate` must be true or false, like: preallocate = true; found a string",
            "config.toml:16:10: `listen` must be an IP address and port like \"127.0.0.1:7480\" or \"[::]:7443\"; found \"localhost:7480\"",
            "config.toml:18:9: `level` must be a string, like: level = \"text\"; found an integer",
            "config.toml:19:1: missing key `name` in [[source]], like: name = \"…\"",
            "config.toml:20:8: `kind` must be a string, like: kind = \"text\"; found an array",
        ]
    );
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let text = "[identity]\ncertificate = \"a\"\nprivate_key = \"b\"\n[labels]\n\"größe\" = \"ü\" \n\"ключ\" = 1\n[spool]\n";
    assert_eq!(
        problems_of(text),
        ["config.toml:6:10: `ключ` must be a string, like: ключ = \"text\"; found an integer"]
    );
}

#[test]
fn a_missing_table_is_reported_at_the_start_of_the_file() {
    assert_eq!(
        problems_of("# empty\n"),
        ["config.toml:1:1: missing table [identity]"]
    );
}

#[test]
fn each_line_with_broken_syntax_is_a_problem() {
    let found =
        problems_of("[identity]]\ncertificate = \nprivate_key = \"b\"\nprivate_key = \"c\"\n");
    let places: Vec<&str> = found
        .iter()
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(
        places,
        ["config.toml:1:11", "config.toml:2:15", "config.toml:4:1"],
        "{found:#?}"
    );
    assert_eq!(found[2], "config.toml:4:1: duplicate key");
}

#[test]
fn a_table_in_the_place_of_a_value_is_reported_and_so_is_the_reverse() {
    let found = problems_of("identity = 3\nspool.max_size.a = 1\nsource = [1]\n[[uplink]]\n");
    assert_eq!(
        found,
        [
            "config.toml:1:12: `identity` must be a table: [identity]; found an integer",
            "config.toml:2:7: `max_size` must be a size like \"64KiB\", \"512MiB\" or \"1GiB\", like: max_size = \"512MiB\"; found a table",
            "config.toml:3:11: `source` must hold tables, written [[source]]; found an integer",
            "config.toml:4:1: `uplink` must be a table: [uplink]; found an array",
        ]
    );
}

#[test]
fn a_section_of_unknown_kind_hides_no_second_problem_in_its_keys() {
    let document = Document::parse("config.toml", "[a]\nkind = \"x\"\nother = 1\n").unwrap();
    let mut root = document.root();
    let mut section = root.table("a").unwrap();
    assert_eq!(section.choice::<()>("kind", &[("file", ())]), None);
    section.ignore_rest();
    drop((section, root));
    assert_eq!(document.finish().unwrap_err().0.len(), 1);
}

#[test]
fn an_unreadable_file_is_a_problem_at_its_first_character() {
    let problems = Document::read(Path::new("/nonexistent/config.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/nonexistent/config.toml:1:1: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_found_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, b"[spool]\nx = \"\xff\"\n").unwrap();
    let problems = Document::read(&file).unwrap_err();
    assert_eq!((problems.0[0].line, problems.0[0].column), (2, 6));
}

#[test]
fn paths_are_relative_to_the_file_and_know_one_variable() {
    let text = "a = \"x/y.pem\"\nb = \"/abs\"\nc = \"${CREDENTIALS_DIRECTORY}/k\"\nd = \"${HOME}/k\"\ne = \"\"\n";
    let read = |credentials: Option<PathBuf>| {
        let document = Document::parse("/etc/watchline/f.toml", text)
            .unwrap()
            .with_credentials_directory(credentials);
        let mut root = document.root();
        let paths = ["a", "b", "c", "d", "e"]
            .map(|key| root.path(key).map(|path| path.display().to_string()));
        drop(root);
        (
            paths,
            document
                .finish()
                .unwrap_err()
                .0
                .iter()
                .map(|problem| problem.line)
                .collect::<Vec<_>>(),
        )
    };
    let some = |path: &str| Some(path.to_owned());
    assert_eq!(
        read(Some("/run/credentials/w".into())),
        (
            [
                some("/etc/watchline/x/y.pem"),
                some("/abs"),
                some("/run/credentials/w/k"),
                None,
                None
            ],
            vec![4, 5]
        )
    );
    assert_eq!(
        read(None),
        (
            [
                some("/etc/watchline/x/y.pem"),
                some("/abs"),
                None,
                None,
                None
            ],
            vec![3, 4, 5]
        )
    );
}

#[test]
fn a_path_stays_relative_when_the_file_was_named_so() {
    let document = Document::parse("f.toml", "a = \"x.pem\"").unwrap();
    assert_eq!(document.root().path("a"), Some(PathBuf::from("x.pem")));
}

#[test]
fn sizes_are_read_and_printed_in_the_unit_that_leaves_no_fraction() {
    for (text, bytes, printed) in [
        ("512MiB", 512 << 20, "512MiB"),
        ("1.5GiB", 3 << 29, "1536MiB"),
        ("1kB", 1000, "1000B"),
        ("64 KiB", 65536, "64KiB"),
    ] {
        let size: ByteSize = text.parse().unwrap();
        assert_eq!((size.0, size.to_string().as_str()), (bytes, printed));
    }
    for wrong in [
        "512",
        "",
        "MiB",
        "-1MiB",
        "1e3",
        "1QiB",
        "99999999999999999999999999",
    ] {
        assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
    }
}

/// Pieces that configurations are made of, in any order: reaches deeper than random characters do.
fn toml_soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[identity]\n"),
        Just("[[identity.trust]]\n"),
        Just("[uplink]\n"),
        Just("[[source]]\n"),
        Just("[labels]\n"),
        Just("[spool"),
        Just("]"),
        Just("{"),
        Just("}"),
        Just("="),
        Just("."),
        Just(","),
        Just("\""),
        Just("\"\"\""),
        Just("'"),
        Just("certificate"),
        Just("collectors = ["),
        Just("max_size = "),
        Just("\"512MiB\""),
        Just("1979-05-27"),
        Just("0x"),
        Just("-"),
        Just("9999999999999999999999"),
        Just("\n"),
        Just("\r\n"),
        Just("#"),
        Just("\u{feff}"),
        Just("é"),
        Just("\\u00"),
        Just("a.b.c = 1\n"),
        Just("a.b = 1\n"),
        Just("[a]\n"),
        Just("[a.b]\n"),
        Just("[[a]]\n"),
        Just("${CREDENTIALS_DIRECTORY}"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![toml_soup(), any::<String>()]) {
        let lines = text.lines().count().max(1) + 1;
        for problem in problems_of(&text) {
            let line: usize = problem.split(':').nth(1).unwrap().parse().unwrap();
            prop_assert!((1..=lines).contains(&line), "{problem}");
        }
    }
}
