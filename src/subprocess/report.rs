//! What a sub-process tells the rest of the daemon, without knowing who listens.

use std::time::{Duration, SystemTime};

use crate::protocol::{Cause, EndedBy, Name, Origin, StateName};
use crate::sys::pidfd::ExitStatus;

use super::spawn::SpawnFailure;
use super::vigil::Listing;

/// A run that is over, or that could not begin.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// Its version-1 UUID.
    pub uuid: String,
    /// What its process was; `None` when it could not be started.
    pub pid: Option<u32>,
    /// Arguments of this run only.
    pub args: Vec<String>,
    /// On the wall clock.
    pub started_at: SystemTime,
    /// On the wall clock.
    pub ended_at: SystemTime,
    /// How long it lived, on the monotonic clock.
    pub lived: Duration,
    /// Exit code or signal; `None` when it could not be started, or nobody can tell.
    pub status: Option<ExitStatus>,
    /// Why it ended.
    pub cause: Cause,
    /// Who had it started.
    pub started_by: Origin,
    /// Who had it ended.
    pub ended_by: EndedBy,
    /// What there is to say of it in words, such as why it could not be started.
    pub message: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Notice<'a> {
    /// A sub-process is in another state.
    StateChanged {
        /// Which.
        name: &'a Name,
        /// The former state.
        from: StateName,
        /// The present one.
        to: StateName,
        /// The process, where there is one.
        pid: Option<u32>,
        /// How the last run ended, where it has.
        status: Option<ExitStatus>,
        /// Why.
        cause: Option<Cause>,
        /// Starts that the policy made since the last that somebody asked for.
        restarts: u64,
    },
    /// A sub-process could not be started.
    SpawnFailed {
        /// Which.
        name: &'a Name,
        /// Why.
        failure: &'a SpawnFailure,
    },
    /// A run is over, or could not begin.
    RunEnded {
        /// Which.
        name: &'a Name,
        /// All about it.
        record: &'a RunRecord,
    },
    /// The restart policy will start a sub-process again.
    RestartScheduled {
        /// Which.
        name: &'a Name,
        /// Which try since the last reset, from 1.
        attempt: u32,
        /// How long from now.
        delay: Duration,
    },
    /// It is listed otherwise in the registry of CGSE.
    Listed {
        /// Which.
        name: &'a Name,
        /// Its type there.
        service_type: &'a str,
        /// How.
        listing: &'a Listing,
    },
    /// Scheduled times passed without a start.
    ScheduleMissed {
        /// Which.
        name: &'a Name,
        /// How many; counted up to a thousand.
        times: u32,
        /// The last of them, on the wall clock.
        last: SystemTime,
        /// Why.
        why: Missed,
    },
    /// An orphan that came to the daemon was reaped.
    OrphanReaped {
        /// Which.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Why a scheduled time passed without a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The run before still went on.
    Overlap,
    /// It was noticed too late: the host slept, or its clock was set.
    Late,
    /// It could not be started: what it requires does not run, or too much waits for it.
    Refused,
}

impl Missed {
    /// In a word, for logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Late => "late",
            Self::Refused => "refused",
        }
    }
}

/// Somebody who is told. Called on the runtime's threads: it must not block.
pub trait Reporter: Send + Sync + 'static {
    /// Takes note.
    fn report(&self, notice: &Notice<'_>);
}
