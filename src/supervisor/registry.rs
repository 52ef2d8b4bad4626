//! Name → handle, and the order among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use crate::procfs::Look;
use crate::protocol::names::nearest;
use crate::protocol::{Name, StateName};
use crate::subprocess::actor::{self, Shared};
use crate::subprocess::gate::Gate;
use crate::subprocess::spec::schedule::Schedule;
use crate::subprocess::{CommandError, Spec, SubProcessHandle};

use super::gate::OrderGate;
use super::order::{Cycle, Link, Order};
use super::requirements::{self, Ends};

/// Why a definition was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another one is known under the name.
    #[error("{0} is registered with another definition")]
    Exists(Name),
    /// There would be more than this daemon takes.
    #[error("at most {0} sub-processes can be registered")]
    Full(usize),
    /// It names somebody who is not there.
    #[error("{name} names {said:?} in `{}`, which is not registered", link.key())]
    Unknown {
        /// Who.
        name: Name,
        /// Where.
        link: Link,
        /// Whom.
        said: Name,
        /// Who may be meant.
        nearest: Option<Name>,
    },
    /// Nobody could be the first.
    #[error("the order would have a cycle: {0}")]
    Cycle(Cycle),
    /// The daemon is leaving.
    #[error("the daemon is leaving")]
    Leaving,
    /// The sub-process refused.
    #[error("{0} refused")]
    Command(Name, #[source] CommandError),
}

/// Why a sub-process was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum UnregisterError {
    /// These cannot be without it.
    #[error("others require it: {0:?}")]
    Required(BTreeSet<Name>),
    /// The sub-process refused.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The most sub-processes that may be registered: each may hold some ten descriptors.
pub const MAX_REGISTERED: usize = 10_000;

/// All registered sub-processes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SupervisorHandle(pub(super) Arc<Inner>);

#[derive(Debug, Default)]
pub(super) struct Registered {
    pub(super) handles: BTreeMap<Name, SubProcessHandle>,
    /// Of exactly those, but for one that is being unregistered, which is none any more here. Without unknown requirements, and without cycles.
    pub(super) order: Order,
    /// Those that the configuration file had when it was last read, as far as they are registered.
    pub(super) of_file: BTreeSet<Name>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// Held for map operations only, never across an await.
    registered: RwLock<Registered>,
    /// Held while definitions are put in the place of others: what was checked is what is put there.
    pub(super) registering: tokio::sync::Mutex<()>,
    /// Held from the plan of a reload until all that it ends has ended.
    pub(super) reloading: Arc<tokio::sync::Mutex<()>>,
    pub(super) shared: Arc<Shared>,
    /// Whose ends are still to be looked at.
    pub(super) ends: Arc<Ends>,
    /// Those that are quit only to be started again, each as often as somebody does that. Held for map operations only.
    pub(super) restarting: Mutex<BTreeMap<Name, usize>>,
    leaving: AtomicBool,
    leave: Notify,
    /// Woken whenever something with a schedule came, went or changed.
    pub(super) schedules: Notify,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ends.close();
    }
}

impl Inner {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Registered> {
        self.registered.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Registered> {
        self.registered.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody whom a definition names, or the name where nobody bears it; requirements once, though it may be after them, too.
    pub(super) fn named_by(&self, spec: &Spec) -> Vec<(Link, Result<SubProcessHandle, Name>)> {
        let registered = self.read();
        let names = |link, said: &'_ [Name]| -> Vec<(Link, Result<SubProcessHandle, Name>)> {
            said.iter()
                .flat_map(|said| {
                    let found: Vec<_> =
                        registered.order.stands_for(said.as_str()).into_iter().filter_map(|name| registered.handles.get(name)).collect();
                    if found.is_empty() {
                        vec![(link, Err(said.clone()))]
                    } else {
                        found.into_iter().map(|handle| (link, Ok(handle.clone()))).collect()
                    }
                })
                .collect()
        };
        let mut all = names(Link::Requires, &spec.requires);
        all.extend(names(Link::After, &spec.after));
        all
    }
}

impl Registered {
    /// Notes what these say of the order, or if that cannot be, nothing.
    fn put_in_order(&mut self, specs: &[Spec]) -> Result<(), RegisterError> {
        for spec in specs {
            self.order.insert(&spec.name, &spec.after, &spec.requires);
        }
        let result = self.check(specs);
        if result.is_err() {
            for spec in specs {
                self.restore_order(&spec.name);
            }
        }
        result
    }

    fn check(&self, specs: &[Spec]) -> Result<(), RegisterError> {
        for spec in specs {
            if let Some((link, said)) = self.order.unknown(&spec.name).into_iter().next() {
                let nearest = nearest(said.as_str(), self.order.names().map(Name::as_str)).and_then(|near| near.parse().ok());
                return Err(RegisterError::Unknown { name: spec.name.clone(), link, said, nearest });
            }
        }
        self.order.cycle_among(specs.iter().map(|spec| &spec.name)).map_or(Ok(()), |cycle| Err(RegisterError::Cycle(cycle)))
    }

    /// What is registered under a name says of the order what it said before.
    fn restore_order(&mut self, name: &Name) {
        match self.handles.get(name).map(SubProcessHandle::published) {
            Some(published) => self.order.insert(name, &published.spec.after, &published.spec.requires),
            None => self.order.remove(name),
        }
    }
}

impl SupervisorHandle {
    /// None yet. `shared` is given the gate that all of them share. Needs the runtime that it is called on.
    pub fn new(shared: impl FnOnce(Arc<dyn Gate>) -> Shared) -> Self {
        let gate = Arc::new(OrderGate::default());
        let mut shared = shared(gate.clone());
        let ends = Arc::new(Ends::default());
        shared.reporter = requirements::listen(shared.reporter, ends.clone());
        let inner = Arc::new(Inner {
            registered: RwLock::default(),
            registering: tokio::sync::Mutex::default(),
            reloading: Arc::default(),
            shared: Arc::new(shared),
            ends: ends.clone(),
            restarting: Mutex::default(),
            leaving: AtomicBool::new(false),
            leave: Notify::new(),
            schedules: Notify::new(),
        });
        gate.belongs_to(Arc::downgrade(&inner));
        tokio::spawn(requirements::hold(Arc::downgrade(&inner), ends));
        Self(inner)
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

    /// Takes definitions, all or none; they may name each other. The same one again is fine; another one under a known name only with `replace`.
    /// Starts nothing.
    ///
    /// # Errors
    /// Nothing has changed, but with [`RegisterError::Command`]: then those before the one that it names are in place.
    pub async fn register(&self, specs: Vec<Spec>, replace: bool) -> Result<Vec<SubProcessHandle>, RegisterError> {
        let _registering = self.0.registering.lock().await;
        let mut handles = Vec::new();
        let mut others = Vec::new();
        {
            let mut registered = self.0.write();
            // Under the lock, so that a leaving daemon that took its list has taken all of it.
            if self.is_leaving() {
                return Err(RegisterError::Leaving);
            }
            let is_other = |spec: &Spec| registered.handles.get(&spec.name).is_some_and(|known| *known.published().spec != *spec);
            if let (false, Some(other)) = (replace, specs.iter().find(|spec| is_other(spec))) {
                return Err(RegisterError::Exists(other.name.clone()));
            }
            let new = specs.iter().filter(|spec| !registered.handles.contains_key(&spec.name)).count();
            if registered.handles.len() + new > MAX_REGISTERED {
                return Err(RegisterError::Full(MAX_REGISTERED));
            }
            registered.put_in_order(&specs)?;
            for spec in specs {
                match registered.handles.get(&spec.name).cloned() {
                    Some(known) => {
                        if *known.published().spec != spec {
                            others.push((known.clone(), spec));
                        }
                        handles.push(known);
                    }
                    None => {
                        let handle = actor::start(Arc::new(spec), self.0.shared.clone());
                        registered.handles.insert(handle.name().clone(), handle.clone());
                        handles.push(handle);
                    }
                }
            }
        }
        let mut others = others.into_iter();
        let mut result = Ok(handles);
        while let Some((known, spec)) = others.next() {
            if let Err(error) = known.redefine(Arc::new(spec)).await {
                let mut registered = self.0.write();
                for name in std::iter::once(known.name()).chain(others.as_slice().iter().map(|(_, spec)| &spec.name)) {
                    registered.restore_order(name);
                }
                result = Err(RegisterError::Command(known.name().clone(), error));
                break;
            }
        }
        self.0.schedules.notify_one();
        result
    }

    /// Those that are started by the clock, with when.
    pub fn scheduled(&self) -> Vec<(SubProcessHandle, Schedule)> {
        let with_schedule = |handle: &SubProcessHandle| handle.published().spec.schedule.clone().map(|schedule| (handle.clone(), schedule));
        self.0.read().handles.values().filter_map(with_schedule).collect()
    }

    /// Resolves when what [`SupervisorHandle::scheduled`] answers may have changed.
    pub async fn schedules_changed(&self) {
        self.0.schedules.notified().await;
    }

    /// The one with this name.
    pub fn get(&self, name: &str) -> Option<SubProcessHandle> {
        self.0.read().handles.get(name).cloned()
    }

    /// All of them, in name order.
    pub fn all(&self) -> Vec<SubProcessHandle> {
        self.0.read().handles.values().cloned().collect()
    }

    /// Those of a group, in name order.
    pub fn group(&self, group: &Name) -> Vec<SubProcessHandle> {
        self.all().into_iter().filter(|handle| handle.published().spec.group.as_ref() == Some(group)).collect()
    }

    /// How many are in each state; every state is there.
    pub fn counts(&self) -> BTreeMap<StateName, u64> {
        let mut counts: BTreeMap<_, _> = StateName::ALL.iter().map(|state| (*state, 0)).collect();
        for handle in self.0.read().handles.values() {
            *counts.entry(handle.published().state).or_default() += 1;
        }
        counts
    }

    /// A look at all processes of all trees, begun now.
    pub async fn look(&self) -> std::io::Result<Arc<Look>> {
        self.0.shared.forest.look().await
    }

    /// Quits it and forgets it; refused while others require it.
    pub async fn unregister(&self, handle: &SubProcessHandle) -> Result<(), UnregisterError> {
        {
            let mut registered = self.0.write();
            if registered.handles.get(handle.name()).is_none_or(|known| !known.is_same(handle)) {
                return Err(CommandError::Gone.into());
            }
            let required_by = registered.order.required_by(handle.name());
            if !required_by.is_empty() {
                return Err(UnregisterError::Required(required_by));
            }
            // Nobody may come to require it while it is being ended.
            registered.order.remove(handle.name());
        }
        let result = handle.unregister().await;
        self.conclude_unregister(handle, result)
    }

    /// Forgets it if it is gone, and keeps it if it is not.
    pub(super) fn conclude_unregister(&self, handle: &SubProcessHandle, result: Result<(), CommandError>) -> Result<(), UnregisterError> {
        let mut registered = self.0.write();
        let is_there = registered.handles.get(handle.name()).is_some_and(|known| known.is_same(handle));
        match result {
            Ok(()) if is_there => {
                registered.handles.remove(handle.name());
                registered.order.remove(handle.name());
                registered.of_file.remove(handle.name());
                self.0.schedules.notify_one();
            }
            Ok(()) => {}
            Err(CommandError::Gone) => return Err(CommandError::Gone.into()),
            Err(error) => {
                if is_there {
                    registered.restore_order(handle.name());
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}
