//! The child's whole life before its program. It runs in shared memory while the parent's thread stands still, and does nothing but raw system
//! calls: no allocation, no lock, and none of the C library's wrappers that talk to other threads (setuid).

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::os::fd::{AsRawFd, RawFd};

use super::{CloneError, Credentials, Program, Stdio, Step};

/// What parent and child share.
pub(super) struct Shared<'a> {
    pub(super) program: &'a Program,
    pub(super) argv: Vec<*const c_char>,
    pub(super) envp: Vec<*const c_char>,
    /// Where in `envp` the child writes its PID.
    pub(super) pid_digits: &'a [Cell<u8>],
    /// The group to enter, where the kernel did not put the child there.
    pub(super) group: Option<RawFd>,
    /// Written by the child.
    pub(super) failed: Cell<Option<CloneError>>,
}

pub(super) extern "C" fn run(data: *const c_void) -> ! {
    // SAFETY: `data` points to the `Shared` of the parent's thread, which stands still until we have executed our program or exited.
    let shared = unsafe { &*data.cast::<Shared<'_>>() };
    let Err(error) = become_program(shared);
    shared.failed.set(Some(error));
    exit_now(127)
}

/// What a child that only tries something out shares with its parent.
pub(super) struct Trial {
    /// Its exit code.
    pub(super) code: i32,
    /// The group to enter, where the kernel did not put the child there.
    pub(super) group: Option<RawFd>,
    /// The errno of entering it, written by the child.
    pub(super) failed: Cell<Option<i32>>,
}

pub(super) extern "C" fn try_out(data: *const c_void) -> ! {
    // SAFETY: `data` points to the `Trial` of the parent's thread, which stands still until we have exited.
    let trial = unsafe { &*data.cast::<Trial>() };
    if let Some(group) = trial.group {
        trial.failed.set(write_file(group, c"cgroup.procs", b"0").err());
    }
    exit_now(trial.code)
}

/// Leaves without running anything of the parent's exit handlers.
fn exit_now(code: c_int) -> ! {
    // SAFETY: _exit ends the process and touches nothing of the shared memory.
    unsafe { libc::_exit(code) }
}

/// One raw system call of at most four arguments, a fifth being 0; the errno on failure.
fn call(number: c_long, a: usize, b: usize, c: usize, d: usize) -> Result<usize, i32> {
    // SAFETY: each caller passes what the system call it names expects.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0_usize) };
    // SAFETY: reads the errno of this thread, which the parent does not use while it stands still.
    usize::try_from(result).map_err(|_| unsafe { *libc::__errno_location() })
}

/// Opens a file (relative to `directory`) and writes to it. The descriptor is closed with all others, before the program.
fn write_file(directory: RawFd, path: &std::ffi::CStr, text: &[u8]) -> Result<(), i32> {
    let fd = call(libc::SYS_openat, directory as usize, path.as_ptr() as usize, (libc::O_WRONLY | libc::O_CLOEXEC) as usize, 0)?;
    call(libc::SYS_write, fd, text.as_ptr() as usize, text.len(), 0).map(drop)
}

fn become_program(shared: &Shared<'_>) -> Result<Infallible, CloneError> {
    let program = shared.program;
    let at = |step: Step| move |errno: i32| CloneError { step, errno };

    // First of all. It cannot fail, and without it nothing is lost but certainty.
    let _ = call(libc::SYS_prctl, libc::PR_SET_NAME as usize, program.name.as_ptr() as usize, 0, 0);
    if let Some(group) = shared.group {
        // 0 is whoever writes it.
        write_file(group, c"cgroup.procs", b"0").map_err(at(Step::Group))?;
    }
    call(libc::SYS_setsid, 0, 0, 0, 0).map_err(at(Step::Session))?;
    for (target, stream) in program.stdio.iter().enumerate() {
        let source = match stream {
            Stdio::Inherit => continue,
            Stdio::Owned(fd) => fd.as_raw_fd() as usize,
            Stdio::LikeStdout => 1,
        };
        call(libc::SYS_dup3, source, target, 0, 0).map_err(at(Step::Streams))?;
    }

    // What only root may, before the change of user.
    if let Some(text) = &program.oom_score_adj {
        write_file(libc::AT_FDCWD, c"/proc/self/oom_score_adj", text.as_bytes()).map_err(at(Step::OomScoreAdj))?;
    }
    // Whatever a library may have left open without close-on-exec: the program gets its three streams and nothing else (Linux 5.9).
    let _ = call(libc::SYS_close_range, 3, u32::MAX as usize, 0, 0);
    if let Some(nice) = program.nice {
        call(libc::SYS_setpriority, libc::PRIO_PROCESS as usize, 0, nice as usize, 0).map_err(at(Step::Nice))?;
    }
    for limit in &program.limits {
        let value = [limit.soft, limit.hard];
        call(libc::SYS_prlimit64, 0, limit.resource as usize, value.as_ptr() as usize, 0).map_err(at(Step::Limit(limit.resource)))?;
    }
    if let Some(mask) = program.umask {
        let _ = call(libc::SYS_umask, mask as usize, 0, 0, 0); // cannot fail
    }
    if let Some(Credentials { uid, gid, groups }) = &program.credentials {
        // Raw calls: the C library's would try to change the parent's threads too.
        call(libc::SYS_setgroups, groups.len(), groups.as_ptr() as usize, 0, 0).map_err(at(Step::Credentials))?;
        let (uid, gid) = (*uid as usize, *gid as usize);
        call(libc::SYS_setresgid, gid, gid, gid, 0).map_err(at(Step::Credentials))?;
        call(libc::SYS_setresuid, uid, uid, uid, 0).map_err(at(Step::Credentials))?;
    }
    if program.no_new_privs {
        call(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0).map_err(at(Step::NoNewPrivileges))?;
    }
    if let Some(cwd) = &program.cwd {
        call(libc::SYS_chdir, cwd.as_ptr() as usize, 0, 0, 0).map_err(at(Step::Directory))?;
    }
    let mut pid = call(libc::SYS_getpid, 0, 0, 0, 0).unwrap_or(0); // cannot fail
    for digit in shared.pid_digits.iter().rev() {
        digit.set(b'0' + (pid % 10) as u8);
        pid /= 10;
    }
    // Handlers were cleared by the kernel (not by an older one), but an ignored signal (SIGPIPE in every Rust program) would stay ignored.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        let _ = call(libc::SYS_rt_sigaction, signal, default.as_ptr() as usize, 0, 8);
    }
    let empty = 0_u64;
    let _ = call(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK as usize, (&raw const empty) as usize, 0, 8);

    // As execvp(3): go on to the next directory where this one does not have it; one that has it but may not run it is the better news.
    let mut errno = libc::ENOENT;
    for candidate in &program.candidates {
        let Err(refused) =
            call(libc::SYS_execve, candidate.as_ptr() as usize, shared.argv.as_ptr() as usize, shared.envp.as_ptr() as usize, 0)
        else {
            break;
        };
        match refused {
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            libc::EACCES => errno = refused,
            other => return Err(CloneError { step: Step::Exec, errno: other }),
        }
    }
    Err(CloneError { step: Step::Exec, errno })
}
