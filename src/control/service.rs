//! One request frame to one reply frame: decode → authorise → answer → encode.

use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::access::Programs;
use crate::host::Host;
use crate::output::Outputs;
use crate::protocol::codec::{self, Rejected, Request};
use crate::protocol::envelope::RequestId;
use crate::protocol::event::Event;
use crate::protocol::reply::{AuditEntry, Capabilities, PastRun, Replay};
use crate::protocol::request::Command;
use crate::protocol::{CommandName, ErrorCode, Name, WireError};
use crate::status::Monitor;
use crate::supervisor::SupervisorHandle;
use crate::sys::limits::open_limit;

use super::audit::{Audited, Auditor, Refusals};
use super::authorize::authorize;
use super::caller::Caller;
use super::once::{Came, Journal, Known, Once};
use super::reach;
use super::refusals;
use super::repeats::{Client, Key};
use super::upkeep::{Definitions, Upkeep};

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version-1 UUID of this start.
    pub uuid: String,
    /// On the monotonic clock.
    pub started: Instant,
    /// Unix seconds.
    pub started_at: f64,
    /// The host's name.
    pub hostname: String,
    /// Where requests are taken.
    pub endpoints: Vec<String>,
    /// Where they are taken from clients of CGSE's control servers: commands to a device, and to the server itself; or none.
    pub cgse_endpoints: Vec<String>,
    /// Where events are published.
    pub events_endpoints: Vec<String>,
    /// Where metrics are served.
    pub metrics_endpoint: Option<String>,
    /// What it can do here.
    pub capabilities: Capabilities,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// `None` where it could not be read.
    pub command: Option<CommandName>,
    /// `None` when it was done.
    pub error: Option<&'a WireError>,
    /// From the frame's arrival to its reply.
    pub duration: Duration,
    /// What the client calls it.
    pub request_id: Option<&'a RequestId>,
}

/// Who is told of each answer. Called on the runtime's threads: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// Takes note.
    fn served(&self, served: &Served<'_>);
}

/// What has happened, as far as it is remembered. Asked on the runtime's threads: it must not block.
pub trait Records: Send + Sync + 'static {
    /// The events from a place in their sequence on, at most `limit`.
    fn events(&self, since: u64, daemon: Option<&str>, limit: usize) -> Replay<Arc<Event>>;
    /// The runs that have ended, of one name or of all, newest first, at most `limit`. Resolves once a later daemon will tell the same of them, or when
    /// that cannot be had soon.
    fn history(&self, name: Option<&Name>, limit: usize) -> BoxFuture<'static, Vec<Arc<PastRun>>>;
}

/// Whom a service tells, and asks for what only the daemon knows.
#[derive(Clone)]
pub struct Neighbours {
    /// Told of each answer.
    pub observer: Arc<dyn Observer>,
    /// Told of each command that was to change something, and asked for them.
    pub auditor: Arc<dyn Auditor>,
    /// Asked for what has happened.
    pub records: Arc<dyn Records>,
    /// Asked for what concerns the daemon itself.
    pub upkeep: Arc<dyn Upkeep>,
    /// Keeps what is registered at run time.
    pub definitions: Arc<dyn Definitions>,
    /// Keeps what was asked, and tells when all that was done is kept.
    pub journal: Arc<dyn Journal>,
}

/// A command that takes longer is in the audit trail before it is done, too.
const SOON: Duration = Duration::from_millis(250);
/// Its outcome there.
const BEGUN: &str = "begun";

/// How many questions about the whole host may be worked on at a time: each reads all of `/proc` on a thread of its own.
const HOST_QUESTIONS: usize = 4;

/// How many descriptors may stay open between questions about the whole host, if the limit on them allows: some KiB of the kernel's memory each.
const HOST_DESCRIPTORS: u64 = 4096;

/// An eighth of what the daemon may have open at most: sub-processes and clients need the rest.
fn kept_descriptors() -> usize {
    let most = open_limit().map_or(0, |limit| HOST_DESCRIPTORS.min(limit / 8));
    usize::try_from(most).unwrap_or(0)
}

/// How many questions for logs may be worked on at a time: each reads at most a MiB, and may unpack as much.
const LOG_QUESTIONS: usize = 4;

/// How many questions for the audit trail may be worked on at a time: each reads up to all of it from the disk.
const AUDIT_QUESTIONS: usize = 2;

/// Everything a command may need.
pub struct Service {
    pub(super) supervisor: SupervisorHandle,
    pub(super) monitor: Arc<Monitor>,
    pub(super) identity: Identity,
    pub(super) host: Arc<Host>,
    pub(super) host_questions: Arc<Semaphore>,
    pub(super) neighbours: Neighbours,
    pub(super) outputs: Outputs,
    pub(super) log_questions: Arc<Semaphore>,
    pub(super) audit_questions: Arc<Semaphore>,
    pub(super) bounds: Bounds,
    refusals: Refusals,
    once: Once,
}

/// What requests and answers may be.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Which programs may be registered by TCP; `None`: any.
    pub allow_programs: Option<Programs>,
    /// The largest request.
    pub max_request_bytes: usize,
    /// Bytes of a log that are looked at for one answer.
    pub log_reply_bytes: u32,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What a command answers: its result, already encoded, or a refusal.
pub type Answer = Result<Vec<u8>, WireError>;

impl Service {
    /// A service over these; `known` is what an earlier daemon was asked, the oldest first.
    pub fn new(
        supervisor: SupervisorHandle,
        monitor: Arc<Monitor>,
        identity: Identity,
        bounds: Bounds,
        neighbours: Neighbours,
        outputs: Outputs,
        known: Vec<Known>,
    ) -> Self {
        let host = Arc::new(Host::new(kept_descriptors()));
        let host_questions = Arc::new(Semaphore::new(HOST_QUESTIONS));
        let log_questions = Arc::new(Semaphore::new(LOG_QUESTIONS));
        let audit_questions = Arc::new(Semaphore::new(AUDIT_QUESTIONS));
        let once = Once::new(neighbours.journal.clone(), known);
        Self {
            supervisor,
            monitor,
            identity,
            host,
            host_questions,
            neighbours,
            outputs,
            log_questions,
            audit_questions,
            bounds,
            refusals: Refusals::default(),
            once,
        }
    }

    /// Answers one frame. Always: whatever it holds, and even when answering it fails.
    ///
    /// The frame is given up as soon as it is decoded: a request that waits does not hold on to it.
    pub async fn answer(&self, frame: impl Deref<Target = [u8]> + Send, caller: Caller) -> Vec<u8> {
        let mut asked = Asked::now(&caller);
        if frame.len() > self.bounds.max_request_bytes {
            let message = format!("the request has {} bytes, at most {} are taken", frame.len(), self.bounds.max_request_bytes);
            return self.refuse(asked, &WireError::bad_request(message));
        }
        let decoded = codec::decode_request(&frame);
        drop(frame);
        let Request { request_id, client, command } = match asked.decoded(decoded) {
            Ok(request) => request,
            Err((request_id, error)) => return self.refuse(Asked { request_id: request_id.as_ref(), ..asked }, &error),
        };
        let mut asked = Asked { request_id: request_id.as_ref(), ..asked };
        let may = authorize(caller.role, command.name()).and_then(|()| reach::within(&caller.reach, &command, &self.supervisor));
        let may = may.and_then(|()| match &self.bounds.allow_programs {
            Some(programs) if caller.endpoint.starts_with("tcp://") => programs.allow(&command),
            Some(_) | None => Ok(()),
        });
        if let Err(error) = may {
            return self.refuse(asked, &error);
        }
        let mut work = std::pin::pin!(async {
            match known_by(&caller, client, request_id.as_ref(), &command) {
                None => {
                    let undoes = undoes_something(command.name());
                    let answer = self.do_it(command, request_id.as_ref()).await;
                    if undoes {
                        // Whoever was told that it is stopped must not find it running again, because the daemon was killed right behind its answer.
                        self.neighbours.journal.settled().await;
                    }
                    Came::Done(answer)
                }
                Some(key) => {
                    let work = self.do_it(command.clone(), request_id.as_ref());
                    self.once.answer(key, &command, work).await
                }
            }
        });
        let came = match tokio::time::timeout(SOON, &mut work).await {
            Ok(came) => came,
            Err(_) => {
                // Should the daemon end before it is done, it is known who had begun it.
                if let Some(audited) = &asked.audited {
                    let entry = audited.clone().entry(&caller, request_id.as_ref().map(ToString::to_string), None);
                    self.neighbours.auditor.audit(AuditEntry { outcome: BEGUN.to_owned(), ..entry });
                }
                work.await
            }
        };
        let answer = match came {
            Came::Done(answer) => answer,
            Came::Before(answer) => {
                // What changed something was the first one, and is kept as such.
                asked.audited = None;
                answer
            }
        };
        match answer {
            Ok(reply) => {
                self.note(asked, None);
                reply
            }
            Err(error) => self.refuse(asked, &error),
        }
    }

    async fn do_it(&self, command: Command, request_id: Option<&RequestId>) -> Answer {
        let answer = AssertUnwindSafe(self.carry_out(command, request_id)).catch_unwind().await;
        answer.unwrap_or_else(|_| Err(refusals::internal("the command failed half-way")))
    }

    /// The reply to a frame that is no request at all: not exactly one frame behind the delimiter.
    pub fn answer_malformed(&self, message: &str, caller: &Caller) -> Vec<u8> {
        self.refuse(Asked::now(caller), &WireError::bad_request(message))
    }

    /// The reply when too many requests are in work.
    pub fn answer_busy(&self, frame: &[u8], caller: &Caller) -> Vec<u8> {
        let message = "too many requests are in work at this endpoint; try again";
        self.answer_unread(frame, caller, &WireError::new(ErrorCode::Busy, message))
    }

    /// The reply when a client asks faster than it may.
    pub fn answer_too_fast(&self, frame: &[u8], caller: &Caller) -> Vec<u8> {
        let message = "you ask faster than limits.requests_per_second of the daemon's configuration allows; try again a little later";
        self.answer_unread(frame, caller, &WireError::new(ErrorCode::Busy, message))
    }

    /// The reply to a client that got in by a key, and is known no more.
    pub fn answer_unknown(&self, frame: &[u8], caller: &Caller) -> Vec<u8> {
        let message = "your key is known here no more; whoever looks after the daemon can enter it in [[control.client]]";
        self.answer_unread(frame, caller, &WireError::new(ErrorCode::PermissionDenied, message))
    }

    /// A refusal of a request whatever it holds: under its id, so that the client knows which one it was.
    fn answer_unread(&self, frame: &[u8], caller: &Caller, error: &WireError) -> Vec<u8> {
        let mut asked = Asked::now(caller);
        if frame.len() > self.bounds.max_request_bytes {
            return self.refuse(asked, error);
        }
        let request_id = match asked.decoded(codec::decode_request(frame)) {
            Ok(Request { request_id, .. }) | Err((request_id, _)) => request_id,
        };
        self.refuse(Asked { request_id: request_id.as_ref(), ..asked }, error)
    }

    fn note(&self, asked: Asked<'_>, error: Option<&WireError>) {
        let Asked { began, caller, command, audited, request_id } = asked;
        if let Some(audited) = audited {
            let entry = audited.entry(caller, request_id.map(ToString::to_string), error);
            let kept = if error.is_some() { self.refusals.keep(entry, Instant::now()) } else { Some(entry) };
            kept.into_iter().for_each(|entry| self.neighbours.auditor.audit(entry));
        }
        self.neighbours.observer.served(&Served { command, error, duration: began.elapsed(), request_id });
    }

    fn refuse(&self, asked: Asked<'_>, error: &WireError) -> Vec<u8> {
        let request_id = asked.request_id;
        self.note(asked, Some(error));
        codec::encode_error(error, request_id).unwrap_or_else(|error| {
            // Texts and numbers always encode; were they not to, an empty frame is still exactly one reply.
            tracing::error!(%error, "cannot encode a refusal");
            Vec::new()
        })
    }
}

/// Whether a later daemon could take back what this one has done and answered, if it did not find that written down. A start is written down before it
/// is made, and a signal is no state.
const fn undoes_something(command: CommandName) -> bool {
    match command {
        CommandName::Register
        | CommandName::Unregister
        | CommandName::Quit
        | CommandName::Reap
        | CommandName::Restart
        | CommandName::Reload => true,
        CommandName::Execute
        | CommandName::Signal
        | CommandName::Upgrade
        | CommandName::Shutdown
        | CommandName::Ping
        | CommandName::Info
        | CommandName::List
        | CommandName::Status
        | CommandName::Zombies
        | CommandName::Processes
        | CommandName::ProcessInfo
        | CommandName::IsProcessRunning
        | CommandName::IsRunning
        | CommandName::Exists
        | CommandName::Returncode
        | CommandName::Children
        | CommandName::Events
        | CommandName::History
        | CommandName::Audit
        | CommandName::Logs => false,
    }
}

/// What a request is known again by, where it may change something and its client can be told from all others.
fn known_by(caller: &Caller, client: Option<Name>, request_id: Option<&RequestId>, command: &Command) -> Option<Key> {
    if !command.name().changes_something() {
        return None;
    }
    let client = match (client, &caller.identity) {
        (Some(name), _) => Client::Named(name),
        (None, Some(identity)) => Client::Connection { endpoint: caller.endpoint.clone(), identity: identity.clone() },
        (None, None) => return None,
    };
    Some(Key { role: caller.role, principal: caller.client.clone(), client, request_id: request_id?.clone() })
}

/// A request on its way to its reply.
struct Asked<'a> {
    began: Instant,
    caller: &'a Caller,
    command: Option<CommandName>,
    /// Where it may change something.
    audited: Option<Audited>,
    request_id: Option<&'a RequestId>,
}

impl<'a> Asked<'a> {
    fn now(caller: &'a Caller) -> Self {
        Self { began: Instant::now(), caller, command: None, audited: None, request_id: None }
    }

    /// Takes note of what the frame holds.
    fn decoded(&mut self, decoded: Result<Request, Rejected>) -> Result<Request, (Option<RequestId>, WireError)> {
        match decoded {
            Ok(request) => {
                (self.command, self.audited) = (Some(request.command.name()), Audited::of(&request.command));
                Ok(request)
            }
            Err(Rejected { request_id, command, error }) => {
                (self.command, self.audited) = (command, Audited::of_word(command));
                Err((request_id, error))
            }
        }
    }
}
