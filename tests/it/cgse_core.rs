//! CGSE's core and a device under the daemon: the real ones, from PyPI, by the configuration that users get.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procman::protocol::reply::{Executed, PastRun, StatusOfAll, View};
use procman::protocol::{StateName, Wanted};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, within};

/// Where `make test` installs CGSE.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cgse/bin/python")
}

/// The core as users get it, `config/cgse-core.toml`, but for its directories. Its ports are those that CGSE has, so there is one of it at a time.
/// The devices are those of `config/cgse-devices.toml`.
fn site() -> Setup {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/cgse-core.toml")).unwrap();
    // What comes before is the daemon's own, and each test has that for itself.
    let (_, text) = text.split_once("\n[cgse]\n").unwrap();
    // On a busy machine CGSE's services give each other up after half a second, more often than a site would put up with.
    let text =
        text.replace("../target/cgse", "{dir}/cwd").replace("restart = \"always\"", "restart = \"always\"\nstart_limit = { count = 0 }");
    let setup = Setup::new(&format!("[cgse]\n{text}")).daemon("include = ['devices.toml']").tcp().log("info");
    let devices = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/cgse-devices.toml")).unwrap();
    fs::write(
        setup.dir().join("devices.toml"),
        devices.replace("start_limit = { count = 3, interval = 30.0 }", "start_limit = { count = 0 }"),
    )
    .unwrap();
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

/// What is killed, and its type in the registry, which itself is not listed in there.
const SERVICES: [(&str, Option<&str>); 8] = [
    ("rs_cs", None),
    ("log_cs", Some("LOG_CS")),
    ("nh_cs", Some("NH_CS")),
    ("mh_cs", Some("MH_CS")),
    ("sm_cs", Some("SM_CS")),
    ("cm_cs", Some("CM_CS")),
    ("pm_cs", Some("PM_CS")),
    ("dummy_dev", Some("dummy-async-control-server")),
];
/// Two more devices of the documented file, of the older kind.
const OLDER: [&str; 2] = ["dummy_sim", "dummy_cs"];
/// How long all of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How soon one that was killed is back, on a machine that is not too busy at one of three times.
const SOON: Duration = Duration::from_secs(3);

/// Whether exactly one service of this type is listed, and as passing.
fn is_listed(kind: &str) -> bool {
    let peer = Peer::connect(zmq::DEALER, "tcp://127.0.0.1:6100");
    peer.send(&[b"REQ".to_vec(), serde_json::to_vec(&json!({"action": "list", "service_type": kind})).unwrap()]);
    let answer: Option<Value> = peer.has_more(1000).then(|| serde_json::from_slice(&peer.receive()[1]).unwrap());
    let services = answer.map(|answer| answer["services"].as_array().unwrap().clone()).unwrap_or_default();
    services.len() == 1 && services[0]["health"] == "passing"
}

/// Whether everything that is wanted runs.
fn all_run(daemon: &Daemon) -> Option<()> {
    let views: Vec<View> = daemon.call("list", json!({}));
    let wanted = |view: &&View| view.group.as_ref().is_some_and(|group| group.as_str() == "core") || view.wanted == Wanted::Up;
    if let Some(fatal) = views.iter().find(|view| view.state == StateName::Fatal) {
        let lines: Value = daemon.call("logs", json!({"name": fatal.name, "lines": 30}));
        panic!("{fatal:?}: {lines:#}");
    }
    views.iter().filter(wanted).all(|view| view.state == StateName::Running && view.pid.is_some()).then_some(())
}

/// Whether registry and hubs have what they are to have.
fn is_well(daemon: &Daemon) -> Option<()> {
    let status: StatusOfAll = daemon.call("status", json!({}));
    [status.registry_problem, status.notify_hub_problem, status.metrics_hub_problem].iter().all(Option::is_none).then_some(())
}

/// Kills it, and returns how long it takes until it is back, and listed.
fn kill(daemon: &Daemon, name: &str, kind: Option<&str>) -> Duration {
    let before = daemon.view(name);
    let killed = Instant::now();
    PidFd::open(before.pid.unwrap()).unwrap().send_signal(libc::SIGKILL).unwrap();
    within(PATIENCE, format_args!("{name} is back"), || {
        let view = daemon.view(name);
        (view.state == StateName::Running && view.pid.is_some_and(|pid| Some(pid) != before.pid)).then_some(())
    });
    if let Some(kind) = kind {
        within(PATIENCE, format_args!("{name} is listed again"), || is_listed(kind).then_some(()));
    }
    let took = killed.elapsed();
    within(PATIENCE, "the others are there", || all_run(daemon));
    took
}

#[test]
fn the_core_and_a_device_start_in_order_come_back_and_stop_without_a_trace() {
    let began = Instant::now();
    let mut daemon = site().start();
    within(PATIENCE, "the core is up", || all_run(&daemon));
    let up = began.elapsed();
    within(PATIENCE, "the daemon is listed, too", || is_listed("PROCMAN").then_some(()));
    for device in OLDER.into_iter().chain(["dummy_dev"]) {
        let started: Executed = daemon.call("execute", json!({"name": device, "wait": true, "timeout": 60}));
        assert_eq!(started.state, StateName::Running, "{device}");
    }
    within(PATIENCE, "nothing is wrong between the daemon and CGSE", || is_well(&daemon));
    let mut back = Vec::new();
    for (name, kind) in SERVICES {
        // A machine that is busy now may not be so the next time; a service that is slow is so each time.
        let mut best = kill(&daemon, name, kind);
        for _ in 0..2 {
            if best > SOON {
                best = best.min(kill(&daemon, name, kind));
            }
        }
        back.push((name, best));
        assert!(best <= SOON, "{name} is back after {best:?} at best");
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
    let mut statement = history.prepare("SELECT body FROM history ORDER BY number DESC LIMIT 10").unwrap();
    let last: Vec<PastRun> =
        statement.query_map((), |row| row.get::<_, String>(0)).unwrap().map(|body| serde_json::from_str(&body.unwrap()).unwrap()).collect();
    // But for the simulator, which minds no control server's ways.
    let served = last.iter().filter(|run| run.name.as_str() != "dummy_sim");
    assert!(served.clone().count() == 9 && served.clone().all(|run| run.returncode == Some(0)), "nobody had to be killed: {last:?}");
    assert!(last.iter().all(|run| run.signal != Some(libc::SIGKILL)), "{last:?}");
    assert_eq!(last[0].name.as_str(), "rs_cs", "the registry is the last");
}
