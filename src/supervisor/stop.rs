//! Ending some of them in order: each only once everything that requires it, or is after it, is gone; what does not depend on each other at the
//! same time.
//!
//! Each end has its own time-outs, also one whose processes outlive SIGKILL: what waits for it is then ended all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::protocol::reply::Ended;
use crate::protocol::{EndedBy, Name};
use crate::subprocess::{CommandError, SubProcessHandle};

use super::SupervisorHandle;
use super::gate::is_at_rest;
use super::order::Plan;

/// What came of each that was to end.
pub type Endings = BTreeMap<Name, Result<Ended, CommandError>>;

impl SupervisorHandle {
    /// Everybody who cannot be without one of these, themselves excepted, and runs or is about to.
    pub(super) fn dependents<'a>(&self, of: impl IntoIterator<Item = &'a Name>) -> Vec<SubProcessHandle> {
        let registered = self.0.read();
        let names = registered.order.dependents(of);
        let handles = names.iter().filter_map(|name| registered.handles.get(name));
        handles.filter(|handle| !is_at_rest(&handle.published())).cloned().collect()
    }

    /// Quits these, and before them everything that requires them. Goes on when the caller does not wait for it.
    ///
    /// `timeout` holds for these; what requires them has the time of its own definition.
    pub async fn quit(&self, handles: Vec<SubProcessHandle>, timeout: Option<Duration>, by: EndedBy) -> Endings {
        self.end(handles, move |handle| Box::pin(async move { handle.quit(None, timeout, by).await })).await
    }

    /// Ends these, each in this way, and before them everything that requires them.
    pub async fn end(
        &self,
        handles: Vec<SubProcessHandle>,
        way: impl Fn(SubProcessHandle) -> BoxFuture<'static, Result<Ended, CommandError>> + Send + 'static,
    ) -> Endings {
        let dependents = self.dependents(handles.iter().map(SubProcessHandle::name));
        let work = self.clone().carry_out_end(handles, dependents, way);
        // A task of its own: who asked may go away, and those that wait for their turn must have it.
        tokio::spawn(work).await.unwrap_or_default()
    }

    /// The same within the task of the caller, with these `dependents` being quit before them. Which of those cannot be quit is told to the log.
    pub(super) async fn carry_out_end(
        self,
        handles: Vec<SubProcessHandle>,
        dependents: Vec<SubProcessHandle>,
        way: impl Fn(SubProcessHandle) -> BoxFuture<'static, Result<Ended, CommandError>>,
    ) -> Endings {
        let asked: BTreeMap<Name, SubProcessHandle> = handles.into_iter().map(|handle| (handle.name().clone(), handle)).collect();
        let dependents: BTreeMap<Name, SubProcessHandle> = dependents.into_iter().map(|handle| (handle.name().clone(), handle)).collect();
        let mut plan = Plan::stop(&self.0.read().order, &asked.keys().chain(dependents.keys()).cloned().collect());
        let mut ending = FuturesUnordered::new();
        let mut ends = Endings::new();
        loop {
            for name in plan.free() {
                let end = match (asked.get(&name), dependents.get(&name)) {
                    (Some(handle), _) => way(handle.clone()),
                    (None, Some(handle)) => {
                        let handle = handle.clone();
                        Box::pin(async move { handle.quit_patiently(None, EndedBy::Required).await })
                    }
                    (None, None) => continue,
                };
                ending.push(async move { (name, end.await) });
            }
            let Some((name, result)) = ending.next().await else { return ends };
            plan.done(&name);
            if asked.contains_key(&name) {
                ends.insert(name, result);
            } else if let Err(error) = result {
                tracing::warn!(%name, %error, "cannot quit what requires one that is being ended");
            }
        }
    }
}
