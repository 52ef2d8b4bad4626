//! The way to a hub: one PUSH socket that never waits for anybody.
//!
//! - A message is handed over only while a hub is connected that has said what it is (`ZMQ_IMMEDIATE`, and the socket's monitor); nothing piles up for
//!   one that is away.
//! - What one that does not read may cost is bounded: [`UNREAD`] messages here, and what the kernel keeps of a connection.
//! - Each connection has a socket of its own: libzmq connects again behind some ends of a connection, and behind others (the other side is of another
//!   kind, or says what nobody understands) never.
//! - A hub that stands still does not answer the heartbeats of ZeroMQ, which its library does without it; the connection is given up then.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use zmq::{PollEvents, SocketEvent};

use crate::sys::readiness;

use super::link::{HEARTBEAT, HEARTBEAT_TIMEOUT, Link, Reach, Sign};

/// Messages that wait here for a hub to read them.
pub const UNREAD: i32 = 1000;
/// The kernel's buffer of what was sent and not yet read, in bytes; Linux keeps twice that.
const SEND_BUFFER: i32 = 128 << 10;
/// How long the last messages may take, once nothing more is sent.
pub const LINGER: Duration = Duration::from_millis(500);
/// Between two tries to connect; libzmq adds up to as much.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long it may take to connect, and then to say what one is.
const PATIENCE: Duration = Duration::from_secs(2);
/// A hub sends nothing; libzmq cuts a connection that brings a larger frame.
const MAX_FRAME: i64 = 1024;
/// What it is to tell.
const SIGNS: [(SocketEvent, Sign); 7] = [
    (SocketEvent::CONNECTED, Sign::Connected),
    (SocketEvent::CONNECT_RETRIED, Sign::Retried),
    (SocketEvent::HANDSHAKE_SUCCEEDED, Sign::Greeted),
    (SocketEvent::HANDSHAKE_FAILED_NO_DETAIL, Sign::Refused),
    (SocketEvent::HANDSHAKE_FAILED_PROTOCOL, Sign::Refused),
    (SocketEvent::HANDSHAKE_FAILED_AUTH, Sign::Refused),
    (SocketEvent::DISCONNECTED, Sign::Closed),
];

/// The way to a hub.
pub struct Hub {
    // Sockets before their context: that waits for them.
    line: Line,
    context: zmq::Context,
    endpoint: String,
    /// How many sockets there were.
    lines: u64,
    /// When there is to be another one.
    reopen: Option<Instant>,
    link: Link,
    has_room: bool,
    next_look: Option<Instant>,
}

/// A socket, and what libzmq tells of its connection.
struct Line {
    monitor: zmq::Socket,
    socket: zmq::Socket,
    told: AsyncFd<OwnedFd>,
    signal: AsyncFd<OwnedFd>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("link", &self.link).field("has_room", &self.has_room).finish_non_exhaustive()
    }
}

/// Calls libzmq until no signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            done => return done,
        }
    }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

impl Line {
    fn open(context: &zmq::Context, endpoint: &str, number: u64) -> io::Result<Self> {
        let socket = context.socket(zmq::PUSH)?;
        socket.set_linger(millis(LINGER))?;
        socket.set_immediate(true)?;
        socket.set_sndhwm(UNREAD)?;
        socket.set_sndbuf(SEND_BUFFER)?;
        socket.set_maxmsgsize(MAX_FRAME)?;
        socket.set_reconnect_ivl(millis(TRY_AGAIN))?;
        socket.set_connect_timeout(millis(PATIENCE))?;
        socket.set_handshake_ivl(millis(PATIENCE))?;
        socket.set_heartbeat_ivl(millis(HEARTBEAT))?;
        socket.set_heartbeat_timeout(millis(HEARTBEAT_TIMEOUT))?;
        // Within the context of the hub alone; the one before may still have its name.
        let told = format!("inproc://monitor-{number}");
        socket.monitor(&told, SIGNS.iter().fold(0, |all, (event, _)| all | i32::from(event.to_raw())))?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&told)?;
        socket.connect(endpoint)?;
        let told = readiness::watch_duplicate(monitor.get_fd()?)?;
        let signal = readiness::watch_duplicate(socket.get_fd()?)?;
        Ok(Self { monitor, socket, told, signal })
    }

    /// What libzmq has told next.
    fn sign(&self) -> Option<Option<Sign>> {
        let frames = uninterrupted(|| self.monitor.recv_multipart(zmq::DONTWAIT)).ok()?;
        // zmq_socket_monitor(3): the number of the event comes first, in the order of this host's bytes.
        let number = frames.first().and_then(|frame| frame.first_chunk()).map(|bytes| u16::from_ne_bytes(*bytes));
        Some(SIGNS.iter().find(|(event, _)| Some(event.to_raw()) == number).map(|(_, sign)| *sign))
    }
}

impl Hub {
    /// Begins to connect, in the runtime that this is called in. The context is its own: a host name that takes long to be found holds up nobody else.
    ///
    /// # Errors
    /// The operating system or libzmq refuses a socket.
    pub fn connect(endpoint: &str) -> io::Result<Self> {
        let context = zmq::Context::new();
        let line = Line::open(&context, endpoint, 0)?;
        let (lines, reopen, link, has_room, next_look) = (1, None, Link::new(), false, None);
        Ok(Self { line, context, endpoint: endpoint.to_owned(), lines, reopen, link, has_room, next_look })
    }

    /// Whether it is there, as it was last seen.
    pub fn reach(&self) -> Reach {
        self.link.reach()
    }

    /// Hands one frame over; false where that cannot be done now.
    ///
    /// Whether a frame that was handed over arrives, nobody can tell: it may be lost with the connection.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        self.hear(Instant::now());
        if !self.link.is_up() {
            self.has_room = false;
            return false;
        }
        self.has_room = match uninterrupted(|| self.line.socket.send(frame, zmq::DONTWAIT)) {
            Ok(()) => true,
            Err(zmq::Error::EAGAIN) => false,
            Err(error) => {
                tracing::error!(%error, "cannot send to a hub of CGSE");
                false
            }
        };
        match self.has_room {
            true => self.link.has_room(Instant::now()),
            false => self.link.is_full(Instant::now()),
        }
        self.has_room
    }

    /// Waits until something is different: whether it is there, or has room again.
    ///
    /// # Errors
    /// The runtime or libzmq cannot tell any more.
    pub async fn changes(&mut self) -> io::Result<()> {
        loop {
            if self.look()? {
                return Ok(());
            }
            let next_look = self.next_look;
            let time = async {
                match next_look {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            // The descriptors tell changes only: both sockets were looked at before.
            tokio::select! {
                told = self.line.told.readable() => told?.clear_ready(),
                signal = self.line.signal.readable() => signal?.clear_ready(),
                () = time => {}
            }
        }
    }

    /// Sees how it stands; whether that is different from before.
    fn look(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let before = (self.link.reach(), self.has_room);
        if self.reopen.is_some_and(|at| at <= now) {
            self.line = Line::open(&self.context, &self.endpoint, self.lines)?;
            (self.lines, self.reopen) = (self.lines + 1, None);
        }
        // Also of a socket that is new: libzmq wakes only who has seen that there was nothing.
        self.hear(now);
        if self.link.greeting_due().is_some_and(|at| at <= now) {
            self.give_up(now);
        }
        let events = uninterrupted(|| self.line.socket.get_events())?;
        self.has_room = self.link.is_up() && events.contains(PollEvents::POLLOUT);
        if self.has_room {
            self.link.has_room(now);
        }
        self.next_look = [self.link.look(now), self.link.greeting_due(), self.reopen].into_iter().flatten().min();
        Ok(before.0 != self.link.reach() || !before.1 && self.has_room)
    }

    /// Takes note of all that libzmq has told of the connection.
    fn hear(&mut self, now: Instant) {
        // What it tells of a connection that is over concerns nobody: it may be made again, and is given up then.
        while self.reopen.is_none()
            && let Some(sign) = self.line.sign()
        {
            match sign {
                Some(Sign::Closed) => self.give_up(now),
                Some(sign) => self.link.heed(sign, now),
                None => {}
            }
        }
    }

    /// This connection is over, there is to be another one.
    fn give_up(&mut self, now: Instant) {
        self.link.heed(Sign::Closed, now);
        self.reopen = Some(now + TRY_AGAIN);
    }
}
