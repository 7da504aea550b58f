use proptest::prelude::*;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;

/// 2026-11-23T12:00:00Z
const NOW: i64 = 1_795_435_200;
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

fn stamp_at(line: &str, now: i64) -> (Option<String>, u8) {
    let zone = Zone::of_rule(BERLIN);
    let mut stamps = Stamps::default();
    let first = stamps.read(line.as_bytes(), Some(&zone), now * NANOS);
    let again = stamps.read(line.as_bytes(), Some(&zone), now * NANOS);
    assert_eq!(first, again, "{line}: what was kept means something else");
    let time = first.time_unix_nano.map(|nanos| {
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos.into()).unwrap();
        time.format(&Rfc3339).unwrap()
    });
    (time, first.severity)
}

#[track_caller]
fn expect(line: &str, time: &str) {
    assert_eq!(stamp_at(line, NOW).0.as_deref(), Some(time), "{line}");
}

#[track_caller]
fn expect_none(line: &str) {
    assert_eq!(stamp_at(line, NOW), (None, 0), "{line}");
}

#[test]
fn iso_times_are_read_with_their_offset_or_in_the_zone_of_the_host() {
    for (line, time) in [
        ("2026-11-23T09:15:02Z x", "2026-11-23T09:15:02Z"),
        (
            "2026-11-23T09:15:02.123456789123Z",
            "2026-11-23T09:15:02.123456789Z",
        ),
        ("2026-11-23t09:15:02.5+01:00 x", "2026-11-23T08:15:02.5Z"),
        ("2026-11-23T09:15:02-0530: x", "2026-11-23T14:45:02Z"),
        ("2026-11-23T09:15:02+01", "2026-11-23T08:15:02Z"),
        ("2026-11-23 09:15:02,500 INFO x", "2026-11-23T08:15:02.5Z"),
        ("2026-07-23 09:15:02", "2026-07-23T07:15:02Z"),
        ("2026-11-23 09:15:02 -0500 x", "2026-11-23T14:15:02Z"),
        ("2026-11-23 09:15:02 - x", "2026-11-23T08:15:02Z"),
        ("2026-11-23 09:15:02 -5 x", "NONE"),
        ("[2026-11-23 09:15:02] x", "2026-11-23T08:15:02Z"),
        (
            "2026-11-23 09:15:02 UTC [1] LOG:  x",
            "2026-11-23T09:15:02Z",
        ),
        (
            "2026-11-23 09:15:02 CET [1] LOG:  x",
            "2026-11-23T08:15:02Z",
        ),
        ("2026-11-23 09:15:02 EST [1] LOG:  x", "NONE"),
        ("2026-11-23 09:15:60 x", "2026-11-23T08:16:00Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
    ] {
        if time == "NONE" {
            expect_none(line);
        } else {
            expect(line, time);
        }
    }
}

#[test]
fn what_is_no_time_at_the_beginning_is_none() {
    for line in [
        "",
        "x",
        "2026-11-23",
        "2026-13-23T09:15:02Z",
        "2026-02-29T09:15:02Z",
        "2026-11-23T24:15:02Z",
        "2026-11-23T09:15:02Zulu",
        "2026-11-23T09:15:02+1:00",
        "2026-11-23T09:15:021",
        "9999-11-23T09:15:02Z",
        "at 2026-11-23T09:15:02Z",
        "Nov 23",
        "Nov 31 09:15:02 x",
        "Nov  0 09:15:02 x",
        "Now 23 09:15:02 x",
        "Nov 23 09:15:02x",
        "[Sun Dec 04 04:47:44 205]",
        "[error] x",
        "[",
        "Dec",
        "<192>",
        "[10/Oct/2000:13:55:36 -0700] x",
        "a b [10/Oct/2000:13:55:36 -0700] x",
        "a b c d e [10/Oct/2000:13:55:36 -0700] x",
        "a b c[10/Oct/2000:13:55:36 -0700] x",
        "a b c [10/Oct/2000:13:55:36] x",
        "1700000000 x",
        "\u{feff}",
    ] {
        expect_none(line);
    }
}

#[test]
fn classic_times_have_the_latest_year_that_is_at_most_a_day_ahead() {
    expect("Nov 23 09:15:02 host x", "2026-11-23T08:15:02Z");
    expect("Nov  3 09:15:02.25 host x", "2026-11-03T08:15:02.25Z");
    expect("Nov 24 12:59:59 host x", "2026-11-24T11:59:59Z");
    expect("Nov 24 13:00:01 host x", "2025-11-24T12:00:01Z");
    expect("Dec 31 23:59:59 host x", "2025-12-31T22:59:59Z");
    expect("Feb 29 00:00:00 host x", "2024-02-28T23:00:00Z");
    let new_year = 1_798_761_600; // 2027-01-01T00:00:00Z
    let at = |line: &str, now: i64| stamp_at(line, now).0.unwrap();
    assert_eq!(
        at("Dec 31 23:00:00 x", new_year + 3600),
        "2026-12-31T22:00:00Z"
    );
    assert_eq!(
        at("Jan  1 01:00:00 x", new_year - 3600),
        "2027-01-01T00:00:00Z"
    );
    // The same text a year later, from the same reader.
    let zone = Zone::of_rule(BERLIN);
    let mut stamps = Stamps::default();
    let mut read = |now: i64| stamps.read(b"Nov 23 09:15:02 x", Some(&zone), now * NANOS);
    let times = [read(NOW), read(NOW + 365 * DAY)].map(|stamp| stamp.time_unix_nano.unwrap());
    assert_eq!(times[1] - times[0], 365 * DAY * NANOS);
}

#[test]
fn web_servers_have_their_time_in_its_usual_place() {
    let combined = r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 2326"#;
    expect(combined, "2000-10-10T20:55:36Z");
    expect(
        &format!("www.example:443 {combined}"),
        "2000-10-10T20:55:36Z",
    );
    expect(
        "[Sun Dec 04 04:47:44 2005] [notice] x",
        "2005-12-04T03:47:44Z",
    );
    expect(
        "[Fri Sep 09 10:42:29.902022 2011] [core:error] x",
        "2011-09-09T08:42:29.902022Z",
    );
}

#[test]
fn a_syslog_priority_gives_the_severity_and_the_time_stands_behind_it() {
    let names = [21, 19, 18, 17, 13, 10, 9, 5];
    for (number, severity) in names.into_iter().enumerate() {
        let line = format!(
            "<{}>1 2003-10-11T22:14:15.003Z host app - - - x",
            8 * 4 + number
        );
        assert_eq!(
            stamp_at(&line, NOW),
            (Some("2003-10-11T22:14:15.003Z".into()), severity)
        );
    }
    let line = "<34>Nov 23 09:15:02 host su: x";
    assert_eq!(
        stamp_at(line, NOW),
        (Some("2026-11-23T08:15:02Z".into()), 18)
    );
    assert_eq!(stamp_at("<13>no time", NOW), (None, 10));
    for line in ["<192>x", "<034>x", "<>x", "<3x", "<1234>x"] {
        expect_none(line);
    }
}

#[test]
fn without_a_zone_only_what_has_an_offset_is_known() {
    let mut stamps = Stamps::default();
    let mut read = |line: &str| {
        stamps
            .read(line.as_bytes(), None, NOW * NANOS)
            .time_unix_nano
    };
    assert_eq!(read("2026-11-23 09:15:02 x"), None);
    assert_eq!(read("Nov 23 09:15:02 x"), None);
    let known = read("2026-11-23T09:15:02+01:00 x");
    assert_eq!(known, Some((NOW - 3 * 3600 - 44 * 60 - 58) * NANOS));
}

/// Beginnings of real lines of each kind; of those below that have a time, that many have one here.
#[test]
fn real_lines_have_their_times() {
    let samples = [
        (
            "OpenSSH",
            "Dec 10 06:55:46 LabSZ sshd[24200]: reverse mapping checking getaddrinfo\r\nDec 10 06:55:48 LabSZ sshd[24200]: Failed password\r\nDec  1 07:02:47 LabSZ sshd[24203]: Connection closed",
            3,
        ),
        (
            "Linux",
            "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure\nJul  1 00:21:28 combo sshd(pam_unix)[19630]: check pass\nJul 27 14:41:57 combo syslogd 1.4.1: restart.\n",
            3,
        ),
        (
            "Apache",
            "[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok\n[Mon Dec 05 19:15:57 2005] [error] mod_jk child workerEnv in error state 6\nscript not found or unable to stat\n",
            2,
        ),
        (
            "rsyslog",
            "2026-11-23T09:15:02.123456+01:00 host sshd[1]: x\n2026-11-23T09:15:02.123457+01:00 host sshd[1]: y\n  continued\n",
            2,
        ),
    ];
    let zone = Zone::of_rule(BERLIN);
    for (name, lines, expected) in samples {
        let mut stamps = Stamps::default();
        let timed = lines.split('\n').filter(|line| {
            stamps
                .read(line.as_bytes(), Some(&zone), NOW * NANOS)
                .time_unix_nano
                .is_some()
        });
        assert_eq!(timed.count(), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn every_day_and_second_is_what_another_reader_of_times_says(unix in 0..7_000_000_000_i64) {
        let time = OffsetDateTime::from_unix_timestamp(unix).unwrap();
        let text = time.format(&Rfc3339).unwrap();
        let mut stamps = Stamps::default();
        let stamp = stamps.read(text.as_bytes(), None, 0);
        prop_assert_eq!(stamp.time_unix_nano, unix.checked_mul(NANOS), "{}", text);
        prop_assert_eq!(year_of(unix), i64::from(time.year()));
    }

    #[test]
    fn no_line_makes_a_reader_stumble(lines in prop::collection::vec("[<\\[]?[0-9JFMASOND<>\\[\\] :./,TZ+a-z-]{0,40}|(a b c )?(\\[10/Oct/2000:13:55:36 -0700\\]|2026-11-23T09:15:02|Nov 23 09:15:02)[ .5Z-]{0,3}", 1..9)) {
        let zone = Zone::of_rule(BERLIN);
        let mut stamps = Stamps::default();
        for line in &lines {
            let kept = stamps.read(line.as_bytes(), Some(&zone), NOW * NANOS);
            let fresh = Stamps::default().read(line.as_bytes(), Some(&zone), NOW * NANOS);
            prop_assert_eq!(kept, fresh, "{}", line);
        }
    }
}
