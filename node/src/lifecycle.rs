//! Starting, reloading, stopping: signals, systemd, logs, exit codes.
use tokio_util::sync::CancellationToken;
/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}
/// Logs to standard error; human (colour only on a terminal) by default, JSON lines with `Json`; level by `WATCHLINE_LOG` (env-filter), default info.
pub fn init_logging(format: Option<LogFormat>) {}
/// SIGTERM and SIGINT cancel the token; a second one ends the process at once (exit 1). SIGHUP sends on the channel.
pub fn signals(stop: CancellationToken) -> std::io::Result<tokio::sync::mpsc::Receiver<()>> {
    todo!()
}
/// sd_notify: READY=1, RELOADING=1/MONOTONIC_USEC, STOPPING=1, STATUS=, WATCHDOG=1 at half the interval while `alive()`; no-ops outside systemd.
pub struct Systemd;
impl Systemd {
    pub fn ready() {}
    pub fn reloading() {}
    pub fn stopping() {}
    pub async fn watchdog(alive: impl Fn() -> bool, stop: CancellationToken) {}
}
/// Lifts the descriptor limit to the hard limit. install_crypto(): the one rustls provider; first thing in main.
pub fn install_crypto() {}
/// Exit codes of the commands.
pub mod exit {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_READY: u8 = 3;
    pub const UNREACHABLE: u8 = 4;
}
/// `0.1.0 (abcdef123456)`; the commit comes from build.rs of the program (env WATCHLINE_COMMIT), `unknown` outside git.
pub const _VERSION_NOTE: () = ();
