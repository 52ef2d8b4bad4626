//! The trees of all runs, from one pass over `/proc` at a time.
//!
//! Every process of any run is a descendant of the daemon, which is a subreaper (`PR_SET_CHILD_SUBREAPER`, set where the daemon starts); but for the
//! runs of an earlier daemon, whose main processes and orphans went to the next subreaper above it, or to init.
//! `attribution` says how the daemon's children are told apart. One pass serves every run and everybody who asks meanwhile: the cost of
//! a look does not grow with the number of runs or clients, only with the number of processes on the host.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::attribution::Attribution;
use super::environ::EnvironReader;
use super::group;
use super::stat::{Identity, Stat, read_stat};
use super::table::Table;

/// The variable that names its run to a process and, by inheritance, to its descendants; its value is the run's UUID.
pub const MARKER: &str = "PROCMAN_UUID";

/// The variable that says whose a process is: `ID/NAME/PID` for a run of this sub-process of the daemon with this id, whose main process was made with
/// this PID; `ID/NAME/program/PID` for what the daemon itself asks of it. It tells a later daemon with the same id what it knows nothing else of.
pub const OWNER: &str = "PROCMAN_RUN";

/// The trees of all runs.
#[derive(Debug)]
pub struct Forest {
    /// The PID of the daemon, whose children orphans become.
    daemon: u32,
    /// What is planted, by UUID.
    planted: Mutex<HashMap<Arc<str>, Plant>>,
    /// Numbers the plants.
    plants: AtomicU64,
    /// Who holds it may scan; it goes to the scan's own thread, so that a caller that gives up does not make two scan at once.
    scanner: Arc<AsyncMutex<Scanner>>,
    /// Whether runs have control groups, which tell of orphans that nothing else tells of.
    has_groups: AtomicBool,
    /// Whether there are runs of an earlier daemon.
    has_adopted: AtomicBool,
    /// Written only by the one that scans, and read without waiting for it.
    last: RwLock<Option<Arc<Look>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plant {
    main: Identity,
    /// Tells a plant from a later one of the same UUID.
    serial: u64,
}

/// A planted run. Dropped, it is forgotten.
#[derive(Debug)]
#[must_use = "dropped at once, the run is forgotten at once"]
pub struct Root {
    forest: Arc<Forest>,
    uuid: Arc<str>,
    plant: Plant,
}

impl Forest {
    /// A forest without trees, for the calling process as the daemon.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            daemon: std::process::id(),
            planted: Mutex::default(),
            plants: AtomicU64::new(0),
            scanner: Arc::default(),
            has_groups: AtomicBool::new(false),
            has_adopted: AtomicBool::new(false),
            last: RwLock::new(None),
        })
    }

    /// From now on runs have control groups whose names end with a dot and their UUID.
    pub fn by_groups(&self) {
        self.has_groups.store(true, Ordering::Relaxed);
    }

    /// Attributes processes to this run as long as the root lives: its main process, the descendants of that, and orphans of the run.
    /// Planted again under the same UUID, the later main counts.
    pub fn plant(self: &Arc<Self>, uuid: &str, main: Identity) -> Root {
        let uuid: Arc<str> = uuid.into();
        let plant = Plant { main, serial: self.plants.fetch_add(1, Ordering::Relaxed) };
        self.planted.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&uuid), plant);
        Root { forest: Arc::clone(self), uuid, plant }
    }

    /// As [`Forest::plant`], for a run of an earlier daemon: its orphans are not this one's children.
    pub fn adopt(self: &Arc<Self>, uuid: &str, main: Identity) -> Root {
        self.has_adopted.store(true, Ordering::Relaxed);
        self.plant(uuid, main)
    }

    /// Whether the children of this process may be orphans of a run.
    pub fn takes_orphans_in(&self, pid: u32) -> bool {
        pid == self.daemon || self.has_adopted.load(Ordering::Relaxed) && ancestors(self.daemon).contains(&pid)
    }

    /// The trees as a scan that began after this call found them. Callers that arrive while one scans share the next scan.
    ///
    /// # Errors
    /// `/proc` cannot be read (EMFILE, ENOMEM …), or the runtime is shutting down.
    pub async fn look(self: &Arc<Self>) -> io::Result<Arc<Look>> {
        self.look_since(Instant::now()).await
    }

    /// The last look if it began at most `max_age` ago, else a new one.
    ///
    /// # Errors
    /// As for [`Forest::look`].
    pub async fn look_within(self: &Arc<Self>, max_age: Duration) -> io::Result<Arc<Look>> {
        match Instant::now().checked_sub(max_age) {
            Some(earliest) => self.look_since(earliest).await,
            None => match self.last() {
                Some(last) => Ok(last), // older than the clock no look can be
                None => self.look().await,
            },
        }
    }

    /// What the last scan found, without waiting for anything.
    pub fn last(&self) -> Option<Arc<Look>> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look_since(self: &Arc<Self>, earliest: Instant) -> io::Result<Arc<Look>> {
        let young_enough = || self.last().filter(|last| last.began >= earliest);
        if let Some(last) = young_enough() {
            return Ok(last);
        }
        let scanner = Arc::clone(&self.scanner).lock_owned().await;
        if let Some(last) = young_enough() {
            return Ok(last);
        }
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.scan(scanner)).await.map_err(io::Error::other)?
    }

    fn scan(&self, mut scanner: OwnedMutexGuard<Scanner>) -> io::Result<Arc<Look>> {
        let Scanner { environ, strangers } = &mut *scanner;
        let began = Instant::now();
        // The runs before the table: a main that is planted meanwhile is in the next look, and its children are nobody's in this one.
        let planted: Vec<(Arc<str>, Identity)> = {
            let planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
            planted.iter().map(|(uuid, plant)| (Arc::clone(uuid), plant.main)).collect()
        };
        let table = Table::scan()?;
        let before = self.last();
        let has_groups = self.has_groups.load(Ordering::Relaxed);
        let fosters = if self.has_adopted.load(Ordering::Relaxed) { fosters(&table, self.daemon, &planted) } else { BTreeSet::new() };
        let look = Look::new(table, self.daemon, &fosters, planted, before.as_deref(), began, |stat, is_run| {
            let process = stat.identity();
            if let Some(run) = strangers.get(&process) {
                return run.clone();
            }
            let run = if has_groups { group::run_of(process.pid, is_run) } else { None }.or_else(|| environ.marker(process));
            // Others have many children, hardly any of them ours: each is asked twice, as it may just be executing its program.
            if stat.ppid != self.daemon && run.as_deref().is_none_or(|run| !is_run(run)) {
                let seen_before =
                    before.as_ref().is_some_and(|before| before.table.get(process.pid).is_some_and(|s| s.identity() == process));
                if seen_before {
                    strangers.insert(process, run.clone());
                }
            }
            run
        });
        let lives = |process: Identity| look.table.get(process.pid).is_some_and(|stat| stat.identity() == process);
        environ.rest(lives);
        strangers.retain(|&process, _| lives(process));
        let look = Arc::new(look);
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&look));
        Ok(look)
    }
}

/// What a scan needs besides the table.
#[derive(Debug, Default)]
struct Scanner {
    environ: EnvironReader,
    /// Children of others than the daemon that were in no run, and which run they name: it may be planted later.
    strangers: HashMap<Identity, Option<String>>,
}

/// Who has taken in the children of an earlier daemon: whoever is the parent of one of its mains by now, and everybody above this daemon, as that was
/// above the earlier one.
fn fosters(table: &Table, daemon: u32, planted: &[(Arc<str>, Identity)]) -> BTreeSet<u32> {
    let parent = |main: &Identity| table.get(main.pid).filter(|stat| stat.identity() == *main).map(|stat| stat.ppid);
    let mut fosters = BTreeSet::new();
    let mut next = table.get(daemon).map_or(1, |stat| stat.ppid);
    // PIDs of a table that is not one instant may run in a circle.
    while next != 0 && fosters.insert(next) {
        next = table.get(next).map_or(1, |stat| stat.ppid);
    }
    fosters.extend(planted.iter().filter_map(|(_, main)| parent(main)));
    fosters.remove(&daemon);
    fosters.remove(&0);
    fosters
}

/// Everybody above a process, read one by one.
fn ancestors(pid: u32) -> BTreeSet<u32> {
    let mut ancestors = BTreeSet::from([1]);
    let mut next = pid;
    while let Ok(stat) = read_stat(next)
        && stat.ppid != 0
        && ancestors.insert(stat.ppid)
    {
        next = stat.ppid;
    }
    ancestors
}

impl Root {
    /// The run's UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The run's main process.
    pub fn main(&self) -> Identity {
        self.plant.main
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut planted = self.forest.planted.lock().unwrap_or_else(PoisonError::into_inner);
        if planted.get(&self.uuid) == Some(&self.plant) {
            planted.remove(&self.uuid);
        }
    }
}

/// What one scan found.
#[derive(Debug)]
pub struct Look {
    table: Table,
    /// The runs that were planted, by UUID to their number, and back.
    runs: HashMap<Arc<str>, u32>,
    uuids: Vec<Arc<str>>,
    attribution: Attribution,
    /// The places of all members in the table, ascending by run and then by PID.
    members: Vec<u32>,
    /// Where each run's members begin among them, and at the end their number.
    firsts: Vec<u32>,
    began: Instant,
    took: Duration,
}

impl Look {
    fn new(
        table: Table,
        daemon: u32,
        fosters: &BTreeSet<u32>,
        planted: Vec<(Arc<str>, Identity)>,
        before: Option<&Self>,
        began: Instant,
        mut marker: impl FnMut(&Stat, &dyn Fn(&str) -> bool) -> Option<String>,
    ) -> Self {
        let mains: Vec<Identity> = planted.iter().map(|(_, main)| *main).collect();
        let uuids: Vec<Arc<str>> = planted.into_iter().map(|(uuid, _)| uuid).collect();
        let runs: HashMap<Arc<str>, u32> = uuids.iter().cloned().zip(0..).collect();
        // As members stay members in every look, the last one remembers all earlier ones.
        let remembered = |process| runs.get(before?.run_of(process)?).copied();
        let attribution = Attribution::of(&table, daemon, fosters, &mains, remembered, |stat| {
            let run = marker(stat, &|uuid| runs.contains_key(uuid))?;
            runs.get(run.as_str()).copied()
        });
        let owner = |place: &u32| attribution.owners[*place as usize];
        let mut members: Vec<u32> = (0..).take(table.len()).filter(|place| owner(place).is_some()).collect();
        members.sort_by_key(owner); // stable: ascending by PID within each run
        let firsts = (0..=uuids.len() as u32).map(|run| members.partition_point(|place| owner(place) < Some(run)) as u32).collect();
        Self { table, runs, uuids, members, firsts, attribution, began, took: began.elapsed() }
    }

    /// Every process of the host.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// When the scan began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The whole tree of this run, ascending by PID, zombies included: its main process if that is there, everything below it, its orphans
    /// and everything below those. Empty for a run that was not planted when the scan began.
    pub fn members(&self, uuid: &str) -> Vec<&Stat> {
        let Some(&run) = self.runs.get(uuid) else { return Vec::new() };
        let bounds = self.firsts[run as usize] as usize..self.firsts[run as usize + 1] as usize;
        self.members[bounds].iter().map(|&place| self.table.at(place as usize)).collect()
    }

    /// The UUID of the run that this process belonged to.
    pub fn run_of(&self, process: Identity) -> Option<&str> {
        let place = self.table.place(process.pid).filter(|&place| self.table.at(place).identity() == process)?;
        let run = (*self.attribution.owners.get(place)?)?;
        self.uuids.get(run as usize).map(|uuid| &**uuid)
    }

    /// Children of the daemon that belong to no run: one that has just been started and is not planted yet, or an orphan that nothing tells of.
    pub fn unattributed_orphans(&self) -> impl Iterator<Item = &Stat> {
        self.attribution.unattributed.iter().map(|&place| self.table.at(place as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::is_gone;
    use crate::procfs::testing::{PYTHON, TestProcess, until};
    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;
    use std::process::{Command, Stdio};

    fn pids(members: &[&Stat]) -> BTreeSet<u32> {
        members.iter().map(|stat| stat.pid).collect()
    }

    /// Starts an orphan in its own session, one in a session of its own, and a child that drops its environment; all end with the pipe.
    const BREEDER: &str = "
import os, sys
def orphan(change):
    r, w = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            change()
            os.write(w, b'%d' % os.getpid())
            os.close(w)
            sys.stdin.read()
            os._exit(0)
        os._exit(0)
    os.wait()
    os.close(w)
    return os.read(r, 20).decode()
a = orphan(lambda: None)
b = orphan(os.setsid)
r, w = os.pipe()
c = os.fork()
if c == 0:
    os.setsid()
    os.execve('/bin/cat', ['cat'], {})
print(a, b, c, flush=True)
sys.stdin.read()
";

    #[tokio::test]
    async fn the_whole_tree_is_found_and_stays_found() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let forest = Forest::new();
        let uuid = format!("run-of-{}", std::process::id());
        let mut main = TestProcess::start(
            Command::new("setsid").args([PYTHON, "-c", BREEDER]).env(MARKER, &uuid).stdin(Stdio::piped()).stdout(Stdio::piped()),
        );
        let orphans: Vec<u32> = main.hear().split(' ').map(|pid| pid.parse().unwrap()).collect();
        let c = orphans[2];
        until(|| read_stat(c).unwrap().session == c as i32 && *read_stat(c).unwrap().comm == *b"cat");

        let root = forest.plant(&uuid, read_stat(main.id()).unwrap().identity());
        let mut all: BTreeSet<u32> = orphans.iter().copied().chain([main.id()]).collect();
        let look = forest.look().await.unwrap();
        assert_eq!(pids(&look.members(&uuid)), all);
        assert!(look.members(&uuid).is_sorted_by_key(|stat| stat.pid));
        assert_eq!(look.run_of(root.main()), Some(root.uuid()));
        assert!(look.unattributed_orphans().all(|stat| !all.contains(&stat.pid)));
        assert!(look.members("another").is_empty());

        main.kill();
        assert_eq!(pids(&forest.look().await.unwrap().members(&uuid)), all, "zombies are members");
        let id = main.id();
        let stdin = main.take_stdin();
        main.end();
        all.remove(&id);
        until(|| read_stat(c).unwrap().ppid == std::process::id());
        assert_eq!(pids(&forest.look().await.unwrap().members(&uuid)), all, "a session, a marker and a memory tell of the orphans");

        drop(stdin);
        for orphan in orphans {
            waitpid(Pid::from_raw(orphan as i32), None).unwrap();
            assert!(is_gone(&read_stat(orphan).unwrap_err()));
        }
        assert!(forest.look().await.unwrap().members(&uuid).is_empty());
        drop(root);
        assert!(forest.planted.lock().unwrap().is_empty());
    }

    #[test]
    fn a_root_forgets_only_its_own_plant() {
        let forest = Forest::new();
        let main = Identity { pid: 1, start_time: 0 };
        let (first, second) = (forest.plant("a", main), forest.plant("a", main));
        drop(first);
        assert_eq!(forest.planted.lock().unwrap().len(), 1);
        drop(second);
        assert!(forest.planted.lock().unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn callers_share_scans_that_began_after_their_call() {
        let forest = Forest::new();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let forest = Arc::clone(&forest);
                tokio::spawn(async move {
                    let called = Instant::now();
                    let look = forest.look().await.unwrap();
                    assert!(look.began() >= called);
                    look.began()
                })
            })
            .collect();
        let mut scans = BTreeSet::new();
        for task in tasks {
            scans.insert(task.await.unwrap());
        }
        assert!(scans.len() < 50, "fifty callers at once made {} scans", scans.len());

        let last = forest.look().await.unwrap();
        assert!(Arc::ptr_eq(&forest.look_within(Duration::from_secs(3600)).await.unwrap(), &last));
        assert!(Arc::ptr_eq(&forest.look_within(Duration::MAX).await.unwrap(), &last));
        assert!(!Arc::ptr_eq(&forest.look_within(Duration::ZERO).await.unwrap(), &last));
        assert!(!Arc::ptr_eq(&forest.last().unwrap(), &last));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_scan_to_the_others() {
        let forest = Forest::new();
        let held = Arc::clone(&forest.scanner).lock_owned().await;
        assert!(tokio::time::timeout(Duration::from_millis(1), forest.look()).await.is_err());
        assert!(forest.last().is_none());
        drop(held);
        forest.look().await.unwrap();
    }
}
