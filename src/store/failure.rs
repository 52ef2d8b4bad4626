//! Why the database cannot be used, in three kinds that are treated differently, and in words.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there and cannot be read; without it nobody knows what runs.
    #[error("cannot read {path}: {reason}; {remedy}, or move the file away if nothing that it tells of runs any more")]
    Unreadable {
        /// The database.
        path: PathBuf,
        /// Why.
        reason: String,
        /// What helps.
        remedy: &'static str,
    },
    /// A newer daemon wrote it.
    #[error("{path} has schema {version}, and the newest that this daemon knows is {newest}; use the newer daemon, or move the file away")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        version: i64,
        /// The newest schema that this daemon knows.
        newest: i64,
    },
    /// The threads that write cannot be started.
    #[error("cannot start a thread of the store: {0}; raise the limit of processes")]
    Thread(#[source] io::Error),
}

impl StoreError {
    /// Whether it may pass without anybody changing the configuration, the file, or who may use it.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreadable { remedy, .. } => [LOOK_AT_THE_DISK, MAKE_ROOM, WRITABLE, END_THE_OTHER, FREE_MEMORY].contains(remedy),
            Self::Newer { .. } => false,
            Self::Thread(_) => true,
        }
    }
}

/// What became of an attempt to use the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// What is in it is not what was written.
    Damaged(String),
    /// A newer daemon wrote it.
    Newer(i64),
    /// What is around it does not let us.
    Hindered {
        /// Why.
        reason: String,
        /// What helps.
        remedy: &'static str,
    },
}

const LOOK_AT_THE_DISK: &str = "look at the disk and the kernel's log";
const LET_US: &str = "make it and its directory readable and writable for this user";
const MAKE_ROOM: &str = "make room on its file system";
const END_THE_OTHER: &str = "end the other process that holds it locked (fuser(1) names it)";
const FREE_MEMORY: &str = "free memory";
const WRITABLE: &str = "make its file system writable (one that met an error is mounted read-only: see the kernel's log)";

impl Failure {
    pub(super) fn hindered(reason: impl Into<String>, remedy: &'static str) -> Self {
        Self::Hindered { reason: reason.into(), remedy }
    }

    /// What SQLite says while it reads: what the surroundings are not to blame for is damage.
    pub(super) fn of_reading(error: &rusqlite::Error) -> Self {
        match remedy(error) {
            Some(remedy) => Self::hindered(error.to_string(), remedy),
            None => Self::Damaged(error.to_string()),
        }
    }

    /// What SQLite says while it writes: only what it calls damage is.
    pub(super) fn of_writing(error: &rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        if code == Some(ErrorCode::DatabaseCorrupt) || code == Some(ErrorCode::NotADatabase) {
            return Self::Damaged(error.to_string());
        }
        Self::hindered(error.to_string(), remedy(error).unwrap_or("restart the daemon, and report this"))
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        let known = [
            (io::ErrorKind::StorageFull, MAKE_ROOM),
            (io::ErrorKind::QuotaExceeded, MAKE_ROOM),
            (io::ErrorKind::ReadOnlyFilesystem, WRITABLE),
            (io::ErrorKind::PermissionDenied, LET_US),
            (io::ErrorKind::NotFound, "make its directory again"),
        ];
        let remedy = known.into_iter().find(|(kind, _)| *kind == error.kind());
        Self::hindered(error.to_string(), remedy.map_or(LOOK_AT_THE_DISK, |(_, remedy)| remedy))
    }

    /// Whether the disk is to blame, and not who may use the file, or what lies there.
    pub(super) fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Hindered { remedy, .. } if [LOOK_AT_THE_DISK, MAKE_ROOM, WRITABLE].contains(remedy))
    }

    /// What is wrong as a sentence.
    pub(super) fn sentence(&self, path: &Path) -> String {
        let path = path.display();
        let until = "until then what changes is kept in memory only; it is tried again each second";
        match self {
            Self::Damaged(why) => format!("{path} is damaged: {why}; {LOOK_AT_THE_DISK}; {until}"),
            Self::Newer(version) => {
                let newest = super::schema::NEWEST;
                format!("{path} has schema {version}, and the newest that this daemon knows is {newest}; move the file away; {until}")
            }
            Self::Hindered { reason, remedy } => format!("cannot write {path}: {reason}; {remedy}; {until}"),
        }
    }

    /// What is wrong as the reason not to start.
    pub(super) fn error(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Damaged(reason) => StoreError::Unreadable { path, reason, remedy: LOOK_AT_THE_DISK },
            Self::Newer(version) => StoreError::Newer { path, version, newest: super::schema::NEWEST },
            Self::Hindered { reason, remedy } => StoreError::Unreadable { path, reason, remedy },
        }
    }
}

/// What helps against a failure that comes from outside of the file; `None` where the file itself is to blame.
fn remedy(error: &rusqlite::Error) -> Option<&'static str> {
    let code = error.sqlite_error_code()?;
    let of = |codes: &[ErrorCode]| codes.contains(&code);
    if of(&[ErrorCode::DiskFull]) {
        Some(MAKE_ROOM)
    } else if of(&[ErrorCode::ReadOnly]) {
        Some(WRITABLE)
    } else if of(&[ErrorCode::CannotOpen, ErrorCode::PermissionDenied]) {
        Some(LET_US)
    } else if of(&[ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::FileLockingProtocolFailed]) {
        Some(END_THE_OTHER)
    } else if of(&[ErrorCode::SystemIoFailure, ErrorCode::NoLargeFileSupport]) {
        Some(LOOK_AT_THE_DISK)
    } else if of(&[ErrorCode::OutOfMemory]) {
        Some(FREE_MEMORY)
    } else {
        None
    }
}
