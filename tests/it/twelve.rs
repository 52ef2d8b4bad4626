//! Twelve real services that depend on one another: `config/site.toml`, as users get it, but for ports and directories.
//!
//! They start in order, each comes back when it is killed while the others live on, and they stop in the reverse order. It is proven by what the
//! daemon says (views, events, history) and by what the services do: a reading goes from the detector by way of ten of them to a reader, and the
//! programs of the site give up at once when they are started before what they need.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::User;
use procman::protocol::StateName;
use procman::protocol::event::{Event, StateChanged};
use procman::protocol::reply::{Each, Ended, Replay, View};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::harness::{Daemon, Services, Setup, free_ports, is_free, is_root, within};

/// How long a service may take on a busy machine; making PostgreSQL's cluster is the longest.
const PATIENCE: Duration = Duration::from_secs(120);

const SITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/site");

/// The site, running.
struct Site {
    daemon: Daemon,
    /// Every `[[process]]` of the file.
    definitions: Vec<toml::Table>,
    /// The ports of the file and those that stand for them here.
    ports: BTreeMap<u16, u16>,
    _strays: Strays,
}

/// Kills, at last, whatever still works in this directory: some services overwrite their environment, and with it the marker of the test.
struct Strays(PathBuf);

impl Strays {
    fn all(&self) -> impl Iterator<Item = u32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.0)))
    }
}

impl Drop for Strays {
    fn drop(&mut self) {
        for pid in self.all() {
            if let Ok(fd) = PidFd::open(pid) {
                drop(fd.send_signal(libc::SIGKILL));
            }
        }
    }
}

impl Site {
    fn start() -> Self {
        let text = fs::read_to_string(format!("{SITE}.toml")).unwrap();
        // What comes before is the daemon's own, and each test has that for itself.
        let (_, text) = text.split_once("\n[defaults]\n").unwrap();
        let processes = format!("[defaults]\n{text}");
        let definitions = toml::from_str::<toml::Table>(&processes).unwrap()["process"].as_array().unwrap().clone();
        let definitions: Vec<toml::Table> = definitions.into_iter().map(|definition| definition.try_into().unwrap()).collect();

        let ports: BTreeMap<u16, u16> = (42_801..).zip(free_ports(12)).collect();
        let adapt = |text: &str| {
            let mut text = text.replace("../../config/site/", "{dir}/config/").replace("../target/site", "{dir}/site");
            for (said, free) in &ports {
                text = text.replace(&said.to_string(), &free.to_string());
            }
            if is_root() { text.replace("#user = \"postgres\"", "user = \"nobody\"") } else { text }
        };
        let setup = Setup::new(&adapt(&processes));
        let dir = setup.dir().to_owned();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["config", "site", "site/database"] {
            fs::create_dir(dir.join(directory)).unwrap();
        }
        for file in fs::read_dir(SITE).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            fs::write(dir.join("config").join(file.file_name().unwrap()), adapt(&fs::read_to_string(&file).unwrap())).unwrap();
        }
        if is_root() {
            let nobody = User::from_name("nobody").unwrap().unwrap();
            for directory in ["site", "site/database"] {
                chown(dir.join(directory), Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
            }
        }
        let services = Services::find(&dir);
        let daemon = setup.env("PATH", &services.path).env("LD_LIBRARY_PATH", &services.libraries).start();
        Self { _strays: Strays(daemon.path("site")), daemon, definitions, ports }
    }

    fn names(&self) -> Vec<&str> {
        self.definitions.iter().map(|definition| definition["name"].as_str().unwrap()).collect()
    }

    /// Pairs of this key: the second is named by the first.
    fn pairs(&self, key: &str) -> Vec<(&str, &str)> {
        let named = |definition: &'_ toml::Table| definition.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let all = self.names();
        let of = |name: &toml::Value| *all.iter().find(|known| name.as_str() == Some(**known)).unwrap();
        self.definitions.iter().flat_map(|it| named(it).iter().map(|name| (of(&it["name"]), of(name))).collect::<Vec<_>>()).collect()
    }

    fn views(&self) -> BTreeMap<String, View> {
        let views: Vec<View> = self.daemon.call("list", json!({}));
        views.into_iter().map(|view| (view.name.to_string(), view)).collect()
    }

    /// Waits until every one of them runs and is ready.
    #[track_caller]
    fn all_ready(&self) -> BTreeMap<String, View> {
        let mut last = BTreeMap::new();
        within(PATIENCE, "all of them are ready", || {
            last = self.views();
            let failed: Vec<&View> = last.values().filter(|view| matches!(view.state, StateName::Fatal | StateName::Exited)).collect();
            assert!(failed.is_empty(), "{failed:?}\n{}", self.outputs());
            last.values().all(|view| view.state == StateName::Running && view.ready).then_some(())
        });
        last
    }

    /// What `GET` of this path gives by way of the proxy; `None` where it is no success.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[&42_810])).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: site\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
    }

    /// How many readings a reader sees.
    fn readings(&self) -> Option<u64> {
        self.get("/")?.trim().parse().ok()
    }

    /// Waits until new readings go all the way, and until Prometheus has its figures; how many there are then, none of `before` lost.
    #[track_caller]
    fn works(&self, before: u64) -> u64 {
        let next = |above: u64| within(PATIENCE, "another reading arrives", || self.readings().filter(|readings| *readings > above));
        // What is under way is not yet what is new.
        let now = next(before);
        let now = next(now + 2);
        within(PATIENCE, "Prometheus sees the host", || {
            let answer: Value = serde_json::from_str(&self.get("/monitor/api/v1/query?query=up")?).ok()?;
            (answer["data"]["result"][0]["value"][1] == "1").then_some(())
        });
        now
    }

    /// The changes of state so far, of each.
    fn changes(&self) -> Changes {
        let replay: Replay = self.daemon.call("events", json!({"since": 1}));
        assert!(replay.complete);
        let mut changes = Changes::new();
        for event in replay.events {
            if let Event::StateChanged(change) = event {
                changes.entry(change.name.to_string()).or_default().push(change);
            }
        }
        changes
    }

    /// What they wrote, for a message.
    fn outputs(&self) -> String {
        let tail = |name: &str| {
            let logs: Value = self.daemon.call("logs", json!({"name": name, "lines": 8}));
            format!("--- {name}: {logs}\n")
        };
        self.names().into_iter().map(tail).collect()
    }
}

/// The changes of state, by name, in their order.
type Changes = BTreeMap<String, Vec<StateChanged>>;

/// When it came to this state for the first time.
#[track_caller]
fn first<'a>(changes: &'a Changes, name: &str, state: StateName) -> &'a StateChanged {
    changes[name].iter().find(|change| change.to == state).unwrap_or_else(|| panic!("{name} was never {state}: {:?}", changes[name]))
}

/// When it came to this state for the last time.
#[track_caller]
fn last<'a>(changes: &'a Changes, name: &str, state: StateName) -> &'a StateChanged {
    changes[name].iter().rfind(|change| change.to == state).unwrap_or_else(|| panic!("{name} was never {state}: {:?}", changes[name]))
}

#[test]
fn twelve_real_services_start_in_order_survive_each_kill_and_stop_in_reverse() {
    let mut site = Site::start();
    let names = site.names();
    assert_eq!(names.len(), 12);
    let kinds = ["notify", "zmq", "tcp", "unix", "http", "exec", "file", "delay"];
    let ready: Vec<&toml::Table> = site.definitions.iter().map(|definition| definition["ready"].as_table().unwrap()).collect();
    assert!(kinds.iter().all(|kind| ready.iter().any(|ready| ready.contains_key(*kind))), "every kind of readiness is there");

    let begun = site.all_ready();
    starts_are_in_order(&site, &begun);
    assert!(begun.values().all(|view| view.restarts == 0), "none had to try twice: {begun:?}");
    let mut readings = site.works(0);

    let mut pids: BTreeMap<String, Option<u32>> = begun.into_iter().map(|(name, view)| (name, view.pid)).collect();
    for name in &names {
        let victim = pids[*name].unwrap();
        PidFd::open(victim).unwrap().send_signal(libc::SIGKILL).unwrap();
        within(PATIENCE, format_args!("{name} runs again"), || {
            let view = site.daemon.view(name);
            (view.state == StateName::Running && view.pid != Some(victim)).then_some(())
        });
        let views = site.all_ready();
        for (other, view) in &views {
            assert_eq!(
                (view.pid == pids[other], view.restarts),
                (other != name, u64::from(other == name || restarted(&names, name, other)))
            );
        }
        pids = views.into_iter().map(|(name, view)| (name, view.pid)).collect();
        readings = site.works(readings);
    }

    let ended: Vec<Each<Ended>> = site.daemon.call("quit", json!({"all": true}));
    assert_eq!(ended.len(), 12);
    for each in &ended {
        let Each::Done(ended) = each else { panic!("{each:?}") };
        assert_eq!((ended.survivors, &ended.killed[..]), (0, &[][..]), "{ended:?}");
    }
    stops_are_in_reverse(&site);
    leaves_nothing(&site);

    // The last one brings all it requires along; and the daemon, when it leaves, ends them in reverse, too.
    site.daemon.execute("proxy");
    within(PATIENCE, "the proxy and what it requires are ready", || site.daemon.view("proxy").ready.then_some(()));
    let kept = within(PATIENCE, "the readings are there", || site.readings());
    assert!(kept >= readings, "{kept} of {readings} readings were kept");
    site.daemon.signal(libc::SIGTERM);
    site.daemon.wait_exit();
    leaving_is_in_reverse(&site);
    leaves_nothing(&site);
    site.daemon.stop();
}

/// Whether it was its turn to be killed before.
fn restarted(names: &[&str], now: &str, name: &str) -> bool {
    names.iter().take_while(|it| **it != now).any(|it| *it == name)
}

/// The process of each was started only once all that it requires were ready; those that require nothing did not wait for each other.
#[track_caller]
fn starts_are_in_order(site: &Site, views: &BTreeMap<String, View>) {
    let changes = site.changes();
    let started_at = |name: &str| views[name].started_at.unwrap();
    let requires = site.pairs("requires");
    assert!(requires.len() >= 10, "{requires:?}");
    for (name, required) in &requires {
        let ready = first(&changes, required, StateName::Running);
        assert!(ready.seq < first(&changes, name, StateName::Running).seq, "{name} was ready before {required}: {changes:?}");
        assert!(ready.time < started_at(name) + CLOCKS, "{name} was started before {required} was ready: {views:?}, {changes:?}");
    }
    for (name, earlier) in site.pairs("after") {
        assert!(started_at(earlier) < started_at(name), "{name}, {earlier}: {views:?}");
    }
    let waiting: BTreeSet<&str> = requires.iter().map(|(name, _)| *name).collect();
    let slowest = first(&changes, "database", StateName::Running).time;
    for name in site.names().into_iter().filter(|name| !waiting.contains(name)) {
        assert!(started_at(name) < slowest, "{name} waited for the database: {views:?}");
    }
}

/// An event bears the time at which it is published, a process that at which it was made: the one that follows may be noted a moment earlier.
const CLOCKS: f64 = 0.02;

/// Each was asked to end only once nothing was left of all that needs it.
#[track_caller]
fn stops_are_in_reverse(site: &Site) {
    let changes = site.changes();
    let history: Vec<Value> = site.daemon.call("history", json!({"limit": 12}));
    let ended_at = |name: &str| history.iter().find(|run| run["name"] == name).and_then(|run| run["ended_at"].as_f64()).unwrap();
    for (name, needed) in [site.pairs("requires"), site.pairs("after")].concat() {
        let (gone, asked) = (last(&changes, name, StateName::Stopped), last(&changes, needed, StateName::Stopping));
        assert!(gone.seq < asked.seq, "{needed} was asked to end before {name} was gone: {changes:?}");
        assert!(ended_at(name) <= ended_at(needed), "{name}, {needed}: {history:?}");
    }
    assert!(history.iter().all(|run| run["cause"] == "quit"), "{history:?}");
}

/// The same of the daemon's own leaving, as its log tells.
#[track_caller]
fn leaving_is_in_reverse(site: &Site) {
    let log = site.daemon.read("log");
    let lines: Vec<&str> = log.lines().collect();
    let when = |name: &str, to: &str| {
        let words = ["state changed".to_owned(), format!("name=\"{name}\""), format!("to=\"{to}\"")];
        lines.iter().rposition(|line| words.iter().all(|word| line.contains(word))).unwrap_or_else(|| panic!("{name} was never {to}"))
    };
    let leaving = lines.iter().rposition(|line| line.contains("leaving")).unwrap_or_default();
    let both: Vec<(&str, &str)> = site.pairs("requires").into_iter().filter(|(name, _)| when(name, "stopping") > leaving).collect();
    assert!(both.len() >= 6, "{both:?}");
    for (name, required) in both {
        assert!(when(name, "stopped") < when(required, "stopping"), "{required} was asked to end before {name} was gone");
    }
}

/// No process, no port, no file lock, and none of the files that say that a service runs.
#[track_caller]
fn leaves_nothing(site: &Site) {
    let left: Vec<u32> = site._strays.all().collect();
    assert!(left.is_empty(), "these are left: {left:?}");
    for (said, port) in &site.ports {
        assert!(is_free(*port), "somebody still listens at {port}, which is {said} in the file");
    }
    let locks = fs::read_to_string("/proc/locks").unwrap();
    for file in files(&site.daemon.path("site")) {
        let inode = fs::symlink_metadata(&file).unwrap().ino();
        assert!(!locks.contains(&format!(":{inode} ")), "{} is locked: {locks}", file.display());
    }
    for file in ["site/database/cluster/postmaster.pid", "site/nginx.pid", "site/bus.sock"] {
        assert!(!site.daemon.path(file).exists(), "{file} is left");
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
