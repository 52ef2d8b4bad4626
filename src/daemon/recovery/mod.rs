//! Taking over what an earlier daemon left: its runs are found again, what ended meanwhile is told, and only then is it decided what is to start.
//!
//! Nothing is started twice: a run counts as over only when its recorded process is known to be gone, and a process that bears the daemon's mark
//! though nothing is written of it (the disk was full, the database was damaged) is taken over if its sub-process has no other. Nothing of a former
//! boot is believed.
//!
//! - `decide`: what the records say, purely; `locate`: looking for processes; here: putting both together.

mod decide;
mod locate;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::procfs::{self, Forest, Identity, Marked, Stat};
use crate::protocol::{Name, Origin, Signal};
use crate::store::{Recovered, RunRow, Store};
use crate::subprocess::adopt::{Adoption, FoundMain, FoundRun, FoundState};
use crate::subprocess::containment::{Containment, Groups};
use crate::subprocess::restart::Restarts;
use crate::subprocess::tree::{self, Whole, hold};
use crate::subprocess::vigil::NotifySocket;
use crate::subprocess::{CommandError, Launch, SubProcessHandle};
use crate::supervisor::SupervisorHandle;
use crate::sys::crash;

use super::bridge::Bridge;
use super::exit::StartError;
use decide::{Decision, Known, Remnant, Why, decide};
use locate::{Located, Search, main_of, search};

/// What the name of a kept descriptor begins with that is the socket of a run; one that is its process has the UUID alone.
pub(super) const KEPT_NOTIFY: &str = "notify.";

/// How long what nobody registers any more may take to end.
const REMNANT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where things are taken over into.
pub(super) struct Heirs<'a> {
    pub(super) supervisor: &'a SupervisorHandle,
    pub(super) containment: &'a Containment,
    pub(super) groups: Option<&'a Arc<Groups>>,
    pub(super) forest: &'a Arc<Forest>,
    pub(super) store: &'a Store,
    /// Where runs that are over are remembered.
    pub(super) bridge: &'a Bridge,
    pub(super) runtime_dir: &'a Path,
    /// Tells this daemon's processes from another daemon's.
    pub(super) id: &'a str,
}

/// How it came out, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Runs whose process lives.
    pub(super) adopted: u64,
    /// Runs that ended meanwhile, with an exit status that somebody knew.
    pub(super) ended: u64,
    /// Runs that ended meanwhile, and nobody knows how.
    pub(super) lost: u64,
    /// Runs that nobody has a definition for any more; they are quit.
    pub(super) remnants: u64,
    /// How long it took.
    pub(super) took: Duration,
}

impl Heirs<'_> {
    /// Takes everything over. Returns what is to be started now.
    ///
    /// # Errors
    /// It cannot be told what runs, or a living process cannot be watched: then nothing must be started, and everything that lives is left as it is.
    pub(super) async fn recover(
        &self,
        recovered: Recovered,
        mut kept: HashMap<String, OwnedFd>,
        boot_id: &str,
    ) -> Result<(Vec<SubProcessHandle>, Outcome), StartError> {
        let began = Instant::now();
        let refused = |source| StartError::System { what: "cannot find out what an earlier daemon left running", source };
        let handles: BTreeMap<Name, SubProcessHandle> =
            self.supervisor.all().into_iter().map(|handle| (handle.name().clone(), handle)).collect();
        let autostart = handles.iter().filter(|(_, handle)| handle.published().spec.autostart).map(|(name, _)| name.clone()).collect();
        let known = Known { registered: handles.keys().cloned().collect(), autostart, boot_id: boot_id.to_owned() };
        let over: HashSet<String> = recovered.history.iter().map(|run| run.uuid.clone()).collect();
        let Decision { current, remnants, former_boot, at_rest, mut start } = decide(recovered, &known);

        for row in &former_boot {
            self.bridge.remember(decide::lost_by_boot(row, SystemTime::now()));
            drop(self.store.forget(&row.uuid));
        }
        let id = self.id.to_owned();
        let rows: Vec<RunRow> = current.iter().map(|run| &run.row).chain(remnants.iter().map(|remnant| &remnant.row)).cloned().collect();
        let (found, mut kept) = tokio::task::spawn_blocking(move || {
            let found = search(&rows.iter().collect::<Vec<_>>(), &id, &mut kept);
            found.map(|found| (found, kept))
        })
        .await
        .map_err(|error| refused(io::Error::other(error)))?
        .map_err(refused)?;
        let Search { located, unknown } = found;
        crash::point("recovery-searched");
        let mut located = located.into_iter();
        let mut outcome = Outcome::default();

        let mut taken: BTreeSet<Name> = BTreeSet::new();
        for (run, located) in current.into_iter().zip(&mut located) {
            let Some(handle) = handles.get(&run.row.name) else { continue };
            let restarts = run.restarts.clone();
            let found = self.found_run(handle, run, located, &mut kept);
            outcome.count(&found.main);
            taken.insert(handle.name().clone());
            adopt(handle, Adoption { restarts, found: FoundState::Run(Box::new(found)) }).await?;
            crash::point("recovery-adopted");
        }
        for (remnant, located) in remnants.into_iter().zip(located) {
            outcome.remnants += u64::from(remnant.why != Why::Over);
            self.end_remnant(remnant, located);
        }
        for (uuid, processes) in unknown {
            if let Some((handle, found)) = self.found_unwritten(&uuid, &processes, over.contains(&uuid), &handles, &taken, boot_id) {
                outcome.count(&found.main);
                taken.insert(handle.name().clone());
                adopt(handle, Adoption { restarts: Restarts::default(), found: FoundState::Run(Box::new(found)) }).await?;
            }
        }
        // Behind the unwritten ones: a sub-process is taken over once.
        for (name, rest) in at_rest {
            if let Some(handle) = handles.get(&name).filter(|_| !taken.contains(&name)) {
                // That it is to be started is written down before anything else can be asked of this daemon, which may be killed before it comes to that.
                let found = FoundState::AtRest { state: rest.state, last: rest.last, start: start.contains(&name) };
                adopt(handle, Adoption { restarts: rest.restarts, found }).await?;
            }
        }
        start.retain(|name| !taken.contains(name));
        outcome.took = began.elapsed();
        Ok((start.iter().filter_map(|name| handles.get(name).cloned()).collect(), outcome))
    }

    /// Puts together what is written of a run and what was found of it.
    fn found_run(
        &self,
        handle: &SubProcessHandle,
        run: decide::CurrentRun,
        located: Located,
        kept: &mut HashMap<String, OwnedFd>,
    ) -> FoundRun {
        let decide::CurrentRun { row, recorded, ending, .. } = run;
        let spec = handle.published().spec.clone();
        let (started, started_at) = row.process.as_ref().map_or_else(
            || (Instant::now(), at(row.intended_at)),
            |process| (instant_of(Duration::from_nanos(process.monotonic)), at(process.started_at)),
        );
        let written = row.process.as_ref().map(|process| Identity { pid: process.pid, start_time: process.start_time });
        let none = Identity { pid: 0, start_time: 0 };
        let (identity, main) = match (recorded, located) {
            (Some((end, message)), Located::Held(..) | Located::Ended(_) | Located::Unseen) => {
                (written.unwrap_or(none), FoundMain::Recorded(end, message))
            }
            (None, Located::Held(identity, fd)) => {
                if row.process.is_none() {
                    self.store.change(&row.uuid, decide::started(identity, started, started_at));
                }
                (identity, FoundMain::Held(fd))
            }
            (None, Located::Ended(status)) => (written.unwrap_or(none), FoundMain::Ended(status)),
            (None, Located::Unseen) => (none, FoundMain::Ended(None)),
        };
        let is_heard = matches!(main, FoundMain::Held(_)) && NotifySocket::is_wanted(&spec);
        if !is_heard {
            NotifySocket::remove(self.runtime_dir, &row.uuid);
        }
        let notify = is_heard.then(|| {
            let kept = kept.remove(&format!("{KEPT_NOTIFY}{}", row.uuid));
            match kept {
                Some(kept) => NotifySocket::resume(self.runtime_dir, &row.uuid, kept),
                None => NotifySocket::rebind(self.runtime_dir, &row.uuid),
            }
            .inspect_err(|error| tracing::warn!(name = %row.name, %error, "what it says of itself cannot be heard any more"))
            .ok()
        });
        FoundRun {
            launch: Launch { args: row.args, env: row.env, ..Launch::default() },
            origin: row.started_by,
            identity,
            main,
            started,
            started_at,
            ready: row.ready,
            ending: ending.map(|ending| (ending.by, ending.then_start)),
            notify: notify.flatten(),
            group: self.containment.adopt(&spec, &row.uuid),
            uuid: row.uuid,
        }
    }

    /// A run of which nothing is written, though its processes bear the daemon's mark. What the daemon itself asked of a sub-process is killed; what is
    /// one too many, or of an unknown sub-process, is left alone and told: it may be somebody's only process. What is left of a run whose main process
    /// has ended is ended, as it always is.
    fn found_unwritten<'h>(
        &self,
        uuid: &str,
        processes: &[Marked],
        is_over: bool,
        handles: &'h BTreeMap<Name, SubProcessHandle>,
        taken: &BTreeSet<Name>,
        boot_id: &str,
    ) -> Option<(&'h SubProcessHandle, FoundRun)> {
        let name = &processes.first()?.name;
        if processes.iter().any(|process| process.is_program) {
            for process in processes {
                if let Ok(Some(fd)) = hold(process.stat.identity()) {
                    drop(fd.send_signal(Signal::KILL.number()));
                }
            }
            return None;
        }
        let free = name.parse().ok().filter(|name| !taken.contains(name));
        let handle = free.and_then(|name: Name| handles.get(&name));
        let is_main = |stat: &&Stat| {
            // Only a service that says so itself has another main process than the one that was started.
            processes.iter().any(|process| process.main == stat.pid)
                || handle.is_some_and(|handle| NotifySocket::is_wanted(&handle.published().spec))
        };
        let main = main_of(processes).filter(is_main);
        if is_over || handle.is_some() && main.is_none() {
            self.end_left_over(name, uuid);
            return None;
        }
        let held = main.and_then(|stat| Some((stat.identity(), hold(stat.identity()).ok()??)));
        let (Some(handle), Some((identity, fd))) = (handle, held) else {
            let pids: Vec<u32> = processes.iter().map(|process| process.stat.pid).collect();
            tracing::warn!(
                name,
                uuid,
                ?pids,
                "these processes were started by an earlier daemon, and nothing is written of them; they are left alone: end them by hand, or register \
                 their sub-process and start the daemon again"
            );
            return None;
        };
        tracing::warn!(name, uuid, pid = identity.pid, "nothing is written of this run; it is known by the mark that its process bears");
        let spec = handle.published().spec.clone();
        let age = procfs::since_boot().saturating_sub(Duration::from_secs_f64(identity.start_time as f64 / procfs::clock_ticks() as f64));
        let started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        let started_at = SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH);
        let intended_at = crate::subprocess::published::unix_seconds(started_at);
        drop(self.store.begin(RunRow {
            uuid: uuid.to_owned(),
            name: spec.name.clone(),
            args: Vec::new(),
            env: BTreeMap::new(),
            started_by: Origin::Execute,
            boot_id: boot_id.to_owned(),
            intended_at,
            monotonic: procfs::nanoseconds_at(started),
            process: None,
            ready: true,
            ending: None,
        }));
        self.store.change(uuid, decide::started(identity, started, started_at));
        let notify = NotifySocket::is_wanted(&spec).then(|| NotifySocket::rebind(self.runtime_dir, uuid).ok()).flatten();
        let found = FoundRun {
            uuid: uuid.to_owned(),
            launch: Launch::default(),
            origin: Origin::Execute,
            identity,
            main: FoundMain::Held(fd),
            started,
            started_at,
            ready: true,
            ending: None,
            notify,
            group: self.containment.adopt(&spec, uuid),
        };
        Some((handle, found))
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

    /// Ends a run that no sub-process is there for any more, beside everything else.
    fn end_remnant(&self, mut remnant: Remnant, located: Located) {
        let row = &mut remnant.row;
        if let (None, Located::Held(identity, _)) = (&row.process, &located) {
            row.process = Some(decide::process_row(*identity, Instant::now(), at(row.intended_at)));
        }
        let (forest, store, bridge) = (self.forest.clone(), self.store.clone(), self.bridge.clone());
        let group =
            self.groups.and_then(|groups| groups.adopt(row.name.as_str(), &row.uuid, &Default::default()).ok()).map(|(group, _)| group);
        match remnant.why {
            // Its row is taken away once nothing is left of it.
            Why::Over => tracing::debug!(name = %row.name, uuid = row.uuid, "a run of an earlier daemon is over, what it left is ended"),
            Why::Superseded => {
                tracing::warn!(name = %row.name, uuid = row.uuid, "an earlier daemon has started a newer run beside this one, it is quit")
            }
            Why::Unregistered => {
                tracing::warn!(name = %row.name, uuid = row.uuid, "a run of an earlier daemon has no definition any more, it is quit")
            }
        }
        tokio::spawn(async move {
            let (identity, fd, status) = match located {
                Located::Held(identity, fd) => (identity, Some(fd), None),
                Located::Ended(status) => (Identity { pid: 0, start_time: 0 }, None, status),
                Located::Unseen => (Identity { pid: 0, start_time: 0 }, None, None),
            };
            let row = &remnant.row;
            let _root = forest.adopt(&row.uuid, identity);
            let whole = Whole { uuid: row.uuid.clone(), except: None, group: group.map(Arc::new) };
            let report = tree::end(forest, whole, REMNANT_TIMEOUT).await;
            if !report.survivors.is_empty() {
                tracing::error!(name = %row.name, pids = ?report.survivors, "these outlived SIGKILL");
                return; // the next daemon tries again
            }
            let status = status.or_else(|| fd.and_then(|fd| fd.exit_info()));
            if let Some(run) = decide::quit_remnant(&remnant, status, SystemTime::now()) {
                bridge.remember(run);
            }
            drop(store.forget(&row.uuid));
        });
    }
}

impl Outcome {
    fn count(&mut self, main: &FoundMain) {
        match main {
            FoundMain::Held(_) => self.adopted += 1,
            FoundMain::Ended(Some(_)) | FoundMain::Recorded(..) => self.ended += 1,
            FoundMain::Ended(None) => self.lost += 1,
        }
    }
}

async fn adopt(handle: &SubProcessHandle, adoption: Adoption) -> Result<(), StartError> {
    let adopted = handle.adopt(adoption).await;
    adopted.map_err(|error| {
        let source = match error {
            CommandError::System(source) => source,
            error @ (CommandError::Gone
            | CommandError::Busy
            | CommandError::AlreadyRunning { .. }
            | CommandError::NotRunning
            | CommandError::SpawnFailed(_)
            | CommandError::Required(_)
            | CommandError::Overtaken
            | CommandError::Survivors(_)) => io::Error::other(error),
        };
        StartError::System { what: "cannot watch a process of an earlier daemon", source }
    })
}

/// Unix seconds of a record; a date that no clock has is the oldest one.
fn at(seconds: f64) -> SystemTime {
    Duration::try_from_secs_f64(seconds).ok().and_then(|since| UNIX_EPOCH.checked_add(since)).unwrap_or(UNIX_EPOCH)
}

/// What the monotonic clock showed then, as an instant of this process.
fn instant_of(monotonic: Duration) -> Instant {
    let age = procfs::monotonic().saturating_sub(monotonic);
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}
