//! What systemd is told (sd_notify(3)); nothing happens where nobody listens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::supervisor::SupervisorHandle;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// The daemon takes commands, and what is to start by itself was started.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon reads its configuration again, until it says that it is [`ready`].
pub fn reloading() {
    tell(&[NotifyState::Reloading]);
}

/// The daemon is leaving.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Leaving makes progress, and may take this much longer.
pub fn still_stopping(status: &str, for_another: Duration) {
    let microseconds = u32::try_from(for_another.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// Keeps the watchdog content for as long as the supervisor answers; returns at once where none watches.
pub async fn keep_alive(supervisor: SupervisorHandle) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        let counts = supervisor.counts();
        tracing::trace!(?counts, "alive");
        tell(&[NotifyState::Watchdog]);
    }
}
