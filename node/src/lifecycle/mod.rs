//! Starting, reloading, stopping: process limits, logs, signals, systemd, versions, exit codes.
//!
//! A program's `main` begins with [`prepare`] and [`init_logging`], tells [`Systemd::ready`] when it has started (not when it is
//! connected), and ends when the token of [`signals`] is cancelled and everything it started has been joined.

mod arguments;
mod logging;
mod run;
mod signals;
mod systemd;
mod version;

pub use arguments::{ConfigArgument, LogArgument};
pub use logging::{LogFormat, init_logging};
pub use run::run;
pub use signals::signals;
pub use systemd::Systemd;
pub use version::Version;

/// Exit codes of the commands.
pub mod exit {
    /// Done, or ready.
    pub const SUCCESS: u8 = 0;
    /// Failed while running.
    pub const FAILURE: u8 = 1;
    /// Wrong usage or invalid configuration.
    pub const USAGE: u8 = 2;
    /// `status`: running, but not ready. `verify`: incomplete.
    pub const NOT_READY: u8 = 3;
    /// `status`: nobody answers. `verify`: unsound.
    pub const UNREACHABLE: u8 = 4;
}

/// First thing in `main`, before any thread: the TLS provider, the descriptor limit, and files that are private by default.
pub fn prepare() {
    install_crypto();
    // Everything that the programs write is theirs alone, unless the code says otherwise where it creates it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = lift_descriptor_limit() {
        tracing::debug!(%error, "descriptor limit stays as it is");
    }
}

/// Installs the one rustls provider as the process's default. Our own configurations name it themselves; this keeps what a
/// dependency builds from choosing another. May be called again.
pub fn install_crypto() {
    // An error means that one is installed already, which can only be this one: the tree holds no other.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Lifts the limit of open descriptors to the hard limit.
fn lift_descriptor_limit() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(())
}
