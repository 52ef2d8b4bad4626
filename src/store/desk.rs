//! What callers hand over, and what the threads of the store tell each other. A lock that is held for moments only, never while a disk is asked: so
//! handing over never waits.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::committed::{Ack, Committed, NotDurable};
use super::mirror::Mirror;
use super::rows::Farewell;

/// How long a disk may take before that is trouble.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It outlives the daemon: it is committed, and the kernel has it.
    Daemon,
    /// It outlives the host: the disk has it.
    Host,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// Writing has failed: the file must be opened again, and all of it be written.
    Failed(Arc<str>),
    /// A thread waits for the disk, and nobody knows how that ends.
    Hangs(Arc<str>),
}

impl Problem {
    pub(super) fn text(&self) -> &Arc<str> {
        match self {
            Self::Failed(text) | Self::Hangs(text) => text,
        }
    }
}

/// Behind the lock.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) mirror: Mirror,
    pub(super) problem: Option<Problem>,
    /// Whom the next commit is for.
    pub(super) waiting: Vec<(Level, Ack)>,
    /// Who waits until the database is closed.
    pub(super) leaving: Option<Ack>,
    /// Whom the present commit is for.
    pub(super) in_commit: Vec<(Level, Ack)>,
    /// Whom the next sync is for.
    pub(super) to_sync: Vec<Ack>,
    /// Whom the present sync is for.
    pub(super) in_sync: Vec<Ack>,
    /// Entries of the audit trail are committed and not synced.
    pub(super) unsynced: bool,
    /// A sync has failed, as the writer is to know.
    pub(super) sync_failed: Option<std::io::ErrorKind>,
    /// Since when the writer waits for the disk.
    pub(super) committing: Option<Instant>,
    /// Since when the syncer waits for the disk.
    pub(super) syncing: Option<Instant>,
    /// The daemon leaves: whatever is handed over from now on comes too late.
    pub(super) closing: Option<Farewell>,
    /// Every handle is gone, or the last commit is made: the threads end.
    pub(super) closed: bool,
    /// The writer sleeps.
    pub(super) idle: bool,
}

/// The desk and the bells beside it.
#[derive(Debug)]
pub(super) struct Exchange {
    desk: Mutex<Desk>,
    pub(super) writer: Condvar,
    pub(super) syncer: Condvar,
    pub(super) sentinel: Condvar,
}

impl Desk {
    pub(super) fn not_durable(text: &Arc<str>) -> NotDurable {
        NotDurable { problem: Arc::clone(text) }
    }

    /// Nobody waits for a disk that does not answer.
    pub(super) fn resolve_all(&mut self, problem: &Arc<str>) {
        let committing = self.waiting.drain(..).chain(self.in_commit.drain(..)).map(|(_, ack)| ack);
        let syncing = self.to_sync.drain(..).chain(self.in_sync.drain(..));
        committing.chain(syncing).for_each(|ack| ack.resolve(Err(Self::not_durable(problem))));
    }
}

impl Exchange {
    pub(super) fn new(mirror: Mirror, problem: Option<Problem>) -> Self {
        let desk = Desk {
            mirror,
            problem,
            waiting: Vec::new(),
            leaving: None,
            in_commit: Vec::new(),
            to_sync: Vec::new(),
            in_sync: Vec::new(),
            unsynced: false,
            sync_failed: None,
            committing: None,
            syncing: None,
            closing: None,
            closed: false,
            idle: false,
        };
        Self { desk: Mutex::new(desk), writer: Condvar::new(), syncer: Condvar::new(), sentinel: Condvar::new() }
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the bell rings, at most so long.
    pub(super) fn sleep<'a>(bell: &Condvar, desk: MutexGuard<'a, Desk>, timeout: Duration) -> MutexGuard<'a, Desk> {
        bell.wait_timeout(desk, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Changes the mirror, and wakes the writer.
    pub(super) fn hand_over(&self, change: impl FnOnce(&mut Mirror)) {
        let mut desk = self.desk();
        if desk.closing.is_none() && !desk.closed {
            change(&mut desk.mirror);
            self.wake(&mut desk);
        }
    }

    /// The same, and tells when it is committed.
    pub(super) fn hand_over_for(&self, level: Level, change: impl FnOnce(&mut Mirror)) -> Committed {
        let mut desk = self.desk();
        let too_late = desk.closing.is_some() || desk.closed;
        if !too_late {
            change(&mut desk.mirror);
        }
        if let Some(problem) = &desk.problem {
            return Committed::resolved(Err(Desk::not_durable(problem.text())));
        }
        if too_late {
            return Committed::resolved(Err(NotDurable { problem: "the store is closed".into() }));
        }
        let (committed, ack) = Committed::pair();
        desk.waiting.push((level, ack));
        self.wake(&mut desk);
        committed
    }

    fn wake(&self, desk: &mut Desk) {
        if std::mem::take(&mut desk.idle) {
            self.writer.notify_one();
        }
    }
}
