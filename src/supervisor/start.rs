//! Starting some of them with all that they require.
//!
//! Whom a start needs besides is found once, at its beginning; then each is told to start as soon as those before it have begun to. What a start
//! waits for beyond that is the matter of its gate: so what waits is `starting`, can be quit, and costs no task of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Either, join_all, select};
use futures_util::stream::FuturesUnordered;

use crate::protocol::reply::{Ended, Executed};
use crate::protocol::{EndedBy, Name, Origin, StateName, Wanted};
use crate::subprocess::gate::Closed;
use crate::subprocess::machine::{End, KILL_WAIT};
use crate::subprocess::{CommandError, Launch, Published, SubProcessHandle};

use super::SupervisorHandle;
use super::gate::{Standing, standing};
use super::order::{Link, Plan};

/// Why a start did not come to what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was not started.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It was started, and did not get ready.
    #[error("it did not get ready, and is {state}")]
    NotReady {
        /// Where it is now.
        state: StateName,
        /// How that run ended; `None` when it was replaced already.
        end: Option<End>,
        /// Exit code of that run, −N when signal N ended it.
        returncode: Option<i32>,
        /// What there is to say of it in words.
        message: Option<String>,
    },
}

/// How one is to be started.
#[derive(Clone, Debug)]
pub(super) enum How {
    Execute {
        launch: Launch,
        origin: Origin,
    },
    /// It was ended for this with others.
    AfterAll,
    Restart {
        launch: Launch,
        timeout: Option<Duration>,
    },
}

/// What came of each that was to start.
pub type Starts = BTreeMap<Name, Result<Executed, CommandError>>;

type Answer = Result<Executed, CommandError>;

/// How far a start is when those that come after it may begin.
enum Begun {
    /// It is on its way.
    Under(BoxFuture<'static, Answer>),
    /// It is over.
    Over(Answer),
}

/// Whether one that was not ready before is on its way to that, or there.
fn has_begun(state: StateName) -> bool {
    match state {
        StateName::Starting | StateName::Running => true,
        StateName::Stopped | StateName::Stopping | StateName::Backoff | StateName::Exited | StateName::Fatal | StateName::Lost => false,
    }
}

/// Whether one that is required must be started for that.
fn must_be_started(published: &Published) -> bool {
    match standing(published) {
        Standing::Ready => false,
        Standing::Coming => published.state == StateName::Stopping && published.wanted == Wanted::Down,
        Standing::Gone(_) => true,
    }
}

/// Starts one that others require.
async fn start_required(handle: SubProcessHandle) -> Answer {
    // One that is being quit is started once that is over. What outlives SIGKILL is not waited for.
    let patience = handle.published().spec.stop_timeout + 2 * KILL_WAIT;
    let mut seen = handle.subscribe();
    drop(tokio::time::timeout(patience, seen.wait_for(|published| published.state != StateName::Stopping)).await);
    handle.execute(Launch::default(), Origin::Required).await
}

/// Starts one, up to where those after it may begin.
async fn begin(handle: SubProcessHandle, answer: BoxFuture<'static, Answer>) -> (SubProcessHandle, Begun) {
    let mut seen = handle.subscribe();
    let begun = seen.wait_for(|published| has_begun(published.state));
    // The answer first: only when it is asked for is anything begun.
    let begun = match select(answer, Box::pin(begun)).await {
        Either::Left((answer, _)) => Begun::Over(answer),
        Either::Right((_, answer)) => Begun::Under(answer),
    };
    (handle, begun)
}

impl SupervisorHandle {
    /// Starts one, and what it requires; answers once its program was executed. Goes on when the caller does not wait for it.
    pub async fn execute(&self, handle: &SubProcessHandle, launch: Launch, origin: Origin) -> Answer {
        self.start_one(handle, How::Execute { launch, origin }).await
    }

    /// Ends one and starts it, and what it requires. What requires it is left alone.
    pub async fn restart(&self, handle: &SubProcessHandle, launch: Launch, timeout: Option<Duration>) -> Answer {
        self.start_one(handle, How::Restart { launch, timeout }).await
    }

    async fn start_one(&self, handle: &SubProcessHandle, how: How) -> Answer {
        let starts = self.start(vec![(handle.clone(), how)]).await;
        starts.into_values().next().unwrap_or(Err(CommandError::Gone))
    }

    /// Starts these, and what they require, each after those that it is after.
    pub async fn execute_all(&self, handles: Vec<SubProcessHandle>, origin: Origin) -> Starts {
        self.start(handles.into_iter().map(|handle| (handle, How::Execute { launch: Launch::default(), origin })).collect()).await
    }

    /// Ends all of these in order, and then starts them in order, and what they require. What requires them and is none of them is left alone.
    pub async fn restart_all(&self, handles: Vec<SubProcessHandle>, timeout: Option<Duration>) -> Starts {
        let supervisor = self.clone();
        let work = async move {
            let restarting = Restarting::of(&supervisor, &handles);
            announce(&handles).await;
            let way = move |handle: SubProcessHandle| -> BoxFuture<'static, Result<Ended, CommandError>> {
                Box::pin(async move { handle.end_to_start(timeout).await })
            };
            let ends = supervisor.clone().carry_out_end(handles.clone(), Vec::new(), way).await;
            let mut starts = Starts::new();
            let mut ready = Vec::new();
            for handle in handles {
                match ends.get(handle.name()) {
                    Some(Err(_)) | None => {}
                    Some(Ok(_)) => ready.push((handle, How::AfterAll)),
                }
            }
            for (name, end) in ends {
                if let Err(error) = end {
                    starts.insert(name, Err(error));
                }
            }
            starts.extend(supervisor.clone().carry_out_start(ready).await);
            drop(restarting);
            starts
        };
        tokio::spawn(work).await.unwrap_or_default()
    }

    async fn start(&self, asked: Vec<(SubProcessHandle, How)>) -> Starts {
        // A task of its own: who asked may go away, and those that wait for their turn must have it.
        tokio::spawn(self.clone().carry_out_start(asked)).await.unwrap_or_default()
    }

    pub(super) async fn carry_out_start(self, asked: Vec<(SubProcessHandle, How)>) -> Starts {
        let mut all: BTreeMap<Name, (SubProcessHandle, Option<How>)> =
            asked.into_iter().map(|(handle, how)| (handle.name().clone(), (handle, Some(how)))).collect();
        let asked: BTreeSet<Name> = all.keys().cloned().collect();
        let mut plan = {
            let registered = self.0.read();
            let needed = |name: &Name| registered.handles.get(name).is_some_and(|handle| must_be_started(&handle.published()));
            let pulled_in = registered.order.pulled_in(&asked, needed);
            all.extend(
                pulled_in.iter().filter_map(|name| registered.handles.get(name).map(|handle| (name.clone(), (handle.clone(), None)))),
            );
            Plan::start(&registered.order, &all.keys().cloned().collect())
        };
        let mut beginning = FuturesUnordered::new();
        let mut under_way = FuturesUnordered::new();
        let mut over: Vec<(SubProcessHandle, Answer)> = Vec::new();
        let mut starts = Starts::new();
        loop {
            for (handle, how) in plan.free().iter().filter_map(|name| all.remove(name)) {
                let starting = handle.clone();
                let answer: BoxFuture<'static, Answer> = match how {
                    _ if self.is_leaving() => Box::pin(async { Err(CommandError::Overtaken) }),
                    None => Box::pin(start_required(starting)),
                    Some(How::Execute { launch, origin }) => Box::pin(async move { starting.execute(launch, origin).await }),
                    Some(How::AfterAll) => Box::pin(async move { starting.start_after_all().await }),
                    Some(How::Restart { launch, timeout }) => Box::pin(async move { starting.restart(launch, timeout).await }),
                };
                beginning.push(begin(handle, answer));
            }
            tokio::select! {
                Some((handle, begun)) = beginning.next() => {
                    plan.done(handle.name());
                    match begun {
                        Begun::Over(answer) => over.push((handle, answer)),
                        Begun::Under(answer) => under_way.push(async move { (handle, answer.await) }),
                    }
                }
                Some(ended) = under_way.next() => over.push(ended),
                else => return starts,
            }
            for (handle, answer) in over.drain(..) {
                let answer = self.conclude(&handle, answer);
                if asked.contains(handle.name()) {
                    starts.insert(handle.name().clone(), answer);
                } else if let Err(error) = answer {
                    tracing::warn!(name = %handle.name(), %error, "what others require could not be started");
                }
            }
        }
    }

    /// What to answer. One whose requirement has ended for good does not try again by itself.
    fn conclude(&self, handle: &SubProcessHandle, answer: Answer) -> Answer {
        let closed = match &answer {
            Err(CommandError::Required(closed)) => Some(closed.clone()),
            // It was quit because of that, before it could find out itself.
            Err(CommandError::Overtaken) => self.missing_requirement(handle),
            Ok(_)
            | Err(
                CommandError::Gone
                | CommandError::Busy
                | CommandError::AlreadyRunning { .. }
                | CommandError::NotRunning
                | CommandError::SpawnFailed(_)
                | CommandError::Survivors(_)
                | CommandError::System(_),
            ) => None,
        };
        let Some(closed) = closed else { return answer };
        if handle.published().state != StateName::Stopped {
            let handle = handle.clone();
            tokio::spawn(async move { handle.quit_patiently(None, EndedBy::Required).await });
        }
        Err(CommandError::Required(closed))
    }

    /// One that it requires and that has ended for good.
    fn missing_requirement(&self, handle: &SubProcessHandle) -> Option<Closed> {
        let named = self.0.named_by(&handle.published().spec).into_iter();
        named.filter(|(link, _)| *link == Link::Requires).find_map(|(_, required)| match required {
            Ok(required) => match standing(&required.published()) {
                Standing::Gone(state) => Some(Closed { name: required.name().clone(), state }),
                Standing::Ready | Standing::Coming => None,
            },
            Err(name) => Some(Closed { name, state: StateName::Stopped }),
        })
    }

    /// Waits until a run that was just started is ready, or has done its work and ended with success.
    ///
    /// # Errors
    /// [`StartError::NotReady`]: that run has ended otherwise. The restart policy may be trying again.
    pub async fn ready(&self, handle: &SubProcessHandle, executed: Executed) -> Result<Executed, StartError> {
        let mut seen = handle.subscribe();
        loop {
            let published = seen.borrow_and_update().clone();
            let is_that_run = published.run.as_ref().is_some_and(|run| run.uuid == executed.uuid);
            let state = published.state;
            if !(is_that_run && matches!(state, StateName::Starting | StateName::Stopping)) {
                return match standing(&published) {
                    Standing::Ready if is_that_run => Ok(Executed { state, ..executed }),
                    Standing::Ready | Standing::Coming | Standing::Gone(_) => {
                        let end = published.end.filter(|_| is_that_run);
                        let returncode = published.returncode().filter(|_| is_that_run);
                        Err(StartError::NotReady { state, end, returncode, message: published.message.clone() })
                    }
                };
            }
            if seen.changed().await.is_err() {
                return Err(CommandError::Gone.into());
            }
        }
    }
}

/// Has it written down that these are going to be ended and started again, before the first of them is ended.
pub(super) async fn announce(handles: &[SubProcessHandle]) {
    join_all(handles.iter().map(SubProcessHandle::to_restart)).await;
}

/// These are quit only to be started again, for as long as this lives; then it is looked whether they were.
pub(super) struct Restarting {
    supervisor: SupervisorHandle,
    names: Vec<Name>,
}

impl Restarting {
    pub(super) fn of(supervisor: &SupervisorHandle, handles: &[SubProcessHandle]) -> Self {
        let names: Vec<Name> = handles.iter().map(|handle| handle.name().clone()).collect();
        let mut restarting = supervisor.0.restarting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for name in &names {
            *restarting.entry(name.clone()).or_default() += 1;
        }
        drop(restarting);
        Self { supervisor: supervisor.clone(), names }
    }
}

impl Drop for Restarting {
    fn drop(&mut self) {
        let inner = &self.supervisor.0;
        let mut restarting = inner.restarting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for name in &self.names {
            if let Some(count) = restarting.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    restarting.remove(name);
                }
            }
        }
        drop(restarting);
        self.names.iter().for_each(|name| inner.ends.note(name));
    }
}
