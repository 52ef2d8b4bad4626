//! Everything that loses its parent comes to this program, as it would come to init, and is reaped at once.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use procman::sys::pidfd::PidFd;
use procman::sys::reaper::become_subreaper;

use super::random::let_pass;

/// Between two looks while there is no child at all.
const PAUSE: Duration = Duration::from_millis(1);

/// Reaps all children, and remembers how those ended that somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct Reaper(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// By PID: `None` while it lives. Nothing is reaped while this is locked.
    watched: Mutex<HashMap<i32, Option<WaitStatus>>>,
    ended: Condvar,
}

impl Reaper {
    /// Begins, for as long as the program lives.
    pub(crate) fn begin() -> Self {
        become_subreaper().unwrap();
        let reaper = Self(Arc::new(Shared::default()));
        let shared = reaper.0.clone();
        std::thread::spawn(move || {
            loop {
                match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                    Ok(status) => shared.reap(status),
                    Err(Errno::ECHILD) => let_pass(PAUSE),
                    Err(Errno::EINTR) => {}
                    Err(error) => panic!("cannot reap: {error}"),
                }
            }
        });
        reaper
    }

    /// Starts a child whose end is to be known.
    pub(crate) fn spawn(&self, command: &mut Command) -> (Child, PidFd) {
        let mut watched = self.0.watched.lock().unwrap();
        let child = command.spawn().unwrap();
        // It cannot have been reaped yet.
        let fd = PidFd::open(child.id()).unwrap();
        watched.insert(child.id().try_into().unwrap(), None);
        (child, fd)
    }

    /// How it ended, if it has within this time.
    pub(crate) fn wait(&self, pid: u32, within: Duration) -> Option<WaitStatus> {
        let (pid, deadline) = (i32::try_from(pid).unwrap(), Instant::now() + within);
        let mut watched = self.0.watched.lock().unwrap();
        loop {
            if let Some(status) = watched.get(&pid).copied().flatten() {
                return Some(status);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            watched = self.0.ended.wait_timeout(watched, left).unwrap().0;
        }
    }
}

impl Shared {
    fn reap(&self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let mut watched = self.watched.lock().unwrap();
        let status = waitid(Id::Pid(pid), WaitPidFlag::WEXITED).unwrap();
        if let Some(entry) = watched.get_mut(&pid.as_raw()) {
            *entry = Some(status);
            self.ended.notify_all();
        }
    }
}
