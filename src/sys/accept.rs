//! libzmq's way to new connections (accept4(2)), which must not be told that descriptors are used up.
//!
//! libzmq 4 ends the whole process with an assertion when a connection to an ipc endpoint is accepted and the process has no descriptor left
//! (`ipc_listener.cpp`: EMFILE is missing among the errors that it passes over, ENFILE is there). A daemon that ends so leaves all its sub-processes
//! alone, and whoever may connect could bring that about. So the C library's function is replaced by one that says ENFILE instead; libzmq then leaves
//! the connection where it is, and takes it once there is room.

use std::ptr;

use libc::{c_int, sockaddr, socklen_t, timespec};

/// What libzmq's thread waits before it is told, because it would ask again at once: long enough that this costs next to no processor time, short
/// enough that the connections that are there are served meanwhile.
const PAUSE: timespec = timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Takes a connection: accept4(2) for the whole process, but for the error that libzmq cannot bear.
///
/// # Safety
/// As for accept4(2): `address` is null, or `length` says how many bytes there may be written.
// SAFETY: it keeps what the C library's function of this name promises.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(socket: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int {
    // SAFETY: the arguments are handed on as they came.
    let result = unsafe { libc::syscall(libc::SYS_accept4, socket, address, length, flags) };
    if result < 0 && nix::errno::Errno::last() == nix::errno::Errno::EMFILE {
        // SAFETY: the time is valid, and a null pointer is allowed for what is left of it.
        unsafe { libc::nanosleep(&PAUSE, ptr::null_mut()) };
        nix::errno::Errno::ENFILE.set();
    }
    // A descriptor is a C int.
    c_int::try_from(result).unwrap_or(-1)
}
