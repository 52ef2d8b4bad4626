//! Descriptors that somebody keeps for the next daemon: the service manager's descriptor store (sd_notify(3), `FDSTORE=1`), from which they come back
//! at the next start (sd_listen_fds(3)).
//!
//! What is kept there is worth most when a process ends while no daemon lives: its descriptor tells how it ended (`PIDFD_INFO_EXIT`, Linux 6.15), and
//! what a service says of itself meanwhile waits in its socket.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys::inherited;

use super::service_manager::ServiceManager;

/// Hands descriptors to the service manager. Who hands over never waits for that one.
#[derive(Debug)]
pub(super) struct Depository(ServiceManager);

/// What came back, by name. To be called once, before there are threads: it takes the variables of sd_listen_fds(3) out of the environment.
pub fn take() -> HashMap<String, OwnedFd> {
    inherited::take()
}

impl Depository {
    /// One that gives everything to this service manager.
    pub(super) fn new(service_manager: ServiceManager) -> Self {
        Self(service_manager)
    }

    /// Has a descriptor kept under a name.
    pub(super) fn keep(&self, name: &str, fd: BorrowedFd<'_>) {
        if !self.keeps() {
            return;
        }
        match fd.try_clone_to_owned() {
            Ok(fd) => {
                if self.0.with(|outbox| outbox.keep(name, fd)) == Some(false) {
                    tracing::debug!(name, "the service manager does not listen, this descriptor is not kept for a later daemon");
                }
            }
            Err(error) => tracing::debug!(name, %error, "this descriptor is not kept for a later daemon"),
        }
    }

    /// The same, for one that may have come back from there.
    pub(super) fn keep_new(&self, name: &str, fd: BorrowedFd<'_>) {
        if self.0.with(|outbox| outbox.has(name)) == Some(false) {
            self.keep(name, fd);
        }
    }

    /// Whether somebody keeps anything at all.
    pub(super) fn keeps(&self) -> bool {
        self.0.is_there()
    }

    /// Has it kept no longer.
    pub(super) fn give_up(&self, name: &str) {
        self.0.with(|outbox| outbox.give_up(name));
    }

    /// Blocks until everything is handed over, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        self.0.flush(patience);
    }
}
