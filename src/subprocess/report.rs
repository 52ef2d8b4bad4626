//! What a sub-process tells the rest of the daemon, without knowing who listens.

use std::time::Duration;

use crate::protocol::{Cause, Name, StateName};
use crate::sys::pidfd::ExitStatus;

use super::spawn::SpawnFailure;

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
    /// The restart policy will start a sub-process again.
    RestartScheduled {
        /// Which.
        name: &'a Name,
        /// Which try since the last reset, from 1.
        attempt: u32,
        /// How long from now.
        delay: Duration,
    },
    /// An orphan that came to the daemon was reaped.
    OrphanReaped {
        /// Which.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Somebody who is told. Called on the runtime's threads: it must not block.
pub trait Reporter: Send + Sync + 'static {
    /// Takes note.
    fn report(&self, notice: &Notice<'_>);
}
