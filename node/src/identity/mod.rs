//! Who we are and whom we believe.
//!
//! A name is exactly one SPIFFE URI in a certificate ([`watchline_proto::SpiffeId`]). TLS 1.3 only, both ends verified, X25519MLKEM768 preferred, no
//! session resumption: a resumed session would not be verified again, and the revoked would be let in. In the handshake it is decided
//!
//! 1. whether the certificate chains to an anchor in whose scope its name is (`trust_anchors`: every name of our trust domain;
//!    `[[identity.trust]]`: the names that it lists),
//! 2. whether its issuer has revoked it, where lists are configured: only the peer's own certificate is looked up, a list past its
//!    date still applies, and an issuer without a list is refused,
//! 3. whether its role and agency may do this (DESIGN: a forwarder dials collectors of its own agency or a centre, …).
//!
//! One function does the first two for TLS and for signers of batches ([`Identity::verify_chain`]).
//!
//! The files are looked at twice a second ([`Identity::follow_files`]); a changed set is taken as a whole or not at all.
//!
//! Not for: making certificates (`watchline-collector pki`, or any CA).

mod anchors;
mod authority;
mod certificate;
mod files;
mod follow;
mod loaded;
mod peer;
mod refusals;
mod refused;
mod scope;
mod settings;
pub mod testing;
mod tls;
mod trust;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use watchline_proto::{Hash, SpiffeId, signature::VerifyingKey};

pub use anchors::Anchors;
pub use files::{LoadError, LoadProblem};
pub use follow::CHECK;
pub use loaded::{Loaded, OwnState};
pub use peer::{Peer, peer_of};
pub use refusals::Refusals;
pub use refused::Refused;
pub use scope::NamePattern;
pub use settings::{IdentityConfig, ScopedTrust};

use trust::Usage;

/// The identity in force: swapped as a whole when files change; cheap to clone.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    config: IdentityConfig,
    current: ArcSwap<Loaded>,
    generation: watch::Sender<u64>,
    reload_error: Mutex<Option<String>>,
    certificate_expiry: Gauge,
    crl_next_update: Gauge,
    reloaded: Gauge,
}

/// A signer of batches whose certificate verified.
#[derive(Clone)]
pub struct VerifiedSigner {
    /// Equals the seal's name, or the batch is not the signer's.
    pub id: SpiffeId,
    /// Verifies its signatures.
    pub key: VerifyingKey,
    /// SHA-256 of its certificate.
    pub fingerprint: Hash,
    /// The earliest end among its certificate and those above it.
    pub not_after: SystemTime,
}

impl Identity {
    /// Reads and checks all files. The error names the file. A key that group or others can read is refused. An expired or revoked
    /// certificate of our own is loaded and logged: [`Loaded::own_state`] says so, and spools hold until there is a valid one.
    pub fn load(config: &IdentityConfig) -> Result<Identity, LoadError> {
        let loaded = Loaded::read(config)?;
        let shared = Shared {
            config: config.clone(),
            generation: watch::Sender::new(loaded.generation),
            reload_error: Mutex::new(None),
            certificate_expiry: Gauge::default(),
            crl_next_update: Gauge::default(),
            reloaded: Gauge::default(),
            current: ArcSwap::from_pointee(loaded),
        };
        let identity = Identity {
            shared: Arc::new(shared),
        };
        identity.say_how_it_stands(SystemTime::now());
        Ok(identity)
    }

    /// The set in force. Hold it for one piece of work, not for longer.
    pub fn current(&self) -> Arc<Loaded> {
        self.shared.current.load_full()
    }

    /// The generation in force; changes after each swap.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Why the files as they are now were refused; `None` while what is on disk is what is in force.
    pub fn last_reload_error(&self) -> Option<String> {
        self.shared
            .reload_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// rustls configuration for the listening end (TLS 1.3, client certificate required, no tickets, ALPN h2) of this moment.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.shared.current.load().server_config)
    }

    /// For the dialling end, of this moment. The server's certificate must chain and be a collector of our own agency or a centre (for a
    /// collector: likewise; a centre dials centres); its SPIFFE name is what is verified, not its DNS name.
    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.shared.current.load().client_config)
    }

    /// Verifies a chain (leaf first, DER) against the anchors whose scope covers its name, with revocation lists, as of `at`; no role
    /// check. A certificate that was revoked after `at` was good at `at`. For signers of batches; remembered by
    /// certificate as long as this set is in force (a hundred microseconds the first time, one afterwards).
    pub fn verify_chain(
        &self,
        chain: &[Vec<u8>],
        at: SystemTime,
    ) -> Result<VerifiedSigner, Refused> {
        let chain: Vec<CertificateDer<'_>> = chain
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let standing =
            self.shared
                .current
                .load()
                .trust
                .verify_remembered(&chain, at, Usage::Client)?;
        if standing.revoked.is_some_and(|since| since <= at) {
            return Err(Refused::Revoked);
        }
        Ok(VerifiedSigner {
            id: standing.id,
            key: standing.key.ok_or(Refused::WrongUsage)?,
            fingerprint: standing.fingerprint,
            not_after: standing.not_after,
        })
    }

    /// Whether an open connection's certificate is still good now: not expired, not revoked, its anchor still there and in scope.
    /// Cheap enough for each second and connection. Ask again when [`Identity::changes`] changes, and at [`Peer::not_after`].
    pub fn still_valid(&self, peer: &Peer) -> Result<(), Refused> {
        let now = SystemTime::now();
        if now >= peer.not_after {
            return Err(Refused::Expired);
        }
        let standing =
            self.shared
                .current
                .load()
                .trust
                .verify_remembered(&peer.chain, now, Usage::Any)?;
        if standing.revoked.is_some() {
            Err(Refused::Revoked)
        } else {
            Ok(())
        }
    }

    /// Registers `watchline_certificate_expiry_timestamp_seconds` and, where lists are configured,
    /// `watchline_crl_next_update_timestamp_seconds` (the earliest), and `watchline_identity_last_reload_successful`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "watchline_certificate_expiry_timestamp_seconds",
            "When our own certificate ends, as Unix time",
            self.shared.certificate_expiry.clone(),
        );
        self.shared
            .reloaded
            .set(self.last_reload_error().is_none().into());
        registry.register(
            "watchline_identity_last_reload_successful",
            "0 while the certificate files on disk are refused and an earlier set is in force",
            self.shared.reloaded.clone(),
        );
        if self.current().crl_next_update.is_some() {
            registry.register(
                "watchline_crl_next_update_timestamp_seconds",
                "When the first of our revocation lists should have been replaced, as Unix time",
                self.shared.crl_next_update.clone(),
            );
        }
    }

    /// Logs and shows what is to be known of the set in force.
    fn say_how_it_stands(&self, now: SystemTime) {
        let loaded = self.current();
        self.shared
            .certificate_expiry
            .set(unix_seconds(loaded.not_after));
        self.shared
            .crl_next_update
            .set(loaded.crl_next_update.map_or(0, unix_seconds));
        let not_after = humantime::format_rfc3339_seconds(loaded.not_after);
        match loaded.own_state(now) {
            OwnState::Valid => tracing::info!(id = %loaded.id, %not_after, "identity loaded"),
            OwnState::ExpiresSoon => {
                tracing::warn!(id = %loaded.id, %not_after, "our certificate expires soon: renew it")
            }
            OwnState::Expired => {
                tracing::error!(id = %loaded.id, %not_after, "our certificate has expired: nobody will take it")
            }
            OwnState::NotYetValid => {
                tracing::error!(id = %loaded.id, "our certificate is not valid yet: is this clock right?")
            }
            OwnState::Revoked => {
                tracing::error!(id = %loaded.id, "our certificate is revoked: nobody will take it")
            }
        }
        if let Some(next_update) = loaded
            .crl_next_update
            .filter(|next_update| *next_update <= now)
        {
            let since = humantime::format_rfc3339_seconds(next_update);
            tracing::error!(%since, "a revocation list is past its date: it still applies, but newer revocations are unknown");
        }
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
