//! Every error of the rooms below, translated once: a code for programs, a sentence that names the thing and the remedy.

use crate::protocol::{ErrorCode, Name, WireError};
use crate::subprocess::gate::Closed;
use crate::subprocess::spec::Problem;
use crate::subprocess::spawn::Operation;
use crate::subprocess::{CommandError, SpawnFailure};
use crate::supervisor::RegisterError;
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
pub fn register(name: &Name, error: RegisterError) -> WireError {
    match error {
        RegisterError::Exists(_) => {
            let message = format!("{name} is registered with another definition; say `replace: true` to put this one in its place");
            WireError::new(ErrorCode::AlreadyExists, message)
        }
        RegisterError::Full(most) => {
            WireError::new(ErrorCode::Busy, format!("{most} sub-processes are registered already; unregister some that are not needed"))
        }
        RegisterError::Leaving => shutting_down(),
        RegisterError::Command(error) => command(name, error),
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
