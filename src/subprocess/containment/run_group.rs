//! The group of one run.

use std::io;
use std::sync::Arc;

use crate::sys::cgroup::{Events, Group};

use super::sweeper::Sweeper;

/// The group of one run. Dropped, it is removed as soon as nothing lives in it.
#[derive(Debug)]
pub struct RunGroup {
    group: Arc<Group>,
    name: String,
    sweeper: Arc<Sweeper>,
}

impl RunGroup {
    pub(super) fn new(group: Group, name: String, sweeper: Arc<Sweeper>) -> Self {
        Self { group: Arc::new(group), name, sweeper }
    }

    /// The group itself: to start a process in it, to read what was counted.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Its living processes, ascending.
    ///
    /// # Errors
    /// As for [`Group::members`].
    pub fn members(&self) -> io::Result<Vec<u32>> {
        self.group.members()
    }

    /// Whether anything lives in it.
    ///
    /// # Errors
    /// As for [`Group::is_populated`].
    pub fn is_populated(&self) -> io::Result<bool> {
        self.group.is_populated()
    }

    /// Waiting until nothing lives in it.
    ///
    /// # Errors
    /// As for [`Group::events`].
    pub fn events(&self) -> io::Result<Events> {
        self.group.events()
    }

    /// SIGKILL to everything in it.
    ///
    /// # Errors
    /// As for [`Group::kill`].
    pub fn kill(&self) -> io::Result<()> {
        self.group.kill()
    }

    /// Whether the kernel killed one of its processes for lack of memory. Without the memory controller nobody can tell: then it did not.
    pub fn oom_killed(&self) -> bool {
        self.group.oom_kills().is_some_and(|kills| kills > 0)
    }
}

impl Drop for RunGroup {
    fn drop(&mut self) {
        self.sweeper.sweep(std::mem::take(&mut self.name));
    }
}
