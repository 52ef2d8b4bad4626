//! All streams of a daemon, and the handle that everybody holds.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::protocol::Name;

use super::caretaker::Care;
use super::journal;
use super::lines::{Lines, Query};
use super::place::{self, StreamName};
use super::plan::Policy;
use super::stream::Stream;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of all logs; made when the first is opened.
    pub logs: PathBuf,
    /// journald's stream socket.
    pub journal: PathBuf,
}

/// Something that happened to a log.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// Parts were rotated out.
    Rotated {
        /// Whose.
        name: &'a Name,
        /// Which.
        stream: StreamName,
        /// How many parts.
        parts: usize,
        /// Their bytes together.
        bytes: u64,
    },
    /// The oldest bytes were given up without being copied: they came faster than `keep` parts hold, or the disk is full.
    Dropped {
        /// Whose.
        name: &'a Name,
        /// Which.
        stream: StreamName,
        /// How many bytes.
        bytes: u64,
    },
    /// Something is wrong with it, or nothing any more.
    Problem {
        /// Whose.
        name: &'a Name,
        /// Which.
        stream: StreamName,
        /// What; none when it is over.
        problem: Option<&'a str>,
    },
    /// The disk of the logs is full, or is no more.
    Disk {
        /// The directory of the logs.
        logs: &'a Path,
        /// It is.
        full: bool,
        /// Bytes that are left.
        available: u64,
    },
}

/// Who is told. Called on the threads that look after the logs.
pub trait Watcher: Send + Sync + 'static {
    /// Takes note.
    fn notice(&self, notice: &Notice<'_>);
}

/// A file that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// Which.
    pub path: PathBuf,
    /// Why (errno(3)).
    pub errno: i32,
}

/// One stream and what is known of it besides its files.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) stream: Stream,
    pub(super) which: StreamName,
    pub(super) policy: Mutex<Policy>,
    /// Alive while a process writes to it.
    lease: Mutex<Weak<()>>,
    /// What is wrong with it.
    pub(super) problem: Mutex<Option<String>>,
    pub(super) care: Mutex<Care>,
}

impl Entry {
    /// A process writes to it from now on, for as long as this is kept.
    fn take_lease(&self) -> Lease {
        let mut lease = lock(&self.lease);
        let token = lease.upgrade().unwrap_or_default();
        *lease = Arc::downgrade(&token);
        drop(lease);
        lock(&self.care).look_soon();
        Lease(token)
    }

    /// A process writes to it.
    pub(super) fn is_leased(&self) -> bool {
        lock(&self.lease).strong_count() > 0
    }
}

/// A poisoned lock guards what is whole all the same: each is held for single assignments.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) watcher: Arc<dyn Watcher>,
    pub(super) entries: Mutex<BTreeMap<(Name, StreamName), Arc<Entry>>>,
    pub(super) full: Arc<AtomicBool>,
    /// The threads are to end.
    pub(super) leaving: Mutex<bool>,
    pub(super) wake: Condvar,
}

/// All streams. Cheap to clone.
#[derive(Clone)]
pub struct Outputs(pub(super) Arc<Inner>);

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// A process writes to a stream for as long as this is kept.
#[derive(Clone, Debug)]
pub struct Lease(#[allow(dead_code)] Arc<()>);

/// What is wrong with the logs of one sub-process. Cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Health {
    entries: Vec<Arc<Entry>>,
    full: Arc<AtomicBool>,
    logs: PathBuf,
}

impl Health {
    /// A sentence that names the thing and the remedy; none while all is well.
    pub fn problem(&self) -> Option<String> {
        if self.full.load(Ordering::Relaxed) {
            let logs = self.logs.display();
            return Some(format!(
                "the disk is full: the oldest output is given up, new output may be lost; make room on the disk of {logs}"
            ));
        }
        self.entries.iter().find_map(|entry| lock(&entry.problem).clone())
    }
}

impl Outputs {
    /// No stream yet, and nobody to look after them; see [`Self::look_after`].
    pub fn new(settings: Settings, watcher: Arc<dyn Watcher>) -> Self {
        Self(Arc::new(Inner {
            settings,
            watcher,
            entries: Mutex::default(),
            full: Arc::default(),
            leaving: Mutex::new(false),
            wake: Condvar::new(),
        }))
    }

    /// Says which streams a sub-process has, and how they are kept. Those it had before and has no more are forgotten; their files stay.
    pub fn define(&self, name: &Name, streams: &[StreamName], policy: &Policy) -> Option<Health> {
        let mut entries = lock(&self.0.entries);
        let mut defined = Vec::new();
        for which in StreamName::ALL {
            let key = (name.clone(), which);
            if !streams.contains(&which) {
                entries.remove(&key);
                continue;
            }
            let entry = entries.entry(key).or_insert_with(|| Arc::new(self.entry(name, which, policy)));
            lock(&entry.policy).clone_from(policy);
            defined.push(entry.clone());
        }
        let Inner { full, settings, .. } = &*self.0;
        (!defined.is_empty()).then(|| Health { entries: defined, full: full.clone(), logs: settings.logs.clone() })
    }

    fn entry(&self, name: &Name, which: StreamName, policy: &Policy) -> Entry {
        Entry {
            name: name.clone(),
            stream: Stream::new(place::directory(&self.0.settings.logs, name.as_str()), which),
            which,
            policy: Mutex::new(policy.clone()),
            lease: Mutex::default(),
            problem: Mutex::default(),
            care: Mutex::default(),
        }
    }

    /// Forgets a sub-process. Its files stay.
    pub fn forget(&self, name: &Name) {
        let mut entries = lock(&self.0.entries);
        for which in StreamName::ALL {
            entries.remove(&(name.clone(), which));
        }
    }

    fn find(&self, name: &Name, which: StreamName) -> Option<Arc<Entry>> {
        lock(&self.0.entries).get(&(name.clone(), which)).cloned()
    }

    /// Opens a stream for a process that appends to it, and makes what is missing of its directories. It counts as written to until the lease ends.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn open(&self, name: &Name, which: StreamName, policy: &Policy) -> Result<(OwnedFd, Lease), OpenError> {
        // A definition that was replaced while its process was being started: the process gets what it was started with.
        let entry = self.find(name, which).unwrap_or_else(|| Arc::new(self.entry(name, which, policy)));
        let fd = entry
            .stream
            .open()
            .map_err(|error| OpenError { path: entry.stream.path(), errno: error.raw_os_error().unwrap_or(libc::EIO) })?;
        *lock(&entry.problem) = None;
        Ok((fd, entry.take_lease()))
    }

    /// A process writes to a stream that it was given by an earlier daemon; none where nobody defined that.
    pub fn lease(&self, name: &Name, which: StreamName) -> Option<Lease> {
        self.find(name, which).map(|entry| entry.take_lease())
    }

    /// Connects to journald, which will say `name` before each line.
    ///
    /// # Errors
    /// Those of connecting to its socket.
    pub fn open_journal(&self, name: &Name) -> Result<OwnedFd, OpenError> {
        let path = &self.0.settings.journal;
        journal::connect(path, name.as_str())
            .map_err(|error| OpenError { path: path.clone(), errno: error.raw_os_error().unwrap_or(libc::EIO) })
    }

    /// Reads lines of a stream. Takes time: not for a thread that others wait for.
    ///
    /// # Errors
    /// Those of reading its files.
    pub fn read(&self, name: &Name, which: StreamName, query: &Query) -> io::Result<Lines> {
        match self.find(name, which) {
            Some(entry) => entry.stream.read(query),
            None => Stream::new(place::directory(&self.0.settings.logs, name.as_str()), which).read(query),
        }
    }
}
