//! The rim of one sub-process: one task that owns its process, feeds the machine and carries out what the machine says.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::output::Lease;
use crate::procfs::{Forest, Identity, Root};
use crate::protocol::{Signal, StateName, Wanted};
use crate::status::{Monitor, Watched};
use crate::sys::pidfd::{ExitStatus, PidFd};
use crate::sys::readiness;
use crate::sys::reaper::MainGuard;

use super::handle::{CommandError, MAILBOX, SubProcessHandle};
use super::machine::{Answer, Effect, Event, Machine, StopDefaults, Token, TreeReport};
use super::published::{Published, PublishedRun};
use super::report::{Notice, Reporter};
use super::spawn::{Launch, Operation, SpawnFailure, Spawned, Spawner};
use super::spec::Spec;
use super::streams;
use super::tree::{Ender, Ending, Whole};

/// What all sub-processes of a daemon share.
pub struct Shared {
    /// Where trees are found.
    pub forest: Arc<Forest>,
    /// Who refreshes their status.
    pub monitor: Arc<Monitor>,
    /// Who starts them.
    pub spawner: Spawner,
    /// Who is told.
    pub reporter: Arc<dyn Reporter>,
    /// Woken after each reaping: an orphan may stand behind a main that was in its way.
    pub reaped: Arc<Notify>,
    /// Node part of the version-1 UUIDs of this daemon.
    pub node: [u8; 6],
    /// Starts so far, over all sub-processes.
    pub starts: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// An answer, and what was published with it.
pub(super) type Answered = (Answer<SpawnFailure>, Arc<Published>);
type Reply = oneshot::Sender<Answered>;

/// What a handle asks of its actor.
#[derive(Debug)]
pub(super) enum Message {
    Execute { launch: Launch, reply: Reply },
    Quit { signal: Option<Signal>, timeout: Option<Duration>, reply: Reply },
    Restart { launch: Launch, timeout: Option<Duration>, reply: Reply },
    Signal { signal: Signal, reply: oneshot::Sender<Result<Vec<u32>, CommandError>> },
    WhoIsMain { reply: oneshot::Sender<Option<Identity>> },
    Redefine { spec: Arc<Spec>, reply: oneshot::Sender<()> },
    Unregister { reply: Reply },
    NoMoreStarts,
}

/// A run whose tree is not gone.
struct Live {
    uuid: String,
    identity: Identity,
    /// `None` once the main is reaped.
    main: Option<Main>,
    ender: Option<Ender>,
    /// Keeps its logs looked after.
    _leases: Vec<Lease>,
    /// Keeps its orphans attributed to it.
    _root: Root,
}

struct Main {
    fd: AsyncFd<PidFd>,
    _guard: MainGuard,
}

/// A start under way.
struct Spawning {
    uuid: String,
    /// Begins when it is first polled, which is at once: the actor waits for nothing before.
    result: BoxFuture<'static, Result<Spawned, SpawnFailure>>,
    /// Kills it for as long as it is under way, once that is wanted.
    killer: JoinSet<()>,
}

/// How soon a start that hangs is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

enum Input {
    Message(Option<Message>),
    Spawned(Result<Spawned, SpawnFailure>),
    Exited(Option<ExitStatus>),
    Ending(Ending),
    Deadline,
}

struct Actor {
    spec: Arc<Spec>,
    shared: Arc<Shared>,
    machine: Machine<Launch, SpawnFailure>,
    mailbox: mpsc::Receiver<Message>,
    published: watch::Sender<Arc<Published>>,
    live: Option<Live>,
    spawning: Option<Spawning>,
    waiting: HashMap<Token, Reply>,
    tokens: u64,
    random: RandomState,
    /// The quit that unregisters it. Until that is answered nothing may start.
    leaving: Option<Token>,
    /// What outlived SIGKILL of a start that hangs; the machine's next event.
    counted: Option<TreeReport>,
    /// It is unregistered: the actor ends.
    done: bool,
}

fn stop_defaults(spec: &Spec) -> StopDefaults {
    StopDefaults { signal: spec.stop_signal, timeout: spec.stop_timeout }
}

/// Starts the actor of a sub-process, which does not run yet.
pub fn start(spec: Arc<Spec>, shared: Arc<Shared>) -> SubProcessHandle {
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    let (published, receiver) = watch::channel(Arc::new(Published {
        spec: spec.clone(),
        state: StateName::Stopped,
        wanted: Wanted::Down,
        run: None,
        end: None,
        message: None,
        health: None,
        restarts: 0,
        next_start_at: None,
        starts: 0,
        exits: BTreeMap::new(),
        log: streams::define(shared.spawner.outputs(), &spec),
    }));
    let handle = SubProcessHandle::new(spec.name.clone(), sender, receiver, shared.clone());
    let actor = Actor {
        machine: Machine::new(spec.policy.clone(), stop_defaults(&spec), Launch::default()),
        spec,
        shared,
        mailbox,
        published,
        live: None,
        spawning: None,
        waiting: HashMap::new(),
        tokens: 0,
        random: RandomState::new(),
        leaving: None,
        counted: None,
        done: false,
    };
    tokio::spawn(actor.run());
    handle
}

/// Resolves when the process has ended, reaped.
async fn exited(main: &Main) -> Option<ExitStatus> {
    loop {
        match main.fd.readable().await {
            Ok(mut guard) => match main.fd.get_ref().reap() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => guard.clear_ready(),
                Err(error) => {
                    tracing::error!(%error, "a process ended, and nobody can tell how");
                    return None;
                }
            },
            Err(error) => {
                tracing::error!(%error, "cannot wait for a process");
                return None;
            }
        }
    }
}

/// Waits for a value of something that is there, for ever where it is not.
async fn spawned(spawning: Option<&mut Spawning>) -> Result<Spawned, SpawnFailure> {
    match spawning {
        Some(spawning) => (&mut spawning.result).await,
        None => std::future::pending().await,
    }
}

fn failure(operation: Operation, errno: i32, spec: &Spec) -> SpawnFailure {
    SpawnFailure { operation, errno, command: spec.cmd.first().cloned().unwrap_or_default() }
}

impl Actor {
    async fn run(mut self) {
        while !self.done
            && let Some(event) = self.next_event().await
        {
            if let Some(event) = event {
                self.advance(event);
            }
        }
    }

    async fn next_input(&mut self) -> Input {
        let deadline = self.machine.deadline();
        let (main, ender) = match &mut self.live {
            Some(live) => (live.main.as_ref(), live.ender.as_mut()),
            None => (None, None),
        };
        tokio::select! {
            biased;
            result = spawned(self.spawning.as_mut()) => Input::Spawned(result),
            status = async { match main { Some(main) => exited(main).await, None => std::future::pending().await } } => Input::Exited(status),
            ending = async { match ender { Some(ender) => ender.next().await, None => std::future::pending().await } } => Input::Ending(ending),
            () = async { match deadline { Some(at) => tokio::time::sleep_until(at.into()).await, None => std::future::pending().await } } => Input::Deadline,
            message = self.mailbox.recv() => Input::Message(message),
        }
    }

    /// The next thing for the machine; an inner `None` is a message that is none of its business; the outer one ends the actor.
    async fn next_event(&mut self) -> Option<Option<Event<Launch, SpawnFailure>>> {
        if let Some(report) = self.counted.take() {
            return Some(Some(Event::Survivors(report)));
        }
        Some(match self.next_input().await {
            Input::Message(Some(message)) => self.take_message(message),
            Input::Message(None) => return None,
            Input::Deadline => Some(Event::Deadline),
            Input::Exited(status) => {
                if let Some(live) = &mut self.live {
                    live.main = None;
                }
                self.publish_run(|run| (run.pid, run.watched) = (None, None));
                self.shared.reaped.notify_one();
                Some(Event::MainExited { status })
            }
            Input::Ending(Ending::Gone(report)) => {
                if let Some(live) = &mut self.live {
                    live.ender = None;
                }
                Some(Event::TreeGone(report))
            }
            Input::Ending(Ending::Survivors(report)) => Some(Event::Survivors(report)),
            Input::Spawned(result) => {
                let uuid = self.spawning.take().map(|spawning| spawning.uuid).unwrap_or_default();
                Some(match result {
                    Ok(spawned) => self.take_process(spawned, uuid),
                    Err(failure) => self.spawn_failed(failure),
                })
            }
        })
    }

    fn spawn_failed(&self, failure: SpawnFailure) -> Event<Launch, SpawnFailure> {
        self.shared.reporter.report(&Notice::SpawnFailed { name: &self.spec.name, failure: &failure });
        self.shared.reaped.notify_one();
        Event::SpawnFailed { failure }
    }

    /// A new process is ours: keeps watch over it from here on.
    fn take_process(&mut self, spawned: Spawned, uuid: String) -> Event<Launch, SpawnFailure> {
        let Spawned { identity, fd, guard, started, started_at, leases } = spawned;
        let fd = match readiness::watch(fd) {
            Ok(fd) => fd,
            Err(error) => return self.give_up_process(identity, guard, &error),
        };
        let watched: Watched = self.shared.monitor.add(&uuid, identity);
        let number = self.shared.starts.fetch_add(1, Ordering::Relaxed);
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            published.run =
                Some(PublishedRun { uuid: uuid.clone(), pid: Some(identity.pid), started, started_at, number, watched: Some(watched) });
        });
        let root = self.shared.forest.plant(&uuid, identity);
        self.live = Some(Live { uuid, identity, main: Some(Main { fd, _guard: guard }), ender: None, _leases: leases, _root: root });
        // An orphan may have stood behind this child while it was nobody's.
        self.shared.reaped.notify_one();
        Event::Spawned { pid: identity.pid }
    }

    /// A process that cannot be watched must not run: it is killed, and its guard keeps the reaper of orphans away until it is reaped.
    fn give_up_process(&self, identity: Identity, guard: MainGuard, error: &std::io::Error) -> Event<Launch, SpawnFailure> {
        let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
        if let Ok(Some(fd)) = super::tree::hold(identity) {
            drop(fd.send_signal(Signal::KILL.number()));
        }
        drop(guard);
        self.spawn_failed(failure(Operation::Watch, errno, &self.spec))
    }

    fn token(&mut self, reply: Reply) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.waiting.insert(token, reply);
        token
    }

    fn take_message(&mut self, message: Message) -> Option<Event<Launch, SpawnFailure>> {
        let leaving = self.leaving.is_some();
        match message {
            // Dropping the reply tells the caller that it is gone.
            Message::Execute { .. } | Message::Restart { .. } | Message::Redefine { .. } | Message::Unregister { .. } if leaving => None,
            Message::Execute { launch, reply } => Some(Event::Execute { token: self.token(reply), launch }),
            Message::Quit { signal, timeout, reply } => {
                let token = Some(self.token(reply));
                let (signal, timeout) = (signal.unwrap_or(self.spec.stop_signal), timeout.unwrap_or(self.spec.stop_timeout));
                Some(Event::Quit { token, signal, timeout })
            }
            Message::Restart { launch, timeout, reply } => {
                let token = self.token(reply);
                Some(Event::Restart { token, launch, signal: self.spec.stop_signal, timeout: timeout.unwrap_or(self.spec.stop_timeout) })
            }
            Message::Signal { signal, reply } => {
                drop(reply.send(self.signal_main(signal)));
                None
            }
            Message::WhoIsMain { reply } => {
                let _ = reply.send(self.live.as_ref().filter(|live| live.main.is_some()).map(|live| live.identity));
                None
            }
            Message::Redefine { spec, reply } => {
                self.spec = spec.clone();
                let event = Event::PolicyChanged(spec.policy.clone(), stop_defaults(&spec));
                let log = streams::define(self.shared.spawner.outputs(), &spec);
                self.published.send_modify(|published| {
                    let published = Arc::make_mut(published);
                    (published.spec, published.log) = (spec, log);
                });
                let _ = reply.send(());
                Some(event)
            }
            Message::Unregister { reply } => {
                let token = self.token(reply);
                self.leaving = Some(token);
                Some(Event::Quit { token: Some(token), signal: self.spec.stop_signal, timeout: self.spec.stop_timeout })
            }
            Message::NoMoreStarts => Some(Event::NoMoreStarts),
        }
    }

    fn signal_main(&self, signal: Signal) -> Result<Vec<u32>, CommandError> {
        let (live, main) =
            self.live.as_ref().and_then(|live| live.main.as_ref().map(|main| (live, main))).ok_or(CommandError::NotRunning)?;
        main.fd.get_ref().send_signal(signal.number())?;
        Ok(vec![live.identity.pid])
    }

    /// Gives the machine an event, carries out what it says, publishes what came of it, and only then answers.
    fn advance(&mut self, event: Event<Launch, SpawnFailure>) {
        let now = Instant::now();
        let roll = self.roll();
        let before = self.machine.state();
        let effects = self.machine.handle(event, now, roll);
        let mut answers = Vec::new();
        for effect in effects {
            match effect {
                Effect::Answer(token, answer) => answers.push((token, answer)),
                Effect::Spawn(launch) => self.spawn(launch),
                Effect::EndTree(signal) => self.end_tree(signal),
                Effect::KillSpawn => {
                    if let Some(spawning) = &mut self.spawning
                        && spawning.killer.is_empty()
                    {
                        let (spawner, uuid) = (self.shared.spawner.clone(), spawning.uuid.clone());
                        spawning.killer.spawn(async move {
                            // Again and again: its turn may not have come yet, or its process may not be there yet.
                            loop {
                                spawner.kill(&uuid);
                                tokio::time::sleep(KILL_AGAIN).await;
                            }
                        });
                    }
                }
                Effect::CountSurvivors => {
                    if let Some(ender) = self.live.as_ref().and_then(|live| live.ender.as_ref()) {
                        ender.count();
                    } else if let Some(pid) = self.spawning.as_ref().and_then(|spawning| self.shared.spawner.pid_of(&spawning.uuid)) {
                        self.counted = Some(TreeReport { survivors: vec![pid], ..TreeReport::default() });
                    }
                }
                Effect::RunEnded(end) => self.published.send_modify(|published| {
                    *Arc::make_mut(published).exits.entry(end.cause).or_default() += 1;
                }),
                Effect::RestartScheduled { attempt, delay } => {
                    self.shared.reporter.report(&Notice::RestartScheduled { name: &self.spec.name, attempt, delay });
                }
            }
        }
        self.publish(now);
        let after = self.machine.state();
        if before != after {
            let end = self.machine.last_end();
            self.shared.reporter.report(&Notice::StateChanged {
                name: &self.spec.name,
                from: before,
                to: after,
                pid: self.machine.run().map(|run| run.pid),
                status: end.and_then(|end| end.status),
                cause: end.map(|end| end.cause),
                restarts: self.machine.restarts(),
            });
        }
        if self.machine.run().is_none() && after != StateName::Stopping {
            self.live = None;
        }
        let published = self.published.borrow().clone();
        for (token, answer) in answers {
            if self.leaving == Some(token) {
                self.leaving = None;
                self.done = matches!(&answer, Answer::Ended(report) if report.survivors.is_empty());
                if self.done {
                    self.shared.spawner.outputs().forget(&self.spec.name);
                }
            }
            if let Some(reply) = self.waiting.remove(&token) {
                drop(reply.send((answer, published.clone()))); // the caller may have given up waiting
            }
        }
    }

    fn roll(&mut self) -> f64 {
        let mut hasher = self.random.build_hasher();
        self.tokens += 1;
        hasher.write_u64(self.tokens);
        // The upper 53 bits, which an f64 holds exactly.
        (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn spawn(&mut self, launch: Launch) {
        let uuid = uuid::Uuid::now_v1(&self.shared.node).to_string();
        let result = self.shared.spawner.clone().spawn(self.spec.clone(), launch, uuid.clone()).boxed();
        self.spawning = Some(Spawning { uuid, result, killer: JoinSet::new() });
        self.published.send_modify(|published| Arc::make_mut(published).starts += 1);
    }

    fn end_tree(&mut self, signal: Signal) {
        let Some(live) = &mut self.live else {
            tracing::error!(name = %self.spec.name, "there is no tree to end");
            return;
        };
        // The main gets it at once, without looking for the others first: that needs no further descriptor, and most trees are one process.
        let mut sent = None;
        if let Some(main) = &live.main {
            super::tree::send(main.fd.get_ref(), live.identity.pid, signal);
            sent = Some(live.identity);
        }
        match &live.ender {
            Some(ender) => ender.signal(signal, sent),
            None => {
                let whole = Whole { uuid: live.uuid.clone(), except: None };
                live.ender = Some(Ender::begin(self.shared.forest.clone(), whole, signal, sent));
            }
        }
    }

    fn publish_run(&self, change: impl FnOnce(&mut PublishedRun)) {
        self.published.send_modify(|published| {
            if let Some(run) = Arc::make_mut(published).run.as_mut() {
                change(run);
            }
        });
    }

    fn publish(&self, now: Instant) {
        let next_start_at = self.machine.next_start().map(|at| SystemTime::now() + at.saturating_duration_since(now));
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            published.state = self.machine.state();
            published.wanted = self.machine.wanted();
            published.end = self.machine.last_end();
            published.restarts = self.machine.restarts();
            published.next_start_at = next_start_at;
        });
    }
}
