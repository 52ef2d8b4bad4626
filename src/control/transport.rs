//! One ROUTER socket as a task of the runtime.
//!
//! An unchanged REQ client works, and one slow command never holds up another client: each request becomes a future, is polled once where it stands
//! (most answers are ready then), and goes on beside the others if it has to wait. `ZMQ_FD` is edge-triggered: the socket is emptied before
//! waiting, and again after each send, because libzmq may take the signal of a new request while it sends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use crate::sys::readiness;

use super::caller::{self, Caller};
use super::dialect::{self, Dialect, MAX_SEQUENCE, Said, Shape};
use super::guard::{Guard, Rights, ServerKeys, Unknown};
use super::rate::Rates;
use super::service::Service;

/// Bounds of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request that is answered with more than a refusal.
    pub max_request_bytes: usize,
    /// Requests in work at a time; further ones are answered `busy`.
    pub in_work: usize,
    /// The same for one client, so that none takes all the room.
    pub in_work_of_one: usize,
    /// Replies that wait for one client to read them; further ones are lost to that client.
    pub unread_replies: u32,
    /// How long a client may take to greet.
    pub handshake_timeout: Duration,
    /// Requests of one client in a second, in the long run; further ones are answered `busy`.
    pub requests_per_second: Option<u32>,
}

impl Limits {
    /// What libzmq cuts a connection off for. Well above the largest request, so that one which is merely too large is answered.
    fn max_frame(&self) -> i64 {
        i64::try_from(self.max_request_bytes.saturating_mul(4).max(16 << 20)).unwrap_or(i64::MAX)
    }
}

/// Requests taken in a row before replies that became ready have their turn.
const BATCH: usize = 64;
/// How long an endpoint goes on answering once it is to close.
const FAREWELL: Duration = Duration::from_millis(100);
/// Between two questions whether a client under keys is there, in milliseconds. libzmq answers them by itself.
const HEARTBEAT: i32 = 3000;
/// How long replies that are on their way may take when the socket is closed.
pub(super) const LINGER: i32 = 500;

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {purpose} {endpoint}: {reason}")]
pub struct BindError {
    /// What it is for: [`TAKE_REQUESTS`] or [`PUBLISH`].
    pub purpose: &'static str,
    /// As the configuration says it.
    pub endpoint: String,
    /// Why, and what to do.
    pub reason: String,
}

/// What a control endpoint is for.
pub const TAKE_REQUESTS: &str = "take requests at";
/// What an events endpoint is for.
pub const PUBLISH: &str = "publish events at";

impl BindError {
    /// What libzmq says, in plain words.
    pub(super) fn new(purpose: &'static str, endpoint: &str, error: zmq::Error) -> Self {
        let reason = if error == zmq::Error::EADDRINUSE {
            "the address is in use; another daemon may be running".to_owned()
        } else if matches!(error, zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV) {
            "this host has no such address".to_owned()
        } else {
            error.to_string()
        };
        Self { purpose, endpoint: endpoint.to_owned(), reason }
    }
}

/// Calls libzmq until no signal interrupts it. Each child that ends is a signal, and under many of them even a call that does not wait meets one
/// (EINTR of zmq_msg_send(3), zmq_getsockopt(3)).
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            done => return done,
        }
    }
}

/// How long a peer may take to greet at endpoints that are bound from now on.
pub(super) fn set_handshake_timeout(socket: &zmq::Socket, timeout: Duration) -> zmq::Result<()> {
    socket.set_handshake_ivl(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
}

/// Binds a socket to one endpoint more; returns where that is, wildcards resolved.
pub(super) fn bind(socket: &zmq::Socket, endpoint: &str) -> zmq::Result<String> {
    // Only where it is asked for: an IPv4 address would be shown as one that is mapped into IPv6.
    socket.set_ipv6(endpoint.contains('['))?;
    socket.bind(endpoint)?;
    Ok(match socket.get_last_endpoint() {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(_)) | Err(_) => endpoint.to_owned(),
    })
}

/// How long an address may take to be free again once nobody listens there.
pub(super) const RELEASE: Duration = Duration::from_secs(2);
/// Between two looks whether it is.
pub(super) const RELEASE_LOOK: Duration = Duration::from_millis(5);

/// Does this until the address is free, or has not become so for long.
async fn retry<T>(mut bind: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    let began = tokio::time::Instant::now();
    loop {
        match bind() {
            Err(zmq::Error::EADDRINUSE) if began.elapsed() < RELEASE => tokio::time::sleep(RELEASE_LOOK).await,
            done => return done,
        }
    }
}

/// A bound endpoint that does not answer yet.
pub struct Bound {
    socket: zmq::Socket,
    /// Where it is, wildcards resolved.
    pub endpoint: String,
    limits: Limits,
    guard: Guard,
    dialect: Dialect,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Bound {
    /// Opens an endpoint.
    pub fn bind(context: &zmq::Context, endpoint: &str, limits: Limits, guard: Guard, dialect: Dialect) -> Result<Self, BindError> {
        let open = || -> zmq::Result<(zmq::Socket, String)> {
            let socket = context.socket(zmq::ROUTER)?;
            socket.set_linger(LINGER)?;
            socket.set_maxmsgsize(limits.max_frame())?;
            socket.set_sndhwm(i32::try_from(limits.unread_replies).unwrap_or(i32::MAX))?;
            set_handshake_timeout(&socket, limits.handshake_timeout)?;
            // A reply to a client that has left is an error that can be seen, not silence.
            socket.set_router_mandatory(true)?;
            if guard.keys().is_some() {
                // Nobody takes the place of a client with another key, and gets its replies. Whoever is gone is found out, and its place is free again.
                socket.set_heartbeat_ivl(HEARTBEAT)?;
                socket.set_heartbeat_timeout(2 * HEARTBEAT)?;
            } else {
                // A client that names its socket and connects anew is served, also while its former connection has not ended yet, as one that broke may not
                // for long.
                socket.set_router_handover(true)?;
            }
            guard.prepare(&socket)?;
            let resolved = bind(&socket, endpoint)?;
            Ok((socket, resolved))
        };
        let (socket, resolved) = open().map_err(|error| BindError::new(TAKE_REQUESTS, endpoint, error))?;
        Ok(Self { socket, endpoint: resolved, limits, guard, dialect })
    }

    /// Answers requests until `closing` is true; then those in work are answered, and the socket is closed.
    pub async fn serve(self, service: Arc<Service>, mut closing: watch::Receiver<bool>) -> io::Result<()> {
        let signal = readiness::watch_duplicate(self.socket.get_fd().map_err(io::Error::from)?)?;
        let mut door = Door {
            socket: self.socket,
            endpoint: self.endpoint.into(),
            service,
            limits: self.limits,
            guard: self.guard.clone(),
            dialect: self.dialect.clone(),
            rates: self.limits.requests_per_second.map(Rates::new),
            in_work: FuturesUnordered::new(),
            of_each: HashMap::new(),
        };
        let mut rekeyed = ServerKeys::of(&self.guard);
        loop {
            let emptied = door.receive_batch();
            let mut has_other_key = false;
            tokio::select! {
                biased;
                Some((envelope, shape, reply)) = door.in_work.next(), if !door.in_work.is_empty() => door.finish(envelope, shape, reply),
                () = tokio::task::yield_now(), if !emptied => {}
                ready = signal.readable(), if emptied => ready?.clear_ready(),
                () = rekeyed.changed() => has_other_key = true,
                _ = closing.wait_for(|closing| *closing) => break,
            }
            if has_other_key {
                door.bind_again().await;
            }
        }
        // A client with ZMQ_IMMEDIATE drops what it has not read when its peer goes: whoever was just answered gets the time to read it, and whoever
        // asks meanwhile is answered too.
        let farewell = tokio::time::sleep(FAREWELL);
        tokio::pin!(farewell);
        loop {
            door.receive_batch();
            tokio::select! {
                Some((envelope, shape, reply)) = door.in_work.next(), if !door.in_work.is_empty() => door.finish(envelope, shape, reply),
                ready = signal.readable() => ready?.clear_ready(),
                () = &mut farewell => break,
            }
        }
        if !door.in_work.is_empty() {
            tracing::warn!(requests = door.in_work.len(), "requests that were still in work are left without an answer");
        }
        Ok(())
    }
}

/// All frames up to and including the empty delimiter: where the reply goes. A REQ client with `ZMQ_REQ_CORRELATE` has a request number in it.
type Envelope = Vec<zmq::Message>;

/// A request, apart from its envelope.
struct Request {
    envelope: Envelope,
    /// How its reply is to look.
    shape: Shape,
    /// MessagePack, or why it is none.
    body: Result<Body, String>,
}

/// What came over the wire is not copied.
enum Body {
    Frame(zmq::Message),
    Translated(Vec<u8>),
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Translated(bytes) => bytes,
        }
    }
}

impl Request {
    fn of_ours(mut frames: Vec<zmq::Message>) -> Self {
        let shape = Shape::Procman;
        let Some(delimiter) = frames.iter().skip(1).position(|frame| frame.is_empty()).map(|at| at + 1) else {
            // Without a delimiter there is no knowing where the envelope ends; the identity alone reaches the client.
            frames.truncate(1);
            let message =
                "there is no empty delimiter frame before the request: use a REQ socket, or send an empty frame first on a DEALER socket";
            return Self { envelope: frames, shape, body: Err(message.to_owned()) };
        };
        let mut bodies = frames.split_off(delimiter + 1);
        let body = match (bodies.pop(), bodies.len()) {
            (Some(body), 0) => Ok(Body::Frame(body)),
            (_, more) => {
                let count = if more == 0 { "no frame follows".to_owned() } else { format!("{} frames follow", more + 1) };
                Err(format!("{count} the delimiter: a request is exactly one frame"))
            }
        };
        Self { envelope: frames, shape, body }
    }

    fn of_control_server(mut frames: Vec<zmq::Message>, max_bytes: usize) -> Self {
        let rest = frames.split_off(frames.len().min(2));
        let rest: Vec<&[u8]> = rest.iter().map(|frame| &frame[..]).collect();
        let Said { shape, body } = dialect::read(&rest, max_bytes);
        // Clients of CGSE take it for a number.
        if frames.get(1).is_none_or(|sequence| sequence.len() > MAX_SEQUENCE) {
            frames.truncate(1);
            frames.push(zmq::Message::from("0"));
        }
        Self { envelope: frames, shape, body: body.map(Body::Translated) }
    }
}

struct Door {
    socket: zmq::Socket,
    endpoint: Arc<str>,
    service: Arc<Service>,
    limits: Limits,
    guard: Guard,
    dialect: Dialect,
    /// `None`: everybody asks as fast as it likes.
    rates: Option<Rates>,
    in_work: FuturesUnordered<BoxFuture<'static, (Envelope, Shape, Vec<u8>)>>,
    /// How many of them are of which client, by its routing id.
    of_each: HashMap<Vec<u8>, usize>,
}

impl Door {
    /// Takes what has arrived, a batch at most; returns whether nothing is left.
    fn receive_batch(&mut self) -> bool {
        for _ in 0..BATCH {
            match self.receive() {
                Ok(Some(frames)) => self.take(frames),
                Ok(None) => return true,
                Err(error) => {
                    tracing::error!(%error, "cannot receive a request");
                    return true;
                }
            }
        }
        false
    }

    /// One message with all its frames, if one has arrived.
    fn receive(&mut self) -> zmq::Result<Option<Vec<zmq::Message>>> {
        let mut frames = Vec::with_capacity(3);
        loop {
            let mut frame = zmq::Message::new();
            // The frames of a message arrive together, so only the first can be missing.
            match self.socket.recv(&mut frame, zmq::DONTWAIT) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) if frames.is_empty() => return Ok(None),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(error),
            }
            let more = frame.get_more();
            frames.push(frame);
            if !more {
                return Ok(Some(frames));
            }
        }
    }

    /// Who sent this message, and whether its key is known still.
    fn caller(&self, frames: &mut [zmq::Message]) -> (Caller, bool) {
        // Of the frames, the first is the socket's own, and knows nothing of the connection; the last always came over it.
        let peer = frames.last_mut().and_then(|frame| frame.gets("Peer-Address").and_then(|address| caller::peer(&self.endpoint, address)));
        let identity = frames.first().and_then(|id| caller::said_identity(id));
        let rights = self.guard.rights(frames.last_mut());
        let is_known = rights.is_ok();
        let Rights { role, reach, client } = rights.unwrap_or_else(|Unknown| Rights::none());
        (Caller { role, reach, client, endpoint: self.endpoint.clone(), peer, identity }, is_known)
    }

    /// Listens with the key that the daemon has now. To libzmq connections belong to what listens: whoever is connected must come again, by the new key.
    async fn bind_again(&mut self) {
        if let Err(error) = self.socket.unbind(&self.endpoint) {
            return tracing::error!(endpoint = %self.endpoint, %error, "clients must go on with the daemon's former key");
        }
        // The thread of libzmq that listens lets go of the address a moment later.
        match retry(|| self.listen()).await {
            Ok(()) => tracing::info!(endpoint = %self.endpoint, "clients must know the daemon by its new key from now on"),
            Err(error) => {
                tracing::error!(endpoint = %self.endpoint, %error, "nobody can connect any more; a restart of the daemon cures it")
            }
        }
    }

    fn listen(&mut self) -> zmq::Result<()> {
        self.guard.prepare(&self.socket)?;
        bind(&self.socket, &self.endpoint).map(drop)
    }

    fn take(&mut self, mut frames: Vec<zmq::Message>) {
        let (caller, is_known) = self.caller(&mut frames);
        let Request { envelope, shape, body } = match self.dialect {
            Dialect::Procman => Request::of_ours(frames),
            Dialect::ControlServer { .. } => Request::of_control_server(frames, self.limits.max_request_bytes),
        };
        let body = match body {
            Ok(body) => body,
            Err(message) => {
                let reply = self.service.answer_malformed(&message, &caller);
                return self.send(envelope, shape, reply);
            }
        };
        if !is_known {
            let reply = self.service.answer_unknown(&body, &caller);
            return self.send(envelope, shape, reply);
        }
        let client = envelope.first().map_or(&[][..], |id| &id[..]);
        // By the key, where there is one: a client does not get more by connecting more often.
        let asks = caller.client.as_deref().map_or(client, str::as_bytes);
        if let Some(rates) = &mut self.rates
            && !rates.take(asks, Instant::now())
        {
            let reply = self.service.answer_too_fast(&body, &caller);
            return self.send(envelope, shape, reply);
        }
        let of_this = self.of_each.get(client).copied().unwrap_or(0);
        if self.in_work.len() >= self.limits.in_work || of_this >= self.limits.in_work_of_one {
            let reply = self.service.answer_busy(&body, &caller);
            return self.send(envelope, shape, reply);
        }
        let service = self.service.clone();
        let mut answer: BoxFuture<'static, Vec<u8>> = Box::pin(async move { service.answer(body, caller).await });
        // Most answers are there at once. One that is not is polled again by `in_work`, which brings its own waker.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match answer.as_mut().poll(&mut context) {
            std::task::Poll::Ready(reply) => self.send(envelope, shape, reply),
            std::task::Poll::Pending => {
                *self.of_each.entry(client.to_vec()).or_default() += 1;
                self.in_work.push(Box::pin(async move { (envelope, shape, answer.await) }));
            }
        }
    }

    /// Sends the reply of a request that was in work.
    fn finish(&mut self, envelope: Envelope, shape: Shape, reply: Vec<u8>) {
        if let Some(client) = envelope.first().map(|id| id.to_vec())
            && let Entry::Occupied(mut count) = self.of_each.entry(client)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.send(envelope, shape, reply);
    }

    fn send(&mut self, envelope: Envelope, shape: Shape, reply: Vec<u8>) {
        let reply = shape.reply(reply, &self.dialect);
        let Some((last, others)) = reply.split_last() else { return };
        let first = envelope.iter().map(|frame| &frame[..]).chain(others.iter().map(|frame| &frame[..]));
        let mut first = first.map(|frame| uninterrupted(|| self.socket.send(frame, zmq::SNDMORE | zmq::DONTWAIT)));
        let result = first.try_for_each(|sent| sent).and_then(|()| uninterrupted(|| self.socket.send(&last[..], zmq::DONTWAIT)));
        match result {
            Ok(()) => {}
            Err(zmq::Error::EHOSTUNREACH) => tracing::debug!("a client left before its reply"),
            Err(zmq::Error::EAGAIN) => tracing::warn!("a client does not read its replies, one is lost to it"),
            Err(error) => tracing::error!(%error, "cannot send a reply"),
        }
    }
}
