//! A new process straight into its program: clone3(2) with `CLONE_VM | CLONE_VFORK`, so that nothing of the daemon is copied however large it is.
//!
//! The child shares our memory and runs on a stack of its own while the calling thread stands still. Between clone and exec it does nothing but raw
//! system calls on what [`Program`] prepared: no allocation, no lock, and none of the C library's wrappers that talk to other threads (setuid).
//! Because the memory is shared, a failure comes back without a pipe: the child writes which step failed, and its errno.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::limits::Nofile;
use super::pidfd::PidFd;

/// Everything a new process needs, ready for execve(2).
#[derive(Debug)]
pub struct Program {
    /// Paths to try in turn, as `PATH` gives them; one where the program's name holds a slash.
    pub candidates: Vec<CString>,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// `KEY=value` each.
    pub envp: Vec<CString>,
    /// Working directory to change to, after the change of user.
    pub cwd: Option<CString>,
    /// User and groups to become.
    pub credentials: Option<Credentials>,
    /// What standard input, output and error are to be; none is inherited from the daemon where this is `None`.
    pub stdio: [Stdio; 3],
    /// Limit on open descriptors to give back.
    pub nofile: Option<Nofile>,
}

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
#[repr(i32)]
pub enum Step {
    /// Making the process (clone3(2)).
    Clone = 1,
    /// A session of its own (setsid(2)).
    Session,
    /// The standard streams (dup2(2)).
    Streams,
    /// Limits (prlimit(2)).
    Limits,
    /// User and groups (setgroups(2), setresgid(2), setresuid(2)).
    Credentials,
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

/// `struct clone_args` up to `cgroup` (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Handlers of ours must not run in the child, which shares our memory (Linux 5.5).
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Enough for the frames below, which hold no buffers, and for a signal frame of the largest vector unit.
const STACK: usize = 64 * 1024;

/// What parent and child share.
struct Shared<'a> {
    program: &'a Program,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    failed: Cell<(i32, i32)>,
}

/// Starts the program in a session of its own and returns its PID and pidfd.
///
/// `cell` holds the child's PID from before it runs; on success it stays there for the caller to take over, on failure it is empty again, and no
/// child is left. Blocks until the child has executed its program or failed: call it from a thread that may wait (a working directory on a dead
/// network mount can make that long).
pub fn spawn(program: &Program, cell: &AtomicI32) -> Result<(u32, PidFd), CloneError> {
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let shared = Shared { program, argv: pointers(&program.argv), envp: pointers(&program.envp), failed: Cell::new((0, 0)) };
    let (pid, fd) = vfork_into(run_child, (&raw const shared).cast(), cell).map_err(|errno| CloneError { step: Step::Clone, errno })?;
    let (step, errno) = shared.failed.get();
    let step = match step {
        0 => return Ok((pid, fd)),
        2 => Step::Session,
        3 => Step::Streams,
        4 => Step::Limits,
        5 => Step::Credentials,
        6 => Step::Directory,
        _ => Step::Exec,
    };
    reap_now(&fd);
    cell.store(0, Ordering::Release);
    Err(CloneError { step, errno })
}

/// A child that exits at once with this code and has been reaped: something to ask the kernel about.
pub(super) fn vfork_exit(code: i32) -> io::Result<PidFd> {
    extern "C" fn exit_with(data: *const c_void) -> ! {
        // SAFETY: `data` points to the caller's `code`, and the caller stands still.
        let code = unsafe { *data.cast::<i32>() };
        exit_now(code)
    }
    let cell = AtomicI32::new(0);
    let (_, fd) = vfork_into(exit_with, (&raw const code).cast(), &cell).map_err(io::Error::from_raw_os_error)?;
    reap_now(&fd);
    Ok(fd)
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

/// Runs `entry(data)` in a new process that shares our memory, until it executes a program or exits. Returns the errno on failure.
fn vfork_into(entry: extern "C" fn(*const c_void) -> !, data: *const c_void, cell: &AtomicI32) -> Result<(u32, PidFd), i32> {
    let stack = Stack::new().map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
    let mut fd: RawFd = -1;
    let args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID) as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut fd) as u64,
        parent_tid: cell.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.base as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    // No signal may reach the child before it has executed its program: it would run on this thread's data.
    let blocked = SignalsBlocked::new();
    // SAFETY: the stack is our own and outlives the child's use of it, because CLONE_VFORK holds this thread until the child has executed its
    // program or exited; `entry` never returns; `data`, `fd` and `cell` live in frames of this thread, which stand still.
    let result = unsafe { clone3(&raw const args, entry, data) };
    drop(blocked);
    if result < 0 {
        cell.store(0, Ordering::Release);
        return Err(i32::try_from(-result).unwrap_or(libc::EINVAL));
    }
    // SAFETY: clone3 succeeded, so the kernel stored a new descriptor in `fd`.
    let fd = PidFd::from_owned(unsafe { OwnedFd::from_raw_fd(fd) });
    u32::try_from(result).map(|pid| (pid, fd)).map_err(|_| libc::EINVAL)
}

/// clone3(2) whose child calls `entry(data)` on the new stack. Returns the PID or a negative errno to the parent.
///
/// # Safety
/// `args` names a stack that nobody else uses, and `entry` never returns.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: *const CloneArgs, entry: extern "C" fn(*const c_void) -> !, data: *const c_void) -> isize {
    let result: isize;
    // SAFETY: the child continues behind `syscall` with rax = 0 on its own, 16-byte aligned stack and goes nowhere but into `entry`; the parent
    // jumps over that. System calls change rcx and r11 only (System V ABI, AMD64 supplement, A.2.1).
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") data,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone3(2) whose child calls `entry(data)` on the new stack. Returns the PID or a negative errno to the parent.
///
/// # Safety
/// `args` names a stack that nobody else uses, and `entry` never returns.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: *const CloneArgs, entry: extern "C" fn(*const c_void) -> !, data: *const c_void) -> isize {
    let result: isize;
    // SAFETY: as on x86_64; `svc 0` changes x0 only (Linux system call convention, syscall(2)).
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x20",
            "brk 1",
            "2:",
            inlateout("x0") args as isize => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") entry,
            in("x21") data,
        );
    }
    result
}

/// The child's whole life before its program. Runs in shared memory while the parent's thread stands still.
extern "C" fn run_child(data: *const c_void) -> ! {
    // SAFETY: `data` points to the `Shared` of the parent's thread, which stands still until we have executed our program or exited.
    let shared = unsafe { &*data.cast::<Shared<'_>>() };
    let Err((step, errno)) = become_program(shared);
    shared.failed.set((step as i32, errno));
    exit_now(127)
}

/// One raw system call of at most four arguments; the errno on failure.
fn call(number: c_long, a: usize, b: usize, c: usize, d: usize) -> Result<usize, i32> {
    // SAFETY: each caller passes what the system call it names expects.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    // SAFETY: reads the errno of this thread, which the parent does not use while it stands still.
    usize::try_from(result).map_err(|_| unsafe { *libc::__errno_location() })
}

fn become_program(shared: &Shared<'_>) -> Result<std::convert::Infallible, (Step, i32)> {
    let program = shared.program;
    let at = |step: Step| move |errno: i32| (step, errno);

    call(libc::SYS_setsid, 0, 0, 0, 0).map_err(at(Step::Session))?;
    for (target, stream) in program.stdio.iter().enumerate() {
        let source = match stream {
            Stdio::Inherit => continue,
            Stdio::Owned(fd) => fd.as_raw_fd() as usize,
            Stdio::LikeStdout => 1,
        };
        call(libc::SYS_dup3, source, target, 0, 0).map_err(at(Step::Streams))?;
    }
    // Whatever a library may have left open without close-on-exec: the program gets its three streams and nothing else (Linux 5.9).
    let _ = call(libc::SYS_close_range, 3, u32::MAX as usize, 0, 0);
    if let Some(limit) = &program.nofile {
        let limit = [limit.soft, limit.hard];
        call(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE as usize, limit.as_ptr() as usize, 0).map_err(at(Step::Limits))?;
    }
    if let Some(Credentials { uid, gid, groups }) = &program.credentials {
        // Raw calls: the C library's would try to change the parent's threads too.
        call(libc::SYS_setgroups, groups.len(), groups.as_ptr() as usize, 0, 0).map_err(at(Step::Credentials))?;
        let (uid, gid) = (*uid as usize, *gid as usize);
        call(libc::SYS_setresgid, gid, gid, gid, 0).map_err(at(Step::Credentials))?;
        call(libc::SYS_setresuid, uid, uid, uid, 0).map_err(at(Step::Credentials))?;
    }
    if let Some(cwd) = &program.cwd {
        call(libc::SYS_chdir, cwd.as_ptr() as usize, 0, 0, 0).map_err(at(Step::Directory))?;
    }
    // Handlers were cleared by the kernel, but an ignored signal (SIGPIPE in every Rust program) would stay ignored for the program.
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
            other => return Err((Step::Exec, other)),
        }
    }
    Err((Step::Exec, errno))
}

/// Leaves without running anything of the parent's exit handlers.
fn exit_now(code: c_int) -> ! {
    // SAFETY: _exit ends the process and touches nothing of the shared memory.
    unsafe { libc::_exit(code) }
}

/// All signals of this thread blocked, until dropped.
struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    fn new() -> Self {
        // SAFETY: both sets live here, and are filled in before they are read.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that pthread_sigmask filled in.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// A mapped stack with an inaccessible page below it, so that an overflow is a crash of the child and no corruption of the daemon.
struct Stack {
    mapping: *mut c_void,
    base: *mut c_void,
}

/// One page is enough to catch an overflow of frames as small as ours; 64 KiB is the largest page of any supported machine.
const GUARD: usize = 64 * 1024;

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the offset lies within the mapping.
        let stack = Self { mapping, base: unsafe { mapping.byte_add(GUARD) } };
        // SAFETY: the range is the lower part of our own mapping.
        if unsafe { libc::mprotect(mapping, GUARD, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the child that used it has executed its program or exited.
        unsafe { libc::munmap(self.mapping, GUARD + STACK) };
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
            nofile: None,
        }
    }

    fn run(program: &Program) -> Result<ExitStatus, CloneError> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let cell = AtomicI32::new(0);
        let result = spawn(program, &cell);
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
        p.argv.push(c_string(vec![b'x'; 8 << 20]).unwrap());
        assert_eq!(failure(&p), (Step::Exec, libc::E2BIG));
        let mut p = program(&["/no/sh"]);
        p.candidates = [text.parent().unwrap().join("none").to_str().unwrap(), "/bin/true"].map(|c| c_string(c).unwrap()).into();
        assert_eq!(run(&p), Ok(ExitStatus::Exited(0)), "the next directory of PATH is tried");
    }
}
