//! Reading environments without waiting for a stuck process.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::forest::{MARKER, OWNER};
use super::owner::Owner;
use super::stat::{Identity, Stat, read_stat};
use super::table::Table;
use super::words::read_environ_values;

/// How long one environment may take. Reading it walks the other process's memory and waits for the lock on its map, which a process that
/// is stuck in a page fault (a dead NFS server) can hold for hours; else it takes some microseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a process may be on its way into its program: meanwhile it has no environment (execve(2)), and could be taken for nobody's.
const EXECUTES: Duration = Duration::from_millis(50);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads environments on a thread of its own, which it leaves behind when a process is stuck.
#[derive(Debug, Default)]
pub(super) struct EnvironReader {
    helper: Option<Helper>,
    /// Processes that it did not come back from; asked no more.
    stuck: HashSet<Identity>,
}

/// What the environment of a process says of it.
#[derive(Debug, Default)]
struct Marks {
    uuid: Option<String>,
    owner: Option<String>,
}

impl Marks {
    /// `None` where the environment cannot be read: the process is gone, or not shown to us. Waits so long for one that has none yet.
    fn of(pid: u32, patience: Duration) -> Option<Self> {
        let until = Instant::now() + patience;
        loop {
            if let Some([uuid, owner]) = read_environ_values(pid, [MARKER, OWNER]).ok()? {
                return Some(Self { uuid, owner });
            }
            if Instant::now() >= until || read_stat(pid).map_or(true, |stat| stat.is_dead()) {
                return Some(Self::default());
            }
            thread::park_timeout(PAUSE);
        }
    }
}

#[derive(Debug)]
struct Helper {
    questions: Sender<(u32, Duration)>,
    answers: Receiver<Option<Marks>>,
}

impl Helper {
    fn start() -> Option<Self> {
        let (questions, to_ask) = channel();
        let (to_answer, answers) = channel();
        let ask = move || {
            for (pid, patience) in to_ask {
                if to_answer.send(Marks::of(pid, patience)).is_err() {
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
        // Nobody waits here: where many processes end, many have no environment any more, and whoever looks will look again.
        self.marks(process, Duration::ZERO)?.uuid
    }

    fn marks(&mut self, process: Identity, patience: Duration) -> Option<Marks> {
        if self.stuck.contains(&process) {
            return None;
        }
        if self.helper.is_none() {
            self.helper = Helper::start();
        }
        let helper = self.helper.as_ref()?;
        let answer =
            helper.questions.send((process.pid, patience)).ok().and_then(|()| helper.answers.recv_timeout(PATIENCE + patience).ok());
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

/// A process that a daemon's mark is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Which.
    pub stat: Stat,
    /// The run's UUID.
    pub uuid: String,
    /// What the PID of the main process was when it was started: all that it forked say the same.
    pub main: u32,
    /// The sub-process.
    pub name: String,
    /// It belongs to something that the daemon itself asked of the sub-process, and not to a run.
    pub is_program: bool,
    /// It is in the control group of the run, where nobody comes by himself.
    pub is_contained: bool,
}

/// Every living process of the table with a mark of this owner, ascending. Blocks while it reads their environments.
pub fn marked(table: &Table, ours: &Owner) -> Vec<Marked> {
    let mut reader = EnvironReader::default();
    let mark = |stat: &Stat, marks: Marks| {
        let owner = marks.owner?;
        let (id, owner) = owner.split_once('/')?;
        let (owner, main) = owner.rsplit_once('/').filter(|_| ours.owns(id, stat, table))?;
        let (name, is_program) = owner.strip_suffix("/program").map_or((owner, false), |name| (name, true));
        Some(Marked {
            stat: stat.clone(),
            uuid: marks.uuid?,
            name: name.to_owned(),
            main: main.parse().ok()?,
            is_program,
            is_contained: false,
        })
    };
    // Kernel threads, the children of 2, have no environment.
    let processes = table.iter().filter(|stat| !stat.is_dead() && stat.ppid != 2 && stat.pid != 2);
    processes.filter_map(|stat| mark(stat, reader.marks(stat.identity(), EXECUTES)?)).collect()
}
