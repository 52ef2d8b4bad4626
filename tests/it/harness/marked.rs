//! The processes of one test: every process that a daemon of it started, unless that was given another environment.

use std::fs;

use procman::procfs::{self, Stat};
use procman::sys::pidfd::PidFd;

/// The variable in the daemon's environment, and so in that of its children.
pub(super) const VARIABLE: &str = "PROCMAN_TEST";

/// One test's value of [`VARIABLE`].
#[derive(Clone, Debug)]
pub(super) struct Marker(pub(super) String);

impl Marker {
    pub(super) fn new() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    fn is_on(&self, pid: u32) -> bool {
        let entry = format!("{VARIABLE}={}", self.0);
        // Unreadable: it is gone, or it is another user's.
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|it| it == entry.as_bytes()))
    }

    /// Who bears it now, the daemon too; zombies have no environment any more.
    pub(super) fn bearers(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_on(*pid)).collect()
    }

    /// Who bears it, with their command lines, for a message.
    pub(super) fn describe(&self) -> Vec<String> {
        let line = |pid: &u32| format!("{pid}: {}", procfs::read_cmdline(*pid).unwrap_or_default().join(" "));
        self.bearers().iter().map(line).collect()
    }

    /// Kills all that bear it, until none is left.
    pub(super) fn kill_all(&self) {
        for _ in 0..1000 {
            let bearers = self.bearers();
            if bearers.is_empty() {
                return;
            }
            for pid in bearers {
                // The descriptor first, then the look: what it holds is what bears the marker.
                if let Ok(fd) = PidFd::open(pid)
                    && self.is_on(pid)
                {
                    drop(fd.send_signal(libc::SIGKILL));
                }
            }
            super::pause();
        }
        eprintln!("these could not be killed: {:?}", self.describe());
    }
}

/// What the kernel says of a process; `None` when there is none with this PID.
pub(crate) fn stat_of(pid: u32) -> Option<Stat> {
    match procfs::read_stat(pid) {
        Ok(stat) => Some(stat),
        Err(error) if procfs::is_gone(&error) => None,
        Err(error) => panic!("cannot read /proc/{pid}/stat: {error}"),
    }
}

/// Whether there is such a process, and it is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat_of(pid).is_some_and(|stat| !stat.is_zombie())
}
