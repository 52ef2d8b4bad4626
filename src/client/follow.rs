//! `logs -f`: asks again and again where the last answer ended. Offsets mean the same for ever, so neither a rotation nor another daemon in between
//! makes a difference, and an answer that got lost is asked for again.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use super::connection::{Client, ClientOptions};
use super::error::ClientError;
use super::exit::{Exit, Failure};
use super::peer::Peer;
use super::render::{Report, Style, report, report_json};
use super::run::Speaker;
use crate::protocol::ErrorCode;
use crate::protocol::reply::LogLines;
use crate::protocol::request::{Command, Logs};

/// Between two questions when nothing new has come.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two tries to reach a daemon that does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Lines of one answer; its bytes are what limits it.
const LINES: u32 = 1_000_000;

/// What all questions have in common.
pub(super) struct Follow<'a> {
    /// Where the daemon is.
    pub(super) peer: Peer,
    /// How long each may take.
    pub(super) timeout: Duration,
    /// Answers are shown as they are.
    pub(super) json: bool,
    /// How people want them.
    pub(super) style: &'a Style,
}

impl Follow<'_> {
    /// Until SIGINT, or until nobody reads any more. A daemon that is not there to begin with is an error as for any verb.
    pub(super) fn run(&self, request: Logs, speaker: &mut Speaker<'_>) -> Result<Exit, Failure> {
        let interrupted = interrupts().map_err(|source| ClientError::Socket { operation: "listen to signals", source })?;
        let mut client = Client::connect_to(&self.peer, ClientOptions { timeout: self.timeout })?;
        let mut request = request;
        // What is wrong, once it was told, until it is over.
        let mut told = None;
        loop {
            let asked = client.ask(&Command::Logs(request.clone())).and_then(|answer| Ok((answer.result::<LogLines>()?, answer)));
            let pause = match asked {
                Ok((lines, answer)) => {
                    if told.take().is_some() {
                        speaker.complain("the daemon answers again");
                    }
                    let began = request.offset.is_none();
                    if began || !lines.lines.is_empty() || lines.truncated {
                        let command = Command::Logs(request.clone());
                        let shown = if self.json { report_json(&command, &answer, false) } else { report(&command, &answer, self.style) };
                        let Report { out, complaints, .. } = shown?;
                        speaker.say(out.as_bytes())?;
                        complaints.iter().for_each(|complaint| speaker.complain(complaint));
                    }
                    request = Logs { offset: Some(lines.offset), lines: Some(LINES), ..request };
                    if lines.lines.is_empty() || began { PAUSE } else { Duration::ZERO }
                }
                Err(error) if request.offset.is_some() && passes(&error) => {
                    if told.is_none() {
                        speaker.complain(&format!("{error}; waiting for the daemon"));
                    }
                    told = Some(());
                    RETRY
                }
                Err(error) => return Err(error.into()),
            };
            if speaker.deaf || nobody_reads() {
                return Ok(Exit::Done);
            }
            match interrupted.recv_timeout(pause) {
                Ok(()) => return Ok(Exit::Done),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

/// Whether a daemon that says this, or says nothing, may answer later.
const fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Disconnected { .. } | ClientError::Timeout { .. } => true,
        ClientError::Refused(refusal) => matches!(refusal.code, ErrorCode::Busy | ErrorCode::Timeout | ErrorCode::ShuttingDown),
        ClientError::KeyRefused { .. } | ClientError::Protocol { .. } | ClientError::Socket { .. } => false,
    }
}

/// Tells of the first SIGINT; the second one ends the program, in case the first is not heeded.
fn interrupts() -> io::Result<Receiver<()>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    // In this thread and those that it makes: the one that waits is to have it.
    signals.thread_block()?;
    let (sender, receiver) = channel();
    thread::Builder::new().name("interrupt".into()).spawn(move || {
        if signals.wait().is_ok() {
            // Whoever is not there any more needs not be told.
            let _ = sender.send(());
            let _ = signals.thread_unblock();
        }
        loop {
            thread::park();
        }
    })?;
    Ok(receiver)
}

/// Whether standard output is a pipe that nobody reads any more; a program that waits for lines would learn of it only at the next one.
fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLERR | PollFlags::POLLNVAL;
    poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(|events| events.intersects(gone))
}
