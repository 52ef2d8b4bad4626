//! Descriptors that were handed to this process at its start (sd_listen_fds(3)).

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::check;

/// The first of them (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Takes them, by their names (`$LISTEN_FDNAMES`); none where they are meant for another process. Of several with one name, the first. None of them is
/// passed on to children. To be called once, while there is one thread only: it changes the environment.
pub fn take() -> HashMap<String, OwnedFd> {
    let variable = |name: &str| std::env::var(name).ok();
    let (pid, count, names) = (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        // SAFETY: there is one thread only, as this is called before any other is made.
        unsafe { std::env::remove_var(name) };
    }
    if pid.and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return HashMap::new();
    }
    let count: RawFd = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    let names: Vec<String> = names.unwrap_or_default().split(':').map(str::to_owned).collect();
    let mut taken = HashMap::new();
    for (offset, fd) in (FIRST..FIRST.saturating_add(count)).enumerate() {
        // SAFETY: fcntl with these arguments touches no memory of ours; a number that is no descriptor is EBADF.
        if check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into()).is_err() {
            continue;
        }
        // SAFETY: whoever started this process says that this descriptor is ours, it is open, and nobody else has taken it: this is called once.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        taken.entry(names.get(offset).cloned().unwrap_or_default()).or_insert(fd);
    }
    taken
}
