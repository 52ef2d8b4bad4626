//! The rim of one sub-process: one task that owns its process, feeds the machine and carries out what the machine says.
//!
//! - here: the loop, the mailbox, and what follows each event; `starts`, `ends`: the ways up and down; `signs`: what the watch over a run hears;
//! - `live`: what there is of a run; `adoption`: what an earlier daemon left of one.

mod adoption;
mod ends;
mod live;
mod signs;
mod starts;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::procfs::{Forest, Identity};
use crate::protocol::{Cause, EndedBy, Origin, Signal, StateName, Wanted};
use crate::status::{Monitor, Watched};
use crate::sys::pidfd::ExitStatus;
use crate::sys::readiness;
use crate::sys::reaper::{MainGuard, Mains};

use super::adopt::{Adoption, HandedOver};
use super::gate::Gate;
use super::handle::{CommandError, MAILBOX, SubProcessHandle};
use super::late::Punctual;
use super::ledger::{self, Intent, Ledger, Standing};
use super::machine::{Answer, Effect, End, Event, Machine, StopWay, Token, TreeReport};
use super::published::{Health, Published, PublishedRun};
use super::report::{Notice, Reporter, RunRecord};
use super::spawn::{Launch, Operation, SpawnFailure, Spawned, Spawner};
use super::spec::Spec;
use super::strays::Strays;
use super::streams;
use super::tree::{Ender, Ending, Whole};
use super::vigil::{self, NotifySocket, Sign, Vigil, VigilShared, WatchedRun};

use live::{Begun, Live, Main, Spawning, Stage, Staged, exited, staged};

/// What all sub-processes of a daemon share.
pub struct Shared {
    /// Where trees are found.
    pub forest: Arc<Forest>,
    /// Who refreshes their status.
    pub monitor: Arc<Monitor>,
    /// Who starts them.
    pub spawner: Spawner,
    /// Which children are mains.
    pub mains: Arc<Mains>,
    /// Who says whether a start may begin.
    pub gate: Arc<dyn Gate>,
    /// What those that watch over runs share.
    pub vigil: Arc<VigilShared>,
    /// Where the sockets are that sub-processes notify.
    pub runtime_dir: PathBuf,
    /// Who is told.
    pub reporter: Arc<dyn Reporter>,
    /// Who writes down what a later daemon must know.
    pub ledger: Arc<dyn Ledger>,
    /// What is in the way of a start.
    pub strays: Arc<Strays>,
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
    Execute { launch: Launch, origin: Origin, reply: Reply },
    Quit { signal: Option<Signal>, timeout: Option<Duration>, by: EndedBy, reply: Reply },
    Restart { launch: Launch, timeout: Option<Duration>, reply: Reply },
    ToRestart { reply: oneshot::Sender<()> },
    EndToStart { timeout: Option<Duration>, reply: Reply },
    Signal { signal: Signal, reply: oneshot::Sender<Result<Vec<u32>, CommandError>> },
    WhoIsMain { reply: oneshot::Sender<Option<Identity>> },
    Redefine { spec: Arc<Spec>, reply: oneshot::Sender<()> },
    Unregister { reply: Reply },
    Adopt { adoption: Box<Adoption>, reply: oneshot::Sender<std::io::Result<()>> },
    HandOver { reply: oneshot::Sender<Option<HandedOver>> },
    Scheduled { next: Option<SystemTime> },
    NoMoreStarts,
}

/// How soon a start that hangs is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

enum Input {
    Message(Option<Message>),
    Staged(Staged),
    Exited(Option<ExitStatus>),
    Ending(Ending),
    Sign(Sign),
    StopRequested(Result<(), String>),
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
    /// The run under way, or the last one until it is recorded.
    begun: Option<Arc<Begun>>,
    waiting: HashMap<Token, Reply>,
    tokens: u64,
    random: RandomState,
    /// The quit that unregisters it. Until that is answered nothing may start.
    leaving: Option<Token>,
    /// Waits for the machine's deadlines.
    punctual: Punctual,
    /// Events that the machine is given before anything else is looked at.
    queued: VecDeque<Event<Launch, SpawnFailure>>,
    /// It is unregistered: the actor ends.
    done: bool,
    /// A later daemon has its run: nothing is decided here any more.
    handed_over: bool,
}

/// How a sub-process is ended where nobody says otherwise.
fn stop_way(spec: &Spec) -> StopWay {
    StopWay { signal: spec.stop_signal, timeout: spec.stop_timeout, request: spec.stop_request.is_some() }
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
        outdated: false,
        reloading: false,
        health: None,
        listing: None,
        restarts: 0,
        next_start_at: None,
        next_scheduled_at: None,
        starts: 0,
        exits: BTreeMap::new(),
        log: streams::define(shared.spawner.outputs(), &spec),
    }));
    let handle = SubProcessHandle::new(spec.name.clone(), sender, receiver, shared.clone());
    let actor = Actor {
        machine: Machine::new(spec.policy.clone(), stop_way(&spec), Launch::default()),
        spec,
        shared,
        mailbox,
        published,
        live: None,
        spawning: None,
        begun: None,
        waiting: HashMap::new(),
        tokens: 0,
        random: RandomState::new(),
        leaving: None,
        punctual: Punctual::default(),
        queued: VecDeque::new(),
        done: false,
        handed_over: false,
    };
    tokio::spawn(actor.run());
    handle
}

fn failure(operation: Operation, errno: i32, spec: &Spec) -> SpawnFailure {
    SpawnFailure { operation, errno, command: spec.cmd.first().cloned().unwrap_or_default() }
}

impl Actor {
    async fn run(mut self) {
        while !self.done
            && !self.handed_over
            && let Some(event) = self.next_event().await
        {
            if let Some(event) = event {
                self.advance(event);
            }
        }
        if self.handed_over {
            // What it holds must not be given up before the daemon ends, nor what happens from here on be told by two.
            std::future::pending::<()>().await;
        }
    }

    async fn next_input(&mut self) -> Input {
        let deadline = self.machine.deadline();
        let (main, ender, vigil, stop_request) = match &mut self.live {
            Some(live) => (live.main.as_ref(), live.ender.as_mut(), live.vigil.as_mut(), live.stop_request.as_mut()),
            None => (None, None, None, None),
        };
        tokio::select! {
            biased;
            staged = staged(self.spawning.as_mut()) => Input::Staged(staged),
            status = async { match main { Some(main) => exited(main).await, None => std::future::pending().await } } => Input::Exited(status),
            ending = async { match ender { Some(ender) => ender.next().await, None => std::future::pending().await } } => Input::Ending(ending),
            sign = async { match vigil { Some(vigil) => vigil.next().await, None => std::future::pending().await } } => Input::Sign(sign),
            asked = async { match stop_request { Some(asked) => asked.await, None => std::future::pending().await } } => Input::StopRequested(asked),
            () = async { match deadline { Some(at) => self.punctual.until(at.into()).await, None => std::future::pending().await } } => Input::Deadline,
            message = self.mailbox.recv() => Input::Message(message),
        }
    }

    /// The next thing for the machine; an inner `None` is a message that is none of its business; the outer one ends the actor.
    async fn next_event(&mut self) -> Option<Option<Event<Launch, SpawnFailure>>> {
        if let Some(event) = self.queued.pop_front() {
            return Some(Some(event));
        }
        Some(match self.next_input().await {
            Input::Message(Some(message)) => self.take_message(message),
            Input::Message(None) => return None,
            Input::Deadline => Some(Event::Deadline),
            Input::Exited(status) => self.main_exited(status),
            Input::Ending(Ending::Gone(report)) => {
                if let Some(live) = &mut self.live {
                    live.ender = None;
                }
                Some(Event::TreeGone(report))
            }
            Input::Ending(Ending::Survivors(report)) => Some(Event::Survivors(report)),
            Input::Sign(sign) => self.take_sign(sign),
            Input::StopRequested(result) => self.stop_requested(result),
            Input::Staged(Staged::Gate(Ok(()))) => {
                self.make_process();
                None
            }
            Input::Staged(Staged::Gate(Err(closed))) => {
                self.spawning = None;
                Some(self.spawn_failed(SpawnFailure::required(&self.spec, closed)))
            }
            Input::Staged(Staged::Process(result)) => {
                let notify = self.spawning.take().and_then(|spawning| spawning.notify);
                Some(match result {
                    Ok(spawned) => self.take_process(spawned, notify),
                    Err(failure) => self.spawn_failed(failure),
                })
            }
        })
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
            Message::Execute { launch, origin, reply } => Some(Event::Execute { token: self.token(reply), launch, origin }),
            Message::Quit { signal, timeout, by, reply } => {
                let token = Some(self.token(reply));
                let usual = stop_way(&self.spec);
                let way = StopWay {
                    signal: signal.unwrap_or(usual.signal),
                    timeout: timeout.unwrap_or(usual.timeout),
                    request: usual.request && signal.is_none(),
                };
                Some(Event::Quit { token, way, by })
            }
            Message::Restart { launch, timeout, reply } => {
                let token = self.token(reply);
                let usual = stop_way(&self.spec);
                Some(Event::Restart { token, launch, way: StopWay { timeout: timeout.unwrap_or(usual.timeout), ..usual } })
            }
            Message::ToRestart { reply } => {
                if !leaving {
                    self.advance(Event::ToRestart);
                }
                let _ = reply.send(());
                None
            }
            Message::EndToStart { timeout, reply } => {
                let token = self.token(reply);
                let usual = stop_way(&self.spec);
                let way = StopWay { timeout: timeout.unwrap_or(usual.timeout), ..usual };
                // One that is being unregistered is not started again.
                Some(if leaving { Event::Quit { token: Some(token), way, by: EndedBy::Restart } } else { Event::EndToStart { token, way } })
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
                self.redefine_watch();
                let event = Event::PolicyChanged(spec.policy.clone(), stop_way(&spec));
                let log = streams::define(self.shared.spawner.outputs(), &spec);
                self.published.send_modify(|published| {
                    let published = Arc::make_mut(published);
                    // Another schedule has other times, which the scheduler says soon.
                    published.next_scheduled_at = published.next_scheduled_at.filter(|_| spec.schedule == published.spec.schedule);
                    (published.spec, published.log) = (spec, log);
                });
                let _ = reply.send(());
                Some(event)
            }
            Message::Unregister { reply } => {
                let token = self.token(reply);
                self.leaving = Some(token);
                Some(Event::Quit { token: Some(token), way: stop_way(&self.spec), by: EndedBy::Unregister })
            }
            Message::Adopt { adoption, reply } => {
                let _ = reply.send(self.adopt(*adoption));
                None
            }
            Message::HandOver { reply } => {
                let _ = reply.send(self.hand_over());
                None
            }
            Message::Scheduled { next } => {
                // The schedule may have been taken away since it was looked at.
                let next = next.filter(|_| self.spec.schedule.is_some());
                if self.published.borrow().next_scheduled_at != next {
                    self.published.send_modify(|published| Arc::make_mut(published).next_scheduled_at = next);
                    self.shared.ledger.stands(&self.spec.name, &self.standing());
                }
                None
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
        let (before, standing) = (self.machine.state(), self.standing());
        let effects = self.machine.handle(event, now, roll);
        let mut answers = Vec::new();
        for effect in effects {
            match effect {
                Effect::Answer(token, answer) => answers.push((token, answer)),
                Effect::Spawn { launch, origin } => self.spawn(launch, origin),
                Effect::WithdrawSpawn => self.withdraw_spawn(),
                Effect::RequestStop => self.request_stop(),
                Effect::EndTree(signal) => self.end_tree(signal),
                Effect::KillSpawn => {
                    if let Some(spawning) = &mut self.spawning
                        && spawning.killer.is_empty()
                    {
                        let (spawner, uuid) =
                            (self.shared.spawner.clone(), self.begun.as_ref().map(|begun| begun.uuid.clone()).unwrap_or_default());
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
                    } else if let Some(pid) = self.begun.as_ref().and_then(|begun| self.shared.spawner.pid_of(&begun.uuid)) {
                        let report = TreeReport { survivors: vec![pid], ..TreeReport::default() };
                        self.queued.push_back(Event::Survivors(report));
                    }
                }
                Effect::RunEnded(end) => self.run_ended(end),
                Effect::RestartScheduled { attempt, delay } => {
                    self.shared.reporter.report(&Notice::RestartScheduled { name: &self.spec.name, attempt, delay });
                }
            }
        }
        self.publish(now);
        self.write_down(standing);
        let after = self.machine.state();
        if before != after {
            if after == StateName::Running
                && let Some(vigil) = self.live.as_mut().and_then(|live| live.vigil.as_mut())
            {
                vigil.ready();
            }
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
        if self.machine.run().is_none()
            && after != StateName::Stopping
            && let Some(live) = self.live.take()
        {
            self.shared.ledger.gone(&live.uuid);
        }
        let published = self.published.borrow().clone();
        for (token, answer) in answers {
            if self.leaving == Some(token) {
                self.leaving = None;
                self.done = matches!(&answer, Answer::Ended(report) if report.survivors.is_empty());
                if self.done {
                    self.shared.spawner.outputs().forget(&self.spec.name);
                    self.shared.ledger.unregistered(&self.spec.name);
                }
            }
            if let Some(reply) = self.waiting.remove(&token) {
                drop(reply.send((answer, published.clone()))); // the caller may have given up waiting
            }
        }
    }

    fn standing(&self) -> Standing {
        let machine = &self.machine;
        Standing {
            state: machine.state(),
            wanted: machine.wanted(),
            restarts: machine.restarts(),
            attempt: machine.attempt(),
            scheduled: self.published.borrow().next_scheduled_at,
        }
    }

    /// Writes down what is different now, for a daemon that may come after this one.
    fn write_down(&mut self, standing: Standing) {
        let ledger = &self.shared.ledger;
        let now = self.standing();
        if now != standing {
            ledger.stands(&self.spec.name, &now);
        }
        let Some(live) = &mut self.live else { return };
        if now.state == StateName::Running && standing.state != StateName::Running {
            ledger.ready(&live.uuid);
        }
        match self.machine.ending() {
            // That it ended by itself, the record of the run says.
            Some((EndedBy::Itself, false)) | None => {}
            // Compared with what is written, not with what was so before: an end that was asked for during the start is older than what it is written in.
            ending @ Some((by, then_start)) if ending != live.ending => {
                live.ending = ending;
                ledger.ending(&live.uuid, by, then_start);
            }
            Some(_) => {}
        }
    }

    fn roll(&mut self) -> f64 {
        let mut hasher = self.random.build_hasher();
        self.tokens += 1;
        hasher.write_u64(self.tokens);
        // The upper 53 bits, which an f64 holds exactly.
        (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
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
