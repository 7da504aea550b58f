//! `run` and `check`.

use std::{path::Path, process::ExitCode};

use watchline_node::{
    identity::Identity,
    lifecycle::{self, LogArgument, exit},
};
use watchline_proto::Role;

use crate::config::Config;

/// Runs until told to stop.
pub(super) fn run(file: &Path, log: &LogArgument) -> ExitCode {
    lifecycle::run(log, async |reloads, stop| match Config::read(file) {
        Ok(config) => {
            crate::run(config, file.to_owned(), reloads, stop).await?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            eprintln!("{problems}");
            Ok(exit::USAGE.into())
        }
    })
}

/// The configuration is valid in form; its certificate is read too, and nothing else is touched.
pub(super) fn check(config: &Config, file: &Path) -> ExitCode {
    let problem = match Identity::load(&config.identity) {
        Ok(identity) if identity.current().id.role() == Role::Forwarder => {
            println!("{}: ok", file.display());
            return ExitCode::SUCCESS;
        }
        Ok(identity) => format!(
            "the certificate is not a forwarder's: {}",
            identity.current().id
        ),
        Err(error) => format!("{:#}", anyhow::Error::new(error)),
    };
    eprintln!("{}: [identity]: {problem}", file.display());
    exit::USAGE.into()
}
