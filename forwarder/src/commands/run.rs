//! `run` and `check`.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use watchline_node::{
    identity::Identity,
    lifecycle::{self, LogArgument, exit},
};
use watchline_proto::Role;

use crate::config::Config;

/// Runs until told to stop. Logs from here on, so that a failure is a line of the log like any other.
pub(super) fn run(config: Config, file: &Path, log: &LogArgument) -> ExitCode {
    lifecycle::init_logging(log.log_format);
    match run_to_the_end(config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            exit::FAILURE.into()
        }
    }
}

fn run_to_the_end(config: Config, file: &Path) -> anyhow::Result<()> {
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
