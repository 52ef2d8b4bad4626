//! From a wish to a run that counts as running, and whether another one follows.

use std::time::{Duration, Instant};

use crate::protocol::{Cause, EndedBy, Origin, RestartPolicy, Signal, Wanted};

use super::super::restart::Verdict;
use super::super::spec::Readiness;
use super::Machine;
use super::state::{PendingStop, Phase, State, Stopping, Then, Wait};
use super::words::{Answer, Effect, End, Refusal, Run, StopWay, Token, TreeReport};

impl<L: Clone + PartialEq, F: Clone> Machine<L, F> {
    pub(super) fn execute(&mut self, token: Token, launch: L, origin: Origin, now: Instant) {
        if matches!(origin, Origin::Autostart | Origin::Restart) && std::mem::take(&mut self.withdrawn) {
            return self.answer(token, Answer::Refused(Refusal::Overtaken));
        }
        match &mut self.state {
            State::Stopped | State::Exited | State::Fatal | State::Lost | State::Backoff { .. } => {
                self.start_on_request(vec![token], launch, origin, now);
            }
            // The process has ended; what is left of its tree is about to, and then it is started.
            State::Stopping(Stopping { main: None, phase: Phase::Asked { .. } | Phase::Killing { .. }, then, .. }) if !then.is_start() => {
                then.start_too(launch, origin, token);
                (self.wanted, self.to_restart) = (Wanted::Up, false);
            }
            State::Spawning { .. } | State::Starting { .. } | State::Running { .. } | State::Stopping(_) => {
                let refusal = Refusal::AlreadyRunning { pid: self.run().map(|run| run.pid), state: self.state() };
                self.answer(token, Answer::Refused(refusal));
            }
        }
    }

    /// A start that somebody asked for is always tried: what the policy counted before is forgotten. One by a schedule is tried, too, but counts, and one
    /// that an earlier daemon was about to make is the policy's.
    pub(super) fn start_on_request(&mut self, tokens: Vec<Token>, launch: L, origin: Origin, now: Instant) {
        let before = std::mem::take(&mut self.restarts);
        if origin == Origin::Schedule {
            self.restarts = before.scheduled();
        } else if origin == Origin::Autostart && self.wanted == Wanted::Up {
            self.restarts = before;
        }
        (self.withdrawn, self.to_restart) = (false, false);
        self.starters.extend(tokens);
        self.wanted = Wanted::Up;
        self.last_launch = launch;
        self.spawn(origin, now);
    }

    pub(super) fn spawn(&mut self, origin: Origin, now: Instant) {
        self.restarts.record_start(now, &self.policy.start_limit);
        self.last_end = None;
        self.state = State::Spawning { stop: None };
        self.effects.push(Effect::Spawn { launch: self.last_launch.clone(), origin });
    }

    pub(super) fn spawned(&mut self, pid: u32, now: Instant) {
        let run = Run { pid, started: now };
        let starters = std::mem::take(&mut self.starters);
        match &self.state {
            // Killed while it hung, it may never have become its program: nobody is told that it was started.
            State::Spawning { stop: Some(PendingStop { phase: Phase::Killing { .. } | Phase::Surviving, .. }) } => {
                self.refuse_all(starters, &Refusal::Overtaken);
            }
            State::Spawning { .. }
            | State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping(_)
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal
            | State::Lost => {
                for token in starters {
                    self.answer(token, Answer::Started { pid });
                }
            }
        }
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Spawning { stop: Some(PendingStop { way, by, phase, then }) } => {
                let signal = if matches!(phase, Phase::Asked { .. }) { way.signal } else { Signal::KILL };
                self.begin_stopping(Some(run), StopWay { signal, ..way }, Cause::Quit, by, then, now);
            }
            State::Spawning { stop: None } => {
                self.state = match self.policy.readiness {
                    Readiness::Lived if self.policy.start_seconds.is_zero() => State::Running { run },
                    Readiness::Lived => State::Starting { run, wait: Wait::Lived { until: now + self.policy.start_seconds } },
                    Readiness::Told { within } => State::Starting { run, wait: Wait::Told { by: within.map(|within| now + within) } },
                };
            }
            // The rim spawns only when told to. A process that nobody asked for must not be left alone.
            State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping(_)
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal
            | State::Lost => {
                let way = StopWay { signal: Signal::KILL, timeout: Duration::ZERO, request: false };
                self.begin_stopping(Some(run), way, Cause::Quit, EndedBy::Quit, Then::Rest, now);
            }
        }
    }

    pub(super) fn spawn_failed(&mut self, failure: &F, now: Instant, roll: f64) {
        for token in std::mem::take(&mut self.starters) {
            self.answer(token, Answer::SpawnFailed(failure.clone()));
        }
        let State::Spawning { stop } = &mut self.state else { return };
        let stop = stop.take();
        let by = stop.as_ref().map_or(EndedBy::Itself, |pending| pending.by);
        self.end_run(End { status: None, cause: Cause::SpawnFailed, by, lived: Duration::ZERO, unready: false });
        match stop.map(|pending| pending.then) {
            None => self.decide(true, Duration::ZERO, now, roll),
            Some(then) => {
                self.answer_enders(&TreeReport::default());
                self.follow(then, now, roll);
            }
        }
    }

    pub(super) fn spawn_withdrawn(&mut self, now: Instant, roll: f64) {
        let starters = std::mem::take(&mut self.starters);
        self.refuse_all(starters, &Refusal::Overtaken);
        let State::Spawning { stop } = &mut self.state else { return };
        let (by, then) = stop.take().map_or((EndedBy::Quit, Then::Rest), |pending| (pending.by, pending.then));
        self.end_run(End { status: None, cause: Cause::Quit, by, lived: Duration::ZERO, unready: false });
        self.answer_enders(&TreeReport::default());
        self.follow(then, now, roll);
    }

    pub(super) fn ready(&mut self) {
        if let State::Starting { run, wait: Wait::Told { .. } } = &self.state {
            self.state = State::Running { run: *run };
        }
    }

    /// Only a start can be given more time: an end is over after `stop_timeout`, always.
    pub(super) fn extend_timeout(&mut self, more: Duration, now: Instant) {
        if let State::Starting { wait: Wait::Told { by: Some(by) }, .. } = &mut self.state {
            *by = (*by).max(now + more);
        }
    }

    /// The restart policy's word on a run that ended by itself, or could not be started.
    pub(super) fn decide(&mut self, failed: bool, lived: Duration, now: Instant, roll: f64) {
        let rest = match self.last_end.map(|end| end.cause) {
            Some(Cause::SpawnFailed) => State::Fatal,
            Some(Cause::Lost) => State::Lost,
            Some(Cause::Exit | Cause::Signal | Cause::CoreDump | Cause::Oom | Cause::Quit | Cause::Health | Cause::StartTimeout) | None => {
                State::Exited
            }
        };
        let again = match self.policy.restart {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => failed,
            RestartPolicy::Always => true,
        };
        if !again || self.leaving {
            self.wanted = Wanted::Down;
            self.state = rest;
            return;
        }
        match self.restarts.next(&self.policy, lived, now, roll) {
            Verdict::GiveUp => self.state = State::Fatal,
            Verdict::After { attempt, delay } => {
                self.effects.push(Effect::RestartScheduled { attempt, delay });
                if delay.is_zero() {
                    self.restart_by_policy(now);
                } else {
                    self.state = State::Backoff { until: now + delay };
                }
            }
        }
    }

    pub(super) fn restart_by_policy(&mut self, now: Instant) {
        self.restarts.count();
        self.spawn(Origin::Policy, now);
    }
}
