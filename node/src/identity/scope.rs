use std::{fmt, str::FromStr};

use watchline_proto::SpiffeId;

/// A pattern over [`SpiffeId::path`], like `agency/mof/*` or `agency/mof/forwarder/web-*`.
///
/// `*` stands for any characters within one part of the path; a `*` that is the whole last part stands for all that follows, and
/// `*` alone for every name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether the pattern covers this name.
    pub fn covers(&self, id: &SpiffeId) -> bool {
        let path = id.path();
        let (mut patterns, mut parts) = (self.0.split('/').peekable(), path.split('/'));
        while let Some(pattern) = patterns.next() {
            let Some(part) = parts.next() else {
                return false;
            };
            if pattern == "*" && patterns.peek().is_none() {
                return true;
            }
            if !part_matches(pattern.as_bytes(), part.as_bytes()) {
                return false;
            }
        }
        parts.next().is_none()
    }
}

impl FromStr for NamePattern {
    type Err = &'static str;

    /// Refused is what could never match one of our names: it is a mistake that would be found only when a peer is turned away.
    fn from_str(text: &str) -> Result<NamePattern, &'static str> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-*/".contains(c);
        let open_end = parts.last() == Some(&"*");
        if !text.chars().all(plain) || parts.contains(&"") {
            return Err("has characters that no name has");
        }
        match (parts[0], parts.len()) {
            ("*", 1) => {}
            ("agency", 4) | ("center", 2) => {}
            ("agency", 2..=4) if open_end => {}
            ("agency" | "center", _) => return Err("has the wrong number of parts"),
            _ => return Err("begins with neither agency/ nor center/"),
        }
        Ok(NamePattern(text.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The usual match with one place to return to: linear but for the last `*`.
fn part_matches(pattern: &[u8], part: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < part.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&part[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            (p, t) = (star_p + 1, star_t + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_the_names_it_lists_and_no_others() {
        let covers = |pattern: &str, path: &str| {
            let id = format!("spiffe://watch.example/{path}").parse().unwrap();
            pattern.parse::<NamePattern>().unwrap().covers(&id)
        };
        for (pattern, path) in [
            ("*", "agency/moh/forwarder/a"),
            ("*", "center/c"),
            ("agency/*", "agency/moh/collector/a"),
            ("agency/mof/*", "agency/mof/forwarder/a"),
            ("agency/mof/collector/*", "agency/mof/collector/a"),
            ("agency/mof/forwarder/web-*", "agency/mof/forwarder/web-01"),
            ("agency/m*/forwarder/*-0*", "agency/mof/forwarder/web-0-01"),
            ("agency/*/collector/a", "agency/mof/collector/a"),
            ("center/*", "center/c"),
        ] {
            assert!(covers(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("agency/mof/*", "agency/moh/forwarder/a"),
            ("agency/mof/*", "agency/mof2/forwarder/a"),
            ("agency/mof/*", "center/mof"),
            ("agency/mof/collector/*", "agency/mof/forwarder/a"),
            ("agency/mof/forwarder/web-*", "agency/mof/forwarder/db-01"),
            ("agency/mof/forwarder/web", "agency/mof/forwarder/web-01"),
            ("agency/*", "center/c"),
            ("center/*", "agency/moh/forwarder/a"),
        ] {
            assert!(!covers(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_is_refused() {
        for wrong in [
            "",
            "/",
            "agency",
            "agency/mof",
            "agency//x/*",
            "centre/*",
            "agency/mof*",
            "center/a/b",
            "agency/ä/*",
            "**/a",
        ] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
    }
}
