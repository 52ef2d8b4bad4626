//! The handle that everybody else holds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::bounds::Bounds;
use super::committed::Committed;
use super::database::{self, Database, Found};
use super::desk::{Exchange, Level, Problem};
use super::failure::{Failure, StoreError};
use super::file::beside;
use super::mirror::Mirror;
use super::rows::{AnswerRow, Farewell, Recovered, RunChange, RunRow, SetAside, StandingRow};
use super::sentinel::Sentinel;
use super::syncer::Syncer;
use super::tables::{self, Contents, Defined};
use super::writer::Writer;
use crate::protocol::Name;
use crate::protocol::definition::Definition;
use crate::protocol::reply::{AuditEntry, PastRun};

/// The name of the database in the state directory.
const FILE: &str = "procman.db";

/// How long leaving and reading wait for what was handed over before.
const LEAVE: Duration = Duration::from_secs(10);

/// Is told what becomes of the store. It must not block, and not wait for the store.
pub trait Watcher: Send + Sync + 'static {
    /// Called on a thread of the store.
    fn notice(&self, notice: &Notice<'_>);

    /// Whether the directory is the daemon's, which is asked before its database is opened again: somebody may have made it anew meanwhile. Called on a
    /// thread of the store, which waits.
    ///
    /// # Errors
    /// It is another daemon's, in words for people.
    fn hold(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What becomes of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Nothing is written any more; all that must be is kept in memory.
    Trouble {
        /// What is wrong, as [`Store::problem`] says it.
        problem: &'a str,
    },
    /// All that must be on the disk is there again.
    Healed {
        /// Entries of the audit trail that there was no room for in memory.
        lost_audit: u64,
        /// Records of history that there was no room for in memory.
        lost_history: u64,
    },
    /// The database was found damaged while it was in use; a new one holds what runs, and what could still be read.
    SetAside {
        /// What was done with it.
        set_aside: &'a SetAside,
    },
}

/// What must outlive the daemon. Cheap to clone; see the room for what it promises.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    exchange: Arc<Exchange>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A store, and what an earlier daemon left in it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was found.
    pub recovered: Recovered,
}

impl Store {
    /// Opens the database of this state directory, or makes it. Blocks. The caller must be the only one to use the directory
    /// ([`super::StateDir`]).
    ///
    /// A database that is there and cannot be read is an error: without it nobody knows what runs. One that cannot be made or written is trouble,
    /// and the store opens all the same.
    pub fn open(state_dir: &Path, watcher: Arc<dyn Watcher>) -> Result<Opened, StoreError> {
        Self::open_bounded(state_dir, watcher, Bounds::default())
    }

    /// Whether this build can read the database of this state directory, if there is one; changes nothing.
    ///
    /// # Errors
    /// A newer daemon wrote it, or the disk does not let it be read. What else is wrong with it, opening it tells, and mends.
    pub fn check(state_dir: &Path) -> Result<(), StoreError> {
        let path = state_dir.join(FILE);
        match database::version(&path) {
            Err(failure @ Failure::Newer(_)) => Err(failure.error(&path)),
            Err(failure @ Failure::Hindered { .. }) if failure.is_of_the_disk() => Err(failure.error(&path)),
            Ok(()) | Err(Failure::Damaged(_) | Failure::Hindered { .. }) => Ok(()),
        }
    }

    pub(super) fn open_bounded(state_dir: &Path, watcher: Arc<dyn Watcher>, bounds: Bounds) -> Result<Opened, StoreError> {
        // SQLite is told not to follow a link to another database; the directory may well lie behind one.
        let path = fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned()).join(FILE);
        let (database, found) = find(&path, bounds)?;
        let (database, problem) = match database {
            Ok(database) => (Some(database), None),
            Err(failure) => (None, Some(Problem::Failed(failure.sentence(&path).into()))),
        };
        let exchange = Arc::new(Exchange::new(Mirror::of(&found.contents), problem));
        let store = Self(Arc::new(Shared { path: path.clone(), exchange: Arc::clone(&exchange), threads: Mutex::default() }));
        let writer = Writer {
            path: path.clone(),
            bounds,
            exchange: Arc::clone(&exchange),
            watcher: Arc::clone(&watcher),
            database,
            carried: None,
            last_aside: None,
            commits: 0,
        };
        let syncer = Syncer { wal: beside(&path, "-wal"), exchange: Arc::clone(&exchange) };
        let sentinel = Sentinel { path, exchange, watcher };
        let threads = [
            spawn("store-writer", move || writer.run()),
            spawn("store-sync", move || syncer.run()),
            spawn("store-watch", move || sentinel.run()),
        ];
        let threads: Result<Vec<_>, _> = threads.into_iter().collect();
        *store.threads() = threads.map_err(StoreError::Thread)?;
        Ok(Opened { store, recovered: recovered(found) })
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The intent to start a run, before its process is made. Resolves once it is committed, or at once while the disk is out of order: supervision
    /// goes on.
    pub fn begin(&self, run: RunRow) -> Committed {
        self.0.exchange.hand_over_for(Level::Daemon, |mirror| mirror.begin(run))
    }

    /// Something became known of a run. Nothing comes of it where there is no such run.
    pub fn change(&self, uuid: &str, change: RunChange) {
        self.0.exchange.hand_over(|mirror| mirror.change(uuid, change));
    }

    /// The main process of a run has ended: its record comes. A second record of the same UUID is ignored. Its row stays until [`Store::forget`]: some of
    /// its tree may live on, and is still to be ended.
    pub fn end(&self, run: &PastRun) {
        let run = run.clone();
        self.0.exchange.hand_over(|mirror| mirror.end(run));
    }

    /// Forgets a run: nothing of it is left, or it never came to a process. Resolves once a later daemon will not find it any more.
    pub fn forget(&self, uuid: &str) -> Committed {
        self.0.exchange.hand_over_for(Level::Daemon, |mirror| mirror.forget(uuid))
    }

    /// In which boot of the host the daemon runs, as `/proc/sys/kernel/random/boot_id` has it. To be said once all that an earlier daemon left is taken
    /// over: until then the standings are of that one's boot, and how that one has left counts for the daemon after this one, too, if this one is killed
    /// meanwhile. Resolves once all of that is committed.
    pub fn boot(&self, boot_id: &str) -> Committed {
        self.0.exchange.hand_over_for(Level::Daemon, |mirror| mirror.boot(boot_id))
    }

    /// The daemon is about to leave, and how. A daemon that is killed while it quits everything is followed by one that begins anew.
    pub fn leave(&self, farewell: Farewell) -> Committed {
        self.0.exchange.hand_over_for(Level::Daemon, |mirror| mirror.leave(farewell))
    }

    /// How a sub-process stands now.
    pub fn stand(&self, standing: StandingRow) {
        self.0.exchange.hand_over(|mirror| mirror.stand(standing));
    }

    /// Forgets how a sub-process stood.
    pub fn unstand(&self, name: &Name) {
        self.0.exchange.hand_over(|mirror| mirror.unstand(name));
    }

    /// A definition was registered at run time. Resolves once the disk has it.
    pub fn define(&self, name: &Name, definition: &Definition) -> Committed {
        let row = Defined { name: name.clone(), definition: definition.clone() };
        self.0.exchange.hand_over_for(Level::Host, |mirror| mirror.define(row))
    }

    /// A definition was taken away. Resolves once the disk knows it.
    pub fn undefine(&self, name: &Name) -> Committed {
        self.0.exchange.hand_over_for(Level::Host, |mirror| mirror.undefine(name))
    }

    /// A command was answered. It is committed with whatever is next, and on the disk a fifth of a second later.
    pub fn audit(&self, entry: &AuditEntry) {
        let entry = entry.clone();
        self.0.exchange.hand_over(|mirror| mirror.audit(entry));
    }

    /// A request was begun, or answered. Resolves once a later daemon will know.
    pub fn answer(&self, row: AnswerRow) -> Committed {
        self.0.exchange.hand_over_for(Level::Daemon, |mirror| mirror.answer(row))
    }

    /// What was asked under this key is forgotten.
    pub fn forget_answer(&self, key: &str) {
        self.0.exchange.hand_over(|mirror| mirror.forget_answer(key));
    }

    /// Entries of the audit trail, all or about this name, the newest first. Blocks: it reads on a connection of its own, what was handed over
    /// before included. While the disk is out of order it tells what is in memory only, too, or that alone.
    pub fn audit_log(&self, name: Option<&Name>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let durable = self.0.exchange.hand_over_for(Level::Daemon, |_| ()).wait(LEAVE);
        let mut entries = if durable.is_ok() { Vec::new() } else { self.0.exchange.desk().mirror.audits(name, limit) };
        let left = limit - entries.len();
        let read = database::reader(&self.0.path).and_then(|connection| tables::audit(&connection, name, left));
        match read {
            Ok(older) => entries.extend(older),
            Err(_) if durable.is_err() => {}
            Err(error) => return Err(Failure::of_reading(&error).error(&self.0.path)),
        }
        Ok(entries)
    }

    /// Resolves once the disk has all that was handed over before, or when it cannot have it: at once in trouble, else within some seconds.
    pub fn flush(&self) -> Committed {
        self.0.exchange.hand_over_for(Level::Host, |_| ())
    }

    /// Resolves once a later daemon will find all that was handed over before, or at once while it would not.
    pub fn settled(&self) -> Committed {
        self.0.exchange.hand_over_for(Level::Daemon, |_| ())
    }

    /// What is wrong, as a sentence that names the file, the reason and the remedy; `None` while all is well. Cheap.
    pub fn problem(&self) -> Option<String> {
        self.0.exchange.desk().problem.as_ref().map(|problem| problem.text().to_string())
    }

    /// Writes down how the daemon leaves, after all that was handed over before, and closes the database: one file is left. Blocks, but not for a disk
    /// that does not answer. What is handed over later is dropped.
    pub fn close(&self, farewell: Farewell) {
        let (committed, ack) = Committed::pair();
        {
            let mut desk = self.0.exchange.desk();
            if desk.closing.is_some() || desk.closed {
                return;
            }
            desk.closing = Some(farewell);
            desk.leaving = Some(ack);
        }
        self.0.exchange.writer.notify_one();
        if committed.wait(LEAVE).is_ok() {
            for thread in std::mem::take(&mut *self.threads()) {
                // A thread that has panicked has let everybody go.
                drop(thread.join());
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.exchange.desk().closed = true;
        self.exchange.writer.notify_all();
    }
}

/// Opens the database, or says why it cannot be written; what is in it is known in any case.
fn find(path: &Path, bounds: Bounds) -> Result<(Result<Database, Failure>, Found), StoreError> {
    let failure = match Database::open(path, bounds, true) {
        Ok((database, found)) => {
            let writable = database.try_to_write(found.contents.farewell);
            return Ok((writable.map(|()| database), found));
        }
        Err(failure @ Failure::Newer(_)) => return Err(failure.error(path)),
        Err(failure @ (Failure::Damaged(_) | Failure::Hindered { .. })) => failure,
    };
    let missing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let found = if missing {
        Found { fresh: true, ..Found::default() }
    } else {
        match database::peek(path) {
            Ok(contents) => Found { contents, ..Found::default() },
            // What was in the way first tells more than what is in the way of reading only.
            Err(_) => return Err(failure.error(path)),
        }
    };
    Ok((Err(failure), found))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn recovered(found: Found) -> Recovered {
    let Contents { definitions, runs, standings, history, audit: _, answers, farewell, boot_id } = found.contents;
    Recovered {
        definitions: definitions.into_iter().map(|row| (row.name, row.definition)).collect(),
        runs,
        standings,
        history: history.into_values().collect(),
        answers,
        farewell,
        boot_id,
        set_aside: found.set_aside,
        fresh: found.fresh,
    }
}
