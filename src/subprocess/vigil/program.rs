//! A question that is a program: run as the sub-process itself would be, heard up to a bound, and ended whole, whatever it has started.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot, watch};
use tokio::time::Instant;

use crate::procfs::Identity;
use crate::protocol::Signal;
use crate::subprocess::spawn::{Launch, SpawnFailure, Spawned};
use crate::subprocess::spec::Spec;
use crate::subprocess::tree::{self, Ender, Ending, Whole};
use crate::sys::pidfd::{ExitStatus, PidFd};
use crate::sys::readiness;
use crate::sys::reaper::MainGuard;

use super::VigilShared;
use super::message::for_people;

/// What the program is told of the service besides what the service itself was told: the PID of its main process.
const MAIN_PID: &str = "MAINPID";
/// Is meant for the service alone: what this program says there is not heard.
const NOT_FOR_PROGRAMS: [&str; 2] = ["NOTIFY_SOCKET", "WATCHDOG_USEC"];
/// So much of what it writes is kept, in bytes: the end of it, where most programs say what went wrong.
pub(super) const KEPT: usize = 4096;
/// So much is read of it without a pause.
const EAGERLY: usize = 1 << 20;
/// The pause after each read above that, which bounds what a program that never stops writing costs the daemon.
const PAUSE: Duration = Duration::from_millis(1);
/// How soon a start that hangs is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// The right to run a program, so that none overlaps with itself: given back only when nothing of the last one is left.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

/// How many programs are running.
#[derive(Clone, Debug)]
pub(super) struct Running(Arc<watch::Sender<usize>>);

impl Default for Running {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One of them, until dropped.
struct Entered(Arc<watch::Sender<usize>>);

impl Running {
    fn enter(&self) -> Entered {
        self.0.send_modify(|running| *running += 1);
        Entered(self.0.clone())
    }

    pub(super) async fn ended(&self) {
        drop(self.0.subscribe().wait_for(|running| *running == 0).await);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// A program that is ready to run.
#[derive(Debug)]
pub(super) struct Program {
    spec: Arc<Spec>,
    launch: Launch,
}

impl Program {
    /// These words, with the user, directory and environment of the sub-process.
    pub(super) fn of(spec: &Spec, words: &[String], mut launch: Launch, main: Option<u32>) -> Self {
        let mut spec = spec.clone();
        (spec.cmd, spec.args, spec.shell) = (words.to_vec(), Vec::new(), false);
        launch.args.clear();
        launch.notify_socket = None;
        launch.env.retain(|key, _| !NOT_FOR_PROGRAMS.contains(&key.as_str()));
        launch.env.extend(main.map(|main| (MAIN_PID.to_owned(), main.to_string())));
        Self { spec: Arc::new(spec), launch }
    }

    /// Runs it; exit code 0 is good. Ends it whole when it takes longer than `within` or this future is dropped, and what it leaves behind in any
    /// case; the ending goes on when the answer is there.
    pub(super) async fn run(self, shared: Arc<VigilShared>, turn: Turn, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        let Ok(turn) = tokio::time::timeout_at(until, turn.0.lock_owned()).await else {
            return Err("what is left of the program of an earlier try cannot be ended".to_owned());
        };
        let (answer, answered) = oneshot::channel();
        let entered = shared.running.enter();
        let life = Life { shared, until, within, answer, _turn: turn, _entered: entered };
        // A task of its own: what it starts must be ended also when nobody waits for the answer any more.
        tokio::spawn(life.live(self));
        answered.await.unwrap_or_else(|_| Err("the program could not be run".to_owned()))
    }
}

/// One run of a program, to its very end.
struct Life {
    shared: Arc<VigilShared>,
    until: Instant,
    within: Duration,
    /// Closed when nobody wants to know any more.
    answer: oneshot::Sender<Result<(), String>>,
    _turn: OwnedMutexGuard<()>,
    _entered: Entered,
}

/// How a program came to its end.
enum End {
    Exited(Option<ExitStatus>),
    TooLong,
    Unwanted,
}

impl Life {
    async fn live(mut self, program: Program) {
        let uuid = uuid::Uuid::new_v4().to_string();
        let (spawned, mut output) = match self.start(program, &uuid).await {
            Ok(started) => started,
            Err(message) => {
                self.shared.reaped.notify_one();
                return drop(self.answer.send(Err(message)));
            }
        };
        let Spawned { identity, fd, guard, group, .. } = spawned;
        // Held until nothing is left: it tells whose the processes are that this one starts.
        let _root = self.shared.forest.plant(&uuid, identity);
        self.shared.reaped.notify_one();
        let process = match readiness::watch(fd) {
            Ok(fd) => Process { fd, identity, _guard: guard },
            Err(error) => {
                self.kill_unwatched(identity, guard, Whole { uuid, except: None, group }).await;
                return drop(self.answer.send(Err(format!("the program cannot be watched: {error}"))));
            }
        };
        let end = tokio::select! {
            biased;
            status = process.exited() => End::Exited(status),
            never = output.drain() => match never {},
            () = tokio::time::sleep_until(self.until) => End::TooLong,
            () = self.answer.closed() => End::Unwanted,
        };
        let result = match &end {
            End::Exited(Some(ExitStatus::Exited(0))) => Ok(()),
            End::Exited(status) => Err(output.explain(&ended(*status))),
            End::TooLong => Err(output.explain(&format!("the program took longer than {} s", self.within.as_secs_f64()))),
            End::Unwanted => Err(String::new()),
        };
        drop(self.answer.send(result));
        drop(output); // whatever still writes gets SIGPIPE
        let mut sent = None;
        if !matches!(end, End::Exited(_)) {
            tree::send(process.fd.get_ref(), identity.pid, Signal::KILL);
            sent = Some(identity);
        }
        let mut ender = Ender::begin(self.shared.forest.clone(), Whole { uuid, except: None, group }, Signal::KILL, sent);
        let reaped = async {
            if !matches!(end, End::Exited(_)) {
                process.exited().await;
            }
            drop(process);
            self.shared.reaped.notify_one();
        };
        tokio::join!(reaped, gone(&mut ender));
    }

    /// Starts it, with a pipe to hear it by.
    async fn start(&mut self, program: Program, uuid: &str) -> Result<(Spawned, Output), String> {
        let refused = |error: std::io::Error| format!("no pipe for the output of the program: {error}");
        let (reader, writer) = std::io::pipe().map_err(refused)?;
        let output = Output::new(pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(refused)?, self.shared.kept);
        let spawner = self.shared.spawner.clone();
        let starting = spawner.clone().spawn_into(program.spec, program.launch, uuid.to_owned(), writer.into());
        tokio::pin!(starting);
        let told = |failure: SpawnFailure| failure.to_string();
        tokio::select! {
            biased;
            started = &mut starting => return started.map(|spawned| (spawned, output)).map_err(told),
            () = tokio::time::sleep_until(self.until) => {}
            () = self.answer.closed() => {}
        }
        loop {
            spawner.kill(uuid);
            match tokio::time::timeout(KILL_AGAIN, &mut starting).await {
                // It came to life after all, and its time is over.
                Ok(Ok(spawned)) => return Ok((spawned, output)),
                Ok(Err(_)) => return Err(format!("the program could not be started within {} s", self.within.as_secs_f64())),
                Err(_) => {}
            }
        }
    }

    /// Ends a program that no descriptor of the runtime could be had for.
    async fn kill_unwatched(&self, identity: Identity, guard: MainGuard, whole: Whole) {
        // Given up, it is an orphan like any other once it has ended.
        drop(guard);
        let mut ender = Ender::begin(self.shared.forest.clone(), whole, Signal::KILL, None);
        if let Ok(Some(fd)) = tree::hold(identity) {
            tree::send(&fd, identity.pid, Signal::KILL);
        }
        self.shared.reaped.notify_one();
        gone(&mut ender).await;
    }
}

/// Until nothing of it is left.
async fn gone(ender: &mut Ender) {
    while let Ending::Survivors(_) = ender.next().await {}
}

fn ended(status: Option<ExitStatus>) -> String {
    match status {
        Some(ExitStatus::Exited(code)) => format!("the program exited with {code}"),
        Some(ExitStatus::Signalled { signal, .. }) => format!("signal {signal} ended the program"),
        None => "the program ended, and nobody can tell how".to_owned(),
    }
}

struct Process {
    fd: AsyncFd<PidFd>,
    identity: Identity,
    _guard: MainGuard,
}

impl Process {
    /// Resolves when it has ended, reaped.
    async fn exited(&self) -> Option<ExitStatus> {
        loop {
            let Ok(mut guard) = self.fd.readable().await else { return None };
            match self.fd.get_ref().reap() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => guard.clear_ready(),
                Err(error) => {
                    tracing::error!(pid = self.identity.pid, fd = self.fd.as_raw_fd(), %error, "a program ended, and nobody can tell how");
                    return None;
                }
            }
        }
    }
}

/// What it writes.
struct Output {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
    most: usize,
    read: usize,
}

impl Output {
    fn new(pipe: pipe::Receiver, most: usize) -> Self {
        Self { pipe, kept: Vec::new(), most, read: 0 }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.read = self.read.saturating_add(bytes.len());
        self.kept.extend_from_slice(bytes);
        self.kept.drain(..self.kept.len().saturating_sub(self.most));
    }

    /// Reads for as long as it is polled.
    async fn drain(&mut self) -> std::convert::Infallible {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            if self.pipe.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
            match self.pipe.try_read(&mut buffer) {
                Ok(length @ 1..) => self.keep(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // At its end, or broken: there is nothing more to hear.
                Ok(0) | Err(_) => std::future::pending::<()>().await,
            }
            if self.read > EAGERLY {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// What happened, and the last line that the program wrote.
    fn explain(&mut self, what: &str) -> String {
        let mut buffer = [0; KEPT];
        // What it wrote just before its end; others may hold the pipe open, and are not waited for.
        for _ in 0..16 {
            match self.pipe.try_read(&mut buffer) {
                Ok(length @ 1..) => self.keep(&buffer[..length]),
                Ok(0) | Err(_) => break,
            }
        }
        let line = self.kept.split(|byte| *byte == b'\n').map(|line| for_people(line, 200)).rfind(|line| !line.is_empty());
        line.map_or_else(|| what.to_owned(), |line| format!("{what}: {line}"))
    }
}
