//! Others that keep a program up: supervisors from PyPI, unpacked below `target/` by `scripts/install-needs bench`, and the bare loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use procman::procfs::Table;
use procman::protocol::Signal;
use procman::sys::pidfd::PidFd;

use crate::Outcome;
use crate::daemon::ended_within;

/// A supervisor that people use.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// How long it may take until it notices that a process has ended.
    pub(crate) looks_every: Duration,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Its configuration to keep one program up, started again at once and for ever; the rest is as it comes.
    configuration: fn(directory: &str, command: &str) -> String,
}

impl Peer {
    pub(crate) const ALL: &'static [Self; 2] = &[
        Self {
            name: "supervisord",
            looks_every: Duration::from_secs(1),
            program: "supervisord",
            arguments: &["--nodaemon", "--configuration"],
            configuration: |directory, command| {
                format!(
                    "[supervisord]\nlogfile={directory}/supervisord.log\npidfile={directory}/supervisord.pid\nchildlogdir={directory}\n\
                     [program:kept]\ncommand={command}\nautorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
                )
            },
        },
        Self {
            name: "circus",
            looks_every: Duration::from_secs(5),
            program: "circusd",
            arguments: &[],
            configuration: |directory, command| {
                format!(
                    "[circus]\nendpoint = ipc://{directory}/control\npubsub_endpoint = ipc://{directory}/events\n\
                     [watcher:kept]\ncmd = {command}\nnumprocesses = 1\nmax_retry = -1\nwarmup_delay = 0\n"
                )
            },
        },
    ];

    /// Scripts in the virtual environment name their interpreter by its whole path; called like this they need no short one.
    fn paths(&self) -> [PathBuf; 2] {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/peers/bin");
        [tools.join("python"), tools.join(self.program)]
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.paths().iter().all(|path| path.exists())
    }

    /// Has it keep this command up, with all that it writes in this directory.
    pub(crate) fn keep_up(&self, directory: &Path, command: &[String]) -> Outcome<Keeper> {
        let configuration = directory.join(format!("{}.ini", self.program));
        fs::write(&configuration, (self.configuration)(&directory.display().to_string(), &command.join(" ")))?;
        let [python, program] = self.paths();
        let mut process = Process::new(python);
        process.arg(program).args(self.arguments).arg(configuration).current_dir(directory);
        Keeper::start(&mut process, Farewell::ToItself)
    }
}

/// Whose end makes a keeper leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    ToItself,
    ToChildren,
}

/// A process that keeps another one up. Both have ended when this is dropped.
pub(crate) struct Keeper {
    process: Child,
    fd: PidFd,
    farewell: Farewell,
}

/// How long a keeper may take to leave; its children may first be given time to end.
const LEAVING: Duration = Duration::from_secs(30);

impl Keeper {
    pub(crate) fn start(command: &mut Process, farewell: Farewell) -> Outcome<Self> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let fd = PidFd::open(process.id())?;
        Ok(Self { process, fd, farewell })
    }

    /// Lets this time pass; an error when it ends meanwhile.
    pub(crate) fn let_pass(&self, time: Duration) -> Outcome<()> {
        if ended_within(&self.fd, time)? { Err("it has ended".into()) } else { Ok(()) }
    }

    /// Its children, held while they cannot have been reaped by anybody but itself.
    fn children(&self) -> Outcome<Vec<PidFd>> {
        let table = Table::scan()?;
        Ok(table.children_of(self.process.id()).filter_map(|stat| PidFd::open(stat.pid).ok()).collect())
    }

    fn end(&mut self) -> Outcome<()> {
        let children = self.children()?;
        let asked: Vec<&PidFd> = match self.farewell {
            Farewell::ToItself => vec![&self.fd],
            Farewell::ToChildren => children.iter().collect(),
        };
        for fd in asked {
            fd.send_signal(Signal::TERM.number())?;
        }
        let left = ended_within(&self.fd, LEAVING)?;
        if !left {
            self.process.kill()?;
        }
        self.process.wait()?;
        let mut all_ended = true;
        for child in &children {
            if !ended_within(child, Duration::ZERO)? {
                all_ended = false;
                child.send_signal(Signal::KILL.number())?;
            }
        }
        if left && all_ended { Ok(()) } else { Err("it did not leave when asked, and was killed with what it kept up".into()) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None))
            && let Err(error) = self.end()
        {
            eprintln!("floors: {error}");
        }
    }
}
