//! SIGKILL of a child until the new one runs, against a bare loop of wait(2) and `posix_spawn`, and against supervisors that people use.
//!
//! Every contestant keeps the same program up, which says its PID once it runs: what is timed is the way from the signal to the word of the
//! new process, seen from outside and in the same way for all.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use procman::protocol::definition::{BackoffDefinition, Definition, Seconds, StartLimitDefinition};
use procman::protocol::{RestartPolicy, Signal};
use procman::sys::pidfd::PidFd;

use crate::Outcome;
use crate::daemon::{Containment, Daemon, names};
use crate::peers::{Farewell, Keeper, Peer};
use crate::sample::Samples;
use crate::table::Row;

/// The argument that makes this program the bare loop.
pub(crate) const KEEPER: &str = "keep-up";

const ROUNDS: usize = 200;
/// Sub-processes that run beside the one that is killed.
const NEIGHBOURS: usize = 500;
/// How long the next process may take: some look every five seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the program that is kept up says that it runs.
struct Stage {
    directory: tempfile::TempDir,
    announced: File,
}

impl Stage {
    fn set() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let (announced, never) = (directory.path().join("announced"), directory.path().join("never"));
        for pipe in [&announced, &never] {
            mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        // It waits for a writer that does not come, which costs it nothing and needs no further program.
        let script = format!("echo $$ >'{}'\nread never <'{}'\n", announced.display(), never.display());
        fs::write(directory.path().join("program"), script)?;
        // For writing, too: then it opens at once, and never ends.
        let announced = OpenOptions::new().read(true).write(true).open(announced)?;
        Ok(Self { directory, announced })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self) -> [String; 2] {
        ["/bin/sh".to_owned(), self.directory.path().join("program").display().to_string()]
    }

    /// The PID that the next process says.
    fn next(&mut self) -> Outcome<u32> {
        let ready = poll(&mut [PollFd::new(self.announced.as_fd(), PollFlags::POLLIN)], PollTimeout::try_from(PATIENCE)?)?;
        if ready == 0 {
            return Err("no new process came".into());
        }
        let mut text = [0; 32];
        let length = self.announced.read(&mut text)?;
        Ok(std::str::from_utf8(&text[..length])?.trim().parse()?)
    }
}

/// Somebody who keeps the program up, and how fast.
struct Contestant<K> {
    /// Ended before its stage is cleared away.
    keeper: K,
    stage: Stage,
    pid: u32,
    samples: Samples,
}

impl<K> Contestant<K> {
    fn new(begin: impl FnOnce(&Stage) -> Outcome<K>) -> Outcome<Self> {
        let mut stage = Stage::set()?;
        let keeper = begin(&stage)?;
        let pid = stage.next()?;
        Ok(Self { keeper, stage, pid, samples: Samples::default() })
    }

    fn round(&mut self) -> Outcome<()> {
        let fd = PidFd::open(self.pid)?;
        let began = Instant::now();
        fd.send_signal(Signal::KILL.number())?;
        let next = self.stage.next()?;
        self.samples.push(began.elapsed());
        if next == self.pid {
            return Err("the same process again".into());
        }
        self.pid = next;
        Ok(())
    }
}

/// Which of the times are shown.
const SHARES: [(f64, &str); 3] = [(0.5, "p50"), (0.9, "p90"), (1.0, "max")];

fn rows(what: &str, samples: &Samples, floor: &Samples) -> [Row; 3] {
    SHARES.map(|(share, word)| {
        let row = Row::new(format!("SIGKILL until the new one runs{what}, {word}"), samples.quantile(share));
        row.against(floor.quantile(share), "wait and posix_spawn")
    })
}

/// The life of the bare loop: keeps up the program that the arguments say, for as long as SIGKILL ends it.
pub(crate) fn keep_up(arguments: &[String]) -> Outcome<()> {
    let [program, arguments @ ..] = arguments else { return Err("say a program".into()) };
    loop {
        // Without anything to do between fork and exec, the standard library uses posix_spawn(3).
        let status = Process::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if status.signal() != Some(Signal::KILL.number()) {
            return Ok(());
        }
    }
}

/// The bare loop, in a process of its own as the daemon is one.
fn bare_loop(stage: &Stage) -> Outcome<Keeper> {
    let mut command = Process::new(std::env::current_exe()?);
    command.arg(KEEPER).args(stage.command());
    Keeper::start(&mut command, Farewell::ToChildren)
}

fn daemon(stage: &Stage, containment: Containment, neighbours: usize) -> Outcome<Daemon> {
    let mut daemon = Daemon::start_with(containment)?;
    let neighbours = names(0..neighbours)?;
    daemon.register(&neighbours)?;
    daemon.execute_pipelined(&neighbours)?;
    let at_once = BackoffDefinition { initial: Seconds::new(0.0), ..BackoffDefinition::default() };
    let definition = Definition {
        cmd: Some(stage.command().into()),
        restart: Some(RestartPolicy::Always),
        backoff: Some(at_once),
        start_limit: Some(StartLimitDefinition { count: Some(0), interval: None }),
        ..Definition::default()
    };
    let name = "kept".parse()?;
    daemon.define(&name, definition)?;
    daemon.execute(&[name])?;
    Ok(daemon)
}

/// How often each of the peers is measured.
const PEER_ROUNDS: u32 = 12;

/// Times one of the peers, each time at another moment of its own round.
fn measure_peer(peer: &Peer) -> Outcome<Samples> {
    let mut contestant = Contestant::new(|stage| peer.keep_up(stage.path(), &stage.command()))?;
    for round in 1..=PEER_ROUNDS {
        // Multiples of the golden ratio spread evenly over the round, however many there are.
        let share = (f64::from(round) * 0.618_034).fract();
        contestant.keeper.let_pass(peer.looks_every.mul_f64(share))?;
        contestant.round()?;
    }
    Ok(contestant.samples)
}

/// Times a daemon with so many other sub-processes, in turns with the bare loop.
fn measure_daemon(containment: Containment, neighbours: usize) -> Outcome<(Samples, Samples)> {
    let mut bare = Contestant::new(bare_loop)?;
    let mut daemon = Contestant::new(|stage| daemon(stage, containment, neighbours))?;
    for _ in 0..ROUNDS {
        bare.round()?;
        daemon.round()?;
    }
    daemon.keeper.leave()?;
    Ok((daemon.samples, bare.samples))
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let (mut table, mut floor) = (Vec::new(), Samples::default());
    for (containment, word) in Containment::kinds()? {
        let (alone, bare) = measure_daemon(containment, 0)?;
        let [p50, p90, max] = rows(word, &alone, &bare);
        table.extend([p50.ratio_at_most(2.0), p90, max]);
        let (crowded, bare_beside) = measure_daemon(containment, NEIGHBOURS)?;
        table.extend(rows(&format!("{word}, beside {NEIGHBOURS} others"), &crowded, &bare_beside));
        floor = bare;
    }

    let measured = std::thread::scope(|scope| {
        let measure =
            |peer: &'static Peer| move || peer.is_installed().then(|| measure_peer(peer).map_err(|error| error.to_string())).transpose();
        let threads = Peer::ALL.each_ref().map(|peer| scope.spawn(measure(peer)));
        threads.map(|thread| thread.join().unwrap_or_else(|_| Err("the measuring failed".to_owned())))
    });
    for (peer, measured) in Peer::ALL.iter().zip(measured) {
        let what = format!(", {}", peer.name);
        match measured? {
            Some(samples) => table.extend(rows(&what, &samples, &floor)),
            None => table.push(Row::without(format!("SIGKILL until the new one runs{what}"), "not installed")),
        }
    }
    Ok(table)
}
