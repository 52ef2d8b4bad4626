//! The file: made, put into its place, and set aside.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::bounds::Bounds;
use super::database::reader;
use super::failure::Failure;
use super::schema::{STEPS, migrate};
use super::tables::{self, Contents};

/// What SQLite keeps beside the database.
pub(super) const SIDE_FILES: [&str; 2] = ["-wal", "-shm"];

/// A database that is to come into its place lies beside it under this name.
const NEW: &str = ".new";

/// How long somebody else may hold the lock before that is trouble: callers wait for it.
const BUSY: Duration = Duration::from_millis(500);

/// The path with this behind its last name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut text = OsString::from(path);
    text.push(suffix);
    text.into()
}

pub(super) fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Opens a database that nobody can write, and that has no write-ahead log.
pub(super) fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    connect(Path::new(&(uri + "?immutable=1")), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

pub(super) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    // The file may be damaged: believe nothing that need not be, and carry nothing over into it on closing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // What it needs for a moment is nobody's business in /tmp.
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// Looks at what every file of ours begins with ("Database File Format" of SQLite, 1.3). Where another version of the format stands SQLite takes the file
/// for one that may only be read, or for one without a write-ahead log, and passes over the log that lies there.
pub(super) fn check_header(path: &Path) -> Result<(), Failure> {
    let mut header = [0; 20];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Failure::Damaged("it is cut off".into())),
        Err(error) => return Err(Failure::of_io(&error)),
    }
    if header.starts_with(b"SQLite format 3\0") && header.ends_with(&[2, 2]) {
        Ok(())
    } else {
        Err(Failure::Damaged("its header is not that of a SQLite database with a write-ahead log".into()))
    }
}

/// Makes a database with this in it, beside where it is to be: there it comes whole or not at all.
pub(super) fn make(path: &Path, contents: &Contents, bounds: Bounds) -> Result<PathBuf, Failure> {
    let new = beside(path, NEW);
    let clean = || ["", "-wal", "-shm", "-journal"].iter().for_each(|side| drop(fs::remove_file(beside(&new, side))));
    clean();
    let made =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(|error| Failure::of_io(&error)).and_then(|file| {
            drop(file);
            let fill = || {
                let mut connection = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                migrate(&mut connection, 0, STEPS)?;
                let transaction = connection.transaction()?;
                tables::write(&transaction, contents, bounds)?;
                transaction.commit()?;
                connection.pragma_update(None, "journal_mode", "wal")?;
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
                connection.close().map_err(|(_, error)| error)
            };
            fill().map_err(|error| Failure::of_writing(&error))
        });
    if made.is_err() {
        clean();
    }
    made.map(|()| new)
}

/// Puts a new database into its place.
pub(super) fn install(new: &Path, path: &Path) -> Result<(), Failure> {
    let sync = || fs::rename(new, path).and_then(|()| File::open(path.parent().unwrap_or(path))?.sync_all());
    sync().map_err(|error| Failure::of_io(&error))
}

/// Ends what a crash has interrupted: the damaged database is away, and the new one, which is whole when it has our header, is not in its place.
pub(super) fn finish(path: &Path) -> Result<(), Failure> {
    let new = beside(path, NEW);
    if inode(path).is_some() || inode(&new).is_none() || check_header(&new).is_err() {
        return Ok(());
    }
    if SIDE_FILES.iter().any(|side| inode(&beside(path, side)).is_some()) {
        set_aside(path)?;
    }
    install(&new, path)
}

/// What can still be read of a damaged database, without changing it, and how many rows could not be understood.
pub(super) fn salvage(path: &Path) -> (Contents, u64) {
    if fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
        // SQLite would remove the write-ahead log of an empty one.
        return (Contents::default(), 0);
    }
    reader(path).map_or_else(|_| (Contents::default(), 0), |connection| tables::salvage(&connection))
}

/// Renames a damaged database and what lies beside it. The database goes first: without its write-ahead log it would look like a sound, older one.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, Failure> {
    let stem = format!(".damaged-{}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ"));
    let free = |aside: &PathBuf| ["", "-wal", "-shm"].iter().all(|side| fs::symlink_metadata(beside(aside, side)).is_err());
    let names = (1..).map(|count| beside(path, &if count == 1 { stem.clone() } else { format!("{stem}.{count}") }));
    let aside = names.into_iter().find(free).unwrap_or_else(|| beside(path, &stem));
    for side in [""].into_iter().chain(SIDE_FILES) {
        match fs::rename(beside(path, side), beside(&aside, side)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::of_io(&error)),
        }
    }
    Ok(aside)
}
