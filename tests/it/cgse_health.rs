//! Services of CGSE, as the registry of CGSE lists them: the real one, from PyPI.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use procman::protocol::event::{Event, Noted};
use procman::protocol::reply::{CgseEntry, PastRun, Replay, View};
use procman::protocol::{Cause, RegistryHealth, StateName};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::cgse::{Site, python};
use super::harness::{Daemon, free_ports, until, within};

/// A service as CGSE's are: it is entered, renews its entry, and enters itself again where the registry has forgotten it. While there is a file `hush` it
/// says nothing. One that `stays` runs on where the registry refuses it.
const SERVICE: &str = r#"
import json, os, socket, sys, time, zmq
requests, heartbeats, port, kind, ttl, mode = sys.argv[1:7]
door = socket.create_server(("127.0.0.1", int(port)))
info = {"name": kind.lower(), "host": "127.0.0.1", "port": int(port), "type": kind, "metadata": {}, "tags": []}
def ask(endpoint, *frames):
    with zmq.Context.instance().socket(zmq.DEALER) as s:
        s.linger = 0
        s.connect(endpoint)
        s.send_multipart(frames)
        return json.loads(s.recv_multipart()[-1]) if s.poll(1000) else None
def enter():
    return ask(requests, b"REQ", json.dumps({"action": "register", "service_info": info, "ttl": int(ttl)}).encode())
answer = enter()
if not answer or not answer["success"]:
    while mode == "stays": time.sleep(1000)
    sys.exit(0)
info["id"] = answer["service_id"]
while True:
    time.sleep(int(ttl) / 6)
    if os.path.exists("hush-" + kind): continue
    answer = ask(heartbeats, json.dumps({"action": "renew", "service_id": info["id"]}).encode())
    if answer and not answer["success"]: enter()
"#;

/// So long an entry counts: more than a busy machine makes anybody late by, and little to wait for.
const TTL: u64 = 3;

impl Site {
    /// Has a service of this type registered with the daemon.
    fn define(&self, name: &str, kind: &str, mode: &str, more: &Value) {
        let program = self.daemon.path("service.py");
        fs::write(&program, SERVICE).unwrap();
        let mut words = vec!["/usr/bin/python3".to_owned(), program.display().to_string()];
        words.extend([self.requests, self.heartbeats].map(|port| format!("tcp://127.0.0.1:{port}")));
        words.extend([free_ports(1)[0].to_string(), kind.to_owned(), TTL.to_string(), mode.to_owned()]);
        let mut definition = json!({
            "name": name, "cmd": words, "cwd": self.daemon.path("cwd"), "cgse_service_type": kind, "restart": "always",
            "backoff": {"initial": 0.1, "jitter": 0.0}, "start_limit": {"count": 0}, "stdout": "log", "stderr": "stdout",
        });
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let _: Value = self.daemon.call("register", definition);
    }

    /// Starts the registry, and waits until the daemon is there.
    fn open(&self) {
        self.daemon.execute("rs_cs");
        self.wait_until_listed();
    }

    /// A file that says to a service of this type that it is to be silent.
    fn hush(&self, kind: &str) -> PathBuf {
        self.daemon.path(&format!("cwd/hush-{kind}"))
    }

    fn listed(&self, kind: &str) -> Vec<Value> {
        let answer = self.ask(&json!({"action": "list", "service_type": kind}));
        answer.map(|answer| answer["services"].as_array().unwrap().clone()).unwrap_or_default()
    }

    /// What was told of how a sub-process is listed.
    fn told_of(&self, name: &str) -> Vec<Noted> {
        let replay: Replay = self.daemon.call("events", json!({}));
        let noted = replay.events.into_iter().filter_map(|event| match event {
            Event::Noted(noted) => Some(noted),
            Event::StateChanged(_) => None,
        });
        noted.filter(|noted| noted.event == "registry_health" && noted.name.as_ref().is_some_and(|of| of.as_str() == name)).collect()
    }

    fn passing(&self, name: &str) -> Option<f64> {
        self.daemon.metric("procman_process_cgse_passing", &[&format!("name=\"{name}\"")])
    }
}

fn entry(daemon: &Daemon, name: &str) -> CgseEntry {
    daemon.view(name).cgse.unwrap()
}

#[track_caller]
fn wait_for_health(daemon: &Daemon, name: &str, health: RegistryHealth) -> View {
    daemon.wait_for(name, |view| view.state == StateName::Running && view.cgse.as_ref().is_some_and(|entry| entry.health == health))
}

#[test]
fn one_that_is_critical_for_longer_than_its_ttl_is_started_anew() {
    let site = Site::begin("");
    let daemon = &site.daemon;
    site.define("dummy", "DUMMY_CS", "leaves", &json!({"requires": ["rs_cs"]}));
    // A check of its own decides alone.
    fs::write(daemon.path("well"), "").unwrap();
    site.define("checked", "CHECKED_CS", "leaves", &json!({"requires": ["rs_cs"], "health": {"file": daemon.path("well")}}));
    let stopped = entry(daemon, "dummy");
    assert_eq!((stopped.service_type.as_str(), stopped.id, stopped.health), ("DUMMY_CS", None, RegistryHealth::Unknown));
    assert_eq!(daemon.view("rs_cs").cgse, None, "the registry itself has no type there");
    for name in ["rs_cs", "dummy", "checked"] {
        daemon.execute(name);
    }
    let mut before = wait_for_health(daemon, "dummy", RegistryHealth::Passing);
    wait_for_health(daemon, "checked", RegistryHealth::Passing);
    let first = before.cgse.clone().unwrap();
    assert_eq!(first.id.as_deref(), site.listed("DUMMY_CS")[0]["id"].as_str());
    assert!(first.since.is_some() && first.problem.is_none());
    until("it is served", || site.passing("dummy").filter(|it| *it == 1.0));
    assert_eq!(site.passing("rs_cs"), None);
    let shown = Command::new(env!("CARGO_BIN_EXE_procmanctl"))
        .args(["--endpoint", &daemon.endpoint(), "status", "dummy"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = shown.lines().find(|line| line.contains("In CGSE: DUMMY_CS passing since ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.ends_with(&format!(" as {}", first.id.as_ref().unwrap())), "{line}");

    // Both fall silent.
    let checked = daemon.view("checked");
    fs::write(site.hush("CHECKED_CS"), "").unwrap();
    fs::write(site.hush("DUMMY_CS"), "").unwrap();
    before = daemon
        .wait_for("dummy", |view| view.pid == before.pid && view.cgse.as_ref().is_some_and(|it| it.health != RegistryHealth::Passing));
    assert!(before.health.is_none(), "it has no check");
    until("it has ended", || (daemon.view("dummy").pid != before.pid).then_some(()));
    fs::remove_file(site.hush("DUMMY_CS")).unwrap();
    let runs: Vec<PastRun> = daemon.call("history", json!({"name": "dummy"}));
    let ended = runs.iter().find(|run| run.pid == before.pid).unwrap();
    let why = ended.message.as_deref().unwrap();
    assert_eq!(ended.cause, Cause::Health, "{ended:?}");
    assert!(why.starts_with("DUMMY_CS has been critical in the registry of CGSE") && why.ends_with(" s"), "{why}");
    assert!(daemon.read("log").contains(why), "the log says why");

    // The next one has an entry of its own, and nothing is in its way.
    let after = daemon.wait_for("dummy", |view| {
        view.state == StateName::Running && view.cgse.as_ref().is_some_and(|it| it.health == RegistryHealth::Passing)
    });
    assert!(after.pid != before.pid && after.cgse.unwrap().id != first.id);
    assert_eq!(site.listed("DUMMY_CS").len(), 1);
    let told = site.told_of("dummy");
    let words: Vec<Value> = told.iter().map(|noted| serde_json::to_value(&noted.details["health"]).unwrap()).collect();
    assert_eq!((&words[0], words.last()), (&json!("passing"), Some(&json!("passing"))), "{words:?}");
    assert!(words.contains(&json!("critical")) && told.iter().any(|noted| noted.message == why), "{told:#?}");

    // What was ended for the same silence is not ended where something else decides.
    let still = daemon.view("checked");
    assert_eq!((still.pid, still.health.as_deref(), still.restarts), (checked.pid, Some("passing"), 0));
    let entry = still.cgse.unwrap();
    assert!(matches!(entry.health, RegistryHealth::Critical | RegistryHealth::Missing), "{entry:?}");
}

#[test]
fn whatever_becomes_of_the_registry_ends_nobody() {
    let mut site = Site::begin(&format!("ttl = {TTL}\nadvertise_host = '127.0.0.1'\n"));
    site.open();
    site.define("dummy", "DUMMY_CS", "leaves", &json!({}));
    site.daemon.execute("dummy");
    let view = wait_for_health(&site.daemon, "dummy", RegistryHealth::Passing);
    let id = view.cgse.clone().unwrap().id;
    let is_back = |site: &Site, what: &str| {
        site.wait_until_listed();
        let now = wait_for_health(&site.daemon, "dummy", RegistryHealth::Passing);
        assert_eq!((now.pid, now.restarts, now.state, &now.cgse.unwrap().id), (view.pid, 0, StateName::Running, &id), "{what}");
        until("the daemon is told to be there", || site.problem().is_none().then_some(()));
        until("it is served", || site.daemon.metric("procman_cgse_registered", &[]).filter(|it| *it == 1.0));
    };
    // Whoever has been away for so long is critical, or not there any more, when it is back.
    let outlast = |site: &Site| {
        let began = site.daemon.view("dummy").uptime.unwrap();
        until("a TTL has passed", || (site.daemon.view("dummy").uptime? > began + TTL as f64 + 1.0).then_some(()));
    };

    // It is killed, and is back with what it had in its file.
    let registry = site.daemon.view("rs_cs").pid.unwrap();
    PidFd::open(registry).unwrap().send_signal(libc::SIGKILL).unwrap();
    site.daemon.wait_for("rs_cs", |view| view.pid.is_some_and(|pid| pid != registry));
    is_back(&site, "killed");

    // It stands still for longer than everybody's TTL.
    let registry = PidFd::open(site.daemon.view("rs_cs").pid.unwrap()).unwrap();
    registry.send_signal(libc::SIGSTOP).unwrap();
    let unknown = wait_for_health(&site.daemon, "dummy", RegistryHealth::Unknown).cgse.unwrap();
    assert!(unknown.problem.as_ref().is_some_and(|problem| problem.contains("does not answer")), "{unknown:?}");
    assert_eq!(unknown.id, id);
    let problem = until("it is told", || site.problem());
    assert!(problem.contains("does not answer"), "{problem}");
    outlast(&site);
    registry.send_signal(libc::SIGCONT).unwrap();
    is_back(&site, "stood still");

    // It is away for longer than that, and then has forgotten everybody.
    site.daemon.quit("rs_cs");
    until("it is told", || site.problem());
    until("it is served", || site.daemon.metric("procman_cgse_registered", &[]).filter(|it| *it == 0.0));
    wait_for_health(&site.daemon, "dummy", RegistryHealth::Unknown);
    outlast(&site);
    for file in fs::read_dir(site.daemon.path("cwd")).unwrap().map(|file| file.unwrap().path()) {
        if file.file_name().unwrap().to_str().unwrap().starts_with("service_registry.db") {
            fs::remove_file(file).unwrap();
        }
    }
    site.daemon.execute("rs_cs");
    is_back(&site, "without its database");

    // The daemon stands still for longer than its own.
    site.daemon.signal(libc::SIGSTOP);
    within(Duration::from_secs(40), "its entry does not count any more", || {
        site.entries().iter().all(|entry| entry["health"] != "passing").then_some(())
    });
    site.daemon.signal(libc::SIGCONT);
    is_back(&site, "the daemon stood still");

    // The next daemon goes on with both.
    site.daemon.replace();
    is_back(&site, "the next daemon");
    let told = site.told();
    assert_eq!(told.last().map(String::as_str), Some("registry_entered"), "{told:?}");
}

#[test]
fn one_whose_type_another_service_has_is_told_and_left_alone() {
    let site = Site::begin("");
    site.open();
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = somebody.local_addr().unwrap().port();
    let info = json!({"name": "other", "host": "127.0.0.1", "port": port, "type": "DUMMY_CS", "metadata": {}, "tags": []});
    let other = site.ask(&json!({"action": "register", "service_info": info, "ttl": 600})).unwrap()["service_id"].clone();
    // So log_cs, nh_cs and mh_cs do.
    site.define("dummy", "DUMMY_CS", "stays", &json!({"ready": {"delay": 0.0}}));
    site.daemon.execute("dummy");
    let view = wait_for_health(&site.daemon, "dummy", RegistryHealth::Missing);
    let problem = view.cgse.unwrap().problem.unwrap();
    let id = other.as_str().unwrap();
    assert_eq!(problem, format!("another service has the type DUMMY_CS in the registry of CGSE: {id} at 127.0.0.1:{port}"));
    until("it is told", || site.told_of("dummy").iter().any(|noted| noted.message == problem).then_some(()));
    until("it is served", || site.passing("dummy").filter(|it| *it == 0.0));
    until("a TTL has passed", || (site.daemon.view("dummy").uptime? > TTL as f64 + 3.0).then_some(()));
    assert_eq!(site.daemon.view("dummy").pid, view.pid, "one that was never listed is not ill");
    assert_eq!(site.listed("DUMMY_CS")[0]["id"], other);

    // One on another host is nobody's here to take out, whether its port is closed or not.
    site.ask(&json!({"action": "deregister", "service_id": other})).unwrap();
    site.daemon.quit("dummy");
    let info = json!({"name": "other", "host": "192.0.2.1", "port": 1, "type": "DUMMY_CS", "metadata": {}, "tags": []});
    let other = site.ask(&json!({"action": "register", "service_info": info, "ttl": 600})).unwrap()["service_id"].clone();
    site.daemon.execute("dummy");
    wait_for_health(&site.daemon, "dummy", RegistryHealth::Missing);
    assert_eq!(site.listed("DUMMY_CS")[0]["id"], other);

    // The daemon's own type: `an_entry_that_another_left_in_this_place_gives_way_and_anothers_does_not`.
}

/// What CGSE's own clients see, in Python: the blocking one and the other.
const CLIENTS: &str = r#"
import asyncio, json, sys
from egse.registry.client import AsyncRegistryClient, RegistryClient
ports = dict(zip(("registry_req_endpoint", "registry_sub_endpoint", "registry_hb_endpoint"), sys.argv[1:]))
def chosen(service): return {key: service[key] for key in ("id", "name", "host", "port", "health")}
with RegistryClient(timeout=5.0, **ports) as client:
    seen = [chosen(client.list_services("PROCMAN")[0]), chosen(client.discover_service("PROCMAN")), client.get_endpoint("PROCMAN")]
async def main():
    async with AsyncRegistryClient(timeout=5.0, **ports) as client:
        all = [service for service in await client.list_services() if service["metadata"].get("type") == "PROCMAN"]
        return [chosen(all[0]), chosen(await client.discover_service("PROCMAN")), await client.get_endpoint("PROCMAN")]
print(json.dumps([seen, asyncio.run(main())]))
"#;

#[test]
fn cgses_own_clients_and_its_command_see_the_daemon() {
    let site = Site::begin("advertise_host = '127.0.0.1'\n");
    site.open();
    let settings = site.daemon.path("settings.yaml");
    let Site { requests, heartbeats, events, .. } = &site;
    fs::write(
        &settings,
        format!("Service Registry:\n    REQUESTER_PORT: {requests}\n    PUBLISHER_PORT: {events}\n    HEARTBEAT_PORT: {heartbeats}\n"),
    )
    .unwrap();
    let run = |program: &Path, arguments: &[String]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(site.daemon.path("cwd")).stdin(Stdio::null());
        command.envs([("PROJECT", "CGSE"), ("SITE_ID", "LAB23"), ("COLUMNS", "400")]).env("CGSE_LOCAL_SETTINGS", &settings);
        for key in ["CGSE_DATA_STORAGE_LOCATION", "CGSE_CONF_DATA_LOCATION", "CGSE_LOG_FILE_LOCATION"] {
            command.env(key, site.daemon.path("data"));
        }
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{out}{err}");
        out
    };
    let endpoints = [requests, events, heartbeats].map(|port| format!("tcp://127.0.0.1:{port}"));
    let seen = run(&python(), &[&["-c".to_owned(), CLIENTS.to_owned()][..], &endpoints].concat());
    let seen: Value = serde_json::from_str(seen.lines().last().unwrap()).unwrap();
    let port: u16 = site.daemon.info().cgse_endpoints.unwrap()[0].rsplit_once(':').unwrap().1.parse().unwrap();
    let id = site.entries()[0]["id"].clone();
    let one = json!({"id": id, "name": "procman", "host": "127.0.0.1", "port": port, "health": "passing"});
    let expected = json!([one, one, format!("tcp://127.0.0.1:{port}")]);
    assert_eq!(seen, json!([expected, expected]));

    let listed = run(&python().with_file_name("cgse"), &["reg".to_owned(), "list-services".to_owned()]);
    assert!(listed.contains("PROCMAN") && listed.contains(&port.to_string()), "{listed}");
}
