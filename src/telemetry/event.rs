//! The closed list of events. Fields, not prose; base units; borrowed, so that an event nobody listens to costs no allocation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::Value;

use crate::protocol::envelope::RequestId;
use crate::protocol::{Cause, CommandName, ErrorCode, Name, RegistryHealth, StateName, WireError};

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A sub-process went from one state to another.
    StateChanged {
        /// Its registered name.
        name: &'a Name,
        /// The state it left.
        from: StateName,
        /// The state it is in now.
        to: StateName,
        /// The process, while there is one.
        pid: Option<u32>,
        /// How the last run ended, as in [`crate::protocol::reply::View`].
        returncode: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Why it ended.
        cause: Option<Cause>,
    },
    /// The operating system refused to start a sub-process.
    SpawnFailed {
        /// Its registered name.
        name: &'a Name,
        /// The name of the errno, such as `ENOENT`.
        errno_name: &'a str,
        /// A sentence that names the thing and the remedy.
        message: &'a str,
    },
    /// The restart policy will start a sub-process again.
    Restarting {
        /// Its registered name.
        name: &'a Name,
        /// Which start of the policy in a row this will be, from 1.
        attempt: u64,
        /// How long it waits before.
        delay: Duration,
    },
    /// The supervisor will not start a sub-process again until somebody asks for it.
    GaveUp {
        /// Its registered name.
        name: &'a Name,
        /// Why the last run ended.
        cause: Option<Cause>,
        /// Starts that the restart policy made since the last one that somebody asked for.
        restarts: u64,
    },
    /// Scheduled times of a sub-process passed without a start.
    ScheduleMissed {
        /// Its registered name.
        name: &'a Name,
        /// How many; counted up to a thousand.
        times: u32,
        /// The last of them.
        last: SystemTime,
        /// Why: `overlap`, `late` or `refused`.
        why: &'a str,
    },
    /// A process that came to the daemon as an orphan was reaped.
    OrphanReaped {
        /// What its PID was.
        pid: u32,
        /// Its exit code, or −N when signal N ended it.
        status: i32,
    },
    /// Somebody without a key that is known was refused at a TCP endpoint.
    StrangerRefused,
    /// A request was answered.
    RequestServed {
        /// What was asked; `None` where that could not be read.
        command: Option<CommandName>,
        /// The refusal; `None` where it was done.
        error: Option<&'a WireError>,
        /// From the arrival of the frame to its reply.
        duration: Duration,
        /// What the client called it.
        request_id: Option<&'a RequestId>,
    },
    /// Parts of a log were rotated out.
    LogRotated {
        /// The registered name of whose it is.
        name: &'a Name,
        /// `stdout` or `stderr`.
        stream: &'a str,
        /// How many parts.
        parts: u64,
        /// Their bytes together.
        bytes: u64,
    },
    /// The oldest of a log was given up: it came faster than its parts hold, or the disk is full.
    LogDropped {
        /// The registered name of whose it is.
        name: &'a Name,
        /// `stdout` or `stderr`.
        stream: &'a str,
        /// How many bytes.
        bytes: u64,
    },
    /// Something is wrong with a log, or nothing any more.
    LogProblem {
        /// The registered name of whose it is.
        name: &'a Name,
        /// `stdout` or `stderr`.
        stream: &'a str,
        /// A sentence; `None` when it is over.
        problem: Option<&'a str>,
    },
    /// The disk of the logs is full, or is no more.
    LogDisk {
        /// The directory of the logs.
        directory: &'a str,
        /// It is.
        full: bool,
        /// Bytes that are left on it.
        available: u64,
    },
    /// What an earlier daemon left is taken over.
    Recovered {
        /// Runs whose process lives.
        adopted: u64,
        /// Runs that ended meanwhile, with a status that somebody knew.
        ended: u64,
        /// Runs that ended meanwhile, and nobody knows how.
        lost: u64,
        /// Runs that nobody has a definition for any more.
        remnants: u64,
        /// How long that took.
        took: Duration,
    },
    /// What must outlive the daemon cannot be written; supervision goes on.
    StoreTrouble {
        /// A sentence that names the file, the reason and the remedy.
        problem: &'a str,
    },
    /// It can be written again, and all of it is.
    StoreHealed {
        /// Entries of the audit trail that there was no room for meanwhile.
        lost_audit: u64,
        /// Records of history that there was no room for meanwhile.
        lost_history: u64,
    },
    /// The daemon is not in the registry of CGSE, where it is to be.
    RegistryMissing {
        /// A sentence that says why.
        problem: &'a str,
    },
    /// It is in it.
    RegistryEntered,
    /// A sub-process is listed there otherwise than before.
    Listed {
        /// Its registered name.
        name: &'a Name,
        /// Its type there.
        service_type: &'a str,
        /// The id of its entry.
        id: Option<&'a str>,
        /// How it is listed.
        health: RegistryHealth,
        /// What is wrong, in a sentence.
        problem: Option<&'a str>,
    },
    /// A hub of CGSE is away, or takes nothing.
    HubMissing {
        /// `notify` or `metrics`.
        hub: &'a str,
        /// A sentence that says why.
        problem: &'a str,
    },
    /// It is there.
    HubReached {
        /// `notify` or `metrics`.
        hub: &'a str,
        /// Messages that it will never get, since it was last there.
        dropped: u64,
    },
    /// A hub of CGSE was sent messages, or some were given up.
    HubServed {
        /// `notify` or `metrics`.
        hub: &'a str,
        /// How many its connection took.
        sent: u64,
        /// How many will never be sent.
        dropped: u64,
    },
    /// The database was damaged; a new one holds what could be saved.
    StoreSetAside {
        /// Where the damaged one is now.
        path: &'a str,
        /// What is wrong with it.
        problem: &'a str,
        /// Rows that could still be read.
        salvaged: u64,
        /// Rows that could not be understood.
        unreadable: u64,
    },
    /// The background task brought the status of all processes up to date.
    Refreshed {
        /// How long that took.
        took: Duration,
        /// Zombies seen on the host.
        zombies: u64,
    },
}

/// The word for `command` of a request whose command could not be read.
pub const INVALID: &str = "invalid";
/// The word for `outcome` of a request that was done.
pub const OK: &str = "ok";

/// The `command` of a request in log and metrics.
pub(super) const fn command_word(command: Option<CommandName>) -> &'static str {
    match command {
        Some(command) => command.as_str(),
        None => INVALID,
    }
}

/// The `outcome` of a request in log and metrics.
pub(super) const fn outcome_word(code: Option<ErrorCode>) -> &'static str {
    match code {
        Some(code) => code.as_str(),
        None => OK,
    }
}

/// The targets events are logged under, for the filter in `PROCMAN_LOG`.
mod target {
    pub(super) const PROCESS: &str = "procman::process";
    pub(super) const LOG: &str = "procman::log";
    pub(super) const REQUEST: &str = "procman::request";
    pub(super) const STATUS: &str = "procman::status";
    pub(super) const STORE: &str = "procman::store";
    pub(super) const CGSE: &str = "procman::cgse";
}

/// Writes one event to the log. Fields that hold text are given as text: a formatter then quotes and escapes what a client said, so that no request
/// can forge a line.
pub(super) fn log(event: &Event<'_>) {
    match *event {
        Event::StateChanged { name, from, to, pid, returncode, signal, cause } => {
            macro_rules! line {
                ($level:expr) => {
                    tracing::event!(target: target::PROCESS, $level, name = name.as_str(), from = from.as_str(), to = to.as_str(),
                        pid, returncode, signal, cause = cause.map(Cause::as_str), "state changed")
                };
            }
            match to {
                StateName::Fatal | StateName::Lost => line!(tracing::Level::WARN),
                StateName::Stopped
                | StateName::Starting
                | StateName::Running
                | StateName::Stopping
                | StateName::Backoff
                | StateName::Exited => line!(tracing::Level::INFO),
            }
        }
        Event::SpawnFailed { name, errno_name, message } => {
            tracing::warn!(target: target::PROCESS, name = name.as_str(), errno_name, error = message, "could not be started");
        }
        Event::Restarting { name, attempt, delay } => {
            tracing::info!(target: target::PROCESS, name = name.as_str(), attempt, delay_seconds = delay.as_secs_f64(), "will be started again");
        }
        Event::GaveUp { name, cause, restarts } => {
            tracing::error!(target: target::PROCESS, name = name.as_str(), cause = cause.map(Cause::as_str), restarts,
                "gave up, it stays down until it is executed again");
        }
        Event::ScheduleMissed { name, times, last, why } => {
            let last = last.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            tracing::warn!(target: target::PROCESS, name = name.as_str(), times, last, why, "scheduled times passed without a start");
        }
        Event::OrphanReaped { pid, status } => tracing::debug!(target: target::PROCESS, pid, status, "orphan reaped"),
        // The doorkeeper tells of some, with their addresses.
        Event::StrangerRefused => {}
        Event::RequestServed { command, error, duration, request_id } => {
            let code = error.map(|error| error.code);
            macro_rules! line {
                ($level:expr, $message:literal) => {
                    tracing::event!(target: target::REQUEST, $level, command = command_word(command), outcome = outcome_word(code),
                        seconds = duration.as_secs_f64(), request_id = request_id.map(id_value),
                        error = error.map(|error| error.message.as_str()), $message)
                };
            }
            if code == Some(ErrorCode::Internal) {
                line!(tracing::Level::ERROR, "a fault of the daemon");
            } else if command.is_some_and(CommandName::changes_something) {
                line!(tracing::Level::INFO, "request served");
            } else {
                line!(tracing::Level::DEBUG, "request served");
            }
        }
        Event::LogRotated { name, stream, parts, bytes } => {
            tracing::debug!(target: target::LOG, name = name.as_str(), stream, parts, bytes, "rotated");
        }
        Event::LogDropped { name, stream, bytes } => {
            tracing::debug!(target: target::LOG, name = name.as_str(), stream, bytes, "the oldest output was given up");
        }
        Event::LogProblem { name, stream, problem: Some(problem) } => {
            tracing::warn!(target: target::LOG, name = name.as_str(), stream, problem, "something is wrong with a log");
        }
        Event::LogProblem { name, stream, problem: None } => {
            tracing::info!(target: target::LOG, name = name.as_str(), stream, "the log is well again");
        }
        Event::LogDisk { directory, full: true, available } => {
            tracing::error!(target: target::LOG, directory, available,
                "the disk of the logs is full: their oldest parts are removed, new output may be lost; make room on it");
        }
        Event::LogDisk { directory, full: false, available } => {
            tracing::info!(target: target::LOG, directory, available, "there is room on the disk of the logs again");
        }
        Event::Recovered { adopted, ended, lost, remnants, took } => {
            tracing::info!(target: target::PROCESS, adopted, ended, lost, remnants, seconds = took.as_secs_f64(),
                "what an earlier daemon left is taken over");
        }
        Event::StoreTrouble { problem } => {
            tracing::error!(target: target::STORE, problem, "what must outlive the daemon cannot be written; supervision goes on");
        }
        Event::StoreHealed { lost_audit: 0, lost_history: 0 } => {
            tracing::info!(target: target::STORE, "what must outlive the daemon is written again");
        }
        Event::StoreHealed { lost_audit, lost_history } => {
            tracing::warn!(target: target::STORE, lost_audit, lost_history, "what must outlive the daemon is written again, but for some entries");
        }
        Event::RegistryMissing { problem } => {
            tracing::warn!(target: target::CGSE, problem, "this daemon is not in the registry of CGSE; it is tried again each second");
        }
        Event::RegistryEntered => tracing::info!(target: target::CGSE, "this daemon is in the registry of CGSE"),
        Event::Listed { name, service_type, id, health, problem } => {
            macro_rules! line {
                ($level:expr) => {
                    tracing::event!(target: target::CGSE, $level, name = name.as_str(), r#type = service_type, id, health = health.as_str(),
                        problem, "listed in the registry of CGSE")
                };
            }
            match health {
                RegistryHealth::Passing => line!(tracing::Level::INFO),
                RegistryHealth::Critical | RegistryHealth::Missing | RegistryHealth::Unknown => line!(tracing::Level::WARN),
            }
        }
        Event::HubMissing { hub, problem } => {
            tracing::warn!(target: target::CGSE, hub, problem, "a hub of CGSE gets nothing; it is tried again each second");
        }
        Event::HubReached { hub, dropped } => tracing::info!(target: target::CGSE, hub, dropped, "a hub of CGSE is reached"),
        Event::HubServed { hub, sent, dropped } => tracing::trace!(target: target::CGSE, hub, sent, dropped, "a hub of CGSE was served"),
        Event::StoreSetAside { path, problem, salvaged, unreadable } => {
            tracing::error!(target: target::STORE, path, problem, salvaged, unreadable, "the database was damaged, it is set aside");
        }
        Event::Refreshed { took, zombies } => {
            tracing::trace!(target: target::STATUS, seconds = took.as_secs_f64(), zombies, "status refreshed");
        }
    }
}

/// A request's id as a field of its own kind: a number stays a number.
fn id_value(id: &RequestId) -> &dyn Value {
    match id {
        RequestId::Unsigned(number) => number,
        RequestId::Signed(number) => number,
        RequestId::Text(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::logging::tests::captured;
    use crate::telemetry::{LogFormat, Telemetry};
    use serde_json::{Value as Json, json};

    fn lines(filter: &str, events: &[Event<'_>]) -> Vec<Json> {
        let telemetry = Telemetry::new().unwrap();
        let text = captured(LogFormat::Json, filter, || events.iter().for_each(|event| telemetry.emit(*event)));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn served<'a>(command: Option<CommandName>, error: Option<&'a WireError>, request_id: Option<&'a RequestId>) -> Event<'a> {
        Event::RequestServed { command, error, duration: Duration::from_millis(2), request_id }
    }

    #[test]
    fn an_event_is_a_line_of_typed_fields() {
        let name: Name = "web".parse().unwrap();
        let lines = lines(
            "info",
            &[Event::StateChanged {
                name: &name,
                from: StateName::Running,
                to: StateName::Exited,
                pid: None,
                returncode: Some(-9),
                signal: Some(9),
                cause: Some(Cause::Signal),
            }],
        );
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["level"], &line["message"], &line["name"]), (&json!("INFO"), &json!("state changed"), &json!("web")));
        assert_eq!((&line["returncode"], &line["cause"], &line["to"]), (&json!(-9), &json!("signal"), &json!("exited")));
        assert_eq!(line.get("pid"), None);
    }

    #[test]
    fn requests_that_change_something_are_seen_and_reads_are_not() {
        let events: Vec<_> = CommandName::ALL.iter().map(|command| served(Some(*command), None, None)).collect();
        let shown: Vec<_> = lines("info", &events).iter().map(|line| line["command"].as_str().unwrap().to_owned()).collect();
        assert_eq!(shown, ["register", "unregister", "execute", "quit", "reap", "restart", "signal", "reload", "upgrade", "shutdown"]);
        assert_eq!(lines("debug", &events).len(), CommandName::ALL.len());
    }

    #[test]
    fn a_fault_is_an_error_with_the_request_id() {
        let error = WireError::new(ErrorCode::Internal, "the actor is gone");
        let id = RequestId::Unsigned(7);
        let lines = lines("error", &[served(Some(CommandName::Ping), Some(&error), Some(&id)), served(None, None, None)]);
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["request_id"], &line["error"], &line["outcome"]), (&json!(7), &json!("the actor is gone"), &json!("internal")));
    }

    #[test]
    fn no_client_can_forge_a_line() {
        let error = WireError::bad_request("x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m");
        let id = RequestId::Text("a\n<0>forged \u{1b}[2J".into());
        let telemetry = Telemetry::new().unwrap();
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = captured(format, "debug", || telemetry.emit(served(None, Some(&error), Some(&id))));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
            assert!(text.contains("forged"));
        }
    }
}
