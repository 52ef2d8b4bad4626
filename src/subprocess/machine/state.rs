//! Where a sub-process is; what belongs to a state lives in it.

use std::time::{Duration, Instant};

use crate::protocol::Signal;

use super::words::{KILL_WAIT, Run, Token, TreeReport};

/// Where a sub-process is; what belongs to a state lives in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State<L> {
    /// Never started, or quit on request.
    Stopped,
    /// The operating system was asked for a process.
    Spawning {
        /// An end that was asked for meanwhile, and is begun as soon as the process is there.
        stop: Option<PendingStop<L>>,
    },
    /// It lives, but not yet for `start_seconds`.
    Starting {
        /// The process.
        run: Run,
        /// When it counts as running.
        until: Instant,
    },
    /// It lives.
    Running {
        /// The process.
        run: Run,
    },
    /// It, or what is left of its tree, is being ended.
    Stopping(Stopping<L>),
    /// It waits for the next try.
    Backoff {
        /// When that is.
        until: Instant,
    },
    /// It ended by itself, and no start follows.
    Exited,
    /// The supervisor gave up.
    Fatal,
}

/// An end that waits for a start to be complete.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PendingStop<L> {
    pub(super) signal: Signal,
    pub(super) timeout: Duration,
    pub(super) then: Then<L>,
}

/// A tree that is being ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stopping<L> {
    /// The main, until it is reaped.
    pub(super) main: Option<Run>,
    /// The tree is gone, though the main's own end has not been told yet.
    pub(super) gone: Option<TreeReport>,
    /// How urgent it is.
    pub(super) phase: Phase,
    /// What follows.
    pub(super) then: Then<L>,
}

/// How urgently a tree is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It was asked.
    Asked { kill_at: Instant },
    /// SIGKILL was sent.
    Killing { give_up_at: Instant },
    /// SIGKILL has not helped so far; its waiters have been told, or are about to be.
    Surviving,
}

/// What follows the end of a tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Then<L> {
    /// Nothing: it was asked for.
    Rest,
    /// A start, asked for by these.
    Start { launch: L, tokens: Vec<Token> },
    /// The restart policy decides: the main ended by itself.
    Decide { failed: bool, lived: Duration },
}

impl<L> Stopping<L> {
    /// A further request can only shorten the time. Returns SIGKILL when it is to be sent again.
    pub(super) fn hurry(&mut self, timeout: Duration, now: Instant) -> Option<Signal> {
        match &mut self.phase {
            Phase::Asked { kill_at } => {
                *kill_at = (*kill_at).min(now + timeout);
                None
            }
            Phase::Killing { .. } => None,
            Phase::Surviving if self.gone.is_some() => None,
            Phase::Surviving => {
                self.phase = Phase::Killing { give_up_at: now + KILL_WAIT };
                Some(Signal::KILL)
            }
        }
    }
}

impl<L> Then<L> {
    /// Those who wait for the start that does not come now.
    pub(super) fn tokens(self) -> Vec<Token> {
        match self {
            Self::Start { tokens, .. } => tokens,
            Self::Rest | Self::Decide { .. } => Vec::new(),
        }
    }

    /// A start follows; the last one who asked says how.
    pub(super) fn start_too(&mut self, launch: L, token: Token) {
        let mut tokens = match self {
            Self::Start { tokens, .. } => std::mem::take(tokens),
            Self::Rest | Self::Decide { .. } => Vec::new(),
        };
        tokens.push(token);
        *self = Self::Start { launch, tokens };
    }
}
