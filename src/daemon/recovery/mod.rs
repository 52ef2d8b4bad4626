//! Taking over what an earlier daemon left: its runs are found again, what ended meanwhile is told, and only then is it decided what is to start.
//!
//! Nothing is started twice: a run counts as over only when its recorded process is known to be gone, and a process that bears the daemon's mark
//! though nothing is written of it (the disk was full, the database was damaged) is taken over if its sub-process has no other. Nothing of a former
//! boot is believed.
//!
//! - `decide`: what the records say, purely; `locate`: looking for processes; `unwritten`: runs of which there is no record; here: putting it together.

mod decide;
mod locate;
mod unwritten;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::procfs::{self, Forest, Identity, Owner};
use crate::protocol::Name;
use crate::store::{Recovered, RunRow, Store};
use crate::subprocess::adopt::{Adoption, FoundMain, FoundRun, FoundState};
use crate::subprocess::containment::{Containment, Groups};
use crate::subprocess::restart::Restarts;
use crate::subprocess::strays::Strays;
use crate::subprocess::tree::{self, Whole};
use crate::subprocess::vigil::NotifySocket;
use crate::subprocess::{CommandError, Launch, SubProcessHandle};
use crate::supervisor::SupervisorHandle;
use crate::sys::crash;
use crate::sys::pidfd::ExitStatus;

use super::bridge::Bridge;
use super::exit::StartError;
use decide::{Decision, Known, Remnant, Why, decide};
use locate::{Located, Search, search};
use unwritten::Unwritten;

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
    pub(super) owner: &'a Owner,
    /// Where what is left alone is known.
    pub(super) strays: &'a Strays,
    /// Names for which something is written that could not be registered.
    pub(super) unregistered: BTreeSet<Name>,
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
        let registered = handles.keys().cloned().collect();
        let known = Known { registered, autostart, unregistered: self.unregistered.clone(), boot_id: boot_id.to_owned() };
        let over: HashSet<String> = recovered.history.iter().map(|run| run.uuid.clone()).collect();
        let Decision { current, remnants, orphaned, former_boot, at_rest, mut start } = decide(recovered, &known);

        for row in &former_boot {
            if !over.contains(&row.uuid) {
                self.bridge.remember(decide::lost_by_boot(row, SystemTime::now()));
            }
            drop(self.store.forget(&row.uuid));
        }
        let (owner, groups) = (self.owner.clone(), self.groups.cloned());
        let rows = current.iter().map(|run| &run.row).chain(remnants.iter().map(|remnant| &remnant.row)).chain(&orphaned);
        let rows: Vec<RunRow> = rows.cloned().collect();
        let (found, mut kept) = tokio::task::spawn_blocking(move || {
            let found = search(&rows.iter().collect::<Vec<_>>(), &owner, groups.as_deref(), &mut kept);
            found.map(|found| (found, kept))
        })
        .await
        .map_err(|error| refused(io::Error::other(error)))?
        .map_err(refused)?;
        let Search { located, unknown } = found;
        let mut unwritten = Unwritten::new(unknown, over, boot_id);
        crash::point("recovery-searched");
        let mut located = located.into_iter();
        let mut outcome = Outcome::default();

        let mut taken: BTreeSet<Name> = BTreeSet::new();
        for (run, located) in current.into_iter().zip(&mut located) {
            let Some(handle) = handles.get(&run.row.name) else { continue };
            let restarts = run.restarts.clone();
            // A daemon that could not write any more has started a newer one.
            let newer = match located {
                Located::Held(..) => None,
                Located::Ended(_) | Located::Unseen => self.take_unwritten(&mut unwritten, handle),
            };
            let found = match newer {
                Some(newer) => {
                    let why = if run.recorded.is_some() { Why::Over } else { Why::Superseded };
                    self.end_remnant(Remnant { row: run.row, why }, located);
                    newer
                }
                None => self.found_run(handle, run, located, &mut kept),
            };
            outcome.count(&found.main);
            taken.insert(handle.name().clone());
            adopt(handle, Adoption { restarts, found: FoundState::Run(Box::new(found)) }).await?;
            crash::point("recovery-adopted");
        }
        for (remnant, located) in remnants.into_iter().zip(&mut located) {
            outcome.remnants += u64::from(remnant.why != Why::Over);
            self.end_remnant(remnant, located);
        }
        for (row, located) in orphaned.iter().zip(located) {
            self.leave_alone(row, located);
        }
        for (name, handle) in handles.iter().filter(|(name, _)| !taken.contains(*name)).collect::<Vec<_>>() {
            if let Some(found) = self.take_unwritten(&mut unwritten, handle) {
                outcome.count(&found.main);
                taken.insert(name.clone());
                adopt(handle, Adoption { restarts: Restarts::default(), found: FoundState::Run(Box::new(found)) }).await?;
            }
        }
        self.end_unwritten(unwritten, &handles);
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
            outdated: row.start_sum.is_some_and(|sum| sum != spec.start_sum),
            ending: ending.map(|ending| (ending.by, ending.then_start)),
            notify: notify.flatten(),
            group: self.containment.adopt(&spec, &row.uuid),
            uuid: row.uuid,
        }
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
                tracing::warn!(name = %row.name, uuid = row.uuid, "what is left of a run is ended: an earlier daemon has started a newer one, and could not write down how this one ended")
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
            let lived = fd.is_some();
            let status = status.or_else(|| fd.and_then(|fd| fd.exit_info()));
            if let Some(run) = decide::remnant_record(&remnant, lived, status, SystemTime::now()) {
                bridge.remember(run);
            }
            drop(store.forget(&row.uuid));
        });
    }
}

impl Heirs<'_> {
    /// A run whose sub-process is not there at the moment: what lives of it is nobody's to end. It stays written down, so that a daemon takes it over that
    /// knows its sub-process again.
    fn leave_alone(&self, row: &RunRow, located: Located) {
        match located {
            Located::Held(identity, _) => {
                tracing::warn!(
                    name = %row.name,
                    uuid = row.uuid,
                    pid = identity.pid,
                    "this process was started by an earlier daemon, and its definition is not to be had; it is left alone: end it by hand, or start the \
                     daemon again once its sub-process can be registered"
                );
                self.strays.know(row.name.clone(), identity);
            }
            Located::Ended(status) => self.tell_lost(row, status),
            Located::Unseen => self.tell_lost(row, None),
        }
    }

    fn tell_lost(&self, row: &RunRow, status: Option<ExitStatus>) {
        self.bridge.remember(decide::lost_meanwhile(row, status, SystemTime::now()));
        drop(self.store.forget(&row.uuid));
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
pub(super) fn at(seconds: f64) -> SystemTime {
    Duration::try_from_secs_f64(seconds).ok().and_then(|since| UNIX_EPOCH.checked_add(since)).unwrap_or(UNIX_EPOCH)
}

/// What the monotonic clock showed then, as an instant of this process.
fn instant_of(monotonic: Duration) -> Instant {
    let age = procfs::monotonic().saturating_sub(monotonic);
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}
