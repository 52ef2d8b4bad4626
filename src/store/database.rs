//! The database: opened, checked, written, and looked after while it is open.

use std::borrow::Borrow;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::bounds::{Bounds, Ledger, size_of_run};
use super::failure::Failure;
use super::file::{SIDE_FILES, beside, check_header, connect, connect_immutable, finish, inode, install, make, salvage, set_aside};
use super::mirror::Batch;
use super::rows::{Farewell, SetAside};
use super::schema::{APPLICATION_ID, NEWEST, STEPS, migrate};
use super::tables::{self, Contents};
use crate::protocol::reply::PastRun;

/// Pages of the write-ahead log at which SQLite carries them over within a commit. The writer does so earlier, where nobody waits.
const LATEST_CHECKPOINT: u32 = 4000;

/// The database, open and sound.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    ledger: Ledger,
    path: PathBuf,
    /// The files by device and inode: of the database, and of its write-ahead log.
    place: [Option<(u64, u64)>; 2],
}

/// What was found where it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) contents: Contents,
    pub(super) set_aside: Option<SetAside>,
    pub(super) fresh: bool,
}

/// What was in a database that was taken away under us, and which file that was.
#[derive(Debug)]
pub(super) struct Carried {
    contents: Contents,
    inode: Option<(u64, u64)>,
}

impl Database {
    /// Opens it; makes it where there is none; sets it aside where it is damaged, if that is allowed, and makes a new one with what could be saved.
    pub(super) fn open(path: &Path, bounds: Bounds, may_set_aside: bool) -> Result<(Self, Found), Failure> {
        finish(path)?;
        match Self::attempt(path, bounds) {
            Ok(Some((database, contents))) => Ok((database, Found { contents, ..Found::default() })),
            Ok(None) => {
                install(&make(path, &Contents::default(), bounds)?, path)?;
                Self::reopened(path, bounds, Found { fresh: true, ..Found::default() })
            }
            Err(Failure::Damaged(problem)) if may_set_aside => {
                let (contents, unreadable) = salvage(path);
                let salvaged = contents.rows() as u64;
                // First the new one, then the old one away: a crash between the two is a short one.
                let new = make(path, &contents, bounds)?;
                let path_aside = set_aside(path)?;
                install(&new, path)?;
                let set_aside = Some(SetAside { path: path_aside, problem, salvaged, unreadable });
                Self::reopened(path, bounds, Found { set_aside, ..Found::default() })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Makes it anew after it was taken away under us, with what was in it. What somebody has put in its place meanwhile is set aside: this daemon has
    /// never read it.
    pub(super) fn restore(path: &Path, bounds: Bounds, carried: &Carried) -> Result<(Self, Found), Failure> {
        let new = make(path, &carried.contents, bounds)?;
        let mut found = Found::default();
        match inode(path) {
            Some(there) if Some(there) != carried.inode => {
                let problem = "it was put in the place of the one that was in use".into();
                found.set_aside = Some(SetAside { path: set_aside(path)?, problem, salvaged: 0, unreadable: 0 });
            }
            // SQLite would take the log that is left for that of the new one.
            Some(_) | None => SIDE_FILES.iter().for_each(|side| drop(fs::remove_file(beside(path, side)))),
        }
        install(&new, path)?;
        Self::reopened(path, bounds, found)
    }

    fn reopened(path: &Path, bounds: Bounds, found: Found) -> Result<(Self, Found), Failure> {
        match Self::attempt(path, bounds)? {
            Some((database, contents)) => Ok((database, Found { contents, ..found })),
            None => Err(Failure::of_io(&io::ErrorKind::NotFound.into())),
        }
    }

    /// Opens what is there; `None` where nothing is.
    fn attempt(path: &Path, bounds: Bounds) -> Result<Option<(Self, Contents)>, Failure> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let orphan = fs::metadata(beside(path, "-wal")).is_ok_and(|wal| wal.len() > 0);
                return if orphan { Err(Failure::Damaged("it is gone, and its write-ahead log is still there".into())) } else { Ok(None) };
            }
            Err(error) => return Err(Failure::of_io(&error)),
            Ok(meta) if meta.is_file() && meta.len() == 0 => return Err(Failure::Damaged("it is empty".into())),
            Ok(meta) if !meta.is_file() => return Err(Failure::hindered("it is not a regular file", "move it away")),
            Ok(meta) => {
                if meta.mode() & 0o077 != 0 {
                    // Definitions hold environments, and these secrets. Where it is not ours to change, opening it decides.
                    drop(fs::set_permissions(path, fs::Permissions::from_mode(0o600)));
                }
            }
        }
        check_header(path)?;
        if is_immutable(path) {
            return Err(Failure::of_io(&io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        let reading = |error| Failure::of_reading(&error);
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(reading)?;
        let version = identify(&connection)?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(reading)?;
        if mode != "wal" {
            return Err(Failure::hindered(
                format!("SQLite has no write-ahead log there, only {mode:?}"),
                "put the state directory on a local file system",
            ));
        }
        connection.pragma_update(None, "wal_autocheckpoint", LATEST_CHECKPOINT).map_err(reading)?;
        connection.pragma_update(None, "journal_size_limit", 16 << 20).map_err(reading)?;
        // The host may lose the last commits, the daemon may not: what must be on the disk itself is synced apart (`syncer`).
        connection.pragma_update(None, "synchronous", "normal").map_err(reading)?;
        check(&connection)?;
        migrate(&mut connection, version, STEPS).map_err(|error| Failure::of_writing(&error))?;
        let mut contents = tables::read(&connection)?;
        let mut ledger = Ledger::new(bounds);
        for (number, run) in &contents.history {
            for pushed_out in ledger.append(number.cast_unsigned(), &run.name, size_of_run(run)) {
                tables::delete_past(&connection, pushed_out).map_err(|error| Failure::of_writing(&error))?;
            }
        }
        contents.history.retain(|number, run| ledger.of(&run.name).any(|kept| kept == number.cast_unsigned()));
        let place = ["", "-wal"].map(|side| inode(&beside(path, side)));
        Ok(Some((Self { connection, ledger, path: path.to_owned(), place }, contents)))
    }

    /// Writes this in one transaction. After a failure this database must not be used any more.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.transact(batch).map_err(|error| Failure::of_writing(&error))
    }

    fn transact(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        // What comes after trouble is healed only once the disk has it, and nobody comes after the last.
        let synced = batch.whole || batch.is_last();
        if synced {
            self.connection.pragma_update(None, "synchronous", "full")?;
        }
        self.write(batch)?;
        if synced { self.connection.pragma_update(None, "synchronous", "normal") } else { Ok(()) }
    }

    fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if batch.whole {
            tables::clear::<tables::Defined>(&transaction)?;
            tables::clear::<super::RunRow>(&transaction)?;
            tables::clear::<super::StandingRow>(&transaction)?;
            tables::clear::<super::AnswerRow>(&transaction)?;
        }
        write_changes(&transaction, &batch.definitions)?;
        write_changes(&transaction, &batch.runs)?;
        write_changes(&transaction, &batch.standings)?;
        write_changes(&transaction, &batch.answers)?;
        for run in &batch.records {
            put_past(&transaction, &mut self.ledger, run)?;
        }
        for entry in &batch.audits {
            tables::put(&transaction, entry)?;
        }
        if !batch.audits.is_empty() {
            tables::prune_audit(&transaction)?;
        }
        if let Some(meta) = &batch.meta {
            meta.boot_id.iter().try_for_each(|boot_id| tables::set_boot(&transaction, boot_id))?;
            tables::set_farewell(&transaction, meta.farewell)?;
        }
        transaction.commit()
    }

    /// Carries the write-ahead log over into the database, as far as nobody reads it.
    pub(super) fn checkpoint(&self) -> Result<(), Failure> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(())).map_err(|error| Failure::of_writing(&error))
    }

    /// Leaves one file behind, without a write-ahead log beside it.
    pub(super) fn close(self) -> Result<(), Failure> {
        let close = || {
            self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
        };
        close().map_err(|error| Failure::of_writing(&error))?;
        self.connection.close().map_err(|(_, error)| Failure::of_writing(&error))
    }

    /// Whether what is written still goes to where it will be looked for: SQLite writes on to a file that was removed.
    pub(super) fn in_place(&self) -> Result<(), Failure> {
        if ["", "-wal"].map(|side| inode(&beside(&self.path, side))) == self.place {
            return Ok(());
        }
        Err(Failure::hindered("it was removed or replaced while it was in use", "leave it alone, a new one is made"))
    }

    /// All that is in it, also where its file was removed.
    pub(super) fn rescue(&self) -> Carried {
        Carried { contents: tables::salvage(&self.connection).0, inode: self.place[0] }
    }

    /// Finds out whether it can be written, by writing what is there: how the daemon before this one has left stays known until all that it left is taken
    /// over.
    pub(super) fn try_to_write(&self, farewell: Option<Farewell>) -> Result<(), Failure> {
        tables::set_farewell(&self.connection, farewell).map_err(|error| Failure::of_writing(&error))
    }
}

/// What can be read where nothing can be written: the disk is full, or the file is not ours to write.
pub(super) fn peek(path: &Path) -> Result<Contents, Failure> {
    let look = |connection: rusqlite::Result<Connection>| {
        let connection = connection.map_err(|error| Failure::of_reading(&error))?;
        identify(&connection)?;
        tables::read(&connection)
    };
    // The index of the write-ahead log is a file, which a full disk has no room for; whoever has the database alone keeps it in memory.
    let alone = || {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        Ok(connection)
    };
    match look(reader(path)).or_else(|_| look(alone())) {
        Err(Failure::Damaged(_)) => Ok(salvage(path).0),
        other => other,
    }
}

/// Whether its schema is one that this build knows.
pub(super) fn version(path: &Path) -> Result<(), Failure> {
    check_header(path)?; // it says what SQLite would call a file that cannot be opened
    let connection = reader(path).map_err(|error| Failure::of_reading(&error))?;
    identify(&connection).map(drop)
}

/// A connection of its own that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    if is_immutable(path) { connect_immutable(path) } else { connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY) }
}

/// Whether it was closed before its file system became read-only. The write-ahead log and its index are files, which SQLite makes even to find that there
/// is nothing in them; where they were taken away, and cannot be made, nobody can be writing.
fn is_immutable(path: &Path) -> bool {
    inode(path).is_some()
        && SIDE_FILES.iter().all(|side| inode(&beside(path, side)).is_none())
        && access(path, AccessFlags::W_OK) == Err(Errno::EROFS)
}

/// Appends a run that has ended, unless it is there, and takes out what it pushes out.
pub(super) fn put_past(connection: &Connection, ledger: &mut Ledger, run: &PastRun) -> rusqlite::Result<()> {
    if tables::put(connection, run)? {
        let number = connection.last_insert_rowid().cast_unsigned();
        for pushed_out in ledger.append(number, &run.name, size_of_run(run)) {
            tables::delete_past(connection, pushed_out)?;
        }
    }
    Ok(())
}

fn write_changes<K: Borrow<str>, R: tables::Row>(connection: &Connection, changes: &super::mirror::Changes<K, R>) -> rusqlite::Result<()> {
    for (key, row) in changes {
        match row {
            Some(row) => drop(tables::put(connection, &**row)?),
            None => tables::delete::<R>(connection, key.borrow())?,
        }
    }
    Ok(())
}

/// Which schema it has, if it is ours.
fn identify(connection: &Connection) -> Result<i64, Failure> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| Failure::of_reading(&error));
    let (id, version) = (number("application_id")?, number("user_version")?);
    if id != i64::from(APPLICATION_ID) {
        return Err(Failure::Damaged(format!("it is not a database of procman (its application_id is {id:#x})")));
    }
    let written = tables::meta(connection, "schema").map_err(|error| Failure::of_reading(&error))?;
    if written.as_deref() != Some(&version.to_string()) || version < 1 {
        return Err(Failure::Damaged(format!(
            "its header has schema {version}, its table `meta` {}",
            written.as_deref().unwrap_or("none")
        )));
    }
    if version > NEWEST { Err(Failure::Newer(version)) } else { Ok(version) }
}

/// Asks SQLite whether the file is sound.
fn check(connection: &Connection) -> Result<(), Failure> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0)).map_err(|error| Failure::of_reading(&error))?;
    if verdict == "ok" { Ok(()) } else { Err(Failure::Damaged(verdict)) }
}
