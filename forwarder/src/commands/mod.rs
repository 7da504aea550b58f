//! The commands of `watchline-forwarder`.

mod dry_run;
mod quarantine;
mod run;
mod status;

use std::{io, path::Path, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use watchline_node::{
    health,
    lifecycle::{ConfigArgument, LogArgument, exit},
};

use crate::{config::Config, run::VERSION};

/// Reads security events on this host and carries them to a collector, exactly once
#[derive(Debug, Parser)]
#[command(
    name = "watchline-forwarder",
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
First steps, with a certificate from `watchline-collector pki issue --role forwarder`:
  watchline-forwarder check  --config forwarder.toml     every problem, with file, line and column
  watchline-forwarder run    --config forwarder.toml     in the foreground; systemd's unit does the same
  watchline-forwarder status --config forwarder.toml     is it connected, what waits, how far each file is read

Exit status: 0 success, 1 failure while running, 2 wrong usage or invalid configuration.
Of `status`: 0 ready, 3 not ready, 4 unreachable.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM; SIGHUP reloads the configuration
    #[command(after_help = "\
SIGTERM and SIGINT end it cleanly: what was read is spooled, what is spooled is offered for the grace period ([uplink] grace), \
acknowledgements are written down. Nothing is lost by a second one, or by SIGKILL: it goes on where it was.
SIGHUP reads the configuration again: [uplink], [labels], [[source]] and [[alert]] take effect at once, what else has changed is \
named in the log and waits for a restart. An invalid configuration is refused as a whole, the last good one stays.
Certificates, keys and revocation lists are followed without any signal.

Examples:
  watchline-forwarder run --config /etc/watchline/forwarder.toml
  WATCHLINE_LOG=debug watchline-forwarder run --config forwarder.toml --log-format json")]
    Run(ConfigArgument),
    /// Check the configuration and its certificate, and report every problem with file, line and column
    #[command(after_help = "\
Nothing is started and nothing is changed. Prints `FILE: ok` and exits with 0, or one problem a line and exits with 2.
With --dry-run it also shows, for each source, which files match now, how far each has been read, and the first records behind that as \
they would be sent, one JSON object a line: alerts with their rule first, then routine events. It can be used while the forwarder runs. \
Sources that listen are named only: their ports are not opened.

Examples:
  watchline-forwarder check --config forwarder.toml && systemctl reload watchline-forwarder
  watchline-forwarder check --config forwarder.toml --dry-run --records 10")]
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Show what would be read and sent; changes nothing
        #[arg(long)]
        dry_run: bool,
        /// How many records of each source and lane --dry-run shows
        #[arg(long, value_name = "N", default_value_t = 3, requires = "dry_run", value_parser = clap::value_parser!(u16).range(0..=1000))]
        records: u16,
    },
    /// Ask the running forwarder how it does: connection, backlog, files
    #[command(after_help = "\
Asks through the health endpoint ([health] listen). Exit status: 0 ready, 3 not ready, 4 unreachable.

Examples:
  watchline-forwarder status --config forwarder.toml
  watchline-forwarder status --config forwarder.toml --json | jq .lanes.routine.backlog_bytes")]
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print what `/status` answers, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Batches that the next hop refused for a defect of their own: their bytes are kept
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Print shell completions
    #[command(after_help = "\
Example:
  watchline-forwarder completions bash > /etc/bash_completion.d/watchline-forwarder")]
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
        Command::Check {
            config: argument,
            dry_run,
            records,
        } => with_config(&argument.config, |config| {
            let checked = run::check(&config, &argument.config);
            if dry_run && checked == ExitCode::SUCCESS {
                dry_run::show(&config, records.into(), &mut io::stdout().lock())?;
            }
            Ok(checked)
        }),
        Command::Status { config, json } => with_config(&config.config, |config| {
            health::status(config.health, json, status::table)
        }),
        Command::Quarantine(command) => with_config(command.config(), |config| {
            quarantine::execute(&command, &config)
        }),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "watchline-forwarder",
                &mut io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(failed)
}

fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    exit::FAILURE.into()
}

/// Reads the configuration; its problems go to standard error, one a line.
fn with_config(
    file: &Path,
    then: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match Config::read(file) {
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
