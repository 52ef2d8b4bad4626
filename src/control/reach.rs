//! Which sub-processes a command touches, held against those that its caller may touch.

use crate::protocol::request::{Command, Target};
use crate::protocol::{CommandName, ErrorCode, Name, WireError};
use crate::supervisor::SupervisorHandle;

use super::guard::Reach;

/// Refuses a command that touches what is not in reach. Looking is not narrowed, but at what a sub-process writes.
pub(super) fn within(reach: &Reach, command: &Command, supervisor: &SupervisorHandle) -> Result<(), WireError> {
    if reach.is_all() {
        return Ok(());
    }
    let one = |name: &Name| {
        let group = supervisor.get(name.as_str()).and_then(|handle| handle.published().spec.group.clone());
        covers(reach, name, group.as_ref())
    };
    let many = |command: CommandName, target: Target<'_>| match target {
        Target::Name(name) => one(name),
        Target::Group(group) => {
            let members = supervisor.all().into_iter().filter(|handle| handle.published().spec.group.as_ref() == Some(group));
            members.into_iter().try_for_each(|handle| one(handle.name()))
        }
        Target::All => Err(outside(format!("{command} of all is not within your reach ({}): name them, or their group", reach.shown()))),
    };
    match command {
        Command::Execute(request) => one(&request.name),
        Command::Reap(request) => one(&request.name),
        Command::Signal(request) => one(&request.name),
        Command::Unregister(request) => one(&request.name),
        Command::Logs(request) => one(&request.name),
        // What it is now, and what it would be.
        Command::Register(request) => {
            if supervisor.get(request.name.as_str()).is_some() {
                one(&request.name)?;
            }
            covers(reach, &request.name, request.definition.group.as_ref())
        }
        // A target that is not said as it should is refused where it is read.
        Command::Quit(request) => request.target().map_or(Ok(()), |target| many(CommandName::Quit, target)),
        Command::Restart(request) => request.target().map_or(Ok(()), |target| many(CommandName::Restart, target)),
        Command::Reload(_) | Command::Upgrade(_) | Command::Shutdown(_) | Command::Audit(_) => {
            let command = command.name();
            Err(outside(format!("{command} is about the whole daemon, which is not within your reach ({})", reach.shown())))
        }
        Command::Ping(_)
        | Command::Info(_)
        | Command::List(_)
        | Command::Status(_)
        | Command::Zombies(_)
        | Command::Processes(_)
        | Command::ProcessInfo(_)
        | Command::IsProcessRunning(_)
        | Command::IsRunning(_)
        | Command::Exists(_)
        | Command::Returncode(_)
        | Command::Children(_)
        | Command::Events(_)
        | Command::History(_) => Ok(()),
    }
}

fn covers(reach: &Reach, name: &Name, group: Option<&Name>) -> Result<(), WireError> {
    if reach.covers(name.as_str(), group.map(Name::as_str)) {
        return Ok(());
    }
    Err(outside(format!("{:?} is not within your reach ({})", name.as_str(), reach.shown())))
}

fn outside(message: String) -> WireError {
    WireError::new(ErrorCode::PermissionDenied, message)
}
