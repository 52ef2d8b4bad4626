//! Why the daemon could not run, and with which exit code it leaves (the numbers are those of sysexits.h(3head) where one fits).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigErrors;
use crate::control::BindError;
use crate::store::{StateDirError, StoreError};
use crate::subprocess::containment::NoGroups;
use crate::supervisor::RegisterError;
use crate::telemetry::MetricsError;

/// Each way to end, with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitReason {
    /// It was asked to.
    Done = 0,
    /// A fault of the daemon or of the operating system.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A control or events endpoint cannot be bound (EX_UNAVAILABLE).
    Control = 69,
    /// The state or runtime directory cannot be written, or the configured control group (EX_CANTCREAT).
    Directory = 73,
    /// The disk of the state directory is out of order, and what is on it cannot be read (EX_IOERR).
    Disk = 74,
    /// Another daemon holds the state directory (EX_TEMPFAIL).
    Held = 75,
    /// The metrics address cannot be bound (EX_PROTOCOL).
    Metrics = 76,
    /// The configuration is wrong (EX_CONFIG).
    Config = 78,
}

/// Why the daemon did not start, or did not leave as it should. One sentence that names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The sub-processes of the configuration cannot be registered.
    #[error("cannot register the sub-processes of the configuration: {0}")]
    Register(RegisterError),
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime directory cannot be made.
    #[error("cannot make the runtime directory {path}: {source}; make it writable for this user, or set daemon.runtime_dir")]
    RuntimeDir {
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The control groups that the configuration asks for cannot be made.
    #[error("{0}; set daemon.cgroup to a group that this user may write, or to \"auto\"")]
    Groups(#[from] NoGroups),
    /// A control or events endpoint cannot be opened.
    #[error(transparent)]
    Control(#[from] BindError),
    /// The metrics address cannot be opened.
    #[error("cannot serve metrics at {address}: {source}; set metrics.listen to a free address, or to \"\" for none")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The metrics cannot be set up.
    #[error("cannot set up the metrics: {0}")]
    Families(#[from] MetricsError),
    /// The daemon left, but not everything that it had started.
    #[error("left, but {survivors} processes of sub-processes outlived SIGKILL; still below the daemon were: {strays:?}")]
    LeftBehind {
        /// Processes that outlived SIGKILL, or could not be quit in time.
        survivors: u64,
        /// PIDs of those that were still there at the very end.
        strays: Vec<u32>,
    },
    /// The program that was to take over cannot be executed.
    #[error("cannot execute {program}, which was to take over: {source}; everything that runs lives on, start a daemon that takes it over")]
    Upgrade {
        /// Which.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refused something that every host has.
    #[error("{what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl StartError {
    /// With which code the daemon leaves.
    pub fn reason(&self) -> ExitReason {
        match self {
            Self::Config(_) | Self::Register(_) => ExitReason::Config,
            Self::StateDir(StateDirError::Disk { .. }) => ExitReason::Disk,
            Self::Store(error) if error.may_pass() => ExitReason::Disk,
            Self::StateDir(StateDirError::Unwritable { .. }) | Self::Store(_) | Self::RuntimeDir { .. } | Self::Groups(_) => {
                ExitReason::Directory
            }
            Self::StateDir(StateDirError::Held { .. }) => ExitReason::Held,
            Self::Control(_) => ExitReason::Control,
            Self::Metrics { .. } => ExitReason::Metrics,
            Self::Families(_) | Self::LeftBehind { .. } | Self::Upgrade { .. } | Self::System { .. } => ExitReason::Failure,
        }
    }
}

impl From<ExitReason> for std::process::ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason as u8)
    }
}
