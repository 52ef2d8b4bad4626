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
use std::ops::ControlFlow;

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
    let mut found = Vec::new();
    each_living_match(matcher, |stat, words| {
        found.push(HostProcess { pid: stat.pid, status: stat.state_word().to_owned(), cmdline: words.join(" ") });
    })?;
    Ok(found)
}

/// The matching processes with their command line and when they were made, ascending by PID.
///
/// # Errors
/// As for [`processes`].
pub fn process_info(matcher: &Matcher) -> io::Result<Vec<HostProcessInfo>> {
    let mut found = Vec::new();
    each_living_match(matcher, |stat, cmdline| {
        found.push(HostProcessInfo { pid: stat.pid, cmdline, create_time: create_time(stat.start_time) });
    })?;
    Ok(found)
}

/// The PIDs of the matching processes, ascending.
///
/// # Errors
/// As for [`processes`].
pub fn running_pids(matcher: &Matcher) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    each_match(matcher, |_, pid, _| {
        found.push(pid);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The lowest PID of the matching processes; reads no further once it has it.
///
/// # Errors
/// As for [`processes`].
pub fn running_pid(matcher: &Matcher) -> io::Result<Option<u32>> {
    let mut found = None;
    each_match(matcher, |_, pid, _| {
        found = Some(pid);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Every zombie of the host, ascending by PID.
///
/// # Errors
/// As for [`processes`].
pub fn zombies() -> io::Result<Vec<NamedProcess>> {
    let zombie = |stat: &Stat| NamedProcess { pid: stat.pid, name: stat.name(), cmdline: Vec::new() };
    Ok(Table::scan()?.iter().filter(|stat| stat.state == b'Z').map(zombie).collect())
}

/// Hands out each matching process with its words, if it still lives when its `stat` is read.
fn each_living_match(matcher: &Matcher, mut take: impl FnMut(Stat, Vec<String>)) -> io::Result<()> {
    each_match(matcher, |proc, pid, content| {
        let words = split_cmdline(content).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if let Some(line) = proc.read_of_living(pid, "stat")? {
            let stat = Stat::parse(line)?;
            if !stat.is_zombie() {
                take(stat, words);
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Hands out the PID and the command line of each matching process, and a reader for more about it. Nothing is allocated for the others.
fn each_match(matcher: &Matcher, mut take: impl FnMut(&mut Proc, u32, &[u8]) -> io::Result<ControlFlow<()>>) -> io::Result<()> {
    if matcher.matches_nothing() {
        return Ok(());
    }
    let (mut lines, mut rest) = (Proc::open()?, Proc::open()?);
    let mut folded = Vec::new();
    for pid in pids()? {
        if let Some(content) = lines.read_of_living(pid, "cmdline")?
            && matcher.matches_content(content, &mut folded)
            && take(&mut rest, pid, content)?.is_break()
        {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
