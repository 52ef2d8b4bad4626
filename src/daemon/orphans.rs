//! Descendants that lost their parent come to the daemon, and are reaped here as soon as they end.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::subprocess::{Notice, Reporter};
use crate::sys::reaper::Mains;

/// Reaps orphans for ever: woken by SIGCHLD, and after each main that was reaped, because an orphan may have stood behind it.
pub async fn reap(mains: Arc<Mains>, reaped: Arc<Notify>, reporter: Arc<dyn Reporter>) -> io::Result<()> {
    let mut child_ended = signal(SignalKind::child())?;
    loop {
        if let Err(error) = mains.reap_orphans(|pid, status| reporter.report(&Notice::OrphanReaped { pid, status })) {
            tracing::error!(%error, "cannot reap orphans");
        }
        tokio::select! {
            _ = child_ended.recv() => {}
            () = reaped.notified() => {}
        }
    }
}
