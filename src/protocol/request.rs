//! One type for the arguments of each command, and [`Command`], the whole of what can be asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::definition::{Definition, Seconds};
use super::names::{CommandName, Name, Signal, StateName};

/// A decoded request: everything a client can ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// See [`CommandName::Ping`].
    Ping(NoArgs),
    /// See [`CommandName::Info`].
    Info(NoArgs),
    /// See [`CommandName::Register`].
    Register(Box<Register>),
    /// See [`CommandName::Unregister`].
    Unregister(ByName),
    /// See [`CommandName::Execute`].
    Execute(Execute),
    /// See [`CommandName::Quit`].
    Quit(Quit),
    /// See [`CommandName::Reap`].
    Reap(Reap),
    /// See [`CommandName::Restart`].
    Restart(Restart),
    /// See [`CommandName::Signal`].
    Signal(SendSignal),
    /// See [`CommandName::List`].
    List(List),
    /// See [`CommandName::Status`].
    Status(Status),
    /// See [`CommandName::Zombies`].
    Zombies(NoArgs),
    /// See [`CommandName::Processes`].
    Processes(Match),
    /// See [`CommandName::ProcessInfo`].
    ProcessInfo(Match),
    /// See [`CommandName::IsProcessRunning`].
    IsProcessRunning(IsProcessRunning),
    /// See [`CommandName::IsRunning`].
    IsRunning(ByName),
    /// See [`CommandName::Exists`].
    Exists(ByName),
    /// See [`CommandName::Returncode`].
    Returncode(ByName),
    /// See [`CommandName::Children`].
    Children(ByName),
    /// See [`CommandName::Events`].
    Events(Events),
    /// See [`CommandName::History`].
    History(History),
    /// See [`CommandName::Audit`].
    Audit(Audit),
    /// See [`CommandName::Logs`].
    Logs(Logs),
    /// See [`CommandName::Reload`].
    Reload(Reload),
    /// See [`CommandName::Upgrade`].
    Upgrade(NoArgs),
    /// See [`CommandName::Shutdown`].
    Shutdown(Shutdown),
}

impl Command {
    /// Which command it is.
    pub const fn name(&self) -> CommandName {
        match self {
            Self::Ping(_) => CommandName::Ping,
            Self::Info(_) => CommandName::Info,
            Self::Register(_) => CommandName::Register,
            Self::Unregister(_) => CommandName::Unregister,
            Self::Execute(_) => CommandName::Execute,
            Self::Quit(_) => CommandName::Quit,
            Self::Reap(_) => CommandName::Reap,
            Self::Restart(_) => CommandName::Restart,
            Self::Signal(_) => CommandName::Signal,
            Self::List(_) => CommandName::List,
            Self::Status(_) => CommandName::Status,
            Self::Zombies(_) => CommandName::Zombies,
            Self::Processes(_) => CommandName::Processes,
            Self::ProcessInfo(_) => CommandName::ProcessInfo,
            Self::IsProcessRunning(_) => CommandName::IsProcessRunning,
            Self::IsRunning(_) => CommandName::IsRunning,
            Self::Exists(_) => CommandName::Exists,
            Self::Returncode(_) => CommandName::Returncode,
            Self::Children(_) => CommandName::Children,
            Self::Events(_) => CommandName::Events,
            Self::History(_) => CommandName::History,
            Self::Audit(_) => CommandName::Audit,
            Self::Logs(_) => CommandName::Logs,
            Self::Reload(_) => CommandName::Reload,
            Self::Upgrade(_) => CommandName::Upgrade,
            Self::Shutdown(_) => CommandName::Shutdown,
        }
    }
}

/// The arguments of a command that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

/// The arguments of a command about one sub-process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// The registered name.
    pub name: Name,
}

/// Arguments of `register`: the name and every key of the definition stand side by side in the request's map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Register {
    /// The name to register under.
    pub name: Name,
    /// Put this definition in the place of another one under the same name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// What to register.
    #[serde(flatten)]
    pub definition: Definition,
}

/// Arguments of `execute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// The registered name.
    pub name: Name,
    /// Added to the definition's arguments for this run only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Added to the definition's environment for this run only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Answer only once it is ready, or this start has failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
    /// Seconds after which it is answered in any case; the start goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
}

/// Which sub-processes a command is about: exactly one of the three is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// One.
    Name(&'a Name),
    /// Those of one group.
    Group(&'a Name),
    /// Every one.
    All,
}

/// Exactly one of name, group and all must be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("say exactly one of `name`, `group` and `all: true`")]
pub struct AmbiguousTarget;

/// Reads a target from the three arguments that may say it.
fn target<'a>(name: Option<&'a Name>, group: Option<&'a Name>, all: bool) -> Result<Target<'a>, AmbiguousTarget> {
    match (name, group, all) {
        (Some(name), None, false) => Ok(Target::Name(name)),
        (None, Some(group), false) => Ok(Target::Group(group)),
        (None, None, true) => Ok(Target::All),
        (Some(_), Some(_), _) | (Some(_), None, true) | (None, Some(_), true) | (None, None, false) => Err(AmbiguousTarget),
    }
}

/// Arguments of `quit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quit {
    /// One sub-process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Every sub-process of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// Every sub-process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Seconds between the stop signal and SIGKILL; where not said, the definition's `stop_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
}

impl Quit {
    /// Which sub-processes are meant.
    pub fn target(&self) -> Result<Target<'_>, AmbiguousTarget> {
        target(self.name.as_ref(), self.group.as_ref(), self.all)
    }
}

/// Arguments of `reap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reap {
    /// The registered name.
    pub name: Name,
    /// Seconds between SIGTERM and SIGKILL; 3 where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// Leave the process itself alone and end only what is below it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub children_only: bool,
}

/// The time-out of `reap` where the request does not say one, in seconds (`egse.process`).
pub const DEFAULT_REAP_TIMEOUT: f64 = 3.0;

/// Arguments of `restart`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// One sub-process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Every sub-process of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// Every sub-process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// As for `quit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// As for `execute`; only with `name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// As for `execute`; only with `name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl Restart {
    /// Which sub-processes are meant.
    pub fn target(&self) -> Result<Target<'_>, AmbiguousTarget> {
        target(self.name.as_ref(), self.group.as_ref(), self.all)
    }
}

/// Arguments of `signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// The registered name.
    pub name: Name,
    /// Which signal.
    pub signal: Signal,
    /// To every descendant too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
}

/// What to look for in command lines: one text or several, every one of which must occur in some argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub enum Items {
    /// One text; the empty one is no text at all.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Items {
    /// The texts to look for; none match nothing.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::One(text) if text.is_empty() => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// The default of `contains`.
const fn yes() -> bool {
    true
}

/// Leaves `contains` out where it says its default.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_true(value: &bool) -> bool {
    *value
}

/// Arguments of `processes` and `process_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// What to look for.
    pub items: Items,
    /// An item matches an argument that contains it (true), or one that equals it (false).
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub contains: bool,
    /// Upper and lower case differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub case_sensitive: bool,
}

/// Arguments of `is_process_running`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IsProcessRunning {
    /// As for `processes`.
    pub items: Items,
    /// As for `processes`.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub contains: bool,
    /// As for `processes`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub case_sensitive: bool,
    /// Answer every PID, in a list, instead of the lowest one or 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_list: bool,
}

/// Arguments of `list`. With `items` it is `processes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Only those of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// Only those in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateName>,
    /// Host processes instead, as `processes` answers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Items>,
    /// As for `processes`; only with `items`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<bool>,
    /// As for `processes`; only with `items`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_sensitive: Option<bool>,
}

/// Arguments of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// One sub-process; where not said, the daemon and all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// Arguments of `events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The first `seq` that is wanted: the `next` of an earlier answer, or one more than that of the last event seen. 1 where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The run of the daemon that `since` counts in. When another one answers, its own sequence is answered from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<String>,
    /// The most events of one answer; all that are kept where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Arguments of `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The runs of one sub-process; of all where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The most runs of the answer; [`DEFAULT_HISTORY_LIMIT`] where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// How many runs `history` answers where the request does not say.
pub const DEFAULT_HISTORY_LIMIT: u64 = 50;

/// Arguments of `audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Only what was about this sub-process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The most entries of the answer, at most [`MOST_AUDIT_ENTRIES`]; [`DEFAULT_AUDIT_LIMIT`] where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// How many entries `audit` answers where the request does not say.
pub const DEFAULT_AUDIT_LIMIT: u64 = 50;

/// The most that `limit` of `audit` may be: as many as there is of history.
pub const MOST_AUDIT_ENTRIES: u64 = 10_000;

/// Arguments of `reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Only tell what would be done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// One output of a sub-process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// Arguments of `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// The registered name.
    pub name: Name,
    /// Which output.
    #[serde(default, skip_serializing_if = "LogStream::is_default")]
    pub stream: LogStream,
    /// The most lines; 100 where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Go on where an earlier answer ended; where not said, the last lines are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The most bytes of the stream that are looked at for one answer, 1 to [`Logs::MOST_BYTES`]; 65536 where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,
}

impl LogStream {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Logs {
    /// The most lines where the request does not say how many.
    pub const LINES: u32 = 100;
    /// The most bytes where the request does not say how many.
    pub const BYTES: u32 = 1 << 16;
    /// More bytes are never answered at once: what is no text grows threefold on the wire.
    pub const MOST_BYTES: u32 = 1 << 20;
}

/// What becomes of the sub-processes when the daemon leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildrenAtShutdown {
    /// They are quit, in the reverse of the order in which they depend on each other.
    #[default]
    Quit,
    /// They go on, and the next daemon takes them over.
    Keep,
}

/// Arguments of `shutdown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// What becomes of the sub-processes.
    #[serde(default)]
    pub children: ChildrenAtShutdown,
}
