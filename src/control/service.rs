//! One request frame to one reply frame: decode → authorise → answer → encode.

use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use crate::output::Outputs;
use crate::protocol::codec::{self, Rejected, Request};
use crate::protocol::envelope::RequestId;
use crate::protocol::event::Event;
use crate::protocol::reply::{Capabilities, PastRun, Replay};
use crate::protocol::{CommandName, Name, WireError};
use crate::status::Monitor;
use crate::supervisor::SupervisorHandle;

use super::authorize::{Role, authorize};
use super::refusals;

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
    /// The runs that have ended, of one name or of all, newest first, at most `limit`.
    fn history(&self, name: Option<&Name>, limit: usize) -> Vec<Arc<PastRun>>;
}

/// How many questions about the whole host may be worked on at a time: each reads all of `/proc` on a thread of its own.
const HOST_QUESTIONS: usize = 4;

/// How many questions for logs may be worked on at a time: each reads at most a MiB, and may unpack as much.
const LOG_QUESTIONS: usize = 4;

/// Everything a command may need.
pub struct Service {
    pub(super) supervisor: SupervisorHandle,
    pub(super) monitor: Arc<Monitor>,
    pub(super) identity: Identity,
    pub(super) host_questions: Arc<Semaphore>,
    pub(super) records: Arc<dyn Records>,
    pub(super) outputs: Outputs,
    pub(super) log_questions: Arc<Semaphore>,
    max_request_bytes: usize,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What a command answers: its result, already encoded, or a refusal.
pub(super) type Answer = Result<Vec<u8>, WireError>;

impl Service {
    /// A service over these.
    pub fn new(
        supervisor: SupervisorHandle,
        monitor: Arc<Monitor>,
        identity: Identity,
        max_request_bytes: usize,
        observer: Arc<dyn Observer>,
        records: Arc<dyn Records>,
        outputs: Outputs,
    ) -> Self {
        let host_questions = Arc::new(Semaphore::new(HOST_QUESTIONS));
        let log_questions = Arc::new(Semaphore::new(LOG_QUESTIONS));
        Self { supervisor, monitor, identity, host_questions, records, outputs, log_questions, max_request_bytes, observer }
    }

    /// Answers one frame. Always: whatever it holds, and even when answering it fails.
    ///
    /// The frame is given up as soon as it is decoded: a request that waits does not hold on to it.
    pub async fn answer(&self, frame: impl Deref<Target = [u8]> + Send, role: Role) -> Vec<u8> {
        let began = Instant::now();
        if frame.len() > self.max_request_bytes {
            let message = format!("the request has {} bytes, at most {} are taken", frame.len(), self.max_request_bytes);
            return self.refuse(began, None, None, &WireError::bad_request(message));
        }
        let decoded = codec::decode_request(&frame);
        drop(frame);
        let Request { request_id, command } = match decoded {
            Ok(request) => request,
            Err(Rejected { request_id, command, error }) => return self.refuse(began, command, request_id.as_ref(), &error),
        };
        let name = command.name();
        if let Err(error) = authorize(role, name) {
            return self.refuse(began, Some(name), request_id.as_ref(), &error);
        }
        let answer = AssertUnwindSafe(self.carry_out(command, request_id.as_ref())).catch_unwind().await;
        match answer.unwrap_or_else(|_| Err(refusals::internal("the command failed half-way"))) {
            Ok(reply) => {
                self.note(began, Some(name), request_id.as_ref(), None);
                reply
            }
            Err(error) => self.refuse(began, Some(name), request_id.as_ref(), &error),
        }
    }

    /// The reply to a frame that is no request at all: not exactly one frame behind the delimiter.
    pub fn answer_malformed(&self, message: &str) -> Vec<u8> {
        self.refuse(Instant::now(), None, None, &WireError::bad_request(message))
    }

    /// The reply when too many requests are in work: under the request's id, so that the client knows which one to send again.
    pub fn answer_busy(&self, frame: &[u8]) -> Vec<u8> {
        let began = Instant::now();
        let message = "too many requests are in work at this endpoint; try again";
        let error = WireError::new(crate::protocol::ErrorCode::Busy, message);
        if frame.len() > self.max_request_bytes {
            return self.refuse(began, None, None, &error);
        }
        match codec::decode_request(frame) {
            Ok(Request { request_id, command }) => self.refuse(began, Some(command.name()), request_id.as_ref(), &error),
            Err(Rejected { request_id, command, .. }) => self.refuse(began, command, request_id.as_ref(), &error),
        }
    }

    fn note(&self, began: Instant, command: Option<CommandName>, request_id: Option<&RequestId>, error: Option<&WireError>) {
        self.observer.served(&Served { command, error, duration: began.elapsed(), request_id });
    }

    fn refuse(&self, began: Instant, command: Option<CommandName>, request_id: Option<&RequestId>, error: &WireError) -> Vec<u8> {
        self.note(began, command, request_id, Some(error));
        codec::encode_error(error, request_id).unwrap_or_else(|error| {
            // Texts and numbers always encode; were they not to, an empty frame is still exactly one reply.
            tracing::error!(%error, "cannot encode a refusal");
            Vec::new()
        })
    }
}
