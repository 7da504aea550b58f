//! Who may bring whose batches, by name alone (DESIGN section 8). Who may connect at all is decided in the handshake.

use watchline_node::identity::NamePattern;
use watchline_proto::{Role, SpiffeId, refusal::Refusal};

use super::refusal::Refused;

/// A relay that may bring more than its own agency's: an entry of `[[ingest.allow]]`.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// The relay's name behind the trust domain.
    pub peer: String,
    /// Whose batches.
    pub names: Vec<NamePattern>,
}

/// Whether `peer` may hand over what `sealer` has sealed: a forwarder its own, a collector its agency's, and a centre its own and
/// what is listed for it.
pub(super) fn may_bring(
    peer: &SpiffeId,
    sealer: &SpiffeId,
    allowed: &[Allowed],
) -> Result<(), Refused> {
    let own_agency = || {
        peer.role() == Role::Collector
            && peer.trust_domain() == sealer.trust_domain()
            && sealer.role() != Role::Center
            && peer.agency() == sealer.agency()
    };
    let listed = || {
        peer.role() != Role::Forwarder
            && allowed.iter().any(|entry| {
                entry.peer == peer.path() && entry.names.iter().any(|name| name.covers(sealer))
            })
    };
    if peer == sealer || own_agency() || listed() {
        return Ok(());
    }
    Err(Refused::new(
        Refusal::WrongAgency,
        format_args!("{peer} may not bring what {sealer} has sealed"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://watch.example/{path}").parse().unwrap()
    }

    #[test]
    fn nobody_speaks_for_another_host_or_agency() {
        let may = |peer: &str, sealer: &str| may_bring(&id(peer), &id(sealer), &[]).is_ok();
        assert!(may("agency/moh/forwarder/h1", "agency/moh/forwarder/h1"));
        assert!(!may("agency/moh/forwarder/h1", "agency/moh/forwarder/h2"));
        assert!(!may("agency/moh/forwarder/h1", "agency/moh/collector/h1"));
        assert!(may("agency/moh/collector/c1", "agency/moh/forwarder/h1"));
        assert!(may("agency/moh/collector/c1", "agency/moh/collector/c2"));
        assert!(!may("agency/moh/collector/c1", "agency/mof/forwarder/h1"));
        assert!(!may("agency/moh/collector/c1", "center/national"));
        assert!(may("center/north", "center/north"));
        assert!(!may("center/north", "agency/moh/forwarder/h1"));
        let elsewhere = "spiffe://other.example/agency/moh/forwarder/h1"
            .parse()
            .unwrap();
        assert!(may_bring(&id("agency/moh/collector/c1"), &elsewhere, &[]).is_err());
    }

    #[test]
    fn a_relaying_centre_speaks_for_what_is_listed_only() {
        let allowed = [Allowed {
            peer: "center/north".to_owned(),
            names: vec!["agency/moh/*".parse().unwrap()],
        }];
        let may = |peer: &str, sealer: &str| may_bring(&id(peer), &id(sealer), &allowed).is_ok();
        assert!(may("center/north", "agency/moh/forwarder/h1"));
        assert!(!may("center/north", "agency/mof/forwarder/h1"));
        assert!(!may("center/south", "agency/moh/forwarder/h1"));
    }
}
