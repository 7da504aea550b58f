use std::path::PathBuf;

use super::LogFormat;

/// `--config FILE`, as every command that reads one has it.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgument {
    /// The configuration file (TOML). Relative paths in it are relative to its folder
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `--log-format FORMAT`, global.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgument {
    /// How logs are written to standard error; WATCHLINE_LOG sets the level (error, warn, info, debug, trace)
    #[arg(long, value_name = "FORMAT", global = true, value_enum)]
    pub log_format: Option<LogFormat>,
}
