//! One PUB socket, bound to every events endpoint.
//!
//! It never blocks: what a subscriber does not read waits in a queue of its own, and is lost to that subscriber alone once the queue is full. The
//! sequence has no gaps, so who loses something notices, and asks for it with the command `events`.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use crate::protocol::codec::encode_event;
use crate::protocol::event::Event;
use crate::sys::readiness;

use super::transport::{BindError, LINGER, PUBLISH, bind, uninterrupted};

/// Events that wait for one subscriber to read them: as many as can be replayed.
const UNREAD_EVENTS: i32 = 4096;
/// The largest frame that a subscriber may send; what it sends are topics, which hold a word and a name.
const MAX_SUBSCRIPTION: i64 = 1024;

/// A socket that publishes.
pub struct Publisher {
    socket: zmq::Socket,
    /// Where it is, wildcards resolved.
    endpoints: Vec<String>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Publisher {
    /// One without endpoints: nobody can subscribe yet.
    ///
    /// # Errors
    /// libzmq refuses a socket (descriptors used up).
    pub fn new(context: &zmq::Context) -> Result<Self, BindError> {
        let open = || -> zmq::Result<zmq::Socket> {
            let socket = context.socket(zmq::PUB)?;
            socket.set_linger(LINGER)?;
            socket.set_sndhwm(UNREAD_EVENTS)?;
            socket.set_maxmsgsize(MAX_SUBSCRIPTION)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| BindError::new(PUBLISH, "any endpoint", error))?;
        Ok(Self { socket, endpoints: Vec::new() })
    }

    /// Opens one endpoint more.
    ///
    /// # Errors
    /// It is taken, or not of this host.
    pub fn bind(&mut self, endpoint: &str) -> Result<(), BindError> {
        let resolved = bind(&self.socket, endpoint).map_err(|error| BindError::new(PUBLISH, endpoint, error))?;
        self.endpoints.push(resolved);
        Ok(())
    }

    /// Where it is, wildcards resolved.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Ready to publish in the runtime that this is called in.
    ///
    /// # Errors
    /// The operating system refuses to watch its descriptor.
    pub fn open(self) -> io::Result<Publishing> {
        let signal = readiness::watch_duplicate(self.socket.get_fd().map_err(io::Error::from)?)?;
        Ok(Publishing { socket: self.socket, signal })
    }
}

/// A socket that publishes in the runtime. Dropped, it goes on handing over what was published for as long as it lingers.
pub struct Publishing {
    socket: zmq::Socket,
    signal: AsyncFd<OwnedFd>,
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").finish_non_exhaustive()
    }
}

impl Publishing {
    /// Sends an event to all who subscribed to its topic. Waits for nobody.
    pub fn publish(&mut self, event: &Event) {
        let frame = match encode_event(event) {
            Ok(frame) => frame,
            // Texts and numbers always encode; were they not to, a subscriber sees the gap and asks.
            Err(error) => return tracing::error!(%error, "cannot encode an event"),
        };
        let topic = event.topic().to_string();
        let sent = uninterrupted(|| self.socket.send(topic.as_bytes(), zmq::SNDMORE | zmq::DONTWAIT))
            .and_then(|()| uninterrupted(|| self.socket.send(&frame[..], zmq::DONTWAIT)));
        if let Err(error) = sent {
            tracing::error!(%error, "cannot publish an event");
        }
    }

    /// Does what subscribers ask for, for ever: they come and go also while nothing is published, and libzmq takes note only when it is called.
    pub async fn tend(&mut self) -> io::Result<std::convert::Infallible> {
        loop {
            self.signal.readable().await?.clear_ready();
            uninterrupted(|| self.socket.get_events()).map_err(io::Error::from)?;
        }
    }
}
