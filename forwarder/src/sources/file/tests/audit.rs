//! Events of an audit log, read as files are.

use super::*;

fn audit() -> Host {
    let mut host = Host::new(&["audit.log"]);
    host.config.records = Records::Audit;
    host.config.max_record = 64 << 10;
    host.turn();
    host
}

fn record(serial: u64, rest: &str) -> String {
    let (kind, fields) = rest.split_once(' ').unwrap_or((rest, ""));
    format!("type={kind} msg=audit(1700000000.123:{serial}): {fields}")
}

const LOGIN: [&str; 3] = [
    "SYSCALL arch=c000003e syscall=59 success=yes exit=0 a0=1 items=2 ppid=1 pid=77 auid=1000 uid=0 comm=\"id\" exe=2F746D702F6120622F6964 key=726F6F74016577\x1dARCH=x86_64 SYSCALL=execve",
    "EXECVE argc=3 a0=\"id\" a1=\"-u\" a2=6120C3A4",
    "PROCTITLE proctitle=6964",
];

/// TAILING 40: each event is whole, byte for byte and in the order of the file, with what is known of it.
#[test]
fn records_of_one_event_become_one_event_with_its_facts() {
    let mut host = audit();
    let other = record(
        8,
        "USER_LOGIN pid=1 uid=0 auid=4294967295 msg='op=login acct=\"root\" exe=\"/usr/sbin/sshd\" res=failed'",
    );
    let own: Vec<String> = LOGIN.iter().map(|line| record(7, line)).collect();
    host.append("audit.log", format!("{}\n{}\n{other}\n", own[0], own[1]));
    host.turn();
    host.expect(&[]);
    host.append("audit.log", format!("{}\nno record\n", own[2]));
    host.turn();
    host.expect(&[&own.join("\n"), &other, "no record"]);
    let records = host.records();
    let says = |at: usize, name: &str| records[at].attribute(name);
    for (name, value) in [
        ("audit.serial", "7"),
        ("audit.types", "SYSCALL,EXECVE,PROCTITLE"),
        ("audit.syscall", "59"),
        ("audit.syscall.name", "execve"),
        ("audit.success", "yes"),
        ("audit.auid", "1000"),
        ("audit.uid", "0"),
        ("audit.pid", "77"),
        ("audit.comm", "id"),
        ("audit.exe", "/tmp/a b/id"),
        ("audit.key", "root,ew"),
        ("process.command_args", "[\"id\",\"-u\",\"a ä\"]"),
    ] {
        assert_eq!(says(0, name), Some(value), "{name}");
    }
    assert_eq!(says(0, "audit.incomplete"), None);
    assert_eq!(records[0].time, Some(1_700_000_000_123_000_000));
    assert_eq!(
        (says(1, "audit.acct"), says(1, "audit.success")),
        (Some("root"), Some("no"))
    );
    assert_eq!(
        (says(1, "audit.auid"), says(1, "audit.incomplete")),
        (None, None)
    );
    assert_eq!((records[2].time, says(2, "audit.serial")), (None, None));
}

/// TAILING 40: without an end an event is sent after the timeout, and says so; a stop before leaves it in the file.
#[test]
fn an_event_without_an_end_is_sent_after_the_timeout_and_says_so() {
    let mut host = audit();
    let (first, late) = (record(1, LOGIN[0]), record(1, LOGIN[2]));
    let lone = record(2, "CONFIG_CHANGE op=set audit_enabled=0 old=1 res=1");
    host.append("audit.log", format!("{first}\n{lone}\n"));
    host.turns(2);
    host.expect(&[]);
    host.restart();
    host.turns(4);
    host.expect(&[&first, &lone]);
    host.append("audit.log", format!("{late}\n"));
    host.turn();
    host.expect(&[&first, &lone, &late]);
    let incomplete: Vec<bool> = (host.records().iter())
        .map(|record| record.attribute("audit.incomplete").is_some())
        .collect();
    assert_eq!(
        incomplete,
        [true, false, false],
        "a lone PROCTITLE shows no part of a system call"
    );
    host.append("audit.log", record(3, "PATH item=0"));
    host.turns(8);
    let records = host.records();
    assert_eq!(records[3].attribute("watchline.partial"), Some("true"));
}

/// TAILING 41.
#[test]
fn arguments_of_a_program_are_whole_however_many_and_long() {
    let mut host = audit();
    host.config.max_record = 1 << 20;
    host.restart();
    let mut args: Vec<String> = (0..3000).map(|n| format!("arg-{n}")).collect();
    args[1] = "with blank \u{e4} \u{1}".to_owned();
    args[2] = "x".repeat(20_000);
    args[3] = "long \u{20ac} ".repeat(2000);
    let mut lines = vec![record(5, LOGIN[0])];
    let mut line = format!("EXECVE argc={}", args.len());
    for (no, arg) in args.iter().enumerate() {
        let plain = arg
            .bytes()
            .all(|byte| byte > 0x20 && byte < 0x7f && byte != b'"');
        if arg.len() > 7500 {
            let len = if plain { arg.len() } else { 2 * arg.len() };
            line.push_str(&format!(" a{no}_len={len}"));
            for (part, bytes) in arg.as_bytes().chunks(3000).enumerate() {
                if line.len() > 7000 {
                    lines.push(record(
                        5,
                        &std::mem::replace(&mut line, "EXECVE".to_owned()),
                    ));
                }
                let value = if plain {
                    format!("\"{}\"", str::from_utf8(bytes).unwrap())
                } else {
                    hex::encode_upper(bytes)
                };
                line.push_str(&format!(" a{no}[{part}]={value}"));
            }
            continue;
        }
        let value = if plain {
            format!("\"{arg}\"")
        } else {
            hex::encode_upper(arg)
        };
        line.push_str(&format!(" a{no}={value}"));
        if line.len() > 7000 {
            lines.push(record(
                5,
                &std::mem::replace(&mut line, "EXECVE".to_owned()),
            ));
        }
    }
    lines.push(record(5, &line));
    lines.push(record(5, LOGIN[2]));
    for chunk in (lines.join("\n") + "\n").as_bytes().chunks(50_000) {
        host.append("audit.log", chunk);
        host.turn();
    }
    host.expect(&[&lines.join("\n")]);
    let event = &host.records()[0];
    let mut json = String::new();
    for part in 0.. {
        let name = match part {
            0 => "process.command_args".to_owned(),
            part => format!("process.command_args.{part}"),
        };
        let Some(text) = event.attribute(&name) else {
            break;
        };
        json.push_str(text);
    }
    let found: Vec<String> = serde_json::from_str(&json).unwrap();
    assert!(found == args, "arguments differ");
    assert_eq!(event.attribute("audit.incomplete"), None);
}

/// TAILING 42.
#[test]
fn records_that_the_kernel_lost_are_a_gap_with_their_number_where_it_is_known() {
    let mut host = audit();
    let report = |serial: u64, lost: u64| {
        record(
            serial,
            &format!("KERNEL audit_lost={lost} audit_rate_limit=0"),
        )
    };
    host.append("audit.log", format!("{}\n{}\n", report(1, 5), report(2, 5)));
    host.turn();
    host.append("audit.log", format!("{}\n", report(3, 12)));
    host.turn();
    host.append(
        "audit.log",
        record(4, "CONFIG_CHANGE op=set lost=0 old=13 auid=0 res=1") + "\n",
    );
    host.turns(4);
    host.append("audit.log", format!("{}\n", report(5, 2)));
    host.append(
        "audit.log",
        record(
            6,
            "USER_CMD msg='cmd=audit_lost=99 audit_lost=99 res=success'",
        ) + "\n",
    );
    host.turn();
    let records: Vec<Option<&str>> = (host.gaps().iter())
        .map(|gap| gap.attribute("watchline.gap.records"))
        .collect();
    assert_eq!(records, [None, Some("7"), Some("1"), Some("2")]);
    let reason = host.gaps()[0].attribute("watchline.gap.reason");
    assert_eq!(reason, Some("audit_lost"));
    assert_eq!(host.records().len(), 6);
}

#[test]
fn what_is_masked_in_the_records_is_masked_in_what_is_decoded_of_them() {
    let mut host = audit();
    host.config.common.rules = vec![
        rules::filter("noise", "type=CWD", None),
        rules::filter("secret", "secret-[a-z]+", Some("#")),
    ];
    host.restart();
    let lines = [
        record(1, "SYSCALL syscall=59 comm=\"secret-x\""),
        record(
            1,
            "EXECVE argc=2 a0=\"secret-plain\" a1=7365637265742D686578",
        ),
        record(1, "PROCTITLE proctitle=00"),
        record(2, "CWD cwd=\"/\""),
        record(2, "PROCTITLE proctitle=00"),
    ];
    host.append("audit.log", lines.join("\n") + "\n");
    host.turn();
    let masked = lines[..3]
        .join("\n")
        .replace("secret-plain", "#")
        .replace("secret-x", "#");
    host.expect(&[&masked]);
    let event = &host.records()[0];
    assert_eq!(
        event.attribute("process.command_args"),
        Some("[\"#\",\"#\"]")
    );
    assert_eq!(event.attribute("audit.comm"), Some("#"));
    assert_eq!(event.attribute("watchline.mask"), Some("secret@7"));
    let filtered: Vec<(&str, u64)> = (host.filtered.iter())
        .map(|(name, &n)| (name.as_str(), n))
        .collect();
    assert_eq!(filtered, [("noise", 1), ("secret", 1)]);
}

#[test]
fn anomalies_are_warnings_and_alerts_find_them_by_severity() {
    let mut host = audit();
    host.rules = vec![AlertRule {
        name: "anomalies".into(),
        matches: Vec::new(),
        sources: Vec::new(),
        min_severity: Some(13),
        max_rate: 100,
        ..AlertRule::default()
    }];
    host.restart();
    let lines = [
        record(1, "ANOM_LOGIN_FAILURES pid=1"),
        record(2, "DAEMON_ABORT op=x"),
        record(3, "USER_AUTH pid=1"),
    ];
    host.append("audit.log", lines.join("\n") + "\n");
    host.turn();
    let mut found: Vec<(String, u8, bool)> = (host.records().iter())
        .map(|r| {
            (
                String::from_utf8_lossy(&r.body).into(),
                r.severity,
                r.lane == Lane::Alert,
            )
        })
        .collect();
    found.sort();
    let expected = [(13, true), (17, true), (0, false)];
    let mut expected: Vec<_> = (lines.into_iter().zip(expected))
        .map(|(line, (severity, alert))| (line, severity, alert))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
}

/// Bounded: what is larger than is held in memory comes in parts, of which nothing is missing.
#[test]
fn an_event_that_is_larger_than_a_record_may_be_comes_in_parts_that_say_so() {
    let mut host = audit();
    let path = format!("PATH item=0 name=\"{}\"", "x".repeat(900));
    let lines: Vec<String> = std::iter::once(record(1, LOGIN[0]))
        .chain((0..300).map(|_| record(1, &path)))
        .chain([record(1, LOGIN[2])])
        .collect();
    host.append("audit.log", lines.join("\n") + "\n");
    host.turns(5);
    let bodies = host.bodies();
    assert_eq!(bodies.join("\n"), lines.join("\n"));
    assert!((4..10).contains(&bodies.len()), "{}", bodies.len());
    let records = host.records();
    assert!(
        records
            .iter()
            .all(|record| record.attribute("audit.incomplete").is_some())
    );
    assert!(records.iter().all(|record| record.body.len() <= 64 << 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// TAILING 40: however records lie between each other, however the file grows and whenever the process is killed, each event is there once,
    /// with its own records in their order.
    #[test]
    fn every_event_arrives_once_and_whole(
        order in prop::collection::vec((0..4_usize, 0..600_usize), 1..400),
        steps in prop::collection::vec((1..20_000_usize, 0..4_usize), 1..12),
    ) {
        let mut host = audit();
        host.config.max_record = 1 << 20;
        host.restart();
        // Four tasks that write events of three records each; whose turn it is, and how long the record is, is chosen.
        let mut open: [(u64, usize); 4] = [(0, 0); 4];
        let (mut serial, mut text) = (0, String::new());
        let mut expected: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut write = |task: usize, len: usize, open: &mut [(u64, usize); 4]| {
            let (no, records) = &mut open[task];
            if *records == 0 {
                serial += 1;
                *no = serial;
            }
            let kind = ["SYSCALL", "PATH", "PROCTITLE"][*records];
            let line = record(*no, &format!("{kind} x=\"{}\"", "y".repeat(len)));
            text.push_str(&line);
            text.push('\n');
            expected.entry(*no).or_default().push(line);
            *records = (*records + 1) % 3;
        };
        for (task, len) in order {
            write(task, len, &mut open);
        }
        for task in 0..4 {
            while open[task].1 > 0 {
                write(task, 10, &mut open);
            }
        }
        let mut from = 0;
        for (step, kill) in steps {
            let to = (from + step).min(text.len());
            host.append("audit.log", &text[from..to]);
            from = to;
            if kill < 2 {
                host.turn_until(kill);
                host.restart();
            } else {
                host.turn();
            }
        }
        host.append("audit.log", &text[from..]);
        host.turns(2);
        let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for record in host.records() {
            prop_assert_eq!(record.attribute("audit.incomplete"), None);
            let serial = record.attribute("audit.serial").unwrap().parse().unwrap();
            let lines = String::from_utf8_lossy(&record.body).lines().map(str::to_owned).collect();
            prop_assert!(found.insert(serial, lines).is_none(), "{} twice", serial);
        }
        prop_assert_eq!(found, expected);
    }
}
