//! What happens in the rooms below becomes telemetry: they do not know it, and it does not know them.

use std::sync::Arc;

use crate::control::{Observer, Served};
use crate::protocol::StateName;
use crate::subprocess::{Notice, Reporter, SubProcessHandle};
use crate::supervisor::SupervisorHandle;
use crate::sys;
use crate::telemetry::{Event, ProcessSample, Snapshot, Telemetry};

use std::time::Instant;

use crate::status::Monitor;

/// Hands everything on to telemetry.
#[derive(Clone)]
pub struct Bridge(pub Telemetry);

impl Reporter for Bridge {
    fn report(&self, notice: &Notice<'_>) {
        match *notice {
            Notice::StateChanged { name, from, to, pid, status, cause, restarts } => {
                let (returncode, signal) =
                    (status.map(sys::pidfd::ExitStatus::returncode), status.and_then(sys::pidfd::ExitStatus::signal));
                self.0.emit(Event::StateChanged { name, from, to, pid, returncode, signal, cause });
                if to == StateName::Fatal {
                    self.0.emit(Event::GaveUp { name, cause, restarts });
                }
            }
            Notice::SpawnFailed { name, failure } => {
                self.0.emit(Event::SpawnFailed { name, errno_name: &sys::errno_name(failure.errno), message: &failure.to_string() });
            }
            Notice::RunEnded { name: _, record: _ } => {}
            Notice::RestartScheduled { name, attempt, delay } => self.0.emit(Event::Restarting { name, attempt: attempt.into(), delay }),
            Notice::ScheduleMissed { name, times, last, why } => {
                self.0.emit(Event::ScheduleMissed { name, times, last, why: why.as_str() });
            }
            Notice::OrphanReaped { pid, status } => self.0.emit(Event::OrphanReaped { pid, status: status.returncode() }),
        }
    }
}

impl Observer for Bridge {
    fn served(&self, served: &Served<'_>) {
        let Served { command, error, duration, request_id } = *served;
        self.0.emit(Event::RequestServed { command, error, duration, request_id });
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
