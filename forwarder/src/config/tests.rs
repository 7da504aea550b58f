use super::*;
use crate::sources::file::{Encodings, Multiline};

fn read(text: &str) -> Result<Config, Vec<String>> {
    let document = Document::parse("/etc/watchline/forwarder.toml", text).unwrap();
    Config::from_document(document)
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

const LEAST: &str = "[identity]\ncertificate = \"a.pem\"\nprivate_key = \"a.key\"\ntrust_anchors = \"ca.pem\"\n\
    [uplink]\ncollectors = [\"https://127.0.0.1:7443\"]\n[spool]\ndirectory = \"spool\"\n\
    [[source]]\nname = \"auth\"\nkind = \"file\"\npaths = [\"/var/log/auth.log\", \"../logs/*.log\"]\n";

#[test]
fn what_is_left_out_has_a_default_and_paths_are_relative_to_the_file() {
    let config = read(LEAST).unwrap();
    assert_eq!(config.health.to_string(), "127.0.0.1:7480");
    let SpoolConfig {
        directory,
        max_bytes,
        when_full,
        sync,
    } = config.spool;
    assert_eq!(directory, Path::new("/etc/watchline/spool"));
    assert_eq!(
        (max_bytes, when_full, sync),
        (
            1 << 30,
            WhenFull::Block,
            Sync::Every(Duration::from_secs(1))
        )
    );
    assert_eq!(config.reloadable.uplink.heartbeat, Duration::from_secs(5));
    let SourceConfig::File(file) = &config.reloadable.sources[0] else {
        panic!("not a file");
    };
    assert_eq!(file.paths[1].as_str(), "/etc/watchline/../logs/*.log");
    assert_eq!(file.max_record, 256 << 10);
}

#[test]
fn the_sample_is_right_as_it_stands_and_with_everything_that_is_commented_out() {
    let sample = include_str!("../../../deploy/forwarder.toml");
    read(sample).unwrap();
    let all: Vec<&str> = sample
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .collect();
    let config = read(&all.join("\n")).unwrap();
    let names: Vec<&str> = (config.reloadable.alerts.iter())
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["sudo", "severe", "audit-off", "malware-found", "accounts"]
    );
    let default = read(sample).unwrap();
    assert!(
        config.needs_restart(&default).is_empty(),
        "what is commented out is the default"
    );
    let Reloadable {
        uplink, sources, ..
    } = default.reloadable;
    assert_eq!(
        (config.reloadable.uplink, config.reloadable.sources),
        (uplink, sources)
    );
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = LEAST.replace("paths = [", "paths = [\"/a/[b\", \"/\", ")
        + "exclude = [\"{a\"]\nmax_record = \"9MiB\"\nstart = 1\n[[source]]\nname = \"auth\"\nkind = \"fiel\"\npaths = []\n\
        [[source]]\nname = \"watchline\"\nkind = \"file\"\n\
        [[alert]]\nname = \"x\"\nmatches = [\"a(\", \"b\"]\nsources = [\"none\"]\nmin_severity = \"LOUD\"\n\
        [[alert]]\nname = \"x\"\n[labels]\nlevel = 3\n[batch]\nmax_size = \"1GiB\"\n";
    let found = read(&text).unwrap_err();
    let begins = [
        "12:10: `paths`: \"[b\" is not a path pattern",
        "12:19: `paths`: path `/` is not a file",
        "13:12: `exclude`: \"{a\" is not a path pattern",
        "14:14: `max_record` must be between",
        "15:1: unknown key `start`",
        "17:8: `name`: there is another source \"auth\"",
        "18:8: `kind` must be ",
        "19:9: `paths` must have at least one entry",
        "20:1: missing key `paths`",
        "21:8: `name` must not be \"watchline\"",
        "25:12: `matches`: \"a(\" is not a regular expression: unclosed group",
        "26:12: `sources`: there is no source \"none\"",
        "27:16: `min_severity` must be",
        "28:1: a rule needs `matches` or `min_severity`",
        "29:8: `name`: there is another rule \"x\"",
        "31:9: `level` must be a string",
        "33:12: `max_size` must be between",
    ];
    let found: Vec<&str> = found
        .iter()
        .map(|problem| problem.split_once(".toml:").unwrap().1)
        .collect();
    assert_eq!(found.len(), begins.len(), "{found:#?}");
    for (found, begins) in found.iter().zip(begins) {
        assert!(
            found.starts_with(begins),
            "{found}\nshould begin with\n{begins}"
        );
    }
}

#[test]
fn a_change_that_needs_a_restart_is_named() {
    let one = read(LEAST).unwrap();
    let other = read(
        &LEAST
            .replace("\"spool\"", "\"pool\"")
            .replace("a.pem", "b.pem")
            .replace("auth.log", "x.log"),
    );
    assert_eq!(
        one.needs_restart(&other.unwrap()),
        ["[identity]", "[spool]"]
    );
}

#[test]
fn labels_and_rules_of_a_source_are_read_and_every_mistake_in_them_is_reported() {
    let right = format!(
        "{LEAST}labels = {{ team = \"web\" }}\n\
         [[source.mask]]\nname = \"cards\"\nversion = \"2\"\nmatches = [\"[0-9]+\"]\nreplace = \"#\"\n\
         [[source.drop]]\nname = \"noise\"\nmatches = [\"^x\", \"\"]\n"
    );
    let config = read(&right).unwrap();
    let SourceConfig::File(file) = &config.reloadable.sources[0] else {
        panic!("not a file");
    };
    assert_eq!(file.common.labels["team"], "web");
    let rules: Vec<String> = (file.common.rules.iter())
        .map(|rule| format!("{}@{} {}", rule.name, rule.version, rule.action.as_str()))
        .collect();
    assert_eq!(rules, ["noise@1 drop", "cards@2 mask"]);
    let wrong = format!(
        "{LEAST}[[source.drop]]\nname = \"a@b\"\nmatches = [\"(\"]\n\
         [[source.mask]]\nname = \"m\"\nmatches = [\"x*\"]\n[[source.mask]]\nname = \"m\"\nmatches = []\n\
         [[source.mask]]\nreplace = \"{}\"\n",
        "x".repeat(65)
    );
    let problems = read(&wrong).unwrap_err().join("\n");
    for expected in [
        "`name` must be 1 to 63",
        "is not a regular expression",
        "finds the empty text",
        "has another rule \"m\"",
        "`matches` must have at least one entry",
        "`replace` must be at most 64",
        "missing key `name`",
        "missing key `matches`",
    ] {
        assert!(problems.contains(expected), "{expected} in:\n{problems}");
    }
}

#[test]
fn encoding_and_records_of_several_lines_are_read_and_mistakes_in_them_reported() {
    let more = "encoding = \"auto\"\nignore_older = \"90d\"\nmultiline = { start = \"^x\" }\n";
    let config = read(&format!("{LEAST}{more}")).unwrap();
    let SourceConfig::File(file) = &config.reloadable.sources[0] else {
        panic!("not a file");
    };
    assert_eq!(file.encoding, Encodings::Auto);
    assert_eq!(file.ignore_older, Some(Duration::from_secs(90 * 24 * 3600)));
    let timeout = Duration::from_secs(2);
    assert_eq!(
        file.multiline,
        Some(Multiline {
            start: "^x".into(),
            timeout
        })
    );
    let wrong = "encoding = \"latin-1\"\nmultiline = { start = \"(\" }\n";
    let problems = read(&format!("{LEAST}{wrong}")).unwrap_err().join("\n");
    for expected in [
        "`encoding` must be \"utf-8\" or",
        "`start`: \"(\" is not a regular",
    ] {
        assert!(problems.contains(expected), "{expected} in:\n{problems}");
    }
    let problems = read(&format!("{LEAST}multiline = {{}}\n")).unwrap_err();
    assert!(problems[0].contains("missing key `start`"), "{problems:?}");
}

#[test]
fn a_journal_has_keys_of_its_own() {
    let journal = format!("{LEAST}[[source]]\nname = \"j\"\nkind = \"journald\"\n");
    let SourceConfig::Journald(least) = read(&journal).unwrap().reloadable.sources[1].clone()
    else {
        panic!("the second source is a journal")
    };
    assert_eq!(
        (least.directory, least.units, least.min_priority),
        (None, None, None)
    );
    assert_eq!(
        (least.max_record, least.journalctl),
        (256 << 10, "journalctl".into())
    );
    let all = journal.clone()
        + "directory = \"journal\"\nunits = [\"ssh\", \"*.mount\"]\nmin_priority = \"err\"\nstart_at = \"end\"\n\
           max_record = \"4KiB\"\njournalctl = \"bin/journalctl\"\nlabels = { a = \"b\" }\n";
    let SourceConfig::Journald(all) = read(&all).unwrap().reloadable.sources[1].clone() else {
        panic!("the second source is a journal")
    };
    assert_eq!(all.directory.unwrap(), Path::new("/etc/watchline/journal"));
    assert_eq!(all.journalctl, Path::new("/etc/watchline/bin/journalctl"));
    assert_eq!((all.min_priority, all.max_record), (Some(3), 4096));
    assert!(all.units.is_some() && !all.common.labels.is_empty());
    let wrong =
        journal + "units = [\"a[\"]\nmin_priority = \"error\"\npaths = []\njournalctl = \"\"\n";
    let found = read(&wrong).unwrap_err();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].contains("`units`: \"a[\""), "{found:#?}");
    assert!(found[1].contains("`min_priority` must be"), "{found:#?}");
    assert!(found[2].contains("unknown key `paths`"), "{found:#?}");
    assert!(
        found[3].contains("`journalctl` must not be empty"),
        "{found:#?}"
    );
}

#[test]
fn built_in_rules_are_on_and_can_be_switched_off_or_replaced_by_name() {
    let names = |more: &str| -> Vec<String> {
        let config = read(&format!("{LEAST}{more}")).unwrap();
        let rules = config.reloadable.alerts.into_iter();
        rules
            .map(|rule| format!("{} {}", rule.name, rule.max_rate))
            .collect()
    };
    assert_eq!(
        names(""),
        ["audit-off 20", "malware-found 20", "accounts 20"]
    );
    assert_eq!(names("[lanes]\nbuiltin_rules = false\n"), [""; 0]);
    assert_eq!(
        names("[lanes]\ndisable = [\"accounts\", \"logs-cleared\"]\n"),
        ["audit-off 20", "malware-found 20"]
    );
    assert_eq!(
        names("[[alert]]\nname = \"accounts\"\nmatches = [\"useradd\"]\n"),
        ["accounts 100", "audit-off 20", "malware-found 20"]
    );
    let problems = read(&format!("{LEAST}[lanes]\ndisable = [\"account\"]\n")).unwrap_err();
    assert!(problems[0].contains("there is no built-in rule \"account\"; there are logs-cleared"));
}

#[test]
fn the_log_of_the_audit_daemon_needs_no_more_than_its_kind() {
    let more = "[[source]]\nname = \"audit\"\nkind = \"audit\"\n";
    let config = read(&format!("{LEAST}{more}")).unwrap();
    let SourceConfig::File(audit) = &config.reloadable.sources[1] else {
        panic!("another kind");
    };
    assert_eq!(audit.records.kind(), "audit");
    assert_eq!(audit.paths[0].as_str(), "/var/log/audit/audit.log");
    assert_eq!(audit.max_record, 1 << 20);
    let wrong = "paths = []\nmax_record = \"2MiB\"\nmultiline = { start = \"x\" }\n";
    let problems = read(&format!("{LEAST}{more}{wrong}"))
        .unwrap_err()
        .join("\n");
    for expected in [
        "`paths` must have at least one entry",
        "`max_record` must be between 64KiB and 1MiB",
        "unknown table [source.multiline]",
    ] {
        assert!(problems.contains(expected), "{expected} in:\n{problems}");
    }
}

#[test]
fn event_files_have_keys_of_their_own() {
    let evtx =
        format!("{LEAST}[[source]]\nname = \"w\"\nkind = \"evtx\"\npaths = [\"evtx/*.evtx\"]\n");
    let SourceConfig::Evtx(least) = read(&evtx).unwrap().reloadable.sources[1].clone() else {
        panic!("the second source is one of event files")
    };
    assert_eq!(least.paths[0].as_str(), "/etc/watchline/evtx/*.evtx");
    assert_eq!(least.max_record, 256 << 10);
    let wrong =
        evtx.replace("paths = [\"evtx", "path = [\"evtx") + "start_at = \"now\"\nunits = []\n";
    let found = read(&wrong).unwrap_err();
    assert_eq!(found.len(), 4, "{found:#?}");
}
