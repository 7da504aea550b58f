use watchline_proto::{Role, SpiffeId};

use super::Refused;

/// Whether `own` takes a connection from `peer`. A collector takes forwarders and collectors of its own agency; a centre takes any agency's,
/// and centres, of which ingest then asks that what they relay is listed; a forwarder takes nobody.
pub(super) fn may_dial_us(own: &SpiffeId, peer: &SpiffeId) -> Result<(), Refused> {
    match (own.role(), peer.role()) {
        (Role::Collector, Role::Forwarder | Role::Collector) => same_agency(own, peer),
        (Role::Center, _) => Ok(()),
        (Role::Collector, Role::Center) | (Role::Forwarder, _) => {
            Err(Refused::WrongRole(peer.clone()))
        }
    }
}

/// Whether `own` may send to `peer`. A forwarder and a collector dial collectors of their own agency or a centre, a centre dials centres.
pub(super) fn may_be_dialled(own: &SpiffeId, peer: &SpiffeId) -> Result<(), Refused> {
    match (own.role(), peer.role()) {
        (_, Role::Center) => Ok(()),
        (Role::Forwarder | Role::Collector, Role::Collector) => same_agency(own, peer),
        (Role::Center, Role::Collector) | (_, Role::Forwarder) => {
            Err(Refused::WrongRole(peer.clone()))
        }
    }
}

fn same_agency(own: &SpiffeId, peer: &SpiffeId) -> Result<(), Refused> {
    if own.agency() == peer.agency() {
        Ok(())
    } else {
        Err(Refused::WrongAgency(peer.clone()))
    }
}
