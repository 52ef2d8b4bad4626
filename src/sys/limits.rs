//! Resource limits (getrlimit(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft and hard limit on open descriptors that the daemon was started with; children get it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nofile {
    /// What the process is held to.
    pub soft: u64,
    /// How far it may raise that itself.
    pub hard: u64,
}

/// One resource limit of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which, by the kernel's number (`RLIMIT_…`).
    pub resource: u32,
    /// What the process is held to; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far it may raise that itself.
    pub hard: u64,
}

impl From<Nofile> for Limit {
    fn from(Nofile { soft, hard }: Nofile) -> Self {
        Self { resource: libc::RLIMIT_NOFILE, soft, hard }
    }
}

/// Whether fewer descriptors are free than starts of sub-processes must leave over: an eighth of the soft limit, at most 64.
///
/// A daemon without a free descriptor can take in no client, read no `/proc`, and so neither tell what is wrong nor end anything. The kernel gives
/// the lowest number that is free (open(2)): one above the threshold says that none below it is left.
pub fn descriptors_are_scarce() -> io::Result<bool> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let reserve = (soft / 8).min(64);
    let lowest = match io::stderr().as_fd().try_clone_to_owned() {
        Ok(fd) => fd,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => return Ok(true),
        Err(error) => return Err(error),
    };
    Ok(u64::try_from(lowest.as_raw_fd()).is_ok_and(|lowest| lowest >= soft - reserve))
}

/// Raises the daemon's own soft limit to its hard limit: it holds a handful of descriptors for each sub-process.
///
/// Returns what it was before, because a program that calls select(2) breaks when it inherits more than 1024.
pub fn raise_nofile() -> io::Result<Nofile> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(Nofile { soft, hard })
}
