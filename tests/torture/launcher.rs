//! Between the service manager and the daemon: takes the descriptors that were kept, which come to lie from 3 on, and becomes the daemon.
//!
//! A process of its own does it, because only the daemon itself knows its PID (`LISTEN_PID`), and because a fork of a program with threads may do little.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use procman::procfs;

/// The first argument that asks for this role; behind it stands the daemon's command line. The descriptors come over standard input, a
/// datagram socket; to standard output goes when the daemon was executed.
pub(crate) const ROLE: &str = "--as-launcher";

/// Descriptors in one message; the kernel takes 253 (`SCM_MAX_FD`).
pub(crate) const BATCH: usize = 200;
/// The message behind the last one.
pub(crate) const END: &[u8] = b":";

/// The first descriptor that is passed on (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

pub(crate) fn launch(command: &[String]) -> ExitCode {
    close_others();
    let names = take_descriptors();
    let (program, arguments) = command.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if !names.is_empty() {
        let pid = std::process::id().to_string();
        command.env("LISTEN_PID", pid).env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    }
    // From here on it counts how long the daemon takes.
    println!("{}", procfs::monotonic().as_micros());
    command.stdout(Stdio::null());
    panic!("{}", command.exec());
}

/// Nothing else may lie where the descriptors are to come.
fn close_others() {
    let open: Vec<RawFd> =
        fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    for fd in open.into_iter().filter(|fd| *fd >= FIRST) {
        let _ = nix::unistd::close(fd); // the directory's own is closed already
    }
}

/// They are given the lowest numbers that are free, and stay open on exec. Their names.
fn take_descriptors() -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let mut buffer = vec![0; 64 << 10];
        let mut control = nix::cmsg_space!([RawFd; BATCH]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(std::io::stdin().as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
        let length = message.bytes;
        for control in message.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(fds) = control else { panic!("{control:?}") };
            let first = FIRST + RawFd::try_from(names.len()).unwrap();
            assert!(fds.iter().copied().eq((first..).take(fds.len())), "{fds:?} do not lie from {first} on");
            let text = std::str::from_utf8(message.iovs().next().unwrap()).unwrap();
            names.extend(text.split(':').map(str::to_owned));
        }
        if buffer[..length] == *END {
            return names;
        }
    }
}
