//! `run` and `check`.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use watchline_node::{
    identity::Identity,
    lifecycle::{self, LogArgument, exit},
};
use watchline_proto::Role;

use crate::config::CollectorConfig;

/// Runs until told to stop. Logs from here on, so that a failure is a line of the log like any other.
pub(super) fn run(config: CollectorConfig, file: &Path, log: &LogArgument) -> ExitCode {
    lifecycle::init_logging(log.log_format);
    match run_to_the_end(config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            exit::FAILURE.into()
        }
    }
}

fn run_to_the_end(config: CollectorConfig, file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let reloads = lifecycle::signals(stop.clone()).context("listen for signals")?;
        Box::pin(crate::run(config, file.to_owned(), reloads, stop)).await
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
