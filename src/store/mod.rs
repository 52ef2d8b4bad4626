//! What must outlive the daemon, and who may write it.
//!
//! - [`state_dir`]: the state directory, held by one daemon at a time;
//! - [`handle`]: the [`Store`] that everybody else holds, over `procman.db` in that directory;
//! - [`rows`]: what is written down, and what an earlier daemon left of it;
//! - [`committed`]: the acknowledgement of something that was handed over;
//! - [`history`]: the runs that have ended, as a cache in memory that answers at once; [`bounds`]: how many of them are kept, there and on the disk;
//! - `file`, `database`, `schema`, `tables`: the file and its SQL; `failure`: why it cannot be used, and what helps;
//! - `mirror`, `desk`: what must be on the disk, in memory, and how it is handed over;
//! - `writer`, `syncer`, `sentinel`: the three threads.
//!
//! # How it works
//!
//! **Handing over** changes the mirror in memory and rings a bell; it never waits for a disk. **The writer** carries over what differs, all that waits
//! in one transaction (group commit): the disk always holds a state of the mirror at one moment. **An acknowledgement** comes in two strengths. A run
//! that begins outlives the daemon: its commit is in the kernel's hands, which is all that a killed daemon needs, and what runs is worth nothing after
//! a reboot. A definition outlives the host: the syncer has brought the commit to the disk. The audit trail follows within a fifth of a second.
//!
//! **When the disk fails** (full, read-only, gone, locked, failing, or silent for five seconds) supervision goes on: everything is acknowledged as not
//! durable at once, the mirror keeps what must be there, queues of ten thousand entries (and 16 MiB) each keep what is to be appended to history and
//! audit trail, and the writer tries again each second. When the disk is back it writes all of that in one transaction. A file that was removed or
//! replaced is noticed, though SQLite would write on to it.
//!
//! **A damaged file** is renamed to `procman.db.damaged-DATE`, and what can still be read of it goes into a new one. A newer schema is refused.

pub mod bounds;
pub mod committed;
mod database;
mod desk;
mod failure;
mod file;
pub mod handle;
pub mod history;
mod mirror;
pub mod rows;
mod schema;
mod sentinel;
pub mod state_dir;
mod syncer;
mod tables;
mod writer;

pub use bounds::Bounds;
pub use committed::{Committed, NotDurable};
pub use failure::StoreError;
pub use handle::{Notice, Opened, Store, Watcher};
pub use history::{History, InMemory};
pub use rows::{AnswerRow, AnsweredRow, EndingRow, Farewell, ProcessRow, Recovered, RunChange, RunRow, SetAside, StandingRow};
pub use state_dir::{StateDir, StateDirError};

#[cfg(test)]
mod tests;
