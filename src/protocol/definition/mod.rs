//! What a client (`register`) or the configuration file (`[[process]]`, `[defaults]`) says of one sub-process.
//!
//! Every key is optional here, so that a definition can be laid over defaults; [`crate::subprocess::spec`] fills in the rest and checks it.

//!
//! - [`Seconds`], [`Bytes`], [`Mode`], [`Limit`]: values and how they are written;
//! - [`Output`]: where outputs go; [`probe`]: readiness, health and requests to stop.

mod bytes;
mod env_file;
mod limits;
mod mode;
mod output;
pub mod probe;
mod seconds;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{Name, Overlap, RestartPolicy, Signal};

pub use bytes::{Bytes, InvalidBytes};
pub use env_file::EnvFile;
pub use limits::{InvalidLimit, Limit, LimitsDefinition};
pub use mode::{InvalidMode, Mode};
pub use output::{InvalidOutput, Output};
pub use probe::{HealthDefinition, ReadyDefinition, StopRequestDefinition};
pub use seconds::Seconds;

/// Declares [`Definition`] and the list of its keys in one place.
macro_rules! definition {
    ($($(#[$meta:meta])* $key:ident: $type:ty,)+) => {
        /// The keys of one sub-process; one that is `None` was not said.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Definition {
            $($(#[$meta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $key: Option<$type>,)+
        }

        impl Definition {
            /// The name of every key.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)+];

            /// This definition, and where it is silent, `defaults`.
            #[must_use]
            pub fn or(self, defaults: &Self) -> Self {
                Self { $($key: self.$key.or_else(|| defaults.$key.clone()),)+ }
            }
        }
    };
}

definition! {
    /// The group it is listed and quit with.
    group: Name,
    /// Program and leading arguments; the program is looked up in `PATH` when it holds no slash.
    cmd: Vec<String>,
    /// Further arguments.
    args: Vec<String>,
    /// Join `cmd` and `args` with spaces and hand them to `/bin/sh -c`.
    shell: bool,
    /// Environment variables, added to the daemon's own.
    env: BTreeMap<String, String>,
    /// Start with an empty environment instead of the daemon's own.
    clear_env: bool,
    /// A file of `KEY=value` lines that are added to the environment at each start, under `env`; `-` in front of the path: it may be missing.
    env_file: EnvFile,
    /// Working directory; the daemon's own where not said.
    cwd: PathBuf,
    /// User to run as, with that user's primary and supplementary groups; only root may say another than its own.
    user: String,
    /// Primary group to run with, instead of the user's.
    user_group: String,
    /// Supplementary groups to run with, instead of the user's.
    supplementary_groups: Vec<String>,
    /// Permissions that files it makes do not get (umask(2)).
    umask: Mode,
    /// Its niceness, −20 to 19 (nice(2)).
    nice: i32,
    /// How readily the kernel kills it for lack of memory, −1000 to 1000 (proc_pid_oom_score_adj(5)).
    oom_score_adj: i32,
    /// It and what it starts gain no privileges by executing a program (`PR_SET_NO_NEW_PRIVS`).
    no_new_privs: bool,
    /// Resource limits.
    limits: LimitsDefinition,
    /// Run so many of it: `NAME@1` to `NAME@N`; `%i` in its texts is the number.
    instances: u32,
    /// What is started before it and ended after it, where both are.
    after: Vec<Name>,
    /// As `after`; besides they are started for it, it waits until they are ready, and ends when one of them ends for good.
    requires: Vec<Name>,
    /// Where standard output goes.
    stdout: Output,
    /// Where standard error goes.
    stderr: Output,
    /// How its log files are rotated, where an output is "log".
    log: LogDefinition,
    /// Start it when the daemon starts.
    autostart: bool,
    /// Start it at these times: a cron expression, in the host's time zone.
    schedule: String,
    /// What happens when such a time comes while it still runs.
    overlap: Overlap,
    /// What follows an end that nobody asked for.
    restart: RestartPolicy,
    /// Exit codes that are no failure.
    success_codes: Vec<u8>,
    /// How long to wait before a start that follows a failure.
    backoff: BackoffDefinition,
    /// How many starts in how long are too many.
    start_limit: StartLimitDefinition,
    /// An end before this many seconds is a failed start, whatever the exit code.
    start_seconds: Seconds,
    /// When it counts as ready.
    ready: ReadyDefinition,
    /// How it is seen that it still does its work.
    health: HealthDefinition,
    /// What asks it to end, instead of the signal.
    stop_request: StopRequestDefinition,
    /// The signal that asks it to end.
    stop_signal: Signal,
    /// Seconds between that signal and SIGKILL.
    stop_timeout: Seconds,
    /// Its type in the registry of CGSE: it is ready once it is listed there, where `ready` says nothing else, and what a dead one has left there is taken
    /// out before a start.
    cgse_service_type: String,
}

impl Definition {
    /// Every path in it, to be made absolute where it is relative to something.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let outputs = [&mut self.stdout, &mut self.stderr].into_iter().filter_map(|output| match output {
            Some(Output::File(file)) => Some(file),
            Some(Output::Null | Output::Inherit | Output::Stdout | Output::Log | Output::Journal) | None => None,
        });
        let ready = self.ready.iter_mut().flat_map(|ready| [ready.unix.as_mut(), ready.file.as_mut()]).flatten();
        let health = self.health.iter_mut().flat_map(|health| [health.unix.as_mut(), health.file.as_mut()]).flatten();
        let env_file = self.env_file.as_mut().map(|file| &mut file.path);
        outputs.chain(self.cwd.as_mut()).chain(env_file).chain(ready).chain(health)
    }
}

/// The keys of `backoff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffDefinition {
    /// Seconds before the first new try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Seconds>,
    /// Each further wait is this many times the one before, 1 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The longest wait in seconds, jitter aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Seconds>,
    /// Each wait is changed at random by up to this share of it, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// A run of this many seconds makes the next wait the first again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<Seconds>,
}

/// The keys of `start_limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartLimitDefinition {
    /// Starts that may be made within `interval`; 0 means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Seconds>,
}

/// The keys of `log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogDefinition {
    /// A file of this size is rotated; 0 means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Bytes>,
    /// How many rotated files are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// Compress rotated files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<bool>,
    /// Rotated files older than so many seconds are removed; 0 means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Seconds>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_wins_over_the_defaults() {
        let defaults = Definition { shell: Some(true), user: Some("a".into()), ..Definition::default() };
        let said = Definition { user: Some("b".into()), ..Definition::default() };
        let merged = said.or(&defaults);
        assert_eq!((merged.shell, merged.user.as_deref()), (Some(true), Some("b")));
    }
}
