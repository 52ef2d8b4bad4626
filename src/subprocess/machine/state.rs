//! Where a sub-process is; what belongs to a state lives in it.

use std::time::{Duration, Instant};

use crate::protocol::{Cause, EndedBy, Origin, Signal};

use super::words::{KILL_WAIT, Run, StopWay, Token, TreeReport};

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
    /// It lives, but does not count as running yet.
    Starting {
        /// The process.
        run: Run,
        /// What is missing.
        wait: Wait,
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
    /// It ended while no daemon was there to see how, and no start follows.
    Lost,
}

/// What a process waits for before it counts as running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// That it has lived for `start_seconds`.
    Lived { until: Instant },
    /// That it is ready, until then.
    Told { by: Option<Instant> },
}

/// An end that waits for a start to be complete.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PendingStop<L> {
    pub(super) way: StopWay,
    pub(super) by: EndedBy,
    /// A start can hang in the kernel: then the process that is not yet its program is killed, and what does not even mind that is told of.
    pub(super) phase: Phase,
    pub(super) then: Then<L>,
}

/// A tree that is being ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stopping<L> {
    /// The main, until it is reaped.
    pub(super) main: Option<Run>,
    /// The tree is gone, though the main's own end has not been told yet.
    pub(super) gone: Option<TreeReport>,
    /// It was asked by the definition's request; this signal follows where that fails, and for the rest of the tree.
    pub(super) asking: Option<Signal>,
    /// Why the main ends, while it has not.
    pub(super) cause: Cause,
    /// Who had it ended.
    pub(super) by: EndedBy,
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
    /// A start, which whoever asked for the end asks for once others have ended, too.
    Await,
    /// A start, asked for by these.
    Start { launch: L, origin: Origin, tokens: Vec<Token> },
    /// The restart policy decides: the main ended by itself.
    Decide { failed: bool, lived: Duration },
}

impl Wait {
    /// When that is over, one way or the other.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Lived { until } => Some(until),
            Self::Told { by } => by,
        }
    }
}

impl Phase {
    /// Asked now, with this time until SIGKILL.
    pub(super) fn asked(timeout: Duration, now: Instant) -> Self {
        Self::Asked { kill_at: now + timeout }
    }

    /// When it becomes more urgent.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Asked { kill_at } => Some(kill_at),
            Self::Killing { give_up_at } => Some(give_up_at),
            Self::Surviving => None,
        }
    }

    /// A further request can only shorten the time. Returns whether SIGKILL is to be sent again.
    pub(super) fn hurry(&mut self, timeout: Duration, now: Instant) -> bool {
        match self {
            Self::Asked { kill_at } => {
                *kill_at = (*kill_at).min(now + timeout);
                false
            }
            Self::Killing { .. } => false,
            Self::Surviving => {
                *self = Self::Killing { give_up_at: now + KILL_WAIT };
                true
            }
        }
    }
}

impl<L> Stopping<L> {
    /// A further request can only shorten the time. Returns SIGKILL when it is to be sent again.
    pub(super) fn hurry(&mut self, timeout: Duration, now: Instant) -> Option<Signal> {
        (self.gone.is_none() && self.phase.hurry(timeout, now)).then_some(Signal::KILL)
    }
}

impl<L> Then<L> {
    /// Whether a start is on its way.
    pub(super) fn is_start(&self) -> bool {
        matches!(self, Self::Start { .. })
    }

    /// Those who wait for the start that does not come now.
    pub(super) fn tokens(self) -> Vec<Token> {
        match self {
            Self::Start { tokens, .. } => tokens,
            Self::Rest | Self::Await | Self::Decide { .. } => Vec::new(),
        }
    }

    /// A start follows; the last one who asked says how.
    pub(super) fn start_too(&mut self, launch: L, origin: Origin, token: Token) {
        let mut tokens = match self {
            Self::Start { tokens, .. } => std::mem::take(tokens),
            Self::Rest | Self::Await | Self::Decide { .. } => Vec::new(),
        };
        tokens.push(token);
        *self = Self::Start { launch, origin, tokens };
    }
}
