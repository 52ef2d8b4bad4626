//! A process held by descriptor (pidfd_open(2), Linux 5.3): unlike a PID it never comes to mean another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code, 0 to 255.
    Exited(i32),
    /// This signal ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// The kernel wrote a core dump.
        core: bool,
    },
}

impl ExitStatus {
    /// Of the number that wait(2) tells.
    pub fn of_wait(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self::Exited(libc::WEXITSTATUS(status))
        } else {
            Self::Signalled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
        }
    }

    /// Python's convention: the exit code, or −N when signal N ended it.
    pub const fn returncode(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled { signal, .. } => -signal,
        }
    }

    /// The signal that ended it.
    pub const fn signal(self) -> Option<i32> {
        match self {
            Self::Exited(_) => None,
            Self::Signalled { signal, .. } => Some(signal),
        }
    }
}

/// A descriptor of one process. Readable (poll(2)) once the process has ended, reaped or not.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has this PID now. `ESRCH` when there is none.
    ///
    /// The caller checks afterwards that it is the process it meant (by its start time): the PID may have been reused before this call, not after it.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel just gave us this descriptor, close-on-exec, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes over a descriptor that somebody kept for us.
    ///
    /// # Errors
    /// It is not that of a process (`EINVAL`).
    pub fn kept(fd: OwnedFd) -> io::Result<Self> {
        let kept = Self(fd);
        kept.pid().map(|_| kept)
    }

    /// The PID of its process, as far as this PID namespace shows it; `None` once that is reaped (proc_pid_fdinfo(5)).
    ///
    /// # Errors
    /// `/proc` cannot be read, or the descriptor is not that of a process.
    pub fn pid(&self) -> io::Result<Option<u32>> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
        let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(pid.parse().ok().filter(|pid| *pid != 0))
    }

    /// Wraps a descriptor that the kernel made for a new process.
    pub(super) fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a signal (pidfd_send_signal(2)). `ESRCH` when the process was reaped; a zombie takes it without effect.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        let none: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: a null siginfo asks for what kill(2) would send; no memory of ours is read.
        check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, none, 0) }).map(drop)
    }

    /// How the process ended, whoever's child it was; `None` while it is not reaped, and always before Linux 6.15 (`PIDFD_INFO_EXIT`).
    pub fn exit_info(&self) -> Option<ExitStatus> {
        super::probe::exit_info(self).map(ExitStatus::of_wait)
    }

    /// Reaps the process, which must be a child: `None` while it lives, `ECHILD` when it is no child or was reaped before.
    pub fn reap(&self) -> io::Result<Option<ExitStatus>> {
        // SAFETY: all-zero is a valid siginfo_t, and waitid fills it in before it returns 0.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = libc::id_t::try_from(self.0.as_raw_fd()).map_err(io::Error::other)?;
        // SAFETY: `info` outlives the call.
        check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::WNOHANG) }.into())?;
        Ok(decode(&info).map(|(_, status)| status))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Reads what waitid(2) filled in: the child and how it ended; `None` when it found none.
pub(super) fn decode(info: &libc::siginfo_t) -> Option<(u32, ExitStatus)> {
    // SAFETY: waitid fills in the SIGCHLD fields, or leaves all zero when no child had ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    Some(match info.si_code {
        libc::CLD_EXITED => (pid, ExitStatus::Exited(status)),
        code => (pid, ExitStatus::Signalled { signal: status, core: code == libc::CLD_DUMPED }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn wait(fd: &PidFd) -> ExitStatus {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let ready = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000u16)).unwrap();
        assert_eq!(ready, 1, "the process did not end within 10 s");
        fd.reap().unwrap().unwrap()
    }

    #[test]
    fn codes_and_signals_are_told_apart() {
        for (script, expected) in [("exit 7", ExitStatus::Exited(7)), ("kill -TERM $$", ExitStatus::Signalled { signal: 15, core: false })]
        {
            #[allow(clippy::zombie_processes)] // reaped by the PidFd
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let fd = PidFd::open(child.id()).unwrap();
            assert_eq!(wait(&fd), expected);
            assert_eq!(fd.reap().unwrap_err().raw_os_error(), Some(libc::ECHILD), "reaped once");
            assert_eq!(fd.send_signal(15).unwrap_err().raw_os_error(), Some(libc::ESRCH), "and then nobody");
        }
    }

    #[test]
    fn a_kept_descriptor_tells_whose_it_is() {
        #[allow(clippy::zombie_processes)] // reaped by the PidFd
        let child = Command::new("/bin/true").spawn().unwrap();
        let fd = PidFd::kept(PidFd::open(child.id()).unwrap().0).unwrap();
        assert_eq!(fd.pid().unwrap(), Some(child.id()), "running or waiting to be reaped");
        wait(&fd);
        assert_eq!(fd.pid().unwrap(), None);
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        assert_eq!(PidFd::kept(file).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_pid_that_nobody_has_is_esrch() {
        assert_eq!(PidFd::open(u32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
