//! Runs of which nothing is written, though their processes bear the daemon's mark or are in one of its groups: the disk was full, or the database was lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::unistd::geteuid;

use crate::procfs::{self, Identity, Marked, Stat, read_real_user};
use crate::protocol::{Name, Origin, Signal};
use crate::store::RunRow;
use crate::subprocess::account::Account;
use crate::subprocess::adopt::{FoundMain, FoundRun};
use crate::subprocess::tree::{self, Whole, hold};
use crate::subprocess::vigil::NotifySocket;
use crate::subprocess::{Launch, Spec, SubProcessHandle};

use super::locate::main_of;
use super::{Heirs, REMNANT_TIMEOUT, decide};

/// All of them.
pub(super) struct Unwritten {
    /// By UUID.
    runs: BTreeMap<String, Vec<Marked>>,
    /// Runs whose end is recorded.
    over: HashSet<String>,
    boot_id: String,
}

impl Unwritten {
    pub(super) fn new(runs: BTreeMap<String, Vec<Marked>>, over: HashSet<String>, boot_id: &str) -> Self {
        Self { runs, over, boot_id: boot_id.to_owned() }
    }

    /// The newest run of this sub-process whose main process lives, and that process.
    fn newest_of(&self, spec: &Spec) -> Option<(String, Stat)> {
        let of_this = self.runs.iter().filter(|(uuid, _)| !self.over.contains(*uuid));
        let mains = of_this.filter_map(|(uuid, processes)| Some((uuid.clone(), main(processes, spec)?.clone())));
        mains.max_by_key(|(uuid, stat)| (stat.start_time, Reverse(uuid.clone())))
    }
}

/// The main process among these, where they can be a run of this definition.
fn main<'p>(processes: &'p [Marked], spec: &Spec) -> Option<&'p Stat> {
    if processes.iter().any(|process| process.name != spec.name.as_str() || process.is_program) {
        return None;
    }
    let main = main_of(processes)?;
    let marked = processes.iter().find(|process| process.stat.pid == main.pid)?;
    // Only a service that says so itself has another main process than the one that was started.
    let is_main = processes.iter().any(|process| process.main == main.pid) || NotifySocket::is_wanted(spec);
    (is_main && is_plausible(marked, spec)).then_some(main)
}

/// Whether the daemon can have started this: anybody can put a mark into the environment of his own processes, but nobody can put those into a group of
/// the daemon's, or make them another user's.
fn is_plausible(process: &Marked, spec: &Spec) -> bool {
    if process.is_contained {
        return true;
    }
    let of_run = Account::of(spec).ok().map(|account| account.credentials.map_or(geteuid().as_raw(), |credentials| credentials.uid));
    // One that takes another user's rights by itself began with the daemon's.
    read_real_user(process.stat.pid).is_ok_and(|user| Some(user) == of_run || user == geteuid().as_raw())
}

impl Heirs<'_> {
    /// Takes over the newest run of this sub-process, if there is one whose main process lives.
    pub(super) fn take_unwritten(&self, unwritten: &mut Unwritten, handle: &SubProcessHandle) -> Option<FoundRun> {
        let spec = handle.published().spec.clone();
        let (uuid, main) = unwritten.newest_of(&spec)?;
        let (identity, fd) = (main.identity(), hold(main.identity()).ok()??);
        unwritten.runs.remove(&uuid);
        tracing::warn!(name = %spec.name, uuid, pid = identity.pid, "nothing is written of this run; it is known by its mark or its control group");
        let age = procfs::since_boot().saturating_sub(Duration::from_secs_f64(identity.start_time as f64 / procfs::clock_ticks() as f64));
        let started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        let started_at = SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH);
        drop(self.store.begin(RunRow {
            uuid: uuid.clone(),
            name: spec.name.clone(),
            args: Vec::new(),
            env: BTreeMap::new(),
            started_by: Origin::Execute,
            boot_id: unwritten.boot_id.clone(),
            intended_at: crate::subprocess::published::unix_seconds(started_at),
            monotonic: procfs::nanoseconds_at(started),
            start_sum: None,
            process: None,
            ready: true,
            ending: None,
        }));
        self.store.change(&uuid, decide::started(identity, started, started_at));
        let notify = NotifySocket::is_wanted(&spec).then(|| NotifySocket::rebind(self.runtime_dir, &uuid).ok()).flatten();
        Some(FoundRun {
            launch: Launch::default(),
            origin: Origin::Execute,
            identity,
            main: FoundMain::Held(fd),
            started,
            started_at,
            ready: true,
            outdated: false,
            ending: None,
            notify,
            group: self.containment.adopt(&spec, &uuid),
            uuid,
        })
    }

    /// What nobody has taken over. What the daemon itself asked of a sub-process is killed; what is one too many, of an unknown sub-process, or of another
    /// user, is left alone and told: it may be somebody's only process. What is left of a run that is over, or whose main process has ended, is ended, as
    /// it always is.
    pub(super) fn end_unwritten(&self, unwritten: Unwritten, handles: &BTreeMap<Name, SubProcessHandle>) {
        for (uuid, processes) in unwritten.runs {
            let Some(name) = processes.first().map(|process| process.name.clone()) else { continue };
            if processes.iter().any(|process| process.is_program) {
                for process in &processes {
                    if let Ok(Some(fd)) = hold(process.stat.identity()) {
                        drop(fd.send_signal(Signal::KILL.number()));
                    }
                }
                continue;
            }
            let handle = name.parse().ok().and_then(|name: Name| handles.get(&name));
            let is_ours = |spec: &Spec| processes.iter().all(|process| is_plausible(process, spec));
            let is_left_over = handle.is_some_and(|handle| {
                let spec = &handle.published().spec;
                main(&processes, spec).is_none() && is_ours(spec)
            });
            if unwritten.over.contains(&uuid) || is_left_over {
                self.end_left_over(&name, &uuid);
                continue;
            }
            if let Ok(name) = name.parse::<Name>() {
                // Of another user's nobody can say that they are of this sub-process.
                let of_us = |process: &&Marked| {
                    process.is_contained || read_real_user(process.stat.pid).is_ok_and(|user| user == geteuid().as_raw())
                };
                processes.iter().filter(of_us).for_each(|process| self.strays.know(name.clone(), process.stat.identity()));
            }
            let pids: Vec<u32> = processes.iter().map(|process| process.stat.pid).collect();
            tracing::warn!(
                name,
                uuid,
                ?pids,
                "these processes bear the mark of an earlier daemon, and nothing is written of them; they are left alone: end them by hand, or register \
                 their sub-process and start the daemon again"
            );
        }
    }

    /// Ends what a run that is over has left behind, beside everything else.
    fn end_left_over(&self, name: &str, uuid: &str) {
        tracing::warn!(name, uuid, "processes of a run that is over are ended");
        let (forest, name, uuid) = (self.forest.clone(), name.to_owned(), uuid.to_owned());
        let group = self.groups.and_then(|groups| groups.adopt(&name, &uuid, &Default::default()).ok()).map(|(group, _)| group);
        tokio::spawn(async move {
            let _root = forest.adopt(&uuid, Identity { pid: 0, start_time: 0 });
            let report = tree::end(forest, Whole { uuid, except: None, group: group.map(Arc::new) }, REMNANT_TIMEOUT).await;
            if !report.survivors.is_empty() {
                tracing::error!(name, pids = ?report.survivors, "these outlived SIGKILL");
            }
        });
    }
}
