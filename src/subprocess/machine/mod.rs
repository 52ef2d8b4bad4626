//! The life of one sub-process as a pure state machine: events in, effects out, `now` an argument, no clock and no I/O.
//!
//! Every cell of state × event is decided here. What the rim ([`super::actor`]) owes the machine:
//! - after [`Effect::Spawn`] exactly one of [`Event::Spawned`] and [`Event::SpawnFailed`];
//! - after `Spawned` exactly one [`Event::MainExited`], whenever the process ends;
//! - after [`Effect::EndTree`] one [`Event::TreeGone`], once nothing of the tree lives (the main included), however long that takes;
//! - after [`Effect::KillSpawn`] the answer to `Spawn` as soon as the kernel lets go of it;
//! - after [`Effect::CountSurvivors`] one [`Event::Survivors`], unless `TreeGone`, or the answer to `Spawn`, comes first;
//! - [`Event::Deadline`] when [`Machine::deadline`] has come.
//!
//! What the machine owes its callers: each [`Token`] is answered exactly once.
//!
//! - [`words`]: what machine and rim say to each other; `state`: where a sub-process is.

mod state;
#[cfg(test)]
mod tests;
pub mod words;

use std::time::{Duration, Instant};

use crate::protocol::{Cause, RestartPolicy, Signal, StateName, Wanted};
use crate::sys::pidfd::ExitStatus;

use super::restart::{Restarts, Verdict};
use super::spec::Policy;

use state::{PendingStop, Phase, State, Stopping, Then};
pub use words::{Answer, Effect, End, Event, KILL_WAIT, Refusal, Run, StopDefaults, Token, TreeReport};

/// The state machine of one sub-process.
#[derive(Clone, Debug)]
pub struct Machine<L, F> {
    state: State<L>,
    wanted: Wanted,
    policy: Policy,
    stop: StopDefaults,
    restarts: Restarts,
    last_launch: L,
    last_end: Option<End>,
    /// The daemon leaves: the policy starts nothing more.
    leaving: bool,
    /// The kernel killed something of the present run for lack of memory.
    short_of_memory: bool,
    /// Who waits for the spawn under way.
    starters: Vec<Token>,
    /// Who waits for the end under way.
    enders: Vec<Token>,
    effects: Vec<Effect<L, F>>,
}

impl<L: Clone + PartialEq, F: Clone> Machine<L, F> {
    /// A sub-process that was never started; `launch` is how the policy would start it.
    pub fn new(policy: Policy, stop: StopDefaults, launch: L) -> Self {
        Self {
            state: State::Stopped,
            wanted: Wanted::Down,
            policy,
            stop,
            restarts: Restarts::default(),
            last_launch: launch,
            last_end: None,
            leaving: false,
            short_of_memory: false,
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
            State::Stopped | State::Spawning { .. } | State::Backoff { .. } | State::Exited | State::Fatal => None,
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
            State::Stopped | State::Exited | State::Fatal => true,
            State::Spawning { .. } | State::Starting { .. } | State::Running { .. } | State::Stopping(_) | State::Backoff { .. } => false,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting { until, .. } | State::Backoff { until } => Some(*until),
            State::Stopping(Stopping { gone: Some(_), .. }) => None,
            State::Stopping(Stopping { phase, .. }) | State::Spawning { stop: Some(PendingStop { phase, .. }) } => phase.deadline(),
            State::Stopped | State::Spawning { stop: None } | State::Running { .. } | State::Exited | State::Fatal => None,
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
            | State::Fatal => None,
        }
    }

    /// Takes one event in. `roll` is a fresh random number from 0 to 1, for jitter.
    pub fn handle(&mut self, event: Event<L, F>, now: Instant, roll: f64) -> Vec<Effect<L, F>> {
        match event {
            Event::Execute { token, launch } => self.execute(token, launch, now),
            Event::Quit { token, signal, timeout } => self.quit(token, signal, timeout, now),
            Event::Restart { token, launch, signal, timeout } => self.restart(token, launch, signal, timeout, now),
            Event::Spawned { pid } => self.spawned(pid, now),
            Event::SpawnFailed { failure } => self.spawn_failed(&failure, now, roll),
            Event::MainExited { status } => self.main_exited(status, now, roll),
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
            Event::NoMoreStarts => {
                self.leaving = true;
                self.cancel_backoff(State::Stopped);
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// The kernel killed something of the run for lack of memory. To be said before [`Event::MainExited`], which it may explain.
    pub fn short_of_memory(&mut self) {
        self.short_of_memory = true;
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

    fn execute(&mut self, token: Token, launch: L, now: Instant) {
        match &mut self.state {
            State::Stopped | State::Exited | State::Fatal | State::Backoff { .. } => self.start_on_request(vec![token], launch, now),
            // The process has ended; what is left of its tree is about to, and then it is started.
            State::Stopping(Stopping { main: None, phase: Phase::Asked { .. } | Phase::Killing { .. }, then, .. }) if !then.is_start() => {
                then.start_too(launch, token);
                self.wanted = Wanted::Up;
            }
            State::Spawning { .. } | State::Starting { .. } | State::Running { .. } | State::Stopping(_) => {
                let refusal = Refusal::AlreadyRunning { pid: self.run().map(|run| run.pid), state: self.state() };
                self.answer(token, Answer::Refused(refusal));
            }
        }
    }

    /// A start that somebody asked for is always tried: what the policy counted before is forgotten.
    fn start_on_request(&mut self, tokens: Vec<Token>, launch: L, now: Instant) {
        self.restarts = Restarts::default();
        self.starters.extend(tokens);
        self.wanted = Wanted::Up;
        self.last_launch = launch;
        self.spawn(now);
    }

    fn spawn(&mut self, now: Instant) {
        self.restarts.record_start(now, &self.policy.start_limit);
        self.last_end = None;
        self.state = State::Spawning { stop: None };
        self.effects.push(Effect::Spawn(self.last_launch.clone()));
    }

    fn quit(&mut self, token: Option<Token>, signal: Signal, timeout: Duration, now: Instant) {
        self.wanted = Wanted::Down;
        match &mut self.state {
            State::Stopped | State::Exited | State::Backoff { .. } | State::Fatal => {
                self.state = State::Stopped;
                return self.answer_ended(token);
            }
            State::Spawning { stop } => {
                let overtaken = match stop {
                    None => {
                        *stop = Some(PendingStop { signal, timeout, phase: Phase::asked(timeout, now), then: Then::Rest });
                        Vec::new()
                    }
                    Some(pending) => {
                        if pending.phase.hurry(timeout, now) {
                            self.effects.push(Effect::KillSpawn);
                        }
                        std::mem::replace(&mut pending.then, Then::Rest).tokens()
                    }
                };
                self.refuse_all(overtaken, &Refusal::Overtaken);
            }
            State::Starting { run, .. } | State::Running { run } => {
                let run = *run;
                self.begin_stopping(Some(run), signal, timeout, Then::Rest, now);
            }
            State::Stopping(stopping) => {
                let overtaken = std::mem::replace(&mut stopping.then, Then::Rest).tokens();
                if let Some(kill) = stopping.hurry(timeout, now) {
                    self.effects.push(Effect::EndTree(kill));
                }
                self.refuse_all(overtaken, &Refusal::Overtaken);
            }
        }
        self.enders.extend(token);
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

    fn restart(&mut self, token: Token, launch: L, signal: Signal, timeout: Duration, now: Instant) {
        match &mut self.state {
            State::Stopped | State::Exited | State::Fatal | State::Backoff { .. } => {
                return self.start_on_request(vec![token], launch, now);
            }
            State::Spawning { stop } => match stop {
                None => {
                    let then = Then::Start { launch, tokens: vec![token] };
                    *stop = Some(PendingStop { signal, timeout, phase: Phase::asked(timeout, now), then });
                }
                Some(pending) => pending.then.start_too(launch, token),
            },
            State::Starting { run, .. } | State::Running { run } => {
                let run = *run;
                self.begin_stopping(Some(run), signal, timeout, Then::Start { launch, tokens: vec![token] }, now);
            }
            State::Stopping(stopping) => {
                stopping.then.start_too(launch, token);
                if let Some(kill) = stopping.hurry(timeout, now) {
                    self.effects.push(Effect::EndTree(kill));
                }
            }
        }
        self.wanted = Wanted::Up;
    }

    fn begin_stopping(&mut self, main: Option<Run>, signal: Signal, timeout: Duration, then: Then<L>, now: Instant) {
        let phase =
            if signal == Signal::KILL { Phase::Killing { give_up_at: now + KILL_WAIT } } else { Phase::Asked { kill_at: now + timeout } };
        self.state = State::Stopping(Stopping { main, gone: None, phase, then });
        self.effects.push(Effect::EndTree(signal));
    }

    fn spawned(&mut self, pid: u32, now: Instant) {
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
            | State::Fatal => {
                for token in starters {
                    self.answer(token, Answer::Started { pid });
                }
            }
        }
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Spawning { stop: Some(PendingStop { signal, timeout, phase, then }) } => {
                let signal = if matches!(phase, Phase::Asked { .. }) { signal } else { Signal::KILL };
                self.begin_stopping(Some(run), signal, timeout, then, now);
            }
            State::Spawning { stop: None } if self.policy.start_seconds.is_zero() => self.state = State::Running { run },
            State::Spawning { stop: None } => self.state = State::Starting { run, until: now + self.policy.start_seconds },
            // The rim spawns only when told to. A process that nobody asked for must not be left alone.
            State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping(_)
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal => {
                self.begin_stopping(Some(run), Signal::KILL, Duration::ZERO, Then::Rest, now);
            }
        }
    }

    fn spawn_failed(&mut self, failure: &F, now: Instant, roll: f64) {
        for token in std::mem::take(&mut self.starters) {
            self.answer(token, Answer::SpawnFailed(failure.clone()));
        }
        let State::Spawning { stop } = &mut self.state else { return };
        let stop = stop.take();
        self.end_run(End { status: None, cause: Cause::SpawnFailed });
        match stop.map(|pending| pending.then) {
            None => self.decide(true, Duration::ZERO, now, roll),
            Some(then) => {
                self.answer_enders(&TreeReport::default());
                self.follow(then, now, roll);
            }
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

    fn main_exited(&mut self, status: Option<ExitStatus>, now: Instant, roll: f64) {
        let short_of_memory = std::mem::take(&mut self.short_of_memory);
        let own_cause = match status {
            // A shell or another wrapper hands SIGKILL of what it waited for on as 128 + 9.
            Some(ExitStatus::Signalled { signal: 9, .. } | ExitStatus::Exited(137)) if short_of_memory => Cause::Oom,
            Some(ExitStatus::Exited(_)) => Cause::Exit,
            Some(ExitStatus::Signalled { core: false, .. }) => Cause::Signal,
            Some(ExitStatus::Signalled { core: true, .. }) => Cause::CoreDump,
            None => Cause::Lost,
        };
        match &mut self.state {
            State::Starting { run, .. } | State::Running { run } => {
                let lived = now.saturating_duration_since(run.started);
                let failed = match status {
                    Some(ExitStatus::Exited(code)) => !u8::try_from(code).is_ok_and(|code| self.policy.success_codes.contains(&code)),
                    Some(ExitStatus::Signalled { .. }) | None => true,
                } || lived < self.policy.start_seconds;
                self.end_run(End { status, cause: own_cause });
                self.begin_stopping(None, self.stop.signal, self.stop.timeout, Then::Decide { failed, lived }, now);
            }
            State::Stopping(stopping) if stopping.main.is_some() => {
                stopping.main = None;
                let gone = stopping.gone.take();
                self.end_run(End { status, cause: Cause::Quit });
                if let Some(report) = gone {
                    self.tree_gone(report, now, roll);
                }
            }
            // There is no main to end in these: nothing to lose.
            State::Stopping(_) | State::Stopped | State::Spawning { .. } | State::Backoff { .. } | State::Exited | State::Fatal => {}
        }
    }

    fn tree_gone(&mut self, report: TreeReport, now: Instant, roll: f64) {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Stopping(mut stopping) if stopping.main.is_some() => {
                stopping.gone = Some(report);
                self.state = State::Stopping(stopping);
            }
            State::Stopping(stopping) => {
                self.answer_enders(&report);
                self.follow(stopping.then, now, roll);
            }
            other @ (State::Stopped
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal) => self.state = other,
        }
    }

    fn follow(&mut self, then: Then<L>, now: Instant, roll: f64) {
        match then {
            Then::Rest => self.state = State::Stopped,
            Then::Start { launch, tokens } => self.start_on_request(tokens, launch, now),
            Then::Decide { failed, lived } => self.decide(failed, lived, now, roll),
        }
    }

    /// The restart policy's word on a run that ended by itself, or could not be started.
    fn decide(&mut self, failed: bool, lived: Duration, now: Instant, roll: f64) {
        let could_not_start = self.last_end.is_some_and(|end| end.cause == Cause::SpawnFailed);
        let again = match self.policy.restart {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => failed,
            RestartPolicy::Always => true,
        };
        if !again || self.leaving {
            self.wanted = Wanted::Down;
            self.state = if could_not_start { State::Fatal } else { State::Exited };
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

    fn restart_by_policy(&mut self, now: Instant) {
        self.restarts.count();
        self.spawn(now);
    }

    fn survivors(&mut self, report: &TreeReport) {
        let then = match &mut self.state {
            State::Stopping(stopping) => &mut stopping.then,
            State::Spawning { stop: Some(pending) } => &mut pending.then,
            State::Spawning { stop: None }
            | State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal => return,
        };
        if report.survivors.is_empty() {
            return; // TreeGone is on its way
        }
        let refused = if then.is_start() { std::mem::replace(then, Then::Rest).tokens() } else { Vec::new() };
        if !refused.is_empty() {
            self.wanted = Wanted::Down;
        }
        self.refuse_all(refused, &Refusal::Survivors(report.survivors.clone()));
        self.answer_enders(report);
    }

    fn deadline_came(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match &mut self.state {
            State::Starting { run, .. } => self.state = State::Running { run: *run },
            State::Backoff { .. } => self.restart_by_policy(now),
            State::Stopping(stopping) => match stopping.phase {
                Phase::Asked { .. } => {
                    stopping.phase = Phase::Killing { give_up_at: now + KILL_WAIT };
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
            State::Stopped | State::Spawning { stop: None } | State::Running { .. } | State::Exited | State::Fatal => {}
        }
    }
}
