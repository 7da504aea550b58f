//! Times as RFC 3339 in UTC with nanoseconds.

use time::{OffsetDateTime, macros::format_description};

const NANOS: i64 = 1_000_000_000;

/// Writes times; keeps the text of the last second.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<i64>,
    /// `2026-11-23T09:15:02.`
    text: String,
}

impl Stamp {
    /// Appends the time as a JSON string, e.g. `"2026-11-23T09:15:02.000000001Z"`.
    pub(super) fn write(&mut self, unix_nano: i64, out: &mut Vec<u8>) {
        let second = unix_nano.div_euclid(NANOS);
        if self.second != Some(second) {
            self.text = text(second);
            self.second = Some(second);
        }
        out.push(b'"');
        out.extend_from_slice(self.text.as_bytes());
        let mut nano = unix_nano.rem_euclid(NANOS);
        let mut digits = [b'0'; 9];
        for digit in digits.iter_mut().rev() {
            *digit += (nano % 10) as u8;
            nano /= 10;
        }
        out.extend_from_slice(&digits);
        out.extend_from_slice(b"Z\"");
    }
}

/// Every second that 64 bits of nanoseconds can name lies in the years 1677 to 2262.
fn text(second: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].");
    OffsetDateTime::from_unix_timestamp(second)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn stamp(stamp: &mut Stamp, unix_nano: i64) -> String {
        let mut out = Vec::new();
        stamp.write(unix_nano, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_nine_digits_and_the_second_of_before_is_not_kept_too_long() {
        let mut cache = Stamp::default();
        for (unix_nano, expected) in [
            (
                1_795_425_302_123_456_789,
                "\"2026-11-23T09:15:02.123456789Z\"",
            ),
            (
                1_795_425_302_000_000_001,
                "\"2026-11-23T09:15:02.000000001Z\"",
            ),
            (
                1_795_425_303_000_000_000,
                "\"2026-11-23T09:15:03.000000000Z\"",
            ),
            (0, "\"1970-01-01T00:00:00.000000000Z\""),
            (-1, "\"1969-12-31T23:59:59.999999999Z\""),
            (i64::MIN, "\"1677-09-21T00:12:43.145224192Z\""),
            (i64::MAX, "\"2262-04-11T23:47:16.854775807Z\""),
        ] {
            assert_eq!(stamp(&mut cache, unix_nano), expected);
        }
    }

    proptest! {
        #[test]
        fn times_read_back(unix_nano: i64) {
            let text = stamp(&mut Stamp::default(), unix_nano);
            let time = OffsetDateTime::parse(text.trim_matches('"'), &Rfc3339).unwrap();
            prop_assert_eq!(time.unix_timestamp_nanos(), i128::from(unix_nano));
        }
    }
}
