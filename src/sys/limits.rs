//! Resource limits (getrlimit(2)).

use std::fs;
use std::io;

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

/// How many descriptors this process has open.
pub fn open_descriptors() -> io::Result<u64> {
    // The size of that directory is their number since Linux 6.2, and 0 before (proc_pid_fd(5)).
    match fs::metadata("/proc/self/fd")?.len() {
        0 => Ok(fs::read_dir("/proc/self/fd")?.count() as u64),
        count => Ok(count),
    }
}

/// How many descriptors this process may have open.
pub fn open_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Raises the daemon's own soft limit to its hard limit: it holds a handful of descriptors for each sub-process.
///
/// Returns what it was before, because a program that calls select(2) breaks when it inherits more than 1024.
pub fn raise_nofile() -> io::Result<Nofile> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(Nofile { soft, hard })
}
