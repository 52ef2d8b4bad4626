//! Name → handle, and the order among them. How they come and go: [`super::definitions`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, watch};

use crate::procfs::Look;
use crate::protocol::request::ChildrenAtShutdown;
use crate::protocol::{Name, StateName};
use crate::subprocess::actor::Shared;
use crate::subprocess::gate::Gate;
use crate::subprocess::spec::schedule::Schedule;
use crate::subprocess::{Spec, SubProcessHandle};

use super::gate::OrderGate;
use super::order::{Link, Order};
use super::requirements::{self, Ends};

/// All registered sub-processes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SupervisorHandle(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Registered {
    /// How many there may be.
    pub(super) most: usize,
    pub(super) handles: BTreeMap<Name, SubProcessHandle>,
    /// Of exactly those, but for one that is being unregistered, which is none any more here. Without unknown requirements, and without cycles.
    pub(super) order: Order,
    /// Those that the configuration file had when it was last read, as far as they are registered.
    pub(super) of_file: BTreeSet<Name>,
}

impl Default for Registered {
    fn default() -> Self {
        Self { most: super::definitions::MAX_REGISTERED, handles: BTreeMap::new(), order: Order::default(), of_file: BTreeSet::new() }
    }
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
    /// What becomes of the sub-processes, once the daemon is to leave.
    leaving: watch::Sender<Option<ChildrenAtShutdown>>,
    /// What an earlier daemon left is being taken over: where somebody stands is not known before that is done, and no start begins.
    pub(super) taking_over: watch::Sender<bool>,
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

/// While this lives, starts wait; see [`SupervisorHandle::take_over`].
#[derive(Debug)]
pub struct TakingOver(SupervisorHandle);

impl Drop for TakingOver {
    fn drop(&mut self) {
        self.0.0.taking_over.send_replace(false);
    }
}

impl SupervisorHandle {
    /// What an earlier daemon left is about to be taken over, one after the other: whoever is to be started for that waits until all have been, as what it
    /// requires may not have had its turn.
    pub fn take_over(&self) -> TakingOver {
        self.0.taking_over.send_replace(true);
        TakingOver(self.clone())
    }

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
            leaving: watch::Sender::new(None),
            taking_over: watch::Sender::new(false),
            schedules: Notify::new(),
        });
        gate.belongs_to(Arc::downgrade(&inner));
        tokio::spawn(requirements::hold(Arc::downgrade(&inner), ends));
        Self(inner)
    }

    /// Whether the daemon leaves: then nothing new begins.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.borrow().is_some()
    }

    /// Asks the daemon to leave. Who wants the sub-processes quit overrules who wants them kept, and not the other way round. Returns whether this
    /// changed anything.
    pub fn leave(&self, children: ChildrenAtShutdown) -> bool {
        self.0.leaving.send_if_modified(|leaving| {
            let changes = match (&leaving, children) {
                (None, _) | (Some(ChildrenAtShutdown::Keep), ChildrenAtShutdown::Quit) => true,
                (Some(ChildrenAtShutdown::Keep), ChildrenAtShutdown::Keep) | (Some(ChildrenAtShutdown::Quit), _) => false,
            };
            if changes {
                *leaving = Some(children);
            }
            changes
        })
    }

    /// Resolves when somebody wants the sub-processes quit.
    pub async fn asked_to_quit(&self) {
        let mut leaving = self.0.leaving.subscribe();
        drop(leaving.wait_for(|leaving| *leaving == Some(ChildrenAtShutdown::Quit)).await);
    }

    /// Resolves when somebody asked the daemon to leave, with what is to become of the sub-processes.
    pub async fn asked_to_leave(&self) -> ChildrenAtShutdown {
        let asked = self.0.leaving.subscribe().wait_for(Option::is_some).await.map(|children| *children);
        // It cannot be closed: this handle keeps it.
        asked.ok().flatten().unwrap_or_default()
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
}
