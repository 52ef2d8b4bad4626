//! Whether a process is one of the run. The only place of this room that knows how trees are told apart.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::procfs::{self, Forest, Identity, Stat};

/// The run whose processes are meant.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) forest: Arc<Forest>,
    pub(super) uuid: Arc<str>,
    /// The process that was started; the session of the run has its number.
    pub(super) first: Identity,
    /// The main process by now.
    pub(super) main: Identity,
}

/// What can be said of a process without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is one of the run.
    Member(Identity),
    /// It is there, and it takes a look at all processes to tell.
    Unknown(Identity),
    /// It is not there, and nobody remembers it as one of the run.
    Gone,
}

/// No chain of parents is longer; one that is, is a circle that PIDs made while it was read.
const GENERATIONS: usize = 64;
/// How long reading one environment may take (see `procfs::environ`).
const PATIENCE: Duration = Duration::from_millis(100);

impl Members {
    /// Says at once what parentage, the session and the last look say.
    ///
    /// A process that is gone counts as a member if it was the main, or the last look saw it as a member: it sent its message before it ended.
    /// Of any other that is gone nobody can tell whose it was; systemd drops its message for the same reason.
    pub(super) fn at_once(&self, pid: u32) -> Verdict {
        let last = self.forest.last();
        let Ok(stat) = procfs::read_stat(pid) else {
            if let Some(main) = [self.main, self.first].into_iter().find(|main| main.pid == pid) {
                return Verdict::Member(main);
            }
            let seen = last.as_ref().and_then(|last| last.table().get(pid)).map(Stat::identity);
            let was_member = |identity: &Identity| last.as_ref().is_some_and(|last| last.run_of(*identity) == Some(&self.uuid));
            return seen.filter(was_member).map_or(Verdict::Gone, Verdict::Member);
        };
        let identity = stat.identity();
        if self.is_below(stat) || last.is_some_and(|last| last.run_of(identity) == Some(&self.uuid)) {
            return Verdict::Member(identity);
        }
        Verdict::Unknown(identity)
    }

    fn is_below(&self, mut stat: Stat) -> bool {
        let own = std::process::id();
        let session = i32::try_from(self.first.pid).ok().filter(|_| self.session_lives());
        for _ in 0..GENERATIONS {
            let identity = stat.identity();
            if identity == self.main || identity == self.first || Some(stat.session) == session {
                return true;
            }
            if stat.pid == own || stat.ppid <= 1 || stat.ppid == own {
                return false;
            }
            match procfs::read_stat(stat.ppid) {
                Ok(parent) => stat = parent,
                Err(_) => return false,
            }
        }
        false
    }

    /// Whether the session of the process that was started can still be meant: not if another process has its PID by now.
    fn session_lives(&self) -> bool {
        procfs::read_stat(self.first.pid).map_or(true, |stat| stat.identity() == self.first)
    }

    /// Looks at all processes of the host.
    pub(super) async fn look(&self, identity: Identity) -> bool {
        match self.forest.look().await {
            Ok(look) => look.run_of(identity) == Some(&self.uuid),
            Err(error) => {
                tracing::warn!(uuid = %self.uuid, %error, "cannot tell whether a process is one of the run");
                false
            }
        }
    }

    /// For when there is no time to look: whether the environment of an orphan names the run.
    pub(super) fn is_marked(&self, identity: Identity) -> bool {
        let orphan = |stat: &Stat| stat.identity() == identity && self.forest.takes_orphans_in(stat.ppid);
        if !procfs::read_stat(identity.pid).is_ok_and(|stat| orphan(&stat)) {
            return false;
        }
        let (answer, answers) = mpsc::channel();
        // Left behind if the process is stuck in the kernel.
        let read = move || drop(answer.send(procfs::read_environ_value(identity.pid, procfs::MARKER).ok().flatten()));
        let thread = std::thread::Builder::new().name("environ".into()).stack_size(128 << 10).spawn(read);
        thread.is_ok() && answers.recv_timeout(PATIENCE).ok().flatten().as_deref() == Some(&*self.uuid)
    }

    /// Whether this process lives: one that has ended cannot become the main.
    pub(super) fn lives(identity: Identity) -> bool {
        procfs::read_stat(identity.pid).is_ok_and(|stat| stat.identity() == identity && !stat.is_dead())
    }
}
