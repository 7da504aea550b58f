//! One record of an audit log: `[node=NAME ]type=TYPE msg=audit(SECONDS.MILLIS:SERIAL): fields`.

use memchr::memchr;

/// What the records of one event have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id<'a> {
    /// Empty where the log names none.
    pub(crate) node: &'a [u8],
    pub(crate) seconds: i64,
    pub(crate) millis: i64,
    pub(crate) serial: u64,
}

/// What a record says before its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) id: Id<'a>,
    /// As `SYSCALL`.
    pub(crate) kind: &'a [u8],
    /// What stands behind it.
    pub(crate) fields: &'a [u8],
}

impl<'a> Header<'a> {
    /// `None`: this is no record of an audit log.
    pub(crate) fn read(line: &'a [u8]) -> Option<Header<'a>> {
        let (node, rest) = match line.strip_prefix(b"node=") {
            Some(rest) => cut(rest, b' ')?,
            None => (&line[..0], line),
        };
        let (kind, rest) = cut(rest.strip_prefix(b"type=")?, b' ')?;
        let rest = rest.strip_prefix(b"msg=audit(")?;
        let (seconds, rest) = cut(rest, b'.')?;
        let (millis, rest) = cut(rest, b':')?;
        let (serial, rest) = cut(rest, b')')?;
        let fields = rest.strip_prefix(b":")?;
        let id = Id {
            node,
            seconds: i64::try_from(number(seconds)?).ok()?,
            millis: i64::try_from(number(millis)?).ok()?,
            serial: number(serial)?,
        };
        (id.millis < 1000).then_some(Header { id, kind, fields })
    }
}

impl Id<'_> {
    /// `None`: beyond what a time can say.
    pub(crate) fn unix_nano(&self) -> Option<i64> {
        self.seconds
            .checked_mul(1_000_000_000)?
            .checked_add(self.millis * 1_000_000)
    }
}

/// The fields of a record: names and values as they stand, a quoted value with its quotes. What user space wrote stands in one more pair of quotes
/// (`msg='op=login res=success'`) and is taken as fields too. Behind a GS (0x1d) are auditd's own interpretations, with names in capitals.
pub(crate) fn fields(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let skip = rest
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\x1d' | b'\'' | b','))
                .count();
            rest = &rest[skip..];
            if rest.is_empty() {
                return None;
            }
            let end = |bytes: &[u8]| {
                let at = bytes.iter().position(|byte| matches!(byte, b' ' | b'\x1d'));
                at.unwrap_or(bytes.len())
            };
            let word = &rest[..end(rest)];
            let Some(equals) = memchr(b'=', word) else {
                rest = &rest[word.len()..];
                continue;
            };
            let (name, value) = (&rest[..equals], &rest[equals + 1..]);
            if value.starts_with(b"'") {
                rest = &value[1..];
                continue;
            }
            let len = match value {
                [b'"', quoted @ ..] => memchr(b'"', quoted).map_or(value.len(), |at| at + 2),
                _ => end(value),
            };
            rest = &value[len..];
            let value = &value[..len];
            return Some((name, value.strip_suffix(b"'").unwrap_or(value)));
        }
    })
}

/// The bytes of a value that the kernel writes in quotes, or as hexadecimal digits where a blank, a quote, a control character or a byte above 0x7e
/// is in it (`audit_log_untrustedstring`; `audit_encode_value` in user space). `None`: there is no value, `(null)` or `?`.
pub(crate) fn text(value: &[u8]) -> Option<Vec<u8>> {
    match value {
        [b'"', text @ .., b'"'] => Some(text.to_vec()),
        b"" | b"(null)" | b"?" | b"(none)" => None,
        _ => Some(hex::decode(value).unwrap_or_else(|_| value.to_vec())),
    }
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let end = memchr(at, text)?;
    Some((&text[..end], &text[end + 1..]))
}

/// A decimal number of at most 18 digits.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let right = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    right.then(|| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_a_header_or_is_none() {
        let line = b"node=web1 type=SYSCALL msg=audit(1364481363.243:24287): arch=c000003e";
        let header = Header::read(line).unwrap();
        assert_eq!(header.kind, b"SYSCALL");
        assert_eq!(header.id.node, b"web1");
        assert_eq!(header.id.serial, 24287);
        assert_eq!(header.id.unix_nano(), Some(1_364_481_363_243_000_000));
        assert_eq!(header.fields, b" arch=c000003e");
        for line in [
            "",
            "type=SYSCALL",
            "type=SYSCALL msg=audit(1.2:3)",
            "type=SYSCALL msg=audit(1.2000:3):",
            "type=SYSCALL msg=audit(x.2:3):",
            "type=SYSCALL msg=audit(1.2:99999999999999999999):",
            "xtype=SYSCALL msg=audit(1.2:3):",
        ] {
            assert_eq!(Header::read(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn fields_are_found_in_quotes_and_in_what_user_space_wrote() {
        let line = b" pid=1 comm=\"a b=c\" key=(null)\x1dSYSCALL=openat UID=\"root\" msg='op=login acct=\"x\" exe=\"/usr/bin/y\" res=success'";
        let found: Vec<(&str, &str)> = fields(line)
            .map(|(name, value)| {
                (
                    str::from_utf8(name).unwrap(),
                    str::from_utf8(value).unwrap(),
                )
            })
            .collect();
        let expected = [
            ("pid", "1"),
            ("comm", "\"a b=c\""),
            ("key", "(null)"),
            ("SYSCALL", "openat"),
            ("UID", "\"root\""),
            ("op", "login"),
            ("acct", "\"x\""),
            ("exe", "\"/usr/bin/y\""),
            ("res", "success"),
        ];
        assert_eq!(found, expected);
        assert_eq!(text(b"\"ab\""), Some(b"ab".to_vec()));
        assert_eq!(text(b"2F746D702F6120"), Some(b"/tmp/a ".to_vec()));
        assert_eq!(text(b"(null)"), None);
        assert_eq!(
            fields(b" =x \"=\" a='b=").count(),
            2,
            "an open quote takes the rest"
        );
    }
}
