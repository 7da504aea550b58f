//! A private certificate authority for those who have none.

use std::process::ExitCode;

/// What `pki` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {}

/// Does it.
pub fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {}
}
