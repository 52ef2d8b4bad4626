//! The only room with `unsafe` and raw system calls. It knows nobody of the crate.
//!
//! - [`accept`]: new connections where descriptors are used up;
//! - [`addresses`]: which addresses this host has;
//! - [`pidfd`]: a process held by descriptor: signal it, wait for it, reap it;
//! - [`cgroup`]: a process tree held by a control group;
//! - [`clone`]: a new process straight into its program, without copying the daemon;
//! - [`reaper`]: orphans that came to the daemon as their subreaper;
//! - [`crash`]: moments at which tests kill the daemon;
//! - [`curve`]: keys, by libzmq;
//! - [`datagram`]: messages of other processes, and who sent them;
//! - [`inherited`]: descriptors that were handed to this process at its start;
//! - [`signals`]: which signals reach this process;
//! - [`mod@file`]: holes in files, and the room of their file systems;
//! - [`limits`]: resource limits of the daemon and what its children get back;
//! - [`readiness`]: descriptors that the runtime waits for;
//! - [`wall_timer`]: timers of the clock on the wall;
//! - [`probe`]: what this kernel can do.
#![allow(unsafe_code)]

pub mod accept;
pub mod addresses;
pub mod cgroup;
pub mod clone;
pub mod crash;
pub mod curve;
pub mod datagram;
pub mod file;
pub mod inherited;
pub mod limits;
pub mod pidfd;
pub mod probe;
pub mod readiness;
pub mod reaper;
pub mod signals;
pub mod wall_timer;

use std::io;

/// The symbolic name of an errno, such as `ENOENT` (errno(3)).
pub fn errno_name(errno: i32) -> String {
    let known = nix::errno::Errno::from_raw(errno);
    if known == nix::errno::Errno::UnknownErrno { format!("errno {errno}") } else { format!("{known:?}") }
}

/// What the C library says of an errno, such as "No such file or directory".
pub fn errno_message(errno: i32) -> &'static str {
    nix::errno::Errno::from_raw(errno).desc()
}

/// Turns the −1 of a raw system call into the error that it stands for.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
