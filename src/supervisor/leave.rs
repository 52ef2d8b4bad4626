//! Leaving: every sub-process is quit, the last one started first.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::protocol::EndedBy;
use crate::subprocess::machine::KILL_WAIT;
use crate::subprocess::{CommandError, SubProcessHandle};

use super::SupervisorHandle;

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
    /// Quits all sub-processes, one after the other in reverse order of their start, because what was started later may need what was started
    /// before. Once `hurry` is true, all that are left are killed together.
    ///
    /// `progress` is called before each one, with how many are left.
    pub async fn quit_all(&self, mut hurry: watch::Receiver<bool>, mut progress: impl FnMut(usize)) -> Left {
        self.leave();
        let all = self.all();
        // Nothing may come back while its turn has not come.
        join_all(all.iter().map(SubProcessHandle::no_more_starts)).await;
        let mut order: Vec<_> = all.into_iter().map(|handle| (handle.published().run.as_ref().map(|run| run.number), handle)).collect();
        order.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut rest: Vec<_> = order.into_iter().map(|(_, handle)| handle).rev().collect();

        let mut left = Left::default();
        while !*hurry.borrow() {
            let Some(handle) = rest.pop() else { return left };
            progress(rest.len() + 1);
            let quit = quit(&handle, None);
            tokio::select! {
                survivors = quit => left.add(survivors),
                // This one too is hurried, with the others.
                _ = hurry.wait_for(|hurry| *hurry) => rest.push(handle),
            }
        }
        progress(rest.len());
        for survivors in join_all(rest.iter().map(|handle| quit(handle, Some(Duration::ZERO)))).await {
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
