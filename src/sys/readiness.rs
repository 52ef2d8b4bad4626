//! Descriptors that the runtime waits for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::check;
use super::pidfd::PidFd;

/// Waits for the end of a process in the runtime that this is called in.
pub fn watch(fd: PidFd) -> io::Result<AsyncFd<PidFd>> {
    // SAFETY: a PidFd owns its descriptor, and never shows another one for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Waits for a descriptor that belongs to a library (`ZMQ_FD`): on a duplicate, so that it stays open for as long as somebody waits.
pub fn watch_duplicate(fd: RawFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: fcntl with these arguments touches no memory of ours; a number that is no descriptor is EBADF.
    let duplicate = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }.into())?;
    let duplicate = RawFd::try_from(duplicate).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    let duplicate = unsafe { OwnedFd::from_raw_fd(duplicate) };
    // SAFETY: an OwnedFd shows the same open descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) }?)
}
