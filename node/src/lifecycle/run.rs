//! The life of a process, from its arguments to its exit status.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{LogArgument, exit, init_logging, signals};

/// Runs `program` on a runtime of this thread until it ends, or is told to by a signal. It gets the requests to reload (SIGHUP) and the token
/// that SIGTERM and SIGINT cancel. Signals are listened to before it begins, and it logs from here on: a failure is a line of the log
/// like any other.
pub fn run(
    log: &LogArgument,
    program: impl AsyncFnOnce(mpsc::Receiver<()>, CancellationToken) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    init_logging(log.log_format);
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .and_then(|runtime| {
            runtime.block_on(async {
                let stop = CancellationToken::new();
                let reloads = signals(stop.clone()).context("listen for signals")?;
                Box::pin(program(reloads, stop)).await
            })
        });
    match ended {
        Ok(status) => status,
        Err(error) => {
            tracing::error!("{error:#}");
            exit::FAILURE.into()
        }
    }
}
