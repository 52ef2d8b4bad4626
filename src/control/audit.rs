//! The audit trail: each command that was to change something is told to an [`Auditor`], with what came of it, refusals too. And the answer of `audit`.

use std::time::{Duration, SystemTime};

use crate::protocol::reply::AuditEntry;
use crate::protocol::request::{Audit, Command, DEFAULT_AUDIT_LIMIT, MOST_AUDIT_ENTRIES, Target};
use crate::protocol::{CommandName, ErrorCode, Name, WireError};
use crate::subprocess::published::unix_seconds;

use super::caller::Caller;
use super::refusals;
use super::service::Service;

/// How long reading may take: a disk that hangs is not waited for.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who keeps the audit trail.
pub trait Auditor: Send + Sync + 'static {
    /// Takes note. Called on the runtime's threads: it must not block.
    fn audit(&self, entry: AuditEntry);
    /// What was about one name, or about all, newest first, at most `limit`. An error says in words why that cannot be told. Reads the disk, and blocks.
    fn entries(&self, name: Option<&Name>, limit: usize) -> Result<Vec<AuditEntry>, String>;
}

impl Service {
    pub(super) async fn audit(&self, request: Audit) -> Result<Vec<AuditEntry>, WireError> {
        let limit = request.limit.unwrap_or(DEFAULT_AUDIT_LIMIT);
        // Cut short in silence, it would look like all that there is.
        let Some(limit) = usize::try_from(limit).ok().filter(|_| limit <= MOST_AUDIT_ENTRIES) else {
            return Err(WireError::bad_request(format!("audit: `limit` is at most {MOST_AUDIT_ENTRIES}")));
        };
        let (auditor, permits) = (self.neighbours.auditor.clone(), self.audit_questions.clone());
        let reading = async {
            let permit = permits.acquire_owned().await;
            // The permit goes along: a read that hangs keeps its place until it is over, also when nobody waits for it any more.
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                auditor.entries(request.name.as_ref(), limit)
            })
            .await
        };
        match tokio::time::timeout(DEADLINE, reading).await {
            Ok(Ok(Ok(entries))) => Ok(entries),
            Ok(Ok(Err(message))) => Err(refusals::internal(&format!("the audit trail cannot be read: {message}"))),
            Ok(Err(_)) => Err(refusals::internal("reading the audit trail failed half-way")),
            Err(_) => Err(WireError::new(ErrorCode::Timeout, format!("the audit trail could not be read within {DEADLINE:?}"))),
        }
    }
}

/// What is noted of a request before it is carried out.
#[derive(Clone, Debug)]
pub(super) struct Audited {
    command: CommandName,
    target: Option<String>,
}

impl Audited {
    /// Of a request that was understood; `None` where it changes nothing.
    pub(super) fn of(command: &Command) -> Option<Self> {
        let changes = command.name().changes_something() && !matches!(command, Command::Reload(reload) if reload.dry_run);
        changes.then(|| Self { command: command.name(), target: target(command) })
    }

    /// Of one whose arguments were not.
    pub(super) fn of_word(command: Option<CommandName>) -> Option<Self> {
        command.filter(|command| command.changes_something()).map(|command| Self { command, target: None })
    }

    /// With what came of it.
    pub(super) fn entry(self, caller: &Caller, request_id: Option<String>, error: Option<&WireError>) -> AuditEntry {
        AuditEntry {
            time: unix_seconds(SystemTime::now()),
            principal: caller.principal().to_owned(),
            endpoint: caller.endpoint.to_string(),
            peer: caller.peer.clone(),
            command: self.command.to_string(),
            target: self.target,
            request_id,
            outcome: error.map_or("ok", |error| error.code.as_str()).to_owned(),
            message: error.map(|error| error.message.clone()),
        }
    }
}

/// Whom a command is about; `None` where it is about the daemon, or does not say it as it should.
fn target(command: &Command) -> Option<String> {
    let one_of = |target: Target<'_>| match target {
        Target::Name(name) => name.to_string(),
        Target::Group(group) => format!("group:{group}"),
        Target::All => "all".to_owned(),
    };
    match command {
        Command::Register(request) => Some(request.name.to_string()),
        Command::Unregister(request) => Some(request.name.to_string()),
        Command::Execute(request) => Some(request.name.to_string()),
        Command::Quit(request) => request.target().ok().map(one_of),
        Command::Reap(request) => Some(request.name.to_string()),
        Command::Restart(request) => request.target().ok().map(one_of),
        Command::Signal(request) => Some(request.name.to_string()),
        Command::Reload(_) | Command::Upgrade(_) | Command::Shutdown(_) => None,
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
        | Command::History(_)
        | Command::Audit(_)
        | Command::Logs(_) => None,
    }
}
