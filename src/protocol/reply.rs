//! One type for the result of each command. Instants are Unix seconds, times seconds, sizes bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::WireError;
use super::event::Event;
use super::names::{Cause, EndedBy, Name, Origin, RegistryHealth, StateName, Wanted};

/// Result of `ping`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Always true.
    pub pong: bool,
    /// The daemon's wall clock.
    pub time: f64,
}

/// Result of `info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the daemon.
    pub version: String,
    /// Version of the protocol.
    pub protocol: u64,
    /// The daemon's PID.
    pub pid: u32,
    /// A version-1 UUID, new at every start of the daemon.
    pub uuid: String,
    /// Seconds since it started, on the monotonic clock.
    pub uptime: f64,
    /// When it started.
    pub started_at: f64,
    /// The host's name.
    pub hostname: String,
    /// Where it takes requests, wildcards resolved.
    pub endpoints: Vec<String>,
    /// `http://…/metrics`, or null where none is served.
    pub metrics_endpoint: Option<String>,
    /// What this daemon can do on this host.
    pub capabilities: Capabilities,
    /// Sub-processes by state; every state is there.
    pub counts: BTreeMap<StateName, u64>,
    /// Where events are published, wildcards resolved; a daemon before them does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_endpoints: Option<Vec<String>>,
    /// Where clients of CGSE's control servers come in: with commands to a device, and to the server itself. Not there where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgse_endpoints: Option<Vec<String>>,
}

/// What a daemon can do on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Each sub-process is held in a cgroup of its own.
    pub cgroup: bool,
    /// The kernel tells the exit status of a process that is not a child (`PIDFD_INFO_EXIT`, Linux 6.15).
    pub pidfd_exit_info: bool,
    /// libzmq was built with CURVE.
    pub curve: bool,
    /// Orphaned descendants come to the daemon (`PR_SET_CHILD_SUBREAPER`).
    pub subreaper: bool,
}

/// What is known of one sub-process without looking at `/proc`. Never holds values of its environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Its registered name.
    pub name: Name,
    /// Its group.
    pub group: Option<Name>,
    /// What it is doing.
    pub state: StateName,
    /// What it is wanted to do.
    pub wanted: Wanted,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// The last run's version-1 UUID, new at every start; null before the first.
    pub uuid: Option<String>,
    /// When the last run started.
    pub started_at: Option<f64>,
    /// Seconds since then on the monotonic clock, while it lives.
    pub uptime: Option<f64>,
    /// It is ready to serve.
    pub ready: bool,
    /// What its health check says; null without one.
    pub health: Option<String>,
    /// Exit code of the last run, −N when signal N ended it; null while it runs or never ran.
    pub returncode: Option<i32>,
    /// N, when signal N ended it.
    pub signal: Option<i32>,
    /// Why the last run ended.
    pub cause: Option<Cause>,
    /// Starts that the restart policy made since the last one that somebody asked for.
    pub restarts: u64,
    /// When the next try is due, in `backoff`; else when its schedule starts it next.
    pub next_start_at: Option<f64>,
    /// The definition's program.
    pub cmd: Vec<String>,
    /// The definition's arguments.
    pub args: Vec<String>,
    /// Whether a shell runs it.
    pub shell: bool,
    /// Its working directory; null for the daemon's own.
    pub cwd: Option<String>,
    /// Where standard output goes.
    pub stdout: String,
    /// Where standard error goes.
    pub stderr: String,
    /// What there is to say of the last end in words, such as why a start failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is wrong with its logs; not there while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_problem: Option<String>,
    /// How it is listed in the registry of CGSE; not there where it has no type there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgse: Option<CgseEntry>,
}

/// How a sub-process is listed in the registry of CGSE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgseEntry {
    /// Its type, of the definition.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The id of this run's entry.
    pub id: Option<String>,
    /// How it is listed; `unknown` also while it does not run.
    pub health: RegistryHealth,
    /// Since when id and health have been these.
    pub since: Option<f64>,
    /// What is wrong: the registry cannot be asked, or another service has its type.
    pub problem: Option<String>,
}

/// Result of `execute` and, for one sub-process, of `restart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// Its registered name.
    pub name: Name,
    /// The process.
    pub pid: u32,
    /// This run's version-1 UUID.
    pub uuid: String,
    /// Its state when this was answered.
    pub state: StateName,
}

/// Result of `quit` and `reap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its registered name.
    pub name: Name,
    /// How many processes of the tree outlived SIGKILL.
    pub survivors: u32,
    /// How the last run ended, as in [`View`].
    pub returncode: Option<i32>,
    /// The signal that ended it, as in [`View`].
    pub signal: Option<i32>,
    /// Processes that ended when asked.
    pub terminated: Vec<u32>,
    /// Processes that SIGKILL ended.
    pub killed: Vec<u32>,
}

/// One entry of the answer about several sub-processes: what was done, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Each<T> {
    /// Done.
    Done(T),
    /// Not done.
    Refused {
        /// Its registered name.
        name: Name,
        /// Why.
        error: WireError,
    },
}

/// Result of `unregister`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unregistered {
    /// The name that is free again.
    pub name: Name,
}

/// Result of `signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    /// Its registered name.
    pub name: Name,
    /// The processes that the signal was sent to.
    pub signalled: Vec<u32>,
}

/// A view with the living status of its process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewWithStatus {
    /// The view's keys stand beside `status`.
    #[serde(flatten)]
    pub view: View,
    /// Null when it does not run, or was started just now and could not be looked at within 250 ms.
    pub status: Option<ProcessStatus>,
}

/// Result of `status` without a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusOfAll {
    /// The daemon's own.
    pub daemon: ProcessStatus,
    /// Every sub-process, in name order.
    pub processes: Vec<ViewWithStatus>,
    /// Why what must outlive the daemon cannot be written; not there while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_problem: Option<String>,
    /// Why the daemon is not in the registry of CGSE, where it is to be; not there while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_problem: Option<String>,
    /// Why the notify hub of CGSE is not told of events, where it is to be; not there while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_hub_problem: Option<String>,
    /// Why the metrics hub of CGSE gets no points, where it is to get some; not there while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_hub_problem: Option<String>,
}

/// Living status of one process. A value that the kernel does not show to this daemon is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The process.
    pub pid: u32,
    /// The run's version-1 UUID.
    pub uuid: String,
    /// When the kernel made the process, to a clock tick.
    pub create_time: f64,
    /// Seconds since then, on the clock that counts suspension too (`CLOCK_BOOTTIME`).
    pub uptime: f64,
    /// Memory.
    pub memory: Memory,
    /// Processor time.
    pub cpu: Cpu,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub fds: Option<u64>,
    /// Storage traffic.
    pub io: Io,
    /// Context switches of its main thread (proc_pid_status(5)).
    pub context_switches: ContextSwitches,
    /// The process and all its descendants together.
    pub tree: Tree,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident set size.
    pub rss: u64,
    /// Unique set size: what would be freed if it ended now (private pages of proc_pid_smaps(5)).
    pub uss: Option<u64>,
    /// Virtual size.
    pub vms: u64,
    /// Swapped-out anonymous memory.
    pub swap: u64,
}

/// Processor time of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Share of one processor in percent over the last refresh interval; above 100 with several busy threads.
    pub percent: f64,
    /// Seconds in user mode.
    pub user: f64,
    /// Seconds in kernel mode.
    pub system: f64,
    /// Physical cores of the host.
    pub count: Option<u32>,
}

/// Storage traffic in bytes (proc_pid_io(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Read from storage.
    pub read_bytes: Option<u64>,
    /// Written to storage.
    pub write_bytes: Option<u64>,
}

/// Context switches since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSwitches {
    /// It waited for something.
    pub voluntary: u64,
    /// It was made to give way.
    pub involuntary: u64,
}

/// A process and all its descendants together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// How many they are, the process itself included.
    pub processes: u64,
    /// The sum of their resident set sizes in bytes; shared pages count once for each.
    pub rss: u64,
    /// The sum of their shares of a processor in percent, those that have ended meanwhile included where the run has a control group.
    pub cpu_percent: f64,
    /// Bytes of memory charged to the run's control group, page cache included; not there without the memory controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The most of it so far (Linux 5.19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
}

/// Entry of `processes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProcess {
    /// The process.
    pub pid: u32,
    /// `running`, `sleeping`, `disk-sleep`, `stopped`, `tracing-stop`, `dead`, `idle` … (psutil's words).
    pub status: String,
    /// The command line, joined with spaces.
    pub cmdline: String,
}

/// Entry of `process_info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostProcessInfo {
    /// The process.
    pub pid: u32,
    /// The command line.
    pub cmdline: Vec<String>,
    /// When the kernel made it.
    pub create_time: f64,
}

/// Entry of `zombies` and of `children`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedProcess {
    /// The process.
    pub pid: u32,
    /// The kernel's name for it (`comm`), at most 15 bytes.
    pub name: String,
    /// The command line; a zombie has none.
    pub cmdline: Vec<String>,
}

/// Result of `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLines {
    /// The lines, oldest first, without their line feeds.
    pub lines: Vec<String>,
    /// Where the next answer is to go on: how many bytes of the stream come before it.
    pub offset: u64,
    /// Some of what was asked for is not there: it is not kept any more, or did not fit into `max_bytes`.
    pub truncated: bool,
}

/// Result of `is_process_running`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RunningPids {
    /// The lowest matching PID, or 0.
    First(u32),
    /// Every matching PID, ascending.
    All(Vec<u32>),
}

/// Result of `events`. A client may read its events as another type, to pass on what it does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay<E = Event> {
    /// In their order, without a gap between them.
    pub events: Vec<E>,
    /// What to ask for next: one more than the `seq` of the last of them.
    pub next: u64,
    /// Nothing is missing between the `since` of the request and `events`.
    pub complete: bool,
    /// The run of the daemon that `next` counts in: the `uuid` of `info`.
    pub daemon: String,
}

/// Entry of `history`: a run that has ended, or could not begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastRun {
    /// The name it was registered under.
    pub name: Name,
    /// The run's version-1 UUID.
    pub uuid: String,
    /// What its process was; null when it could not be started.
    pub pid: Option<u32>,
    /// Arguments of this run only.
    pub args: Vec<String>,
    /// When it was started.
    pub started_at: f64,
    /// When its end was seen.
    pub ended_at: f64,
    /// Exit code, −N when signal N ended it; null when it could not be started, or nobody can tell.
    pub returncode: Option<i32>,
    /// N, when signal N ended it.
    pub signal: Option<i32>,
    /// Why it ended.
    pub cause: Cause,
    /// Seconds that it lived, on the monotonic clock.
    pub duration: f64,
    /// The kernel wrote a core dump.
    pub core_dump: bool,
    /// Who had it started.
    pub started_by: Origin,
    /// Who had it ended.
    pub ended_by: EndedBy,
    /// What there is to say of it in words, such as why it could not be started.
    pub message: Option<String>,
}

/// Entry of `audit`: a command that was to change something, and what came of it. Never values of an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was answered.
    pub time: f64,
    /// Who asked: the role, and once there are keys, the client's name.
    pub principal: String,
    /// The endpoint that it came in by; `signal` for one that the daemon was sent.
    pub endpoint: String,
    /// Where the client is, as far as the transport tells: an address, or user, group and process of a Unix socket's peer.
    pub peer: Option<String>,
    /// The command.
    pub command: String,
    /// Whom it was about: a name, `group:NAME` or `all`.
    pub target: Option<String>,
    /// What the client calls the request.
    pub request_id: Option<String>,
    /// `ok`, or the code of the refusal, or `begun`: it takes its time.
    pub outcome: String,
    /// What the refusal says.
    pub message: Option<String>,
}

/// Result of `reload`: what the file now says, against what was registered. Each list is in name order, and each name of the file is in exactly one of
/// the first four. What was registered at run time and is not in the file is in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// New names.
    pub added: Vec<Name>,
    /// Those that are defined otherwise than before.
    pub changed: Vec<Name>,
    /// Those that the file had before and has no more.
    pub removed: Vec<Name>,
    /// Those that are defined as before.
    pub unchanged: Vec<Name>,
    /// Those of `changed` that run, and are started anew for that.
    pub restarted: Vec<Name>,
    /// Keys outside of the definitions that differ from what the daemon was started with, which it does not take over while it runs.
    pub ignored: Vec<String>,
}

/// The result of a command that has nothing to tell: an empty map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}
