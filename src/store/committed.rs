//! The acknowledgement of something that was handed over.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// It is kept in memory only, and lost with this daemon unless the disk comes back before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not on the disk: {problem}")]
pub struct NotDurable {
    /// What is wrong, as [`super::Store::problem`] says it.
    pub problem: Arc<str>,
}

/// Resolves once what was handed over is committed, or at once while that cannot be. To be awaited, or waited for by a thread.
#[derive(Debug)]
#[must_use = "nothing is promised before it has resolved"]
pub struct Committed(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    resolved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), NotDurable>>,
    waker: Option<Waker>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Committed {
    /// One that waits, and what resolves it.
    pub(super) fn pair() -> (Self, Ack) {
        let slot = Arc::new(Slot::default());
        (Self(Arc::clone(&slot)), Ack(slot))
    }

    /// One that has resolved.
    pub(super) fn resolved(result: Result<(), NotDurable>) -> Self {
        Self(Arc::new(Slot { state: Mutex::new(State { result: Some(result), waker: None }), resolved: Condvar::new() }))
    }

    /// Blocks until it has resolved, at most so long.
    pub fn wait(&self, timeout: Duration) -> Result<(), NotDurable> {
        let pending = |state: &mut State| state.result.is_none();
        let waited = self.0.resolved.wait_timeout_while(self.0.state(), timeout, pending);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let late = || NotDurable { problem: format!("the disk has not answered within {timeout:?}").into() };
        state.result.clone().unwrap_or_else(|| Err(late()))
    }
}

impl Future for Committed {
    type Output = Result<(), NotDurable>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state();
        match &state.result {
            Some(result) => Poll::Ready(result.clone()),
            None => {
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    state.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// Resolves a [`Committed`]; one that is dropped says that the store has ended.
#[derive(Debug)]
pub(super) struct Ack(Arc<Slot>);

impl Ack {
    pub(super) fn resolve(self, result: Result<(), NotDurable>) {
        self.settle(result);
    }

    fn settle(&self, result: Result<(), NotDurable>) {
        let mut state = self.0.state();
        if state.result.is_some() {
            return;
        }
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.0.resolved.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.settle(Err(NotDurable { problem: "the store is closed".into() }));
    }
}
