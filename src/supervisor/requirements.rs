//! When one ends for good, all that require it are quit, the last ones first. One that is only being restarted takes nobody along.
//!
//! A [`Reporter`] in front of the daemon's own notes who came to rest; [`hold`] looks at them one after the other, and waits for nobody's end.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::protocol::{EndedBy, Name, StateName};
use crate::subprocess::{Notice, Reporter};

use super::SupervisorHandle;
use super::gate::{Standing, is_at_rest, standing};
use super::registry::Inner;

/// Those whose ends are still to be looked at: each once, however often it ended meanwhile.
#[derive(Debug, Default)]
pub(super) struct Ends {
    names: Mutex<BTreeSet<Name>>,
    noted: Notify,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One has come to rest, or may have.
    pub(super) fn note(&self, name: &Name) {
        self.lock().insert(name.clone());
        self.noted.notify_one();
    }

    /// Nobody will note anything any more.
    pub(super) fn close(&self) {
        self.noted.notify_one();
    }
}

/// Tells the daemon, and notes who came to rest.
struct Listening {
    reporter: Arc<dyn Reporter>,
    ends: Arc<Ends>,
}

impl Reporter for Listening {
    fn report(&self, notice: &Notice<'_>) {
        self.reporter.report(notice);
        if let Notice::StateChanged { name, to: StateName::Stopped | StateName::Exited | StateName::Fatal | StateName::Lost, .. } = notice {
            self.ends.note(name);
        }
    }
}

/// Puts an ear in front of a reporter.
pub(super) fn listen(reporter: Arc<dyn Reporter>, ends: Arc<Ends>) -> Arc<dyn Reporter> {
    Arc::new(Listening { reporter, ends })
}

/// Looks at every end for as long as the supervisor lives.
pub(super) async fn hold(inner: Weak<Inner>, ends: Arc<Ends>) {
    loop {
        ends.noted.notified().await;
        let Some(supervisor) = inner.upgrade().map(SupervisorHandle) else { return };
        let names = mem::take(&mut *ends.lock());
        for name in names {
            supervisor.has_ended(&name);
        }
    }
}

impl SupervisorHandle {
    /// Has all quit that require it, if it has ended for good.
    fn has_ended(&self, name: &Name) {
        if self.is_leaving() || self.0.restarting.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name) {
            return;
        }
        let Some(handle) = self.get(name.as_str()) else { return };
        // In this order: nobody is started before what it requires, so of one that is still gone now these are what it left behind. The other way
        // round it might have been started again in between, and be the reason why they run.
        let dependents = self.dependents([name]);
        let Standing::Gone(state) = standing(&handle.published()) else { return };
        if dependents.iter().all(|dependent| is_at_rest(&dependent.published())) {
            return;
        }
        let names: Vec<_> = dependents.iter().map(|dependent| dependent.name().as_str()).collect();
        tracing::warn!(%name, %state, quit = names.join(" "), "what requires it is quit");
        let supervisor = self.clone();
        tokio::spawn(async move { supervisor.quit(dependents, None, EndedBy::Required).await });
    }
}
