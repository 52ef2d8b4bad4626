//! Whether what `history` says of one run is what happened.

use procman::protocol::reply::PastRun;
use procman::protocol::{Cause, EndedBy};

use super::truth::TrueRun;

/// What is to be thought of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It says how the run ended, and so it was.
    Known,
    /// It says that nobody can tell.
    Lost,
    /// It never came to a process, for its daemon was killed before.
    Unborn,
    /// It says what was not so.
    Wrong(String),
}

/// The truth is `None` where the program never came to write any: it was ended before. `touched` is a run that the operator may have been ending when
/// the daemon was killed: that it was quit, the next daemon need not know.
pub(crate) fn judge(record: &PastRun, truth: Option<&TrueRun>, touched: bool) -> Verdict {
    let ended_by_daemon = match record.ended_by {
        EndedBy::Itself => false,
        EndedBy::Quit
        | EndedBy::Reap
        | EndedBy::Restart
        | EndedBy::Unregister
        | EndedBy::Health
        | EndedBy::StartTimeout
        | EndedBy::Required
        | EndedBy::Shutdown => true,
    };
    let wrong = |why: &str| Verdict::Wrong(format!("{why}: {record:?}, in truth {truth:?}"));
    if matches!(record.ended_by, EndedBy::Health | EndedBy::StartTimeout | EndedBy::Required | EndedBy::Unregister | EndedBy::Reap) {
        return wrong("nobody had it ended that way");
    }
    if let Some(truth) = truth
        && (truth.name != record.name.as_str() || record.pid.is_some_and(|pid| pid != truth.pid))
    {
        return wrong("another process");
    }
    let Some(returncode) = record.returncode else {
        return match record.cause {
            Cause::Lost if record.pid.is_none() && truth.is_none() => Verdict::Unborn,
            Cause::Lost => Verdict::Lost,
            // It was being ended when its daemon was killed: that it was, is known.
            Cause::Quit if ended_by_daemon => Verdict::Lost,
            _ => wrong("no status, and not called lost"),
        };
    };
    // Of one that ended before anybody had looked at it, the PID is not known.
    if record.cause == Cause::Lost || record.signal != Some(-returncode).filter(|signal| *signal > 0) {
        return wrong("it contradicts itself");
    }
    if truth.and_then(|truth| truth.end) == Some(returncode) {
        return Verdict::Known;
    }
    // It was ended from outside, perhaps when it was just about to end by itself.
    if [-libc::SIGTERM, -libc::SIGKILL].contains(&returncode) && (ended_by_daemon || touched) {
        return Verdict::Known;
    }
    wrong("another end")
}
