//! What there will be to say of a run once it is over. Pure: clocks are read by who keeps it.

use std::time::{Duration, Instant, SystemTime};

use crate::protocol::{Cause, EndedBy, Origin};

use super::machine::End;
use super::report::RunRecord;

/// A run under way, from the decision to start it on.
#[derive(Clone, Debug)]
pub(super) struct Account {
    uuid: String,
    args: Vec<String>,
    started_by: Origin,
    begun_at: SystemTime,
    process: Option<Process>,
    /// The first who asked for its end.
    asked_by: Option<EndedBy>,
    message: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    started: Instant,
    started_at: SystemTime,
}

impl Account {
    /// A run is about to be started.
    pub(super) fn begin(uuid: String, args: Vec<String>, started_by: Origin, begun_at: SystemTime) -> Self {
        Self { uuid, args, started_by, begun_at, process: None, asked_by: None, message: None }
    }

    /// There is a process.
    pub(super) fn started(&mut self, pid: u32, started: Instant, started_at: SystemTime) {
        self.process = Some(Process { pid, started, started_at });
    }

    /// It could not be started.
    pub(super) fn failed(&mut self, why: String) {
        self.message = Some(why);
    }

    /// Somebody asks for its end. Who comes later only hurries it.
    pub(super) fn asked(&mut self, by: EndedBy) {
        self.asked_by.get_or_insert(by);
    }

    /// It is over.
    pub(super) fn close(self, end: End, now: Instant, ended_at: SystemTime) -> RunRecord {
        let Self { uuid, args, started_by, begun_at, process, asked_by, message } = self;
        let ended_by = match end.cause {
            Cause::Quit => asked_by.unwrap_or(EndedBy::Quit),
            Cause::Health => EndedBy::Health,
            Cause::StartTimeout => EndedBy::StartTimeout,
            Cause::Exit | Cause::Signal | Cause::CoreDump | Cause::Oom | Cause::SpawnFailed | Cause::Lost => EndedBy::Itself,
        };
        let message = message.or_else(|| (end.cause == Cause::Lost).then(|| "it ended, and nobody can tell how".to_owned()));
        RunRecord {
            uuid,
            pid: process.map(|process| process.pid),
            args,
            started_at: process.map_or(begun_at, |process| process.started_at),
            ended_at,
            lived: process.map_or(Duration::ZERO, |process| now.saturating_duration_since(process.started)),
            status: end.status,
            cause: end.cause,
            started_by,
            ended_by,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::ExitStatus;
    use std::time::UNIX_EPOCH;

    fn account() -> Account {
        Account::begin("u".into(), vec!["-v".into()], Origin::Execute, UNIX_EPOCH)
    }

    #[test]
    fn the_first_who_asked_ended_it_and_only_an_end_on_request_has_such_a_one() {
        let now = Instant::now();
        let mut account = account();
        account.started(7, now, UNIX_EPOCH + Duration::from_secs(1));
        account.asked(EndedBy::Restart);
        account.asked(EndedBy::Shutdown);
        let end = |cause| End { status: Some(ExitStatus::Exited(0)), cause };
        let later = (now + Duration::from_secs(3), UNIX_EPOCH);
        let record = account.clone().close(end(Cause::Quit), later.0, later.1);
        assert_eq!((record.pid, record.ended_by, record.lived), (Some(7), EndedBy::Restart, Duration::from_secs(3)));
        assert_eq!(account.close(end(Cause::Exit), later.0, later.1).ended_by, EndedBy::Itself);
    }

    #[test]
    fn a_start_that_failed_says_why() {
        let mut account = account();
        account.failed("no such program".into());
        let record = account.close(End { status: None, cause: Cause::SpawnFailed }, Instant::now(), UNIX_EPOCH);
        assert_eq!((record.pid, record.lived, record.message.as_deref()), (None, Duration::ZERO, Some("no such program")));
        assert_eq!((record.started_at, record.ended_by), (UNIX_EPOCH, EndedBy::Itself));
    }
}
