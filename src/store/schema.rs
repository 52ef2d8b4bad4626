//! The schema, and the steps to it from every former one.
//!
//! - **A row is a key and a body.** The body is JSON, so that a person reads it with any `sqlite3` shell (`SELECT body ->> '$.command' FROM audit`). The
//!   daemon reads a row whole or not at all, and nothing is searched for but by key; a column for each key would only have to be migrated.
//! - **A row has a sum**, the FNV-1a hash of its body. SQLite finds a damaged tree of pages, but not a changed letter in a text; a definition with a
//!   changed letter would start another program.
//! - **The number of a row** (`rowid`) is the order in which it came, and how the rows of a damaged table are found without its index.
//! - **`meta` holds the schema's number a second time.** A newer schema is refused, and a flipped bit in the file's header must not look like one: where
//!   the two differ the file is damaged. Every future schema keeps this table.
//! - **`audit` has no index**: the question for one target reads backwards through what is at most [`AUDIT_ROWS`] rows, for which nobody waits; the
//!   writing of each entry would pay for it.
//!
//! A step, once released, is never changed. What a body holds may gain keys without a step, by `#[serde(default)]`; a key that is to go, or to mean
//! something else, needs one.

use rusqlite::{Connection, TransactionBehavior};

/// What `application_id` says of our files (`file(1)` shows it): "prcm".
pub(super) const APPLICATION_ID: i32 = 0x7072_636d;

/// How many entries the audit trail keeps; the oldest go.
pub(super) const AUDIT_ROWS: u64 = 100_000;

/// From the schema of this index to the next one: the first makes version 1 of nothing.
pub(super) const STEPS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT NOT NULL UNIQUE, value TEXT NOT NULL) STRICT;
    CREATE TABLE definitions (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
    CREATE TABLE runs (number INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, body TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
    CREATE TABLE standings (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
    CREATE TABLE history (number INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, body TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
    CREATE TABLE audit (number INTEGER PRIMARY KEY, target TEXT, body TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
",
    "
    CREATE TABLE answers (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
",
];

/// The newest schema that this build knows.
pub(super) const NEWEST: i64 = STEPS.len() as i64;

/// Brings a database of version `from` to the end of `steps`, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, from: i64, steps: &[&str]) -> rusqlite::Result<()> {
    for (version, step) in (1_i64..).zip(steps).filter(|(version, _)| *version > from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction
            .execute("INSERT INTO meta VALUES ('schema', ?1) ON CONFLICT DO UPDATE SET value = excluded.value", [version.to_string()])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// FNV-1a of 64 bits, as the integer that SQLite keeps.
pub(super) fn sum(body: &str) -> i64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    body.bytes().fold(0xcbf2_9ce4_8422_2325, fnv).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_fnv_1a() {
        assert_eq!(sum("").cast_unsigned(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(sum("a").cast_unsigned(), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(sum("foobar").cast_unsigned(), 0x8594_4171_f739_67e8);
    }
}
