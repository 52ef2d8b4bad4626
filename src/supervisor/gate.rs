//! What a start waits for: that what it requires is ready, and that what it is after is not just being started.

use std::sync::{Arc, OnceLock, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready, try_join_all};

use crate::protocol::{Cause, Name, StateName, Wanted};
use crate::subprocess::gate::{Closed, Gate};
use crate::subprocess::machine::End;
use crate::subprocess::spec::probe::ReadySource;
use crate::subprocess::{Published, Spec, SubProcessHandle};

use super::order::Link;
use super::registry::Inner;

/// What there is to expect of one that others require.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is ready, or it was one that does its work and ends, and did.
    Ready,
    /// It is being started, or will be.
    Coming,
    /// It has ended for good, or was never started.
    Gone(StateName),
}

/// What there is to expect of one that others require.
pub(super) fn standing(published: &Published) -> Standing {
    match published.state {
        StateName::Running => Standing::Ready,
        StateName::Starting | StateName::Backoff | StateName::Stopping => Standing::Coming,
        // The daemon, or whoever restarts several, starts it when its turn comes.
        StateName::Stopped if published.wanted == Wanted::Up => Standing::Coming,
        StateName::Exited if succeeded(published) => Standing::Ready,
        state @ (StateName::Stopped | StateName::Exited | StateName::Fatal | StateName::Lost) => Standing::Gone(state),
    }
}

/// Whether its last run ended by itself as it should: with success, and not so early that it counts as a start that failed.
///
/// What is asked whether it is ready may be a one-shot, whose end says as much. What has promised to say so itself (`ready.notify`) is a service: one
/// that exits without a word has failed, as under systemd's `Type=notify`, and many such exit with 0.
fn succeeded(published: &Published) -> bool {
    let policy = &published.spec.policy;
    let success = published.returncode().and_then(|code| u8::try_from(code).ok()).is_some_and(|code| policy.success_codes.contains(&code));
    let promised = published.spec.ready.as_ref().is_some_and(|ready| matches!(ready.source, ReadySource::Notify));
    let in_time = |end: End| end.lived >= policy.start_seconds && !(promised && end.unready);
    success && published.end.is_some_and(|end| end.cause == Cause::Exit && in_time(end))
}

/// Whether nothing of it runs, and nothing is about to.
pub(super) fn is_at_rest(published: &Published) -> bool {
    match published.state {
        StateName::Stopped | StateName::Exited | StateName::Fatal | StateName::Lost => true,
        StateName::Starting | StateName::Running | StateName::Stopping | StateName::Backoff => false,
    }
}

/// The gate of a supervisor, which it is told once it is there.
#[derive(Debug, Default)]
pub(super) struct OrderGate(OnceLock<Weak<Inner>>);

impl OrderGate {
    pub(super) fn belongs_to(&self, inner: Weak<Inner>) {
        // It is told once.
        drop(self.0.set(inner));
    }
}

impl Gate for OrderGate {
    fn open(&self, spec: &Arc<Spec>) -> Option<BoxFuture<'static, Result<(), Closed>>> {
        let weak = self.0.get()?;
        let inner = weak.upgrade()?;
        let mut taking_over = inner.taking_over.subscribe();
        if !*taking_over.borrow() {
            return wait_for_all(&inner, spec);
        }
        let (weak, spec) = (weak.clone(), spec.clone());
        let when_taken_over = async move {
            drop(taking_over.wait_for(|taking_over| !*taking_over).await);
            let waits = weak.upgrade().and_then(|inner| wait_for_all(&inner, &spec));
            match waits {
                Some(waits) => waits.await,
                None => Ok(()),
            }
        };
        Some(when_taken_over.boxed())
    }
}

/// What one with this definition is to wait for; `None` when there is nothing.
fn wait_for_all(inner: &Inner, spec: &Spec) -> Option<BoxFuture<'static, Result<(), Closed>>> {
    let waits: Vec<_> = inner.named_by(spec).into_iter().filter_map(|(link, named)| wait_for(link, named)).collect();
    (!waits.is_empty()).then(|| try_join_all(waits).map(|all| all.map(drop)).boxed())
}

/// What to wait for; `None` when there is nothing to wait for. What is required and not there was unregistered meanwhile.
fn wait_for(link: Link, named: Result<SubProcessHandle, Name>) -> Option<BoxFuture<'static, Result<(), Closed>>> {
    match (link, named) {
        (Link::Requires, Ok(named)) if standing(&named.published()) != Standing::Ready => Some(required(named).boxed()),
        (Link::Requires, Err(name)) => Some(ready(Err(Closed { name, state: StateName::Stopped })).boxed()),
        (Link::After, Ok(named)) if named.published().state == StateName::Starting => Some(started(named).map(Ok).boxed()),
        (Link::Requires | Link::After, Ok(_)) | (Link::After, Err(_)) => None,
    }
}

/// Waits until it is ready, or has ended for good.
async fn required(named: SubProcessHandle) -> Result<(), Closed> {
    let mut seen = named.subscribe();
    let settled = seen.wait_for(|published| standing(published) != Standing::Coming).await.map(|published| standing(&published));
    match settled {
        Ok(Standing::Ready | Standing::Coming) => Ok(()),
        Ok(Standing::Gone(state)) => Err(Closed { name: named.name().clone(), state }),
        // It was unregistered.
        Err(_) => Err(Closed { name: named.name().clone(), state: StateName::Stopped }),
    }
}

/// Waits until its start has come to something.
async fn started(named: SubProcessHandle) {
    // One that was unregistered is not waited for either.
    drop(named.subscribe().wait_for(|published| published.state != StateName::Starting).await);
}
