//! A running daemon. However a test ends, nothing of it is left; a test that would have left something fails.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use procman::client::{Client, ClientError, ClientOptions, Endpoint};
use procman::protocol::envelope::Reply;
use procman::protocol::reply::{Ended, Executed, Info, NamedProcess, View};
use procman::protocol::{StateName, WireError};
use procman::sys::cgroup::{Group, Hierarchy};
use procman::sys::pidfd::PidFd;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::marked::{Marker, VARIABLE};
use super::wire::{Peer, frame, value_of};
use super::{DEADLINE, Setup, until};

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    /// Set once it has been waited for.
    ended: Option<ExitStatus>,
    fd: PidFd,
    dir: TempDir,
    marker: Marker,
    endpoint: Endpoint,
    /// What else it was started with in its environment; the next ones are, too.
    environment: Vec<(String, String)>,
    /// Made at the first question: a socket that connects before anybody listens tries again only after a while.
    peer: Mutex<Option<Peer>>,
    /// A test killed it on purpose: nothing about its end is to be proven.
    killed: bool,
}

impl Daemon {
    /// Starts one with these `[[process]]` tables.
    #[track_caller]
    pub(crate) fn start(processes: &str) -> Self {
        Setup::new(processes).start()
    }

    /// Takes over a process that was just started, and returns once it answers.
    #[track_caller]
    pub(super) fn watch(child: Child, dir: TempDir, marker: Marker, endpoint: Endpoint, environment: Vec<(String, String)>) -> Self {
        let fd = PidFd::open(child.id()).unwrap();
        let mut daemon = Self { child, ended: None, fd, dir, marker, endpoint, environment, peer: Mutex::default(), killed: false };
        until("the daemon listens", || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                daemon.ended = Some(status);
                panic!("the daemon did not start: {status}");
            }
            match Client::connect(&daemon.endpoint, ClientOptions { timeout: DEADLINE }) {
                Ok(_) => Some(()),
                Err(ClientError::Unreachable { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        });
        assert_eq!(daemon.info().pid, daemon.pid());
        daemon
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    /// A client of its own.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.endpoint, ClientOptions { timeout: DEADLINE }).unwrap()
    }

    /// A file in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a file in the test's directory holds; nothing when it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        match fs::read(self.path(name)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("cannot read {name}: {error}"),
        }
    }

    /// Waits until a file in the test's directory has this many whole lines, and returns them.
    #[track_caller]
    pub(crate) fn lines(&self, name: &str, at_least: usize) -> Vec<String> {
        until(format_args!("{at_least} lines in {name}"), || {
            let text = self.read(name);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
            (lines.len() >= at_least).then_some(lines)
        })
    }

    /// Waits until its log holds this text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        until(format_args!("{text:?} in the log"), || self.read("log").contains(text).then_some(()));
    }

    /// Asks over a plain REQ socket; the whole reply.
    #[track_caller]
    fn ask(&self, command: &str, arguments: Value) -> Reply<Value> {
        let mut request = arguments;
        request["command"] = command.into();
        let mut peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peer.get_or_insert_with(|| Peer::connect(zmq::REQ, &self.endpoint()));
        serde_json::from_value(peer.ask(&[frame(&request)])).unwrap()
    }

    /// A command's result.
    #[track_caller]
    pub(crate) fn call<T: DeserializeOwned>(&self, command: &str, arguments: Value) -> T {
        let reply = self.ask(command, arguments.clone());
        assert!(reply.success, "{command} {arguments}: {:?}", reply.error);
        serde_json::from_value(reply.result.unwrap_or(Value::Null)).unwrap()
    }

    /// Why a command is refused.
    #[track_caller]
    pub(crate) fn refusal(&self, command: &str, arguments: Value) -> WireError {
        let reply = self.ask(command, arguments.clone());
        assert!(!reply.success, "{command} {arguments} was done: {:?}", reply.result);
        reply.error.unwrap()
    }

    #[track_caller]
    pub(crate) fn info(&self) -> Info {
        self.call("info", json!({}))
    }

    #[track_caller]
    pub(crate) fn execute(&self, name: &str) -> Executed {
        self.call("execute", json!({"name": name}))
    }

    #[track_caller]
    pub(crate) fn quit(&self, name: &str) -> Ended {
        self.call("quit", json!({"name": name}))
    }

    #[track_caller]
    pub(crate) fn view(&self, name: &str) -> View {
        let views: Vec<View> = self.call("list", json!({}));
        views.into_iter().find(|view| view.name.as_str() == name).unwrap_or_else(|| panic!("no sub-process {name}"))
    }

    /// Waits until exactly this many processes are below a sub-process, each of this program (the shells on the way have ended then); their PIDs.
    #[track_caller]
    pub(crate) fn wait_for_children(&self, name: &str, count: usize, program: &str) -> Vec<u32> {
        until(format_args!("{count} {program} below {name}"), || {
            let children: Vec<NamedProcess> = self.call("children", json!({"name": name}));
            let settled = children.len() == count && children.iter().all(|child| child.name == program && !child.cmdline.is_empty());
            settled.then(|| children.iter().map(|child| child.pid).collect())
        })
    }

    /// Waits for a fact about a sub-process.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, fact: impl Fn(&View) -> bool) -> View {
        let mut last = None;
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let view = self.view(name);
            if fact(&view) {
                return view;
            }
            assert!(std::time::Instant::now() < deadline, "{name} did not come to that: {last:?}");
            last = Some(view);
            super::pause();
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_state(&self, name: &str, state: StateName) -> View {
        self.wait_for(name, |view| view.state == state)
    }

    /// The daemon and all processes that it made, as far as they kept their environment; ascending.
    pub(crate) fn relatives(&self) -> Vec<u32> {
        let mut relatives = self.marker.bearers();
        relatives.sort_unstable();
        relatives
    }

    /// The TCP endpoint, with its port.
    #[track_caller]
    pub(crate) fn tcp(&self) -> String {
        let endpoints = self.info().endpoints;
        endpoints.into_iter().find(|endpoint| endpoint.starts_with("tcp://")).unwrap()
    }

    /// A page of the HTTP server.
    #[track_caller]
    pub(crate) fn http(&self, path: &str) -> String {
        let url = self.info().metrics_endpoint.unwrap();
        let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// The value of the series of this family that has all of these labels, such as `name="web"`.
    #[track_caller]
    pub(crate) fn metric(&self, family: &str, labels: &[&str]) -> Option<f64> {
        let page = self.http("/metrics");
        let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let mut found = page.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
        let (series, others) = (found.next()?, found.count());
        assert_eq!(others, 0, "{family} {labels:?} is not one series");
        Some(series.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Writes other `[[process]]` tables into the daemon's configuration file, in the place of all that stood behind its settings.
    pub(crate) fn rewrite(&self, processes: &str) {
        let path = self.path("procmand.toml");
        let text = fs::read_to_string(&path).unwrap();
        let at = text.find("\nlisten = ").unwrap() + 1;
        let settings = &text[..at + text[at..].find('\n').unwrap() + 1];
        let processes = processes.replace("{dir}", self.dir().to_str().unwrap());
        // As an editor does it: no reader finds half of it.
        fs::write(path.with_extension("new"), format!("{settings}{processes}\n")).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: i32) {
        self.fd.send_signal(signal).unwrap();
    }

    /// Waits until the daemon has ended by itself, and proves that nothing of it is left.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let status = until("the daemon has left", || self.child.try_wait().unwrap());
        self.ended = Some(status);
        status
    }

    /// What is left of a daemon that has ended, and must not be.
    fn remains(&self) -> Vec<String> {
        let mut remains = self.marker.describe();
        if let Endpoint::Ipc(path) = &self.endpoint
            && fs::symlink_metadata(path).is_ok()
        {
            remains.push(format!("its socket {}", path.display()));
        }
        let events = self.path("run/events.sock");
        if fs::symlink_metadata(&events).is_ok() {
            remains.push(format!("its socket {}", events.display()));
        }
        remains.extend(self.groups().into_iter().filter(|path| path.exists()).map(|path| format!("its control group {}", path.display())));
        remains
    }

    /// The directory of its control groups, where it may make some; it is named after its state directory.
    pub(crate) fn groups(&self) -> Option<PathBuf> {
        let state = fs::metadata(self.path("state")).ok()?;
        let own = Hierarchy::find().unwrap()?.own;
        Some(own.join(format!("procman-{:x}-{:x}", state.dev(), state.ino())))
    }

    /// The directory of one run's control group.
    #[track_caller]
    pub(crate) fn group_of(&self, name: &str) -> PathBuf {
        let uuid = self.view(name).uuid.unwrap();
        self.groups().unwrap().join(format!("{name}.{uuid}"))
    }

    /// Asks it to leave with SIGTERM, and proves that it went well and left nothing. Dropping it does the same.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.end();
    }

    #[track_caller]
    fn end(&mut self) {
        let status = match self.ended {
            Some(status) => status,
            None => {
                self.signal(libc::SIGTERM);
                self.wait_exit()
            }
        };
        if self.killed {
            return;
        }
        let remains = self.remains();
        assert!(remains.is_empty(), "the daemon left these behind: {remains:?}");
        assert_eq!(status.code(), Some(0), "the daemon left with {status}");
    }

    /// Waits until the daemon has ended by itself, which may leave everything running.
    #[track_caller]
    pub(crate) fn leave_alone(&mut self) -> ExitStatus {
        until("the daemon has left", || self.child.try_wait().unwrap())
    }

    /// Waits until another daemon than this one, by the UUID of that start, answers in its place.
    #[track_caller]
    pub(crate) fn wait_for_successor(&self, of: &str) -> Info {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        until("another daemon answers", || {
            // A question that the former one does not come to answer any more is lost: the next one goes out on a new connection.
            let peer = Peer::connect(zmq::REQ, &self.endpoint());
            peer.send(&[frame(&json!({"command": "info"}))]);
            let reply: Reply<Info> = serde_json::from_value(peer.has_more(200).then(|| value_of(&peer.receive()[0]))?).ok()?;
            reply.result.filter(|info| info.uuid != of)
        })
    }

    /// Kills the daemon and nothing else.
    pub(crate) fn kill_alone(&mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Kills the daemon and nothing else once all that has happened is written down, and starts another one in its place, from the same configuration;
    /// returns once it answers. What is killed in the middle of something is the matter of the torture tests.
    #[track_caller]
    pub(crate) fn replace(&mut self) {
        let _: Value = self.call("history", json!({"limit": 1}));
        self.kill_alone();
        self.start_next();
    }

    /// Asks it to leave, proves that it left nothing, and starts another one in its place, from the same configuration.
    #[track_caller]
    pub(crate) fn start_anew(&mut self) {
        self.end();
        self.start_next();
    }

    /// Starts another one in the place of one that has ended.
    #[track_caller]
    pub(crate) fn start_next(&mut self) {
        self.start_next_by(&[]);
    }

    /// The same, with a command in front of `procmand`, which must execute it.
    #[track_caller]
    pub(crate) fn start_next_by(&mut self, wrapper: &[&str]) {
        let config = self.path("procmand.toml");
        let log = || File::options().append(true).create(true).open(self.path("log")).unwrap();
        let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_procmand")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(config).env(VARIABLE, &self.marker.0).env("PROCMAN_LOG", "debug");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        self.child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log()).spawn().unwrap();
        self.fd = PidFd::open(self.child.id()).unwrap();
        (self.ended, self.peer) = (None, Mutex::default());
        until("the new daemon listens", || Client::connect(&self.endpoint, ClientOptions { timeout: DEADLINE }).ok());
    }

    /// Kills the daemon as nothing should, together with its processes.
    pub(crate) fn kill(&mut self) {
        if self.ended.is_none() {
            drop(self.child.kill());
            self.ended = self.child.wait().ok();
            self.killed = true;
        }
        self.marker.kill_all();
    }

    /// Kills what bears no marker, too, by the groups of its runs, and removes those.
    fn kill_groups(&self) {
        let Some(path) = self.groups() else { return };
        let (Ok(groups), Some(parent)) = (Group::open(&path), path.parent().and_then(|parent| Group::open(parent).ok())) else { return };
        drop(groups.kill());
        let name = path.file_name().unwrap().to_str().unwrap();
        let deadline = std::time::Instant::now() + DEADLINE;
        while parent.remove_tree(name).is_err() && std::time::Instant::now() < deadline {
            super::pause();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kill();
            self.kill_groups();
            eprintln!("--- the log of the daemon ---\n{}--- end of the log ---", self.read("log"));
            return;
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.end()));
        if let Err(panic) = ended {
            self.kill();
            self.kill_groups();
            eprintln!("--- the log of the daemon ---\n{}--- end of the log ---", self.read("log"));
            std::panic::resume_unwind(panic);
        }
    }
}
