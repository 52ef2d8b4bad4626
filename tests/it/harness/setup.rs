//! From a configuration to a daemon, or to a start that was refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use procman::sys::pidfd::PidFd;
use tempfile::TempDir;

use super::daemon::Daemon;
use super::marked::{Marker, VARIABLE};
use super::{DEADLINE, pause};

/// The environment variable that says how the daemons of all tests hold processes together: "auto" (the default) or "off", as `daemon.cgroup`.
const CGROUP: &str = "PROCMAN_TEST_CGROUP";

/// Everything a daemon is started with, in a directory of its own.
pub(crate) struct Setup {
    pub(super) dir: TempDir,
    pub(super) marker: Marker,
    /// Added to the configuration: `[[process]]` tables.
    processes: String,
    /// Of `[daemon]`, more of `[control]`, and of `[metrics]`.
    state_dir: String,
    cgroup: String,
    daemon: String,
    control: String,
    events: String,
    endpoints: Vec<String>,
    listen: String,
    environment: Vec<(String, String)>,
    log: &'static str,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    program: String,
}

/// A daemon that ended before it served anybody.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) err: String,
}

impl Setup {
    /// With these `[[process]]` tables. `{dir}` in it, as everywhere here, stands for the test's directory.
    pub(crate) fn new(processes: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pm").tempdir().unwrap();
        Self {
            dir,
            marker: Marker::new(),
            processes: processes.to_owned(),
            state_dir: "state".to_owned(),
            cgroup: std::env::var(CGROUP).unwrap_or_else(|_| "auto".to_owned()),
            daemon: String::new(),
            control: String::new(),
            events: String::new(),
            endpoints: vec!["ipc://{dir}/c.sock".to_owned()],
            listen: "127.0.0.1:0".to_owned(),
            environment: Vec::new(),
            log: "debug",
            wrapper: Vec::new(),
            arguments: Vec::new(),
            program: env!("CARGO_BIN_EXE_procmand").to_owned(),
        }
    }

    /// The test's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A TCP endpoint at a free port of the loopback, too.
    pub(crate) fn tcp(self) -> Self {
        self.endpoint("tcp://127.0.0.1:*")
    }

    /// One more endpoint.
    pub(crate) fn endpoint(mut self, endpoint: &str) -> Self {
        self.endpoints.push(endpoint.to_owned());
        self
    }

    /// More lines for `[daemon]`.
    pub(crate) fn daemon(mut self, lines: &str) -> Self {
        self.daemon = lines.to_owned();
        self
    }

    /// More lines for `[control]`.
    pub(crate) fn control(mut self, lines: &str) -> Self {
        self.control = lines.to_owned();
        self
    }

    /// Lines for `[events]`.
    pub(crate) fn events(mut self, lines: &str) -> Self {
        self.events = lines.to_owned();
        self
    }

    /// Another state directory.
    pub(crate) fn state_dir(mut self, path: &str) -> Self {
        self.state_dir = path.to_owned();
        self
    }

    /// Another place for control groups than [`CGROUP`] says.
    pub(crate) fn cgroup(mut self, place: &str) -> Self {
        self.cgroup = place.to_owned();
        self
    }

    /// Another address for the metrics.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        self.listen = address.to_owned();
        self
    }

    /// One more variable in the daemon's environment.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Another log level than debug.
    pub(crate) fn log(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// A command in front of `procmand`, which must execute it: the daemon has its PID.
    pub(crate) fn wrapped(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// One more argument of `procmand`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Another `procmand` than the one that was built with the tests.
    pub(crate) fn program(mut self, path: &str) -> Self {
        self.program = path.to_owned();
        self
    }

    fn fill_in(&self, text: &str) -> String {
        text.replace("{dir}", self.dir.path().to_str().unwrap())
    }

    /// Writes the configuration and returns where.
    fn write_config(&self) -> PathBuf {
        let path = self.dir.path().join("procmand.toml");
        let Self { state_dir, cgroup, daemon, control, events, endpoints, listen, processes, .. } = self;
        let text = format!(
            "[daemon]\nstate_dir = '{state_dir}'\nruntime_dir = 'run'\ncgroup = '{cgroup}'\n{daemon}\n[control]\nendpoints = {endpoints:?}\n{control}\n[events]\n{events}\n[metrics]\nlisten = '{listen}'\n{processes}\n"
        );
        fs::write(&path, self.fill_in(&text)).unwrap();
        path
    }

    fn spawn(&self) -> Child {
        let config = self.write_config();
        let procmand = self.program.as_str();
        let mut command = match self.wrapper.split_first() {
            None => Command::new(procmand),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments.iter().map(|argument| self.fill_in(argument))).arg(procmand);
                command
            }
        };
        for foreign in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "PROCMAN_UUID"] {
            command.env_remove(foreign);
        }
        command.arg("--config").arg(&config).args(&self.arguments);
        command.env(VARIABLE, &self.marker.0).env("PROCMAN_LOG", self.log);
        command.envs(self.environment.iter().map(|(key, value)| (key, self.fill_in(value))));
        command.stdin(Stdio::null()).stdout(self.create("stdout")).stderr(self.create("log"));
        command.spawn().unwrap()
    }

    fn create(&self, name: &str) -> File {
        File::options().append(true).create(true).open(self.dir.path().join(name)).unwrap()
    }

    /// Starts a daemon and returns once it has answered.
    #[track_caller]
    pub(crate) fn start(self) -> Daemon {
        let child = self.spawn();
        let endpoint = self.fill_in(&self.endpoints[0]).parse().unwrap();
        let environment = self.environment.iter().map(|(key, value)| (key.clone(), self.fill_in(value))).collect();
        Daemon::watch(child, self.dir, self.marker, endpoint, environment)
    }

    /// Runs a `procmand` that is to end by itself, and proves that it started nothing.
    #[track_caller]
    pub(crate) fn refused(&self) -> Refused {
        let child = self.spawn();
        self.wait(child)
    }

    /// Runs a `procmand`, sends it this signal as soon as this is so, and proves that nothing of it is left.
    #[track_caller]
    pub(crate) fn interrupted(&self, signal: i32, when: impl Fn() -> bool) -> Refused {
        let child = self.spawn();
        let fd = PidFd::open(child.id()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while !when() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        fd.send_signal(signal).unwrap();
        let refused = self.wait(child);
        assert!(!self.dir().join("c.sock").exists(), "its socket is left");
        refused
    }

    #[track_caller]
    fn wait(&self, mut child: Child) -> Refused {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => pause(),
            }
        };
        let left = self.marker.describe();
        if !left.is_empty() {
            self.marker.kill_all();
            drop(child.wait());
            panic!("left after {DEADLINE:?} or by a start that was refused: {left:?}");
        }
        let status = status.expect("it ended");
        Refused { code: status.code(), err: fs::read_to_string(self.dir.path().join("log")).unwrap() }
    }
}

impl Refused {
    /// Asserts that it left with this code, and said this in a single line.
    #[track_caller]
    pub(crate) fn assert(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "one line: {self:?}");
        assert!(self.err.starts_with("procmand: "), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {:?}", self.err);
        }
    }
}
