//! The encodings that columns are made of, both ways.

/// Number of columns behind the bodies.
pub(super) const COLUMNS: usize = 8;

/// What stands at the end of the unpacked bytes: the length of everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) bodies: u32,
    pub(super) events: u32,
    /// In the order of the format.
    pub(super) columns: [u32; COLUMNS],
}

impl Footer {
    pub(super) const BYTES: usize = 4 * (2 + COLUMNS);

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bodies.to_le_bytes());
        out.extend_from_slice(&self.events.to_le_bytes());
        for length in self.columns {
            out.extend_from_slice(&length.to_le_bytes());
        }
    }

    /// The footer of `unpacked` and what stands before it.
    pub(super) fn split(unpacked: &[u8]) -> Option<(&[u8], Footer)> {
        let (contents, footer) = unpacked.split_last_chunk::<{ Footer::BYTES }>()?;
        let mut numbers = footer
            .as_chunks::<4>()
            .0
            .iter()
            .map(|number| u32::from_le_bytes(*number));
        let bodies = numbers.next()?;
        let events = numbers.next()?;
        let mut columns = [0; COLUMNS];
        for length in &mut columns {
            *length = numbers.next()?;
        }
        Some((
            contents,
            Footer {
                bodies,
                events,
                columns,
            },
        ))
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The difference that leads from `before` to `value`, wrapping.
pub(super) fn put_difference(out: &mut Vec<u8>, before: i64, value: i64) {
    let difference = value.wrapping_sub(before);
    put_varint(
        out,
        (difference.cast_unsigned() << 1) ^ (difference >> 63).cast_unsigned(),
    );
}

/// A text of at most `max` bytes; a longer one is cut and ends in `…`, so that it can be seen.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    const CUT: &str = "…";
    if text.len() <= max {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    } else {
        let kept = &text[..text.floor_char_boundary(max - CUT.len())];
        put_varint(out, (kept.len() + CUT.len()) as u64);
        out.extend_from_slice(kept.as_bytes());
        out.extend_from_slice(CUT.as_bytes());
    }
}

/// A column of equal values in a row, being written.
#[derive(Default)]
pub(super) struct Runs {
    bytes: Vec<u8>,
    /// Value of the run that was written last.
    written: i64,
    /// The run that grows.
    value: i64,
    count: u32,
}

impl Runs {
    /// What the run that grows can take at most: a difference of 64 bits and a count of up to 65,536.
    pub(super) const PENDING_BYTES: usize = 10 + 3;

    #[inline]
    pub(super) fn push(&mut self, value: i64) {
        if value != self.value || self.count == 0 {
            self.write_run();
            self.value = value;
        }
        self.count += 1;
    }

    /// Bytes written so far, without the run that grows.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn write_run(&mut self) {
        if self.count > 0 {
            put_difference(&mut self.bytes, self.written, self.value);
            put_varint(&mut self.bytes, u64::from(self.count));
            self.written = self.value;
            self.count = 0;
        }
    }

    /// The finished column. Call [`Runs::clear`] before the next value.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.write_run();
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.written, self.value, self.count) = (0, 0, 0);
    }
}

/// A column being read. `None` from any method: the column is cut or malformed.
#[derive(Clone, Copy)]
pub(super) struct Column<'a>(pub(super) &'a [u8]);

impl<'a> Column<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A count or length of at most `max`.
    pub(super) fn count(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.varint()?)
            .ok()
            .filter(|&count| count <= max)
    }

    /// The value that a difference leads to.
    pub(super) fn difference(&mut self, before: i64) -> Option<i64> {
        let zigzag = self.varint()?;
        let difference = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        Some(before.wrapping_add(difference))
    }

    pub(super) fn text(&mut self, max: usize) -> Option<&'a str> {
        let length = self.count(max)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// A column of equal values in a row, being read.
#[derive(Clone, Copy)]
pub(super) struct RunsReader<'a> {
    column: Column<'a>,
    value: i64,
    left: u64,
}

impl<'a> RunsReader<'a> {
    pub(super) fn new(column: &'a [u8]) -> Self {
        Self {
            column: Column(column),
            value: 0,
            left: 0,
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<i64> {
        if self.left == 0 {
            self.value = self.column.difference(self.value)?;
            self.left = self.column.varint()?;
        }
        self.left = self.left.checked_sub(1)?;
        Some(self.value)
    }

    /// Whether every value has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0 && self.column.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_comes_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut column = Column(&out);
            prop_assert_eq!(column.varint(), Some(value));
            prop_assert!(column.is_empty());
        }

        #[test]
        fn a_difference_leads_to_its_value(before: i64, value: i64) {
            let mut out = Vec::new();
            put_difference(&mut out, before, value);
            prop_assert_eq!(Column(&out).difference(before), Some(value));
        }

        #[test]
        fn runs_come_back(values in prop::collection::vec(prop_oneof![Just(0i64), Just(7), any::<i64>()], 0..50)) {
            let mut runs = Runs::default();
            for &value in &values {
                let before = runs.len();
                runs.push(value);
                prop_assert!(runs.len() - before <= Runs::PENDING_BYTES);
            }
            let column = runs.finish().to_vec();
            let mut reader = RunsReader::new(&column);
            for &value in &values {
                prop_assert_eq!(reader.next(), Some(value));
            }
            prop_assert!(reader.is_empty());
            prop_assert_eq!(reader.next(), None);
        }

        #[test]
        fn a_text_beyond_its_limit_is_cut_where_it_can_be_seen(text: String, max in 3usize..40) {
            let mut out = Vec::new();
            put_text(&mut out, &text, max);
            let read = Column(&out).text(max).unwrap();
            prop_assert!(read == text || (read.ends_with('…') && text.starts_with(read.strip_suffix('…').unwrap())));
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_malformed() {
        assert_eq!(Column(&[0xff; 11]).varint(), None);
        assert_eq!(
            Column(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint(),
            None
        );
        assert_eq!(
            Column(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).varint(),
            Some(u64::MAX)
        );
        assert_eq!(Column(&[0x80]).varint(), None);
        assert_eq!(Column(&[]).varint(), None);
    }

    #[test]
    fn a_run_of_nothing_is_malformed() {
        assert_eq!(RunsReader::new(&[2, 0]).next(), None);
    }
}
