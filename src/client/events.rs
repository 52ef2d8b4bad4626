//! `procmanctl events`: what happened, and with `-f` what happens.
//!
//! Who follows subscribes first and asks for what happened before second, so that nothing falls between. What was published and not heard (a
//! subscription takes effect a little later, a queue was full, the connection broke, the daemon was away) is noticed by its number, and asked for; silence
//! is checked by asking, too, because an event that was lost as the last one leaves no gap. So events also come where none are published, only later.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use glob::Pattern;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;

use super::connection::{Client, ClientOptions};
use super::cursor::{Cursor, Is, Place};
use super::endpoint::Endpoint;
use super::error::ClientError;
use super::exit::{Exit, Failure};
use super::peer::Peer;
use super::render::events::{json_line, line};
use super::render::{Style, text::escape};
use super::run::Speaker;
use crate::protocol::event::Event;
use crate::protocol::reply::{Info, Replay};
use crate::protocol::request::{self, Command, NoArgs};

/// How long silence is believed at first: a subscription takes effect within milliseconds, and something may have happened before it did.
const SILENCE_FIRST: Duration = Duration::from_millis(100);
/// How long silence is believed in the long run.
const SILENCE_LAST: Duration = Duration::from_secs(1);
/// How long to wait before a daemon that is away is looked for again.
const AWAY: Duration = Duration::from_millis(250);

/// Which events are wanted, and how they are to be shown.
#[derive(Clone, Debug)]
pub(super) struct Events<'a> {
    pub(super) peer: Peer,
    pub(super) timeout: Duration,
    pub(super) since: Option<u64>,
    /// Only those about sub-processes whose name one of these matches; without any, all.
    pub(super) names: &'a [Pattern],
    pub(super) json: bool,
    pub(super) style: &'a Style,
    /// Standard output, to see that nobody reads it any more.
    pub(super) reader: Option<RawFd>,
}

/// What ended a wait.
enum Woken {
    /// A message came; `None` where it is no event.
    Message(Option<Value>),
    Silence,
    /// Somebody asked this program to end, or nobody reads what it says.
    Done,
}

impl Events<'_> {
    /// Prints what the daemon still knows.
    pub(super) fn print(&self, speaker: &mut Speaker<'_>) -> Result<Exit, Failure> {
        let mut client = self.connect()?;
        self.catch_up(&mut client, &mut Cursor::new(self.since), speaker)?;
        Ok(Exit::Done)
    }

    /// The same, and then what happens, until somebody asks this program to end or nobody reads it any more. A daemon that goes away is waited for.
    ///
    /// # Errors
    /// The daemon was not there at the start, or refuses; or libzmq does.
    pub(super) fn follow(&self, speaker: &mut Speaker<'_>) -> Result<Exit, Failure> {
        // First, so that no thread that comes later takes the signals.
        let interrupts = interrupts().map_err(|source| ClientError::Socket { operation: "wait for signals", source })?;
        let mut client = self.connect()?;
        let mut subscription = Subscription::new(self, &mut client)?;
        let mut cursor = Cursor::new(self.since);
        let mut silence = SILENCE_FIRST;
        let mut away = false;
        self.catch_up(&mut client, &mut cursor, speaker)?;
        loop {
            match self.wait(&subscription, &interrupts, if away { AWAY } else { silence })? {
                Woken::Done => return Ok(Exit::Done),
                Woken::Message(Some(event)) => {
                    let is = serde_json::from_value(event.clone()).map_or(Is::Ahead, |place: Place| cursor.meet(&place));
                    match is {
                        Is::Known => continue,
                        Is::Next => {
                            self.show(&[event], speaker)?;
                            if speaker.is_deaf() {
                                return Ok(Exit::Done);
                            }
                            continue;
                        }
                        Is::Ahead => {}
                    }
                }
                Woken::Message(None) => {}
                Woken::Silence => silence = (silence * 2).min(SILENCE_LAST),
            }
            let before = cursor.daemon().map(str::to_owned);
            let caught_up = self.catch_up(&mut client, &mut cursor, speaker).and_then(|()| {
                if before.as_deref() != cursor.daemon() {
                    // It may publish elsewhere now.
                    subscription.renew(self, &mut client)?;
                    silence = SILENCE_FIRST;
                }
                Ok(())
            });
            match caught_up {
                Ok(()) if away => {
                    away = false;
                    speaker.complain("the daemon is there again");
                }
                Ok(()) => {}
                Err(Failure::Client(error)) if is_away(&error) => {
                    if !away {
                        speaker.complain(&format!("{error}; waiting for it"));
                    }
                    away = true;
                }
                Err(failure) => return Err(failure),
            }
            if speaker.is_deaf() {
                return Ok(Exit::Done);
            }
        }
    }

    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect_to(&self.peer, ClientOptions { timeout: self.timeout })
    }

    /// Asks for all events behind the cursor and shows them. What is lost is told, before what came after it.
    fn catch_up(&self, client: &mut Client, cursor: &mut Cursor, speaker: &mut Speaker<'_>) -> Result<(), Failure> {
        let asked = request::Events { since: Some(cursor.next()), daemon: cursor.daemon().map(str::to_owned), limit: None };
        let replay: Replay<Value> = client.request(&Command::Events(asked))?;
        for loss in cursor.pass(&replay) {
            speaker.complain(&loss.to_string());
        }
        self.show(&replay.events, speaker)
    }

    fn show(&self, events: &[Value], speaker: &mut Speaker<'_>) -> Result<(), Failure> {
        let mut text = String::new();
        for event in events.iter().filter(|event| self.is_wanted(event)) {
            if self.json {
                text += &json_line(event);
                continue;
            }
            match serde_json::from_value::<Event>(event.clone()) {
                Ok(event) => text += &line(&event, self.style),
                // Of a newer daemon: shown as it came.
                Err(_) => text += &format!("{}\n", escape(&event.to_string())),
            }
        }
        if text.is_empty() { Ok(()) } else { speaker.say(text.as_bytes()) }
    }

    fn is_wanted(&self, event: &Value) -> bool {
        let matches = |name: &str| self.names.iter().any(|pattern| pattern.matches(name));
        self.names.is_empty() || event.get("name").and_then(Value::as_str).is_some_and(matches)
    }

    /// Waits for the next thing to do.
    fn wait(&self, subscription: &Subscription, interrupts: &SignalFd, silence: Duration) -> Result<Woken, ClientError> {
        let broken = |operation| move |error: zmq::Error| ClientError::Socket { operation, source: error.into() };
        let mut items =
            vec![subscription.socket.as_poll_item(zmq::POLLIN), zmq::PollItem::from_fd(interrupts.as_fd().as_raw_fd(), zmq::POLLIN)];
        items.extend(self.reader.map(|fd| zmq::PollItem::from_fd(fd, zmq::POLLERR)));
        let millis = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX);
        match zmq::poll(&mut items, millis) {
            Ok(0) => return Ok(Woken::Silence),
            Ok(_) | Err(zmq::Error::EINTR) => {}
            Err(error) => return Err(broken("wait for events")(error)),
        }
        if items[1].is_readable() || items.get(2).is_some_and(zmq::PollItem::is_error) {
            return Ok(Woken::Done);
        }
        match subscription.socket.recv_multipart(zmq::DONTWAIT) {
            Ok(frames) => Ok(Woken::Message(frames.get(1).and_then(|frame| rmp_serde::from_slice(frame).ok()))),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => Ok(Woken::Silence),
            Err(error) => Err(broken("receive events")(error)),
        }
    }
}

/// Whether the daemon may come back, so that it is worth waiting for.
const fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Disconnected { .. } | ClientError::Timeout { .. } => true,
        ClientError::Refused(_) | ClientError::KeyRefused { .. } | ClientError::Protocol { .. } | ClientError::Socket { .. } => false,
    }
}

/// A descriptor that is readable once this program is asked to end, which it then is only by it.
fn interrupts() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// A SUB socket, connected to where the daemon publishes, if that can be reached.
struct Subscription {
    socket: zmq::Socket,
    connected: Option<String>,
    _context: zmq::Context,
}

impl Subscription {
    fn new(events: &Events<'_>, client: &mut Client) -> Result<Self, Failure> {
        let context = zmq::Context::new();
        let open = || -> zmq::Result<zmq::Socket> {
            let socket = context.socket(zmq::SUB)?;
            socket.set_linger(0)?;
            // All topics: only who hears all can count.
            socket.set_subscribe(b"")?;
            events.peer.prepare(&socket)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| ClientError::Socket { operation: "open a ZeroMQ socket", source: error.into() })?;
        let mut subscription = Self { socket, connected: None, _context: context };
        subscription.renew(events, client)?;
        Ok(subscription)
    }

    /// Connects to where the daemon publishes now. Where that cannot be reached, asking has to do.
    fn renew(&mut self, events: &Events<'_>, client: &mut Client) -> Result<(), Failure> {
        let info: Info = client.request(&Command::Info(NoArgs {}))?;
        let target = published_at(&events.peer.endpoint, info.events_endpoints.as_deref().unwrap_or_default());
        if target == self.connected {
            return Ok(()); // libzmq connects again by itself
        }
        if let Some(former) = self.connected.take() {
            let _ = self.socket.disconnect(&former);
        }
        self.connected =
            target.filter(|target| self.socket.set_ipv6(target.contains('[')).and_then(|()| self.socket.connect(target)).is_ok());
        Ok(())
    }
}

/// Which of the endpoints where a daemon publishes is the best for a client that reaches its commands at `control`, if there is any.
fn published_at(control: &Endpoint, endpoints: &[String]) -> Option<String> {
    let tcp = |host: &str| {
        let address = endpoints.iter().find_map(|endpoint| endpoint.strip_prefix("tcp://"))?;
        let (bound, port) = address.rsplit_once(':')?;
        // What is bound to every address is reached where the commands are.
        let everywhere = matches!(bound, "0.0.0.0" | "[::]" | "*");
        let host = match host {
            _ if !everywhere => bound.to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        Some(format!("tcp://{host}:{port}"))
    };
    match control {
        Endpoint::Ipc(_) => endpoints.iter().find(|endpoint| endpoint.starts_with("ipc://")).cloned().or_else(|| tcp("127.0.0.1")),
        Endpoint::Tcp { host, .. } => tcp(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_heard_where_they_can_be_reached() {
        let at = |control: &str, endpoints: &[&str]| {
            published_at(&control.parse().unwrap(), &endpoints.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>())
        };
        let both = ["tcp://0.0.0.0:5", "ipc:///e"];
        assert_eq!(at("ipc:///c", &both).as_deref(), Some("ipc:///e"));
        assert_eq!(at("ipc:///c", &both[..1]).as_deref(), Some("tcp://127.0.0.1:5"));
        assert_eq!(at("tcp://far.example:1", &both).as_deref(), Some("tcp://far.example:5"));
        assert_eq!(at("tcp://[::1]:1", &["tcp://[::]:5"]).as_deref(), Some("tcp://[::1]:5"));
        assert_eq!(at("tcp://127.0.0.1:1", &["tcp://127.0.0.2:5"]).as_deref(), Some("tcp://127.0.0.2:5"));
        assert_eq!(at("tcp://far.example:1", &both[1..]), None);
        assert_eq!(at("ipc:///c", &[]), None);
    }
}
