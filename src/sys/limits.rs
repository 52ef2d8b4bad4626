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

/// The lowest number that a new descriptor would get now (dup(2)); `None` when there is none left.
pub fn lowest_free_descriptor() -> io::Result<Option<u64>> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(fd) => Ok(u64::try_from(fd.as_raw_fd()).ok()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Raises the daemon's own soft limit to its hard limit: it holds a handful of descriptors for each sub-process.
///
/// Returns what it was before, because a program that calls select(2) breaks when it inherits more than 1024.
pub fn raise_nofile() -> io::Result<Nofile> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(Nofile { soft, hard })
}
