//! Which role each command needs. A new command does not compile until it is decided here.

use crate::access::Role;
use crate::protocol::{CommandName, ErrorCode, WireError};

/// The least role that may give a command.
pub const fn needed(command: CommandName) -> Role {
    match command {
        CommandName::Ping
        | CommandName::Info
        | CommandName::List
        | CommandName::Status
        | CommandName::Zombies
        | CommandName::Processes
        | CommandName::ProcessInfo
        | CommandName::IsProcessRunning
        | CommandName::IsRunning
        | CommandName::Exists
        | CommandName::Returncode
        | CommandName::Children
        | CommandName::Events
        | CommandName::History
        | CommandName::Logs => Role::Read,
        CommandName::Execute | CommandName::Quit | CommandName::Reap | CommandName::Restart | CommandName::Signal => Role::Operate,
        CommandName::Register
        | CommandName::Unregister
        | CommandName::Audit
        | CommandName::Reload
        | CommandName::Upgrade
        | CommandName::Shutdown => Role::Admin,
    }
}

/// Refuses a command to a caller whose role does not reach.
pub fn authorize(role: Role, command: CommandName) -> Result<(), WireError> {
    let needed = needed(command);
    if role >= needed {
        return Ok(());
    }
    let message = format!("{command} needs the role {}, yours is {}", needed.as_str(), role.as_str());
    Err(WireError::new(ErrorCode::PermissionDenied, message).with("needed", needed.as_str()).with("role", role.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_look_may_not_touch() {
        assert!(authorize(Role::Read, CommandName::Status).is_ok());
        assert_eq!(authorize(Role::Read, CommandName::Quit).unwrap_err().code, ErrorCode::PermissionDenied);
        assert!(authorize(Role::Operate, CommandName::Quit).is_ok());
        assert!(authorize(Role::Operate, CommandName::Register).is_err(), "it could run any program");
        assert!(CommandName::ALL.iter().all(|command| authorize(Role::Admin, *command).is_ok()));
    }
}
