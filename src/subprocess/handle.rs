//! The door to one sub-process: everyone but its actor holds a [`SubProcessHandle`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use crate::protocol::reply::{Ended, Executed};
use crate::protocol::{EndedBy, Name, Origin, Signal, StateName};

use super::actor::{Answered, Message, Shared};
use super::adopt::{Adoption, HandedOver};
use super::gate::Closed;
use super::machine::{Answer, Refusal, TreeReport};
use super::published::Published;
use super::spawn::{Launch, Operation, SpawnFailure};
use super::spec::Spec;
use super::tree::{self, Whole};

/// Commands that wait in front of one sub-process. More than a few mean that somebody calls in a loop.
pub(super) const MAILBOX: usize = 64;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It was unregistered, or is being.
    #[error("it is not registered any more")]
    Gone,
    /// Too many commands wait for it.
    #[error("too many commands wait for it")]
    Busy,
    /// It runs, or is being started or ended.
    #[error("it is {state} already")]
    AlreadyRunning {
        /// The process, where there is one.
        pid: Option<u32>,
        /// What it is doing.
        state: StateName,
    },
    /// It does not run.
    #[error("it does not run")]
    NotRunning,
    /// The operating system refused to start it.
    #[error(transparent)]
    SpawnFailed(#[from] SpawnFailure),
    /// What it requires has ended for good.
    #[error("it requires {}, which is {}", .0.name, .0.state)]
    Required(Closed),
    /// A quit came between.
    #[error("a quit came before the start")]
    Overtaken,
    /// Processes of its tree outlived SIGKILL.
    #[error("{} of its processes outlived SIGKILL", .0.len())]
    Survivors(Vec<u32>),
    /// The operating system refused.
    #[error("the operating system refused")]
    System(#[from] std::io::Error),
}

/// A cloneable handle.
#[derive(Clone, Debug)]
pub struct SubProcessHandle {
    name: Name,
    mailbox: mpsc::Sender<Message>,
    published: watch::Receiver<Arc<Published>>,
    shared: Arc<Shared>,
}

impl SubProcessHandle {
    pub(super) fn new(name: Name, mailbox: mpsc::Sender<Message>, published: watch::Receiver<Arc<Published>>, shared: Arc<Shared>) -> Self {
        Self { name, mailbox, published, shared }
    }

    /// Its registered name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What its actor last published. Never waits for anybody.
    pub fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// Whether both are handles of the same registration.
    pub fn is_same(&self, other: &Self) -> bool {
        self.mailbox.same_channel(&other.mailbox)
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.try_send(message(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Gone,
        })?;
        answer.await.map_err(|_| CommandError::Gone)
    }

    /// The same, waiting where its mailbox is full: for what must not be lost. Whoever filled it waits for nothing but its own turn.
    async fn ask_patiently<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(message(reply)).await.map_err(|_| CommandError::Gone)?;
        answer.await.map_err(|_| CommandError::Gone)
    }

    /// Every change of what its actor publishes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// Takes over what an earlier daemon left of it; to be called before anything else is asked of it.
    ///
    /// # Errors
    /// A living process cannot be watched.
    pub async fn adopt(&self, adoption: Adoption) -> Result<(), CommandError> {
        self.ask(|reply| Message::Adopt { adoption: Box::new(adoption), reply }).await?.map_err(CommandError::System)
    }

    /// Descriptors of its run, if it has one, for a later daemon. A full mailbox is waited for. Its actor decides nothing any more once it has
    /// answered, and answers nobody else.
    pub async fn hand_over(&self) -> Option<HandedOver> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Message::HandOver { reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Starts it; answers once the program was executed.
    pub async fn execute(&self, launch: Launch, origin: Origin) -> Result<Executed, CommandError> {
        let answer = self.ask(|reply| Message::Execute { launch, origin, reply }).await?;
        self.executed(answer)
    }

    /// Ends its whole tree; answers once nothing of it is left, or what outlives SIGKILL is known.
    pub async fn quit(&self, signal: Option<Signal>, timeout: Option<Duration>, by: EndedBy) -> Result<Ended, CommandError> {
        match self.ask(|reply| Message::Quit { signal, timeout, by, reply }).await? {
            (Answer::Ended(report), published) => Ok(self.ended(report, &published)),
            (other, _) => Err(refused(other)),
        }
    }

    /// The same with the stop settings of the definition, or at once: when the daemon leaves. A full mailbox is waited for.
    pub async fn quit_patiently(&self, timeout: Option<Duration>, by: EndedBy) -> Result<Ended, CommandError> {
        match self.ask_patiently(|reply| Message::Quit { signal: None, timeout, by, reply }).await? {
            (Answer::Ended(report), published) => Ok(self.ended(report, &published)),
            (other, _) => Err(refused(other)),
        }
    }

    /// Says that it is going to be ended and started again with others ([`Self::end_to_start`]): a daemon that comes after this one is to bring that to
    /// its end. A full mailbox is waited for.
    pub async fn to_restart(&self) {
        // One that is gone is not started again.
        let _ = self.ask_patiently(|reply| Message::ToRestart { reply }).await;
    }

    /// Ends its whole tree as [`Self::quit`] does; that it is to be started afterwards ([`Self::start_after_all`]) is written down. A full mailbox is
    /// waited for.
    pub async fn end_to_start(&self, timeout: Option<Duration>) -> Result<Ended, CommandError> {
        match self.ask_patiently(|reply| Message::EndToStart { timeout, reply }).await? {
            (Answer::Ended(report), published) => Ok(self.ended(report, &published)),
            (other, _) => Err(refused(other)),
        }
    }

    /// The start for which it was ended. A full mailbox is waited for.
    pub async fn start_after_all(&self) -> Result<Executed, CommandError> {
        let answer = self.ask_patiently(|reply| Message::Execute { launch: Launch::default(), origin: Origin::Restart, reply }).await?;
        self.executed(answer)
    }

    /// Ends it and starts it.
    pub async fn restart(&self, launch: Launch, timeout: Option<Duration>) -> Result<Executed, CommandError> {
        let answer = self.ask(|reply| Message::Restart { launch, timeout, reply }).await?;
        self.executed(answer)
    }

    /// Ends what is below it and leaves it alone.
    pub async fn reap_children(&self, timeout: Duration) -> Result<Ended, CommandError> {
        let published = self.published();
        let Some(run) = published.run.as_ref() else { return Ok(self.ended(TreeReport::default(), &published)) };
        let except = self.ask(|reply| Message::WhoIsMain { reply }).await?;
        let whole = Whole { uuid: run.uuid.clone(), except, group: None };
        let report = tree::end(self.shared.forest.clone(), whole, timeout).await;
        Ok(self.ended(report, &self.published()))
    }

    /// Sends a signal to it, or to its whole tree; returns to whom.
    pub async fn signal(&self, signal: Signal, tree: bool) -> Result<Vec<u32>, CommandError> {
        if !tree {
            return self.ask(|reply| Message::Signal { signal, reply }).await?;
        }
        let published = self.published();
        match published.run.as_ref().filter(|run| run.pid.is_some()) {
            Some(run) => Ok(tree::signal(&self.shared.forest, &run.uuid, signal).await?),
            None => Err(CommandError::NotRunning),
        }
    }

    /// Puts another definition in the place of its own. A run under way goes on as it was started; the policy, and how its health is watched, count at
    /// once. A full mailbox is waited for.
    pub async fn redefine(&self, spec: Arc<Spec>) -> Result<(), CommandError> {
        self.ask_patiently(|reply| Message::Redefine { spec, reply }).await
    }

    /// Quits it and ends its actor; afterwards this handle is of no use. Refused when something outlives SIGKILL.
    pub async fn unregister(&self) -> Result<(), CommandError> {
        let answer = self.ask(|reply| Message::Unregister { reply }).await?;
        self.unregistered(answer)
    }

    /// The same, when the file has it no more. A full mailbox is waited for.
    pub async fn unregister_patiently(&self) -> Result<(), CommandError> {
        let answer = self.ask_patiently(|reply| Message::Unregister { reply }).await?;
        self.unregistered(answer)
    }

    fn unregistered(&self, answer: Answered) -> Result<(), CommandError> {
        match answer {
            (Answer::Ended(report), _) if report.survivors.is_empty() => Ok(()),
            (Answer::Ended(report), _) => Err(CommandError::Survivors(report.survivors)),
            (other, _) => Err(refused(other)),
        }
    }

    /// Says when it is started by the clock, for its view.
    pub async fn scheduled(&self, next: Option<SystemTime>) {
        if self.published().next_scheduled_at != next {
            drop(self.mailbox.send(Message::Scheduled { next }).await);
        }
    }

    /// The daemon leaves: the policy starts it no more.
    pub async fn no_more_starts(&self) {
        // A full mailbox is waited for here: this must not be lost, and nobody else waits for it.
        drop(self.mailbox.send(Message::NoMoreStarts).await);
    }

    fn executed(&self, (answer, published): Answered) -> Result<Executed, CommandError> {
        let Answer::Started { pid } = answer else { return Err(refused(answer)) };
        let uuid = published.run.as_ref().map(|run| run.uuid.clone()).unwrap_or_default();
        Ok(Executed { name: self.name.clone(), pid, uuid, state: published.state })
    }

    fn ended(&self, report: TreeReport, published: &Published) -> Ended {
        Ended {
            name: self.name.clone(),
            survivors: u32::try_from(report.survivors.len()).unwrap_or(u32::MAX),
            returncode: published.returncode(),
            signal: published.signal(),
            terminated: report.terminated,
            killed: report.killed,
        }
    }
}

fn refused(answer: Answer<SpawnFailure>) -> CommandError {
    match answer {
        Answer::SpawnFailed(SpawnFailure { operation: Operation::Require(closed), .. }) => CommandError::Required(closed),
        Answer::SpawnFailed(failure) => CommandError::SpawnFailed(failure),
        Answer::Refused(Refusal::AlreadyRunning { pid, state }) => CommandError::AlreadyRunning { pid, state },
        Answer::Refused(Refusal::Overtaken) => CommandError::Overtaken,
        Answer::Refused(Refusal::Survivors(pids)) => CommandError::Survivors(pids),
        // The machine never mixes them; were it to, the caller learns at least that nothing runs.
        Answer::Started { .. } | Answer::Ended(_) => CommandError::NotRunning,
    }
}
