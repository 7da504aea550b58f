//! Encodings, records of several lines, every edge of a block.

use super::*;

fn bytes(host: &Host) -> Vec<Vec<u8>> {
    host.records()
        .iter()
        .map(|record| record.body.clone())
        .collect()
}

fn wide(encoding: Encoding, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding.encode(text, &mut bytes);
    bytes
}

/// Records of several lines, each beginning at a line without a space before it.
fn grouped(patterns: &[&str]) -> Host {
    let mut host = Host::new(patterns);
    host.config.multiline = Some(Multiline {
        start: "^\\S".into(),
        timeout: Duration::from_secs(2),
    });
    host.turn();
    host
}

/// TAILING 26.
#[test]
fn what_is_no_text_and_lines_without_anything_in_them_arrive_byte_for_byte() {
    let mut host = Host::running(&["a.log"]);
    let mut block = b"after a crash: ".to_vec();
    block.resize(600, 0);
    let records: [&[u8]; 9] = [
        b"\xff\xfe invalid UTF-8 \xc3",
        b"NUL \0 inside\0",
        &block,
        b"",
        b"",
        b"\r",
        b"lone \r inside",
        b"CR LF\r",
        b"\x85 \xe2\x80\xa8 no line ends\x0b\x0c",
    ];
    for record in records {
        host.append("a.log", record);
        host.append("a.log", "\n");
        host.turn();
    }
    assert_eq!(bytes(&host), records);
    assert_eq!(host.gaps(), [] as [&Record; 0]);
}

/// TAILING 26: the same for UTF-16, with a mark and without.
#[test]
fn utf_16_is_split_at_its_line_feeds_and_kept_byte_for_byte() {
    for encoding in [Encoding::Utf16Le, Encoding::Utf16Be] {
        for (choice, mark) in [
            (Encodings::Auto, "\u{feff}"),
            (Encodings::All(encoding), "\u{feff}"),
            (Encodings::All(encoding), ""),
        ] {
            let mut host = Host::new(&["a.log"]);
            host.config.encoding = choice;
            host.config.common.rules =
                vec![rules::filter("n", "^n\\S+ (?<secret>\\d+)", Some("#"))];
            host.rules = vec![AlertRule {
                name: "first".into(),
                matches: vec!["^first".into()],
                sources: Vec::new(),
                min_severity: None,
                max_rate: 1000,
                ..AlertRule::default()
            }];
            host.turn();
            let text = format!("{mark}first\r\n\n\u{a00}\u{a0a}\u{100} \u{1f600}\nnüm 12\nhalf");
            let all = wide(encoding, &text);
            // A byte at a time around the edges of its units.
            for chunk in all.chunks(3) {
                host.append("a.log", chunk);
                host.turn();
            }
            host.restart();
            host.turns(8);
            let expected: Vec<Vec<u8>> = text
                .replace("12", "#")
                .split('\n')
                .map(|line| wide(encoding, line))
                .collect();
            assert_eq!(bytes(&host), expected, "{encoding:?} {mark:?}");
            let records = host.records();
            assert_eq!(
                records[0].lane,
                Lane::Alert,
                "the mark is no part of the text"
            );
            assert_eq!(records[3].attribute("watchline.mask"), Some("n@7"));
            assert_eq!(records[4].attribute("watchline.partial"), Some("true"));
            let name = Some(if encoding == Encoding::Utf16Le {
                "utf-16le"
            } else {
                "utf-16be"
            });
            assert_eq!(records[0].attribute("log.file.encoding"), name);
            assert_eq!(host.gaps(), [] as [&Record; 0]);
        }
    }
}

#[test]
fn the_encoding_is_found_by_the_mark_of_each_file_and_no_mark_is_utf_8() {
    let mut host = Host::new(&["*.log"]);
    host.config.encoding = Encodings::Auto;
    host.turn();
    host.append("a.log", "\u{feff}plain\n");
    host.append("b.log", "plain\n");
    host.append("c.log", wide(Encoding::Utf16Be, "\u{feff}wide\n"));
    host.turns(2);
    let mut found = bytes(&host);
    found.sort();
    let mut expected = [
        "\u{feff}plain".as_bytes().to_vec(),
        b"plain".to_vec(),
        wide(Encoding::Utf16Be, "\u{feff}wide"),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_long_line_in_utf_16_is_cut_between_units() {
    let mut host = Host::new(&["a.log"]);
    host.config.encoding = Encodings::All(Encoding::Utf16Le);
    host.config.max_record = 1025;
    host.turn();
    for len in [512, 513, 700, 100_000] {
        host.sealed.clear();
        let line = wide(Encoding::Utf16Le, &"x".repeat(len));
        host.append("a.log", &line);
        host.append("a.log", wide(Encoding::Utf16Le, "\nnext\n"));
        host.turns(3);
        let expected = [
            line[..line.len().min(1024)].to_vec(),
            wide(Encoding::Utf16Le, "next"),
        ];
        assert_eq!(bytes(&host), expected, "{len}");
        let cut = (len > 512).then(|| (2 * len - 1024).to_string());
        assert_eq!(
            host.records()[0].attribute("watchline.truncated_bytes"),
            cut.as_deref()
        );
    }
    host.append("a.log", wide(Encoding::Utf16Le, &"y".repeat(2000)));
    host.turns(8);
    host.append("a.log", wide(Encoding::Utf16Le, "yy\nlast\n"));
    host.turns(2);
    assert_eq!(
        bytes(&host).last().unwrap(),
        &wide(Encoding::Utf16Le, "last")
    );
    assert_eq!(host.gaps()[0].attribute("watchline.gap.bytes"), Some("4"));
}

/// TAILING 27: complete with the next record, or after the timeout; open over a restart, at a rotation, at a shutdown.
#[test]
fn a_record_of_several_lines_is_whole_however_it_comes() {
    let mut host = grouped(&["app.log"]);
    host.append("app.log", "one\n  at a\r\n  at b\ntwo\n");
    host.turn();
    host.expect(&["one\n  at a\r\n  at b"]);
    host.append("app.log", "  at c\n");
    host.turn();
    host.restart();
    host.turn();
    host.expect(&["one\n  at a\r\n  at b"]);
    host.append("app.log", "  at d\n");
    host.rename("app.log", "app.log.1");
    host.append("app.log", "three\nfour\n");
    host.turn();
    host.restart();
    host.turns(5);
    let mut bodies = host.bodies();
    bodies.sort();
    assert_eq!(
        bodies,
        [
            "four",
            "one\n  at a\r\n  at b",
            "three",
            "two\n  at c\n  at d"
        ]
    );
    assert!(
        host.records()
            .iter()
            .all(|record| record.attribute("watchline.continuation").is_none())
    );
    assert_eq!(host.gaps(), [] as [&Record; 0]);
}

/// TAILING 27: after the timeout, what comes late is a record of its own that says so; a line without its end waits for `idle_flush`.
#[test]
fn what_comes_after_the_timeout_continues_the_record_before() {
    let mut host = grouped(&["a.log"]);
    host.append("a.log", "one\n  at a\n");
    host.turns(2);
    host.expect(&[]);
    host.turns(2);
    host.expect(&["one\n  at a"]);
    host.append("a.log", "  late\ntwo\n  hal");
    host.turns(4);
    host.expect(&["one\n  at a", "  late"]);
    host.turns(4);
    host.expect(&["one\n  at a", "  late", "two\n  hal"]);
    host.append("a.log", "f\n  more\nthr");
    host.turns(14);
    host.expect(&["one\n  at a", "  late", "two\n  hal", "f", "  more", "thr"]);
    let flags = |name: &str| -> Vec<bool> {
        host.records()
            .iter()
            .map(|record| record.attribute(name).is_some())
            .collect()
    };
    assert_eq!(
        flags("watchline.continuation"),
        [false, true, false, true, true, false]
    );
    assert_eq!(
        flags("watchline.partial"),
        [false, false, true, false, false, true]
    );
}

/// TAILING 27: bounded, and nothing of it is lost.
#[test]
fn a_record_of_several_lines_ends_before_it_is_too_long() {
    let mut host = grouped(&["a.log"]);
    let line = format!("  at {}", "x".repeat(95));
    let all = format!(
        "one\n{}two\n{}\nlast\n",
        format!("{line}\n").repeat(25),
        "  y".repeat(700)
    );
    for chunk in all.as_bytes().chunks(333) {
        host.append("a.log", chunk);
        host.turn();
    }
    host.turns(4);
    let bodies = host.bodies();
    let whole = bodies.iter().filter(|body| !body.starts_with("  y"));
    assert!(bodies.iter().all(|body| body.len() <= 1024));
    assert_eq!(
        bodies
            .iter()
            .filter(|body| body.starts_with("  at"))
            .count(),
        2
    );
    let together: Vec<&str> = whole.flat_map(|body| body.split('\n')).collect();
    let expected: Vec<&str> = all
        .lines()
        .filter(|line| !line.starts_with("  y"))
        .collect();
    assert_eq!(together, expected);
    let cut = host
        .records()
        .into_iter()
        .find(|record| record.body.starts_with(b"  y"))
        .unwrap();
    assert_eq!(cut.attribute("watchline.truncated_bytes"), Some("1076"));
    assert_eq!(host.gaps(), [] as [&Record; 0]);
}

/// TAILING 23: what was sent without its end is stored with the position behind it, so that neither a crash before nor one after repeats it
/// as another record.
#[test]
fn a_crash_around_the_flush_of_an_incomplete_line_makes_no_other_record() {
    for stored in [false, true] {
        let mut host = Host::running(&["a.log"]);
        host.append("a.log", "begun");
        host.turns(5);
        host.turn_until(usize::from(stored));
        host.restart();
        host.append("a.log", " and ended\nnext\n");
        host.turns(8);
        let bodies = host.bodies();
        let expected: &[&str] = if stored {
            &["begun", " and ended", "next"]
        } else {
            &["begun and ended", "next"]
        };
        assert_eq!(bodies, expected);
        let says = |at: usize| {
            host.records()[at]
                .attribute("watchline.continuation")
                .is_some()
        };
        assert_eq!((says(0), says(1)), (false, stored));
    }
}

#[test]
fn a_file_that_is_too_old_when_it_is_first_seen_is_begun_when_it_grows() {
    let age = |host: &Host, name: &str, seconds: u64| {
        let file = fs::File::options()
            .write(true)
            .open(host.path(name))
            .unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(seconds))
            .unwrap();
    };
    let mut host = Host::new(&["*.log"]);
    host.config.ignore_older = Some(Duration::from_secs(3600));
    host.append("old.log", "old\n");
    host.append("young.log", "young\n");
    age(&host, "old.log", 7200);
    host.turns(3);
    host.expect(&["young"]);
    // A position goes on, whatever the time says. TAILING 37: so does what grows.
    host.append("young.log", "more\n");
    age(&host, "young.log", 7200);
    host.restart();
    host.turns(2);
    host.expect(&["young", "more"]);
    host.append("old.log", "grown\n");
    age(&host, "old.log", 7200);
    host.turns(2);
    host.expect(&["young", "more", "old", "grown"]);
    age(&host, "young.log", 0);
    host.append("future.log", "future\n");
    let file = fs::File::options()
        .write(true)
        .open(host.path("future.log"))
        .unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(7200))
        .unwrap();
    host.turns(2);
    assert_eq!(host.bodies().last().unwrap(), "future");
}

/// Pieces of lines, with every kind of end.
fn texts() -> impl Strategy<Value = Vec<String>> {
    let line = prop_oneof![
        4 => "[ -~]{0,40}",
        2 => "[é€\u{1f600}\u{a0a}\u{100}]{0,20}",
        1 => (0..3000_usize).prop_map(|len| "€".repeat(len / 3)),
        1 => Just("\r".to_owned()),
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n"), Just("\r")];
    let piece = (line, end).prop_map(|(line, end)| line + end);
    prop::collection::vec(piece, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// TAILING 25: whatever block a look gets, however the file grew, the records are those between the line feeds.
    #[test]
    fn records_do_not_depend_on_where_a_read_ends(
        texts in texts(),
        steps in prop::collection::vec(1..5000_usize, 1..20),
        encoding in prop_oneof![Just(Encoding::Utf8), Just(Encoding::Utf16Le), Just(Encoding::Utf16Be)],
        several in any::<bool>(),
    ) {
        let mut host = Host::new(&["a.log"]);
        host.config.encoding = Encodings::All(encoding);
        host.config.max_record = 4096;
        if several {
            host.config.multiline = Some(Multiline { start: "^[a-zA-Z]".into(), timeout: Duration::from_secs(2) });
        }
        host.turn();
        let text = texts.concat() + "\n";
        let all = if encoding == Encoding::Utf8 { text.clone().into_bytes() } else { wide(encoding, &text) };
        let mut from = 0;
        for step in steps {
            let to = (from + step).min(all.len());
            host.append("a.log", &all[from..to]);
            from = to;
            host.turn();
            if step % 3 == 0 {
                host.restart();
            }
        }
        host.append("a.log", &all[from..]);
        host.turns(8);
        // Put together again they are the file, but for what was cut off; a long line is cut alike whatever the block.
        let cut = |record: &Record| record.attribute("watchline.truncated_bytes").is_some();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for record in host.records() {
            if cut(record) {
                lines.push(record.body.clone());
                continue;
            }
            let mut rest = &record.body[..];
            let framing = super::super::framing::Framing { encoding, start: None, max_record: 4096 };
            while let Some((end, next)) = framing.line(rest, 0, 0) {
                lines.push(rest[..end].to_vec());
                rest = &rest[next..];
            }
            lines.push(rest.to_vec());
        }
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for text_line in text[..text.len() - 1].split('\n') {
            let line = if encoding == Encoding::Utf8 { text_line.as_bytes().to_vec() } else { wide(encoding, text_line) };
            expected.push(line[..line.len().min(4096)].to_vec());
        }
        prop_assert_eq!(lines, expected);
        prop_assert!(host.gaps().is_empty());
    }
}

#[test]
fn records_have_the_time_and_severity_that_they_begin_with_unless_told_otherwise() {
    for (time, known) in [(Times::Auto, true), (Times::None, false)] {
        for encoding in [Encoding::Utf8, Encoding::Utf16Le] {
            let mut host = Host::new(&["a.log"]);
            (host.config.time, host.config.encoding) = (time, Encodings::All(encoding));
            host.rules = vec![AlertRule {
                name: "severe".into(),
                matches: Vec::new(),
                sources: Vec::new(),
                min_severity: Some(17),
                max_rate: 1000,
                ..AlertRule::default()
            }];
            host.turn();
            let text = "<11>1 2026-11-23T09:15:02.5Z host x\n<14>1 2026-11-23T09:15:02Z host y\nno time\n2026-11-23T09:15:02Z half";
            let bytes = wide(encoding, text);
            host.append(
                "a.log",
                if encoding == Encoding::Utf8 {
                    text.as_bytes()
                } else {
                    &bytes
                },
            );
            host.turns(8);
            if encoding == Encoding::Utf8 {
                host.append("a.log", "2026-11-23T09:15:03Z is no beginning\n");
                host.turns(2);
            }
            let stamps: Vec<_> = (host.records().iter())
                .map(|r| (r.time, r.severity))
                .collect();
            let at = Some(1_795_425_302_000_000_000);
            let mut expected = vec![
                (at.map(|at| at + 500_000_000), 17),
                (at, 9),
                (None, 0),
                (at, 0),
                (None, 0),
            ];
            if encoding == Encoding::Utf16Le {
                expected.pop();
            }
            if !known {
                expected.iter_mut().for_each(|stamp| *stamp = (None, 0));
            }
            assert_eq!(stamps, expected, "{encoding:?}");
            assert_eq!(host.records()[0].lane == Lane::Alert, known);
        }
    }
}
