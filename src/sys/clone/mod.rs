//! A new process straight into its program: clone3(2) with `CLONE_VM | CLONE_VFORK`, so that nothing of the daemon is copied however large it is,
//! and with `CLONE_INTO_CGROUP` where it is to live in a group of its own: it never is anywhere else.
//!
//! The child shares our memory and runs on a stack of its own while the calling thread stands still. Because the memory is shared, a failure comes
//! back without a pipe: the child writes which step failed, and its errno.
//!
//! - `raw`: the system calls, and clone(2) where clone3(2) is refused;
//! - `child`: what happens between clone and exec, on what [`Program`] prepared.

mod child;
mod raw;

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::cgroup::Group;
use super::limits::Limit;
use super::pidfd::PidFd;
use raw::{Way, vfork_into};

/// Everything a new process needs, ready for execve(2).
#[derive(Debug)]
pub struct Program {
    /// Paths to try in turn, as `PATH` gives them; one where the program's name holds a slash.
    pub candidates: Vec<CString>,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// `KEY=value` each.
    pub envp: Vec<CString>,
    /// One more of them, to whose value the new process's PID is added, in ten digits: what it forks itself has the same environment, and another PID.
    pub own_pid: Option<CString>,
    /// Working directory to change to, after the change of user.
    pub cwd: Option<CString>,
    /// User and groups to become.
    pub credentials: Option<Credentials>,
    /// What standard input, output and error are to be; none is inherited from the daemon where this is `None`.
    pub stdio: [Stdio; 3],
    /// Limits of its own; all others are the daemon's.
    pub limits: Vec<Limit>,
    /// Mask of the permissions that its files do not get (umask(2)); `None` is the daemon's own.
    pub umask: Option<u32>,
    /// Its niceness, −20 to 19 (setpriority(2)); `None` is the daemon's own.
    pub nice: Option<i32>,
    /// What is written to its `/proc/PID/oom_score_adj`, −1000 to 1000; `None` is the daemon's own.
    pub oom_score_adj: Option<CString>,
    /// No program that it executes gives it privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// What the kernel calls it until it has executed its program (`PR_SET_NAME`): whoever finds it then can tell which one it is, though its memory,
    /// and so its environment, still is the daemon's. At most 15 bytes.
    pub name: CString,
}

/// Digits of the largest PID that there could be, with room to spare.
const PID_DIGITS: usize = 10;

/// Who the process is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What one standard stream is to be.
#[derive(Debug)]
pub enum Stdio {
    /// The daemon's own.
    Inherit,
    /// This one; its number is above 2.
    Owned(OwnedFd),
    /// The same as standard output (for standard error).
    LikeStdout,
}

/// The step that the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the process (clone3(2)).
    Clone,
    /// Its group.
    Group,
    /// A session of its own (setsid(2)).
    Session,
    /// The standard streams (dup2(2)).
    Streams,
    /// Its place among those that are killed when memory is short (proc_pid_oom_score_adj(5)).
    OomScoreAdj,
    /// Its niceness (setpriority(2)).
    Nice,
    /// This limit (prlimit(2)), by the kernel's number.
    Limit(u32),
    /// User and groups (setgroups(2), setresgid(2), setresuid(2)).
    Credentials,
    /// Giving up on privileges (prctl(2)).
    NoNewPrivileges,
    /// The working directory (chdir(2)).
    Directory,
    /// The program (execve(2)).
    Exec,
}

/// Why no process was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step:?} failed with errno {errno}")]
pub struct CloneError {
    /// Which step.
    pub step: Step,
    /// Its errno.
    pub errno: i32,
}

/// Starts the program in a session of its own, and in this group if one is given; returns its PID and pidfd.
///
/// `cell` holds the child's PID from before it runs; on success it stays there for the caller to take over, on failure it is empty again, and no
/// child is left. Blocks until the child has executed its program or failed: call it from a thread that may wait (a working directory on a dead
/// network mount can make that long).
pub fn spawn(program: &Program, group: Option<&Group>, cell: &AtomicI32) -> Result<(u32, PidFd), CloneError> {
    let group = group.map(AsFd::as_fd);
    let way = Way::best();
    let result = spawn_by(way, program, group, cell);
    if let Err(CloneError { step: Step::Clone, errno }) = result
        && let Some(other) = way.after(errno)
    {
        return spawn_by(other, program, group, cell);
    }
    result
}

fn spawn_by(way: Way, program: &Program, group: Option<BorrowedFd<'_>>, cell: &AtomicI32) -> Result<(u32, PidFd), CloneError> {
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let own_pid: Vec<Cell<u8>> = match &program.own_pid {
        Some(entry) => entry.as_bytes().iter().copied().chain([b'0'; PID_DIGITS]).chain([0]).map(Cell::new).collect(),
        None => Vec::new(),
    };
    let mut envp = pointers(&program.envp);
    if !own_pid.is_empty() {
        envp.insert(0, own_pid.as_ptr().cast());
    }
    let shared = child::Shared {
        program,
        argv: pointers(&program.argv),
        envp,
        pid_digits: &own_pid[own_pid.len().saturating_sub(PID_DIGITS + 1)..own_pid.len().saturating_sub(1)],
        group: group.filter(|_| way == Way::Old).map(|group| group.as_raw_fd()),
        failed: Cell::new(None),
    };
    let (pid, fd) = vfork_into(way, group, child::run, (&raw const shared).cast(), cell).map_err(|errno| {
        // Of all that can be refused here, these can only be about the group: not ours, of threads, with groups below that are limited, removed.
        let about_group = group.is_some() && matches!(errno, libc::EACCES | libc::EBUSY | libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT);
        CloneError { step: if about_group { Step::Group } else { Step::Clone }, errno }
    })?;
    let Some(error) = shared.failed.get() else { return Ok((pid, fd)) };
    reap_now(&fd);
    cell.store(0, Ordering::Release);
    Err(error)
}

/// Whether a process can be made in this group: one that exits at once is.
///
/// # Errors
/// The operating system refuses, as for [`spawn`].
pub fn try_group(group: &Group) -> io::Result<()> {
    vfork_try(Way::best(), Some(group.as_fd()), 0).map(drop)
}

/// A child that exits at once with this code and has been reaped: something to ask the kernel about.
pub(super) fn vfork_exit(code: i32) -> io::Result<PidFd> {
    vfork_try(Way::best(), None, code)
}

fn vfork_try(way: Way, group: Option<BorrowedFd<'_>>, code: i32) -> io::Result<PidFd> {
    let trial = child::Trial { code, group: group.filter(|_| way == Way::Old).map(|group| group.as_raw_fd()), failed: Cell::new(None) };
    let cell = AtomicI32::new(0);
    match vfork_into(way, group, child::try_out, (&raw const trial).cast(), &cell) {
        Ok((_, fd)) => {
            reap_now(&fd);
            trial.failed.get().map_or(Ok(fd), |errno| Err(io::Error::from_raw_os_error(errno)))
        }
        Err(errno) => match way.after(errno) {
            Some(other) => vfork_try(other, group, code),
            None => Err(io::Error::from_raw_os_error(errno)),
        },
    }
}

/// Waits for a child that is known to be about to end, and reaps it.
fn reap_now(fd: &PidFd) {
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` outlives the call.
        let result = unsafe { libc::waitid(libc::P_PIDFD, fd.as_raw_fd().unsigned_abs(), &raw mut info, libc::WEXITED) };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// A C string from a text, or `EINVAL` when it holds a NUL byte.
pub fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, i32> {
    CString::new(text).map_err(|_| libc::EINVAL)
}

/// Whether this path is there, though executing it said `ENOENT`: then the interpreter that its first line or ELF header names is missing.
pub fn exists(path: &CStr) -> bool {
    // SAFETY: access reads the string and nothing else.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::ExitStatus;
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    fn program(argv: &[&str]) -> Program {
        Program {
            candidates: vec![c_string(argv[0]).unwrap()],
            argv: argv.iter().map(|a| c_string(*a).unwrap()).collect(),
            envp: vec![c_string("A=b c").unwrap()],
            cwd: None,
            credentials: None,
            stdio: [Stdio::Owned(File::open("/dev/null").unwrap().into()), Stdio::Inherit, Stdio::Inherit],
            limits: vec![],
            umask: None,
            nice: None,
            oom_score_adj: None,
            no_new_privs: false,
            own_pid: None,
            name: c_string("test").unwrap(),
        }
    }

    fn run(program: &Program) -> Result<ExitStatus, CloneError> {
        let new = run_by(Way::New, program, None);
        assert_eq!(run_by(Way::Old, program, None), new, "both ways do the same");
        new
    }

    fn run_by(way: Way, program: &Program, group: Option<&Group>) -> Result<ExitStatus, CloneError> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let cell = AtomicI32::new(0);
        let result = spawn_by(way, program, group.map(AsFd::as_fd), &cell);
        let Ok((pid, fd)) = result else {
            assert_eq!(cell.load(Ordering::Acquire), 0, "a failed start leaves nothing");
            return Err(result.unwrap_err());
        };
        assert_eq!(u32::try_from(cell.load(Ordering::Acquire)), Ok(pid));
        assert_eq!(poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000u16)).unwrap(), 1);
        Ok(fd.reap().unwrap().unwrap())
    }

    #[test]
    fn a_program_runs_with_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let mut p = program(&[
            "/bin/sh",
            "-c",
            "test \"$A\" = 'b c' && test \"$(pwd)\" = \"$1\" && test \"$(ls /proc/self/fd | wc -l)\" -le 5",
            "sh",
            "",
        ]);
        p.argv[4] = c_string(dir.path().canonicalize().unwrap().to_str().unwrap()).unwrap();
        p.cwd = Some(c_string(dir.path().to_str().unwrap()).unwrap());
        assert_eq!(run(&p), Ok(ExitStatus::Exited(0)));
    }

    #[test]
    fn it_has_a_session_of_its_own_and_no_ignored_signal() {
        let leads_its_session = "set -- $(cut -d' ' -f1,6 /proc/$$/stat); test $1 = $2";
        assert_eq!(run(&program(&["/bin/sh", "-c", leads_its_session])), Ok(ExitStatus::Exited(0)));
        // The program itself looks at itself: a shell blocks signals now and then while it waits for what it started.
        for line in ["^SigIgn:.0000000000000000", "^SigBlk:.0000000000000000"] {
            assert_eq!(run(&program(&["/bin/grep", "-q", line, "/proc/self/status"])), Ok(ExitStatus::Exited(0)), "{line}");
        }
    }

    #[test]
    fn it_gets_the_attributes_it_is_to_have() {
        let limit = |resource, soft, hard| Limit { resource, soft, hard };
        let mut p = program(&[
            "/bin/sh",
            "-c",
            "test $(umask) = 0027 && test $(cut -d' ' -f19 /proc/self/stat) = 7 && \
            test $(cat /proc/self/oom_score_adj) = 300 && test $(ulimit -S -n) = 100 && test $(ulimit -H -n) = 200 && test $(ulimit -c) = 0 && \
            grep -q '^NoNewPrivs:.1' /proc/self/status",
        ]);
        p.limits = vec![limit(libc::RLIMIT_NOFILE, 100, 200), limit(libc::RLIMIT_CORE, 0, 0)];
        (p.umask, p.nice, p.no_new_privs) = (Some(0o027), Some(7), true);
        p.oom_score_adj = Some(c_string("300").unwrap());
        assert_eq!(run(&p), Ok(ExitStatus::Exited(0)));
    }

    #[test]
    fn it_begins_in_its_group_either_way() {
        let Some(test) = crate::sys::cgroup::testing::TestGroup::new("clone") else { return };
        let p = program(&["/bin/sh", "-c", "grep -q '^0::.*/procman-test-clone' /proc/self/cgroup"]);
        for way in [Way::New, Way::Old] {
            assert_eq!(run_by(way, &p, Some(&test.group)), Ok(ExitStatus::Exited(0)), "{way:?}");
            vfork_try(way, Some(test.group.as_fd()), 0).unwrap();
        }
        test.parent_remove().unwrap();
        for way in [Way::New, Way::Old] {
            let error = run_by(way, &p, Some(&test.group)).unwrap_err();
            assert_eq!(error.step, Step::Group, "{way:?}: {error}");
            assert!(vfork_try(way, Some(test.group.as_fd()), 0).is_err());
        }
    }

    #[test]
    fn where_a_filter_refuses_the_new_call_the_old_one_does_it() {
        // As container engines do: clone3 is said not to exist, or not to be permitted. A filter holds for this thread and what it starts.
        for errno in [libc::ENOSYS, libc::EPERM] {
            let result = std::thread::spawn(move || {
                refuse_clone3(errno);
                let cell = AtomicI32::new(0);
                let refused = spawn_by(Way::New, &program(&["/bin/true"]), None, &cell).unwrap_err();
                assert_eq!(refused, CloneError { step: Step::Clone, errno });
                let (pid, fd) = spawn(&program(&["/bin/true"]), None, &cell).unwrap();
                assert_eq!(u32::try_from(cell.load(Ordering::Acquire)), Ok(pid));
                reap_now(&fd);
                vfork_exit(0).unwrap();
            });
            result.join().unwrap();
        }
    }

    /// Makes clone3(2) of this thread end with this errno (seccomp(2)).
    fn refuse_clone3(errno: i32) {
        let number = u32::try_from(libc::SYS_clone3).unwrap();
        let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
        let filter = [
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // seccomp_data.nr
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
            op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(), 0, 0),
            op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the filter, which outlives the calls.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        }
    }

    #[test]
    fn each_refusal_has_its_step_and_errno() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "not a program\n").unwrap();
        let failure = |p: &Program| run(p).map_err(|e| (e.step, e.errno)).unwrap_err();
        assert_eq!(failure(&program(&["/no/such/program"])), (Step::Exec, libc::ENOENT));
        assert_eq!(failure(&program(&[text.to_str().unwrap()])), (Step::Exec, libc::EACCES));
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(failure(&program(&[text.to_str().unwrap()])), (Step::Exec, libc::ENOEXEC));
        let mut p = program(&["/bin/true"]);
        p.cwd = Some(c_string("/no/such/directory").unwrap());
        assert_eq!(failure(&p), (Step::Directory, libc::ENOENT));
        let mut p = program(&["/bin/true"]);
        p.limits = vec![Limit { resource: libc::RLIMIT_NOFILE, soft: 2, hard: 1 }];
        assert_eq!(failure(&p), (Step::Limit(libc::RLIMIT_NOFILE), libc::EINVAL));
        let mut p = program(&["/bin/true"]);
        p.oom_score_adj = Some(c_string("2000").unwrap());
        assert_eq!(failure(&p), (Step::OomScoreAdj, libc::EINVAL));
        let busy = dir.path().join("busy");
        std::fs::copy("/bin/true", &busy).unwrap();
        let writer = File::options().append(true).open(&busy).unwrap();
        assert_eq!(failure(&program(&[busy.to_str().unwrap()])), (Step::Exec, libc::ETXTBSY));
        drop(writer);
        let mut p = program(&["/bin/true"]);
        p.argv.push(c_string(vec![b'x'; 8 << 20]).unwrap());
        assert_eq!(failure(&p), (Step::Exec, libc::E2BIG));
        let mut p = program(&["/no/sh"]);
        p.candidates = [text.parent().unwrap().join("none").to_str().unwrap(), "/bin/true"].map(|c| c_string(c).unwrap()).into();
        assert_eq!(run(&p), Ok(ExitStatus::Exited(0)), "the next directory of PATH is tried");
    }
}
