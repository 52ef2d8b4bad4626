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

/// Descriptors that starts leave alone: clients that connect, scrapes, looks at `/proc` and the ends of what runs need some, and the ZeroMQ library
/// (4.3) ends the whole program when it finds none for a new connection.
#[derive(Clone, Copy, Debug)]
pub struct Reserve {
    /// How many may be in use before it is touched.
    most: u64,
}

/// The least and the most that are kept back.
const RESERVE: std::ops::RangeInclusive<u64> = 32..=512;

impl Reserve {
    /// A sixteenth of what this process may have now, 32 to 512.
    pub fn new() -> io::Result<Self> {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self { most: soft.saturating_sub((soft / 16).clamp(*RESERVE.start(), *RESERVE.end())) })
    }

    /// Whether so many are in use, or will be with these more, that the reserve is touched.
    pub fn is_touched(&self, more: u64) -> bool {
        open_descriptors().is_ok_and(|open| open.saturating_add(more) > self.most)
    }
}

/// How many descriptors this process has open.
fn open_descriptors() -> io::Result<u64> {
    // The size of that directory is their number since Linux 6.2, and 0 before (proc_pid_fd(5)).
    match fs::metadata("/proc/self/fd")?.len() {
        0 => Ok(fs::read_dir("/proc/self/fd")?.count() as u64),
        count => Ok(count),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_touched_once_too_many_are_open() {
        let open = open_descriptors().unwrap();
        assert!(open >= 3 && !Reserve { most: open + 1000 }.is_touched(10));
        assert!(Reserve { most: open + 1000 }.is_touched(2000) && Reserve { most: 1 }.is_touched(0));
    }
}
