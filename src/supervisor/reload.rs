//! Putting a configuration that was read again in the place of the former one.
//!
//! The definitions are replaced in one step; then, beside whoever asked, all that is gone or changed is ended in order, and what is new or was ended
//! for its new definition is started in order. The ends come first, for what is new may need the port of what is gone. One reload follows the other:
//! the next is planned once the ends of the one before are over.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedMutexGuard;

use crate::protocol::{Name, Origin, StateName};
use crate::subprocess::actor;
use crate::subprocess::{CommandError, Launch, Spec, SubProcessHandle};

use super::SupervisorHandle;
use super::order::{self, Cycle, Link, Order};
use super::plan::Plan;
use super::registry::Registered;
use super::start::{How, Restarting, announce};

/// Why a configuration was not put in place. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There would be more than this daemon takes.
    #[error("at most {0} sub-processes can be registered")]
    Full(usize),
    /// Somebody who was registered at run time could not be without what the file has no more.
    #[error("{by}, which was registered at run time, requires {name}, which the file has no more")]
    Required {
        /// The name that it says.
        name: Name,
        /// Who says it.
        by: Name,
    },
    /// With what was registered at run time, nobody could be the first.
    #[error("the order would have a cycle: {0}")]
    Cycle(Cycle),
    /// The daemon is leaving.
    #[error("the daemon is leaving")]
    Leaving,
}

/// What was put in place, or would be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replaced {
    /// What differed.
    pub plan: Plan,
    /// Those that run and are started anew.
    pub restarted: BTreeSet<Name>,
}

/// What is left to be done once the definitions are in place.
struct Work {
    removed: BTreeMap<Name, SubProcessHandle>,
    restarted: BTreeMap<Name, SubProcessHandle>,
    /// In the order that held so far.
    ends: order::Plan,
    /// Those that may be to start by themselves.
    fresh: Vec<SubProcessHandle>,
}

impl SupervisorHandle {
    /// Registers no more than so many from now on.
    pub fn at_most(&self, processes: usize) {
        self.0.write().most = processes;
    }

    /// Notes which names the configuration file has. It is told when the daemon starts; each reload knows by itself.
    pub fn are_of_file<'a>(&self, names: impl IntoIterator<Item = &'a Name>) {
        self.0.write().of_file.extend(names.into_iter().cloned());
    }

    /// Puts these definitions in the place of those that the file had before, or says what would be done. What was registered at run time and is not
    /// among them is left alone. Waits for the ends of an earlier reload; the ends and starts of this one go on after its answer.
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn reload(&self, file: Vec<Spec>, dry_run: bool) -> Result<Replaced, ReloadError> {
        let turn = self.0.reloading.clone().lock_owned().await;
        let _registering = self.0.registering.lock().await;
        if dry_run {
            let registered = self.0.read();
            let (replaced, _) = registered.replace(file)?;
            return Ok(replaced);
        }
        let (replaced, work) = {
            let mut registered = self.0.write();
            // Under the lock, so that a leaving daemon that took its list has taken all of it.
            if self.is_leaving() {
                return Err(ReloadError::Leaving);
            }
            let (replaced, order) = registered.replace(file)?;
            let work = self.put_in_place(&mut registered, &replaced, order);
            (replaced, work)
        };
        for (name, (spec, _)) in &replaced.plan.changed {
            // One that is gone was unregistered meanwhile: that was the later word.
            if let Some(handle) = self.get(name.as_str())
                && let Err(error) = handle.redefine(spec.clone()).await
            {
                tracing::warn!(%name, %error, "not defined anew");
            }
        }
        self.0.schedules.notify_one();
        // Written down before it is answered: a daemon that comes after this one finds the new definitions, and would not know who runs by an old one.
        announce(&work.to_start().collect::<Vec<_>>()).await;
        tokio::spawn(self.clone().carry_out_reload(work, turn));
        Ok(replaced)
    }

    fn put_in_place(&self, registered: &mut Registered, replaced: &Replaced, order: Order) -> Work {
        let Replaced { plan, restarted } = replaced;
        let handles = |names: &BTreeSet<Name>| -> BTreeMap<Name, SubProcessHandle> {
            names.iter().filter_map(|name| registered.handles.get(name).map(|handle| (name.clone(), handle.clone()))).collect()
        };
        let (removed, restarted) = (handles(&plan.removed), handles(restarted));
        let ends = order::Plan::stop(&registered.order, &removed.keys().chain(restarted.keys()).cloned().collect());
        let mut fresh: Vec<_> = plan.changed.keys().filter_map(|name| registered.handles.get(name).cloned()).collect();
        for spec in plan.added.values() {
            let handle = actor::start(spec.clone(), self.0.shared.clone());
            registered.handles.insert(handle.name().clone(), handle.clone());
            fresh.push(handle);
        }
        registered.order = order;
        // What is removed stays the file's until it is gone: if that fails, the next reload tries again.
        registered.of_file = plan.of_file().chain(&plan.removed).cloned().collect();
        Work { removed, restarted, ends, fresh }
    }

    /// The turn is over once nothing is left to be ended: what starts may wait for others for as long as it likes.
    async fn carry_out_reload(self, work: Work, turn: OwnedMutexGuard<()>) {
        let Work { removed, restarted, mut ends, fresh } = work;
        let handles: Vec<_> = restarted.values().cloned().collect();
        let restarting = Restarting::of(&self, &handles);
        let mut starts = Vec::new();
        let mut ending: FuturesUnordered<BoxFuture<'static, (Name, Result<(), CommandError>)>> = FuturesUnordered::new();
        loop {
            for name in ends.free() {
                match (removed.get(&name).cloned(), restarted.get(&name).cloned()) {
                    (Some(handle), _) => ending.push(Box::pin(async move { (name, handle.unregister_patiently().await) })),
                    (None, Some(handle)) => {
                        ending.push(Box::pin(async move { (name, handle.end_to_start(None).await.map(drop)) }));
                    }
                    (None, None) => ends.done(&name),
                }
            }
            let Some((name, result)) = ending.next().await else { break };
            ends.done(&name);
            if let Some(handle) = removed.get(&name) {
                if let Err(error) = self.conclude_unregister(handle, result) {
                    tracing::warn!(%name, %error, "the file has it no more, and it cannot be forgotten");
                }
            } else if let Some(handle) = restarted.get(&name) {
                match result {
                    Ok(()) => starts.push((handle.clone(), How::AfterAll)),
                    Err(error) => tracing::warn!(%name, %error, "cannot be ended, and so not be started anew"),
                }
            }
        }
        drop(turn);
        for handle in fresh {
            if is_fresh(&handle) {
                starts.push((handle, How::Execute { launch: Launch::default(), origin: Origin::Autostart }));
            }
        }
        for (name, start) in self.clone().carry_out_start(starts).await {
            match start {
                // What the operating system refused was reported where it happened.
                Ok(_) | Err(CommandError::SpawnFailed(_)) => {}
                Err(_) if self.is_leaving() => {}
                Err(error) => tracing::warn!(%name, %error, "not started"),
            }
        }
        drop(restarting);
    }
}

impl Work {
    /// Who is to be started once all that is to end is gone.
    fn to_start(&self) -> impl Iterator<Item = SubProcessHandle> {
        self.restarted.values().chain(self.fresh.iter().filter(|handle| is_fresh(handle))).cloned()
    }
}

/// Whether one that is new, or has changed, starts by itself.
fn is_fresh(handle: &SubProcessHandle) -> bool {
    let published = handle.published();
    published.spec.autostart && published.starts == 0 && published.state == StateName::Stopped
}

impl Registered {
    /// What these definitions come to, and the order with them.
    fn replace(&self, file: Vec<Spec>) -> Result<(Replaced, Order), ReloadError> {
        let known = self.handles.iter().map(|(name, handle)| (name.clone(), handle.published().spec.clone())).collect();
        let outdated = self.handles.iter().filter(|(_, handle)| handle.published().outdated).map(|(name, _)| name.clone()).collect();
        let plan = Plan::new(&known, &self.of_file, &outdated, file);
        if self.handles.len() - plan.removed.len() + plan.added.len() > self.most {
            return Err(ReloadError::Full(self.most));
        }
        let mut order = self.order.clone();
        plan.removed.iter().for_each(|name| order.remove(name));
        plan.definitions().for_each(|spec| order.insert(&spec.name, &spec.after, &spec.requires));
        for by in order.names() {
            if let Some((_, name)) = order.unknown(by).into_iter().find(|(link, _)| *link == Link::Requires) {
                return Err(ReloadError::Required { name, by: by.clone() });
            }
        }
        if let Some(cycle) = order.cycles(1).pop() {
            return Err(ReloadError::Cycle(cycle));
        }
        let state = |name: &Name| self.handles.get(name).map(|handle| handle.published().state);
        let restarted = plan.changed.iter().filter(|(name, (_, change))| state(name).is_some_and(|state| change.restarts(state)));
        let restarted = restarted.map(|(name, _)| name.clone()).collect();
        Ok((Replaced { plan, restarted }, order))
    }
}
