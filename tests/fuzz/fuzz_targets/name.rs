//! A name that is taken is shown again to the byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchline_proto::{Agency, SpiffeId, TrustDomain, seal::Epoch};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(agency) = text.parse::<Agency>() {
        assert_eq!(agency.as_ref(), text);
        assert!(!text.contains(['/', '\0']) && text != "." && text != "..");
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.as_ref(), text);
    }
    if let Ok(epoch) = text.parse::<Epoch>() {
        assert_eq!(epoch.to_string(), text);
    }
});
