//! The daemon in the registry of CGSE: the real one, from PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procman::protocol::StateName;
use procman::protocol::event::Event;
use procman::protocol::reply::{PastRun, Replay, StatusOfAll, View};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, free_ports, until, within};

/// A registry that somebody runs, and a daemon that is to be in it.
struct Site {
    daemon: Daemon,
    requests: u16,
}

/// Where `make test` installs CGSE.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cgse/bin/python")
}

impl Site {
    /// The registry is a sub-process of the daemon like any other; it is not started yet.
    fn begin(more: &str) -> Self {
        let [requests, events, heartbeats, control] = free_ports(4)[..] else { unreachable!("four were asked for") };
        let registry = format!(
            "[[process]]\nname = 'rs_cs'\ncwd = '{{dir}}/cwd'\nstdout = 'log'\nstderr = 'stdout'\nrestart = 'always'\nbackoff = {{ initial = 0.1 }}\n\
             cmd = ['{}', '-m', 'egse.registry.server', 'start', '--req-port', '{requests}', '--pub-port', '{events}', '--hb-port', '{heartbeats}']\n\
             env = {{ PROJECT = 'CGSE', SITE_ID = 'LAB23', CGSE_DATA_STORAGE_LOCATION = '{{dir}}/data', CGSE_LOG_FILE_LOCATION = '{{dir}}/data/log' }}\n\
             stop_timeout = 10\n\
             [cgse]\nregistry = 'tcp://127.0.0.1:{requests}'\nheartbeat = 'tcp://127.0.0.1:{heartbeats}'\n{more}",
            python().display()
        );
        // The next daemon is at the same place.
        let setup = Setup::new(&registry).endpoint(&format!("tcp://127.0.0.1:{control}"));
        for directory in ["cwd", "data/log", "data/daily", "data/obs"] {
            fs::create_dir_all(setup.dir().join(directory)).unwrap();
        }
        Self { daemon: setup.start(), requests }
    }

    /// What the registry answers; `None` where it does not.
    fn ask(&self, body: &Value) -> Option<Value> {
        let peer = Peer::connect(zmq::DEALER, &format!("tcp://127.0.0.1:{}", self.requests));
        peer.send(&[b"REQ".to_vec(), serde_json::to_vec(body).unwrap()]);
        peer.has_more(1000).then(|| serde_json::from_slice(&peer.receive()[1]).unwrap())
    }

    /// The daemon's entries.
    fn entries(&self) -> Vec<Value> {
        let answer = self.ask(&json!({"action": "list", "service_type": "PROCMAN"}));
        answer.map(|answer| answer["services"].as_array().unwrap().clone()).unwrap_or_default()
    }

    #[track_caller]
    fn wait_until_listed(&self) -> Value {
        until("the daemon is listed as passing", || self.entries().into_iter().find(|entry| entry["health"] == "passing"))
    }

    fn problem(&self) -> Option<String> {
        self.daemon.call::<StatusOfAll>("status", json!({})).registry_problem
    }

    fn told(&self) -> Vec<String> {
        let replay: Replay = self.daemon.call("events", json!({}));
        let noted = replay.events.into_iter().filter_map(|event| match event {
            Event::Noted(noted) => Some(noted.event),
            Event::StateChanged(_) => None,
        });
        noted.filter(|event| event.starts_with("registry_")).collect()
    }
}

#[test]
fn the_daemon_is_entered_renewed_and_taken_out() {
    let site = Site::begin("advertise_host = '127.0.0.1'\n");
    // The registry is away: nothing waits for it, and everybody is told.
    until("it is noticed", || site.problem());
    assert_eq!(site.daemon.metric("procman_cgse_registered", &[]), Some(0.0));
    site.daemon.execute("rs_cs");
    let entry = site.wait_until_listed();
    let port = site.daemon.tcp().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    assert_eq!((&entry["host"], &entry["port"], &entry["name"]), (&json!("127.0.0.1"), &json!(port), &json!("procman")));
    assert_eq!((&entry["metadata"]["type"], &entry["metadata"]["service_port"]), (&json!("PROCMAN"), &json!(port)));
    assert!(entry["metadata"]["metrics_port"].as_u64().unwrap() > 0);
    until("it is told", || site.problem().is_none().then_some(()));
    until("it is served", || site.daemon.metric("procman_cgse_registered", &[]).filter(|it| *it == 1.0));
    assert_eq!(site.told(), ["registry_missing", "registry_entered"]);

    // The next daemon has the same entry, also where this one did not take it out.
    let id = entry["id"].clone();
    let mut site = site;
    site.daemon.replace();
    assert_eq!(site.wait_until_listed()["id"], id);
    assert_eq!(site.entries().len(), 1);

    // A registry that has forgotten it is told again, at the next sign of life.
    assert_eq!(site.ask(&json!({"action": "deregister", "service_id": id})).unwrap()["success"], true);
    site.wait_until_listed();

    // Who leaves for good leaves no entry behind. The registry, which ends after that, keeps what it has in a file.
    site.daemon.signal(libc::SIGTERM);
    assert_eq!(site.daemon.wait_exit().code(), Some(0));
    let kept = rusqlite::Connection::open(site.daemon.path("cwd/service_registry.db")).unwrap();
    let entries: i64 = kept.query_row("SELECT count(*) FROM services", (), |row| row.get(0)).unwrap();
    assert_eq!(entries, 0);
}

#[test]
fn an_entry_that_another_left_in_this_place_gives_way_and_anothers_does_not() {
    let mut site = Site::begin("service_type = 'PROCMAN'\n");
    site.daemon.execute("rs_cs");
    let entry = site.wait_until_listed();
    assert_eq!(site.daemon.view("rs_cs").state, StateName::Running);
    // Somebody of another id has the type.
    let enter = |site: &Site, host: &str| {
        let info = json!({"name": "other", "host": host, "port": entry["port"], "type": "PROCMAN", "metadata": {}, "tags": []});
        site.ask(&json!({"action": "register", "service_info": info, "ttl": 600})).unwrap()
    };
    let take_out = |site: &Site, id: &Value| site.ask(&json!({"action": "deregister", "service_id": id})).unwrap();
    // While the daemon is away, so that it does not come first.
    site.daemon.kill_alone();
    take_out(&site, &entry["id"]);
    assert_eq!(enter(&site, "192.0.2.1")["success"], true);
    site.daemon.start_next();
    let problem = until("it is refused", || site.problem());
    assert!(problem.contains("already registered"), "{problem}");
    assert_eq!(site.entries()[0]["host"], "192.0.2.1", "that one is elsewhere, and may live");
    let other = site.entries()[0]["id"].clone();
    take_out(&site, &other);
    assert_eq!(site.wait_until_listed()["id"], entry["id"]);

    site.daemon.kill_alone();
    take_out(&site, &entry["id"]);
    assert_eq!(enter(&site, "127.0.0.1")["success"], true);
    site.daemon.start_next();
    until("that entry has given way", || site.entries().into_iter().find(|found| found["id"] == entry["id"]));
    assert_eq!(site.entries().len(), 1);
}

#[test]
fn what_is_no_registry_does_no_harm() {
    // One that never answers, one that answers what nobody understands.
    let context = zmq::Context::new();
    let silent = context.socket(zmq::ROUTER).unwrap();
    silent.bind("tcp://127.0.0.1:*").unwrap();
    let address = silent.get_last_endpoint().unwrap().unwrap();
    let daemon = Setup::new(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n[cgse]\nregistry = '{address}'\nheartbeat = '{address}'\n"
    ))
    .tcp()
    .start();
    let problem = |words: &str| {
        until(format_args!("{words:?} is told"), || {
            let status: StatusOfAll = daemon.call("status", json!({}));
            status.registry_problem.filter(|problem| problem.contains(words))
        })
    };
    problem("does not answer");
    for garbage in [vec![b"RESPONSE".to_vec(), b"{oops".to_vec()], vec![b"RESPONSE".to_vec()], vec![vec![0xc1; 100], vec![], vec![7]]] {
        // Each question of the daemon gets that.
        until("it asks", || {
            let frames = silent.recv_multipart(zmq::DONTWAIT).ok()?;
            let action: Value = serde_json::from_slice(&frames[2]).unwrap();
            assert_eq!((&frames[1][..], &action["action"]), (&b"REQ"[..], &json!("register")), "nothing else is ever sent");
            silent.send_multipart([&frames[..1], &garbage[..]].concat(), 0).ok()
        });
    }
    problem("not the registry's");
    assert_eq!(daemon.wait_for_state("web", StateName::Running).restarts, 0);
}

/// A service as CGSE's are: it is entered in the registry, and leaves with 0 where that refuses it.
const SERVICE: &str = r#"
import json, os, signal, socket, sys, time, zmq
door = socket.create_server(("127.0.0.1", int(sys.argv[2])))
registry = zmq.Context.instance().socket(zmq.DEALER)
registry.connect(sys.argv[1])
info = {"name": "dummy", "host": "127.0.0.1", "port": int(sys.argv[2]), "type": "DUMMY_CS", "metadata": {}, "tags": []}
while os.path.exists("wait"): time.sleep(0.01)
registry.send_multipart([b"REQ", json.dumps({"action": "register", "service_info": info, "ttl": 600}).encode()])
answer = json.loads(registry.recv_multipart()[1])
if not answer["success"]:
    print("refused:", answer, flush=True)
    sys.exit(0)
while True: time.sleep(1000)
"#;

#[test]
fn a_service_is_ready_once_it_is_listed_and_what_a_dead_one_left_is_not_in_its_way() {
    let port = free_ports(1)[0];
    let site = Site::begin("");
    let service = site.daemon.path("service.py");
    fs::write(&service, SERVICE).unwrap();
    let registry = format!("tcp://127.0.0.1:{}", site.requests);
    let definition = json!({
        "name": "dummy", "cmd": ["/usr/bin/python3", service, registry, port.to_string()], "cwd": site.daemon.path("cwd"),
        "requires": ["rs_cs"], "restart": "always", "backoff": {"initial": 0.1, "jitter": 0.0}, "start_limit": {"count": 0}, "stdout": "log",
        "cgse_service_type": "DUMMY_CS",
    });
    let _: Value = site.daemon.call("register", definition);
    fs::write(site.daemon.path("cwd/wait"), "").unwrap();
    site.daemon.execute("dummy");
    let view = site.daemon.wait_for("dummy", |view| view.state == StateName::Starting && view.pid.is_some());
    assert!(!view.ready, "it is not listed yet");
    fs::remove_file(site.daemon.path("cwd/wait")).unwrap();
    let listed =
        |site: &Site| site.ask(&json!({"action": "list", "service_type": "DUMMY_CS"})).unwrap()["services"].as_array().unwrap().clone();
    for restarts in 1..=3 {
        let before = site.daemon.wait_for_state("dummy", StateName::Running);
        let entries = listed(&site);
        assert_eq!((entries.len(), &entries[0]["health"]), (1, &json!("passing")));
        // Its entry would live on for ten minutes, and refuse the next one.
        PidFd::open(before.pid.unwrap()).unwrap().send_signal(libc::SIGKILL).unwrap();
        let after =
            site.daemon.wait_for("dummy", |view| view.state == StateName::Running && view.pid.is_some_and(|pid| Some(pid) != before.pid));
        assert_eq!(after.restarts, restarts, "at the first try");
        let now = listed(&site);
        assert!(now.len() == 1 && now[0]["id"] != entries[0]["id"], "{now:?}");
    }
    // One that lives is nobody's to take out.
    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    site.daemon.quit("dummy");
    let stale = listed(&site)[0]["id"].clone();
    site.ask(&json!({"action": "deregister", "service_id": stale}));
    let info = json!({"name": "other", "host": "127.0.0.1", "port": somebody.local_addr().unwrap().port(), "type": "DUMMY_CS", "metadata": {}, "tags": []});
    let other = site.ask(&json!({"action": "register", "service_info": info, "ttl": 600})).unwrap()["service_id"].clone();
    site.daemon.call::<Value>("register", json!({"name": "again", "cmd": ["/usr/bin/python3", service, registry, port.to_string()], "cgse_service_type": "DUMMY_CS", "cwd": site.daemon.path("cwd")}));
    site.daemon.execute("again");
    site.daemon.wait_for_state("again", StateName::Exited);
    assert_eq!(listed(&site)[0]["id"], other);
}

/// The core as users get it, `config/cgse-core.toml`, but for its directories. Its ports are those that CGSE has, so there is one of it at a time.
fn core() -> Setup {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/cgse-core.toml")).unwrap();
    // What comes before is the daemon's own, and each test has that for itself.
    let (_, text) = text.split_once("\n[cgse]\n").unwrap();
    // On a busy machine CGSE's services give each other up after half a second, more often than a site would put up with.
    let text =
        text.replace("../target/cgse", "{dir}/cwd").replace("restart = \"always\"", "restart = \"always\"\nstart_limit = { count = 0 }");
    let setup = Setup::new(&format!("[cgse]\n{text}")).tcp().log("info");
    for directory in ["cwd", "LAB23/log", "LAB23/daily", "LAB23/obs", "LAB23/conf"] {
        fs::create_dir_all(setup.dir().join(directory)).unwrap();
    }
    // Without one the process manager of CGSE does not start.
    fs::write(setup.dir().join("LAB23/conf/SETUP_LAB23_00000_240101_120000.yaml"), "Setup:\n    site_id: LAB23\n    history: {}\n")
        .unwrap();
    let path = format!("{}:{}", python().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let variables = [
        ("PATH", path.as_str()),
        ("PROJECT", "CGSE"),
        ("SITE_ID", "LAB23"),
        ("CGSE_DATA_STORAGE_LOCATION", "{dir}/LAB23"),
        ("CGSE_CONF_DATA_LOCATION", "{dir}/LAB23/conf"),
        ("CGSE_LOG_FILE_LOCATION", "{dir}/LAB23/log"),
        ("CGSE_METRICS_BACKEND", "duckdb"),
        ("CGSE_DUCKDB_PATH", "{dir}/metrics.duckdb"),
    ];
    variables.into_iter().fold(setup, |setup, (key, value)| setup.env(key, value))
}

const CORE: [&str; 7] = ["rs_cs", "log_cs", "nh_cs", "mh_cs", "sm_cs", "cm_cs", "pm_cs"];
/// How long all of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_whole_core_starts_in_order_comes_back_and_stops_without_a_trace() {
    let began = Instant::now();
    let mut daemon = core().start();
    let is_listed = |kind: &str| {
        let peer = Peer::connect(zmq::DEALER, "tcp://127.0.0.1:6100");
        peer.send(&[b"REQ".to_vec(), serde_json::to_vec(&json!({"action": "list", "service_type": kind})).unwrap()]);
        let answer: Option<Value> = peer.has_more(1000).then(|| serde_json::from_slice(&peer.receive()[1]).unwrap());
        let services = answer.map(|answer| answer["services"].as_array().unwrap().clone()).unwrap_or_default();
        services.len() == 1 && services[0]["health"] == "passing"
    };
    let all_run = |daemon: &Daemon| {
        let views: Vec<View> = daemon.call("list", json!({}));
        if let Some(fatal) = views.iter().find(|view| view.state == StateName::Fatal) {
            let lines: Value = daemon.call("logs", json!({"name": fatal.name, "lines": 30}));
            panic!("{fatal:?}: {lines:#}");
        }
        views.iter().all(|view| view.state == StateName::Running && view.pid.is_some()).then_some(())
    };
    within(PATIENCE, "all of it is up", || all_run(&daemon));
    let up = began.elapsed();
    within(PATIENCE, "the daemon is listed, too", || is_listed("PROCMAN").then_some(()));
    let is_well = |daemon: &Daemon| {
        let status: StatusOfAll = daemon.call("status", json!({}));
        [status.registry_problem, status.notify_hub_problem, status.metrics_hub_problem].iter().all(Option::is_none).then_some(())
    };
    within(PATIENCE, "nothing is wrong between the daemon and CGSE", || is_well(&daemon));
    let mut back = Vec::new();
    for name in CORE {
        let before = daemon.view(name);
        let killed = Instant::now();
        PidFd::open(before.pid.unwrap()).unwrap().send_signal(libc::SIGKILL).unwrap();
        within(PATIENCE, format_args!("{name} is back"), || {
            let view = daemon.view(name);
            (view.state == StateName::Running && view.pid.is_some_and(|pid| Some(pid) != before.pid)).then_some(())
        });
        if name != "rs_cs" {
            within(PATIENCE, format_args!("{name} is listed again"), || is_listed(&name.to_uppercase()).then_some(()));
        }
        back.push((name, killed.elapsed()));
        within(PATIENCE, "the others are there", || all_run(&daemon));
    }
    within(PATIENCE, "nothing is wrong any more", || is_well(&daemon));
    let stopping = Instant::now();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    eprintln!("up after {up:?}, each back after {back:?}, down after {:?}", stopping.elapsed());
    let kept = rusqlite::Connection::open(daemon.path("cwd/service_registry.db")).unwrap();
    let left: Vec<String> = {
        let mut statement = kept.prepare("SELECT name FROM services").unwrap();
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(left, [""; 0], "each has taken its entry out");
    let history = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    let mut statement = history.prepare("SELECT body FROM history ORDER BY number DESC LIMIT 7").unwrap();
    let last: Vec<PastRun> =
        statement.query_map((), |row| row.get::<_, String>(0)).unwrap().map(|body| serde_json::from_str(&body.unwrap()).unwrap()).collect();
    assert!(last.iter().all(|run| run.returncode == Some(0)), "nobody had to be killed: {last:?}");
    assert_eq!(last[0].name.as_str(), "rs_cs", "the registry is the last");
}
