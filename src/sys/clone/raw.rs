//! clone(2) and clone3(2) of a child that shares our memory, which the C library offers in no form that keeps still.

use std::ffi::{c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::sys::pidfd::PidFd;

/// What the child runs, instead of returning.
pub(super) type Entry = extern "C" fn(*const c_void) -> !;

/// Which system call makes the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// clone3(2), straight into a group where one is wanted (Linux 5.7).
    New,
    /// clone(2), where an older kernel or a filter of system calls (seccomp(2), as container engines set it) refuses the other. The child enters its
    /// group itself.
    Old,
}

/// A filter that refused clone3(2) once refuses it for ever: it cannot be taken off.
static REFUSED: AtomicBool = AtomicBool::new(false);

impl Way {
    /// The better one, as far as is known.
    pub(super) fn best() -> Self {
        if REFUSED.load(Ordering::Relaxed) { Self::Old } else { Self::New }
    }

    /// The way to try when this one ended with this errno.
    pub(super) fn after(self, errno: i32) -> Option<Self> {
        match (self, errno) {
            // What is no system call here, or is filtered: no namespace is asked for, for which clone3 itself would say EPERM.
            (Self::New, libc::ENOSYS | libc::EPERM) => {
                REFUSED.store(true, Ordering::Relaxed);
                Some(Self::Old)
            }
            // A flag or a field that this kernel does not know.
            (Self::New, libc::EINVAL | libc::E2BIG) => Some(Self::Old),
            (Self::New | Self::Old, _) => None,
        }
    }
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
/// The child begins in the group of `clone_args.cgroup` (Linux 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What both ways have in common.
const COMMON: libc::c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// Enough for the frames of a child, which hold no buffers, and for a signal frame of the largest vector unit.
const STACK: usize = 64 * 1024;

/// Runs `entry(data)` in a new process that shares our memory, until it executes a program or exits. Returns the errno on failure.
///
/// The kernel writes its PID to `cell` before it runs anything, let alone ends. `group` is for [`Way::New`] alone.
pub(super) fn vfork_into(
    way: Way,
    group: Option<BorrowedFd<'_>>,
    entry: Entry,
    data: *const c_void,
    cell: &AtomicI32,
) -> Result<(u32, PidFd), i32> {
    let stack = Stack::new().map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
    let mut fd: RawFd = -1;
    let group = group.and_then(|group| u64::try_from(group.as_raw_fd()).ok());
    let args = CloneArgs {
        flags: (COMMON | libc::CLONE_PARENT_SETTID) as u64 | CLONE_CLEAR_SIGHAND | group.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: (&raw mut fd) as u64,
        parent_tid: cell.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.base as u64,
        stack_size: STACK as u64,
        cgroup: group.unwrap_or_default(),
        ..CloneArgs::default()
    };
    let (number, arguments) = match way {
        Way::New => (libc::SYS_clone3, [(&raw const args) as usize, size_of::<CloneArgs>(), 0, 0, 0]),
        // CLONE_PIDFD takes the place of CLONE_PARENT_SETTID here; CLONE_CHILD_SETTID writes to the same shared memory, in the child, before
        // that runs its first instruction. Our handlers stay the child's until it resets them; all signals are blocked so long.
        Way::Old => {
            let flags = (COMMON | libc::CLONE_CHILD_SETTID | libc::SIGCHLD) as usize;
            let (top, fd, child_tid) = (stack.base as usize + STACK, (&raw mut fd) as usize, cell.as_ptr() as usize);
            #[cfg(target_arch = "x86_64")]
            let arguments = [flags, top, fd, child_tid, 0];
            #[cfg(target_arch = "aarch64")]
            let arguments = [flags, top, fd, 0, child_tid];
            (libc::SYS_clone, arguments)
        }
    };
    // No signal may reach the child before it has executed its program: it would run on this thread's data.
    let blocked = SignalsBlocked::new();
    // SAFETY: the stack is our own and outlives the child's use of it, because CLONE_VFORK holds this thread until the child has executed its
    // program or exited; `entry` never returns; `data`, `args`, `fd` and `cell` live in frames of this thread, which stand still.
    let result = unsafe { clone(number, arguments, entry, data) };
    drop(blocked);
    if result < 0 {
        cell.store(0, Ordering::Release);
        return Err(i32::try_from(-result).unwrap_or(libc::EINVAL));
    }
    // SAFETY: the call succeeded, so the kernel stored a new descriptor in `fd`.
    let fd = PidFd::from_owned(unsafe { OwnedFd::from_raw_fd(fd) });
    u32::try_from(result).map(|pid| (pid, fd)).map_err(|_| libc::EINVAL)
}

/// The system call `number`, whose child calls `entry(data)` on the new stack. Returns the PID or a negative errno to the parent.
///
/// # Safety
/// It is clone or clone3, `arguments` name a stack that nobody else uses, 16-byte aligned, and `entry` never returns.
#[cfg(target_arch = "x86_64")]
unsafe fn clone(number: c_long, arguments: [usize; 5], entry: Entry, data: *const c_void) -> isize {
    let result: isize;
    // SAFETY: the child continues behind `syscall` with rax = 0 on its own stack and goes nowhere but into `entry`; the parent jumps over that.
    // System calls change rcx and r11 only (System V ABI, AMD64 supplement, A.2.1).
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
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r12") entry,
            in("r13") data,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// The system call `number`, whose child calls `entry(data)` on the new stack. Returns the PID or a negative errno to the parent.
///
/// # Safety
/// It is clone or clone3, `arguments` name a stack that nobody else uses, 16-byte aligned, and `entry` never returns.
#[cfg(target_arch = "aarch64")]
unsafe fn clone(number: c_long, arguments: [usize; 5], entry: Entry, data: *const c_void) -> isize {
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
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x8") number,
            in("x20") entry,
            in("x21") data,
        );
    }
    result
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
