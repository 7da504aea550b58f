use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people, with colours on a terminal
    Human,
    /// One JSON object a line
    Json,
}

/// The environment variable that sets the level, in the syntax of `tracing_subscriber::EnvFilter`.
const LEVEL_VARIABLE: &str = "WATCHLINE_LOG";

/// Logs to standard error: human by default, JSON lines with [`LogFormat::Json`]; INFO and above unless `WATCHLINE_LOG` says otherwise.
/// A second call changes nothing.
pub fn init_logging(format: Option<LogFormat>) {
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let (filter, wrong) = match EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&wanted)
    {
        Ok(filter) => (filter, None),
        Err(error) => (
            EnvFilter::default().add_directive(LevelFilter::INFO.into()),
            Some(error),
        ),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let initialised = match format.unwrap_or(LogFormat::Human) {
        LogFormat::Human => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
    if let (Ok(()), Some(error)) = (initialised, wrong) {
        tracing::warn!(%error, "{LEVEL_VARIABLE} is not a log filter; logging at info");
    }
}
