//! From the sequence of events to the PUB socket: one task, so that no event overtakes another.

use std::sync::Arc;

use tokio::sync::watch;

use crate::control::publisher::Publishing;
use crate::telemetry::Feed;

/// Events taken at a time. What waits meanwhile waits in the ring, which is the bound of it.
const BATCH: usize = 256;

/// Publishes every event from the first on, until `closing` is true and all were sent. An event that the ring has dropped before its turn came is not
/// published; subscribers see the gap.
pub async fn publish(feed: Arc<Feed>, mut socket: Publishing, mut closing: watch::Receiver<bool>) {
    let mut appended = feed.watch();
    let mut since = 1;
    loop {
        let batch = feed.replay(since, None, BATCH);
        if !batch.complete {
            tracing::warn!(since, "events came faster than they could be published; subscribers see a gap");
        }
        for event in &batch.events {
            socket.publish(event);
        }
        since = batch.next;
        if !batch.events.is_empty() {
            // There may be more; others of this thread have their turn first.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            appended = appended.wait_for(|next| *next > since) => if appended.is_err() { return },
            tended = socket.tend() => {
                let Err(error) = tended;
                tracing::error!(%error, "subscribers are not attended to any more, events are not published");
                return;
            }
            _ = closing.wait_for(|closing| *closing) => return,
        }
    }
}
