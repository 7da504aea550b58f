use std::fmt;

/// A program's version and the commit that it was built from, printed like `0.1.0 (abcdef123456)`.
///
/// The programs' build scripts put that text into `WATCHLINE_VERSION`; the commit is `unknown` outside a git checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(&'static str);

impl Version {
    /// Takes `env!("WATCHLINE_VERSION")`.
    pub const fn parse(text: &'static str) -> Version {
        Version(text)
    }

    /// The whole, for `--version`.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// `0.1.0`
    pub fn number(self) -> &'static str {
        self.0.split(' ').next().unwrap_or(self.0)
    }

    /// `abcdef123456`, or `unknown`
    pub fn commit(self) -> &'static str {
        self.0
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'))
            .unwrap_or("unknown")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_version_falls_into_number_and_commit() {
        let version = Version::parse("0.1.0 (abcdef123456)");
        assert_eq!(
            (version.number(), version.commit()),
            ("0.1.0", "abcdef123456")
        );
        assert_eq!(Version::parse("0.1.0").commit(), "unknown");
    }
}
