//! The thread that owns the database: everything that waits is one transaction.
//!
//! A transaction is a state of the mirror at one moment, so nothing is on the disk by half. When writing fails, the file is given up and opened again
//! about each second, and then all that must be there is written at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use super::database::{Carried, Database};
use super::desk::{Desk, Exchange, Level, PATIENCE, Problem};
use super::failure::Failure;
use super::mirror::Batch;
use super::{Notice, Watcher};
use crate::sys::crash;

/// How often a database in trouble is tried again, and a sound one looked after.
const ROUND: Duration = Duration::from_secs(1);

/// Commits after which the write-ahead log is carried over, once nobody wants anything for a round.
const COMMITS: u32 = 256;

/// A file that is damaged again so soon is not set aside once more: this disk would be filled with damaged files.
const ASIDE_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) bounds: Bounds,
    pub(super) exchange: Arc<Exchange>,
    pub(super) watcher: Arc<dyn Watcher>,
    /// `None` while it is out of order.
    pub(super) database: Option<Database>,
    /// For the new one, what was in a file that was taken away under us.
    pub(super) carried: Option<Carried>,
    pub(super) last_aside: Option<Instant>,
    pub(super) commits: u32,
}

impl Writer {
    pub(super) fn run(mut self) {
        // Whatever happens to this thread, nobody waits for it.
        let _ended = Ended(Arc::clone(&self.exchange));
        if let Some(problem) = self.problem() {
            self.watcher.notice(&Notice::Trouble { problem: &problem });
        }
        let mut looked = Instant::now();
        loop {
            let (due, closing) = self.sleep(looked + ROUND);
            let sync_failed = self.exchange.desk().sync_failed.take();
            if let Some(kind) = sync_failed {
                self.failed(Failure::of_io(&kind.into()), None);
            }
            if self.database.is_some() {
                if due {
                    self.commit(false);
                }
                if looked.elapsed() >= ROUND {
                    looked = Instant::now();
                    self.look_after(!due);
                }
            } else if looked.elapsed() >= ROUND || closing {
                looked = Instant::now();
                self.open_again();
            }
            if closing {
                return self.close();
            }
        }
    }

    fn problem(&self) -> Option<Arc<str>> {
        self.exchange.desk().problem.as_ref().map(|problem| Arc::clone(problem.text()))
    }

    /// Sleeps until there is something to do. Says whether something is to be written, and whether this is the end.
    fn sleep(&self, until: Instant) -> (bool, bool) {
        let mut desk = self.exchange.desk();
        loop {
            let due = desk.mirror.differs() || !desk.waiting.is_empty() || desk.closing.is_some();
            let closing = desk.closing.is_some() || desk.closed;
            let left = until.saturating_duration_since(Instant::now());
            if closing || left.is_zero() || due && self.database.is_some() || desk.sync_failed.is_some() && self.database.is_some() {
                return (due, closing);
            }
            desk.idle = self.database.is_some();
            desk = Exchange::sleep(&self.exchange.writer, desk, left);
        }
    }

    /// Writes what differs, or all that must be there, and acknowledges it.
    fn commit(&mut self, whole: bool) {
        let Some(database) = &mut self.database else { return };
        let batch = {
            let mut desk = self.exchange.desk();
            let farewell = desk.closing;
            desk.in_commit = std::mem::take(&mut desk.waiting);
            desk.committing = Some(Instant::now());
            desk.mirror.take(whole, farewell)
        };
        let result = if batch.is_empty() { Ok(()) } else { crash_around(|| database.commit(&batch)) };
        match result {
            Ok(()) => self.committed(&batch),
            Err(failure) => self.failed(failure, Some(batch)),
        }
    }

    fn committed(&mut self, batch: &Batch) {
        self.commits += u32::from(!batch.is_empty());
        let mut desk = self.exchange.desk();
        desk.committing = None;
        desk.unsynced |= !batch.audits.is_empty();
        let mut done = Vec::new();
        for (level, ack) in std::mem::take(&mut desk.in_commit) {
            match level {
                Level::Daemon => done.push(ack),
                Level::Host => desk.to_sync.push(ack),
            }
        }
        if desk.unsynced || !desk.to_sync.is_empty() {
            self.exchange.syncer.notify_one();
        }
        // What was dropped while it was slow is told of as what was dropped while it was out of order.
        let healed = match desk.problem {
            Some(Problem::Failed(_)) => desk.problem.take().is_some(),
            // The sentinel says when that is over.
            Some(Problem::Hangs(_)) | None => false,
        };
        let lost = if healed || desk.mirror.has_lost() && desk.problem.is_none() { Some(desk.mirror.take_lost()) } else { None };
        drop(desk);
        done.into_iter().for_each(|ack| ack.resolve(Ok(())));
        if let Some((lost_audit, lost_history)) = lost {
            if !healed {
                let problem = format!("{} is written more slowly than entries come; look at the disk", self.path.display());
                self.watcher.notice(&Notice::Trouble { problem: &problem });
            }
            self.watcher.notice(&Notice::Healed { lost_audit, lost_history });
        }
    }

    /// Gives the file up.
    fn failed(&mut self, failure: Failure, batch: Option<Batch>) {
        let problem: Arc<str> = failure.sentence(&self.path).into();
        self.database = None;
        let news = {
            let mut desk = self.exchange.desk();
            desk.committing = None;
            desk.sync_failed = None;
            if let Some(batch) = batch {
                desk.mirror.put_back(batch);
            }
            desk.resolve_all(&problem);
            let before = desk.problem.replace(Problem::Failed(Arc::clone(&problem)));
            before.is_none()
        };
        if news {
            self.watcher.notice(&Notice::Trouble { problem: &problem });
        }
    }

    /// What is to be done now and then.
    fn look_after(&mut self, at_leisure: bool) {
        let Some(database) = &self.database else { return };
        if let Err(failure) = database.in_place() {
            self.carried = Some(database.rescue());
            self.failed(failure, None);
            return self.open_again();
        }
        if at_leisure && self.commits >= COMMITS {
            self.commits = 0;
            if let Err(failure) = database.checkpoint() {
                self.failed(failure, None);
            }
        }
    }

    /// Tries once more.
    fn open_again(&mut self) {
        if let Err(why) = self.watcher.hold() {
            return self.failed(Failure::hindered(why, "end one of the two"), None);
        }
        let may_set_aside = self.last_aside.is_none_or(|last| last.elapsed() >= ASIDE_AGAIN);
        self.exchange.desk().committing = Some(Instant::now());
        let opened = match &self.carried {
            Some(carried) => Database::restore(&self.path, self.bounds, carried),
            None => Database::open(&self.path, self.bounds, may_set_aside),
        };
        self.exchange.desk().committing = None;
        match opened {
            Ok((database, found)) => {
                self.database = Some(database);
                self.carried = None;
                if let Some(set_aside) = found.set_aside {
                    self.last_aside = Some(Instant::now());
                    self.watcher.notice(&Notice::SetAside { set_aside: &set_aside });
                }
                self.commit(true);
            }
            Err(failure) => self.failed(failure, None),
        }
    }

    /// Closes the file, and acknowledges what the last commit, which was synced, has brought to the disk.
    fn close(mut self) {
        let patience = Instant::now() + PATIENCE;
        let mut desk = self.exchange.desk();
        while desk.syncing.is_some() && Instant::now() < patience {
            desk = Exchange::sleep(&self.exchange.writer, desk, Duration::from_millis(100));
        }
        let problem = desk.problem.as_ref().map(|problem| Arc::clone(problem.text()));
        let mut done = std::mem::take(&mut desk.to_sync);
        done.extend(desk.leaving.take());
        drop(desk);
        if let Some(database) = self.database.take() {
            // What was committed stays, whatever becomes of this.
            drop(database.close());
        }
        for ack in done {
            ack.resolve(problem.as_ref().map_or(Ok(()), |problem| Err(Desk::not_durable(problem))));
        }
    }
}

/// Named moments before and after something.
fn crash_around<T>(commit: impl FnOnce() -> T) -> T {
    crash::point("before-commit");
    let committed = commit();
    crash::point("after-commit");
    committed
}

/// Lets everybody go when the thread ends, also by a panic.
struct Ended(Arc<Exchange>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        desk.closed = true;
        let problem: Arc<str> = if std::thread::panicking() {
            "the store's writer has met a fault of its own; restart the daemon, and report this".into()
        } else {
            "the store is closed".into()
        };
        desk.problem = Some(Problem::Failed(Arc::clone(&problem)));
        desk.resolve_all(&problem);
        drop(desk);
        self.0.syncer.notify_all();
        self.0.sentinel.notify_all();
    }
}
