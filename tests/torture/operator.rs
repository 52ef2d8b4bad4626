//! The operator: starts, quits and restarts at random, whether there is a daemon or not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use procman::client::{Client, ClientError, ClientOptions, Endpoint};
use procman::protocol::reply::{Ended, Executed};
use procman::protocol::request::{Command, Execute, Quit, Restart};
use procman::protocol::{ErrorCode, Name};

use super::random::{Random, let_pass};
use super::scene::{Part, Scene};

/// Between two commands.
const PAUSE: Duration = Duration::from_millis(15);
/// Between two tries to reach a daemon.
const TRY_AGAIN: Duration = Duration::from_millis(3);

/// What a sub-process is to do, as far as its daemon has said yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A command is under way, or its daemon died over it: either is right.
    #[default]
    Open,
    /// It was quit.
    Down,
    /// It was started; this is its run.
    Up(String),
}

/// What the operator has done.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) wishes: BTreeMap<String, Wish>,
    /// Runs that a daemon has answered for and nobody has looked for yet.
    pub(crate) answered: Vec<String>,
    /// Commands that were done.
    pub(crate) done: u64,
    /// Answers that no daemon should have given.
    pub(crate) wrong: Vec<String>,
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Operator {
    deeds: Arc<Mutex<Deeds>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Operator {
    pub(crate) fn begin(scene: &Scene, mut random: Random) -> Self {
        let names: Vec<(String, Part)> = scene.names.iter().filter(|(_, part)| matches!(part, Part::Once | Part::Toy)).cloned().collect();
        let (deeds, end) = (Arc::new(Mutex::new(Deeds::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stop, endpoint) = (deeds.clone(), end.clone(), scene.endpoint());
        let thread = std::thread::spawn(move || {
            let mut client = None;
            while !stop.load(Ordering::Relaxed) {
                let (name, part) = random.of(&names);
                let command = choose(&mut random, name.parse().unwrap(), *part);
                client = client.or_else(|| connect(&endpoint));
                let Some(daemon) = &mut client else {
                    let_pass(TRY_AGAIN);
                    continue;
                };
                if shared.lock().unwrap().carry_out(daemon, name, &command).is_none() {
                    client = None;
                }
                let_pass(random.up_to(PAUSE));
            }
        });
        Self { deeds, end, thread: Some(thread) }
    }

    /// The deeds so far. No command is under way, and none begins, while this is held.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Deeds> {
        self.deeds.lock().unwrap()
    }

    /// Does nothing more.
    pub(crate) fn stop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn connect(endpoint: &Endpoint) -> Option<Client> {
    Client::connect(endpoint, ClientOptions { timeout: super::manager::DEADLINE }).ok()
}

fn choose(random: &mut Random, name: Name, part: Part) -> Command {
    let once = part == Part::Once;
    match random.below(10) {
        0..=3 => Command::Execute(Execute { name, args: Vec::new(), env: BTreeMap::new(), wait: false, timeout: None }),
        4..=8 if once => Command::Execute(Execute { name, args: Vec::new(), env: BTreeMap::new(), wait: false, timeout: None }),
        4..=6 => Command::Restart(Restart { name: Some(name), ..Restart::default() }),
        _ => Command::Quit(Quit { name: Some(name), ..Quit::default() }),
    }
}

impl Deeds {
    /// `None` when the daemon is gone.
    fn carry_out(&mut self, daemon: &mut Client, name: &str, command: &Command) -> Option<()> {
        let before = self.wishes.insert(name.to_owned(), Wish::Open);
        let done = match command {
            Command::Quit(_) => daemon.request::<Ended>(command).map(|_| Wish::Down),
            _ => daemon.request::<Executed>(command).map(|executed| {
                self.answered.push(executed.uuid.clone());
                Wish::Up(executed.uuid)
            }),
        };
        match done {
            Ok(wish) => {
                self.done += 1;
                self.wishes.insert(name.to_owned(), wish);
            }
            Err(ClientError::Refused(error)) if error.code == ErrorCode::AlreadyRunning => {
                self.wishes.insert(name.to_owned(), before.unwrap_or_default());
            }
            Err(ClientError::Disconnected { .. } | ClientError::Unreachable { .. }) => return None,
            Err(ClientError::Timeout { greeted: false, .. }) => return None,
            Err(error) => self.wrong.push(format!("{command:?}: {error}")),
        }
        Some(())
    }
}
