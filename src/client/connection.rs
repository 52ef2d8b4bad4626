//! One REQ socket, one request at a time, every wait under a deadline.
//!
//! How the ends of a request are told apart:
//!
//! - *unreachable*: `probe` asks the operating system before libzmq is let loose;
//! - *timeout*: every wait is a `zmq_poll(3)` with what is left of the deadline. A REQ socket that waits for a reply can send nothing else
//!   (zmq_socket(3)), so it is thrown away then, and the next request makes a new one;
//! - *disconnected*: libzmq never tells a REQ socket that its peer is gone, but its monitor (zmq_socket_monitor(3)) does. The request is then sent once
//!   more, under the same id, if somebody still listens: a question in any case; a command that changes something only where the same run of the daemon
//!   answers, which knows by the client's name and that id whether it has done it already. (Another run knows it as well, but for what could not be
//!   written down: whoever must know asks how it stands.)

use std::io;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, UnitDeserializer};

use super::endpoint::Endpoint;
use super::error::{ClientError, Refusal};
use super::peer::Peer;
use super::probe::{Target, probe};
use crate::protocol::codec;
use crate::protocol::envelope::{Reply, RequestId};
use crate::protocol::reply::Info;
use crate::protocol::request::{Command, NoArgs};
use crate::protocol::{MAX_SECONDS, Name};

/// The longest that connecting may take, however long the answer may: a daemon that runs greets within milliseconds, for libzmq does it in a thread
/// of its own.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a reply may still come in after the monitor has said that the peer is gone: libzmq hands over what it read before it tells the monitor.
const LAST_WORDS_MS: i64 = 50;

/// What the monitor tells of.
const WATCHED: [zmq::SocketEvent; 3] =
    [zmq::SocketEvent::DISCONNECTED, zmq::SocketEvent::HANDSHAKE_FAILED_AUTH, zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL];

/// How a [`Client`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long one request may take, connecting included.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    /// Five seconds.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5) }
    }
}

/// A connection to one daemon. It stays usable after every error.
pub struct Client {
    context: zmq::Context,
    peer: Peer,
    options: ClientOptions,
    /// By which the daemon knows a request that comes again over another connection.
    name: Name,
    /// `None` after an error, until the next request.
    link: Option<Link>,
}

/// A connected socket and the monitor that watches it.
struct Link {
    socket: zmq::Socket,
    monitor: zmq::Socket,
}

impl Client {
    /// Connects without keys, and tells at once when nobody listens there.
    ///
    /// # Errors
    /// As for [`Self::connect_to`].
    pub fn connect(endpoint: &Endpoint, options: ClientOptions) -> Result<Self, ClientError> {
        Self::connect_to(&Peer::open(endpoint.clone()), options)
    }

    /// Connects, and tells at once when nobody listens there.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or [`ClientError::Socket`] where libzmq refuses a socket.
    pub fn connect_to(peer: &Peer, options: ClientOptions) -> Result<Self, ClientError> {
        let mut client = Self { context: zmq::Context::new(), peer: peer.clone(), options, name: random_name()?, link: None };
        client.link = Some(client.open(options.timeout)?);
        Ok(client)
    }

    /// What it is connected to.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Changes how long the next requests may take.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.options.timeout = timeout;
    }

    /// Asks, and answers with the result.
    ///
    /// # Errors
    /// Every [`ClientError`]; a refusal of the daemon is [`ClientError::Refused`].
    pub fn request<T: DeserializeOwned>(&mut self, command: &Command) -> Result<T, ClientError> {
        self.ask(command)?.result()
    }

    /// Asks, and answers with the whole reply, a refusal too.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Refused`.
    pub fn request_raw(&mut self, command: &Command) -> Result<serde_json::Value, ClientError> {
        self.ask(command)?.json()
    }

    /// Asks, and answers with a reply that is still to be read.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Refused`.
    pub fn ask(&mut self, command: &Command) -> Result<Answer, ClientError> {
        let start = Instant::now();
        let id = next_request_id();
        let name = command.name().changes_something().then_some(&self.name);
        let frame = codec::encode_request_of(command, Some(&id), name).map_err(|error| self.protocol(&error))?;
        let answer = match self.attempt(frame.clone(), start) {
            Err(broken @ ClientError::Disconnected { .. }) => {
                let again =
                    if command.name().changes_something() && !self.is_same_run(start) { None } else { self.attempt(frame, start).ok() };
                // Whoever is not there any more does not say whether it was done.
                again.ok_or(broken)?
            }
            other => other?,
        };
        Answer { endpoint: self.peer.endpoint.clone(), frame: answer }.checked(&id)
    }

    /// Sends one frame and waits for one, over the connection that there is, or a new one.
    fn attempt(&mut self, frame: Vec<u8>, start: Instant) -> Result<Vec<u8>, ClientError> {
        // Taken out, so that an early return leaves none: only an exchange that ended well puts it back.
        let link = match self.link.take() {
            Some(link) if !link.peer_is_gone() => link,
            Some(_) | None => self.open(self.options.timeout)?,
        };
        let answer = self.exchange(&link, frame, start)?;
        self.link = Some(link);
        Ok(answer)
    }

    /// Whether the daemon that answers now ran already at this time.
    fn is_same_run(&mut self, start: Instant) -> bool {
        let info = codec::encode_request(&Command::Info(NoArgs {}), None).ok().and_then(|frame| self.attempt(frame, start).ok());
        let info = info.and_then(|frame| codec::decode_reply::<Info>(&frame).ok()).and_then(|reply| reply.result);
        info.is_some_and(|info| info.uptime > start.elapsed().as_secs_f64())
    }

    /// Probes and connects; the greeting comes later.
    fn open(&self, limit: Duration) -> Result<Link, ClientError> {
        let target = probe(&self.peer.endpoint, limit.min(CONNECT_LIMIT))
            .map_err(|source| ClientError::Unreachable { endpoint: self.peer.endpoint.clone(), source })?;
        Link::open(&self.context, &self.peer, &target)
            .map_err(|source| ClientError::Socket { operation: "open a ZeroMQ socket", source: source.into() })
    }

    /// Sends one frame and waits for one.
    fn exchange(&self, link: &Link, frame: Vec<u8>, start: Instant) -> Result<Vec<u8>, ClientError> {
        // A time-out beyond the clock's end is as good as the longest time the protocol knows.
        let deadline = start.checked_add(self.options.timeout).unwrap_or(start + Duration::from_secs(MAX_SECONDS as u64));
        let late = |greeted| ClientError::Timeout { endpoint: self.peer.endpoint.clone(), waited: start.elapsed(), greeted };
        let broken = |operation| move |error: zmq::Error| ClientError::Socket { operation, source: error.into() };

        // With ZMQ_IMMEDIATE the socket takes a message only once the greeting is over.
        let greeted_by = deadline.min(Instant::now() + CONNECT_LIMIT);
        loop {
            let mut items = [link.socket.as_poll_item(zmq::POLLOUT), link.monitor.as_poll_item(zmq::POLLIN)];
            if !poll_until(&mut items, greeted_by).map_err(broken("wait for the daemon's greeting"))? {
                return Err(late(false));
            }
            if items[0].is_writable() {
                break;
            }
            if let (_, Some(refusal)) = link.news() {
                let keys = self.peer.keys.as_ref().filter(|_| self.peer.is_encrypted()).map(|keys| keys.public.to_string());
                return Err(ClientError::KeyRefused { endpoint: self.peer.endpoint.clone(), refusal, key: keys });
            }
        }
        match link.socket.send(frame, zmq::DONTWAIT) {
            Ok(()) => {}
            // Lost between the poll and the send.
            Err(zmq::Error::EAGAIN) => {
                let source = io::ErrorKind::ConnectionReset.into();
                return Err(ClientError::Unreachable { endpoint: self.peer.endpoint.clone(), source });
            }
            Err(error) => return Err(broken("send the request")(error)),
        }
        loop {
            let mut items = [link.socket.as_poll_item(zmq::POLLIN), link.monitor.as_poll_item(zmq::POLLIN)];
            if !poll_until(&mut items, deadline).map_err(broken("wait for the answer"))? {
                return Err(late(true));
            }
            let gone = !items[0].is_readable() && link.peer_is_gone();
            if gone && link.socket.poll(zmq::POLLIN, LAST_WORDS_MS).unwrap_or(0) == 0 {
                return Err(ClientError::Disconnected { endpoint: self.peer.endpoint.clone() });
            }
            match link.socket.recv_multipart(zmq::DONTWAIT) {
                Ok(mut frames) => match (frames.pop(), frames.is_empty()) {
                    (Some(frame), true) => return Ok(frame),
                    (Some(_), false) | (None, _) => return Err(self.protocol(&"its reply is not one frame")),
                },
                Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {}
                Err(error) => return Err(broken("receive the answer")(error)),
            }
        }
    }

    fn protocol(&self, what: &dyn std::fmt::Display) -> ClientError {
        ClientError::Protocol { endpoint: self.peer.endpoint.clone(), what: what.to_string() }
    }
}

impl Link {
    fn open(context: &zmq::Context, peer: &Peer, target: &Target) -> zmq::Result<Self> {
        let socket = context.socket(zmq::REQ)?;
        socket.set_linger(0)?;
        socket.set_immediate(true)?;
        socket.set_ipv6(target.ipv6)?;
        peer.prepare(&socket)?;
        let watch = format!("inproc://monitor-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        socket.monitor(&watch, WATCHED.iter().fold(0, |all, event| all | i32::from(event.to_raw())))?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&watch)?;
        socket.connect(&target.address)?;
        Ok(Self { socket, monitor })
    }

    /// Whether the monitor has told of a lost connection.
    fn peer_is_gone(&self) -> bool {
        self.news().0
    }

    /// Whether the connection was lost, and why it did not come about, as far as the monitor has told. It is a 16-bit number and a 32-bit one, in the order
    /// of this machine (zmq_socket_monitor(3)).
    fn news(&self) -> (bool, Option<Refusal>) {
        let (mut gone, mut refusal) = (false, None);
        while let Ok(frames) = self.monitor.recv_multipart(zmq::DONTWAIT) {
            let event = frames.first().and_then(|frame| Some(u16::from_ne_bytes(frame.get(..2)?.try_into().ok()?)));
            match event.map(zmq::SocketEvent::from_raw) {
                Some(zmq::SocketEvent::HANDSHAKE_FAILED_AUTH) => refusal = Some(Refusal::Key),
                Some(zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL) => refusal = Some(Refusal::Mechanism),
                _ => gone = true,
            }
        }
        (gone, refusal)
    }
}

/// Waits until one of the items is ready; false when the deadline came first. A signal does not end the wait.
fn poll_until(items: &mut [zmq::PollItem<'_>], deadline: Instant) -> zmq::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a wait that ends early would be made again and again.
        let millis = i64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
        match zmq::poll(items, millis) {
            Ok(0) if Instant::now() < deadline => {}
            Ok(ready) => return Ok(ready > 0),
            Err(zmq::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Numbers what must not be mixed up within this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A name that no other client has.
fn random_name() -> Result<Name, ClientError> {
    let name = format!("client-{}", uuid::Uuid::new_v4().simple());
    name.parse().map_err(|error| ClientError::Socket { operation: "make a name for this client", source: io::Error::other(error) })
}

/// A name for one request, with the PID for the sake of the daemon's log.
fn next_request_id() -> RequestId {
    RequestId::Text(format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A reply that has come and is still to be read.
#[derive(Clone, Debug)]
pub struct Answer {
    endpoint: Endpoint,
    frame: Vec<u8>,
}

impl Answer {
    /// Who gave it.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The answer, if it is a reply to the request of that id.
    fn checked(self, id: &RequestId) -> Result<Self, ClientError> {
        let reply: Reply<serde::de::IgnoredAny> = self.decode()?;
        match &reply.request_id {
            Some(other) if other == id => Ok(self),
            // A daemon that could not read the request could not read its id either.
            None if !reply.success => Ok(self),
            Some(_) | None => Err(self.protocol("its reply is not to this request")),
        }
    }

    /// The same answer, a list of processes, without this one; with `first` the lowest PID of the others, or 0, as `is_process_running` has it.
    ///
    /// # Errors
    /// As for [`Self::json`].
    pub(super) fn without(self, pid: u32, first: bool) -> Result<Self, ClientError> {
        let mut reply = self.json()?;
        if let Some(list) = reply.get_mut("result").and_then(serde_json::Value::as_array_mut) {
            list.retain(|entry| entry.get("pid").unwrap_or(entry) != pid);
            if first {
                reply["result"] = list.first().cloned().unwrap_or_else(|| 0.into());
            }
        }
        let frame = rmp_serde::to_vec_named(&reply).map_err(|error| self.protocol(&error.to_string()))?;
        Ok(Self { frame, ..self })
    }

    /// The result.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or [`ClientError::Protocol`] where the result is of another kind.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        let reply: Reply<T> = self.decode()?;
        match (reply.success, reply.result, reply.error) {
            (true, Some(result), _) => Ok(result),
            // Some results are null (`returncode` of what never ran), which the envelope cannot tell from none.
            (true, None, _) => {
                T::deserialize(UnitDeserializer::<ValueError>::new()).map_err(|_| self.protocol("its reply holds no result"))
            }
            (false, _, Some(error)) => Err(ClientError::Refused(error)),
            (false, _, None) => Err(self.protocol("it refused and did not say why")),
        }
    }

    /// The whole reply.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] where it holds what JSON cannot.
    pub fn json(&self) -> Result<serde_json::Value, ClientError> {
        rmp_serde::from_slice(&self.frame).map_err(|error| self.protocol(&error.to_string()))
    }

    fn decode<T: DeserializeOwned>(&self) -> Result<Reply<T>, ClientError> {
        codec::decode_reply(&self.frame).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(" ({source})")).unwrap_or_default();
            self.protocol(&format!("{error}{source}"))
        })
    }

    fn protocol(&self, what: &str) -> ClientError {
        ClientError::Protocol { endpoint: self.endpoint.clone(), what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WireError;
    use crate::protocol::reply::Pong;

    fn answer(frame: Vec<u8>) -> Answer {
        Answer { endpoint: "ipc:///x".parse().unwrap(), frame }
    }

    #[test]
    fn a_null_result_is_a_result_where_null_means_something() {
        let reply = answer(codec::encode_result(&None::<i32>, None).unwrap());
        assert_eq!(reply.result::<Option<i32>>().unwrap(), None);
        assert!(matches!(reply.result::<Pong>(), Err(ClientError::Protocol { .. })));
    }

    #[test]
    fn a_reply_to_another_request_is_refused() {
        let id = RequestId::Text("7-1".into());
        let pong = Pong { pong: true, time: 1.0 };
        assert!(answer(codec::encode_result(&pong, Some(&id)).unwrap()).checked(&id).is_ok());
        assert!(answer(codec::encode_result(&pong, Some(&RequestId::Unsigned(7))).unwrap()).checked(&id).is_err());
        assert!(answer(codec::encode_result(&pong, None).unwrap()).checked(&id).is_err());
        assert!(answer(codec::encode_error(&WireError::bad_request("x"), None).unwrap()).checked(&id).is_ok());
        for garbage in [&b""[..], b"\xc1", b"hello", &[0x90], &[0x80]] {
            assert!(matches!(answer(garbage.to_vec()).checked(&id), Err(ClientError::Protocol { .. })), "{garbage:?}");
        }
    }

    #[test]
    fn every_request_has_its_own_id() {
        assert_ne!(next_request_id(), next_request_id());
    }
}
