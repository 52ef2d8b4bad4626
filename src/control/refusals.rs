//! Every error of the rooms below, translated once: a code for programs, a sentence that names the thing and the remedy.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::protocol::envelope::RequestId;
use crate::protocol::{Cause, Detail, ErrorCode, MISTAKES, Name, WireError};
use crate::subprocess::gate::Closed;
use crate::subprocess::spawn::Operation;
use crate::subprocess::spec::Problem;
use crate::subprocess::{CommandError, SpawnFailure, SubProcessHandle};
use crate::supervisor::{RegisterError, ReloadError, StartError, UnregisterError};
use crate::sys;

/// No sub-process has this name.
pub fn not_found(name: &Name, known: impl Iterator<Item = Name>) -> WireError {
    let known: Vec<Name> = known.collect();
    let nearest = crate::protocol::names::nearest(name.as_str(), known.iter().map(Name::as_str));
    let hint = nearest.map(|nearest| format!(", did you mean {nearest:?}?")).unwrap_or_default();
    WireError::new(ErrorCode::NotFound, format!("there is no sub-process {:?}{hint}", name.as_str()))
}

/// No sub-process is in this group.
pub fn no_group(group: &Name) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("no sub-process is in a group {:?}", group.as_str()))
}

/// The daemon is leaving.
pub fn shutting_down() -> WireError {
    WireError::new(ErrorCode::ShuttingDown, "the daemon is leaving and takes no more commands that change something")
}

/// The daemon was ended while it carried this out, which it began at that time (Unix seconds).
pub fn interrupted(begun_at: f64) -> WireError {
    let message = "the daemon was ended while it carried this out, and it is not done a second time; look how it stands, and ask under another `request_id` for \
                   what is still to be done";
    WireError::new(ErrorCode::Internal, message).with("begun_at", begun_at as i64)
}

/// Another request of the same client has this id.
pub fn other_request(id: &RequestId) -> WireError {
    WireError::bad_request(format!(
        "another request of this client was called {id}, with another command or other arguments; give each one an id of its own"
    ))
}

/// A fault of ours.
pub fn internal(what: &str) -> WireError {
    WireError::new(ErrorCode::Internal, format!("{what}; this is a fault of the daemon, its log says more"))
}

/// A definition that is wrong; all that is wrong is told.
pub fn wrong_definition(problems: &[Problem]) -> WireError {
    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
    WireError::bad_request(format!("register: {}", list.join("; ")))
}

/// `register` was refused.
pub fn register(error: RegisterError) -> WireError {
    match error {
        RegisterError::Exists(name) => {
            let message = format!(
                "{name} is registered with another definition; say `replace: true` (procmanctl register --replace) to put this one in its place"
            );
            WireError::new(ErrorCode::AlreadyExists, message)
        }
        RegisterError::Going(name) => WireError::new(ErrorCode::Busy, format!("{name} is being unregistered; try again")),
        RegisterError::Full(most) => {
            WireError::new(ErrorCode::Busy, format!("at most {most} sub-processes can be registered; unregister some that are not needed"))
        }
        RegisterError::Unknown { name, link, said, nearest } => {
            let remedy =
                nearest.map_or_else(|| format!("register {said} first"), |nearest| format!("did you mean {:?}?", nearest.as_str()));
            WireError::bad_request(format!("register: `{}` of {name}: there is no sub-process {:?}; {remedy}", link.key(), said.as_str()))
        }
        RegisterError::Cycle(cycle) => {
            WireError::bad_request(format!("register: the order would have a cycle, in which nobody could be the first: {cycle}"))
        }
        RegisterError::Required { name, by } => {
            let message = format!("register: {name}, which this definition no longer has, is required by {}", shown(&by));
            WireError::bad_request(format!("{message}; unregister or redefine these first"))
        }
        RegisterError::Leaving => shutting_down(),
        RegisterError::Command(name, error) => command(&name, error),
    }
}

/// So many names are told at most.
const SHOWN_NAMES: usize = 10;

fn shown(names: &BTreeSet<Name>) -> String {
    let mut shown: Vec<&str> = names.iter().take(SHOWN_NAMES).map(Name::as_str).collect();
    if names.len() > SHOWN_NAMES {
        shown.push("…");
    }
    shown.join(", ")
}

/// `unregister` was refused.
pub fn unregister(name: &Name, error: UnregisterError) -> WireError {
    match error {
        UnregisterError::Required(by) => {
            let message = format!("unregister: {name} is required by {}; unregister or redefine these first", shown(&by));
            WireError::bad_request(message)
        }
        UnregisterError::Command(error) => command(name, error),
    }
}

/// So many mistakes of a configuration stand in the sentence; all of them are in the details.
const SHOWN_MISTAKES: usize = 5;

/// A configuration that is wrong, with everything that is wrong about it.
pub fn wrong_configuration(mistakes: Vec<String>) -> WireError {
    let more = if mistakes.len() > SHOWN_MISTAKES { format!("; and {} more", mistakes.len() - SHOWN_MISTAKES) } else { String::new() };
    let shown: Vec<&str> = mistakes.iter().take(SHOWN_MISTAKES).map(String::as_str).collect();
    let message = format!("reload: nothing was changed, the configuration is wrong: {}{more}", shown.join("; "));
    WireError::bad_request(message).with(MISTAKES, Detail::List(mistakes.into_iter().map(Detail::Text).collect()))
}

/// `reload` was refused.
pub fn reload(error: ReloadError) -> WireError {
    match error {
        ReloadError::Full(most) => {
            WireError::bad_request(format!("reload: nothing was changed: at most {most} sub-processes can be registered"))
        }
        ReloadError::Required { name, by } => WireError::bad_request(format!(
            "reload: nothing was changed: {by}, which was registered at run time, requires {name}, which the configuration has no more; unregister or \
             redefine {by} first"
        )),
        ReloadError::Cycle(cycle) => WireError::bad_request(format!(
            "reload: nothing was changed: with what was registered at run time, the order would have a cycle, in which nobody could be the first: {cycle}"
        )),
        ReloadError::Leaving => shutting_down(),
    }
}

/// A start did not come to what was asked for.
pub fn start(name: &Name, error: StartError) -> WireError {
    match error {
        StartError::Command(error) => command(name, error),
        StartError::NotReady { state, end, returncode, message } => {
            let how = match end {
                None => "the run ended before".to_owned(),
                Some(end) => how_it_ended(end.cause, returncode),
            };
            let more = message.filter(|_| end.is_some()).map(|message| format!(" ({message})")).unwrap_or_default();
            let error = WireError::new(ErrorCode::NotRunning, format!("{name} did not get ready: {how}{more}; it is {state} now"));
            let error = match end {
                Some(end) => error.with("cause", end.cause.as_str()),
                None => error,
            };
            match returncode {
                Some(code) => error.with("returncode", code),
                None => error,
            }
        }
    }
}

/// The caller's time is over before a start came to what was asked for.
pub fn not_yet(handle: &SubProcessHandle, wait: bool, timeout: Duration) -> WireError {
    let (name, seconds) = (handle.name(), timeout.as_secs_f64());
    let what = if wait { "ready" } else { "started" };
    let message = format!("{name} was not {what} within {seconds} s; it is {}, and its start goes on", handle.published().state);
    WireError::new(ErrorCode::Timeout, message)
}

/// `it exited with code 3`
fn how_it_ended(cause: Cause, returncode: Option<i32>) -> String {
    match (cause, returncode) {
        (Cause::Exit, Some(code)) => format!("it exited with code {code}"),
        (Cause::Signal | Cause::CoreDump, Some(code)) => format!("signal {} ended it", code.unsigned_abs()),
        (Cause::Exit | Cause::Signal | Cause::CoreDump | Cause::Lost, _) => "it ended".to_owned(),
        (Cause::Oom, _) => "the kernel killed it for lack of memory".to_owned(),
        (Cause::Quit, _) => "it was quit".to_owned(),
        (Cause::Health, _) => "it failed its health check".to_owned(),
        (Cause::StartTimeout, _) => "it took too long".to_owned(),
        (Cause::SpawnFailed, _) => "it could not be started".to_owned(),
    }
}

/// A sub-process refused a command.
pub fn command(name: &Name, error: CommandError) -> WireError {
    match error {
        CommandError::Gone => WireError::new(ErrorCode::NotFound, format!("{name} was unregistered meanwhile")),
        CommandError::Busy => WireError::new(ErrorCode::Busy, format!("too many commands wait for {name}; try again")),
        CommandError::AlreadyRunning { pid, state } => {
            let process = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
            let error = WireError::new(ErrorCode::AlreadyRunning, format!("{name} is {state} already{process}"));
            match pid {
                Some(pid) => error.with("pid", pid),
                None => error,
            }
        }
        CommandError::NotRunning => WireError::new(ErrorCode::NotRunning, format!("{name} does not run")),
        CommandError::SpawnFailed(failure) => spawn_failed(name, &failure),
        CommandError::Required(Closed { name: required, state }) => {
            let message = format!("{name} requires {required}, which is {state}; start {required} first, or look why it does not run");
            WireError::new(ErrorCode::NotRunning, message).with("name", required.as_str())
        }
        CommandError::Overtaken => {
            WireError::new(ErrorCode::NotRunning, format!("{name} was quit by another request before it was started again"))
        }
        CommandError::Survivors(survivors) => {
            let message = format!("processes of {name} outlived SIGKILL, so it cannot be started again or forgotten: {survivors:?}");
            WireError::new(ErrorCode::AlreadyRunning, message)
        }
        CommandError::System(error) => {
            let errno = error.raw_os_error().unwrap_or_default();
            WireError::new(ErrorCode::Internal, format!("the operating system refused to signal {name}: {error}"))
                .with("errno", errno)
                .with("errno_name", sys::errno_name(errno))
        }
    }
}

fn spawn_failed(name: &Name, failure: &SpawnFailure) -> WireError {
    let message = format!("{name} could not be started: {failure}");
    if failure.operation == Operation::Reserve {
        // Descriptors come back when something ends.
        return WireError::new(ErrorCode::Busy, message);
    }
    WireError::new(ErrorCode::SpawnFailed, message)
        .with("errno", failure.errno)
        .with("errno_name", sys::errno_name(failure.errno))
        .with("command", failure.command.as_str())
}
