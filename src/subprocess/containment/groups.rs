//! The directory of this daemon's groups.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::protocol::Name;
use crate::protocol::definition::LimitsDefinition;
use crate::sys::cgroup::{Controller, Controllers, Group};

use super::place::{Ground, NoGroups, Place, Traces};
use super::run_group::RunGroup;
use super::sweeper::Sweeper;

/// Makes a group for each run. Leaves none behind once [`Groups::close`] has been called.
#[derive(Debug)]
pub struct Groups {
    path: PathBuf,
    runs: Group,
    sweeper: Arc<Sweeper>,
    /// Changed when a definition asks for a controller for the first time; `None` once all is undone.
    traces: Mutex<Option<Traces>>,
}

impl Groups {
    /// Finds where groups can be made, and removes what an earlier daemon with the same `id` left there empty. What still lives there is left alone:
    /// see [`Groups::left`].
    ///
    /// # Errors
    /// Groups cannot be made, and why.
    pub fn find(place: &Place, id: &str) -> Result<Arc<Self>, NoGroups> {
        let Ground { path, runs, traces } = Ground::find(place, id)?;
        let system = |source| NoGroups::NotOurs { path: path.clone(), source };
        remove_stale(&runs);
        let sweeper = Arc::new(Sweeper::start(runs.duplicate().map_err(system)?).map_err(system)?);
        Ok(Arc::new(Self { runs, sweeper, traces: Mutex::new(Some(traces)), path }))
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What runs can be limited by, as far as anybody asked so far.
    pub fn controllers(&self) -> Controllers {
        self.runs.enabled().unwrap_or_default()
    }

    /// Makes the group of a run, with its limits; beside it the limits that could not be set.
    ///
    /// # Errors
    /// As for [`Group::create`].
    pub fn create(&self, sub_process: &Name, uuid: &str, limits: &LimitsDefinition) -> io::Result<(RunGroup, Vec<Unset>)> {
        let name = group_name(sub_process, uuid);
        let group = self.runs.create(&name)?;
        let unset = self.limit(&group, limits);
        Ok((RunGroup::new(group, name, self.sweeper.clone()), unset))
    }

    /// The groups of an earlier daemon in which something lives.
    ///
    /// # Errors
    /// They cannot be listed. One that goes meanwhile is none.
    pub fn left(&self) -> io::Result<Vec<LeftGroup>> {
        let mut left = Vec::new();
        for directory in self.runs.children()? {
            let Some((name, uuid)) = directory.rsplit_once('.') else { continue };
            let pids = match self.runs.child(&directory) {
                Ok(group) => group.members()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            left.push(LeftGroup { name: name.to_owned(), uuid: uuid.to_owned(), pids });
        }
        Ok(left)
    }

    /// Takes over the group of a run that an earlier daemon started; its limits are set anew, as they may have been given up with their controllers.
    ///
    /// # Errors
    /// There is no such group.
    pub fn adopt(&self, sub_process: &str, uuid: &str, limits: &LimitsDefinition) -> io::Result<(RunGroup, Vec<Unset>)> {
        let name = format!("{sub_process}.{uuid}");
        let group = self.runs.child(&name)?;
        let unset = self.limit(&group, limits);
        Ok((RunGroup::new(group, name, self.sweeper.clone()), unset))
    }

    fn limit(&self, group: &Group, limits: &LimitsDefinition) -> Vec<Unset> {
        let set = |wanted: &Wanted| self.have(wanted.controller).and_then(|()| group.write(wanted.file, &wanted.value.to_string()));
        wanted(limits).filter_map(|wanted| Some(Unset { why: set(&wanted).err()?, key: wanted.key })).collect()
    }

    /// Leaves the groups of all runs to a later daemon. Controllers are given up: a service manager could not put that daemon into a group that
    /// hands any on (`EBUSY`, "no internal processes").
    pub fn leave(&self) {
        self.sweeper.abandon();
        if let Some(mut traces) = self.traces.lock().unwrap_or_else(PoisonError::into_inner).take() {
            traces.leave(&self.runs);
        }
    }

    /// Sees to it that the groups of runs have this controller.
    fn have(&self, controller: Controller) -> io::Result<()> {
        if self.runs.enabled()?.has(controller) {
            return Ok(());
        }
        match &mut *self.traces.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(traces) => traces.enable(controller, &self.runs),
            None => Err(io::Error::other("the daemon is leaving")),
        }
    }

    /// Removes everything that was made, and moves the daemon back to where it was. Blocks for a second at most, where something still lives.
    pub fn close(&self) {
        self.sweeper.finish();
        if let Some(mut traces) = self.traces.lock().unwrap_or_else(PoisonError::into_inner).take() {
            traces.undo();
        }
    }
}

/// A group that an earlier daemon has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftGroup {
    /// The sub-process.
    pub name: String,
    /// The run.
    pub uuid: String,
    /// What lives in it, or below it.
    pub pids: Vec<u32>,
}

/// A limit of a whole tree that could not be set.
#[derive(Debug)]
pub struct Unset {
    /// Its key in `limits`.
    pub key: &'static str,
    /// Why not.
    pub why: io::Error,
}

/// A limit of a whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its key in `limits`.
    pub(super) key: &'static str,
    controller: Controller,
    /// The file of the group that it is written to.
    file: &'static str,
    value: u64,
}

/// The limits of the whole tree among these.
pub(super) fn wanted(limits: &LimitsDefinition) -> impl Iterator<Item = Wanted> + use<> {
    let LimitsDefinition { memory_max, pids_max, cpu_weight, .. } = *limits;
    let memory =
        memory_max.map(|bytes| Wanted { key: "memory_max", controller: Controller::Memory, file: "memory.max", value: bytes.get() });
    let pids = pids_max.map(|value| Wanted { key: "pids_max", controller: Controller::Pids, file: "pids.max", value });
    let cpu = cpu_weight.map(|weight| Wanted { key: "cpu_weight", controller: Controller::Cpu, file: "cpu.weight", value: weight.into() });
    [memory, pids, cpu].into_iter().flatten()
}

/// The name of a run's group: the sub-process, for people, and the run's UUID, by which the forest finds it. Both are of letters that lead nowhere
/// else, and no file of the kernel's ends so.
fn group_name(sub_process: &Name, uuid: &str) -> String {
    format!("{sub_process}.{uuid}")
}

fn remove_stale(runs: &Group) {
    for name in runs.children().unwrap_or_default() {
        drop(runs.remove_tree(&name)); // something lives in it
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::testing::TestGroup;
    use std::process::{Command, Stdio};

    fn name() -> Name {
        "web@1:a".parse().unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn each_run_has_a_group_until_it_is_gone() {
        let Some(test) = TestGroup::new("groups") else { return };
        let groups = Groups::find(&Place::At(test.path()), "a").unwrap();
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let (first, _) = groups.create(&name(), "11-22", &LimitsDefinition::default()).unwrap();
        let (second, _) = groups.create(&name(), "33-44", &LimitsDefinition::default()).unwrap();
        assert!(groups.create(&name(), "33-44", &LimitsDefinition::default()).is_err(), "it is there");
        first.group().enter(child.id()).unwrap();
        first.group().create("deeper").unwrap();
        assert_eq!((first.members().unwrap(), second.members().unwrap()), (vec![child.id()], vec![]));
        assert!(first.is_populated().unwrap() && !first.oom_killed());
        drop(second);
        drop(first); // though something lives in it: it is removed later
        crate::procfs::testing::until(|| names(groups.path()) == ["web@1:a.11-22"]);
        child.kill().unwrap();
        child.wait().unwrap();
        groups.close();
        assert!(!groups.path().exists(), "nothing is left");
    }

    #[test]
    fn what_an_earlier_daemon_left_is_removed_unless_it_lives() {
        let Some(test) = TestGroup::new("stale") else { return };
        let runs = test.group.create("procman-a").unwrap();
        runs.create("dead.1").unwrap().create("deeper").unwrap();
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        runs.create("alive.2").unwrap().enter(child.id()).unwrap();
        let groups = Groups::find(&Place::At(test.path()), "a").unwrap();
        assert_eq!(names(groups.path()), ["alive.2"]);
        assert!(child.try_wait().unwrap().is_none(), "it lives on");
        groups.close();
        assert!(groups.path().exists(), "and is not taken its group");
        child.kill().unwrap();
        child.wait().unwrap();
        Groups::find(&Place::At(test.path()), "a").unwrap().close();
        assert!(!groups.path().exists());
    }

    #[test]
    fn a_limit_that_cannot_be_set_stops_no_run() {
        let Some(test) = TestGroup::new("limits") else { return };
        let groups = Groups::find(&Place::At(test.path()), "a").unwrap();
        let limits = LimitsDefinition {
            memory_max: crate::protocol::definition::Bytes::new(1 << 30),
            pids_max: Some(100),
            cpu_weight: Some(200),
            ..LimitsDefinition::default()
        };
        let (run, unset) = groups.create(&name(), "1", &limits).unwrap();
        for Wanted { key, controller, file, value } in wanted(&limits) {
            let missing = unset.iter().any(|unset| unset.key == key);
            let said = std::fs::read_to_string(groups.path().join("web@1:a.1").join(file));
            assert_eq!(groups.controllers().has(controller), !missing, "{key} is set, or said to be missing");
            assert!(missing || said.unwrap().trim() == value.to_string(), "{key}");
        }
        drop(run);
        groups.close();
    }
}
