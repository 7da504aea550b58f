use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT cancel `stop`; a second one ends the process at once with exit code 1. Each SIGHUP sends on the channel; those that
/// come while one is still unread are one. Must be called inside a runtime. The task that listens lives as long as the process.
pub fn signals(stop: CancellationToken) -> std::io::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (reloads, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = hang_up.recv() => {
                    // Full: a reload is waiting already, and it will read the files as they are now.
                    let _ = reloads.try_send(());
                    continue;
                }
                else => return,
            };
            if stop.is_cancelled() {
                tracing::warn!(signal = name, "asked to stop a second time, ending at once");
                std::process::exit(super::exit::FAILURE.into());
            }
            tracing::info!(signal = name, "stopping");
            stop.cancel();
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    // One test: signals are the process's, and so would be the tests' quarrel.
    #[tokio::test]
    async fn a_hang_up_asks_for_a_reload_and_a_termination_for_the_end() {
        let stop = CancellationToken::new();
        let mut reloads = signals(stop.clone()).unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        assert_eq!(reloads.recv().await, Some(()));
        assert!(!stop.is_cancelled());
        kill_process(getpid(), Signal::TERM).unwrap();
        stop.cancelled().await;
    }
}
