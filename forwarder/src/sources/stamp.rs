//! When a line says that it happened, and how bad it was: what stands at its beginning, read and never guessed.
//!
//! | at the beginning of a line | time |
//! |---|---|
//! | `2026-11-23T09:15:02.5Z`, `…+01:00`, `2026-11-23 09:15:02,500 -0500`, `[2026-11-23 09:15:02]` | ISO 8601; without an offset in the host's zone |
//! | `Nov 23 09:15:02`, `Nov  3 09:15:02.5` | classic syslog, host's zone; the latest year in which that is at most a day after the moment of reading |
//! | `[Sun Dec 04 04:47:44 2005]`, `[Sun Dec 04 04:47:44.123456 2005]` | Apache's error log, host's zone |
//! | `host ident user [10/Oct/2000:13:55:36 -0700]` | web server's log, its fourth field, or the fifth behind a virtual host |
//!
//! A syslog priority may stand before it, `<34>` or `<34>1 `: its lower three bits are the severity. A name of a zone behind an ISO time
//! (`09:15:02 CET`) counts where it is `UTC`, `GMT` or the host's own; another one makes the time unknown. What [`Zone`] says holds where clocks are put
//! forward or back. Everything else is unknown.
//!
//! Lines of one second are alike at their beginning: what was read last is kept, so that most lines cost a comparison.

use memchr::memchr;

use super::zone::Zone;

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// A web server's log has its time within so many bytes.
const FIELD_BYTES: usize = 512;
/// What was read last holds so long: the year of a time without one depends on the moment of reading.
const KEPT_FOR: i64 = 3600;

/// What a line says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// `None`: it does not say.
    pub(crate) time_unix_nano: Option<i64>,
    /// OpenTelemetry's number, 0 unknown.
    pub(crate) severity: u8,
}

/// Reads stamps; keeps the last.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    last: Last,
    /// A day on which one offset holds all the time, and that offset.
    steady: Option<(i64, i64)>,
}

/// A text and what it meant.
#[derive(Debug, Default)]
struct Last {
    text: [u8; 32],
    len: usize,
    meant: Meant,
    read_at: i64,
    /// It stands where a web server has its time.
    is_web: bool,
}

/// Whole seconds of a text, and what may follow it.
#[derive(Debug, Clone, Copy, Default)]
struct Meant {
    /// Since 1970 in the host's zone; `None`: unknown.
    local: Option<i64>,
    /// Since 1970, as if it were UTC.
    civil: i64,
    /// A fraction and an offset may follow; else a fraction, or nothing.
    then: Then,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Then {
    #[default]
    Nothing,
    Fraction,
    FractionAndOffset,
}

/// The severity of a syslog priority, as OpenTelemetry maps the severities of RFC 5424.
pub(crate) fn severity_of(priority: u8) -> u8 {
    [21, 19, 18, 17, 13, 10, 9, 5][usize::from(priority & 7)]
}

impl Stamps {
    /// What `line` says; `zone` is the host's, `None` where that is unknown.
    #[inline]
    pub(crate) fn read(&mut self, line: &[u8], zone: Option<&Zone>, now_unix_nano: i64) -> Stamp {
        let (severity, at) = match priority(line) {
            Some((priority, at)) => (severity_of(priority), at),
            None => (0, 0),
        };
        Stamp {
            time_unix_nano: self.time(&line[at..], zone, now_unix_nano),
            severity,
        }
    }

    fn time(&mut self, line: &[u8], zone: Option<&Zone>, now_unix_nano: i64) -> Option<i64> {
        let now = now_unix_nano.div_euclid(NANOS);
        let first = *line.first()?;
        let known = self.last.len > 0 && now.abs_diff(self.last.read_at) < KEPT_FOR as u64;
        let text = &self.last.text[..self.last.len];
        let place = if self.last.is_web {
            web_place(line)
        } else {
            Some(0)
        };
        let kept = place.filter(|&at| known && line[at..].starts_with(text));
        let end = if let Some(at) = kept {
            at + self.last.len
        } else {
            let mut local = Local {
                zone,
                now,
                steady: &mut self.steady,
            };
            let (at, len, meant) = read(line, first, &mut local)?;
            self.last.len = 0;
            if let Some(kept) = self.last.text.get_mut(..len) {
                kept.copy_from_slice(line.get(at..at + len)?);
                self.last.len = len;
            }
            (self.last.meant, self.last.read_at) = (meant, now);
            self.last.is_web = at > 0;
            at + len
        };
        then(&line[end..], self.last.meant, zone)
    }
}

/// What turns local times into moments.
struct Local<'a> {
    zone: Option<&'a Zone>,
    /// The moment of reading.
    now: i64,
    steady: &'a mut Option<(i64, i64)>,
}

impl Local<'_> {
    /// See [`Zone::unix`], which has to be asked only on days on which the offset may change.
    fn unix(&mut self, civil: i64) -> Option<i64> {
        let zone = self.zone?;
        let day = civil.div_euclid(DAY);
        if self.steady.is_none_or(|(steady, _)| steady != day) {
            *self.steady = zone.steady(day).map(|offset| (day, offset));
        }
        match *self.steady {
            Some((_, offset)) => Some(civil - offset),
            None => zone.unix(civil, self.now),
        }
    }
}

/// A text at the beginning of `line` (or where a web server has it): where it is, how long, what it means without what may follow.
fn read(line: &[u8], first: u8, local: &mut Local<'_>) -> Option<(usize, usize, Meant)> {
    let found = match first {
        b'0'..=b'9' => iso(line, 0, local),
        b'[' if line.get(1).is_some_and(u8::is_ascii_digit) => iso(line, 1, local),
        b'[' => return apache(line, local).map(|(len, meant)| (0, len, meant)),
        b'A'..=b'S' => classic(line, local),
        _ => None,
    };
    match found {
        Some((len, meant)) => Some((0, len, meant)),
        None => web(line),
    }
}

/// `2026-11-23T09:15:02`, from `from` on.
fn iso(line: &[u8], from: usize, local: &mut Local<'_>) -> Option<(usize, Meant)> {
    let text = line.get(from..from + 19)?;
    if text[4] != b'-' || text[7] != b'-' || !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = i64::from(number(&text[..2])?) * 100 + i64::from(number(&text[2..4])?);
    let civil = civil(year, number(&text[5..7])?, number(&text[8..10])?)? + clock(&text[11..])?;
    let meant = Meant {
        local: local.unix(civil),
        civil,
        then: Then::FractionAndOffset,
    };
    Some((from + 19, meant))
}

/// `Nov 23 09:15:02`
fn classic(line: &[u8], local: &mut Local<'_>) -> Option<(usize, Meant)> {
    let text = line.get(..15)?;
    let month = month(&text[..3])?;
    if text[3] != b' ' || text[6] != b' ' {
        return None;
    }
    let day = day(&text[4..6])?;
    let clock = clock(&text[7..])?;
    if local.now <= 0 {
        return None; // a clock that does not run tells no year
    }
    let next_year = year_of(local.now) + 1;
    // A 29th of February is in one of eight years at least.
    let meant = (next_year - 9..=next_year).rev().find_map(|year| {
        let civil = civil(year, month, day)? + clock;
        if civil > local.now + 3 * DAY {
            return None;
        }
        let unix = local.unix(civil)?;
        (unix <= local.now + DAY).then_some(Meant {
            local: Some(unix),
            civil,
            then: Then::Fraction,
        })
    })?;
    Some((15, meant))
}

/// `[Sun Dec 04 04:47:44 2005]`, or with a fraction before the year.
fn apache(line: &[u8], local: &mut Local<'_>) -> Option<(usize, Meant)> {
    const DAYS: [&[u8]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
    let text = line.get(1..20)?;
    if !DAYS.contains(&&text[..3]) || text[3] != b' ' || text[7] != b' ' || text[10] != b' ' {
        return None;
    }
    let (month, day) = (month(&text[4..7])?, day(&text[8..10])?);
    let clock = clock(&text[11..])?;
    let (_, fraction) = fraction(&line[20..]);
    let year = line.get(20 + fraction..20 + fraction + 6)?;
    if year[0] != b' ' || year[5] != b']' {
        return None;
    }
    let year = i64::from(number(&year[1..3])?) * 100 + i64::from(number(&year[3..5])?);
    let civil = civil(year, month, day)? + clock;
    let meant = Meant {
        local: local.unix(civil),
        civil,
        then: Then::Nothing,
    };
    if fraction > 0 {
        // The year stands behind it: what is said of the whole seconds ends before.
        return Some((
            20,
            Meant {
                then: Then::Fraction,
                ..meant
            },
        ));
    }
    Some((26, meant))
}

/// Where a web server's log has its time: behind three or four fields.
fn web_place(line: &[u8]) -> Option<usize> {
    let at = memchr(b'[', &line[..line.len().min(FIELD_BYTES)])?;
    let fields = line[..at].iter().filter(|byte| **byte == b' ').count();
    (line[..at].ends_with(b" ") && (3..=4).contains(&fields)).then_some(at)
}

/// `[10/Oct/2000:13:55:36 -0700]`
fn web(line: &[u8]) -> Option<(usize, usize, Meant)> {
    let at = web_place(line)?;
    let text = line.get(at..at + 28)?;
    if !matches!(text[3], b'/')
        || text[7] != b'/'
        || text[12] != b':'
        || text[21] != b' '
        || text[27] != b']'
    {
        return None;
    }
    let year = i64::from(number(&text[8..10])?) * 100 + i64::from(number(&text[10..12])?);
    let civil = civil(year, month(&text[4..7])?, number(&text[1..3])?)? + clock(&text[13..])?;
    let (offset, _) = offset(&text[22..])?;
    let meant = Meant {
        local: Some(civil - offset),
        civil,
        then: Then::Nothing,
    };
    Some((at, 28, meant))
}

/// What the whole seconds mean with what follows them.
fn then(rest: &[u8], meant: Meant, zone: Option<&Zone>) -> Option<i64> {
    let whole = |unix: Option<i64>| unix?.checked_mul(NANOS);
    if meant.then == Then::Nothing {
        return whole(meant.local);
    }
    let (nanos, len) = fraction(rest);
    let rest = &rest[len..];
    let unix = if meant.then == Then::Fraction {
        ends(rest).then_some(meant.local)?
    } else {
        match rest {
            [b'Z' | b'z', rest @ ..] => ends(rest).then_some(Some(meant.civil))?,
            [b'+' | b'-', ..] => {
                let (offset, len) = offset(rest)?;
                ends(&rest[len..]).then_some(Some(meant.civil - offset))?
            }
            [b' ', b'+' | b'-', digit, ..] if digit.is_ascii_digit() => {
                let (offset, len) = offset(&rest[1..])?;
                (len > 3 && ends(&rest[1 + len..])).then_some(Some(meant.civil - offset))?
            }
            [b' ', name @ ..] => named(name, meant, zone)?,
            rest => ends(rest).then_some(meant.local)?,
        }
    };
    whole(unix)?.checked_add(nanos)
}

/// With a word behind the time that may be the name of a zone.
fn named(word: &[u8], meant: Meant, zone: Option<&Zone>) -> Option<Option<i64>> {
    const OTHERS: [&[u8]; 34] = [
        b"EST", b"EDT", b"CST", b"CDT", b"MST", b"MDT", b"PST", b"PDT", b"AKST", b"AKDT", b"HST",
        b"AST", b"ADT", b"WET", b"WEST", b"CET", b"CEST", b"EET", b"EEST", b"MSK", b"IST", b"BST",
        b"JST", b"KST", b"SGT", b"HKT", b"PKT", b"AEST", b"AEDT", b"ACST", b"AWST", b"NZST",
        b"NZDT", b"SAST",
    ];
    let len = word
        .iter()
        .take(6)
        .take_while(|byte| byte.is_ascii_uppercase())
        .count();
    let (name, rest) = word.split_at(len);
    if !(1..=5).contains(&len) || !ends(rest) {
        return Some(meant.local);
    }
    match name {
        b"Z" | b"UTC" | b"GMT" => Some(Some(meant.civil)),
        _ if OTHERS.contains(&name) => {
            let own = zone?.abbreviation(meant.local?)?;
            (own.as_bytes() == name).then_some(meant.local)
        }
        _ => Some(meant.local),
    }
}

/// Whether a time may end here.
fn ends(rest: &[u8]) -> bool {
    rest.first()
        .is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// `<34>` or `<34>1 `: the priority, and where what follows begins.
#[inline]
fn priority(line: &[u8]) -> Option<(u8, usize)> {
    let [b'<', rest @ ..] = line else {
        return None;
    };
    let digits = rest
        .iter()
        .take(4)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (text, rest) = rest.split_at(digits);
    let leading_zero = digits > 1 && text[0] == b'0';
    if !(1..=3).contains(&digits) || leading_zero || rest.first() != Some(&b'>') {
        return None;
    }
    let priority = text
        .iter()
        .fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let priority = u8::try_from(priority)
        .ok()
        .filter(|priority| *priority <= 191)?;
    let version = rest.get(1..3) == Some(b"1 ");
    Some((priority, digits + 2 + if version { 2 } else { 0 }))
}

/// `.5`, `,500`: nanoseconds, and how long it is.
fn fraction(rest: &[u8]) -> (i64, usize) {
    let [b'.' | b',', digits @ ..] = rest else {
        return (0, 0);
    };
    let len = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let padded = digits[..len].iter().copied().chain(std::iter::repeat(b'0'));
    let nanos = padded
        .take(9)
        .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    (nanos, if len == 0 { 0 } else { 1 + len })
}

/// `+01:00`, `-0700`, `+01`: seconds east of UTC, and how long it is.
fn offset(text: &[u8]) -> Option<(i64, usize)> {
    let hours = i64::from(number(text.get(1..3)?)?);
    let (minutes, len) = match text.get(3..) {
        Some([b':', a, b, ..]) => (number(&[*a, *b])?, 6),
        Some([a, b, ..]) if a.is_ascii_digit() => (number(&[*a, *b])?, 5),
        _ => (0, 3),
    };
    let seconds = (hours * 60 + i64::from(minutes)) * 60;
    (hours <= 18 && minutes < 60).then_some((if text[0] == b'-' { -seconds } else { seconds }, len))
}

/// `09:15:02` at the beginning of `text`: seconds of the day. A leap second counts as the one behind it.
fn clock(text: &[u8]) -> Option<i64> {
    if text[2] != b':' || text[5] != b':' {
        return None;
    }
    let (hours, minutes, seconds) = (
        number(&text[..2])?,
        number(&text[3..5])?,
        number(&text[6..8])?,
    );
    let right = hours < 24 && minutes < 60 && seconds <= 60;
    right.then_some((i64::from(hours) * 60 + i64::from(minutes)) * 60 + i64::from(seconds))
}

/// Two digits.
#[inline]
fn number(text: &[u8]) -> Option<u32> {
    let [a, b] = *text else { return None };
    (a.is_ascii_digit() && b.is_ascii_digit())
        .then(|| u32::from(a - b'0') * 10 + u32::from(b - b'0'))
}

/// ` 3` or `23` or `03`
fn day(text: &[u8]) -> Option<u32> {
    match *text {
        [b' ', b] => number(&[b'0', b]),
        _ => number(text),
    }
}

fn month(text: &[u8]) -> Option<u32> {
    const MONTHS: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let at = MONTHS.iter().position(|month| *month == text)?;
    u32::try_from(at + 1).ok()
}

/// Seconds from 1970 to the beginning of a day; `None`: there is no such day.
fn civil(year: i64, month: u32, day: u32) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1 | 3..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let of_year = BEFORE[month as usize - 1] + i64::from(leap && month > 2) + i64::from(day) - 1;
    Some((days_before(year) - days_before(1970) + of_year) * DAY)
}

/// Days before a year, counted from the year 0.
fn days_before(year: i64) -> i64 {
    let last = year - 1;
    year * 365 + last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400)
}

/// The year of a local time.
fn year_of(civil: i64) -> i64 {
    let days = civil.div_euclid(DAY) + days_before(1970);
    let year = days * 400 / 146_097;
    // One too high or too low at the ends of a year.
    (year - 1..=year + 1)
        .rev()
        .find(|year| days_before(*year) <= days)
        .unwrap_or(year)
}

#[cfg(test)]
mod tests;
