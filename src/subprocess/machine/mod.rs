//! The life of one sub-process as a pure state machine: events in, effects out, `now` an argument, no clock and no I/O.
//!
//! Every cell of state × event is decided here. What the rim ([`super::actor`]) owes the machine:
//! - after [`Effect::Spawn`] exactly one of [`Event::Spawned`], [`Event::SpawnFailed`] and, where [`Effect::WithdrawSpawn`] came in time,
//!   [`Event::SpawnWithdrawn`];
//! - after `Spawned` exactly one [`Event::MainExited`], whenever the process ends;
//! - after [`Effect::RequestStop`] a [`Event::StopRequestFailed`] where that fails; nothing where it does not;
//! - after [`Effect::EndTree`] one [`Event::TreeGone`], once nothing of the tree lives (the main included), however long that takes;
//! - after [`Effect::KillSpawn`] the answer to `Spawn` as soon as the kernel lets go of it;
//! - after [`Effect::CountSurvivors`] one [`Event::Survivors`], unless `TreeGone`, or the answer to `Spawn`, comes first;
//! - [`Event::Deadline`] when [`Machine::deadline`] has come.
//!
//! What the machine owes its callers: each [`Token`] is answered exactly once.
//!
//! - [`words`]: what machine and rim say to each other; `state`: where a sub-process is;
//! - `starting`, `stopping`: the ways up and down; [`recovery`]: what an earlier daemon left.

pub mod recovery;
mod starting;
mod state;
mod stopping;
#[cfg(test)]
mod tests;
pub mod words;

use std::time::{Duration, Instant};

use crate::protocol::{Cause, EndedBy, RestartPolicy, Signal, StateName, Wanted};
use crate::sys::pidfd::ExitStatus;

use super::restart::Restarts;
use super::spec::Policy;

pub use recovery::{Found, Recovered};
use state::{PendingStop, Phase, State, Stopping, Then, Wait};
pub use words::{Answer, Effect, End, Event, KILL_WAIT, Refusal, Run, StopWay, Token, TreeReport};

/// The state machine of one sub-process.
#[derive(Clone, Debug)]
pub struct Machine<L, F> {
    state: State<L>,
    wanted: Wanted,
    policy: Policy,
    stop: StopWay,
    restarts: Restarts,
    last_launch: L,
    last_end: Option<End>,
    /// The daemon leaves: the policy starts nothing more.
    leaving: bool,
    /// It was to be started by the daemon or with others, and somebody has quit it before its turn came.
    withdrawn: bool,
    /// It is to be ended and started again with others, until it is.
    to_restart: bool,
    /// Who waits for the spawn under way.
    starters: Vec<Token>,
    /// Who waits for the end under way.
    enders: Vec<Token>,
    effects: Vec<Effect<L, F>>,
}

impl<L: Clone + PartialEq, F: Clone> Machine<L, F> {
    /// A sub-process that was never started; `launch` is how the policy would start it.
    pub fn new(policy: Policy, stop: StopWay, launch: L) -> Self {
        Self {
            state: State::Stopped,
            wanted: Wanted::Down,
            policy,
            stop,
            restarts: Restarts::default(),
            last_launch: launch,
            last_end: None,
            leaving: false,
            withdrawn: false,
            to_restart: false,
            starters: Vec::new(),
            enders: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Where it is.
    pub fn state(&self) -> StateName {
        match &self.state {
            State::Stopped => StateName::Stopped,
            State::Spawning { .. } | State::Starting { .. } => StateName::Starting,
            State::Running { .. } => StateName::Running,
            State::Stopping(_) => StateName::Stopping,
            State::Backoff { .. } => StateName::Backoff,
            State::Exited => StateName::Exited,
            State::Fatal => StateName::Fatal,
            State::Lost => StateName::Lost,
        }
    }

    /// What the supervisor tries to bring about.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// The process, until it is reaped.
    pub fn run(&self) -> Option<Run> {
        match &self.state {
            State::Starting { run, .. } | State::Running { run } => Some(*run),
            State::Stopping(stopping) => stopping.main,
            State::Stopped | State::Spawning { .. } | State::Backoff { .. } | State::Exited | State::Fatal | State::Lost => None,
        }
    }

    /// How the last run ended; `None` while one is under way or before the first.
    pub fn last_end(&self) -> Option<End> {
        self.last_end
    }

    /// Starts made by the policy since the last that somebody asked for.
    pub fn restarts(&self) -> u64 {
        self.restarts.made()
    }

    /// Whether there is nothing left of any run and none is on its way.
    pub fn is_at_rest(&self) -> bool {
        match &self.state {
            State::Stopped | State::Exited | State::Fatal | State::Lost => true,
            State::Spawning { .. } | State::Starting { .. } | State::Running { .. } | State::Stopping(_) | State::Backoff { .. } => false,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting { wait, .. } => wait.deadline(),
            State::Backoff { until } => Some(*until),
            State::Stopping(Stopping { gone: Some(_), .. }) => None,
            State::Stopping(Stopping { phase, .. }) | State::Spawning { stop: Some(PendingStop { phase, .. }) } => phase.deadline(),
            State::Stopped | State::Spawning { stop: None } | State::Running { .. } | State::Exited | State::Fatal | State::Lost => None,
        }
    }

    /// When the next try is due, in back-off.
    pub fn next_start(&self) -> Option<Instant> {
        match &self.state {
            State::Backoff { until } => Some(*until),
            State::Stopped
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping(_)
            | State::Exited
            | State::Fatal
            | State::Lost => None,
        }
    }

    /// Takes one event in. `roll` is a fresh random number from 0 to 1, for jitter.
    pub fn handle(&mut self, event: Event<L, F>, now: Instant, roll: f64) -> Vec<Effect<L, F>> {
        match event {
            Event::Execute { token, launch, origin } => self.execute(token, launch, origin, now),
            Event::Quit { token, way, by } => self.quit(token, way, by, now),
            Event::Restart { token, launch, way } => self.restart(token, launch, way, now),
            Event::ToRestart => self.restart_with_others(),
            Event::EndToStart { token, way } => self.end_to_start(token, way, now),
            Event::Spawned { pid } => self.spawned(pid, now),
            Event::SpawnFailed { failure } => self.spawn_failed(&failure, now, roll),
            Event::SpawnWithdrawn => self.spawn_withdrawn(now, roll),
            Event::Ready => self.ready(),
            Event::ExtendTimeout(more) => self.extend_timeout(more, now),
            Event::MainMoved { pid } => self.main_moved(pid),
            Event::Unhealthy => self.unhealthy(now),
            Event::StopRequestFailed => self.stop_request_failed(),
            Event::MainExited { status, oom } => self.main_exited(status, oom, now, roll),
            Event::TreeGone(report) => self.tree_gone(report, now, roll),
            Event::Survivors(report) => self.survivors(&report),
            Event::Deadline => self.deadline_came(now),
            Event::PolicyChanged(policy, stop) => {
                self.stop = stop;
                self.policy = policy;
                if self.policy.restart == RestartPolicy::Never {
                    self.cancel_backoff(State::Exited);
                }
            }
            Event::Recovered(recovered) => self.recover(recovered, now, roll),
            Event::NoMoreStarts => {
                self.leaving = true;
                self.cancel_backoff(State::Stopped);
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn answer(&mut self, token: Token, answer: Answer<F>) {
        self.effects.push(Effect::Answer(token, answer));
    }

    fn cancel_backoff(&mut self, rest: State<L>) {
        if matches!(self.state, State::Backoff { .. }) {
            self.wanted = Wanted::Down;
            self.state = rest;
        }
    }

    fn answer_ended(&mut self, token: Option<Token>) {
        if let Some(token) = token {
            self.answer(token, Answer::Ended(TreeReport::default()));
        }
    }

    fn refuse_all(&mut self, tokens: Vec<Token>, refusal: &Refusal) {
        for token in tokens {
            self.answer(token, Answer::Refused(refusal.clone()));
        }
    }

    fn main_moved(&mut self, pid: u32) {
        match &mut self.state {
            State::Starting { run, .. } | State::Running { run } | State::Stopping(Stopping { main: Some(run), .. }) => run.pid = pid,
            State::Stopping(_)
            | State::Stopped
            | State::Spawning { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal
            | State::Lost => {}
        }
    }

    fn end_run(&mut self, end: End) {
        self.last_end = Some(end);
        self.effects.push(Effect::RunEnded(end));
    }

    fn answer_enders(&mut self, report: &TreeReport) {
        for token in std::mem::take(&mut self.enders) {
            self.answer(token, Answer::Ended(report.clone()));
        }
    }

    fn main_exited(&mut self, status: Option<ExitStatus>, oom: bool, now: Instant, roll: f64) {
        let own_cause = match status {
            // A shell or another wrapper hands SIGKILL of what it waited for on as 128 + 9.
            Some(ExitStatus::Signalled { .. } | ExitStatus::Exited(137)) if oom => Cause::Oom,
            Some(ExitStatus::Exited(_)) => Cause::Exit,
            Some(ExitStatus::Signalled { core: false, .. }) => Cause::Signal,
            Some(ExitStatus::Signalled { core: true, .. }) => Cause::CoreDump,
            None => Cause::Lost,
        };
        match &mut self.state {
            State::Starting { .. } | State::Running { .. } => {
                let unready = matches!(self.state, State::Starting { wait: Wait::Told { .. }, .. });
                let lived = self.run().map_or(Duration::ZERO, |run| now.saturating_duration_since(run.started));
                let end = End { status, cause: own_cause, by: EndedBy::Itself, lived, unready };
                let failed = self.is_failure(&end);
                self.end_run(end);
                self.begin_stopping(None, self.stop, own_cause, EndedBy::Itself, Then::Decide { failed, lived }, now);
            }
            State::Stopping(stopping) if stopping.main.is_some() => {
                let lived = stopping.main.take().map_or(Duration::ZERO, |run| now.saturating_duration_since(run.started));
                let gone = stopping.gone.take();
                let (cause, by) = (stopping.cause, stopping.by);
                if let Some(signal) = stopping.asking.take() {
                    // It did as it was asked; what it left behind was not.
                    self.effects.push(Effect::EndTree(signal));
                }
                self.end_run(End { status, cause, by, lived, unready: false });
                if let Some(report) = gone {
                    self.tree_gone(report, now, roll);
                }
            }
            // There is no main to end in these: nothing to lose.
            State::Stopping(_)
            | State::Stopped
            | State::Spawning { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal
            | State::Lost => {}
        }
    }

    /// Whether a run that ended so has failed.
    fn is_failure(&self, end: &End) -> bool {
        let success = match end.status {
            Some(ExitStatus::Exited(code)) => u8::try_from(code).is_ok_and(|code| self.policy.success_codes.contains(&code)),
            Some(ExitStatus::Signalled { .. }) | None => false,
        };
        !success || end.lived < self.policy.start_seconds || end.unready
    }

    /// Who has the run ended that is being ended, or is going to be, and whether a start is to follow.
    pub fn ending(&self) -> Option<(EndedBy, bool)> {
        match &self.state {
            State::Stopping(Stopping { by, then, .. }) | State::Spawning { stop: Some(PendingStop { by, then, .. }) } => {
                Some((*by, then.is_start() || self.to_restart))
            }
            // Its turn has not come yet.
            State::Starting { .. } | State::Running { .. } if self.to_restart => Some((EndedBy::Restart, true)),
            State::Spawning { stop: None }
            | State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal
            | State::Lost => None,
        }
    }

    /// How far the back-off has grown: waits since the last reset.
    pub fn attempt(&self) -> u32 {
        self.restarts.attempt()
    }

    fn deadline_came(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match &mut self.state {
            State::Starting { run, wait: Wait::Lived { .. } } => self.state = State::Running { run: *run },
            State::Starting { run, wait: Wait::Told { .. } } => {
                let run = *run;
                self.end_failed(run, Cause::StartTimeout, EndedBy::StartTimeout, now);
            }
            State::Backoff { .. } => self.restart_by_policy(now),
            State::Stopping(stopping) => match stopping.phase {
                Phase::Asked { .. } => {
                    stopping.phase = Phase::Killing { give_up_at: now + KILL_WAIT };
                    stopping.asking = None;
                    self.effects.push(Effect::EndTree(Signal::KILL));
                }
                Phase::Killing { .. } => {
                    stopping.phase = Phase::Surviving;
                    self.effects.push(Effect::CountSurvivors);
                }
                Phase::Surviving => {}
            },
            State::Spawning { stop: Some(pending) } => match pending.phase {
                Phase::Asked { .. } => {
                    pending.phase = Phase::Killing { give_up_at: now + KILL_WAIT };
                    self.effects.push(Effect::KillSpawn);
                }
                Phase::Killing { .. } => {
                    pending.phase = Phase::Surviving;
                    self.effects.push(Effect::CountSurvivors);
                }
                Phase::Surviving => {}
            },
            State::Stopped | State::Spawning { stop: None } | State::Running { .. } | State::Exited | State::Fatal | State::Lost => {}
        }
    }
}
