//! One PUB socket, bound to every events endpoint, and another one to those under keys.
//!
//! It never blocks: what a subscriber does not read waits in a queue of its own, and is lost to that subscriber alone once the queue is full. The
//! sequence has no gaps, so who loses something notices, and asks for it with the command `events`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::access::Access;

use crate::protocol::codec::encode_event;
use crate::protocol::event::Event;
use crate::sys::readiness;

use super::guard::Guard;
use super::transport::{BindError, LINGER, PUBLISH, RELEASE, RELEASE_LOOK, bind, set_handshake_timeout, uninterrupted};

/// The largest frame that a subscriber may send; what it sends are topics, which hold a word and a name.
const MAX_SUBSCRIPTION: i64 = 1024;

/// A socket that publishes.
pub struct Publisher {
    context: zmq::Context,
    limits: PublisherLimits,
    /// For whoever reaches its endpoints.
    open: One,
    /// For those who have a key.
    keyed: Option<One>,
}

/// Bounds of what subscribers may cost.
#[derive(Clone, Copy, Debug)]
pub struct PublisherLimits {
    /// Events that wait for one subscriber to read them; further ones are lost to that one.
    pub unread_events: u32,
    /// How long a subscriber may take to greet.
    pub handshake_timeout: Duration,
}

/// One PUB socket, and where it is bound.
struct One {
    socket: zmq::Socket,
    /// Wildcards resolved.
    endpoints: Vec<String>,
    guard: Guard,
}

impl One {
    fn new(context: &zmq::Context, limits: PublisherLimits, guard: Guard) -> zmq::Result<Self> {
        let socket = context.socket(zmq::PUB)?;
        // What is on its way is not for whoever has lost its key meanwhile.
        socket.set_linger(if guard.keys().is_some() { 0 } else { LINGER })?;
        socket.set_sndhwm(i32::try_from(limits.unread_events).unwrap_or(i32::MAX))?;
        set_handshake_timeout(&socket, limits.handshake_timeout)?;
        socket.set_maxmsgsize(MAX_SUBSCRIPTION)?;
        guard.prepare(&socket)?;
        Ok(Self { socket, endpoints: Vec::new(), guard })
    }

    fn bind(&mut self, endpoint: &str) -> zmq::Result<()> {
        let resolved = bind(&self.socket, endpoint)?;
        self.endpoints.push(resolved);
        Ok(())
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// One without endpoints: nobody can subscribe yet. With keys, those of TCP are for known clients alone.
    ///
    /// # Errors
    /// libzmq refuses a socket (descriptors used up).
    pub fn new(context: &zmq::Context, limits: PublisherLimits, keys: Option<watch::Receiver<Arc<Access>>>) -> Result<Self, BindError> {
        let refused = |error| BindError::new(PUBLISH, "any endpoint", error);
        let open = One::new(context, limits, Guard::none()).map_err(refused)?;
        let keyed = keys.map(|keys| One::new(context, limits, Guard::none().by_keys(keys))).transpose().map_err(refused)?;
        Ok(Self { context: context.clone(), limits, open, keyed })
    }

    /// Opens one endpoint more.
    ///
    /// # Errors
    /// It is taken, or not of this host.
    pub fn bind(&mut self, endpoint: &str) -> Result<(), BindError> {
        let one = self.keyed.as_mut().filter(|_| endpoint.starts_with("tcp://")).unwrap_or(&mut self.open);
        one.bind(endpoint).map_err(|error| BindError::new(PUBLISH, endpoint, error))
    }

    /// Where it is, wildcards resolved: those that are open first.
    pub fn endpoints(&self) -> Vec<String> {
        self.open.endpoints.iter().chain(self.keyed.iter().flat_map(|keyed| &keyed.endpoints)).cloned().collect()
    }

    /// Ready to publish in the runtime that this is called in.
    ///
    /// # Errors
    /// The operating system refuses to watch its descriptor.
    pub fn open(self) -> io::Result<Publishing> {
        let Self { context, limits, open, keyed } = self;
        // Without an endpoint nobody is there to be told, or to be cut off.
        let keyed = keyed.filter(|keyed| !keyed.endpoints.is_empty()).map(Watched::of).transpose()?;
        let known = keyed.as_ref().and_then(|keyed| Some(keyed.one.guard.keys()?.borrow().clone())).unwrap_or_default();
        Ok(Publishing { context, limits, open: Watched::of(open)?, keyed, renewing: None, known })
    }
}

/// A socket that takes the place of another one: its endpoints, the last first, that are still to be bound, and since when they are.
struct Renewing {
    one: One,
    left: Vec<String>,
    began: Instant,
}

impl Renewing {
    /// Binds what can be bound; whether nothing is left.
    fn go_on(&mut self) -> bool {
        while let Some(endpoint) = self.left.last() {
            match self.one.bind(endpoint) {
                Err(zmq::Error::EADDRINUSE) if self.began.elapsed() < RELEASE => return false,
                Ok(()) => tracing::info!(endpoint, "keys have changed, subscribers must come again"),
                Err(error) => tracing::error!(endpoint, %error, "nobody can subscribe here any more; a restart of the daemon cures it"),
            }
            self.left.pop();
        }
        true
    }
}

/// A socket whose subscribers are attended to.
struct Watched {
    one: One,
    signal: AsyncFd<OwnedFd>,
}

impl Watched {
    fn of(one: One) -> io::Result<Self> {
        let signal = readiness::watch_duplicate(one.socket.get_fd().map_err(io::Error::from)?)?;
        Ok(Self { one, signal })
    }

    fn publish(&self, topic: &[u8], frame: &[u8]) {
        let sent = uninterrupted(|| self.one.socket.send(topic, zmq::SNDMORE | zmq::DONTWAIT))
            .and_then(|()| uninterrupted(|| self.one.socket.send(frame, zmq::DONTWAIT)));
        if let Err(error) = sent {
            tracing::error!(%error, "cannot publish an event");
        }
    }

    async fn tend(&mut self) -> io::Result<std::convert::Infallible> {
        loop {
            self.signal.readable().await?.clear_ready();
            uninterrupted(|| self.one.socket.get_events()).map_err(io::Error::from)?;
        }
    }
}

/// A socket that publishes in the runtime. Dropped, it goes on handing over what was published for as long as it lingers.
pub struct Publishing {
    context: zmq::Context,
    limits: PublisherLimits,
    open: Watched,
    keyed: Option<Watched>,
    /// `keyed` on its way to be there again.
    renewing: Option<Renewing>,
    /// Who could get in when `keyed` was opened.
    known: Arc<Access>,
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
        for watched in std::iter::once(&self.open).chain(&self.keyed) {
            watched.publish(topic.as_bytes(), &frame);
        }
    }

    /// Does what subscribers ask for, for ever: they come and go also while nothing is published, and libzmq takes note only when it is called. Whoever
    /// has lost its key is cut off. It may be dropped at any time, and goes on where it was when it is called again.
    pub async fn tend(&mut self) -> io::Result<std::convert::Infallible> {
        loop {
            if let Some(renewing) = &mut self.renewing {
                // The thread of libzmq that listened lets go of the address a moment later.
                if !renewing.go_on() {
                    tokio::time::sleep(RELEASE_LOOK).await;
                    continue;
                }
                self.keyed = self.renewing.take().map(|renewing| Watched::of(renewing.one)).transpose()?;
            }
            let Self { open, keyed, known, .. } = self;
            let Some(keyed) = keyed else { return open.tend().await };
            let keys = keyed.one.guard.keys();
            tokio::select! {
                never = open.tend() => return never,
                never = keyed.tend() => return never,
                () = lost(keys, known) => {}
            }
            self.renew()?;
        }
    }

    /// Begins to open the endpoints under keys anew: a connection ends in no other way. Whoever still has its key comes back by itself, sees the gap in the
    /// sequence, and asks for what is missing.
    fn renew(&mut self) -> io::Result<()> {
        let Some(Watched { one, .. }) = self.keyed.take() else { return Ok(()) };
        let One { socket, endpoints, guard } = one;
        drop(socket);
        self.known = guard.keys().map(|keys| keys.borrow().clone()).unwrap_or_default();
        let one = One::new(&self.context, self.limits, guard)?;
        self.renewing = Some(Renewing { one, left: endpoints.into_iter().rev().collect(), began: Instant::now() });
        Ok(())
    }
}

/// Resolves when somebody who could get in cannot any more, or by another key of the daemon only.
async fn lost(keys: Option<watch::Receiver<Arc<Access>>>, known: &Access) {
    let Some(mut keys) = keys else { return std::future::pending().await };
    let is_lost = |now: &Arc<Access>| known.clients.any_missing_in(&now.clients) || known.server != now.server;
    if keys.wait_for(is_lost).await.is_err() {
        std::future::pending().await
    }
}
