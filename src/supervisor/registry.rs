//! Name → handle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use crate::procfs::Look;
use crate::protocol::{Name, StateName};
use crate::subprocess::actor::{self, Shared};
use crate::subprocess::spec::schedule::Schedule;
use crate::subprocess::{CommandError, Spec, SubProcessHandle};

/// Why a definition was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another one is known under the name.
    #[error("{0} is registered with another definition")]
    Exists(Name),
    /// There are as many as this daemon takes.
    #[error("{0} sub-processes are registered, more are not taken")]
    Full(usize),
    /// The daemon is leaving.
    #[error("the daemon is leaving")]
    Leaving,
    /// The sub-process refused.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The most sub-processes that may be registered: each may hold some ten descriptors.
pub const MAX_REGISTERED: usize = 10_000;

/// All registered sub-processes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SupervisorHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Held for map operations only, never across an await.
    registered: RwLock<BTreeMap<Name, SubProcessHandle>>,
    shared: Arc<Shared>,
    leaving: AtomicBool,
    leave: Notify,
    /// Woken whenever something with a schedule came, went or changed.
    schedules: Notify,
}

impl SupervisorHandle {
    /// None yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner {
            registered: RwLock::default(),
            shared,
            leaving: AtomicBool::new(false),
            leave: Notify::new(),
            schedules: Notify::new(),
        }))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Name, SubProcessHandle>> {
        self.0.registered.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Name, SubProcessHandle>> {
        self.0.registered.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the daemon leaves: then nothing new begins.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    /// Asks the daemon to leave.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Release);
        self.0.leave.notify_one();
    }

    /// Resolves when somebody asked the daemon to leave.
    pub async fn asked_to_leave(&self) {
        self.0.leave.notified().await;
    }

    /// Takes a definition. The same one again is fine; another one under a known name only with `replace`. Starts nothing.
    pub async fn register(&self, spec: Spec, replace: bool) -> Result<SubProcessHandle, RegisterError> {
        let known = {
            let mut registered = self.write();
            // Under the lock, so that a leaving daemon that took its list has taken all of it.
            if self.is_leaving() {
                return Err(RegisterError::Leaving);
            }
            match registered.get(&spec.name) {
                Some(known) => known.clone(),
                None if registered.len() >= MAX_REGISTERED => return Err(RegisterError::Full(MAX_REGISTERED)),
                None => {
                    let handle = actor::start(Arc::new(spec), self.0.shared.clone());
                    registered.insert(handle.name().clone(), handle.clone());
                    self.0.schedules.notify_one();
                    return Ok(handle);
                }
            }
        };
        if *known.published().spec != spec {
            if !replace {
                return Err(RegisterError::Exists(spec.name));
            }
            known.redefine(Arc::new(spec)).await?;
            self.0.schedules.notify_one();
        }
        Ok(known)
    }

    /// Those that are started by the clock, with when.
    pub fn scheduled(&self) -> Vec<(SubProcessHandle, Schedule)> {
        let with_schedule = |handle: &SubProcessHandle| handle.published().spec.schedule.clone().map(|schedule| (handle.clone(), schedule));
        self.read().values().filter_map(with_schedule).collect()
    }

    /// Resolves when what [`SupervisorHandle::scheduled`] answers may have changed.
    pub async fn schedules_changed(&self) {
        self.0.schedules.notified().await;
    }

    /// The one with this name.
    pub fn get(&self, name: &str) -> Option<SubProcessHandle> {
        self.read().get(name).cloned()
    }

    /// All of them, in name order.
    pub fn all(&self) -> Vec<SubProcessHandle> {
        self.read().values().cloned().collect()
    }

    /// Those of a group, in name order.
    pub fn group(&self, group: &Name) -> Vec<SubProcessHandle> {
        self.all().into_iter().filter(|handle| handle.published().spec.group.as_ref() == Some(group)).collect()
    }

    /// How many are in each state; every state is there.
    pub fn counts(&self) -> BTreeMap<StateName, u64> {
        let mut counts: BTreeMap<_, _> = StateName::ALL.iter().map(|state| (*state, 0)).collect();
        for handle in self.read().values() {
            *counts.entry(handle.published().state).or_default() += 1;
        }
        counts
    }

    /// A look at all processes of all trees, begun now.
    pub async fn look(&self) -> std::io::Result<Arc<Look>> {
        self.0.shared.forest.look().await
    }

    /// Quits it and forgets it.
    pub async fn unregister(&self, handle: &SubProcessHandle) -> Result<(), CommandError> {
        handle.unregister().await?;
        let mut registered = self.write();
        if registered.get(handle.name()).is_some_and(|known| known.is_same(handle)) {
            registered.remove(handle.name());
            self.0.schedules.notify_one();
        }
        Ok(())
    }
}
