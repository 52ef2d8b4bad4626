//! Questions about every process of the host, whoever started it.
//!
//! Everything here blocks while it walks through `/proc` (some microseconds for each process, but as long as the kernel makes it wait for one
//! that is stuck): async callers use `spawn_blocking`.
//!
//! - [`matcher`]: which command lines are meant;
//! - this file: the questions.
//!
//! A process that vanishes while it is read, or that the host hides from us, is left out; it never spoils the answer about the others.

pub mod matcher;

use std::io;
use std::thread;

pub use matcher::Matcher;

use crate::procfs::clock::create_time;
use crate::procfs::file::{Proc, pids};
use crate::procfs::words::split_cmdline;
use crate::procfs::{Stat, Table};
use crate::protocol::reply::{HostProcess, HostProcessInfo, NamedProcess};

/// The matching processes with their state and joined command line, ascending by PID.
///
/// # Errors
/// `/proc` cannot be read at all, or not every process of it (EMFILE, ENOMEM …): never half an answer.
pub fn processes(matcher: &Matcher) -> io::Result<Vec<HostProcess>> {
    living_matches(matcher, |stat, words| HostProcess { pid: stat.pid, status: stat.state_word().to_owned(), cmdline: words.join(" ") })
}

/// The matching processes with their command line and when they were made, ascending by PID.
///
/// # Errors
/// As for [`processes`].
pub fn process_info(matcher: &Matcher) -> io::Result<Vec<HostProcessInfo>> {
    living_matches(matcher, |stat, cmdline| HostProcessInfo { pid: stat.pid, cmdline, create_time: create_time(stat.start_time) })
}

/// The PIDs of the matching processes, ascending.
///
/// # Errors
/// As for [`processes`].
pub fn running_pids(matcher: &Matcher) -> io::Result<Vec<u32>> {
    matches(matcher, |_, pid, _| Ok(Some(pid)))
}

/// The lowest PID of the matching processes; reads no further once it has it.
///
/// # Errors
/// As for [`processes`].
pub fn running_pid(matcher: &Matcher) -> io::Result<Option<u32>> {
    if matcher.matches_nothing() {
        return Ok(None);
    }
    Walk::new(matcher)?.first(&pids()?)
}

/// Every zombie of the host, ascending by PID.
///
/// # Errors
/// As for [`processes`].
pub fn zombies() -> io::Result<Vec<NamedProcess>> {
    let zombie = |stat: &Stat| NamedProcess { pid: stat.pid, name: stat.name(), cmdline: Vec::new() };
    Ok(Table::scan()?.iter().filter(|stat| stat.state == b'Z').map(zombie).collect())
}

/// What `make` makes of each matching process and its words, if it still lives when its `stat` is read.
fn living_matches<T: Send>(matcher: &Matcher, make: impl Fn(Stat, Vec<String>) -> T + Sync) -> io::Result<Vec<T>> {
    matches(matcher, |proc, pid, content| {
        let words = split_cmdline(content).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let Some(line) = proc.read_of_living(pid, "stat")? else { return Ok(None) };
        let stat = Stat::parse(line)?;
        Ok((!stat.is_zombie()).then(|| make(stat, words)))
    })
}

/// Processes for which a thread more is worth its making: the kernel takes some microseconds for each, a thread costs some tens of them.
const WORTH_A_THREAD: usize = 100;
/// Threads of one walk at most: whoever asks shall not have the whole host to itself.
const MOST_THREADS: usize = 4;

/// What `take` makes of the PID and the command line of each matching process, ascending by PID; it gets a reader for more about it. Nothing is allocated for
/// the others. Where there are many processes, several threads read at the same time, each its part of the PIDs.
fn matches<T: Send>(matcher: &Matcher, take: impl Fn(&mut Proc, u32, &[u8]) -> io::Result<Option<T>> + Sync) -> io::Result<Vec<T>> {
    if matcher.matches_nothing() {
        return Ok(Vec::new());
    }
    let pids = pids()?;
    let threads = (pids.len() / WORTH_A_THREAD).clamp(1, MOST_THREADS).min(thread::available_parallelism().map_or(1, usize::from));
    let mut parts = pids.chunks(pids.len().div_ceil(threads).max(1));
    let own = parts.next().unwrap_or_default();
    let look = |part: &[u32]| Walk::new(matcher)?.all(part, &take);
    thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|part| {
                // Where no thread is to be had, it is looked at here.
                let look = &look;
                (part, thread::Builder::new().stack_size(THREAD_STACK).spawn_scoped(scope, move || look(part)))
            })
            .collect();
        let mut found = look(own)?;
        for (part, other) in others {
            found.extend(match other {
                Ok(other) => other.join().map_err(|_| io::Error::other("a thread that looked at processes failed"))??,
                Err(_) => look(part)?,
            });
        }
        Ok(found)
    })
}

/// The stack of a thread that walks: it keeps nothing large there.
const THREAD_STACK: usize = 256 << 10;

/// One walk over some processes.
struct Walk<'m> {
    matcher: &'m Matcher,
    lines: Proc,
    rest: Proc,
    folded: Vec<u8>,
}

impl<'m> Walk<'m> {
    fn new(matcher: &'m Matcher) -> io::Result<Self> {
        Ok(Self { matcher, lines: Proc::open()?, rest: Proc::open()?, folded: Vec::new() })
    }

    fn all<T>(&mut self, pids: &[u32], take: impl Fn(&mut Proc, u32, &[u8]) -> io::Result<Option<T>>) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for pid in pids {
            if let Some(content) = self.lines.read_of_living(*pid, "cmdline")?
                && self.matcher.matches_content(content, &mut self.folded)
            {
                found.extend(take(&mut self.rest, *pid, content)?);
            }
        }
        Ok(found)
    }

    fn first(&mut self, pids: &[u32]) -> io::Result<Option<u32>> {
        for pid in pids {
            if let Some(content) = self.lines.read_of_living(*pid, "cmdline")?
                && self.matcher.matches_content(content, &mut self.folded)
            {
                return Ok(Some(*pid));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
