//! Removes groups on a thread of its own: the kernel's lock on all groups may be held for long, by anybody on the host.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sys::cgroup::Group;

/// How soon a group that could not be removed is tried again: something of it outlived its run, or it is about to be empty.
const RETRY: Duration = Duration::from_millis(100);
/// How long the last groups may take when the daemon leaves.
const LAST: Duration = Duration::from_secs(1);

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Sweeper(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    names: Sender<String>,
    thread: JoinHandle<()>,
}

impl Sweeper {
    /// Sweeps in this group.
    pub(super) fn start(runs: Group) -> std::io::Result<Self> {
        let (names, to_sweep) = channel();
        let thread = std::thread::Builder::new().name("groups".into()).stack_size(128 << 10).spawn(move || work(&runs, &to_sweep))?;
        Ok(Self(Mutex::new(Some(Running { names, thread }))))
    }

    /// Removes this group as soon as it can be.
    pub(super) fn sweep(&self, name: String) {
        if let Some(running) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            drop(running.names.send(name)); // the thread ends after this end of the channel only
        }
    }

    /// Waits until all groups are removed, or cannot be within a second.
    pub(super) fn finish(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { names, thread }) = running {
            drop(names);
            drop(thread.join());
        }
    }
}

impl Sweeper {
    /// Removes nothing any more: what lives is left to a later daemon, and so are the groups.
    pub(super) fn abandon(&self) {
        // The thread may be waiting for something that lives, which it is not to do; the process is about to end.
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|running| running.names));
    }
}

fn work(runs: &Group, to_sweep: &Receiver<String>) {
    let mut left: Vec<String> = Vec::new();
    let mut last: Option<Instant> = None;
    loop {
        let next = if left.is_empty() {
            to_sweep.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            to_sweep.recv_timeout(if last.is_some() { RETRY / 10 } else { RETRY })
        };
        match next {
            Ok(name) if runs.remove_tree(&name).is_ok() => continue,
            Ok(name) => {
                left.push(name);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => left.retain(|name| runs.remove_tree(name).is_err()),
            Err(RecvTimeoutError::Disconnected) => {
                left.retain(|name| runs.remove_tree(name).is_err());
                let began = *last.get_or_insert_with(Instant::now);
                if left.is_empty() || began.elapsed() > LAST {
                    break;
                }
                // A channel without senders does not wait, nor does anybody wait for anything else here.
                std::thread::park_timeout(RETRY / 10);
            }
        }
    }
    if !left.is_empty() {
        tracing::warn!(groups = ?left, "something still lives in these groups, they are left");
    }
}
