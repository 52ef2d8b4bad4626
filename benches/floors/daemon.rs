//! The daemon that is measured, and what it is asked.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use procman::client::{Client, ClientOptions};
use procman::protocol::codec::{decode_reply, encode_request};
use procman::protocol::definition::Definition;
use procman::protocol::envelope::Reply;
use procman::protocol::reply::{Each, Ended, Executed, Info, Pong};
use procman::protocol::request::{Command, Execute, NoArgs, Quit, Register};
use procman::protocol::{Name, Signal};
use procman::sys::pidfd::PidFd;
use serde::de::DeserializeOwned;

use crate::Outcome;

/// What every sub-process runs: nothing of its own, for longer than any part of the measuring takes.
pub(crate) const SLEEP: [&str; 2] = ["/bin/sleep", "1000"];

/// How long anything may take that is not itself measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that wait for their answers at a time: below what one client may have in work.
const PIPELINE: usize = 500;

/// How long the daemon may take to leave.
const LEAVING: Duration = Duration::from_secs(120);

/// A running daemon, quit with all its sub-processes at the latest when this is dropped.
pub(crate) struct Daemon {
    process: Child,
    fd: PidFd,
    client: Client,
    pub(crate) info: Info,
    directory: tempfile::TempDir,
}

/// How a daemon holds the processes of a run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Containment {
    /// As it comes: by control groups, where it may make them.
    Best,
    /// Without them.
    Forest,
}

impl Containment {
    /// Those that differ on this host, each with what is said of it behind what is measured.
    pub(crate) fn kinds() -> Outcome<Vec<(Self, &'static str)>> {
        let daemon = Daemon::start()?;
        let groups = daemon.info.capabilities.cgroup;
        daemon.leave()?;
        Ok(if groups { vec![(Self::Best, ""), (Self::Forest, ", without cgroups")] } else { vec![(Self::Best, ", without cgroups")] })
    }

    fn configuration(self) -> &'static str {
        match self {
            Self::Best => "",
            Self::Forest => "daemon.cgroup = 'off'\n",
        }
    }
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    pub(crate) rss: u64,
    pub(crate) uss: u64,
}

impl Daemon {
    /// A daemon without sub-processes, at a Unix socket and at a free port of the loopback interface.
    pub(crate) fn start() -> Outcome<Self> {
        Self::start_with(Containment::Best)
    }

    /// The same with this way to hold processes together.
    pub(crate) fn start_with(containment: Containment) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("floors.toml");
        let common = "daemon.state_dir = 'state'\ndaemon.runtime_dir = 'run'\nmetrics.listen = '127.0.0.1:0'\n\
                      control.endpoints = ['ipc://./run/control.sock', 'tcp://127.0.0.1:*']\n";
        fs::write(&config, format!("{common}{}", containment.configuration()))?;
        Self::launch(directory)
    }

    /// Kills it and nothing else, and starts the next one in its place; answers also how long that took until it answered.
    pub(crate) fn succeeded(mut self) -> Outcome<(Self, Duration)> {
        self.process.kill()?;
        self.process.wait()?;
        // The directory goes to the next one, the rest is dropped: its process has ended.
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir()?);
        drop(self);
        let began = Instant::now();
        let next = Self::launch(directory)?;
        Ok((next, began.elapsed()))
    }

    /// Where it writes down what must outlive it.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("state/procman.db")
    }

    /// A daemon in a directory that holds its configuration.
    fn launch(directory: tempfile::TempDir) -> Outcome<Self> {
        let config = directory.path().join("floors.toml");
        let log = directory.path().join("log");
        let mut process = Process::new(env!("CARGO_BIN_EXE_procmand"))
            .arg("--config")
            .arg(&config)
            .env("PROCMAN_LOG", "warn")
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let fd = PidFd::open(process.id())?;
        let endpoint = format!("ipc://{}", directory.path().join("run/control.sock").display()).parse()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = Client::connect(&endpoint, ClientOptions { timeout: PATIENCE })
                .and_then(|mut client| client.request::<Info>(&Command::Info(NoArgs {})).map(|info| (client, info)));
            match asked {
                Ok((client, info)) => return Ok(Self { process, fd, client, info, directory }),
                Err(error) if Instant::now() > deadline => {
                    process.kill()?;
                    process.wait()?;
                    return Err(error.into());
                }
                Err(_) if ended_within(&fd, Duration::from_millis(10))? => {
                    return Err(format!("the daemon left with {}: {}", process.wait()?, fs::read_to_string(&log)?).into());
                }
                Err(_) => {}
            }
        }
    }

    /// Asks, and answers with the result.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, command: &Command) -> Outcome<T> {
        Ok(self.client.request(command)?)
    }

    pub(crate) fn ping(&mut self) -> Outcome<Pong> {
        self.ask(&Command::Ping(NoArgs {}))
    }

    /// Where it takes requests, by its scheme: `ipc` or `tcp`.
    pub(crate) fn endpoint(&self, scheme: &str) -> Outcome<String> {
        Ok(self.info.endpoints.iter().find(|endpoint| endpoint.starts_with(scheme)).ok_or("the daemon has no such endpoint")?.clone())
    }

    /// Registers sleepers under these names.
    pub(crate) fn register(&mut self, names: &[Name]) -> Outcome<()> {
        for name in names {
            let definition = Definition { cmd: Some(SLEEP.map(str::to_owned).into()), ..Definition::default() };
            self.define(name, definition)?;
        }
        Ok(())
    }

    /// Registers one of another kind.
    pub(crate) fn define(&mut self, name: &Name, definition: Definition) -> Outcome<()> {
        let register = Register { name: name.clone(), replace: false, definition };
        self.ask::<procman::protocol::reply::View>(&Command::Register(Box::new(register))).map(drop)
    }

    /// Starts them, one after the other.
    pub(crate) fn execute(&mut self, names: &[Name]) -> Outcome<()> {
        for name in names {
            self.ask::<Executed>(&execute(name))?;
        }
        Ok(())
    }

    /// Starts them, [`PIPELINE`] asked for ahead of the answers.
    pub(crate) fn execute_pipelined(&self, names: &[Name]) -> Outcome<()> {
        let context = zmq::Context::new();
        let dealer = context.socket(zmq::DEALER)?;
        dealer.set_rcvtimeo(i32::try_from(PATIENCE.as_millis())?)?;
        dealer.set_linger(0)?;
        dealer.connect(&self.endpoint("ipc")?)?;
        let ask = |name| -> Outcome<()> { Ok(dealer.send_multipart([Vec::new(), encode_request(&execute(name), None)?], 0)?) };
        let mut ahead = names.iter();
        ahead.by_ref().take(PIPELINE).try_for_each(ask)?;
        for _ in names {
            let frames = dealer.recv_multipart(0)?;
            let reply: Reply<Executed> = decode_reply(frames.last().ok_or("an answer without a frame")?)?;
            if let Some(error) = reply.error {
                return Err(error.to_string().into());
            }
            ahead.next().map_or(Ok(()), ask)?;
        }
        Ok(())
    }

    /// Quits all that run; every one must have ended when asked.
    pub(crate) fn quit_all(&mut self) -> Outcome<()> {
        let ended: Vec<Each<Ended>> = self.ask(&Command::Quit(Quit { all: true, ..Quit::default() }))?;
        for each in ended {
            match each {
                Each::Done(ended) if ended.survivors == 0 && ended.killed.is_empty() => {}
                other @ (Each::Done(_) | Each::Refused { .. }) => return Err(format!("not quit: {other:?}").into()),
            }
        }
        Ok(())
    }

    /// Lets this time pass; an error when the daemon ends meanwhile.
    pub(crate) fn let_pass(&self, time: Duration) -> Outcome<()> {
        if ended_within(&self.fd, time)? { Err("the daemon has ended".into()) } else { Ok(()) }
    }

    /// Its memory, once that has not changed for two seconds.
    pub(crate) fn settled_memory(&self) -> Outcome<MemoryUse> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.memory()?;
        let mut unchanged = 0;
        while unchanged < 4 && Instant::now() < deadline {
            self.let_pass(Duration::from_millis(500))?;
            let now = self.memory()?;
            unchanged = if now == last { unchanged + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    fn memory(&self) -> Outcome<MemoryUse> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id()))?;
        let sum = |keys: &[&str]| -> u64 {
            let kib = |line: &str| line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
            text.lines().filter(|line| keys.iter().any(|key| line.starts_with(key))).filter_map(kib).sum::<u64>() * 1024
        };
        Ok(MemoryUse { rss: sum(&["Rss:"]), uss: sum(&["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"]) })
    }

    /// Seconds of processor time that it has used.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        // Finer than the clock ticks of proc_pid_stat(5), of which an idle daemon takes a handful (clock_getcpuclockid(3)).
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(self.process.id())?))?;
        Ok(Duration::from(clock.now()?).as_secs_f64())
    }

    /// The value of one series of its metrics.
    pub(crate) fn metric(&self, series: &str) -> Outcome<f64> {
        let page = self.scrape()?;
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        Ok(value.ok_or_else(|| format!("there is no series {series}"))?)
    }

    /// All of its metrics, as it serves them.
    pub(crate) fn scrape(&self) -> Outcome<String> {
        let url = self.info.metrics_endpoint.as_deref().ok_or("the daemon serves no metrics")?;
        let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }

    /// Asks it to leave and waits until it has.
    pub(crate) fn leave(mut self) -> Outcome<()> {
        self.end()
    }

    fn end(&mut self) -> Outcome<()> {
        self.fd.send_signal(Signal::TERM.number())?;
        if !ended_within(&self.fd, LEAVING)? {
            // Hurries: what is left of its sub-processes is killed.
            self.fd.send_signal(Signal::TERM.number())?;
            if !ended_within(&self.fd, PATIENCE)? {
                self.process.kill()?;
            }
        }
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the daemon left with {status}").into()) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None))
            && let Err(error) = self.end()
        {
            eprintln!("floors: {error}");
        }
    }
}

/// Names in a row, all of the same length.
pub(crate) fn names(range: std::ops::Range<usize>) -> Outcome<Vec<Name>> {
    range.map(|number| format!("sleep{number:04}").parse::<Name>().map_err(Into::into)).collect()
}

fn execute(name: &Name) -> Command {
    Command::Execute(Execute { name: name.clone(), args: Vec::new(), env: std::collections::BTreeMap::new(), wait: false, timeout: None })
}

/// Whether this process ends within this time.
pub(crate) fn ended_within(fd: &PidFd, time: Duration) -> Outcome<bool> {
    let timeout = PollTimeout::try_from(time)?;
    Ok(poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout)? > 0)
}
