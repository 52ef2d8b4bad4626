//! What the machine and its rim say to each other.

use std::time::{Duration, Instant};

use crate::protocol::{Cause, EndedBy, Origin, Signal, StateName};
use crate::sys::pidfd::ExitStatus;

use super::super::spec::Policy;
use super::recovery::Recovered;

/// Somebody who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// How long SIGKILL may take: a process in uninterruptible sleep (state D) outlives it until its system call returns.
pub const KILL_WAIT: Duration = Duration::from_secs(2);

/// A living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its PID.
    pub pid: u32,
    /// When it was spawned.
    pub started: Instant,
}

/// How the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Exit code or signal; `None` when it could not be started, or nobody can tell.
    pub status: Option<ExitStatus>,
    /// Why.
    pub cause: Cause,
    /// Who had it ended.
    pub by: EndedBy,
    /// How long its process lived.
    pub lived: Duration,
    /// Whether it ended while it was still waited for to be ready.
    pub unready: bool,
}

/// What ending a tree did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeReport {
    /// Ended when asked.
    pub terminated: Vec<u32>,
    /// Ended by SIGKILL.
    pub killed: Vec<u32>,
    /// Outlived it.
    pub survivors: Vec<u32>,
}

/// What happened. `L` is what a start needs (arguments and environment of one run), `F` why one failed; the machine only hands them on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<L, F> {
    /// Somebody asks for a start.
    Execute {
        /// To be answered [`Answer::Started`], [`Answer::SpawnFailed`] or [`Answer::Refused`].
        token: Token,
        /// How.
        launch: L,
        /// Who asks.
        origin: Origin,
    },
    /// Somebody asks for the end of the whole tree.
    Quit {
        /// To be answered [`Answer::Ended`]; `None` when nobody waits.
        token: Option<Token>,
        /// How.
        way: StopWay,
        /// Who asks.
        by: EndedBy,
    },
    /// Somebody asks for an end and a start.
    Restart {
        /// As for `Execute`.
        token: Token,
        /// As for `Execute`.
        launch: L,
        /// How it is ended.
        way: StopWay,
    },
    /// It is going to be ended and started again with others, in their order: [`Event::EndToStart`] comes when its turn to end has come, and an
    /// [`Event::Execute`] of [`Origin::Restart`] when all are gone. A daemon that comes after this one is to bring that to its end.
    ToRestart,
    /// Its turn to be ended has come. A quit that came meanwhile holds: then no start follows.
    EndToStart {
        /// As for `Quit`.
        token: Token,
        /// How it is ended.
        way: StopWay,
    },
    /// The process is there.
    Spawned {
        /// Its PID.
        pid: u32,
    },
    /// It could not be started.
    SpawnFailed {
        /// Why.
        failure: F,
    },
    /// The start that was to be withdrawn was, before anything of it began.
    SpawnWithdrawn,
    /// It says, or answers, that it is ready.
    Ready,
    /// It asks for more time to get ready.
    ExtendTimeout(Duration),
    /// Another process of the tree is its main process from now on.
    MainMoved {
        /// Its PID.
        pid: u32,
    },
    /// It failed its health check so often that it is to be ended.
    Unhealthy,
    /// The request to stop could not be made, or was not answered.
    StopRequestFailed,
    /// The process has ended and was reaped.
    MainExited {
        /// How; `None` when nobody can tell.
        status: Option<ExitStatus>,
        /// The kernel killed it, or another process of its tree, for lack of memory.
        oom: bool,
    },
    /// Nothing of the tree lives any more.
    TreeGone(TreeReport),
    /// These outlived SIGKILL so far.
    Survivors(TreeReport),
    /// [`super::Machine::deadline`] has come.
    Deadline,
    /// An earlier daemon had it; this is what is left of that. Only before anything else.
    Recovered(Recovered<L>),
    /// The definition was replaced.
    PolicyChanged(Policy, StopWay),
    /// The daemon is leaving: nothing starts by itself any more.
    NoMoreStarts,
}

/// How a tree is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopWay {
    /// The signal that asks.
    pub signal: Signal,
    /// Time until SIGKILL.
    pub timeout: Duration,
    /// The definition's request is made first; the signal follows where that fails, and goes to what is left of the tree.
    pub request: bool,
}

/// What the rim is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<L, F> {
    /// Start a process.
    Spawn {
        /// How.
        launch: L,
        /// Who asked for it.
        origin: Origin,
    },
    /// Give the start up if nothing of it has begun.
    WithdrawSpawn,
    /// Ask the process to stop, by the definition's request.
    RequestStop,
    /// Send the signal to every process of the tree, now and to those found later, until nothing of it lives.
    EndTree(Signal),
    /// Kill the process that is being started and is not yet its program.
    KillSpawn,
    /// Find out who outlived SIGKILL; ending the tree goes on.
    CountSurvivors,
    /// Answer somebody.
    Answer(Token, Answer<F>),
    /// A run is over; counted once for each.
    RunEnded(End),
    /// The policy will start it again.
    RestartScheduled {
        /// Which try, counted from 1 since the last reset.
        attempt: u32,
        /// How long from now.
        delay: Duration,
    },
}

/// What a waiting caller is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<F> {
    /// The process is there.
    Started {
        /// Its PID.
        pid: u32,
    },
    /// The operating system refused.
    SpawnFailed(F),
    /// The tree is gone, or what outlived SIGKILL is named.
    Ended(TreeReport),
    /// The machine refused.
    Refused(Refusal),
}

/// Why the machine refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It runs, or is being started or ended.
    AlreadyRunning {
        /// The process, where there is one.
        pid: Option<u32>,
        /// What it is doing.
        state: StateName,
    },
    /// A quit came before the start that was waited for.
    Overtaken,
    /// It could not be started again, because these of its former tree cannot be ended.
    Survivors(Vec<u32>),
}
