//! Who is who: SPIFFE IDs (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>) of the three roles.
//!
//! ```text
//! spiffe://<trust-domain>/agency/<agency>/forwarder/<name>
//! spiffe://<trust-domain>/agency/<agency>/collector/<name>
//! spiffe://<trust-domain>/center/<name>
//! ```
//!
//! `<agency>` and `<name>` match `[A-Za-z0-9][A-Za-z0-9._-]{0,62}` without `..`, so that they are safe as a file
//! name, a metric label and a part of a URI. The trust domain is SPIFFE's: `[a-z0-9._-]{1,255}`. Nothing is
//! normalised: a name is equal to another only byte for byte, and [`FromStr`] takes exactly what
//! [`Display`](fmt::Display) writes.

use std::{fmt, str::FromStr};

/// Longest agency code or peer name, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest trust domain, in bytes.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest [`SpiffeId`] as a URI, in bytes.
pub const MAX_SPIFFE_ID_BYTES: usize =
    "spiffe://".len() + MAX_TRUST_DOMAIN_BYTES + "/agency//forwarder/".len() + 2 * MAX_NAME_BYTES;

/// What a certificate's holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `agency/<agency>/forwarder/<name>`
    Forwarder,
    /// `agency/<agency>/collector/<name>`
    Collector,
    /// `center/<name>`
    Center,
}

/// The trust domain of a SPIFFE ID, e.g. `watch.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// An agency's code, e.g. `moh`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Agency(String);

/// A peer's own name within its role and agency, e.g. `host-01`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName(String);

/// A full name: who holds a certificate, who made a seal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    role: Role,
    agency: Option<Agency>,
    name: PeerName,
}

/// Why a text is not one of our names. The offending part is carried cut to 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text breaks the grammar.
    #[error("{what} {text:?} is not valid: {why}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// Its text, cut.
        text: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl NameError {
    fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        let text = text[..text.floor_char_boundary(64)].to_owned();
        NameError::Invalid { what, text, why }
    }
}

impl SpiffeId {
    /// `agency` is given exactly when the role is not [`Role::Center`].
    pub fn new(
        trust_domain: TrustDomain,
        role: Role,
        agency: Option<Agency>,
        name: PeerName,
    ) -> Result<Self, NameError> {
        match (role, &agency) {
            (Role::Center, Some(agency)) => Err(NameError::new(
                "agency",
                agency.as_ref(),
                "a center belongs to no agency",
            )),
            (Role::Forwarder | Role::Collector, None) => Err(NameError::new(
                "agency",
                "",
                "a forwarder or collector belongs to an agency",
            )),
            _ => Ok(Self {
                trust_domain,
                role,
                agency,
                name,
            }),
        }
    }

    /// The domain whose anchors vouch for this name.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What the holder is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The holder's agency; `None` for a centre.
    pub fn agency(&self) -> Option<&Agency> {
        self.agency.as_ref()
    }

    /// The holder's own name.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// The path without its leading slash, e.g. `agency/moh/forwarder/host-01`: what `[[identity.trust]] names`
    /// patterns match.
    pub fn path(&self) -> String {
        Path(self).to_string()
    }
}

/// Shows the path of a name without its leading slash.
struct Path<'a>(&'a SpiffeId);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpiffeId {
            role, agency, name, ..
        } = self.0;
        match agency {
            Some(agency) => write!(f, "agency/{agency}/{role}/{name}"),
            None => write!(f, "{role}/{name}"),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, Path(self))
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let invalid = |why| NameError::new("SPIFFE ID", text, why);
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| invalid("it begins with spiffe://"))?;
        let (trust_domain, path) = rest
            .split_once('/')
            .ok_or_else(|| invalid("a path follows the trust domain"))?;
        let trust_domain = trust_domain.parse()?;
        // One part more than a name of ours has, so that a longer path is seen and not much of it is taken.
        let mut parts = path.splitn(5, '/');
        let parts = [(); 5].map(|()| parts.next());
        match parts {
            [
                Some("agency"),
                Some(agency),
                Some(role @ ("forwarder" | "collector")),
                Some(name),
                None,
            ] => Self::new(
                trust_domain,
                role.parse()?,
                Some(agency.parse()?),
                name.parse()?,
            ),
            [Some("center"), Some(name), None, ..] => {
                Self::new(trust_domain, Role::Center, None, name.parse()?)
            }
            _ => Err(invalid(
                "its path is agency/<agency>/forwarder|collector/<name> or center/<name>",
            )),
        }
    }
}

impl Role {
    /// `forwarder`, `collector` or `center`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Forwarder => "forwarder",
            Role::Collector => "collector",
            Role::Center => "center",
        }
    }
}

impl AsRef<str> for Role {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "forwarder" => Ok(Role::Forwarder),
            "collector" => Ok(Role::Collector),
            "center" => Ok(Role::Center),
            _ => Err(NameError::new(
                "role",
                text,
                "it is forwarder, collector or center",
            )),
        }
    }
}

impl AsRef<str> for TrustDomain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let invalid = |why| Err(NameError::new("trust domain", text, why));
        let allowed = |c: &u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        match text.len() {
            0 => invalid("it is not empty"),
            1..=MAX_TRUST_DOMAIN_BYTES if text.as_bytes().iter().all(allowed) => {
                Ok(Self(text.to_owned()))
            }
            1..=MAX_TRUST_DOMAIN_BYTES => {
                invalid("it has lower-case letters, digits, '.', '-' and '_' only")
            }
            _ => invalid("it has at most 255 bytes"),
        }
    }
}

impl AsRef<str> for Agency {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Agency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Agency {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked_name("agency", text).map(Self)
    }
}

impl AsRef<str> for PeerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PeerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked_name("name", text).map(Self)
    }
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,62}` without `..`.
fn checked_name(what: &'static str, text: &str) -> Result<String, NameError> {
    let invalid = |why| Err(NameError::new(what, text, why));
    let bytes = text.as_bytes();
    let Some(first) = bytes.first() else {
        return invalid("it is not empty");
    };
    if bytes.len() > MAX_NAME_BYTES {
        return invalid("it has at most 63 bytes");
    }
    if !first.is_ascii_alphanumeric() {
        return invalid("it begins with a letter or digit");
    }
    if !bytes
        .iter()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    {
        return invalid("it has letters, digits, '.', '-' and '_' only");
    }
    if text.contains("..") {
        return invalid("it has no two dots in a row");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused<T: FromStr<Err = NameError>>(text: &str) -> &'static str {
        match text.parse::<T>() {
            Ok(_) => panic!("{text:?} was taken"),
            Err(NameError::Invalid { why, .. }) => why,
        }
    }

    #[test]
    fn the_three_roles_have_the_names_of_the_design() {
        for text in [
            "spiffe://watch.example/agency/moh/forwarder/host-01",
            "spiffe://watch.example/agency/moh/collector/c.1",
            "spiffe://watch.example/center/A_1",
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(format!("spiffe://watch.example/{}", id.path()), text);
        }
        let id: SpiffeId = "spiffe://watch.example/agency/moh/forwarder/host-01"
            .parse()
            .unwrap();
        assert_eq!(id.role(), Role::Forwarder);
        assert_eq!(id.agency().unwrap().as_ref(), "moh");
        assert_eq!(id.name().as_ref(), "host-01");
        assert_eq!(id.trust_domain().as_ref(), "watch.example");
    }

    #[test]
    fn a_name_that_breaks_the_grammar_is_refused_with_the_rule() {
        assert_eq!(refused::<PeerName>(""), "it is not empty");
        assert_eq!(
            refused::<PeerName>("-a"),
            "it begins with a letter or digit"
        );
        assert_eq!(
            refused::<PeerName>(".a"),
            "it begins with a letter or digit"
        );
        assert_eq!(refused::<PeerName>("a..b"), "it has no two dots in a row");
        assert_eq!(
            refused::<PeerName>("a/b"),
            "it has letters, digits, '.', '-' and '_' only"
        );
        assert_eq!(
            refused::<PeerName>("a\0"),
            "it has letters, digits, '.', '-' and '_' only"
        );
        assert_eq!(refused::<Agency>("é"), "it begins with a letter or digit");
        assert_eq!(
            refused::<Agency>(&"a".repeat(64)),
            "it has at most 63 bytes"
        );
        assert!("a".repeat(63).parse::<Agency>().is_ok());
        assert_eq!(refused::<TrustDomain>(""), "it is not empty");
        assert_eq!(
            refused::<TrustDomain>("Watch.example"),
            "it has lower-case letters, digits, '.', '-' and '_' only"
        );
        assert_eq!(
            refused::<TrustDomain>(&"a".repeat(256)),
            "it has at most 255 bytes"
        );
        assert_eq!(
            refused::<Role>("centre"),
            "it is forwarder, collector or center"
        );
    }

    #[test]
    fn a_path_that_is_not_one_of_the_three_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://d",
            "spiffe://d/",
            "SPIFFE://d/center/a",
            "spiffe:///center/a",
            "spiffe://d/center",
            "spiffe://d/center/",
            "spiffe://d/center/a/",
            "spiffe://d/center/a/b",
            "spiffe://d/center/a/b/c/d/e/f",
            "spiffe://d/agency/moh/center/a",
            "spiffe://d/agency/moh/forwarder/a/",
            "spiffe://d/agency/moh/forwarder/a/b",
            "spiffe://d/agency//forwarder/a",
            "spiffe://d//agency/moh/forwarder/a",
            "spiffe://d/agency/moh/forwarder/a?b",
            "spiffe://d:1/center/a",
            "spiffe://u@d/center/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn an_agency_is_given_exactly_when_the_role_has_one() {
        let domain: TrustDomain = "d".parse().unwrap();
        let name: PeerName = "a".parse().unwrap();
        let agency: Agency = "moh".parse().unwrap();
        assert!(
            SpiffeId::new(
                domain.clone(),
                Role::Center,
                Some(agency.clone()),
                name.clone()
            )
            .is_err()
        );
        assert!(SpiffeId::new(domain.clone(), Role::Forwarder, None, name.clone()).is_err());
        assert!(SpiffeId::new(domain.clone(), Role::Collector, None, name.clone()).is_err());
        assert!(SpiffeId::new(domain, Role::Collector, Some(agency), name).is_ok());
    }

    #[test]
    fn an_error_carries_no_more_than_64_bytes_of_the_text() {
        let NameError::Invalid { text, .. } = "é".repeat(1000).parse::<PeerName>().unwrap_err();
        assert_eq!(text, "é".repeat(32));
    }

    #[test]
    fn the_longest_name_is_as_long_as_the_limit_says() {
        let id = format!(
            "spiffe://{}/agency/{}/forwarder/{}",
            "d".repeat(MAX_TRUST_DOMAIN_BYTES),
            "a".repeat(MAX_NAME_BYTES),
            "n".repeat(MAX_NAME_BYTES)
        );
        assert_eq!(id.len(), MAX_SPIFFE_ID_BYTES);
        assert_eq!(id.parse::<SpiffeId>().unwrap().to_string(), id);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_shown_again_to_the_byte(text in "spiffe://[a-z._-]{0,5}/(agency/[aA0._-]{0,4}/(forwarder|collector)|center|x)/[zZ9._-]{0,5}/?") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn names_of_the_grammar_are_taken(text in "[A-Za-z0-9][A-Za-z0-9._-]{0,62}") {
            prop_assert_eq!(text.parse::<PeerName>().is_ok(), !text.contains(".."));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in any::<String>()) {
            let _ = text.parse::<SpiffeId>();
            let _ = text.parse::<TrustDomain>();
        }
    }
}
