//! Rows to values and values to rows: the only place with SQL of the tables' contents.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bounds::Bounds;
use super::failure::Failure;
use super::rows::{AnswerRow, Farewell, RunRow, StandingRow};
use super::schema::{AUDIT_ROWS, sum};
use crate::protocol::Name;
use crate::protocol::definition::Definition;
use crate::protocol::reply::{AuditEntry, PastRun};

/// A definition under its name.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub(super) struct Defined {
    pub(super) name: Name,
    pub(super) definition: Definition,
}

/// A table, said by what its rows hold.
pub(super) trait Row: Serialize + DeserializeOwned {
    const ASCENDING: &'static str;
    const DESCENDING: &'static str;
    const PUT: &'static str;
    const DELETE: &'static str;
    const CLEAR: &'static str;
    /// What stands in the key's column.
    fn key(&self) -> Option<&str>;
}

macro_rules! row {
    ($type:ty, $table:literal, $key:literal, $conflict:literal, |$row:ident| $of:expr) => {
        impl Row for $type {
            const ASCENDING: &'static str = concat!("SELECT number, ", $key, ", body, sum FROM ", $table, " ORDER BY number");
            const DESCENDING: &'static str = concat!("SELECT number, ", $key, ", body, sum FROM ", $table, " ORDER BY number DESC");
            const PUT: &'static str = concat!("INSERT INTO ", $table, "(", $key, ", body, sum) VALUES (?1, ?2, ?3)", $conflict);
            const DELETE: &'static str = concat!("DELETE FROM ", $table, " WHERE ", $key, " = ?1");
            const CLEAR: &'static str = concat!("DELETE FROM ", $table);

            fn key(&self) -> Option<&str> {
                let $row = self;
                $of
            }
        }
    };
}

row!(Defined, "definitions", "name", " ON CONFLICT(name) DO UPDATE SET body = excluded.body, sum = excluded.sum", |row| Some(
    row.name.as_str()
));
row!(RunRow, "runs", "uuid", " ON CONFLICT(uuid) DO UPDATE SET body = excluded.body, sum = excluded.sum", |row| Some(&row.uuid));
row!(StandingRow, "standings", "name", " ON CONFLICT(name) DO UPDATE SET body = excluded.body, sum = excluded.sum", |row| Some(
    row.name.as_str()
));
row!(AnswerRow, "answers", "key", " ON CONFLICT(key) DO UPDATE SET body = excluded.body, sum = excluded.sum", |row| Some(&row.key));
// A second record of the same run is ignored.
row!(PastRun, "history", "uuid", " ON CONFLICT(uuid) DO NOTHING", |row| Some(&row.uuid));
row!(AuditEntry, "audit", "target", "", |row| row.target.as_deref());

/// All that is in a database. The audit trail is read only where it has to move.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    pub(super) definitions: Vec<Defined>,
    pub(super) runs: Vec<RunRow>,
    pub(super) standings: Vec<StandingRow>,
    /// By number.
    pub(super) history: BTreeMap<i64, PastRun>,
    pub(super) audit: Vec<AuditEntry>,
    pub(super) answers: Vec<AnswerRow>,
    pub(super) farewell: Option<Farewell>,
    pub(super) boot_id: Option<String>,
}

impl Contents {
    pub(super) fn rows(&self) -> usize {
        self.definitions.len() + self.runs.len() + self.standings.len() + self.history.len() + self.audit.len() + self.answers.len()
    }
}

/// Writes a row; says whether one was written.
pub(super) fn put<R: Row>(connection: &Connection, row: &R) -> rusqlite::Result<bool> {
    let body = serde_json::to_string(row).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    Ok(connection.prepare_cached(R::PUT)?.execute((row.key(), &body, sum(&body)))? > 0)
}

pub(super) fn delete<R: Row>(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(R::DELETE)?.execute([key]).map(drop)
}

pub(super) fn clear<R: Row>(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(R::CLEAR, ()).map(drop)
}

/// Forgets one run that has ended.
pub(super) fn delete_past(connection: &Connection, number: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM history WHERE number = ?1")?.execute([number.cast_signed()]).map(drop)
}

/// Forgets the oldest entries of the audit trail, where there are too many.
pub(super) fn prune_audit(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?1";
    connection.prepare_cached(sql)?.execute([AUDIT_ROWS.cast_signed()]).map(drop)
}

pub(super) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

/// Says in which boot of the host the daemon runs.
pub(super) fn set_boot(connection: &Connection, boot_id: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta VALUES ('boot_id', ?1) ON CONFLICT(key) DO UPDATE SET value = excluded.value";
    connection.execute(sql, [boot_id]).map(drop)
}

/// Says how the daemon left, or that it has not.
pub(super) fn set_farewell(connection: &Connection, farewell: Option<Farewell>) -> rusqlite::Result<()> {
    match farewell {
        Some(farewell) => connection
            .execute("INSERT INTO meta VALUES ('farewell', ?1) ON CONFLICT(key) DO UPDATE SET value = excluded.value", [farewell.as_str()])
            .map(drop),
        None => connection.execute("DELETE FROM meta WHERE key = 'farewell'", ()).map(drop),
    }
}

/// A row as it was read: its number, and its value or what is wrong with it.
fn understood<R: Row>(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, Result<R, String>)> {
    let number: i64 = row.get(0)?;
    let texts = || -> Result<R, String> {
        let key: Option<String> = row.get(1).map_err(|error| error.to_string())?;
        let body: String = row.get(2).map_err(|error| error.to_string())?;
        let written: i64 = row.get(3).map_err(|error| error.to_string())?;
        if sum(&body) != written {
            return Err("its sum is wrong".into());
        }
        let value: R = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        if value.key() == key.as_deref() { Ok(value) } else { Err("its key is another one's".into()) }
    };
    Ok((number, texts()))
}

/// Every row of a table in this order. Stops at the first error of SQLite; goes on behind a row that `each` has taken.
fn scan<R: Row>(
    connection: &Connection,
    sql: &str,
    mut each: impl FnMut(i64, Result<R, String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let reading = |error| Failure::of_reading(&error);
    let mut statement = connection.prepare(sql).map_err(reading)?;
    let mut rows = statement.query(()).map_err(reading)?;
    while let Some(row) = rows.next().map_err(reading)? {
        let (number, value) = understood(row).map_err(reading)?;
        each(number, value)?;
    }
    Ok(())
}

/// Every row of a table; one that cannot be understood is damage.
fn read_all<R: Row>(connection: &Connection) -> Result<BTreeMap<i64, R>, Failure> {
    let mut found = BTreeMap::new();
    let damaged = |number, why| Failure::Damaged(format!("row {number} of `{}`: {why}", R::CLEAR.rsplit(' ').next().unwrap_or_default()));
    scan(connection, R::ASCENDING, |number, value| {
        found.insert(number, value.map_err(|why| damaged(number, why))?);
        Ok(())
    })?;
    Ok(found)
}

fn has_answers(connection: &Connection) -> Result<bool, Failure> {
    let sql = "SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'answers'";
    connection.query_row(sql, (), |row| row.get(0)).map_err(|error| Failure::of_reading(&error))
}

/// All that is in a sound database, but the audit trail.
pub(super) fn read(connection: &Connection) -> Result<Contents, Failure> {
    let said = meta(connection, "farewell").map_err(|error| Failure::of_reading(&error))?;
    let farewell = said.as_deref().and_then(Farewell::of);
    if let (Some(word), None) = (said, farewell) {
        return Err(Failure::Damaged(format!("the farewell in `meta` is {word:?}")));
    }
    Ok(Contents {
        definitions: read_all(connection)?.into_values().collect(),
        runs: read_all(connection)?.into_values().collect(),
        standings: read_all(connection)?.into_values().collect(),
        history: read_all(connection)?,
        audit: Vec::new(),
        // A database that can only be read keeps the schema that it has, and the first one had none of these.
        answers: if has_answers(connection)? { read_all(connection)?.into_values().collect() } else { Vec::new() },
        farewell,
        boot_id: meta(connection, "boot_id").map_err(|error| Failure::of_reading(&error))?,
    })
}

/// Rows of a damaged table: from the front until something is wrong, and then from the back. `unreadable` counts rows that could not be understood.
fn salvage_table<R: Row>(connection: &Connection, unreadable: &mut u64) -> BTreeMap<i64, R> {
    let mut found = BTreeMap::new();
    let mut not_understood = BTreeMap::new();
    for sql in [R::ASCENDING, R::DESCENDING] {
        let whole = scan(connection, sql, |number, value| {
            match value {
                Ok(value) => drop(found.insert(number, value)),
                Err(why) => drop(not_understood.insert(number, why)),
            }
            Ok(())
        });
        if whole.is_ok() {
            break;
        }
    }
    *unreadable += not_understood.len() as u64;
    found
}

/// What can still be read of a damaged database, table by table, the most precious first; and how many rows were there and could not be understood.
pub(super) fn salvage(connection: &Connection) -> (Contents, u64) {
    let mut unreadable = 0;
    let contents = Contents {
        definitions: salvage_table(connection, &mut unreadable).into_values().collect(),
        runs: salvage_table(connection, &mut unreadable).into_values().collect(),
        standings: salvage_table(connection, &mut unreadable).into_values().collect(),
        history: salvage_table(connection, &mut unreadable),
        answers: salvage_table(connection, &mut unreadable).into_values().collect(),
        audit: salvage_table(connection, &mut unreadable).into_values().collect(),
        farewell: meta(connection, "farewell").ok().flatten().as_deref().and_then(Farewell::of),
        boot_id: meta(connection, "boot_id").ok().flatten(),
    };
    (contents, unreadable)
}

/// Writes all of this into an empty database, history within its bounds.
pub(super) fn write(connection: &Connection, contents: &Contents, bounds: Bounds) -> rusqlite::Result<()> {
    let mut ledger = super::bounds::Ledger::new(bounds);
    contents.definitions.iter().try_for_each(|row| put(connection, row).map(drop))?;
    contents.runs.iter().try_for_each(|row| put(connection, row).map(drop))?;
    contents.standings.iter().try_for_each(|row| put(connection, row).map(drop))?;
    for run in contents.history.values() {
        super::database::put_past(connection, &mut ledger, run)?;
    }
    contents.answers.iter().try_for_each(|row| put(connection, row).map(drop))?;
    contents.audit.iter().try_for_each(|row| put(connection, row).map(drop))?;
    prune_audit(connection)?;
    contents.boot_id.iter().try_for_each(|boot_id| set_boot(connection, boot_id))?;
    set_farewell(connection, contents.farewell)
}

/// Entries of the audit trail, the newest first.
pub(super) fn audit(connection: &Connection, target: Option<&Name>, limit: usize) -> rusqlite::Result<Vec<AuditEntry>> {
    let sql = "SELECT number, target, body, sum FROM audit WHERE ?1 IS NULL OR target = ?1 ORDER BY number DESC LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map((target.map(Name::as_str), limit), understood::<AuditEntry>)?;
    // One that cannot be understood is left out here; at the next start it is damage.
    rows.filter_map(|row| row.map(|(_, entry)| entry.ok()).transpose()).collect()
}
