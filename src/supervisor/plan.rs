//! What a configuration that was read again asks for, against what is registered. Pure: definitions in, a plan out.
//!
//! A name that stands in the file is the file's from the moment it is read, whoever registered it before. A name that was registered at run time and
//! does not stand there is none of the file's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::protocol::{Name, StateName};
use crate::subprocess::Spec;
use crate::subprocess::spec::probe::{Health, HealthSource, Ready, ReadySource};

/// How a changed definition is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// While it runs.
    Live,
    /// With the next start. One that is not ready yet waits for what the former definition says, so it is started anew.
    Start,
    /// With the next start, as it is part of what a process is started with: one that runs is started anew.
    Restart,
}

impl Change {
    /// The most that any key asks for. A new key does not compile until it is decided here.
    pub fn between(old: &Spec, new: &Spec) -> Self {
        let Spec {
            // What a process is started with.
            cmd,
            args,
            shell,
            env,
            clear_env,
            env_file,
            cwd,
            user,
            user_group,
            supplementary_groups,
            umask,
            nice,
            oom_score_adj,
            no_new_privs,
            limits,
            stdout,
            stderr,
            // When it is ready, and what it was told about saying so.
            ready,
            health,
            // What its supervisor goes by.
            name: _,
            group: _,
            after: _,
            requires: _,
            log: _,
            autostart: _,
            schedule: _,
            overlap: _,
            policy: _,
            stop_request: _,
            stop_signal: _,
            stop_timeout: _,
            cgse_service_type: _,
            // Whose instance it is tells of no process, and the sum stands for what is compared here.
            definition: _,
            start_sum: _,
        } = old;
        let same = *cmd == new.cmd
            && *args == new.args
            && *shell == new.shell
            && *env == new.env
            && *clear_env == new.clear_env
            && *env_file == new.env_file
            && *cwd == new.cwd
            && *user == new.user
            && *user_group == new.user_group
            && *supplementary_groups == new.supplementary_groups
            && *umask == new.umask
            && *nice == new.nice
            && *oom_score_adj == new.oom_score_adj
            && *no_new_privs == new.no_new_privs
            && *limits == new.limits
            && *stdout == new.stdout
            && *stderr == new.stderr
            && told(ready.as_ref(), health.as_ref()) == told(new.ready.as_ref(), new.health.as_ref());
        match (same, *ready == new.ready) {
            (false, _) => Self::Restart,
            (true, false) => Self::Start,
            (true, true) => Self::Live,
        }
    }

    /// Whether one that is in this state is started anew.
    pub const fn restarts(self, state: StateName) -> bool {
        match (self, state) {
            (Self::Restart, StateName::Starting | StateName::Running) | (Self::Start, StateName::Starting) => true,
            (Self::Live, _)
            | (Self::Start, StateName::Running)
            | (
                Self::Start | Self::Restart,
                StateName::Stopped | StateName::Stopping | StateName::Backoff | StateName::Exited | StateName::Fatal | StateName::Lost,
            ) => false,
        }
    }
}

/// What a process finds in its environment about sd_notify(3): whether there is a socket, and how often it is to say there that it is alive.
fn told(ready: Option<&Ready>, health: Option<&Health>) -> (bool, Option<std::time::Duration>) {
    let alive = health.and_then(|health| match health.source {
        HealthSource::Notify(interval) => Some(interval),
        HealthSource::Probe(_) => None,
    });
    (alive.is_some() || ready.is_some_and(|ready| ready.source == ReadySource::Notify), alive)
}

/// What is to be done. Each name of the file is in exactly one of the four; no other name is, but those that the file had before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// New names.
    pub added: BTreeMap<Name, Arc<Spec>>,
    /// Those that are defined otherwise than before.
    pub changed: BTreeMap<Name, (Arc<Spec>, Change)>,
    /// Those that the file has no more.
    pub removed: BTreeSet<Name>,
    /// Those that are defined as before.
    pub unchanged: BTreeSet<Name>,
}

impl Plan {
    /// `of_file` are those among the registered names that the file had when it was last read; `outdated` those whose process was started with another
    /// definition than the registered one; no name stands in `file` twice.
    pub fn new(registered: &BTreeMap<Name, Arc<Spec>>, of_file: &BTreeSet<Name>, outdated: &BTreeSet<Name>, file: Vec<Spec>) -> Self {
        let mut plan = Self::default();
        for spec in file {
            let name = spec.name.clone();
            match registered.get(&name) {
                None => {
                    plan.added.insert(name, Arc::new(spec));
                }
                Some(known) if **known == spec && !outdated.contains(&name) => {
                    plan.unchanged.insert(name);
                }
                Some(known) => {
                    let change = if outdated.contains(&name) { Change::Restart } else { Change::between(known, &spec) };
                    plan.changed.insert(name, (Arc::new(spec), change));
                }
            }
        }
        let stays = |name: &&Name| plan.unchanged.contains(*name) || plan.changed.contains_key(*name) || plan.added.contains_key(*name);
        plan.removed = of_file.iter().filter(|name| registered.contains_key(*name) && !stays(name)).cloned().collect();
        plan
    }

    /// Every name that the file has.
    pub fn of_file(&self) -> impl Iterator<Item = &Name> {
        self.added.keys().chain(self.changed.keys()).chain(&self.unchanged)
    }

    /// The definitions that are to be put in place.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.added.values().chain(self.changed.values().map(|(spec, _)| spec))
    }
}

#[cfg(test)]
mod tests;
