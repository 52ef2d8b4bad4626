//! Command lines behind descriptors that stay open from one question to the next.
//!
//! To open `/proc/PID/cmdline` and close it costs more than to read it. Nothing that was read is kept: each question reads anew, and the kernel tells of the
//! process as it is then, also after an exec(2). An open file of `/proc/PID` belongs to the process and not to the number: once that has ended, reading
//! fails with ESRCH, whoever has the PID by then. So does its start time stay what it was, and is read once.
//!
//! Descriptors are scarce: there are at most so many ([`Kept::new`]), processes beyond that are opened for each question, and they are given back when
//! nobody asks any more ([`Kept::release`]). Where `/proc` is mounted with `hidepid=1`, a process that was shown to the daemon and then executes a
//! set-user-ID program is shown until then.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::procfs::Stat;
use crate::procfs::file::{Proc, for_the_living, read_from_start};

/// The command line of one process, behind an open descriptor.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) pid: u32,
    file: File,
    start_time: OnceLock<u64>,
    /// Its place among those kept; without one it goes with the question that opened it.
    place: Option<Arc<()>>,
}

impl Line {
    /// Reads what it is now to the start of `buffer`, and returns how long it is: 0 for a zombie or a kernel thread, `None` when the process is gone.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        for_the_living(read_from_start(&self.file, buffer).map(<[u8]>::len))
    }

    /// What the process's `stat` says now; `None` when it is gone or ended.
    pub(super) fn stat(&self, proc: &mut Proc) -> io::Result<Option<Stat>> {
        let Some(line) = proc.read_of_living(self.pid, "stat")? else { return Ok(None) };
        let stat = Stat::parse(line)?;
        if stat.is_zombie() {
            return Ok(None);
        }
        let known = match self.start_time.get() {
            Some(known) => *known,
            // The PID was this process's when `stat` was read if it still is: what tells is the open file.
            None if self.read(&mut Vec::new())?.is_some() => *self.start_time.get_or_init(|| stat.start_time),
            None => return Ok(None),
        };
        Ok((known == stat.start_time).then_some(stat))
    }

    /// When it was made, in clock ticks since the host booted; `None` when it is gone.
    pub(super) fn start_time(&self, proc: &mut Proc) -> io::Result<Option<u64>> {
        match self.start_time.get() {
            Some(known) => Ok(Some(*known)),
            None => Ok(self.stat(proc)?.map(|stat| stat.start_time)),
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.place.is_some()
    }
}

/// Those that are kept, ascending by PID.
pub(super) type Lines = Arc<[Arc<Line>]>;

/// The descriptors that are kept. Questions that are worked on at the same time share them, and none waits for another.
#[derive(Debug)]
pub(super) struct Kept {
    /// Held only to take the list or put another in its place.
    lines: Mutex<Lines>,
    /// One more for each [`Line`] that has a place.
    places: Arc<()>,
    most: usize,
}

impl Kept {
    /// At most `most` of them, but for a few when several questions open some at the same moment.
    pub(super) fn new(most: usize) -> Self {
        Self { lines: Mutex::new(Arc::new([])), places: Arc::new(()), most }
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the command line of the process that has this PID now; `None` when there is none, or it is hidden.
    pub(super) fn open(&self, pid: u32, proc: &mut Proc) -> io::Result<Option<Arc<Line>>> {
        let Some(file) = for_the_living(proc.open_file(pid, "cmdline"))? else { return Ok(None) };
        let place = (Arc::strong_count(&self.places) <= self.most).then(|| self.places.clone());
        Ok(Some(Arc::new(Line { pid, file, start_time: OnceLock::new(), place })))
    }

    /// These are kept from now on, ascending by PID; all others are closed once no question reads them.
    pub(super) fn replace(&self, lines: Vec<Arc<Line>>) {
        let lines = Lines::from(lines);
        let before = std::mem::replace(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner), lines);
        drop(before); // closes files: not under the lock
    }

    /// Closes all.
    pub(super) fn release(&self) {
        self.replace(Vec::new());
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Host, Matcher};
    use crate::procfs::read_stat;
    use crate::procfs::testing::TestProcess;

    /// As after a PID was used again: the descriptor that is kept under it belongs to one that has ended.
    #[test]
    fn a_pids_next_owner_is_read_and_not_the_one_before() {
        let (mut before, next) = (TestProcess::sleep(), TestProcess::sleep());
        let file = Proc::open().unwrap().open_file(before.id(), "cmdline").unwrap();
        let host = Host::new(100_000);
        let of_before = Line { pid: next.id(), file, start_time: OnceLock::from(1), place: Some(host.kept.places.clone()) };
        host.kept.replace(vec![Arc::new(of_before)]);
        before.end();
        let all = Matcher::new(&[String::new()], true, false);
        for _ in 0..2 {
            let infos = host.process_info(&all).unwrap();
            let info = infos.iter().find(|info| info.pid == next.id()).unwrap();
            let start_time = read_stat(next.id()).unwrap().start_time;
            assert!((info.create_time - crate::procfs::clock::create_time(start_time)).abs() < f64::EPSILON, "{info:?}");
        }
    }

    /// A `stat` that is another process's, because the PID was used again after the line was read, is nobody's answer.
    #[test]
    fn the_stat_of_a_pids_next_owner_is_left_out() {
        let (mut before, next) = (TestProcess::sleep(), TestProcess::sleep());
        let mut proc = Proc::open().unwrap();
        let line = |file, start_time| Line { pid: next.id(), file, start_time, place: None };
        let known = line(proc.open_file(before.id(), "cmdline").unwrap(), OnceLock::from(1));
        let unknown = line(proc.open_file(before.id(), "cmdline").unwrap(), OnceLock::new());
        before.end();
        assert!(known.stat(&mut proc).unwrap().is_none());
        assert!(unknown.stat(&mut proc).unwrap().is_none());
        assert!(unknown.start_time(&mut proc).unwrap().is_none());
    }
}
