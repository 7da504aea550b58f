//! Who is who: SPIFFE IDs (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>) of the three roles.

use std::fmt;

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

/// The trust domain of a SPIFFE ID: lower-case host name characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// An agency's code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Agency(String);

/// A peer's own name within its role and agency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName(String);

/// A full name: `spiffe://<trust-domain>/agency/<agency>/forwarder/<name>`, `…/collector/<name>` or `spiffe://<trust-domain>/center/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    role: Role,
    agency: Option<Agency>,
    name: PeerName,
}

/// Why a text is not one of our names. No variant carries more than the offending part, cut to 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// See the message.
    #[error("{what} {text:?} is not valid: {why}")]
    Invalid {
        /// which part
        what: &'static str,
        /// its text, cut
        text: String,
        /// the rule
        why: &'static str,
    },
}

impl SpiffeId {
    /// `agency` is given exactly when the role is not [`Role::Center`].
    pub fn new(
        trust_domain: TrustDomain,
        role: Role,
        agency: Option<Agency>,
        name: PeerName,
    ) -> Result<Self, NameError> {
        todo!()
    }
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
    pub fn role(&self) -> Role {
        self.role
    }
    pub fn agency(&self) -> Option<&Agency> {
        self.agency.as_ref()
    }
    pub fn name(&self) -> &PeerName {
        &self.name
    }
    /// The path without its leading slash, e.g. `agency/moh/forwarder/host-01`: what `[[identity.trust]] names` patterns match.
    pub fn path(&self) -> String {
        todo!()
    }
}
// also: FromStr + Display + AsRef<str> for all; Display of SpiffeId is the URI.
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/", self.trust_domain.0)?;
        match (self.role, &self.agency) {
            (Role::Forwarder, Some(agency)) => {
                write!(f, "agency/{}/forwarder/{}", agency.0, self.name.0)
            }
            (Role::Collector, Some(agency)) => {
                write!(f, "agency/{}/collector/{}", agency.0, self.name.0)
            }
            _ => write!(f, "center/{}", self.name.0),
        }
    }
}
