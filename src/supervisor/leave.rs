//! Leaving: every sub-process is quit, in the exact reverse of the order in which they depend on each other.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::protocol::request::ChildrenAtShutdown;
use crate::protocol::{EndedBy, Name};
use crate::subprocess::machine::KILL_WAIT;
use crate::subprocess::{CommandError, SubProcessHandle};

use super::SupervisorHandle;
use super::order::Plan;

/// What a quit may take besides its time-outs: looking for the tree on a busy host.
const MARGIN: Duration = Duration::from_secs(3);

/// How leaving went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Sub-processes that were quit.
    pub quit: usize,
    /// Processes that outlived SIGKILL.
    pub survivors: u64,
}

impl SupervisorHandle {
    /// Quits all sub-processes: each once everything that requires it, or is after it, is gone, or has had its time; the others at the same time.
    /// Once `hurry` is true, all that are left are killed together.
    ///
    /// `progress` is called at the beginning and after each one, with how many are left.
    pub async fn quit_all(&self, mut hurry: watch::Receiver<bool>, mut progress: impl FnMut(usize)) -> Left {
        self.leave(ChildrenAtShutdown::Quit);
        let mut rest: BTreeMap<Name, SubProcessHandle> = self.all().into_iter().map(|handle| (handle.name().clone(), handle)).collect();
        // Nothing may come back while its turn has not come.
        join_all(rest.values().map(SubProcessHandle::no_more_starts)).await;
        let mut plan = Plan::stop(&self.0.read().order, &rest.keys().cloned().collect());

        let mut left = Left::default();
        let mut quitting = FuturesUnordered::new();
        progress(rest.len());
        while !rest.is_empty() && !*hurry.borrow() {
            for handle in plan.free().iter().filter_map(|name| rest.get(name)) {
                let handle = handle.clone();
                quitting.push(async move { (quit(&handle, None).await, handle) });
            }
            tokio::select! {
                Some((survivors, handle)) = quitting.next() => {
                    left.add(survivors);
                    plan.done(handle.name());
                    rest.remove(handle.name());
                    progress(rest.len());
                }
                // Those that are being quit are hurried, too, with the others.
                Ok(_) = hurry.wait_for(|hurry| *hurry) => {}
                // All that are left were given up by the plan, which cannot be.
                else => break,
            }
        }
        for survivors in join_all(rest.values().map(|handle| quit(handle, Some(Duration::ZERO)))).await {
            left.add(survivors);
        }
        left
    }
}

impl Left {
    fn add(&mut self, survivors: u64) {
        self.quit += 1;
        self.survivors += survivors;
    }
}

/// Quits one; returns how many of its processes are left. One that does not even come to an answer (its start hangs in the kernel) counts as one.
async fn quit(handle: &SubProcessHandle, timeout: Option<Duration>) -> u64 {
    let limit = timeout.unwrap_or(handle.published().spec.stop_timeout) + KILL_WAIT + MARGIN;
    match tokio::time::timeout(limit, handle.quit_patiently(timeout, EndedBy::Shutdown)).await {
        Ok(Ok(ended)) => ended.survivors.into(),
        // It was unregistered meanwhile, which quits it too.
        Ok(Err(CommandError::Gone)) => 0,
        Ok(Err(error)) => {
            tracing::error!(name = %handle.name(), %error, "cannot quit a sub-process while leaving");
            1
        }
        Err(_) => {
            tracing::error!(name = %handle.name(), seconds = limit.as_secs_f64(), "a sub-process could not be quit in time, leaving without it");
            1
        }
    }
}
