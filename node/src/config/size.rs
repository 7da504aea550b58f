use std::{fmt, str::FromStr};

/// A size in bytes, written like `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Units that a size is printed in: the largest that leaves no fraction.
const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

impl FromStr for ByteSize {
    type Err = String;

    /// A number with a unit (`B`, `KiB`, `MB` …). A bare number is refused: it is more often a forgotten unit than a count of bytes.
    fn from_str(text: &str) -> Result<ByteSize, String> {
        if !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("{text:?} has no unit"));
        }
        text.parse::<bytesize::ByteSize>()
            .map(|size| ByteSize(size.as_u64()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}
