//! What is written down, and what an earlier daemon left of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::protocol::definition::Definition;
use crate::protocol::reply::PastRun;
use crate::protocol::{EndedBy, Name, Origin, StateName, Wanted, WireError};

/// A run from the intent to start it until its end is told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// The run's version-1 UUID.
    pub uuid: String,
    /// The sub-process.
    pub name: Name,
    /// Arguments of this run only.
    pub args: Vec<String>,
    /// Environment variables of this run only.
    pub env: BTreeMap<String, String>,
    /// Who had it started.
    pub started_by: Origin,
    /// The boot of the host that it belongs to (`/proc/sys/kernel/random/boot_id`): after another one nothing of it lives.
    pub boot_id: String,
    /// When it was decided to start it, in Unix seconds.
    pub intended_at: f64,
    /// The same in nanoseconds of `CLOCK_MONOTONIC`: the order of the runs of one boot, whatever becomes of the host's clock. 0 where an earlier build
    /// wrote the row.
    #[serde(default)]
    pub monotonic: u64,
    /// A sum of what it was started with; `None` where an earlier build wrote the row, or nobody knows.
    #[serde(default)]
    pub start_sum: Option<u64>,
    /// Its process; `None` between the intent and the record.
    pub process: Option<ProcessRow>,
    /// It is ready to serve.
    pub ready: bool,
    /// Its end, where somebody has asked for it.
    pub ending: Option<EndingRow>,
}

/// The main process of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its PID.
    pub pid: u32,
    /// When the kernel made it, in clock ticks since the boot (field 22 of proc_pid_stat(5)): with the PID and the boot it is the process, and no other.
    pub start_time: u64,
    /// When it was started, in Unix seconds.
    pub started_at: f64,
    /// The same in nanoseconds of `CLOCK_MONOTONIC`, which later daemons of this boot share.
    pub monotonic: u64,
    /// It has a socket of sd_notify(3).
    pub notify: bool,
}

/// An end that somebody has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingRow {
    /// Who asked.
    pub by: EndedBy,
    /// A start is to follow.
    pub then_start: bool,
}

/// What becomes known of a run while it lasts.
#[derive(Clone, Debug, PartialEq)]
pub enum RunChange {
    /// It has a process.
    Started(ProcessRow),
    /// Another process is its main one now (`MAINPID=` of sd_notify(3)).
    MainMoved {
        /// Its PID.
        pid: u32,
        /// When the kernel made it, as in [`ProcessRow`].
        start_time: u64,
    },
    /// It is ready, or no longer.
    Ready(bool),
    /// Its end was asked for, or that was taken back.
    Ending(Option<EndingRow>),
}

/// How a sub-process stands apart from its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingRow {
    /// The sub-process.
    pub name: Name,
    /// Its state.
    pub state: StateName,
    /// What it is wanted to do.
    pub wanted: Wanted,
    /// Starts that the restart policy made since the last one that somebody asked for.
    pub restarts: u64,
    /// Which try in a row of the restart policy this is.
    pub attempt: u32,
    /// When it is started by the clock, in Unix seconds.
    #[serde(default)]
    pub scheduled: Option<f64>,
}

/// What a client that can be told from all others has asked for, and what came of it: nothing is done twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerRow {
    /// Who asked, and what he calls it.
    pub key: String,
    /// Of all that he asked for.
    pub hash: u64,
    /// The boot of the host that it was asked in.
    pub boot_id: String,
    /// When it was begun, or answered, in nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic: u64,
    /// The same in Unix seconds.
    pub time: f64,
    /// The answer; `None` while it is in work.
    pub answer: Option<AnsweredRow>,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredRow {
    /// It was done: the reply as it went out, in hexadecimal digits.
    Done(String),
    /// It was refused.
    Refused(WireError),
}

/// How a daemon left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It has quit its sub-processes.
    Quit,
    /// They were to go on without it.
    Kept,
}

impl Farewell {
    /// As it stands in the table.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Kept => "kept",
        }
    }

    pub(super) fn of(text: &str) -> Option<Self> {
        [Self::Quit, Self::Kept].into_iter().find(|farewell| farewell.as_str() == text)
    }
}

/// What an earlier daemon left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Definitions that were registered at run time.
    pub definitions: Vec<(Name, Definition)>,
    /// Runs that it began and did not see end.
    pub runs: Vec<RunRow>,
    /// How each sub-process stood.
    pub standings: Vec<StandingRow>,
    /// The runs that ended, oldest first, within [`super::Bounds`].
    pub history: Vec<PastRun>,
    /// What it was asked lately.
    pub answers: Vec<AnswerRow>,
    /// How it left; `None`: it did not say good-bye (was killed), or there was none.
    pub farewell: Option<Farewell>,
    /// The boot of the host that it ran in (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: Option<String>,
    /// The database was damaged, and a new one holds what could still be read of it.
    pub set_aside: Option<SetAside>,
    /// There was no database.
    pub fresh: bool,
}

/// A damaged database that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now; `-wal` and `-shm` lie beside it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// Rows that could still be read of it.
    pub salvaged: u64,
    /// Rows that were there and could not be understood. What could not even be found is not counted.
    pub unreadable: u64,
}
