use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// What systemd is told about the service (`Type=notify`). Each call is one datagram to `$NOTIFY_SOCKET`, and nothing without one.
pub struct Systemd;

impl Systemd {
    /// `READY=1`: started, or reloaded. Not: connected.
    pub fn ready() {
        notify(&[NotifyState::Ready]);
    }

    /// `RELOADING=1`; [`Systemd::ready`] must follow, whether the new configuration was taken or not.
    pub fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "no monotonic clock, reload is not announced"),
        }
    }

    /// `STOPPING=1`
    pub fn stopping() {
        notify(&[NotifyState::Stopping]);
    }

    /// `STATUS=`: one line that `systemctl status` shows.
    pub fn status(line: &str) {
        notify(&[NotifyState::Status(line)]);
    }

    /// Sends `WATCHDOG=1` at half the interval that the unit asks for, each time only if `alive()`, until `stop`. Without
    /// `WatchdogSec=` it waits for `stop` and does nothing.
    pub async fn watchdog(alive: impl Fn() -> bool, stop: CancellationToken) {
        let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
        else {
            return stop.cancelled().await;
        };
        let mut ticks = tokio::time::interval(interval / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if alive() {
                notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("not alive: the watchdog is not answered");
            }
        }
    }
}

/// A service manager that does not listen is no reason to stop working.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
