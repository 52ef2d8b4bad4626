//! How sub-processes come, change and go: registering and unregistering.
//!
//! A definition with `instances` is one definition of several sub-processes. Putting another one in its place leaves nobody behind: those that the
//! new one does not define any more are unregistered with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::protocol::Name;
use crate::protocol::names::nearest;
use crate::subprocess::{CommandError, Spec, SubProcessHandle, actor};

use super::SupervisorHandle;
use super::order::{Cycle, Link};
use super::registry::Registered;

/// Why a definition was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another one is known under the name.
    #[error("{0} is registered with another definition")]
    Exists(Name),
    /// It is being unregistered.
    #[error("{0} is being unregistered")]
    Going(Name),
    /// There would be more than this daemon takes.
    #[error("at most {0} sub-processes can be registered")]
    Full(usize),
    /// It names somebody who is not there.
    #[error("{name} names {said} in `{}`, which is not registered", link.key())]
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
    /// It does not define one any more that others cannot be without.
    #[error("{name} would be unregistered, and others require it: {}", by.iter().map(Name::as_str).collect::<Vec<_>>().join(", "))]
    Required {
        /// Who would go.
        name: Name,
        /// Who requires it.
        by: BTreeSet<Name>,
    },
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

/// The most sub-processes that may be registered, unless another number is said: each may hold some ten descriptors.
pub const MAX_REGISTERED: usize = 10_000;

impl Registered {
    /// Those that the definitions of these defined before, and do not any more.
    fn surplus(&self, specs: &[Spec]) -> Vec<SubProcessHandle> {
        let names: BTreeSet<&Name> = specs.iter().map(|spec| &spec.name).collect();
        let definitions: BTreeSet<&Name> = specs.iter().map(|spec| &spec.definition).collect();
        let defined = definitions.into_iter().flat_map(|definition| {
            let handles = self.order.family(definition).filter(|name| !names.contains(name)).filter_map(|name| self.handles.get(name));
            handles.filter(move |handle| handle.published().spec.definition == *definition)
        });
        defined.cloned().collect()
    }

    /// Notes what these say of the order, and that the surplus says nothing any more; or if that cannot be, nothing.
    fn put_in_order(&mut self, specs: &[Spec], surplus: &BTreeSet<Name>) -> Result<(), RegisterError> {
        if let Some((name, mut by)) = self.order.bereft(surplus) {
            // What these require is looked at in their new definitions.
            by.retain(|by| specs.iter().all(|spec| spec.name != *by));
            if !by.is_empty() {
                return Err(RegisterError::Required { name, by });
            }
        }
        for name in surplus {
            self.order.remove(name);
        }
        for spec in specs {
            self.order.insert(&spec.name, &spec.after, &spec.requires);
        }
        let result = self.check(specs);
        if result.is_err() {
            for name in specs.iter().map(|spec| &spec.name).chain(surplus) {
                self.restore_order(name);
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
    /// Takes definitions, all or none; they may name each other. The same one again is fine; another one under a known name only with `replace`:
    /// then what it does not define any more is quit and unregistered. Starts nothing.
    ///
    /// # Errors
    /// Nothing has changed, but with [`RegisterError::Command`]: then those before the one that it names are in place, or where it names one that is
    /// not defined any more, all of them, and that one is still registered.
    pub async fn register(&self, specs: Vec<Spec>, replace: bool) -> Result<Vec<SubProcessHandle>, RegisterError> {
        let (handles, surplus) = self.take_definitions(specs, replace).await?;
        // Others may register meanwhile: these names are taken until they have gone, and nobody can come to require them.
        let ends = join_all(surplus.iter().map(|handle| self.forget(handle))).await;
        for (handle, end) in surplus.iter().zip(ends) {
            match end {
                // Somebody else has unregistered it.
                Ok(()) | Err(CommandError::Gone) => {}
                Err(error) => return Err(RegisterError::Command(handle.name().clone(), error)),
            }
        }
        Ok(handles)
    }

    /// The first part of that: all definitions are in place. Answers besides who is to go.
    async fn take_definitions(
        &self,
        specs: Vec<Spec>,
        replace: bool,
    ) -> Result<(Vec<SubProcessHandle>, Vec<SubProcessHandle>), RegisterError> {
        let _registering = self.0.registering.lock().await;
        let mut handles = Vec::new();
        let mut others = Vec::new();
        let surplus;
        {
            let mut registered = self.0.write();
            // Under the lock, so that a leaving daemon that took its list has taken all of it.
            if self.is_leaving() {
                return Err(RegisterError::Leaving);
            }
            let known = |spec: &&Spec| registered.handles.contains_key(&spec.name);
            if let Some(spec) = specs.iter().filter(known).find(|spec| !registered.order.contains(&spec.name)) {
                return Err(RegisterError::Going(spec.name.clone()));
            }
            surplus = registered.surplus(&specs);
            let is_other = |spec: &Spec| registered.handles.get(&spec.name).is_some_and(|known| *known.published().spec != *spec);
            let other = specs.iter().find(|spec| is_other(spec)).map(|spec| spec.name.clone());
            let other = other.or_else(|| surplus.first().map(|handle| handle.published().spec.definition.clone()));
            if let (false, Some(other)) = (replace, other) {
                return Err(RegisterError::Exists(other));
            }
            let new = specs.iter().filter(|spec| !registered.handles.contains_key(&spec.name)).count();
            if registered.handles.len() + new > registered.most {
                return Err(RegisterError::Full(registered.most));
            }
            registered.put_in_order(&specs, &surplus.iter().map(|handle| handle.name().clone()).collect())?;
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
        let mut result = Ok((handles, surplus));
        while let Some((known, spec)) = others.next() {
            if let Err(error) = known.redefine(Arc::new(spec)).await {
                let mut registered = self.0.write();
                let left = others.as_slice().iter().map(|(_, spec)| &spec.name);
                let surplus = result.iter().flat_map(|(_, surplus)| surplus).map(SubProcessHandle::name);
                for name in std::iter::once(known.name()).chain(left).chain(surplus) {
                    registered.restore_order(name);
                }
                drop(registered);
                result = Err(RegisterError::Command(known.name().clone(), error));
                break;
            }
        }
        self.0.schedules.notify_one();
        result
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
        Ok(self.forget(handle).await?)
    }

    /// Quits and forgets one that is not in the order any more. Where that fails it is there as before.
    async fn forget(&self, handle: &SubProcessHandle) -> Result<(), CommandError> {
        let result = handle.unregister().await;
        self.conclude_unregister(handle, result)
    }

    /// Forgets it if it is gone, and keeps it if it is not.
    pub(super) fn conclude_unregister(&self, handle: &SubProcessHandle, result: Result<(), CommandError>) -> Result<(), CommandError> {
        let mut registered = self.0.write();
        let is_there = registered.handles.get(handle.name()).is_some_and(|known| known.is_same(handle));
        match result {
            Ok(()) if is_there => {
                registered.handles.remove(handle.name());
                registered.order.remove(handle.name());
                registered.of_file.remove(handle.name());
                self.0.schedules.notify_one();
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(CommandError::Gone) => Err(CommandError::Gone),
            Err(error) => {
                if is_there {
                    registered.restore_order(handle.name());
                }
                Err(error)
            }
        }
    }
}
