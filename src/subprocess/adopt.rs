//! What a daemon found of a sub-process that an earlier one had: a run whose processes may live, or the place where it rested.

use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime};

use crate::procfs::Identity;
use crate::protocol::{EndedBy, Origin, StateName};
use crate::sys::pidfd::{ExitStatus, PidFd};

use super::containment::RunGroup;
use super::machine::End;
use super::restart::Restarts;
use super::spawn::Launch;
use super::vigil::NotifySocket;

/// What an earlier daemon had counted, and what was found.
#[derive(Debug)]
pub struct Adoption {
    /// What its restart policy had counted.
    pub restarts: Restarts,
    /// What was found.
    pub found: FoundState,
}

/// Where a sub-process was found.
#[derive(Debug)]
pub enum FoundState {
    /// Nothing of it runs.
    AtRest {
        /// Where it was; what was on its way somewhere counts as stopped.
        state: StateName,
        /// Its last run, where that is remembered.
        last: Option<LastRun>,
        /// It is about to be started.
        start: bool,
    },
    /// It has a run that is not over.
    Run(Box<FoundRun>),
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct LastRun {
    /// Its version-1 UUID.
    pub uuid: String,
    /// On the monotonic clock, as near as can be told.
    pub started: Instant,
    /// On the wall clock.
    pub started_at: SystemTime,
    /// How it ended.
    pub end: End,
    /// What there is to say of that.
    pub message: Option<String>,
}

/// A run that is not over.
#[derive(Debug)]
pub struct FoundRun {
    /// Its version-1 UUID.
    pub uuid: String,
    /// How it was started.
    pub launch: Launch,
    /// Who had it started.
    pub origin: Origin,
    /// Its main process, also once that has ended; PID 0 where nobody knows whether there ever was one.
    pub identity: Identity,
    /// What was found of that.
    pub main: FoundMain,
    /// On the monotonic clock.
    pub started: Instant,
    /// On the wall clock.
    pub started_at: SystemTime,
    /// It was ready.
    pub ready: bool,
    /// It was started with another definition than there is now.
    pub outdated: bool,
    /// By whom it was being ended, and whether a start was to follow.
    pub ending: Option<(EndedBy, bool)>,
    /// Where it says what it has to say.
    pub notify: Option<NotifySocket>,
    /// Its control group.
    pub group: Option<RunGroup>,
}

/// What was found of a main process.
#[derive(Debug)]
pub enum FoundMain {
    /// It is held. Whether it has ended meanwhile, its descriptor tells.
    Held(PidFd),
    /// It ended meanwhile; how, where anybody can tell.
    Ended(Option<ExitStatus>),
    /// Its end is recorded; something of its tree may be left.
    Recorded(End, Option<String>),
}

/// Descriptors of a run that is not over, for a later daemon.
#[derive(Debug)]
pub struct HandedOver {
    /// The run.
    pub uuid: String,
    /// Its main process.
    pub main: Option<OwnedFd>,
    /// The socket at which it says what it has to say.
    pub notify: Option<OwnedFd>,
}
