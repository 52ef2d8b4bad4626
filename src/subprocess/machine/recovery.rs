//! Taking over what an earlier daemon left: the process may live, may have ended meanwhile, or may have ended before and left some of its tree.

use std::time::Instant;

use crate::protocol::{Cause, EndedBy, Origin, StateName, Wanted};

use super::super::restart::Restarts;
use super::super::spec::Readiness;
use super::Machine;
use super::state::{State, Then, Wait};
use super::words::{End, Run};
use crate::sys::pidfd::ExitStatus;

/// What an earlier daemon knew of a sub-process, and what was found of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered<L> {
    /// How it was started last, which the policy repeats.
    pub launch: L,
    /// What the policy had counted.
    pub restarts: Restarts,
    /// What was found.
    pub found: Found,
}

/// What was found of a sub-process.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing runs, and nothing was about to.
    AtRest {
        /// Where it was.
        state: StateName,
        /// How its last run ended.
        end: Option<End>,
        /// It is about to be started ([`Origin::Autostart`]), unless somebody quits it before.
        start: bool,
    },
    /// It has a main process.
    Living {
        /// The process.
        run: Run,
        /// It had said, or answered, that it is ready.
        ready: bool,
        /// By whom it was being ended, and whether a start was to follow.
        ending: Option<(EndedBy, bool)>,
    },
    /// Its main process has ended meanwhile, if it ever had one. It is never told as running; what it left behind is to be ended, and an
    /// [`super::Event::TreeGone`] follows.
    Ended {
        /// When it was started.
        started: Instant,
        /// As for `Living`.
        ready: bool,
        /// As for `Living`.
        ending: Option<(EndedBy, bool)>,
        /// How it ended; `None` where nobody can tell.
        status: Option<ExitStatus>,
        /// The kernel killed it, or another process of its tree, for lack of memory.
        oom: bool,
    },
    /// The end of its main process is recorded. What it left behind is to be ended, and an [`super::Event::TreeGone`] follows.
    Remains {
        /// That end.
        end: End,
        /// A start was to follow.
        then_start: bool,
    },
}

impl<L: Clone + PartialEq, F: Clone> Machine<L, F> {
    fn resume(&mut self, run: Run, ready: bool, ending: Option<(EndedBy, bool)>, now: Instant) {
        self.wanted = Wanted::Up;
        self.restarts.record_start(run.started, &self.policy.start_limit);
        self.state = match self.policy.readiness {
            Readiness::Lived if ready || run.started + self.policy.start_seconds <= now => State::Running { run },
            Readiness::Lived => State::Starting { run, wait: Wait::Lived { until: run.started + self.policy.start_seconds } },
            Readiness::Told { .. } if ready => State::Running { run },
            // What it said while nobody listened may be lost: it is given the whole time again.
            Readiness::Told { within } => {
                let overdue = ending.is_some_and(|(by, _)| by == EndedBy::StartTimeout);
                let by = if overdue { Some(now) } else { within.map(|within| now + within) };
                State::Starting { run, wait: Wait::Told { by } }
            }
        };
        if let Some((by, then_start)) = ending {
            self.end_again(run, by, then_start, now);
        }
    }

    /// What an earlier daemon was about to do.
    fn end_again(&mut self, run: Run, by: EndedBy, then_start: bool, now: Instant) {
        if then_start {
            let then = Then::Start { launch: self.last_launch.clone(), origin: Origin::Restart, tokens: Vec::new() };
            return self.begin_stopping(Some(run), self.stop, Cause::Quit, EndedBy::Restart, then, now);
        }
        match by {
            EndedBy::Health => self.unhealthy(now),
            // It comes with the deadline, which has come.
            EndedBy::StartTimeout => self.deadline_came(now),
            // Its main has ended by itself, which is told as such.
            EndedBy::Itself => {}
            EndedBy::Quit | EndedBy::Reap | EndedBy::Restart | EndedBy::Unregister | EndedBy::Required | EndedBy::Shutdown => {
                self.quit(None, self.stop, by, now);
            }
        }
    }

    /// Takes up where an earlier daemon was. Nothing happens where this one has begun something itself.
    pub(super) fn recover(&mut self, recovered: Recovered<L>, now: Instant, roll: f64) {
        if self.state != State::Stopped || self.last_end.is_some() {
            return;
        }
        let Recovered { launch, restarts, found } = recovered;
        (self.last_launch, self.restarts) = (launch, restarts);
        match found {
            Found::AtRest { state, end, start } => {
                self.last_end = end;
                self.wanted = if start { Wanted::Up } else { Wanted::Down };
                self.state = match state {
                    StateName::Fatal => State::Fatal,
                    StateName::Exited => State::Exited,
                    StateName::Lost => State::Lost,
                    // What was on its way somewhere is started anew, by whoever decides that.
                    StateName::Stopped | StateName::Starting | StateName::Running | StateName::Stopping | StateName::Backoff => {
                        State::Stopped
                    }
                };
            }
            Found::Living { run, ready, ending } => self.resume(run, ready, ending, now),
            Found::Ended { started, ready, ending, status, oom } => {
                // Its process is nobody's business any more: it lives within this step only.
                self.resume(Run { pid: 0, started }, ready, ending, now);
                self.main_exited(status, oom, now, roll);
            }
            Found::Remains { end, then_start } => {
                self.last_end = Some(end);
                let then = match end.by {
                    _ if then_start => {
                        let launch = self.last_launch.clone();
                        Then::Start { launch, origin: Origin::Restart, tokens: Vec::new() }
                    }
                    EndedBy::Itself | EndedBy::Health | EndedBy::StartTimeout => {
                        Then::Decide { failed: end.cause == Cause::Health || self.is_failure(&end), lived: end.lived }
                    }
                    EndedBy::Quit | EndedBy::Reap | EndedBy::Unregister | EndedBy::Required | EndedBy::Shutdown | EndedBy::Restart => {
                        Then::Rest
                    }
                };
                self.wanted = if matches!(then, Then::Rest) { Wanted::Down } else { Wanted::Up };
                self.begin_stopping(None, self.stop, end.cause, end.by, then, now);
            }
        }
    }
}
