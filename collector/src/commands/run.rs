//! `run` and `check`.

use std::{path::Path, process::ExitCode};

use watchline_node::{
    identity::Identity,
    lifecycle::{self, LogArgument, exit},
};
use watchline_proto::Role;

use crate::config::CollectorConfig;

/// Runs until told to stop.
pub(super) fn run(file: &Path, log: &LogArgument) -> ExitCode {
    lifecycle::run(log, async |reloads, stop| {
        match CollectorConfig::read(file) {
            Ok(config) => {
                crate::run(config, file.to_owned(), reloads, stop).await?;
                Ok(ExitCode::SUCCESS)
            }
            Err(problems) => {
                eprintln!("{problems}");
                Ok(exit::USAGE.into())
            }
        }
    })
}

/// The configuration is valid in form; its certificates are read too, and nothing else is touched.
pub(super) fn check(config: &CollectorConfig, file: &Path) -> anyhow::Result<ExitCode> {
    let id = match Identity::load(&config.identity) {
        Ok(identity) => identity.current().id.clone(),
        Err(error) => {
            eprintln!("{}: [identity]: {error:#}", file.display());
            return Ok(exit::USAGE.into());
        }
    };
    let role = match id.role() {
        Role::Collector => "collector",
        Role::Center => "center",
        Role::Forwarder => {
            eprintln!(
                "{}: [identity]: the certificate is a forwarder's ({id}); a collector or center certificate is needed",
                file.display()
            );
            return Ok(exit::USAGE.into());
        }
    };
    println!(
        "{}: valid; {role} {id}, {} outputs",
        file.display(),
        config.outputs.len()
    );
    Ok(ExitCode::SUCCESS)
}
