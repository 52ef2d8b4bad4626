//! What systemd is told (sd_notify(3)); nothing happens where nobody listens.
//!
//! All of it is said on one thread: a service manager that does not read for a while holds up nobody else.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::supervisor::SupervisorHandle;

use super::outbox::{News, Outbox, Words};

/// The service manager. Cheap to clone; whoever tells it something never waits.
#[derive(Clone, Debug)]
pub struct ServiceManager(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    /// Rung when there is something to say.
    bell: Condvar,
    /// Rung when all is said.
    done: Condvar,
}

#[derive(Debug)]
struct Desk {
    outbox: Outbox<OwnedFd>,
    /// Something is being said, which may take as long as nobody reads.
    speaking: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        // Nothing that runs under the lock can panic half-way.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speak(&self) {
        let mut desk = self.lock();
        loop {
            match desk.outbox.next() {
                Some(words) => {
                    desk.speaking = true;
                    drop(desk);
                    say(words);
                    desk = self.lock();
                    desk.speaking = false;
                }
                None => {
                    self.done.notify_all();
                    desk = self.bell.wait(desk).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl ServiceManager {
    /// The one that started this process, if there is one, which has these descriptors from an earlier daemon.
    pub(super) fn find(kept: HashSet<String>) -> Self {
        let found = std::env::var_os("NOTIFY_SOCKET").and_then(|_| {
            let desk = Mutex::new(Desk { outbox: Outbox::new(kept), speaking: false });
            let shared = Arc::new(Shared { desk, bell: Condvar::new(), done: Condvar::new() });
            let speaking = shared.clone();
            let thread = std::thread::Builder::new().name("service-manager".into()).stack_size(128 << 10).spawn(move || speaking.speak());
            thread.inspect_err(|error| tracing::warn!(%error, "the service manager is told nothing")).ok().map(|_| shared)
        });
        Self(found)
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Looks into what waits to be said, and may add to it; `None` where nobody is to be told.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Outbox<OwnedFd>) -> T) -> Option<T> {
        let shared = self.0.as_ref()?;
        let result = change(&mut shared.lock().outbox);
        shared.bell.notify_one();
        Some(result)
    }

    fn tell(&self, news: News) {
        self.with(|outbox| outbox.tell(news));
    }

    /// The daemon takes commands, and what is to start by itself was started.
    pub fn ready(&self, status: String) {
        self.tell(News::Ready { status });
    }

    /// The daemon reads its configuration again, until it says that it is [`Self::ready`].
    pub fn reloading(&self) {
        self.tell(News::Reloading);
    }

    /// The daemon is leaving.
    pub fn stopping(&self) {
        self.tell(News::Stopping);
    }

    /// Leaving makes progress, and may take this much longer.
    pub fn still_stopping(&self, status: String, for_another: Duration) {
        self.tell(News::StillStopping { status, for_another });
    }

    /// Blocks until everything is said, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        let Some(shared) = &self.0 else { return };
        let to_say = |desk: &mut Desk| desk.speaking || !desk.outbox.is_empty();
        drop(shared.done.wait_timeout_while(shared.lock(), patience, to_say));
    }

    /// Keeps the watchdog content for as long as the supervisor answers; returns at once where none watches.
    pub async fn keep_alive(self, supervisor: SupervisorHandle) {
        let Some(limit) = sd_notify::watchdog_enabled() else { return };
        let mut tick = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
        loop {
            tick.tick().await;
            let counts = supervisor.counts();
            tracing::trace!(?counts, "alive");
            self.tell(News::Alive);
        }
    }
}

/// Blocks for as long as nobody reads.
fn say(words: Words<OwnedFd>) {
    let (name, result) = match &words {
        Words::News(news) => {
            if let Err(error) = sd_notify::notify(&states(news)) {
                tracing::warn!(%error, "cannot notify the service manager");
            }
            return;
        }
        // Without FDPOLL=0 it would be dropped as soon as it is readable or hung up: when its process has ended, which is when it is needed.
        Words::Keep(name, fd) => {
            let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
            (name, sd_notify::notify_with_fds(&states, &[fd.as_fd()]))
        }
        Words::GiveUp(name) => (name, sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])),
    };
    if let Err(error) = result {
        tracing::debug!(name, %error, "the service manager does not listen");
    }
}

fn states(news: &News) -> Vec<NotifyState<'_>> {
    match news {
        News::Ready { status } => vec![NotifyState::Ready, NotifyState::Status(status)],
        News::Reloading => vec![NotifyState::Reloading],
        News::Stopping => vec![NotifyState::Stopping],
        News::StillStopping { status, for_another } => {
            let microseconds = u32::try_from(for_another.as_micros()).unwrap_or(u32::MAX);
            vec![NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(microseconds)]
        }
        News::Alive => vec![NotifyState::Watchdog],
    }
}
