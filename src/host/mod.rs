//! Questions about every process of the host, whoever started it.
//!
//! Everything here blocks while it walks through `/proc` (some microseconds for each process, but as long as the kernel makes it wait for one
//! that is stuck): async callers use `spawn_blocking`.
//!
//! - [`matcher`]: which command lines are meant;
//! - `kept`: command lines behind descriptors that stay open;
//! - `walk`: one pass over the processes;
//! - this file: the questions.
//!
//! A process that vanishes while it is read, or that the host hides from us, is left out; it never spoils the answer about the others.

pub mod matcher;

mod kept;
mod walk;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use matcher::Matcher;

use crate::procfs::clock::create_time;
use crate::procfs::words::split_cmdline;
use crate::procfs::{Stat, Table};
use crate::protocol::reply::{HostProcess, HostProcessInfo, NamedProcess};
use kept::Kept;
use walk::matches;

/// Answers questions about the host's processes; keeps descriptors open meanwhile, so that the next question is answered sooner.
#[derive(Debug)]
pub struct Host {
    kept: Kept,
    /// When it answered last; `None` when all was closed since.
    answered: Mutex<Option<Instant>>,
}

impl Host {
    /// One that keeps at most about `most` descriptors.
    pub fn new(most: usize) -> Self {
        Self { kept: Kept::new(most), answered: Mutex::new(None) }
    }

    /// Notes that a question was answered. True where descriptors may be open from now on that nobody waits to close: the caller must then call
    /// [`Host::release`] until that says `None`.
    pub fn answered(&self, now: Instant) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).replace(now).is_none()
    }

    /// Closes the descriptors if nothing was answered for so long. Otherwise `Some` tells in what time that may be.
    pub fn release(&self, idle: Duration, now: Instant) -> Option<Duration> {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let left = answered.and_then(|answered| (answered + idle).checked_duration_since(now)).filter(|left| !left.is_zero());
        if left.is_none() {
            // Under the lock: an answer that comes later is the first one again.
            *answered = None;
            self.kept.release();
        }
        left
    }

    /// The matching processes with their state and joined command line, ascending by PID.
    ///
    /// # Errors
    /// `/proc` cannot be read at all, or not every process of it (EMFILE, ENOMEM …): never half an answer.
    pub fn processes(&self, matcher: &Matcher) -> io::Result<Vec<HostProcess>> {
        matches(&self.kept, matcher, |line, proc, content| {
            let Some(stat) = line.stat(proc)? else { return Ok(None) };
            Ok(Some(HostProcess { pid: line.pid, status: stat.state_word().to_owned(), cmdline: words(content).join(" ") }))
        })
    }

    /// The matching processes with their command line and when they were made, ascending by PID.
    ///
    /// # Errors
    /// As for [`Host::processes`].
    pub fn process_info(&self, matcher: &Matcher) -> io::Result<Vec<HostProcessInfo>> {
        matches(&self.kept, matcher, |line, proc, content| {
            let Some(start_time) = line.start_time(proc)? else { return Ok(None) };
            Ok(Some(HostProcessInfo { pid: line.pid, cmdline: words(content), create_time: create_time(start_time) }))
        })
    }

    /// The PIDs of the matching processes, ascending.
    ///
    /// # Errors
    /// As for [`Host::processes`].
    pub fn running_pids(&self, matcher: &Matcher) -> io::Result<Vec<u32>> {
        matches(&self.kept, matcher, |line, _, _| Ok(Some(line.pid)))
    }
}

/// The words of a command line; bytes that are not UTF-8 become U+FFFD.
fn words(content: &[u8]) -> Vec<String> {
    split_cmdline(content).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Every zombie of the host, ascending by PID.
///
/// # Errors
/// `/proc` cannot be read at all, or not every process of it (EMFILE, ENOMEM …): never half an answer.
pub fn zombies() -> io::Result<Vec<NamedProcess>> {
    let zombie = |stat: &Stat| NamedProcess { pid: stat.pid, name: stat.name(), cmdline: Vec::new() };
    Ok(Table::scan()?.iter().filter(|stat| stat.state == b'Z').map(zombie).collect())
}

#[cfg(test)]
mod tests;
