//! From a run to nothing of it.

use std::time::Instant;

use crate::protocol::{Cause, EndedBy, Origin, Signal, Wanted};

use super::Machine;
use super::state::{PendingStop, Phase, State, Stopping, Then};
use super::words::{Effect, KILL_WAIT, Refusal, Run, StopWay, Token, TreeReport};

impl<L: Clone + PartialEq, F: Clone> Machine<L, F> {
    pub(super) fn quit(&mut self, token: Option<Token>, way: StopWay, by: EndedBy, now: Instant) {
        let wanted = std::mem::replace(&mut self.wanted, Wanted::Down);
        let to_restart = std::mem::replace(&mut self.to_restart, false);
        self.withdrawn |= match by {
            // Whoever starts it again starts what it requires, too.
            EndedBy::Required => false,
            EndedBy::Itself
            | EndedBy::Quit
            | EndedBy::Reap
            | EndedBy::Restart
            | EndedBy::Unregister
            | EndedBy::Health
            | EndedBy::StartTimeout
            | EndedBy::Shutdown => to_restart,
        } || matches!(self.state, State::Stopped) && wanted == Wanted::Up && !to_restart;
        self.end(token, way, by, Then::Rest, now);
    }

    /// It is to be ended and started again, when its turn has come. What rests already is to be started with the others.
    pub(super) fn restart_with_others(&mut self) {
        match &self.state {
            State::Exited | State::Fatal | State::Lost => self.state = State::Stopped,
            State::Stopped
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping(_)
            | State::Backoff { .. } => {}
        }
        (self.wanted, self.to_restart, self.withdrawn) = (Wanted::Up, true, false);
    }

    pub(super) fn end_to_start(&mut self, token: Token, way: StopWay, now: Instant) {
        if self.withdrawn {
            return self.end(Some(token), way, EndedBy::Restart, Then::Rest, now);
        }
        (self.wanted, self.to_restart) = (Wanted::Up, true);
        self.end(Some(token), way, EndedBy::Restart, Then::Await, now);
    }

    fn end(&mut self, token: Option<Token>, way: StopWay, by: EndedBy, then: Then<L>, now: Instant) {
        match &mut self.state {
            State::Stopped | State::Exited | State::Backoff { .. } | State::Fatal | State::Lost => {
                self.state = State::Stopped;
                return self.answer_ended(token);
            }
            State::Spawning { stop } => {
                let overtaken = match stop {
                    None => {
                        *stop = Some(PendingStop { way, by, phase: Phase::asked(way.timeout, now), then });
                        self.effects.push(Effect::WithdrawSpawn);
                        Vec::new()
                    }
                    Some(pending) => {
                        if pending.phase.hurry(way.timeout, now) {
                            self.effects.push(Effect::KillSpawn);
                        }
                        std::mem::replace(&mut pending.then, then).tokens()
                    }
                };
                self.refuse_all(overtaken, &Refusal::Overtaken);
            }
            State::Starting { run, .. } | State::Running { run } => {
                let run = *run;
                self.begin_stopping(Some(run), way, Cause::Quit, by, then, now);
            }
            State::Stopping(stopping) => {
                let overtaken = std::mem::replace(&mut stopping.then, then).tokens();
                // Whoever sends a signal means it, also while a request is being made.
                let signal = if way.request { None } else { stopping.asking.take().map(|_| way.signal) };
                if let Some(signal) = stopping.hurry(way.timeout, now).or(signal) {
                    self.effects.push(Effect::EndTree(signal));
                }
                self.refuse_all(overtaken, &Refusal::Overtaken);
            }
        }
        self.enders.extend(token);
    }

    pub(super) fn restart(&mut self, token: Token, launch: L, way: StopWay, now: Instant) {
        match &mut self.state {
            State::Stopped | State::Exited | State::Fatal | State::Lost | State::Backoff { .. } => {
                return self.start_on_request(vec![token], launch, Origin::Restart, now);
            }
            State::Spawning { stop } => match stop {
                None => {
                    let then = Then::Start { launch, origin: Origin::Restart, tokens: vec![token] };
                    *stop = Some(PendingStop { way, by: EndedBy::Restart, phase: Phase::asked(way.timeout, now), then });
                    self.effects.push(Effect::WithdrawSpawn);
                }
                Some(pending) => pending.then.start_too(launch, Origin::Restart, token),
            },
            State::Starting { run, .. } | State::Running { run } => {
                let run = *run;
                let then = Then::Start { launch, origin: Origin::Restart, tokens: vec![token] };
                self.begin_stopping(Some(run), way, Cause::Quit, EndedBy::Restart, then, now);
            }
            State::Stopping(stopping) => {
                stopping.then.start_too(launch, Origin::Restart, token);
                if let Some(kill) = stopping.hurry(way.timeout, now) {
                    self.effects.push(Effect::EndTree(kill));
                }
            }
        }
        self.wanted = Wanted::Up;
    }

    pub(super) fn begin_stopping(&mut self, main: Option<Run>, way: StopWay, cause: Cause, by: EndedBy, then: Then<L>, now: Instant) {
        let kill = way.signal == Signal::KILL;
        let phase = if kill { Phase::Killing { give_up_at: now + KILL_WAIT } } else { Phase::asked(way.timeout, now) };
        // Only the main can take a request; what is left without it gets the signal.
        let asking = (way.request && !kill && main.is_some()).then_some(way.signal);
        self.effects.push(if asking.is_some() { Effect::RequestStop } else { Effect::EndTree(way.signal) });
        self.state = State::Stopping(Stopping { main, gone: None, asking, cause, by, phase, then });
    }

    pub(super) fn stop_request_failed(&mut self) {
        if let State::Stopping(Stopping { asking, .. }) = &mut self.state
            && let Some(signal) = asking.take()
        {
            self.effects.push(Effect::EndTree(signal));
        }
    }

    pub(super) fn unhealthy(&mut self, now: Instant) {
        if let State::Starting { run, .. } | State::Running { run } = &self.state {
            let run = *run;
            self.end_failed(run, Cause::Health, EndedBy::Health, now);
        }
    }

    /// Ends a run that failed though its process lives; the restart policy decides what follows.
    pub(super) fn end_failed(&mut self, run: Run, cause: Cause, by: EndedBy, now: Instant) {
        let lived = now.saturating_duration_since(run.started);
        self.begin_stopping(Some(run), self.stop, cause, by, Then::Decide { failed: true, lived }, now);
    }

    pub(super) fn survivors(&mut self, report: &TreeReport) {
        let then = match &mut self.state {
            State::Stopping(stopping) => &mut stopping.then,
            State::Spawning { stop: Some(pending) } => &mut pending.then,
            State::Spawning { stop: None }
            | State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Fatal
            | State::Lost => return,
        };
        if report.survivors.is_empty() {
            return; // TreeGone is on its way
        }
        let refused = if then.is_start() { std::mem::replace(then, Then::Rest).tokens() } else { Vec::new() };
        let awaited = matches!(then, Then::Await);
        if awaited {
            (*then, self.to_restart) = (Then::Rest, false);
        }
        if !refused.is_empty() || awaited {
            self.wanted = Wanted::Down;
        }
        self.refuse_all(refused, &Refusal::Survivors(report.survivors.clone()));
        self.answer_enders(report);
    }

    pub(super) fn tree_gone(&mut self, report: TreeReport, now: Instant, roll: f64) {
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
            | State::Fatal
            | State::Lost) => self.state = other,
        }
    }

    pub(super) fn follow(&mut self, then: Then<L>, now: Instant, roll: f64) {
        match then {
            Then::Rest | Then::Await => self.state = State::Stopped,
            Then::Start { launch, origin, tokens } => self.start_on_request(tokens, launch, origin, now),
            Then::Decide { failed, lived } => self.decide(failed, lived, now, roll),
        }
    }
}
