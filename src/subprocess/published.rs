//! What everybody may see of a sub-process without asking it: the last snapshot that its actor published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::protocol::reply::{CgseEntry, View};
use crate::protocol::{Cause, RegistryHealth, StateName, Wanted};
use crate::status::Watched;

use super::machine::End;
use super::spec::Spec;
use super::vigil::Listing;

/// A snapshot. Cheap to clone as a whole behind its `Arc`.
#[derive(Clone, Debug)]
pub struct Published {
    /// The definition.
    pub spec: Arc<Spec>,
    /// Where it is.
    pub state: StateName,
    /// What it is wanted to do.
    pub wanted: Wanted,
    /// The last run.
    pub run: Option<PublishedRun>,
    /// How the last run ended; `None` while it lives.
    pub end: Option<End>,
    /// What there is to say of the last end in words.
    pub message: Option<String>,
    /// What runs was started with another definition than there is now, while no daemon lived.
    pub outdated: bool,
    /// It said that it reads its configuration again, and not yet that it has.
    pub reloading: bool,
    /// What its health check says; `None` without one.
    pub health: Option<Health>,
    /// How it is listed in the registry of CGSE, once that was looked at in this run.
    pub listing: Option<Listing>,
    /// Starts that the policy made since the last that somebody asked for.
    pub restarts: u64,
    /// When the next try is due.
    pub next_start_at: Option<SystemTime>,
    /// When it is started by the clock.
    pub next_scheduled_at: Option<SystemTime>,
    /// Starts altogether, those that failed included.
    pub starts: u64,
    /// Ends altogether, by cause.
    pub exits: BTreeMap<Cause, u64>,
    /// What is wrong with its logs, where it has any.
    pub log: Option<crate::output::Health>,
}

/// What the health check of a run says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    Unknown,
    /// It is well.
    Passing,
    /// The last so many tries failed.
    Failing(u32),
}

impl Health {
    /// As the protocol says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Passing => "passing",
            Self::Failing(_) => "failing",
        }
    }
}

/// The last run, or the present one.
#[derive(Clone, Debug)]
pub struct PublishedRun {
    /// Its version-1 UUID.
    pub uuid: String,
    /// Its process, until that is reaped.
    pub pid: Option<u32>,
    /// On the monotonic clock.
    pub started: Instant,
    /// On the wall clock.
    pub started_at: SystemTime,
    /// Its place in the order of all starts of the daemon.
    pub number: u64,
    /// Its living status, until it is reaped.
    pub watched: Option<Watched>,
}

/// Unix seconds; 0 for a clock before 1970.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Published {
    /// The process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.run.as_ref().and_then(|run| run.pid)
    }

    /// Its living status, while there is a process.
    pub fn watched(&self) -> Option<&Watched> {
        self.run.as_ref().and_then(|run| run.watched.as_ref())
    }

    /// Whether it runs: there is a process, and it has not ended.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Exit code of the last run, −N when signal N ended it.
    pub fn returncode(&self) -> Option<i32> {
        self.end.and_then(|end| end.status).map(crate::sys::pidfd::ExitStatus::returncode)
    }

    /// The signal that ended the last run.
    pub fn signal(&self) -> Option<i32> {
        self.end.and_then(|end| end.status).and_then(crate::sys::pidfd::ExitStatus::signal)
    }

    fn cgse_entry(&self) -> Option<CgseEntry> {
        let service_type = self.spec.cgse_service_type.clone()?;
        let listing = self.listing.as_ref();
        Some(CgseEntry {
            service_type,
            id: listing.and_then(|listing| listing.id.clone()),
            health: listing.map_or(RegistryHealth::Unknown, |listing| listing.health),
            since: listing.map(|listing| unix_seconds(listing.since)),
            problem: listing.and_then(|listing| listing.problem.clone()),
        })
    }

    /// As the protocol shows it.
    pub fn view(&self, now: Instant) -> View {
        let spec = &self.spec;
        let run = self.run.as_ref();
        View {
            name: spec.name.clone(),
            group: spec.group.clone(),
            state: self.state,
            wanted: self.wanted,
            pid: self.pid(),
            uuid: run.map(|run| run.uuid.clone()),
            started_at: run.map(|run| unix_seconds(run.started_at)),
            uptime: run.filter(|run| run.pid.is_some()).map(|run| now.saturating_duration_since(run.started).as_secs_f64()),
            ready: self.state == StateName::Running && !self.reloading,
            health: self.health.map(|health| health.as_str().to_owned()),
            returncode: self.returncode(),
            signal: self.signal(),
            cause: self.end.map(|end| end.cause),
            restarts: self.restarts,
            // In back-off the policy's next try is what counts.
            next_start_at: self.next_start_at.or(self.next_scheduled_at).map(unix_seconds),
            cmd: spec.cmd.clone(),
            args: spec.args.clone(),
            shell: spec.shell,
            cwd: spec.cwd.as_ref().map(|cwd| cwd.display().to_string()),
            stdout: spec.stdout.to_string(),
            stderr: spec.stderr.to_string(),
            message: self.message.clone(),
            cgse: self.cgse_entry(),
            log_problem: self.log.as_ref().and_then(crate::output::Health::problem),
        }
    }
}
