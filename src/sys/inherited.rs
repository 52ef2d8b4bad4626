//! Descriptors that were handed to this process at its start (sd_listen_fds(3)), and that it hands to the program that takes its place.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

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

/// As long may a variable of the environment be, with its name (execve(2): 128 KiB, less what nobody has counted).
const MAX_NAMES: usize = 120 << 10;

/// Those that fit, from the first on: their names are one variable.
fn fitting(mut descriptors: Vec<(String, OwnedFd)>) -> Vec<(String, OwnedFd)> {
    let mut length = 0;
    let fit = descriptors.iter().take_while(|(name, _)| {
        length += name.len() + 1;
        length <= MAX_NAMES
    });
    descriptors.truncate(fit.count());
    descriptors
}

/// Executes a program in this process, which takes these, the first of them where they are too many, with [`take`]. Nothing of this program may be running
/// any more but the calling thread. Limits stay as they are: with a lower one on descriptors than it inherits, the program could open no library.
///
/// # Errors
/// The program cannot be executed; some descriptors of this process may have been closed by then, so it can do nothing but end.
pub fn execute(program: &Path, arguments: &[OsString], descriptors: Vec<(String, OwnedFd)>) -> io::Result<Infallible> {
    let descriptors = fitting(descriptors);
    let beyond = FIRST + RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    // First out of the way of the numbers that they get, then there.
    let (mut names, mut moved) = (Vec::with_capacity(descriptors.len()), Vec::with_capacity(descriptors.len()));
    for (name, fd) in descriptors {
        let high = if fd.as_raw_fd() >= beyond {
            fd.into_raw_fd()
        } else {
            // SAFETY: fcntl with these arguments touches no memory of ours.
            match check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, beyond) }.into()) {
                Ok(high) => RawFd::try_from(high).map_err(io::Error::other)?,
                Err(_) => break, // there is no number left; without those that follow all goes on, too
            }
        };
        names.push(name);
        moved.push(high);
    }
    let count = moved.len();
    for (target, source) in (FIRST..).zip(moved) {
        // SAFETY: whoever had the number has no thread any more to use it with; without O_CLOEXEC it stays open.
        check(unsafe { libc::dup3(source, target, 0) }.into())?;
    }
    let mut command = Command::new(program);
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names.join(":"));
    Err(command.exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_handed_over_as_have_room_for_their_names() {
        let descriptors = |count: usize| -> Vec<(String, OwnedFd)> {
            // Descriptors are scarce where tests run.
            (0..count).map(|i| (format!("{i:0>9999}"), std::fs::File::open("/dev/null").unwrap().into())).collect()
        };
        assert_eq!(fitting(descriptors(12)).len(), 12);
        let fit = fitting(descriptors(20));
        assert_eq!((fit.len(), fit[11].0.ends_with("11")), (12, true), "the first");
    }
}
