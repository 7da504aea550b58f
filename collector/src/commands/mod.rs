//! The commands of `watchline-collector`.

mod quarantine;
mod run;
mod status;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use watchline_node::{
    health,
    lifecycle::{ConfigArgument, LogArgument, exit},
};

use crate::{config::CollectorConfig, pki, run::VERSION, verify};

/// Takes sealed batches from forwarders and other collectors, stores them, acknowledges, and delivers them
#[derive(Debug, Parser)]
#[command(
    name = "watchline-collector",
    version = VERSION.as_str(),
    arg_required_else_help = true,
    after_help = AFTER_HELP,
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgument,
}

const AFTER_HELP: &str = "\
The same program is an agency's collector and the national centre: its certificate says which.

First steps:
  watchline-collector pki init  --dir ca --trust-domain watch.example
  watchline-collector pki issue --dir ca --role collector --agency moh --name collector-1 --out .
  watchline-collector check     --config collector.toml
  watchline-collector run       --config collector.toml
  watchline-collector status    --config collector.toml

Exit status: 0 success, 1 failure, 2 wrong usage or invalid configuration.
Of `status`: 0 ready, 3 not ready, 4 unreachable. Of `verify`: 0 complete and sound, 3 incomplete, 4 unsound.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM; SIGHUP reloads the configuration
    #[command(after_help = "\
SIGTERM and SIGINT end it cleanly: senders are told to go elsewhere, what was taken in is committed, outputs finish what they \
can, marks are written. A second one ends it at once; nothing acknowledged is lost by that.
SIGHUP reads the configuration again: endpoints of upstream outputs and [watch] take effect at once, what else has changed is named \
in the log and needs a restart. An invalid configuration is refused, the last good one stays.
Certificates, keys and revocation lists are followed without any signal.")]
    Run(ConfigArgument),
    /// Check the configuration and its certificates, and report every problem with file, line and column
    Check(ConfigArgument),
    /// Ask the running collector how it does: forwarders, outputs, checks
    #[command(after_help = "Exit status: 0 ready, 3 not ready, 4 unreachable.")]
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print what `/status` answers, as JSON
        #[arg(long)]
        json: bool,
    },
    /// A private certificate authority, for those who have none
    #[command(subcommand)]
    Pki(pki::Command),
    /// Check an archive or a buffer directory: every hash, chain and signature, with the anchors alone
    #[command(after_help = "Exit status: 0 complete and sound, 3 incomplete, 4 unsound.")]
    Verify {
        /// The directory of an `archive` output, or of a buffer that no process uses
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Trust anchors, PEM
        #[arg(long, value_name = "FILE")]
        anchors: PathBuf,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Batches that the next hop refused for a defect of their own: their bytes are kept
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Print shell completions, e.g. for /etc/bash_completion.d
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Does what the command line says.
pub fn execute(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(argument) => Ok(run::run(&argument.config, &cli.log)),
        Command::Check(argument) => with_config(&argument.config, |config| {
            run::check(&config, &argument.config)
        }),
        Command::Status { config, json } => with_config(&config.config, |config| {
            health::status(config.health.listen, json, status::table)
        }),
        Command::Pki(command) => pki::execute(command),
        Command::Verify {
            directory,
            anchors,
            json,
        } => verify::run(&directory, &anchors, json, &mut io::stdout().lock())
            .map(|verdict| verdict.exit_status().into()),
        Command::Quarantine(command) => with_config(command.config(), |config| {
            quarantine::execute(&command, &config)
        }),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "watchline-collector",
                &mut io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        exit::FAILURE.into()
    })
}

/// Reads the configuration; its problems go to standard error, one a line.
fn with_config(
    file: &Path,
    then: impl FnOnce(CollectorConfig) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match CollectorConfig::read(file) {
        Ok(config) => then(config),
        Err(problems) => {
            eprintln!("{problems}");
            Ok(exit::USAGE.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
