//! Holding the processes of a run together by a control group of its own (cgroup version 2), where the host lets us.
//!
//! A process leaves its parent, its session and its environment as it likes; its group it cannot leave by forking. What has no group is found by
//! the [`Forest`](crate::procfs::Forest) alone.
//!
//! - [`place`]: where groups can be made, found once when the daemon starts;
//! - [`groups`]: the directory of this daemon's groups; makes one for each run and leaves none behind;
//! - [`run_group`]: the group of one run; `sweeper`: removes it when the run is gone.

pub mod groups;
pub mod place;
pub mod run_group;

mod sweeper;

pub use groups::{Groups, LeftGroup};
pub use place::{NoGroups, Place};
pub use run_group::RunGroup;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::spec::Spec;
use crate::protocol::Name;

/// What the daemon holds processes together by.
#[derive(Debug, Default)]
pub struct Containment {
    groups: Option<Arc<Groups>>,
    /// What was warned of: the sub-process and the key.
    warned: Mutex<HashSet<(Name, &'static str)>>,
}

impl Containment {
    /// By groups; where there are none, by the forest alone.
    pub fn new(groups: Option<Arc<Groups>>) -> Self {
        Self { groups, warned: Mutex::default() }
    }

    /// The group of a new run. One that cannot be made is told, and the run starts without: nothing is lost but certainty. The same goes for limits
    /// of the whole tree: what one host limits should run on another that cannot, so each is told once for each sub-process, and not refused.
    pub fn begin(&self, spec: &Spec, uuid: &str) -> Option<RunGroup> {
        let made = self.groups.as_ref().map(|groups| groups.create(&spec.name, uuid, &spec.limits));
        match made {
            Some(Ok((group, unset))) => {
                for limit in unset {
                    self.warn(spec, limit.key, &limit.why);
                }
                Some(group)
            }
            Some(Err(error)) => {
                tracing::warn!(name = %spec.name, %error, "cannot make a control group for this run, it starts without");
                None
            }
            None => {
                for limit in groups::wanted(&spec.limits) {
                    self.warn(spec, limit.key, &"the daemon uses no control groups");
                }
                None
            }
        }
    }

    /// The group of a run that an earlier daemon started; `None` where it has none here.
    pub fn adopt(&self, spec: &Spec, uuid: &str) -> Option<RunGroup> {
        let (group, unset) = self.groups.as_ref()?.adopt(spec.name.as_str(), uuid, &spec.limits).ok()?;
        for limit in unset {
            self.warn(spec, limit.key, &limit.why);
        }
        Some(group)
    }

    fn warn(&self, spec: &Spec, key: &'static str, why: &dyn std::fmt::Display) {
        if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert((spec.name.clone(), key)) {
            tracing::warn!(name = %spec.name, key = format!("limits.{key}"), %why, "this limit cannot be set, the sub-process runs without it");
        }
    }
}
