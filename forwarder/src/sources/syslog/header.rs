//! What a record says of itself: RFC 5424's header, or as much of RFC 3164's as a record has.
//!
//! Only what is written as the RFC has it is taken; of anything else nothing is known. The body stays as it came in every case. When it
//! happened is read as for every other source, by [`Stamps`](crate::sources::Stamps).

use crate::sources::stamp::severity_of;

/// Names of RFC 5424's facilities, by number.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// See the module. `None`, and severity 0: the record does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// OpenTelemetry's number.
    pub(super) severity: u8,
    pub(super) facility: Option<&'static str>,
    pub(super) hostname: Option<&'a str>,
    pub(super) appname: Option<&'a str>,
    pub(super) procid: Option<&'a str>,
    pub(super) msgid: Option<&'a str>,
}

impl<'a> Header<'a> {
    /// `names_host`: a record without a version has the sender's name behind the stamp, as on the network; those of a local socket have
    /// not.
    pub(super) fn read(record: &'a [u8], names_host: bool) -> Header<'a> {
        let Some((number, rest)) = priority(record) else {
            return Header::default();
        };
        let mut header = Header {
            severity: severity_of(number),
            facility: Some(FACILITIES[usize::from(number / 8)]),
            ..Header::default()
        };
        match rest.strip_prefix(b"1 ") {
            Some(rest) => header.read_5424(rest),
            None => header.read_3164(rest, names_host),
        }
        header
    }

    /// `TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP`
    fn read_5424(&mut self, rest: &'a [u8]) {
        let mut words = rest.splitn(6, |&byte| byte == b' ');
        let mut word = |most: usize| text(words.next()?, most).filter(|text| *text != "-");
        let _stamp = word(32);
        self.hostname = word(255);
        self.appname = word(48);
        self.procid = word(128);
        self.msgid = word(32);
    }

    /// `Mmm dd hh:mm:ss SP HOSTNAME SP TAG[PID]:`, the stamp perhaps as RFC 5424 has it, which is what rsyslog sends.
    fn read_3164(&mut self, rest: &'a [u8], names_host: bool) {
        let mut rest = if let Some(behind) = classic(rest) {
            behind
        } else if let Some((stamp, behind)) = word(rest)
            && is_iso(stamp)
        {
            behind
        } else {
            return;
        };
        if names_host {
            let Some((host, behind)) = word(rest) else {
                return;
            };
            // A tag where the host should be: the sender left the host out.
            if !host.ends_with(b":") && !host.contains(&b'[') {
                self.hostname = text(host, 255);
                rest = behind;
            }
        }
        let is_tag = |byte: &u8| byte.is_ascii_graphic() && !b":[ ".contains(byte);
        let tag = &rest[..rest.iter().take_while(|byte| is_tag(byte)).count()];
        let behind = &rest[tag.len()..];
        let (procid, behind) = match behind.strip_prefix(b"[") {
            None => (None, behind),
            Some(within) => {
                let end = within.iter().take(129).position(|&byte| byte == b']');
                match end {
                    Some(end) => (text(&within[..end], 128), &within[end + 1..]),
                    None => return,
                }
            }
        };
        if behind.starts_with(b":") || procid.is_some() {
            self.appname = text(tag, 48);
            self.procid = procid;
        }
    }
}

/// `<0>` to `<191>`, without leading zeros.
fn priority(record: &[u8]) -> Option<(u8, &[u8])> {
    let rest = record.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|&byte| byte == b'>')?;
    let digits = &rest[..end];
    if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    let mut number = 0_u16;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u16::from(digit - b'0');
    }
    let number = u8::try_from(number).ok().filter(|number| *number <= 191)?;
    Some((number, &rest[end + 1..]))
}

/// The bytes up to the next space, and those behind it.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(256).position(|&byte| byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

/// Printable ASCII of at most `most` bytes; nothing else is a name in a header.
fn text(bytes: &[u8], most: usize) -> Option<&str> {
    let fits = !bytes.is_empty() && bytes.len() <= most && bytes.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(bytes).ok().filter(|_| fits)
}

/// Whether a word has the shape of RFC 5424's stamps, `2026-11-23T09:15:02.5+01:00`.
fn is_iso(word: &[u8]) -> bool {
    const SHAPE: &[u8; 19] = b"dddd-dd-ddTdd:dd:dd";
    let Some((stamp, rest)) = word.split_at_checked(SHAPE.len()) else {
        return false;
    };
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        _ => byte == shape,
    };
    let ends = rest == b"Z" || rest.len() >= 6 && b"+-.".contains(&rest[0]) || rest.ends_with(b"Z");
    stamp.iter().zip(SHAPE).all(fits) && ends
}

/// What stands behind a stamp like `Nov 23 09:15:02 `.
fn classic(bytes: &[u8]) -> Option<&[u8]> {
    const SHAPE: &[u8; 16] = b"Mmm _d dd:dd:dd ";
    let (stamp, rest) = bytes.split_at_checked(SHAPE.len())?;
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'M' => byte.is_ascii_uppercase(),
        b'm' => byte.is_ascii_lowercase(),
        b'_' => *byte == b' ' || byte.is_ascii_digit(),
        b'd' => byte.is_ascii_digit(),
        _ => byte == shape,
    };
    stamp.iter().zip(SHAPE).all(fits).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is known, in one line.
    fn known(record: &str, names_host: bool) -> String {
        let header = Header::read(record.as_bytes(), names_host);
        let or = |text: Option<&str>| text.unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {} {}",
            header.severity,
            or(header.facility),
            or(header.hostname),
            or(header.appname),
            or(header.procid),
            or(header.msgid),
        )
    }

    #[test]
    fn what_a_header_says_is_read_and_what_it_does_not_say_stays_unknown() {
        for (record, expected) in [
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
                "10 local4 192.0.2.1 myproc 8710 -",
            ),
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
                "18 auth mymachine.example.com su - ID47",
            ),
            ("<0>1 - - - - - -", "21 kern - - - -"),
            ("<191>1 2003-10-11 x", "5 local7 x - - -"),
            (
                "<13>Nov 23 09:15:02 web-1 sshd[12]: x",
                "10 user web-1 sshd 12 -",
            ),
            (
                "<13>Nov  3 09:15:02 web-1 kernel: [ 1.0] x",
                "10 user web-1 kernel - -",
            ),
            (
                "<13>Nov  3 09:15:02 sshd[12]: no host",
                "10 user - sshd 12 -",
            ),
            (
                "<13>Nov  3 09:15:02 web-1 just words",
                "10 user web-1 - - -",
            ),
            (
                "<86>2026-11-23T09:15:02.5+00:00 web-1 CRON[7]: x",
                "9 authpriv web-1 CRON 7 -",
            ),
            ("<13>no stamp at all", "10 user - - - -"),
            ("<192>x", "0 - - - - -"),
            ("<013>x", "0 - - - - -"),
            ("<>x", "0 - - - - -"),
            ("<1", "0 - - - - -"),
            ("", "0 - - - - -"),
            ("no priority", "0 - - - - -"),
        ] {
            assert_eq!(known(record, true), expected, "{record}");
        }
        assert_eq!(
            known("<86>Nov 23 09:15:02 sudo[12]: x", false),
            "9 authpriv - sudo 12 -"
        );
        assert_eq!(
            known("<86>Nov 23 09:15:02 sudo: x", false),
            "9 authpriv - sudo - -"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..200), names_host in any::<bool>()) {
            let _ = Header::read(&bytes, names_host);
            let with_start: Vec<u8> = [b"<13>1 ".as_slice(), &bytes].concat();
            let _ = Header::read(&with_start, names_host);
            let _ = Header::read(&with_start[..4], names_host);
        }
    }
}
