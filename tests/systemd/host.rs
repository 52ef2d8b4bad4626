//! A host of its own, in namespaces, on which a real systemd runs the unit as it is shipped.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use procman::protocol::reply::{Info, View};
use procman::sys::cgroup::{Group, Hierarchy};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a fact may take to come true. Far more than it ever takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(30);
/// What the journal says at each start of a service of which something lives; here that is meant to be so.
const LEFT_OVER: [&str; 2] = ["Found left-over process", "This usually indicates unclean termination"];

/// Waits for a fact and returns it.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(fact) = fact() {
            return fact;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        #[allow(clippy::disallowed_methods, reason = "between two looks at a fact; nothing is concluded from the time that passed")]
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A line of the journal.
#[derive(Debug)]
pub(crate) struct Line {
    /// As in syslog(3): 3 is an error, 4 a warning.
    pub(crate) priority: u8,
    pub(crate) who: String,
    pub(crate) message: String,
}

/// The host. All of it is gone when it is dropped.
pub(crate) struct Host {
    scratch: TempDir,
    /// The daemon's unit.
    unit: String,
    namespaces: Child,
    /// Its control group, and the directory of that.
    group: Group,
    group_path: PathBuf,
    /// Its first process, as the host that the test runs on calls it.
    init: u32,
}

/// Why there can be none here.
fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only root can boot systemd in namespaces".to_owned());
    }
    if Hierarchy::find().unwrap().is_none() {
        return Some("there is no cgroup v2 hierarchy".to_owned());
    }
    let spaces = ["--fork", "--pid", "--mount", "--cgroup", "--uts", "--ipc", "--net", "--", "true"];
    let output = Command::new("unshare").args(spaces).output().unwrap();
    (!output.status.success()).then(|| format!("there are no namespaces to be had: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Host {
    /// Boots one whose daemon has this configuration, and these files in the directory of units besides. `None` where that is not possible.
    pub(crate) fn boot(config: &str, unit: &str, more: &[(&str, &str)]) -> Option<Self> {
        if let Some(obstacle) = obstacle() {
            eprintln!("\n!!! NOT TESTED with a real systemd: {obstacle} !!!\n");
            return None;
        }
        let began = Instant::now();
        // On the file system of the programs, so that they need no copy.
        let scratch = tempfile::Builder::new().prefix("sd").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (units, bin) = (scratch.path().join("etc/systemd/system"), scratch.path().join("bin"));
        fs::create_dir_all(&units).unwrap();
        fs::create_dir(&bin).unwrap();
        fs::hard_link(env!("CARGO_BIN_EXE_procmand"), bin.join("procmand"))
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_procmand"), bin.join("procmand")).map(drop))
            .unwrap();
        fs::create_dir(scratch.path().join("etc/procman")).unwrap();
        fs::write(scratch.path().join("etc/procman/procmand.toml"), config).unwrap();
        fs::write(scratch.path().join("etc/machine-id"), format!("{}\n", "1".repeat(32))).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/procmand.service");
        let (name, instance) = unit.split_once('@').map_or((unit.to_owned(), false), |(name, _)| (format!("{name}@.service"), true));
        fs::copy(shipped, units.join(&name)).unwrap();
        assert_eq!(instance, name != unit);
        // No more of a system than a service needs, and the journal.
        for target in ["sysinit", "basic"] {
            fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=of the test\n").unwrap();
        }
        fs::write(units.join("shutdown.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        let journal =
            "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\nAfter=systemd-journald.service\nAllowIsolate=yes\n";
        fs::write(units.join("boot.target"), journal).unwrap();
        for journald in ["systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"] {
            symlink(format!("/usr/lib/systemd/system/{journald}"), units.join(journald)).unwrap();
        }
        for (path, content) in more {
            let path = units.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        let own = Hierarchy::find().unwrap().unwrap().own;
        let name = format!("procman-test-{}-{}", std::process::id(), scratch.path().file_name().unwrap().to_str().unwrap());
        let group = Group::open(&own).unwrap().create(&name).unwrap();
        let group_path = own.join(name);
        let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/boot");
        let said = fs::File::create(scratch.path().join("said")).unwrap();
        let namespaces = Command::new(boot)
            .arg(&group_path)
            .arg(scratch.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut host = Self { scratch, unit: unit.to_owned(), namespaces, group, group_path, init: 0 };
        host.init = until("systemd is there", || {
            let status = host.namespaces.try_wait().unwrap();
            assert!(status.is_none(), "{status:?}: {}", fs::read_to_string(host.scratch.path().join("said")).unwrap());
            let of_systemd = fs::read_to_string(host.group_path.join("init.scope/cgroup.procs")).ok()?;
            of_systemd.lines().filter_map(|pid| pid.parse().ok()).find(|pid| pid_within(*pid) == Some(1))
        });
        until("it is up", || (host.try_run(&["systemctl", "is-system-running"]).stdout == b"running\n").then_some(()));
        eprintln!("systemd booted in {:.2} s", began.elapsed().as_secs_f64());
        Some(host)
    }

    /// A file of this host.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// What it holds, or nothing.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn try_run(&self, words: &[&str]) -> Output {
        let target = self.init.to_string();
        Command::new("nsenter").args(["-t", &target, "-a", "--"]).args(words).stdin(Stdio::null()).env("LC_ALL", "C").output().unwrap()
    }

    /// Runs a program on this host, which must succeed; what it writes.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.try_run(words);
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.journal_text());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `systemctl`, with the daemon's unit at the end; tells how long it took.
    #[track_caller]
    pub(crate) fn systemctl(&self, words: &[&str]) -> String {
        let began = Instant::now();
        let said = self.run(&[&["systemctl"], words, &["--", &self.unit]].concat());
        if !words.starts_with(&["show"]) {
            eprintln!("systemctl {} took {:.2} s", words.join(" "), began.elapsed().as_secs_f64());
        }
        said
    }

    /// A property of the daemon's unit.
    #[track_caller]
    pub(crate) fn property(&self, property: &str) -> String {
        self.systemctl(&["show", "--value", "--property", property]).trim().to_owned()
    }

    /// Sends the daemon itself a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: &str) {
        self.systemctl(&["kill", "--kill-whom=main", "--signal", signal]);
    }

    /// Asks the daemon; `None` where none answers.
    pub(crate) fn ask<T: DeserializeOwned>(&self, command: &str, arguments: Value) -> Option<T> {
        let mut request = arguments;
        request["command"] = command.into();
        let context = zmq::Context::new();
        let socket = context.socket(zmq::REQ).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvtimeo(1000).unwrap();
        socket.connect(&format!("ipc://{}", self.path("/run/procman/control.sock").display())).unwrap();
        socket.send(rmp_serde::to_vec_named(&request).unwrap(), 0).unwrap();
        let reply: Value = rmp_serde::from_slice(&socket.recv_bytes(0).ok()?).unwrap();
        assert_eq!(reply["success"], true, "{command}: {reply}");
        Some(serde_json::from_value(reply["result"].clone()).unwrap())
    }

    /// All sub-processes, once a daemon answers.
    #[track_caller]
    pub(crate) fn views(&self) -> Vec<View> {
        until("a daemon answers", || self.ask("list", json!({})))
    }

    #[track_caller]
    pub(crate) fn view(&self, name: &str) -> View {
        let views = self.views();
        views.into_iter().find(|view| view.name.as_str() == name).unwrap_or_else(|| panic!("no sub-process {name}"))
    }

    #[track_caller]
    pub(crate) fn info(&self) -> Info {
        until("a daemon answers", || self.ask("info", json!({})))
    }

    /// Waits until another daemon than this one, by the UUID of its start, answers.
    #[track_caller]
    pub(crate) fn wait_for_another(&self, than: &Info) -> Info {
        until("another daemon answers", || self.ask("info", json!({})).filter(|info: &Info| info.uuid != than.uuid))
    }

    /// Puts another file in the place of the daemon's program, as a package manager does; its inode.
    pub(crate) fn install(&self) -> u64 {
        let (installed, new) = (self.scratch.path().join("bin/procmand"), self.scratch.path().join("bin/procmand.new"));
        // Another program copies it: had this process the file open for writing while another test forks, nobody could execute it (ETXTBSY).
        assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_procmand")).arg(&new).status().unwrap().success());
        fs::rename(&new, &installed).unwrap();
        fs::metadata(installed).unwrap().ino()
    }

    /// Every process of the daemon's unit but the daemon, by the PIDs of this host.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let main: u32 = self.property("MainPID").parse().unwrap();
        let members = group_of(&self.group, &self.unit).map(|group| group.members().unwrap()).unwrap_or_default();
        members.into_iter().filter_map(pid_within).filter(|pid| *pid != main).collect()
    }

    /// All that is in the journal.
    pub(crate) fn journal(&self) -> Vec<Line> {
        let journal = String::from_utf8(self.try_run(&["journalctl", "--output=json", "--all"]).stdout).unwrap();
        let lines = journal.lines().map(|line| {
            let entry: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            Line { priority: text("PRIORITY").parse().unwrap_or(6), who: text("SYSLOG_IDENTIFIER"), message: text("MESSAGE") }
        });
        lines.collect()
    }

    fn journal_text(&self) -> String {
        String::from_utf8_lossy(&self.try_run(&["journalctl", "--no-pager", "--output=short-precise"]).stdout).into_owned()
    }

    /// Every warning and error in the journal, but those of processes that live on; these are counted.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let (left_over, complaints): (Vec<Line>, Vec<Line>) = self
            .journal()
            .into_iter()
            .filter(|line| line.priority <= 4)
            .partition(|line| LEFT_OVER.iter().any(|words| line.message.contains(words)));
        eprintln!("the journal has {} lines about left-over processes and {} other complaints", left_over.len(), complaints.len());
        complaints.into_iter().map(|Line { priority, who, message }| format!("<{priority}> {who}: {message}")).collect()
    }
}

/// The group of a unit, somewhere below this one.
fn group_of(group: &Group, unit: &str) -> Option<Group> {
    group.children().unwrap().iter().find_map(|name| {
        let child = group.child(name).ok()?;
        if name == unit { Some(child) } else { group_of(&child, unit) }
    })
}

/// The PID of a process in its own namespace (proc_pid_status(5)).
fn pid_within(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    pids.split_whitespace().last()?.parse().ok()
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init != 0 {
            eprintln!("--- the journal ---\n{}--- end of the journal ---", self.journal_text());
        }
        // The end of the first process of a PID namespace is that of all; mounts go with the last.
        drop(self.group.kill());
        drop(self.namespaces.wait());
        let (parent, name) = (self.group_path.parent().unwrap(), self.group_path.file_name().unwrap().to_str().unwrap());
        let parent = Group::open(parent).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while parent.remove_tree(name).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(std::thread::panicking() || !self.group_path.exists(), "{} is left", self.group_path.display());
    }
}
