mod files;
mod handshake;
mod reload;
mod signers;

use super::testing::Authority;

const DOMAIN: &str = "watch.example";

fn authority() -> Authority {
    Authority::new(DOMAIN)
}
