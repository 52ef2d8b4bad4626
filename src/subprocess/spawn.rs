//! Starting one run: what the definition says becomes a [`Program`], and threads that may wait execute it.
//!
//! A start can block for long (a working directory on a dead network mount, a user database that does not answer), so it never happens on a thread
//! of the runtime. The threads of a [`Spawner`] never end: a child belongs to the thread that made it, and must not move while it is looked at.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use crate::output::{Lease, Outputs};
use crate::procfs::{self, Identity, MARKER, OWNER};
use crate::protocol::definition::LimitsDefinition;
use crate::sys::clone::{self, CloneError, Program, Step};
use crate::sys::crash;
use crate::sys::limits::{Limit, Nofile};
use crate::sys::pidfd::PidFd;
use crate::sys::reaper::{MainGuard, Mains};

use super::account::Account;
use super::containment::{Containment, RunGroup};
use super::env_file;
use super::gate::Closed;
use super::ledger::Written;
use super::reserve::Reserve;
use super::spec::Spec;
use super::streams::Streams;
use super::vigil::NotifySocket;

/// What one run gets besides the definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Further arguments, behind the definition's.
    pub args: Vec<String>,
    /// Further environment variables, over the definition's.
    pub env: BTreeMap<String, String>,
    /// The socket that it notifies, made for this run; given to the user that it runs as.
    pub notify_socket: Option<PathBuf>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Which.
    pub identity: Identity,
    /// Held by descriptor.
    pub fd: PidFd,
    /// The right to reap it.
    pub guard: MainGuard,
    /// What it was started in, where runs have groups.
    pub group: Option<Arc<RunGroup>>,
    /// On the monotonic clock.
    pub started: Instant,
    /// On the wall clock, for people.
    pub started_at: SystemTime,
    /// Its log files, which are looked after for as long as these are kept.
    pub leases: Vec<Lease>,
}

/// What the operating system was asked for when it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The user database.
    FindUser(String),
    /// The group database.
    FindGroup(String),
    /// The file of environment variables.
    ReadEnvFile(PathBuf),
    /// What stands in that file.
    ParseEnvFile(PathBuf, env_file::Wrong),
    /// The file of standard output or error.
    OpenOutput(PathBuf),
    /// journald's socket.
    OpenJournal(PathBuf),
    /// Descriptors beyond those that the daemon keeps for its own work.
    Reserve,
    /// The process itself: memory, the limit on processes.
    Clone,
    /// Becoming its user, and of its groups.
    BecomeUser,
    /// This limit, by its key in `limits`.
    SetLimit(&'static str),
    /// This attribute, by its key.
    SetAttribute(&'static str),
    /// The working directory.
    ChangeDirectory(PathBuf),
    /// The program.
    Execute,
    /// The program is there; what it names as its interpreter is not.
    Interpret,
    /// Keeping watch over the new process, which was killed again.
    Watch,
    /// The socket at which it would say that it is ready.
    BindNotify,
    /// Waiting for what it requires, which has ended for good.
    Require(Closed),
    /// Being the only one: this process of it, which an earlier daemon has started, still runs.
    BeAlone(u32),
}

/// Why a run could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {} ({})", self.sentence(), crate::sys::errno_message(*errno), crate::sys::errno_name(*errno))]
pub struct SpawnFailure {
    /// What was refused.
    pub operation: Operation,
    /// How (errno(3)).
    pub errno: i32,
    /// The program that was to run.
    pub command: String,
}

impl SpawnFailure {
    fn sentence(&self) -> String {
        match &self.operation {
            Operation::FindUser(user) => format!("cannot find the user {user:?}"),
            Operation::FindGroup(group) => format!("cannot find the group {group:?}"),
            Operation::ReadEnvFile(path) => format!("cannot read the environment file {} (`env_file`)", path.display()),
            Operation::ParseEnvFile(path, env_file::Wrong { line, what }) => {
                format!("line {line} of the environment file {} is wrong, {what}", path.display())
            }
            Operation::OpenOutput(path) => format!("cannot open the output file {}", path.display()),
            Operation::OpenJournal(path) => {
                format!("cannot connect to journald at {}, say \"log\" or \"file:/path\" where no journald runs", path.display())
            }
            Operation::Reserve => format!(
                "too few descriptors are left to start {:?}; quit something, or start the daemon with a higher limit (LimitNOFILE=, ulimit -n)",
                self.command
            ),
            Operation::Clone => format!("cannot make a process for {:?}", self.command),
            Operation::BecomeUser => format!(
                "cannot run {:?} as another user or with other groups (`user`, `user_group`, `supplementary_groups`){}",
                self.command,
                self.needs_root("")
            ),
            Operation::SetLimit(key) => format!("cannot set the limit `limits.{key}`{}", self.needs_root("to raise a hard limit ")),
            Operation::SetAttribute(key) => format!("cannot set `{key}`{}", self.needs_root("to lower it ")),
            Operation::ChangeDirectory(path) => format!("cannot change to the directory {}", path.display()),
            Operation::Execute => format!("cannot execute {:?}", self.command),
            Operation::Interpret => {
                format!("cannot execute {:?}: the file is there, but the interpreter that it names is not", self.command)
            }
            Operation::Watch => format!("cannot watch the process of {:?}", self.command),
            Operation::BindNotify => "cannot make the socket of `notify` in the runtime directory".to_owned(),
            Operation::Require(Closed { name, state }) => format!("it requires {name}, which is {state}"),
            Operation::BeAlone(pid) => format!(
                "process {pid} of it, which an earlier daemon has started, still runs unsupervised; end that by hand, or start the daemon again, which takes \
                 it over by now"
            ),
        }
    }
}

impl SpawnFailure {
    /// The remedy, where the daemon's user is what is in the way.
    fn needs_root(&self, what: &str) -> String {
        let refused = matches!(self.errno, libc::EPERM | libc::EACCES);
        if refused { format!("; {what}the daemon must run as root, or leave the key out") } else { String::new() }
    }

    /// A start that was not made, because what it requires has ended for good.
    pub(super) fn required(spec: &Spec, closed: Closed) -> Self {
        Self { operation: Operation::Require(closed), errno: libc::ECANCELED, command: program_name(spec) }
    }
}

/// Variables that systemd means for the daemon alone (sd_notify(3), sd_listen_fds(3), systemd.exec(5)).
const NOT_FOR_CHILDREN: [&str; 9] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "JOURNAL_STREAM", MARKER, OWNER];

/// Threads that start processes.
#[derive(Clone, Debug)]
pub struct Spawner(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    mains: Arc<Mains>,
    environment: Vec<(OsString, OsString)>,
    /// The daemon's id, which tells its processes from another daemon's.
    id: String,
    nofile: Option<Nofile>,
    containment: Arc<Containment>,
    outputs: Outputs,
    reserve: Reserve,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Where the kernel writes the PID of each start that is under way, by its UUID.
    working: HashMap<String, Arc<AtomicI32>>,
    threads: usize,
    idle: usize,
    /// Nothing more is taken up.
    paused: bool,
}

#[derive(Debug)]
struct Job {
    spec: Arc<Spec>,
    launch: Launch,
    uuid: String,
    /// Standard output and error, instead of what the definition says.
    output: Option<OwnedFd>,
    /// There is no process before this is written.
    written: Option<Written>,
    reply: oneshot::Sender<Result<Spawned, SpawnFailure>>,
}

/// Two keep both processors of a small host busy; the kernel's part of a start does not get faster with more.
const THREADS: usize = 2;
/// Each thread above [`THREADS`] stands for a start that hangs.
const MAX_THREADS: usize = 64;
/// A start that has not been taken up for this long waits behind others that hang.
const PATIENCE: Duration = Duration::from_millis(100);

impl Spawner {
    /// Children will be entered in `mains`, get the environment that this process has now and a mark with the daemon's `id`, and `nofile` as their
    /// limit, be held together as `containment` says, and get their logs from `outputs`.
    pub fn new(id: String, mains: Arc<Mains>, nofile: Option<Nofile>, containment: Arc<Containment>, outputs: Outputs) -> Self {
        let environment = std::env::vars_os().filter(|(key, _)| !NOT_FOR_CHILDREN.iter().any(|not| key == not)).collect();
        let (queue, ready, reserve) = (Mutex::default(), Condvar::new(), Reserve::new());
        Self(Arc::new(Shared { queue, ready, mains, environment, id, nofile, containment, outputs, reserve }))
    }

    /// Where the logs are.
    pub fn outputs(&self) -> &Outputs {
        &self.0.outputs
    }

    /// Starts a run; `uuid` becomes its marker. There is no process before `written`. Answers once the program was executed, or was refused.
    pub async fn spawn(self, spec: Arc<Spec>, launch: Launch, uuid: String, written: Written) -> Result<Spawned, SpawnFailure> {
        self.work_off(spec, launch, uuid, None, Some(written)).await
    }

    /// Starts a program of a sub-process that is none of its runs, and of which nothing is written down; its standard output and error go here.
    pub async fn spawn_into(self, spec: Arc<Spec>, launch: Launch, uuid: String, output: OwnedFd) -> Result<Spawned, SpawnFailure> {
        self.work_off(spec, launch, uuid, Some(output), None).await
    }

    async fn work_off(
        self,
        spec: Arc<Spec>,
        launch: Launch,
        uuid: String,
        output: Option<OwnedFd>,
        written: Option<Written>,
    ) -> Result<Spawned, SpawnFailure> {
        let failure = |errno| SpawnFailure { operation: Operation::Clone, errno, command: program_name(&spec) };
        let (reply, mut answer) = oneshot::channel();
        self.0.lock().jobs.push_back(Job { spec: spec.clone(), launch, uuid, output, written, reply });
        self.0.ready.notify_one();
        if let Err(error) = self.grow(THREADS)
            && self.0.lock().threads == 0
        {
            // Nobody is there to take it up; dropping the answer's receiver withdraws the job from whoever comes later.
            return Err(failure(error.raw_os_error().unwrap_or(libc::EAGAIN)));
        }
        loop {
            match tokio::time::timeout(PATIENCE, &mut answer).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) => return Err(failure(libc::ECANCELED)),
                // A thread more is a help, not a need: where it cannot be had, the job waits its turn.
                Err(_) => drop(self.grow(MAX_THREADS)),
            }
        }
    }

    /// Ends a start that hangs: one that no thread has taken up is withdrawn, and the process of one that is under way is killed before it becomes
    /// its program. Its caller is answered as soon as the kernel lets go of it.
    pub fn kill(&self, uuid: &str) {
        {
            let mut queue = self.0.lock();
            if let Some(at) = queue.jobs.iter().position(|job| job.uuid == uuid)
                && let Some(job) = queue.jobs.remove(at)
            {
                let failure = SpawnFailure { operation: Operation::Clone, errno: libc::ECANCELED, command: program_name(&job.spec) };
                drop(job.reply.send(Err(failure)));
            }
        }
        let Some(pid) = self.pid_of(uuid) else { return };
        // Nobody reaps it while its PID stands in the cell, so the PID is still its own; that it is our child says that we read the cell in time.
        if let Ok(fd) = PidFd::open(pid)
            && self.pid_of(uuid) == Some(pid)
            && procfs::read_stat(pid).is_ok_and(|stat| stat.ppid == std::process::id())
        {
            drop(fd.send_signal(libc::SIGKILL));
        }
    }

    /// Takes up nothing more, and waits until what is under way has its process, at most so long. For a daemon that leaves and lets live what it has
    /// started.
    pub async fn pause(&self, patience: Duration) {
        self.0.lock().paused = true;
        let deadline = Instant::now() + patience;
        while !self.0.lock().working.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Goes on: the daemon does not leave them after all.
    pub fn resume(&self) {
        self.0.lock().paused = false;
        self.0.ready.notify_all();
    }

    /// The UUIDs of those that nobody has taken up: nothing of them has begun.
    pub fn waiting(&self) -> Vec<String> {
        self.0.lock().jobs.iter().map(|job| job.uuid.clone()).collect()
    }

    /// The process of a start that is under way.
    pub fn pid_of(&self, uuid: &str) -> Option<u32> {
        let cell = self.0.lock().working.get(uuid).cloned()?;
        u32::try_from(cell.load(Ordering::Acquire)).ok().filter(|pid| *pid != 0)
    }

    /// Makes one more thread when a job waits, nobody is idle, and there are fewer than `most`.
    fn grow(&self, most: usize) -> io::Result<()> {
        let mut queue = self.0.lock();
        if queue.jobs.is_empty() || queue.idle > 0 || queue.threads >= most {
            return Ok(());
        }
        let shared = self.0.clone();
        std::thread::Builder::new().name(SPAWNER.into()).stack_size(256 * 1024).spawn(move || shared.work())?;
        queue.threads += 1;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one thread.
    fn work(&self) {
        let cell = self.mains.cell();
        loop {
            let mut job = {
                let mut queue = self.lock();
                loop {
                    match if queue.paused { None } else { queue.jobs.pop_front() } {
                        Some(job) if job.reply.is_closed() => continue,
                        Some(job) => break job,
                        None => {}
                    }
                    queue.idle += 1;
                    queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    queue.idle -= 1;
                }
            };
            self.lock().working.insert(job.uuid.clone(), cell.clone());
            let (output, written) = (job.output.take(), job.written.take());
            let result = self.start(&job, output, written, &cell);
            self.lock().working.remove(&job.uuid);
            if let Err(Ok(unwanted)) = job.reply.send(result) {
                // Whoever asked is gone. Once ended, it is an orphan like any other.
                drop(unwanted.fd.send_signal(libc::SIGKILL));
            }
        }
    }
}

impl Shared {
    /// Starts one run on the calling thread, whose cell this is.
    fn start(&self, job: &Job, output: Option<OwnedFd>, written: Option<Written>, cell: &AtomicI32) -> Result<Spawned, SpawnFailure> {
        let spec = &job.spec;
        // A program that asks how another one is belongs to the daemon's own work.
        let is_program = output.is_some();
        if !is_program && self.reserve.is_touched_beside(self.mains.count()) {
            return Err(SpawnFailure { operation: Operation::Reserve, errno: libc::EMFILE, command: program_name(spec) });
        }
        let streams = || match output {
            Some(output) => Streams::piped(output),
            None => Streams::open(spec, &self.outputs),
        };
        let kind = if is_program { "/program" } else { "" };
        let owner = format!("{}/{}{kind}/", self.id, spec.name);
        let (program, leases) = prepare(spec, &job.launch, &job.uuid, owner, &self.environment, self.nofile, streams)?;
        let mut group = self.containment.begin(spec, &job.uuid);
        // As late as possible: it is being written meanwhile.
        let made = written.map(Written::wait);
        crash::point("after-intent");
        let mut result = clone::spawn(&program, group.as_ref().map(|group| &**group.group()), cell);
        if let Err(CloneError { step: Step::Group, errno }) = result {
            let error = io::Error::from_raw_os_error(errno);
            tracing::warn!(name = %spec.name, %error, "cannot start this run in its control group, it starts without");
            group = None;
            result = clone::spawn(&program, None, cell);
        }
        let (pid, fd) = result.map_err(|error| refused(spec, &program, error))?;
        if let Some(made) = made {
            made.is(fd.as_fd());
        }
        crash::point("after-spawn");
        let (started, started_at) = (Instant::now(), SystemTime::now());
        let guard = self.mains.adopt(pid, cell);
        // It cannot be gone from /proc before we reap it; were /proc itself missing, 0 matches nothing and nothing would be signalled.
        let start_time = procfs::read_stat(pid).map_or(0, |stat| stat.start_time);
        Ok(Spawned { identity: Identity { pid, start_time }, fd, guard, group: group.map(Arc::new), started, started_at, leases })
    }
}

/// What the kernel calls the process of a run before it has executed its program: 12 digits of the UUID, which tell any two starts apart that are not
/// years from each other, as they are the lower 48 bits of its time in units of 100 ns (RFC 9562, section 5.1).
pub fn unexecuted_name(uuid: &str) -> String {
    format!("pm-{}", uuid.chars().filter(|c| *c != '-').take(12).collect::<String>())
}

/// What the kernel calls it for the very first instructions: the name of the thread that made it.
pub const SPAWNER: &str = "spawner";

fn program_name(spec: &Spec) -> String {
    if spec.shell { "/bin/sh".to_owned() } else { spec.cmd.first().cloned().unwrap_or_default() }
}

/// Collects everything that the child needs, so that between clone and exec nothing has to be computed.
fn prepare(
    spec: &Spec,
    launch: &Launch,
    uuid: &str,
    owner: String,
    inherited: &[(OsString, OsString)],
    nofile: Option<Nofile>,
    streams: impl FnOnce() -> Result<Streams, (Operation, i32)>,
) -> Result<(Program, Vec<Lease>), SpawnFailure> {
    let failure = |operation, errno| SpawnFailure { operation, errno, command: program_name(spec) };
    let invalid = |errno| failure(Operation::Execute, errno);

    let words = spec.cmd.iter().chain(&spec.args).chain(&launch.args);
    let argv: Vec<CString> = if spec.shell {
        let line = words.map(String::as_str).collect::<Vec<_>>().join(" ");
        ["/bin/sh", "-c", &line].into_iter().map(clone::c_string).collect::<Result<_, _>>().map_err(invalid)?
    } else {
        words.map(|word| clone::c_string(word.as_str())).collect::<Result<_, _>>().map_err(invalid)?
    };

    let account = Account::of(spec).map_err(|(operation, errno)| failure(operation, errno))?;
    let from_file = spec.env_file.as_ref().map(env_file::read).transpose().map_err(|(operation, errno)| failure(operation, errno))?;
    if let (Some(socket), Some(credentials)) = (&launch.notify_socket, &account.credentials) {
        NotifySocket::give(socket, credentials.uid)
            .map_err(|error| failure(Operation::BindNotify, error.raw_os_error().unwrap_or(libc::EIO)))?;
    }
    let streams = streams().map_err(|(operation, errno)| failure(operation, errno))?;
    let mut environment: BTreeMap<OsString, OsString> = if spec.clear_env { BTreeMap::new() } else { inherited.iter().cloned().collect() };
    environment.extend(account.environment);
    let from_file = from_file.unwrap_or_default().into_iter();
    environment.extend(from_file.map(|(key, value)| (key.into(), OsString::from_vec(value))));
    environment.extend(spec.env.iter().chain(&launch.env).map(|(key, value)| (key.into(), value.into())));
    if let Some(socket) = &launch.notify_socket {
        environment.insert("NOTIFY_SOCKET".into(), socket.into());
    }
    environment.insert(MARKER.into(), uuid.into());
    environment.remove(std::ffi::OsStr::new(OWNER));
    environment.extend(streams.journal.map(|value| ("JOURNAL_STREAM".into(), value.into())));
    let path = environment.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let envp = environment
        .into_iter()
        .map(|(key, value)| {
            let mut entry = key.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            clone::c_string(entry)
        })
        .collect::<Result<_, _>>()
        .map_err(invalid)?;

    let cwd = spec.cwd.as_ref().map(|cwd| clone::c_string(cwd.as_os_str().as_bytes())).transpose().map_err(invalid)?;
    let program = Program {
        candidates: candidates(&program_name(spec), path.as_bytes()).map_err(invalid)?,
        argv,
        envp,
        cwd,
        credentials: account.credentials,
        stdio: streams.stdio,
        limits: nofile.map(Limit::from).into_iter().chain(resource_limits(&spec.limits).map(|(_, limit)| limit)).collect(),
        umask: spec.umask,
        nice: spec.nice,
        oom_score_adj: spec.oom_score_adj.map(|score| clone::c_string(score.to_string())).transpose().map_err(invalid)?,
        no_new_privs: spec.no_new_privs,
        own_pid: Some(clone::c_string(format!("{OWNER}={owner}")).map_err(invalid)?),
        name: clone::c_string(unexecuted_name(uuid)).map_err(invalid)?,
    };
    Ok((program, streams.leases))
}

/// Where the program may be: the path itself when it holds a slash, else in each directory of `PATH` (execvp(3)).
fn candidates(program: &str, path: &[u8]) -> Result<Vec<CString>, i32> {
    if program.contains('/') {
        return Ok(vec![clone::c_string(program)?]);
    }
    path.split(|byte| *byte == b':')
        .map(|directory| {
            let directory = if directory.is_empty() { Path::new(".") } else { Path::new(std::ffi::OsStr::from_bytes(directory)) };
            clone::c_string(directory.join(program).into_os_string().into_vec())
        })
        .collect()
}

/// The limits of each process, with their keys in `limits`.
fn resource_limits(limits: &LimitsDefinition) -> impl Iterator<Item = (&'static str, Limit)> + use<> {
    let all = [
        ("nofile", libc::RLIMIT_NOFILE, limits.nofile),
        ("core", libc::RLIMIT_CORE, limits.core),
        ("nproc", libc::RLIMIT_NPROC, limits.nproc),
        ("memlock", libc::RLIMIT_MEMLOCK, limits.memlock),
        ("stack", libc::RLIMIT_STACK, limits.stack),
        ("fsize", libc::RLIMIT_FSIZE, limits.fsize),
        ("data", libc::RLIMIT_DATA, limits.data),
        ("as", libc::RLIMIT_AS, limits.address_space),
        ("cpu", libc::RLIMIT_CPU, limits.cpu),
        ("rtprio", libc::RLIMIT_RTPRIO, limits.rtprio),
        ("sigpending", libc::RLIMIT_SIGPENDING, limits.sigpending),
        ("msgqueue", libc::RLIMIT_MSGQUEUE, limits.msgqueue),
    ];
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    all.into_iter().filter_map(move |(key, resource, limit)| {
        limit.map(|limit| (key, Limit { resource, soft: number(limit.soft), hard: number(limit.hard) }))
    })
}

/// Says which of our steps the kernel refused.
fn refused(spec: &Spec, program: &Program, error: CloneError) -> SpawnFailure {
    let operation = match error.step {
        Step::Clone | Step::Group | Step::Session | Step::Streams => Operation::Clone,
        Step::OomScoreAdj => Operation::SetAttribute("oom_score_adj"),
        Step::Nice => Operation::SetAttribute("nice"),
        Step::NoNewPrivileges => Operation::SetAttribute("no_new_privs"),
        Step::Limit(resource) => {
            let said = resource_limits(&spec.limits).find(|(_, limit)| limit.resource == resource);
            Operation::SetLimit(said.map_or("nofile", |(key, _)| key)) // the one that every process is given back
        }
        Step::Credentials => Operation::BecomeUser,
        Step::Directory => Operation::ChangeDirectory(spec.cwd.clone().unwrap_or_default()),
        Step::Exec if error.errno == libc::ENOENT && spec.cwd.is_none() && program.candidates.iter().any(|path| clone::exists(path)) => {
            Operation::Interpret
        }
        Step::Exec => Operation::Execute,
    };
    SpawnFailure { operation, errno: error.errno, command: program_name(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_slash_is_looked_for_along_the_path() {
        let list = |program, path: &str| {
            candidates(program, path.as_bytes()).unwrap().into_iter().map(|c| c.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(list("sleep", "/usr/bin:/bin"), ["/usr/bin/sleep", "/bin/sleep"]);
        assert_eq!(list("sleep", ":/bin"), ["./sleep", "/bin/sleep"]);
        assert_eq!(list("./sleep", "/bin"), ["./sleep"]);
    }
}
