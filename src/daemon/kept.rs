//! Descriptors that somebody keeps for the next daemon: the service manager's descriptor store (sd_notify(3), `FDSTORE=1`), from which they come back
//! at the next start (sd_listen_fds(3)).
//!
//! What is kept there is worth most when a process ends while no daemon lives: its descriptor tells how it ended (`PIDFD_INFO_EXIT`, Linux 6.15), and
//! what a service says of itself meanwhile waits in its socket.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::sys::inherited;

/// Hands descriptors to the service manager, on a thread of its own: who hands over never waits for that one.
#[derive(Debug)]
pub(super) struct Depository {
    /// Where there is one that keeps them.
    messages: Option<Sender<Message>>,
    /// What it has.
    kept: Mutex<HashSet<String>>,
}

#[derive(Debug)]
enum Message {
    Keep(String, OwnedFd),
    GiveUp(String),
    /// All before this is handed over once it is dropped.
    Flush(#[allow(dead_code)] Sender<()>),
}

/// What came back, by name. To be called once, before there are threads: it takes the variables of sd_listen_fds(3) out of the environment.
pub fn take() -> HashMap<String, OwnedFd> {
    inherited::take()
}

impl Depository {
    /// One that gives everything to the service manager, if there is one.
    pub(super) fn new(came_back: &HashMap<String, OwnedFd>) -> Self {
        let kept = Mutex::new(came_back.keys().cloned().collect());
        let messages = std::env::var_os("NOTIFY_SOCKET").and_then(|_| {
            let (messages, to_send) = channel();
            let thread =
                std::thread::Builder::new().name("depository".into()).stack_size(128 << 10).spawn(move || to_send.iter().for_each(send));
            thread.inspect_err(|error| tracing::warn!(%error, "no descriptors are kept for a later daemon")).ok().map(|_| messages)
        });
        Self { messages, kept }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a descriptor kept under a name.
    pub(super) fn keep(&self, name: &str, fd: BorrowedFd<'_>) {
        let Some(messages) = &self.messages else { return };
        match fd.try_clone_to_owned() {
            Ok(fd) => {
                self.lock().insert(name.to_owned());
                drop(messages.send(Message::Keep(name.to_owned(), fd))); // the thread ends with the last sender
            }
            Err(error) => tracing::debug!(name, %error, "this descriptor is not kept for a later daemon"),
        }
    }

    /// The same, for one that may have come back from there.
    pub(super) fn keep_new(&self, name: &str, fd: BorrowedFd<'_>) {
        let is_kept = self.lock().contains(name);
        if !is_kept {
            self.keep(name, fd);
        }
    }

    /// Whether somebody keeps anything at all.
    pub(super) fn keeps(&self) -> bool {
        self.messages.is_some()
    }

    /// Has it kept no longer.
    pub(super) fn give_up(&self, name: &str) {
        if let Some(messages) = &self.messages
            && self.lock().remove(name)
        {
            drop(messages.send(Message::GiveUp(name.to_owned())));
        }
    }

    /// Blocks until everything is handed over, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        let Some(messages) = &self.messages else { return };
        let (done, wait) = channel();
        drop(messages.send(Message::Flush(done)));
        let _ = wait.recv_timeout(patience); // it hangs up, or takes too long
    }
}

fn send(message: Message) {
    let (name, result) = match &message {
        // Without FDPOLL=0 it would be dropped as soon as it is readable or hung up: when its process has ended, which is when it is needed.
        Message::Keep(name, fd) => {
            let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
            (name, sd_notify::notify_with_fds(&states, &[fd.as_fd()]))
        }
        Message::GiveUp(name) => (name, sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])),
        Message::Flush(_) => return,
    };
    if let Err(error) = result {
        tracing::debug!(name, %error, "the service manager does not listen");
    }
}
