//! Where groups can be made, found by trying.
//!
//! Below the daemon's own group, or below the group that was delegated to it. Limits and memory accounting need controllers, and a group that hands
//! controllers on must hold no process itself ("no internal processes"): only then, and only where the group is ours by delegation, the daemon
//! itself moves into a leaf beside the groups of its runs. A host that keeps its controllers in version 1 (hybrid) has none to hand on: there groups
//! hold processes together, and nothing else.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::cgroup::{Controller, Group, Hierarchy};
use crate::sys::clone::try_group;

/// Where the configuration wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where the daemon is, if that is possible.
    Auto,
    /// Below the group of this directory, which is made where it is missing.
    At(PathBuf),
}

/// Why runs cannot have groups.
#[derive(Debug, thiserror::Error)]
pub enum NoGroups {
    /// The kernel or the container has none.
    #[error("no cgroup v2 hierarchy is mounted that shows the daemon's own group")]
    NoHierarchy,
    /// Neither below its own group nor anywhere else.
    #[error("cannot make a group in {path}: {source}")]
    NotOurs {
        /// The directory that was tried last.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Controllers that every run gets: counting is cheap, and tells of kills for lack of memory. The cpu controller is enabled only when a definition
/// asks for it: it makes every run a scheduling unit of its own, and on some kernels keeps real-time processes out.
const ALWAYS: [Controller; 2] = [Controller::Memory, Controller::Pids];

/// What the names of the daemon's groups begin with.
const PREFIX: &str = "procman-";

/// A group in which this daemon may make groups.
#[derive(Debug)]
pub(super) struct Ground {
    /// Its directory.
    pub(super) path: PathBuf,
    /// The groups of all runs of this daemon.
    pub(super) runs: Group,
    /// What was done to `base`, to be undone at the end.
    pub(super) traces: Traces,
}

/// What the daemon did to the group that it made its own in.
#[derive(Debug)]
pub(super) struct Traces {
    base: Group,
    /// The group of all runs, in `base`.
    name: String,
    /// The leaf, in `base`, that the daemon moved into.
    leaf: Option<String>,
    /// What it enabled in `base`.
    enabled: Vec<Controller>,
    /// It may move itself out of the way.
    may_move: bool,
    /// Directories that it made for a configured place, the outermost first: the parent and the name.
    made: Vec<(Group, String)>,
}

impl Ground {
    /// Finds and prepares it. `id` tells this daemon from all others; groups of an earlier one with the same `id` are found again.
    pub(super) fn find(place: &Place, id: &str) -> Result<Self, NoGroups> {
        match place {
            Place::At(path) => {
                let refused = |source| NoGroups::NotOurs { path: path.clone(), source };
                let (base, made) = open_or_make(path).map_err(refused)?;
                Self::prepare(base, path, made, id, false).map_err(|(source, made)| {
                    unmake(&made);
                    refused(source)
                })
            }
            Place::Auto => {
                let hierarchy = Hierarchy::find().ok().flatten().ok_or(NoGroups::NoHierarchy)?;
                let mut refused = NoGroups::NoHierarchy;
                for candidate in candidates(&hierarchy) {
                    let ground = Group::open(&candidate.path)
                        .map_err(|error| (error, Vec::new()))
                        .and_then(|base| Self::prepare(base, &candidate.path, Vec::new(), id, candidate.may_move));
                    match ground {
                        Ok(ground) => return Ok(ground),
                        Err((source, _)) => refused = NoGroups::NotOurs { path: candidate.path, source },
                    }
                }
                Err(refused)
            }
        }
    }

    fn prepare(
        base: Group,
        path: &Path,
        made: Vec<(Group, String)>,
        id: &str,
        may_move: bool,
    ) -> Result<Self, (io::Error, Vec<(Group, String)>)> {
        let name = format!("{PREFIX}{id}");
        let runs = match open_or_create(&base, &name).and_then(|runs| usable(&runs).map(|()| runs)) {
            Ok(runs) => runs,
            Err(error) => {
                drop(base.remove(&name));
                return Err((error, made));
            }
        };
        drop(base.remove(&leaf_name(&name))); // of a daemon that was killed
        let mut traces = Traces { base, name, leaf: None, enabled: Vec::new(), may_move, made };
        traces.enable_always(&runs);
        Ok(Self { path: path.join(&traces.name), runs, traces })
    }
}

/// The group, beside that of its runs, which the daemon itself moves to.
fn leaf_name(runs: &str) -> String {
    format!("{runs}.daemon")
}

/// A directory to try.
struct Candidate {
    path: PathBuf,
    /// The daemon is in it, and it is the daemon's: it may move itself out of the way.
    may_move: bool,
}

/// The best first.
fn candidates(hierarchy: &Hierarchy) -> Vec<Candidate> {
    let own = &hierarchy.own;
    let delegated = |path: &Path| Group::open(path).is_ok_and(|group| group.is_delegated());
    let ours_by_owner = || {
        let me = nix::unistd::geteuid();
        !me.is_root() && Group::open(own).and_then(|group| group.owner()).is_ok_and(|owner| owner == me.as_raw())
    };
    let may_move = delegated(own) || hierarchy.own_is_topmost() || ours_by_owner();
    let mut candidates = Vec::new();
    // A service manager may have put the daemon into a leaf of what it delegated (systemd's DelegateSubgroup=).
    if let Some(parent) = own.parent().filter(|parent| !may_move && parent.starts_with(&hierarchy.mount) && delegated(parent)) {
        candidates.push(Candidate { path: parent.to_owned(), may_move: false });
    }
    candidates.push(Candidate { path: own.clone(), may_move });
    // The root of the hierarchy is its service manager's, where there is one.
    if nix::unistd::geteuid().is_root() && !hierarchy.own_is_topmost() && !Path::new("/run/systemd/system").exists() {
        candidates.push(Candidate { path: hierarchy.mount.clone(), may_move: false });
    }
    candidates
}

/// Opens the group of this directory; makes it, and what is above it in the hierarchy, where it is missing. Never makes a directory elsewhere.
fn open_or_make(path: &Path) -> io::Result<(Group, Vec<(Group, String)>)> {
    match Group::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().and_then(|name| name.to_str()).ok_or(error)?;
            let (parent, mut made) = open_or_make(path.parent().unwrap_or(Path::new("/")))?;
            match open_or_create(&parent, name) {
                Ok(group) => {
                    made.push((parent, name.to_owned()));
                    Ok((group, made))
                }
                Err(error) => {
                    unmake(&made);
                    Err(error)
                }
            }
        }
        other => Ok((other?, Vec::new())),
    }
}

fn unmake(made: &[(Group, String)]) {
    for (parent, name) in made.iter().rev() {
        drop(parent.remove(name)); // somebody else may use it by now
    }
}

fn open_or_create(parent: &Group, name: &str) -> io::Result<Group> {
    match parent.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => parent.child(name),
        other => other,
    }
}

/// That a group can be made there is not enough: processes must come to be in it.
fn usable(runs: &Group) -> io::Result<()> {
    let name = format!("trial.{}", std::process::id());
    let trial = runs.create(&name)?;
    let result = try_group(&trial);
    drop(trial);
    runs.remove(&name).and(result)
}

impl Traces {
    /// Has the groups of runs counted and limited, as far as that is to be had.
    fn enable_always(&mut self, runs: &Group) {
        for controller in ALWAYS {
            if let Err(error) = self.enable(controller, runs) {
                tracing::debug!(controller = controller.word(), %error, "runs do without this controller");
            }
        }
    }

    /// Hands a controller on to the groups of runs.
    pub(super) fn enable(&mut self, controller: Controller, runs: &Group) -> io::Result<()> {
        if !self.base.enabled()?.has(controller) {
            if !self.base.controllers()?.has(controller) {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "this host has it not in cgroup v2, or did not hand it on"));
            }
            match self.base.enable(controller) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && self.may_move && self.leaf.is_none() => {
                    self.step_aside()?;
                    self.base.enable(controller).inspect_err(|_| self.step_back())?;
                }
                other => other?,
            }
            self.enabled.push(controller);
        }
        runs.enable(controller)
    }

    /// Moves the daemon into a leaf.
    fn step_aside(&mut self) -> io::Result<()> {
        let leaf = leaf_name(&self.name);
        let group = open_or_create(&self.base, &leaf)?;
        group.enter(std::process::id()).inspect_err(|_| drop(self.base.remove(&leaf)))?;
        self.leaf = Some(leaf);
        Ok(())
    }

    fn step_back(&mut self) {
        let Some(leaf) = self.leaf.take() else { return };
        if let Err(error) = self.base.enter(std::process::id()).and_then(|()| self.base.remove(&leaf)) {
            tracing::debug!(leaf, %error, "the daemon stays in its group");
        }
    }

    /// Leaves the groups of runs, in which processes live, but hands no controller on to them any more.
    pub(super) fn leave(&mut self, runs: &Group) {
        for controller in self.enabled.drain(..) {
            drop(runs.disable(controller));
            drop(self.base.disable(controller));
        }
        self.step_back();
    }

    /// Undoes everything, once no run has a group any more.
    pub(super) fn undo(&mut self) {
        if let Err(error) = self.base.remove(&self.name) {
            tracing::warn!(group = self.name, %error, "the group of the daemon's sub-processes is left");
            return; // what is in it is counted and limited on
        }
        for controller in self.enabled.drain(..) {
            drop(self.base.disable(controller)); // another daemon may have come to use it
        }
        self.step_back();
        unmake(&self.made);
        self.made.clear();
    }
}

/// Takes back what a daemon that was killed has set up in its group, and could not undo: as long as the group hands controllers on, no process can be
/// put into it, and the next daemon not started there. What runs in its groups is counted and limited again once that one has taken it over.
///
/// A sub-process that hands controllers on itself (a container engine) keeps them from being taken back. Then they are taken from its groups, too, and
/// `true` is returned: that nobody is limited there is better than that nobody is supervised.
///
/// # Errors
/// The group, or one in it, cannot be read or written.
pub fn take_back(base: &Group) -> io::Result<bool> {
    let ours = base.children()?.into_iter().filter(|name| name.starts_with(PREFIX));
    let groups = ours.map(|name| base.child(&name)).collect::<io::Result<Vec<_>>>()?;
    let from_ours = groups.iter().try_for_each(Group::disable_all).and_then(|()| base.disable_all());
    match from_ours {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            groups.iter().try_for_each(take_all_back)?;
            base.disable_all().map(|()| true)
        }
        other => other.map(|()| false),
    }
}

/// From the innermost out, as the kernel wants it.
fn take_all_back(group: &Group) -> io::Result<()> {
    for name in group.children()? {
        take_all_back(&group.child(&name)?)?;
    }
    group.disable_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::testing::TestGroup;

    #[test]
    fn a_configured_place_is_made_and_removed_again() {
        let Some(test) = TestGroup::new("place") else { return };
        let path = test.path().join("a/b");
        let mut ground = Ground::find(&Place::At(path.clone()), "x").unwrap();
        assert_eq!(ground.path, path.join("procman-x"));
        assert!(ground.path.is_dir());
        // A second one with another identity beside it, and the same one again.
        let mut other = Ground::find(&Place::At(path.clone()), "y").unwrap();
        assert!(Ground::find(&Place::At(path.clone()), "x").is_ok());
        ground.traces.undo();
        assert!(path.is_dir(), "the other one's place is left alone");
        other.traces.undo();
        assert!(path.join("procman-y").symlink_metadata().is_err());
    }

    #[test]
    fn a_place_outside_of_the_hierarchy_is_refused_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Ground::find(&Place::At(dir.path().join("a/b")), "x").unwrap_err();
        assert!(matches!(&refused, NoGroups::NotOurs { source, .. } if source.raw_os_error() == Some(libc::EINVAL)), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_to_look_first() {
        let hierarchy = |own: &str| Hierarchy { mount: "/no/such/mount".into(), own: own.into() };
        let paths = |own: &str| candidates(&hierarchy(own)).into_iter().map(|candidate| candidate.path).collect::<Vec<_>>();
        assert_eq!(paths("/no/such/mount"), [Path::new("/no/such/mount")]);
        let systemd = Path::new("/run/systemd/system").exists() || !nix::unistd::geteuid().is_root();
        let expected = if systemd { &["/no/such/mount/a"][..] } else { &["/no/such/mount/a", "/no/such/mount"][..] };
        assert_eq!(paths("/no/such/mount/a"), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert!(candidates(&hierarchy("/no/such/mount"))[0].may_move, "the top of what the daemon sees");
    }
}
