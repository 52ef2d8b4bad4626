//! What watches over one run: is it ready, is it well, what does it say of itself. Knows neither ZeroMQ nor HTTP: those questions are asked by
//! whoever implements [`Ask`].
//!
//! A [`Vigil`] has no task of its own: its actor waits for [`Vigil::next`], and when it is dropped, everything it does stops.
//!
//! - [`socket`]: `$NOTIFY_SOCKET`; [`message`]: what is said there, purely; `listener`: who said it, and how much of it is heard;
//! - `members`: whether a process is one of the run;
//! - `trial`: one question, again and again; `program`: the question that is a program; `keepalive`: a service that must keep saying it is alive;
//! - `follower`: how it is listed in the registry of CGSE;
//! - `stop`: what asks a service to end.

pub mod message;
pub mod socket;

mod follower;
mod keepalive;
mod listener;
mod members;
mod program;
mod stop;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::procfs::{Forest, Identity};
use crate::protocol::{Name, RegistryHealth};

use super::late::Punctual;
use super::published::Health;
use super::spawn::{Launch, Spawner};
use super::spec::probe::{HealthSource, Probe, ReadySource};
use super::spec::{self, Spec};

use follower::Follower;
use keepalive::Keepalive;
use listener::{Heard, Listener};
use members::Members;
use program::Running;
use trial::{Questions, Trial};

pub use socket::NotifySocket;
pub use stop::ask_to_stop;

/// Somebody who can ask a service all questions but [`Probe::Exec`], which needs a process.
pub trait Ask: Send + Sync + 'static {
    /// Asks once. Takes no longer than `within`; an error says in words for people what came instead of a good answer. Dropping the future gives up.
    fn ask(&self, probe: &Probe, within: Duration) -> BoxFuture<'static, Result<(), String>>;

    /// How the registry of CGSE lists what runs under this name, as a service of this type: at the next look, and whenever that changes. `was_passing`
    /// where somebody has seen that of this run before. `None` where there is no registry. Dropping the stream ends it.
    fn follow(&self, name: &Name, service_type: &str, was_passing: bool) -> Option<BoxStream<'static, Listing>>;
}

/// How a run is listed in the registry of CGSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The id of its entry.
    pub id: Option<String>,
    /// How.
    pub health: RegistryHealth,
    /// Since when both have been so.
    pub since: SystemTime,
    /// What is wrong, in words for people.
    pub problem: Option<String>,
    /// It has not been passing for so long that it must be taken for ill: a sentence.
    pub ill: Option<String>,
}

/// What all vigils of a daemon share.
pub struct VigilShared {
    ask: Arc<dyn Ask>,
    spawner: Spawner,
    forest: Arc<Forest>,
    reaped: Arc<Notify>,
    running: Running,
    /// Bytes that are kept of what a program writes.
    kept: usize,
}

impl std::fmt::Debug for VigilShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VigilShared").finish_non_exhaustive()
    }
}

impl VigilShared {
    /// `reaped` is woken when the main process of a program was reaped, as for any other main.
    pub fn new(ask: Arc<dyn Ask>, spawner: Spawner, forest: Arc<Forest>, reaped: Arc<Notify>) -> Self {
        Self { ask, spawner, forest, reaped, running: Running::default(), kept: program::KEPT }
    }

    /// Keeps so many bytes of what a program writes.
    pub fn keeping(self, kept: usize) -> Self {
        Self { kept, ..self }
    }

    /// Resolves when no program that asks a service is left, nor any process that one has started.
    pub async fn programs_ended(&self) {
        self.running.ended().await;
    }
}

/// The run that is watched over.
pub struct WatchedRun {
    /// Its definition.
    pub spec: Arc<Spec>,
    /// What it got besides.
    pub launch: Launch,
    /// Its UUID, under which it is planted in the forest.
    pub uuid: String,
    /// The process that was started, which leads a session of its own.
    pub main: Identity,
    /// Where it says what it has to say.
    pub notify: Option<NotifySocket>,
    /// What it shares with others.
    pub shared: Arc<VigilShared>,
}

impl std::fmt::Debug for WatchedRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchedRun").field("uuid", &self.uuid).field("main", &self.main).finish_non_exhaustive()
    }
}

/// What was seen of a run, or heard from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is ready; or it is again, after [`Sign::Reloading`].
    Ready,
    /// Its health is another than before.
    Health(Health),
    /// It is not well: so many failures in a row, or a keep-alive that did not come. Said once.
    Unhealthy {
        /// What there is to say of that.
        message: String,
    },
    /// What it does, in its own words: at most [`message::MAX_STATUS`] characters, none of them a control character.
    Status(String),
    /// This living process of its tree is its main from now on.
    MainPid(Identity),
    /// It reads its configuration again.
    Reloading,
    /// It is listed in the registry of CGSE otherwise than before.
    Listed {
        /// How.
        listing: Listing,
        /// It is worth telling: not that it is not there yet, nor that nobody can tell.
        is_news: bool,
    },
    /// It is about to end.
    Stopping,
    /// What it does now takes so much longer, from now.
    ExtendTimeout(Duration),
}

/// How it gets ready.
#[derive(Debug)]
enum Readiness {
    /// Somebody says so by [`Vigil::ready`].
    Outside,
    /// It will say so.
    Told,
    /// Then.
    At(Instant),
    /// When it answers.
    Trial(Trial),
    /// It is.
    Reached,
}

/// How its health is seen.
#[derive(Debug)]
enum Watch {
    /// It is not: not yet, not any more, or never.
    Nothing,
    Trial(Trial),
    Keepalive(Keepalive),
}

/// Watches over one run. Dropped, it watches no more, and what it has started is killed.
#[derive(Debug)]
pub struct Vigil {
    spec: Arc<Spec>,
    questions: Questions,
    listener: Option<Listener>,
    follower: Option<Follower>,
    readiness: Readiness,
    /// What the last try said why it is not ready.
    refusal: Option<String>,
    reloading: bool,
    watch: Watch,
    health: Health,
    failures: u32,
    status: Option<String>,
    /// It said that it is about to end: it must have done so by then.
    gone_by: Option<Instant>,
    punctual: Punctual,
    unhealthy: bool,
    signs: VecDeque<Sign>,
}

impl Vigil {
    /// Begins to watch. Readiness is tried at once.
    pub fn begin(run: WatchedRun) -> Self {
        Self::begin_where(run, false)
    }

    /// `was_listed` where it has been listed as passing in the registry of CGSE before.
    fn begin_where(run: WatchedRun, was_listed: bool) -> Self {
        let WatchedRun { spec, launch, uuid, main, notify, shared } = run;
        let members = Members { forest: shared.forest.clone(), uuid: uuid.into(), first: main, main };
        let follower = Follower::of(&spec, &shared, was_listed);
        let questions = Questions::new(spec.clone(), launch, main.pid, shared);
        let now = Instant::now();
        let readiness = match spec.ready.as_ref().map(|ready| &ready.source) {
            None => Readiness::Outside,
            Some(ReadySource::Notify) => Readiness::Told,
            Some(ReadySource::Delay(delay)) => Readiness::At(now + *delay),
            Some(ReadySource::Probe(tries)) => Readiness::Trial(Trial::new(tries.clone(), now)),
        };
        Self {
            spec,
            questions,
            listener: notify.map(|socket| Listener::new(socket, members)),
            follower,
            readiness,
            refusal: None,
            reloading: false,
            watch: Watch::Nothing,
            health: Health::Unknown,
            failures: 0,
            status: None,
            gone_by: None,
            punctual: Punctual::default(),
            unhealthy: false,
            signs: VecDeque::new(),
        }
    }

    /// Goes on watching over a run that was ready when an earlier daemon watched over it.
    pub fn resume(run: WatchedRun) -> Self {
        let was_listed = follower::is_ready_by_it(&run.spec);
        let mut vigil = Self::begin_where(run, was_listed);
        // Whether it is well is asked after an interval: at once, a thousand would be asked together.
        vigil.reach(true);
        vigil
    }

    /// Begins to watch a run that nobody has watched so far, and whose readiness is another's matter: the definition had neither `ready` nor `health` when
    /// it was started.
    pub fn take_over(run: WatchedRun, is_ready: bool) -> Self {
        let spec = Arc::new(Spec { ready: None, ..(*run.spec).clone() });
        let mut vigil = Self::begin(WatchedRun { spec, ..run });
        if is_ready {
            vigil.ready();
        }
        vigil
    }

    /// Watches its health as another definition says, from now on. All else stays as it was when the run began: what it was told in its environment, how
    /// a program that asks after it is run, and how it gets ready.
    pub fn redefine(&mut self, spec: &Spec) {
        let kept = &self.spec;
        let tells_itself = |spec: &Spec| matches!(spec.health, Some(spec::probe::Health { source: HealthSource::Notify(_), .. }));
        let health = if tells_itself(kept) || tells_itself(spec) { kept.health.clone() } else { spec.health.clone() };
        let is_other = health != kept.health;
        let is_other_service = spec.cgse_service_type != kept.cgse_service_type;
        let cgse_service_type = spec.cgse_service_type.clone();
        self.spec = Arc::new(Spec { health, cgse_service_type, stop_timeout: spec.stop_timeout, ..(**kept).clone() });
        if is_other_service {
            self.follower = Follower::of(&self.spec, self.questions.shared(), false);
        }
        self.questions.set_spec(self.spec.clone());
        if is_other {
            (self.failures, self.health) = (0, Health::Unknown);
            self.signs.retain(|sign| !matches!(sign, Sign::Health(_)));
            if matches!(self.readiness, Readiness::Reached) {
                self.reach(false);
            }
        }
    }

    /// What is known of its health; `None` where that is not watched.
    pub fn health(&self) -> Option<Health> {
        self.spec.health.as_ref().map(|_| self.health)
    }

    /// Tells that it is ready, where the definition leaves that to others. From here on its health is watched.
    pub fn ready(&mut self) {
        if matches!(self.readiness, Readiness::Outside) {
            // Nobody has seen it answer yet, so it gets an interval to come so far.
            self.reach(true);
        }
    }

    /// What the last try said why it is not ready.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// A descriptor of the socket at which it says what it has to say, for a later daemon; that socket's file stays.
    pub fn hand_over(&mut self) -> Option<OwnedFd> {
        self.listener.as_mut()?.hand_over().ok()
    }

    /// It is being ended: nobody asks any more how it is. What it says of itself is still heard.
    pub fn stop_asking(&mut self) {
        (self.readiness, self.watch, self.gone_by, self.follower) = (Readiness::Reached, Watch::Nothing, None, None);
    }

    /// The next sign. Nothing is lost when the future is dropped; it waits for ever when there is nothing to watch.
    pub async fn next(&mut self) -> Sign {
        loop {
            if let Some(sign) = self.signs.pop_front() {
                return sign;
            }
            tokio::select! {
                biased; // what was said before a time-out counts before the time-out
                heard = async { match &mut self.listener { Some(listener) => listener.next().await, None => std::future::pending().await } } => self.hear(heard),
                () = at(&mut self.punctual, self.gone_by) => self.overstayed(),
                ready = tried(&mut self.readiness, &self.questions) => match ready {
                    Ok(()) => { self.signs.push_back(Sign::Ready); self.reach(false); }
                    Err(refusal) => self.refusal = Some(refusal),
                },
                listing = async { match &mut self.follower { Some(follower) => follower.next().await, None => std::future::pending().await } } => match listing {
                    Some(listing) => self.take_listing(listing),
                    None => self.follower = None,
                },
                seen = watched(&mut self.watch, &self.questions) => match seen {
                    Seen::Tried(result) => self.take_try(result),
                    Seen::Due => self.keepalive_due(),
                },
            }
        }
    }

    /// What has been said so far, without waiting. For when the main has ended: it may have named another one and left.
    pub fn drain(&mut self) -> Vec<Sign> {
        for _ in 0..listener::MOST_AT_ONCE {
            match self.listener.as_mut().and_then(Listener::next_now) {
                Some(Some(heard)) => self.hear(heard),
                Some(None) => {}
                None => break,
            }
        }
        self.signs.drain(..).collect()
    }

    fn hear(&mut self, heard: Heard) {
        let Heard { message, main } = heard;
        if let Some(main) = main {
            if let Some(listener) = &mut self.listener {
                listener.set_main(main);
            }
            self.questions.set_main(main.pid);
            self.signs.push_back(Sign::MainPid(main));
        }
        if let Some(more) = message.extend {
            self.gone_by = self.gone_by.map(|_| Instant::now() + more);
            self.signs.push_back(Sign::ExtendTimeout(more));
        }
        let is_ready = matches!(self.readiness, Readiness::Reached);
        if message.reloading && is_ready && !self.reloading {
            self.reloading = true;
            self.signs.push_back(Sign::Reloading);
        }
        if message.ready && is_ready && self.reloading && !message.reloading {
            self.reloading = false;
            self.signs.push_back(Sign::Ready);
        }
        if message.ready && matches!(self.readiness, Readiness::Told) {
            self.signs.push_back(Sign::Ready);
            self.reach(false);
        }
        if message.stopping && self.gone_by.is_none() {
            // It closes its doors now, which is no illness; but it must not take for ever.
            self.watch = Watch::Nothing;
            self.gone_by = Some(Instant::now() + self.spec.stop_timeout);
            self.signs.push_back(Sign::Stopping);
        }
        if let Some(status) = message.status
            && self.status.as_ref() != Some(&status)
        {
            self.status = Some(status.clone());
            self.signs.push_back(Sign::Status(status));
        }
        if let Watch::Keepalive(keepalive) = &mut self.watch {
            if let Some(interval) = message.watchdog {
                keepalive.set_interval(interval, Instant::now());
            }
            if message.alive {
                keepalive.alive(Instant::now());
                self.set_health(Health::Passing);
            }
        }
        if message.trigger {
            self.is_ill("it says itself that something is wrong with it (WATCHDOG=trigger)".to_owned());
        }
    }

    /// It is ready; its health is watched from now on. The first try is made after one interval if it is `patient`, else at once.
    fn reach(&mut self, patient: bool) {
        self.readiness = Readiness::Reached;
        self.refusal = None;
        let now = Instant::now();
        self.watch = match self.spec.health.as_ref().map(|health| &health.source) {
            _ if self.unhealthy || self.gone_by.is_some() => Watch::Nothing,
            None => Watch::Nothing,
            Some(HealthSource::Notify(interval)) => Watch::Keepalive(Keepalive::new(*interval, now)),
            Some(HealthSource::Probe(tries)) => {
                let first = if patient { now + tries.interval } else { now };
                Watch::Trial(Trial::new(tries.clone(), first))
            }
        };
    }

    fn take_try(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.set_health(Health::Passing);
            }
            Err(message) => {
                self.failures = self.failures.saturating_add(1);
                self.set_health(Health::Failing(self.failures));
                if self.failures >= self.spec.health.as_ref().map_or(1, |health| health.failures) {
                    let times = if self.failures == 1 { "a try".to_owned() } else { format!("{} tries in a row", self.failures) };
                    self.is_ill(format!("{times} to see whether it is well failed: {message}"));
                }
            }
        }
    }

    fn take_listing(&mut self, listing: Listing) {
        let Some(follower) = &mut self.follower else { return };
        // Where the definition has a health check of its own, that one decides. One that is not ready has its time-out, and one that is about to end leaves the
        // registry as it should.
        let decides = self.spec.health.is_none() && matches!(self.readiness, Readiness::Reached) && self.gone_by.is_none();
        let ill = listing.ill.clone().filter(|_| decides && !self.unhealthy);
        self.signs.extend(follower.take(listing, ill.as_deref()));
        if let Some(message) = ill {
            self.is_ill(message);
        }
    }

    fn keepalive_due(&mut self) {
        let Watch::Keepalive(keepalive) = &mut self.watch else { return };
        let behind = self.listener.as_ref().is_some_and(Listener::is_behind);
        if keepalive.is_missed(Instant::now(), behind) {
            let interval = keepalive.interval();
            self.set_health(Health::Failing(1));
            self.is_ill(format!("it did not say within {} s that it is alive (WATCHDOG=1)", interval.as_secs_f64()));
        }
    }

    fn overstayed(&mut self) {
        self.gone_by = None;
        self.is_ill(format!("it said that it is about to end, and has not within {} s", self.spec.stop_timeout.as_secs_f64()));
    }

    fn set_health(&mut self, health: Health) {
        if self.health != health {
            self.health = health;
            self.signs.push_back(Sign::Health(health));
        }
    }

    fn is_ill(&mut self, message: String) {
        self.watch = Watch::Nothing;
        if !self.unhealthy {
            self.unhealthy = true;
            self.signs.push_back(Sign::Unhealthy { message });
        }
    }
}

/// What there is to see of a run's health.
enum Seen {
    Tried(Result<(), String>),
    /// A keep-alive is due, and has not come.
    Due,
}

async fn at(punctual: &mut Punctual, time: Option<Instant>) {
    match time {
        Some(time) => punctual.until(time).await,
        None => std::future::pending().await,
    }
}

async fn tried(readiness: &mut Readiness, questions: &Questions) -> Result<(), String> {
    match readiness {
        Readiness::At(time) => {
            tokio::time::sleep_until(*time).await;
            Ok(())
        }
        Readiness::Trial(trial) => trial.next(questions).await,
        Readiness::Outside | Readiness::Told | Readiness::Reached => std::future::pending().await,
    }
}

async fn watched(watch: &mut Watch, questions: &Questions) -> Seen {
    match watch {
        Watch::Trial(trial) => Seen::Tried(trial.next(questions).await),
        Watch::Keepalive(keepalive) => {
            keepalive.due().await;
            Seen::Due
        }
        Watch::Nothing => std::future::pending().await,
    }
}
