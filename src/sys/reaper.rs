//! The daemon as the subreaper of its descendants: orphans become its children and are reaped here, the mains are left to their actors.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::check;
use super::pidfd::{ExitStatus, decode};

/// Makes orphaned descendants come to this process instead of to init (`PR_SET_CHILD_SUBREAPER`, Linux 3.4). Not inherited by children.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Whether this process is a subreaper.
pub fn is_subreaper() -> bool {
    let mut value: libc::c_int = 0;
    // SAFETY: `value` outlives the call, which writes one int there.
    let result = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut value, 0, 0, 0) };
    result == 0 && value == 1
}

/// Which children are somebody's: all others are orphans that came to us.
///
/// One lock, held for a few instructions; it orders the spawning threads, the actors and the reaper of orphans.
#[derive(Debug, Default)]
pub struct Mains(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// PID → which entry of it. A PID can be entered anew (reused) before the former owner has left.
    mains: HashMap<u32, u64>,
    entries: u64,
    /// One cell for each spawning thread. The kernel writes the PID of the child there before the child first runs (`CLONE_PARENT_SETTID`).
    cells: Vec<Arc<AtomicI32>>,
}

impl Known {
    fn enter(&mut self, pid: u32) -> u64 {
        self.entries += 1;
        self.mains.insert(pid, self.entries);
        self.entries
    }
}

/// The right to reap one main: dropping it gives the PID up.
#[derive(Debug)]
pub struct MainGuard {
    mains: Arc<Mains>,
    pid: u32,
    entry: u64,
}

impl Mains {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that runs under the lock can panic half-way, so a poisoned value is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cell for one spawning thread.
    pub fn cell(&self) -> Arc<AtomicI32> {
        let cell = Arc::new(AtomicI32::new(0));
        self.lock().cells.push(cell.clone());
        cell
    }

    /// Takes the child in `cell` over as a main and empties the cell.
    pub fn adopt(self: &Arc<Self>, pid: u32, cell: &AtomicI32) -> MainGuard {
        let mut known = self.lock();
        let entry = known.enter(pid);
        cell.store(0, Ordering::Release);
        MainGuard { mains: self.clone(), pid, entry }
    }

    /// Takes a process over as a main that is somebody's child now and may come to us as an orphan.
    pub fn claim(self: &Arc<Self>, pid: u32) -> MainGuard {
        let entry = self.lock().enter(pid);
        MainGuard { mains: self.clone(), pid, entry }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.lock().mains.len() as u64
    }

    /// Whether the child is a main, or is about to become one.
    fn owns(&self, pid: u32) -> bool {
        let known = self.lock();
        known.cells.iter().any(|cell| u32::try_from(cell.load(Ordering::Acquire)) == Ok(pid)) || known.mains.contains_key(&pid)
    }

    /// Reaps ended children that are nobody's, until there is none or a main stands in front of them; that one's owner calls again.
    pub fn reap_orphans(&self, mut reaped: impl FnMut(u32, ExitStatus)) -> io::Result<()> {
        loop {
            let Some((pid, _)) = wait_child(libc::P_ALL, 0, libc::WNOWAIT)? else { return Ok(()) };
            if self.owns(pid) {
                return Ok(());
            }
            if let Some((pid, status)) = wait_child(libc::P_PID, pid, 0)? {
                reaped(pid, status);
            }
        }
    }
}

impl Drop for MainGuard {
    fn drop(&mut self) {
        let mut known = self.mains.lock();
        if known.mains.get(&self.pid) == Some(&self.entry) {
            known.mains.remove(&self.pid);
        }
    }
}

/// One waitid(2) that does not block; `None` when no child has ended or there is no child at all.
fn wait_child(which: libc::idtype_t, id: u32, flags: libc::c_int) -> io::Result<Option<(u32, ExitStatus)>> {
    // SAFETY: all-zero is a valid siginfo_t, and waitid fills it in before it returns 0.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    match check(unsafe { libc::waitid(which, id, &raw mut info, libc::WEXITED | libc::WNOHANG | flags) }.into()) {
        Ok(_) => Ok(decode(&info)),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}
