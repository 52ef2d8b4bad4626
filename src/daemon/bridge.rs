//! What happens in the rooms below becomes telemetry and history: they do not know it, and it does not know them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::access::Role;
use crate::control::{Auditor, Definitions, Observer, Records, Served};
use crate::output::{self, Watcher};
use crate::protocol::definition::Definition;
use crate::protocol::event;
use crate::protocol::reply::{AuditEntry, PastRun, Replay};
use crate::protocol::{CommandName, Name, StateName, WireError};
use crate::store::{self, History, SetAside, StateDir, Store};
use crate::subprocess::published::unix_seconds;
use crate::subprocess::report::RunRecord;
use crate::subprocess::vigil::Listing;
use crate::subprocess::{Notice, Reporter, SubProcessHandle};
use crate::supervisor::SupervisorHandle;
use crate::sys;
use crate::sys::pidfd::ExitStatus;
use crate::telemetry::{Event, Feed, ProcessSample, Snapshot, Telemetry};

use std::time::{Duration, Instant, SystemTime};

use crate::status::Monitor;

/// Hands everything on to telemetry and history, and answers what they remember.
#[derive(Clone)]
pub struct Bridge {
    /// Log, metrics, and the sequence of events.
    pub telemetry: Telemetry,
    /// The sequence itself, which `telemetry` appends to.
    pub feed: Arc<Feed>,
    /// The runs that have ended, as they are asked for.
    pub history: Arc<dyn History>,
    /// The same, and all else that must outlive the daemon.
    pub store: Store,
}

/// How long an answer waits for what it tells to be written down: a daemon that is killed must not be followed by one that tells otherwise.
const WRITTEN: Duration = Duration::from_secs(1);

/// Resolves once a later daemon will find all that was handed over, or when that cannot be had soon: what is wrong with the disk is told elsewhere, and
/// once it is known nobody waits.
pub fn settled(store: &Store) -> impl Future<Output = ()> + Send + use<> {
    let written = store.settled();
    async move { drop(tokio::time::timeout(WRITTEN, written).await) }
}

/// Tells of a database that was damaged.
pub fn tell_set_aside(telemetry: &Telemetry, set_aside: &SetAside) {
    let SetAside { path, problem, salvaged, unreadable } = set_aside;
    let path = path.display().to_string();
    telemetry.emit(Event::StoreSetAside { path: &path, problem, salvaged: *salvaged, unreadable: *unreadable });
}

/// Tells of the store.
pub struct StoreWatcher {
    /// What is told of it.
    pub telemetry: Telemetry,
    /// Where it is.
    pub state_dir: Arc<StateDir>,
}

impl store::Watcher for StoreWatcher {
    fn notice(&self, notice: &store::Notice<'_>) {
        match *notice {
            store::Notice::Trouble { problem } => self.telemetry.emit(Event::StoreTrouble { problem }),
            store::Notice::Healed { lost_audit, lost_history } => self.telemetry.emit(Event::StoreHealed { lost_audit, lost_history }),
            store::Notice::SetAside { set_aside } => tell_set_aside(&self.telemetry, set_aside),
        }
    }

    fn hold(&self) -> Result<(), String> {
        self.state_dir.hold().map_err(|error| error.to_string())
    }
}

impl Bridge {
    /// Keeps the record of a run that is over.
    pub fn remember(&self, run: PastRun) {
        self.store.end(&run);
        self.history.append(run);
    }
}

impl Reporter for Bridge {
    fn report(&self, notice: &Notice<'_>) {
        match *notice {
            Notice::StateChanged { name, from, to, pid, status, cause, restarts } => {
                let (returncode, signal) = (status.map(ExitStatus::returncode), status.and_then(ExitStatus::signal));
                self.telemetry.emit(Event::StateChanged { name, from, to, pid, returncode, signal, cause });
                if to == StateName::Fatal {
                    self.telemetry.emit(Event::GaveUp { name, cause, restarts });
                }
            }
            Notice::SpawnFailed { name, failure } => {
                self.telemetry.emit(Event::SpawnFailed {
                    name,
                    errno_name: &sys::errno_name(failure.errno),
                    message: &failure.to_string(),
                });
            }
            Notice::RunEnded { name, record } => {
                self.remember(past_run(name, record));
            }
            Notice::RestartScheduled { name, attempt, delay } => {
                self.telemetry.emit(Event::Restarting { name, attempt: attempt.into(), delay })
            }
            Notice::Listed { name, service_type, listing } => {
                let Listing { id, health, problem, .. } = listing;
                self.telemetry.emit(Event::Listed { name, service_type, id: id.as_deref(), health: *health, problem: problem.as_deref() });
            }
            Notice::ScheduleMissed { name, times, last, why } => {
                self.telemetry.emit(Event::ScheduleMissed { name, times, last, why: why.as_str() });
            }
            Notice::OrphanReaped { pid, status } => self.telemetry.emit(Event::OrphanReaped { pid, status: status.returncode() }),
        }
    }
}

/// A run as it is remembered.
fn past_run(name: &Name, record: &RunRecord) -> PastRun {
    let RunRecord { uuid, pid, args, started_at, ended_at, lived, status, cause, started_by, ended_by, message } = record;
    PastRun {
        name: name.clone(),
        uuid: uuid.clone(),
        pid: *pid,
        args: args.clone(),
        started_at: unix_seconds(*started_at),
        ended_at: unix_seconds(*ended_at),
        returncode: status.map(ExitStatus::returncode),
        signal: status.and_then(ExitStatus::signal),
        cause: *cause,
        duration: lived.as_secs_f64(),
        core_dump: matches!(status, Some(ExitStatus::Signalled { core: true, .. })),
        started_by: *started_by,
        ended_by: *ended_by,
        message: message.clone(),
    }
}

impl Definitions for Bridge {
    fn define(&self, name: &Name, definition: &Definition) -> BoxFuture<'static, ()> {
        let committed = self.store.define(name, definition);
        // What cannot be written is told by the store, and written once it can be.
        async move { drop(committed.await) }.boxed()
    }

    fn undefine(&self, name: &Name) -> BoxFuture<'static, ()> {
        let committed = self.store.undefine(name);
        async move { drop(committed.await) }.boxed()
    }

    fn trouble(&self) -> Option<String> {
        self.store.problem()
    }
}

impl Records for Bridge {
    fn events(&self, since: u64, daemon: Option<&str>, limit: usize) -> Replay<Arc<event::Event>> {
        self.feed.replay(since, daemon, limit)
    }

    fn history(&self, name: Option<&Name>, limit: usize) -> BoxFuture<'static, Vec<Arc<PastRun>>> {
        let runs = self.history.query(name, limit);
        let written = settled(&self.store);
        async move {
            written.await;
            runs
        }
        .boxed()
    }
}

impl Auditor for Bridge {
    fn audit(&self, entry: AuditEntry) {
        let AuditEntry { time: _, principal, endpoint, peer, command, target, request_id, outcome, message } = &entry;
        let (peer, target, request_id) = (peer.as_deref(), target.as_deref(), request_id.as_deref());
        // What a client says is shown as it would be written in a program: no line of it looks like one of ours.
        tracing::info!(target: "procman::audit", ?principal, endpoint, peer, command, target, ?request_id, outcome, ?message, "asked for a change");
        self.store.audit(&entry);
    }

    fn entries(&self, name: Option<&Name>, limit: usize) -> Result<Vec<AuditEntry>, String> {
        self.store.audit_log(name, limit).map_err(|error| error.to_string())
    }
}

impl Bridge {
    /// Notes what a signal had done: who may send one is nobody less than an administrator, and the kernel does not say who it was.
    pub fn audit_signal(&self, command: CommandName, error: Option<&WireError>) {
        self.audit(AuditEntry {
            time: unix_seconds(SystemTime::now()),
            principal: Role::Admin.as_str().to_owned(),
            endpoint: "signal".to_owned(),
            peer: None,
            command: command.to_string(),
            target: None,
            request_id: None,
            outcome: error.map_or("ok", |error| error.code.as_str()).to_owned(),
            message: error.map(|error| error.message.clone()),
        });
    }
}

impl Watcher for Bridge {
    fn notice(&self, notice: &output::Notice<'_>) {
        use output::Notice;
        match *notice {
            Notice::Rotated { name, stream, parts, bytes } => {
                self.telemetry.emit(Event::LogRotated { name, stream: stream.as_str(), parts: parts as u64, bytes });
            }
            Notice::Dropped { name, stream, bytes } => self.telemetry.emit(Event::LogDropped { name, stream: stream.as_str(), bytes }),
            Notice::Problem { name, stream, problem } => self.telemetry.emit(Event::LogProblem { name, stream: stream.as_str(), problem }),
            Notice::Disk { logs, full, available } => {
                self.telemetry.emit(Event::LogDisk { directory: &logs.display().to_string(), full, available });
            }
        }
    }
}

impl Observer for Bridge {
    fn served(&self, served: &Served<'_>) {
        let Served { command, error, duration, request_id } = *served;
        self.telemetry.emit(Event::RequestServed { command, error, duration, request_id });
    }
}

/// What a scrape shows: what was last published and last seen. Reads no file.
pub fn snapshot(supervisor: &SupervisorHandle, monitor: &Arc<Monitor>) -> Snapshot {
    let now = Instant::now();
    let sample = |handle: SubProcessHandle| {
        let published = handle.published();
        ProcessSample {
            view: published.view(now),
            status: published.watched().and_then(crate::status::Watched::latest),
            starts: published.starts,
            exits: published.exits.iter().map(|(cause, count)| (*cause, *count)).collect(),
        }
    };
    Snapshot { daemon: monitor.daemon_latest(), processes: supervisor.all().into_iter().map(sample).collect() }
}
