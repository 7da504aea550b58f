use std::path::PathBuf;

use super::NamePattern;
use crate::config::Section;

/// `[identity]`, validated in form (the files are read by [`super::Identity::load`]).
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// PEM, leaf first, then intermediates.
    pub certificate: PathBuf,
    /// PEM, PKCS#8, ECDSA P-256 or Ed25519; readable by its owner only.
    pub private_key: PathBuf,
    /// PEM; vouch for every name of our own trust domain.
    pub trust_anchors: PathBuf,
    /// PEM, one list or more. Absent: revocation is not checked.
    pub revocations: Option<PathBuf>,
    /// `[[identity.trust]]`
    pub trust: Vec<ScopedTrust>,
}

/// `[[identity.trust]]`: further anchors, each for its names only.
#[derive(Debug, Clone)]
pub struct ScopedTrust {
    /// PEM.
    pub anchors: PathBuf,
    /// PEM, one list or more. Absent: revocation is not checked for what these anchors vouch for.
    pub revocations: Option<PathBuf>,
    /// What they may vouch for; at least one.
    pub names: Vec<NamePattern>,
}

impl IdentityConfig {
    /// Takes `[identity]`. `None` when anything was wrong with it; what, the section's document has.
    pub fn read(section: &mut Section<'_>) -> Option<IdentityConfig> {
        let certificate = section.required_path("certificate");
        let private_key = section.required_path("private_key");
        let trust_anchors = section.required_path("trust_anchors");
        let revocations = section.path("revocations");
        let trust = section
            .tables("trust")
            .iter_mut()
            .map(ScopedTrust::read)
            .collect::<Vec<_>>();
        Some(IdentityConfig {
            certificate: certificate?,
            private_key: private_key?,
            trust_anchors: trust_anchors?,
            revocations,
            trust: trust.into_iter().collect::<Option<Vec<_>>>()?,
        })
    }
}

impl ScopedTrust {
    fn read(section: &mut Section<'_>) -> Option<ScopedTrust> {
        let anchors = section.required_path("anchors");
        let revocations = section.path("revocations");
        let mut names = Vec::new();
        for text in section.required_strings("names") {
            match text.value.parse() {
                Ok(pattern) => names.push(pattern),
                Err(why) => {
                    let right = "patterns like \"agency/mof/*\" or \"agency/mof/forwarder/web-*\"";
                    section.problem_at(
                        text.span,
                        format!("`names` must hold {right}; {:?} {why}", text.value),
                    );
                }
            }
        }
        Some(ScopedTrust {
            anchors: anchors?,
            revocations,
            names,
        })
        .filter(|trust| !trust.names.is_empty())
    }
}
