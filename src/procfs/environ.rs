//! Reading environments without waiting for a stuck process.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::forest::MARKER;
use super::stat::Identity;
use super::words::read_environ_value;

/// How long one environment may take. Reading it walks the other process's memory and waits for the lock on its map, which a process that
/// is stuck in a page fault (a dead NFS server) can hold for hours; else it takes some microseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// Reads environments on a thread of its own, which it leaves behind when a process is stuck.
#[derive(Debug, Default)]
pub(super) struct EnvironReader {
    helper: Option<Helper>,
    /// Processes that it did not come back from; asked no more.
    stuck: HashSet<Identity>,
}

#[derive(Debug)]
struct Helper {
    questions: Sender<u32>,
    answers: Receiver<Option<String>>,
}

impl Helper {
    fn start() -> Option<Self> {
        let (questions, to_ask) = channel();
        let (to_answer, answers) = channel();
        let ask = move || {
            for pid in to_ask {
                // A process that is gone or not shown to us has no value for us.
                if to_answer.send(read_environ_value(pid, MARKER).ok().flatten()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("environ".into()).stack_size(128 << 10).spawn(ask).ok()?;
        Some(Self { questions, answers })
    }
}

impl EnvironReader {
    /// The marker in the environment of this process; `None` too where it cannot be read, or not in time.
    pub(super) fn marker(&mut self, process: Identity) -> Option<String> {
        if self.stuck.contains(&process) {
            return None;
        }
        if self.helper.is_none() {
            self.helper = Helper::start();
        }
        let helper = self.helper.as_ref()?;
        let answer = helper.questions.send(process.pid).ok().and_then(|()| helper.answers.recv_timeout(PATIENCE).ok());
        if answer.is_none() {
            tracing::warn!(pid = process.pid, "the environment of this process cannot be read: it seems to be stuck in the kernel");
            self.stuck.insert(process);
            self.helper = None; // the thread leaves by itself when the kernel lets it go
        }
        answer.flatten()
    }

    /// To be called after a look: ends the thread, and forgets the stuck ones that live no more.
    pub(super) fn rest(&mut self, lives: impl Fn(Identity) -> bool) {
        self.helper = None;
        self.stuck.retain(|&process| lives(process));
    }
}
