//! What is written down of a sub-process, so that a later daemon finds it again. Who implements this knows where.

use std::os::fd::BorrowedFd;
use std::time::{Instant, SystemTime};

use crate::procfs::Identity;
use crate::protocol::{EndedBy, Name, Origin, StateName, Wanted};

use super::spawn::Launch;

/// A run that is about to get a process.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// The sub-process.
    pub name: &'a Name,
    /// The run's version-1 UUID, which marks its processes.
    pub uuid: &'a str,
    /// What it gets besides the definition.
    pub launch: &'a Launch,
    /// [`Spec::start_sum`](super::Spec::start_sum) of its definition.
    pub start_sum: u64,
    /// Who has it started.
    pub origin: Origin,
    /// The socket at which it will say that it is ready.
    pub notify: Option<BorrowedFd<'a>>,
}

/// A run that has a process.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// The run.
    pub uuid: &'a str,
    /// Its main process.
    pub main: Identity,
    /// It says at a socket of its own that it is ready.
    pub notify: bool,
    /// On the monotonic clock.
    pub started: Instant,
    /// On the wall clock.
    pub started_at: SystemTime,
}

/// Where a sub-process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it is.
    pub state: StateName,
    /// What it is wanted to do.
    pub wanted: Wanted,
    /// Starts that the policy made since the last that somebody asked for.
    pub restarts: u64,
    /// Waits since the back-off began anew.
    pub attempt: u32,
    /// When it is started by the clock.
    pub scheduled: Option<SystemTime>,
}

/// Waits until what was handed over is written down. Dropped, nobody waits.
pub struct Written {
    wait: Box<dyn FnOnce() + Send>,
    made: Made,
}

/// Takes the process that was made then. Dropped, there was none.
pub struct Made(Box<dyn FnOnce(BorrowedFd<'_>) + Send>);

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

impl Written {
    /// One for which `wait` waits, and whose process `made` takes.
    pub fn after(wait: impl FnOnce() + Send + 'static, made: impl FnOnce(BorrowedFd<'_>) + Send + 'static) -> Self {
        Self { wait: Box::new(wait), made: Made(Box::new(made)) }
    }

    /// Blocks until then, or until it is clear that it cannot be written down: supervision goes on.
    pub fn wait(self) -> Made {
        (self.wait)();
        self.made
    }
}

impl Made {
    /// This is the process. Called on the thread that has made it, before anything else is done with it: a daemon that is killed before knows nothing
    /// of its end.
    pub fn is(self, fd: BorrowedFd<'_>) {
        (self.0)(fd);
    }
}

/// Somebody who writes it down. Called on the runtime's threads: it must not block.
pub trait Ledger: Send + Sync + 'static {
    /// A run is about to get a process, which it gets only once this is written.
    fn intend(&self, intent: &Intent<'_>) -> Written;
    /// It has it.
    fn begun(&self, begun: &Begun<'_>);
    /// A run of an earlier daemon is held by these from now on.
    fn held(&self, uuid: &str, main: BorrowedFd<'_>, notify: Option<BorrowedFd<'_>>);
    /// Another process is its main from now on.
    fn main_moved(&self, uuid: &str, main: Identity, fd: BorrowedFd<'_>);
    /// It is ready.
    fn ready(&self, uuid: &str);
    /// It is being ended by this, and whether a start is to follow.
    fn ending(&self, uuid: &str, by: EndedBy, then_start: bool);
    /// Nothing of it is left. That it has ended, and how, the [`super::Reporter`] was told before.
    fn gone(&self, uuid: &str);
    /// A sub-process stands somewhere else.
    fn stands(&self, name: &Name, standing: &Standing);
    /// A sub-process is unregistered.
    fn unregistered(&self, name: &Name);
}

/// Nothing is written down.
#[derive(Clone, Copy, Debug)]
pub struct Oblivion;

impl Ledger for Oblivion {
    fn intend(&self, _: &Intent<'_>) -> Written {
        Written::after(|| (), |_| ())
    }

    fn begun(&self, _: &Begun<'_>) {}
    fn held(&self, _: &str, _: BorrowedFd<'_>, _: Option<BorrowedFd<'_>>) {}
    fn main_moved(&self, _: &str, _: Identity, _: BorrowedFd<'_>) {}
    fn ready(&self, _: &str) {}
    fn ending(&self, _: &str, _: EndedBy, _: bool) {}
    fn gone(&self, _: &str) {}
    fn stands(&self, _: &Name, _: &Standing) {}
    fn unregistered(&self, _: &Name) {}
}
