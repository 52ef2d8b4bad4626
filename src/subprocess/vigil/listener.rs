//! Hears what a service says of itself: from whom it comes, and how much of it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::procfs::Identity;
use crate::sys::datagram::Received;

use super::members::{Members, Verdict};
use super::message::{MAX_MESSAGE, Message};
use super::socket::NotifySocket;

/// A message of a process of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) message: Message,
    /// The main process that it names, if that is another one, lives, and is one of the run.
    pub(super) main: Option<Identity>,
}

/// So many messages are heard in a second; those above wait in the socket, and at last their sender waits. A service that keeps a watchdog content
/// and tells what it does needs a few in a second; each that comes from a process not seen before costs a look at `/proc`.
const MOST_IN_A_SECOND: u32 = 200;
/// So many are heard in a row without waiting. More than a socket holds (`net.unix.max_dgram_qlen`).
pub(super) const MOST_AT_ONCE: usize = 1024;

/// Listens at one socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: NotifySocket,
    members: Members,
    buffer: Box<[u8; MAX_MESSAGE]>,
    /// A message that it takes a look to judge.
    judging: Option<Judging>,
    second: Second,
    /// What was complained of once.
    complained: Complained,
}

struct Judging {
    message: Message,
    sender: u32,
    verdict: BoxFuture<'static, Option<Heard>>,
}

impl std::fmt::Debug for Judging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judging").field("message", &self.message).field("sender", &self.sender).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each complaint is independent of the others
struct Complained {
    stranger: bool,
    long: bool,
    main: bool,
    much: bool,
}

/// How many were heard in the present second.
#[derive(Debug)]
struct Second {
    began: Instant,
    heard: u32,
}

impl Second {
    /// When the next may be heard, if not now.
    fn full_until(&self, now: Instant) -> Option<Instant> {
        let ends = self.began + Duration::from_secs(1);
        (self.heard >= MOST_IN_A_SECOND && now < ends).then_some(ends)
    }

    /// Counts one.
    fn count(&mut self, now: Instant) {
        if now >= self.began + Duration::from_secs(1) {
            (self.began, self.heard) = (now, 0);
        }
        self.heard += 1;
    }
}

impl Listener {
    pub(super) fn new(socket: NotifySocket, members: Members) -> Self {
        Self {
            socket,
            members,
            buffer: Box::new([0; MAX_MESSAGE]),
            judging: None,
            second: Second { began: Instant::now(), heard: 0 },
            complained: Complained::default(),
        }
    }

    /// A descriptor of the socket, whose file stays.
    pub(super) fn hand_over(&mut self) -> io::Result<OwnedFd> {
        self.socket.hand_over()
    }

    /// Another process is the main.
    pub(super) fn set_main(&mut self, main: Identity) {
        self.members.main = main;
    }

    /// Whether messages may be waiting that are not heard yet because there were so many.
    pub(super) fn is_behind(&self) -> bool {
        self.judging.is_some() || self.second.heard >= MOST_IN_A_SECOND
    }

    /// The next message of a process of the run. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            if let Some(judging) = &mut self.judging {
                let heard = (&mut judging.verdict).await;
                let sender = judging.sender;
                self.judging = None;
                match heard {
                    Some(heard) => return self.accept(heard),
                    None => self.refuse(sender),
                }
                continue;
            }
            if let Some(until) = self.second.full_until(Instant::now()) {
                if !self.complained.much {
                    self.complained.much = true;
                    tracing::warn!(uuid = %self.members.uuid, "a service says more of itself than {MOST_IN_A_SECOND} messages a second");
                }
                tokio::time::sleep_until(until).await;
            }
            let received = match self.socket.receive(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::error!(uuid = %self.members.uuid, %error, "a service cannot be heard any more");
                    std::future::pending::<()>().await;
                    continue;
                }
            };
            self.second.count(Instant::now());
            // Taken from the socket it would be lost if this were dropped, so it is put aside before anything is waited for.
            if let Some(heard) = self.judge(received) {
                return self.accept(heard);
            }
        }
    }

    /// The next message that has arrived: `None` when there is none, an inner `None` for one that is not heard.
    pub(super) fn next_now(&mut self) -> Option<Option<Heard>> {
        let judging = match self.judging.take() {
            Some(judging) => judging,
            None => {
                let received = self.socket.receive_now(&mut self.buffer)?;
                if let Some(heard) = self.judge(received) {
                    return Some(Some(self.accept(heard)));
                }
                match self.judging.take() {
                    Some(judging) => judging,
                    None => return Some(None),
                }
            }
        };
        let Judging { message, sender, .. } = judging;
        let member = |pid| match self.members.at_once(pid) {
            Verdict::Member(identity) => Some(identity),
            Verdict::Unknown(identity) => self.members.is_marked(identity).then_some(identity),
            Verdict::Gone => None,
        };
        if member(sender).is_none() {
            self.refuse(sender);
            return Some(None);
        }
        let main = message.main.and_then(member).filter(|main| Members::lives(*main) && *main != self.members.main);
        Some(Some(self.accept(Heard { message, main })))
    }

    /// Says at once what a message is worth, or puts it aside to be judged.
    fn judge(&mut self, received: Received) -> Option<Heard> {
        let sender = received.sender?;
        if received.truncated {
            if !self.complained.long {
                self.complained.long = true;
                tracing::warn!(uuid = %self.members.uuid, sender, "a message longer than {MAX_MESSAGE} bytes is not heard");
            }
            return None;
        }
        let message = Message::parse(&self.buffer[..received.length]);
        if message.is_empty() {
            return None;
        }
        let from = self.members.at_once(sender);
        if from == Verdict::Gone {
            self.refuse(sender);
            return None;
        }
        let main = message.main.filter(|pid| *pid != self.members.main.pid).map(|pid| self.members.at_once(pid));
        if let (Verdict::Member(_), None | Some(Verdict::Member(_) | Verdict::Gone)) = (from, main) {
            let main = match main {
                Some(Verdict::Member(main)) if Members::lives(main) => Some(main),
                Some(_) | None => None,
            };
            return Some(Heard { message, main });
        }
        let (members, judged) = (self.members.clone(), message.clone());
        let verdict = async move {
            let is_member = async |verdict| match verdict {
                Verdict::Member(identity) => Some(identity),
                Verdict::Unknown(identity) => members.look(identity).await.then_some(identity),
                Verdict::Gone => None,
            };
            is_member(from).await?;
            let main = match main {
                Some(main) => is_member(main).await.filter(|main| Members::lives(*main)),
                None => None,
            };
            Some(Heard { message: judged, main })
        };
        self.judging = Some(Judging { message, sender, verdict: verdict.boxed() });
        None
    }

    fn accept(&mut self, heard: Heard) -> Heard {
        if let (Some(pid), None) = (heard.message.main, heard.main)
            && pid != self.members.main.pid
            && !self.complained.main
        {
            self.complained.main = true;
            tracing::warn!(uuid = %self.members.uuid, pid, "a service names a main process that has ended or is none of its own");
        }
        heard
    }

    fn refuse(&mut self, sender: u32) {
        if !self.complained.stranger {
            self.complained.stranger = true;
            tracing::warn!(
                uuid = %self.members.uuid,
                sender,
                "a message is not heard: its sender is no process of this run, or has ended so soon that nobody can tell"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_so_many() {
        let start = Instant::now();
        let mut second = Second { began: start, heard: 0 };
        for _ in 0..MOST_IN_A_SECOND {
            assert_eq!(second.full_until(start), None);
            second.count(start);
        }
        let ends = start + Duration::from_secs(1);
        assert_eq!(second.full_until(start + Duration::from_millis(999)), Some(ends));
        assert_eq!(second.full_until(ends), None);
        second.count(ends);
        assert_eq!((second.began, second.heard), (ends, 1));
    }
}
