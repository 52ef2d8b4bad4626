//! The service manager: starts the daemon, kills it, and knows what it must leave behind.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::WaitStatus;
use procman::client::{Client, ClientError, ClientOptions};
use procman::procfs;
use procman::protocol::reply::Pong;
use procman::protocol::request::{Command as Ask, NoArgs};
use procman::sys::cgroup::{Group, Hierarchy};
use procman::sys::pidfd::PidFd;

use super::keeper::{self, Keeper};
use super::launcher;
use super::marked;
use super::random::let_pass;
use super::reaper::Reaper;
use super::scene::Scene;

/// How long anything may take that takes milliseconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Between two tries to reach a daemon.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// Who starts the daemons of a scene.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) scene: Scene,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) mark: String,
    reaper: Reaper,
}

/// A daemon that was started.
#[derive(Debug)]
pub(crate) struct Running {
    pid: u32,
    fd: PidFd,
    reaper: Reaper,
}

impl Manager {
    pub(crate) fn new(scene: Scene, reaper: Reaper) -> Self {
        let keeper = scene.means.store.then(|| Keeper::listen(scene.dir()));
        Self { scene, keeper, mark: uuid::Uuid::new_v4().to_string(), reaper }
    }

    /// Starts a daemon. With `crash_at` it kills itself there.
    pub(crate) fn start(&self, crash_at: Option<&str>) -> Running {
        let file = |name: &str| File::options().append(true).create(true).open(self.scene.dir().join(name)).unwrap();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([launcher::ROLE, env!("CARGO_BIN_EXE_procmand"), "--config"]).arg(self.scene.config());
        for foreign in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", procfs::MARKER] {
            command.env_remove(foreign);
        }
        command.env(marked::VARIABLE, &self.mark).env("PROCMAN_LOG", "info");
        if let Some(point) = crash_at {
            command.env("PROCMAN_CRASH_AT", point);
        }
        if let Some(keeper) = &self.keeper {
            command.env("NOTIFY_SOCKET", keeper.path());
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(file("executed")).stderr(file("log"));
        let (child, fd) = self.reaper.spawn(&mut command);
        if let Some(keeper) = &self.keeper {
            keeper.hand_out(&ours);
        }
        keeper::that_is_all(&ours);
        Running { pid: child.id(), fd, reaper: self.reaper.clone() }
    }

    /// How long it took the last daemon from its execution until now.
    pub(crate) fn since_execution(&self) -> Duration {
        let text = fs::read_to_string(self.scene.dir().join("executed")).unwrap();
        procfs::monotonic() - Duration::from_micros(text.lines().last().unwrap().parse().unwrap())
    }

    /// A client whose first `ping` this daemon has answered; `None` when it did not within this time. Panics where the daemon ends instead.
    pub(crate) fn reach(&self, running: &Running, within: Duration) -> Option<Client> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = running.ended() {
                panic!("the daemon ended by itself: {status:?}");
            }
            let timeout = deadline.saturating_duration_since(Instant::now());
            let reached = Client::connect(&self.scene.endpoint(), ClientOptions { timeout }).and_then(|mut client| {
                client.request::<Pong>(&Ask::Ping(NoArgs {}))?;
                client.set_timeout(DEADLINE);
                Ok(client)
            });
            match reached {
                Ok(client) => return Some(client),
                Err(ClientError::Unreachable { .. } | ClientError::Disconnected { .. } | ClientError::Timeout { .. }) => {
                    let_pass(TRY_AGAIN)
                }
                Err(error) => panic!("{error}"),
            }
        }
        None
    }

    /// Where the groups of its runs are, where it may make some: named after the state directory.
    fn groups(&self) -> Option<PathBuf> {
        let state = fs::metadata(self.scene.dir().join("state")).ok()?;
        Some(Hierarchy::find().ok()??.own.join(format!("procman-{:x}-{:x}", state.dev(), state.ino())))
    }

    /// What is left once a daemon has left, and must not be.
    pub(crate) fn remains(&self) -> Vec<String> {
        let mut remains = marked::describe(&marked::bearers(&self.mark));
        let directories = ["", "run", "run/notify"].map(|name| self.scene.dir().join(name));
        let files = directories.iter().flat_map(fs::read_dir).flatten().map(|entry| entry.unwrap().path());
        let is_socket = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        let own = self.keeper.as_ref().map(Keeper::path);
        remains.extend(
            files.filter(|path| is_socket(path) && Some(path.as_path()) != own).map(|path| format!("the socket {}", path.display())),
        );
        remains.extend(self.groups().filter(|path| path.exists()).map(|path| format!("the control group {}", path.display())));
        remains.extend(self.keeper.iter().flat_map(Keeper::names).map(|name| format!("the kept descriptor {name}")));
        remains
    }
}

impl Drop for Manager {
    /// However a test ends, nothing is left.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log: {}", self.scene.save_log());
        }
        marked::kill_all(&self.mark);
        let Some(path) = self.groups().filter(|path| path.exists()) else { return };
        let (Ok(groups), Some(parent)) = (Group::open(&path), path.parent().and_then(|parent| Group::open(parent).ok())) else { return };
        drop(groups.kill());
        let deadline = Instant::now() + DEADLINE;
        while parent.remove_tree(path.file_name().unwrap().to_str().unwrap()).is_err() && Instant::now() < deadline {
            let_pass(TRY_AGAIN);
        }
    }
}

impl Running {
    /// How it has ended.
    pub(crate) fn ended(&self) -> Option<WaitStatus> {
        self.reaper.wait(self.pid, Duration::ZERO)
    }

    pub(crate) fn wait(&self, within: Duration) -> Option<WaitStatus> {
        self.reaper.wait(self.pid, within)
    }

    /// Kills it, and returns once it is gone.
    pub(crate) fn kill(&self) {
        self.fd.send_signal(libc::SIGKILL).unwrap();
        self.wait(DEADLINE).unwrap();
    }

    /// Asks it to leave, and returns how it did.
    pub(crate) fn leave(&self) -> WaitStatus {
        self.fd.send_signal(libc::SIGTERM).unwrap();
        self.wait(DEADLINE).expect("it leaves within the deadline")
    }
}
