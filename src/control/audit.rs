//! The audit trail: each command that was to change something is told to an [`Auditor`], with what came of it, refusals too. And the answer of `audit`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::protocol::reply::AuditEntry;
use crate::protocol::request::{Audit, Command, DEFAULT_AUDIT_LIMIT, MOST_AUDIT_ENTRIES, Target};
use crate::protocol::{CommandName, ErrorCode, Name, WireError};
use crate::subprocess::published::unix_seconds;

use super::caller::Caller;
use super::rate::Rates;
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

/// Refusals of one principal in a second, in the long run, that are kept; a hundred may come at once. Whoever knocks all day does not push out what was done.
const REFUSALS: u32 = 10;
/// Principals whose refusals are counted: those that are configured, and the roles.
const MOST_PRINCIPALS: usize = 10_000;

/// Which refusals are kept.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    rates: Rates,
    /// How many of whom were not kept since one was.
    untold: HashMap<String, u64>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Counted { rates: Rates::new(REFUSALS), untold: HashMap::new() }))
    }
}

impl Refusals {
    /// The entry of a refusal, with how many before it were not kept; or nothing, where it is one of those itself.
    pub(super) fn keep(&self, mut entry: AuditEntry, now: Instant) -> Option<AuditEntry> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { rates, untold } = &mut *counted;
        if !rates.take(entry.principal.as_bytes(), now) {
            if untold.len() < MOST_PRINCIPALS || untold.contains_key(&entry.principal) {
                *untold.entry(entry.principal).or_default() += 1;
            }
            return None;
        }
        if let (Some(untold), Some(message)) = (untold.remove(&entry.principal), &mut entry.message) {
            message.push_str(&format!(" ({untold} refusals before this one are not told)"));
        }
        Some(entry)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_knocks_all_day_does_not_fill_the_trail() {
        let entry = |principal: &str| AuditEntry {
            time: 1.0,
            principal: principal.to_owned(),
            endpoint: "tcp://127.0.0.1:1".to_owned(),
            peer: None,
            command: "quit".to_owned(),
            target: None,
            request_id: None,
            outcome: "permission_denied".to_owned(),
            message: Some("no".to_owned()),
        };
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!((0..5000).filter_map(|_| refusals.keep(entry("viewer"), now)).count(), 100);
        assert!(refusals.keep(entry("other"), now).is_some());
        let later = refusals.keep(entry("viewer"), now + Duration::from_secs(1)).unwrap();
        assert_eq!(later.message.as_deref(), Some("no (4900 refusals before this one are not told)"));
        let after = refusals.keep(entry("viewer"), now + Duration::from_secs(1)).unwrap();
        assert_eq!(after.message.as_deref(), Some("no"));
    }
}
