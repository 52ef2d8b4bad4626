//! What is still below the daemon when every sub-process was quit: descendants that gave away everything by which they could be told (their
//! session, their environment) before anybody looked. They came from what the daemon started, and must not outlive it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::procfs::{Forest, Stat};
use crate::protocol::Signal;
use crate::subprocess::tree::hold;

/// Between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(2);
/// Until those that outlive SIGKILL are given up.
const LIMIT: Duration = Duration::from_secs(4);
/// Between two looks. They are not ours to wait for in any better way: each may be replaced by a child of its own at any time.
const PAUSE: Duration = Duration::from_millis(20);

/// Ends all descendants of this process; returns the PIDs of those that could not be ended.
pub async fn end(forest: &Arc<Forest>) -> Vec<u32> {
    let began = Instant::now();
    let mut asked = BTreeSet::new();
    loop {
        let look = match forest.look().await {
            Ok(look) => look,
            Err(error) => {
                tracing::error!(%error, "cannot look for processes that were left behind");
                return Vec::new();
            }
        };
        let left: Vec<&Stat> = look.table().descendants_of(std::process::id()).into_iter().filter(|stat| !stat.is_dead()).collect();
        if left.is_empty() {
            return Vec::new();
        }
        let pids: Vec<u32> = left.iter().map(|stat| stat.pid).collect();
        if began.elapsed() > LIMIT {
            return pids;
        }
        let kill = began.elapsed() > PATIENCE;
        for stat in left {
            if kill || asked.insert(stat.identity()) {
                let signal = if kill { Signal::KILL } else { Signal::TERM };
                tracing::warn!(pid = stat.pid, name = stat.name(), %signal, "ending a process that was left behind and cannot be told whose it is");
                if let Ok(Some(fd)) = hold(stat.identity()) {
                    drop(fd.send_signal(signal.number()));
                    if !kill {
                        drop(fd.send_signal(Signal::CONT.number()));
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
