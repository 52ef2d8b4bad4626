//! The hubs of CGSE are told of events and status: the real ones, from PyPI, and what else may listen where they are to be.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use procman::protocol::StateName;
use procman::protocol::event::{Event, Fact, Noted};
use procman::protocol::reply::{Replay, StatusOfAll};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, free_ports, until, within};

/// How long CGSE's services may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const SLEEPER: &str = "[[process]]\nname = 'web'\ngroup = 'lab'\ncmd = ['sleep', '1000']\n";

/// A daemon with `[cgse]`, whose registry nobody is.
fn setup(processes: &str, hubs: &str) -> Setup {
    let [registry, heartbeat] = free_ports(2)[..] else { unreachable!("two were asked for") };
    let cgse = format!("[cgse]\nregistry = 'tcp://127.0.0.1:{registry}'\nheartbeat = 'tcp://127.0.0.1:{heartbeat}'\n{hubs}");
    Setup::new(&format!("{processes}\n{cgse}")).tcp().env("SITE_ID", "LAB23")
}

fn problems(daemon: &Daemon) -> (Option<String>, Option<String>) {
    let status: StatusOfAll = daemon.call("status", json!({}));
    (status.notify_hub_problem, status.metrics_hub_problem)
}

/// What was told of this hub.
fn told(daemon: &Daemon, hub: &str) -> Vec<Noted> {
    let replay: Replay = daemon.call("events", json!({"limit": 4096}));
    let noted = replay.events.into_iter().filter_map(|event| match event {
        Event::Noted(noted) => Some(noted),
        Event::StateChanged(_) => None,
    });
    noted.filter(|noted| noted.details.get("hub") == Some(&Fact::Text(hub.into()))).collect()
}

fn words(noted: &[Noted]) -> Vec<&str> {
    noted.iter().map(|noted| noted.event.as_str()).collect()
}

fn counted(daemon: &Daemon, family: &str, hub: &str) -> f64 {
    daemon.metric(family, &[&format!("hub=\"{hub}\"")]).unwrap()
}

fn starts_and_ends(daemon: &Daemon, times: usize) {
    for _ in 0..times {
        daemon.execute("web");
        daemon.quit("web");
    }
}

/// A hub as libzmq makes one.
struct Pull {
    socket: zmq::Socket,
    _context: zmq::Context,
}

impl Pull {
    fn bind(port: u16) -> Self {
        Self::bind_with(port, |_| {})
    }

    fn bind_with(port: u16, options: impl FnOnce(&zmq::Socket)) -> Self {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PULL).unwrap();
        socket.set_linger(0).unwrap();
        options(&socket);
        until("the port is free", || socket.bind(&format!("tcp://127.0.0.1:{port}")).ok());
        Self { socket, _context: context }
    }

    /// What comes next, which is one frame of JSON.
    fn next(&self) -> Option<Value> {
        let frames = self.socket.recv_multipart(zmq::DONTWAIT).ok()?;
        let [frame] = &frames[..] else { panic!("not one frame: {frames:?}") };
        Some(serde_json::from_slice(frame).unwrap_or_else(|error| panic!("{error}: {frame:?}")))
    }

    /// The first of what comes for which this is so; all that came before is passed over.
    #[track_caller]
    fn wait_for(&self, what: &str, fact: impl Fn(&Value) -> bool) -> Value {
        until(what, || std::iter::from_fn(|| self.next()).find(|said| fact(said)))
    }

    fn close(self) {
        drop(self.socket);
    }
}

#[test]
fn a_hub_that_was_away_is_told_the_last_of_it_and_all_else_is_counted() {
    let [port] = free_ports(1)[..] else { unreachable!("one was asked for") };
    let mut daemon = setup(SLEEPER, &format!("notify_hub = 'tcp://127.0.0.1:{port}'\n")).start();
    // Absent at the start.
    let problem = until("it is told", || problems(&daemon).0);
    assert!(problem.contains("nobody takes connections at tcp://127.0.0.1:"), "{problem}");
    assert_eq!((problems(&daemon).1, counted(&daemon, "procman_cgse_hub_connected", "notify")), (None, 0.0));
    starts_and_ends(&daemon, 3);
    let hub = Pull::bind(port);
    // From the very first one on, in order, each as it is on the wire.
    let sent: Replay<Value> = daemon.call("events", json!({"limit": 4096}));
    for event in &sent.events {
        let got = until("the next event comes", || hub.next());
        assert_eq!((&got["data"], &got["timestamp"], &got["correlation_id"]), (event, &event["time"], &event["daemon"]));
        assert_eq!(got["source_service"], "PROCMAN");
        let word = event["event"].as_str().unwrap_or("state_changed");
        assert_eq!(got["event_type"], format!("procman.{word}"));
    }
    until("it is well", || problems(&daemon).0.is_none().then_some(()));
    until("it is told", || (words(&told(&daemon, "notify")) == ["hub_missing", "hub_reached"]).then_some(()));
    until("it is served", || (counted(&daemon, "procman_cgse_hub_connected", "notify") == 1.0).then_some(()));
    assert_eq!(counted(&daemon, "procman_cgse_hub_dropped_total", "notify"), 0.0);
    let reached = hub.wait_for("the hub is told of itself", |said| said["event_type"] == "procman.hub_reached");

    // It dies, and comes back after more has happened than waits for it.
    hub.close();
    until("it is missed", || problems(&daemon).0);
    let Value::Number(before) = &reached["data"]["seq"] else { panic!("{reached}") };
    starts_and_ends(&daemon, 300);
    let dropped = counted(&daemon, "procman_cgse_hub_dropped_total", "notify");
    let next = daemon.call::<Replay>("events", json!({"since": 1, "limit": 4096})).next;
    let hub = Pull::bind(port);
    let first = until("it is told again", || hub.next())["data"]["seq"].as_u64().unwrap();
    assert_eq!(first, next - 1024, "the last 1024 have waited");
    // What it had been sent and had not read when it died is lost, too, and nobody can count that: there was none but what told that it is missing.
    let missed = first - before.as_u64().unwrap() - 1;
    assert!((missed as f64 - dropped).abs() <= 2.0, "{dropped} of {missed} were counted");
    within(PATIENCE, "it is well again", || problems(&daemon).0.is_none().then_some(()));
    let noted = until("it is told once more", || Some(told(&daemon, "notify")).filter(|noted| noted.len() == 4));
    assert_eq!(words(&noted), ["hub_missing", "hub_reached", "hub_missing", "hub_reached"]);
    assert_eq!(noted[3].details["dropped"], Fact::Int(dropped as i64));

    // The last events of one that leaves get out.
    daemon.execute("web");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    hub.wait_for("the last start", |said| said["data"]["to"] == "running");
    hub.wait_for("the end", |said| said["data"]["to"] == "stopped");
}

#[test]
fn points_are_of_what_was_last_seen_and_never_older_than_the_interval() {
    let [port] = free_ports(1)[..] else { unreachable!("one was asked for") };
    let hubs = format!("metrics_hub = 'tcp://127.0.0.1:{port}'\nmetrics_interval = 0.5\n");
    let mut daemon = setup(SLEEPER, &hubs).start();
    until("points are given up", || (counted(&daemon, "procman_cgse_hub_dropped_total", "metrics") >= 6.0).then_some(()));
    assert!(problems(&daemon).1.is_some());
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let hub = Pull::bind(port);
    let first = until("a point comes", || hub.next());
    assert_eq!(first["measurement"], "procman");
    assert!(first["time"].as_f64().unwrap() > before - 1.0, "{first} came after {before}");
    assert_eq!((&first["tags"]["origin"], &first["tags"]["site_id"]), (&json!("PROCMAN"), &json!("LAB23")));
    assert_eq!(
        (&first["fields"]["up"], &first["fields"]["processes"], &first["fields"]["processes_up"]),
        (&json!(1), &json!(1), &json!(0))
    );
    let down = until("the other one comes", || hub.next());
    assert_eq!(
        (&down["measurement"], &down["tags"]["name"], &down["tags"]["group"]),
        (&json!("procman_process"), &json!("web"), &json!("lab"))
    );
    assert_eq!((&down["fields"]["up"], &down["fields"]["state"], down["fields"].get("pid")), (&json!(0), &json!("stopped"), None));
    let pid = daemon.execute("web").pid;
    let up = hub.wait_for("it is up and seen", |said| said["fields"]["pid"] == pid && said["tags"]["name"] == "web");
    let fields = up["fields"].as_object().unwrap();
    assert!(fields["memory_rss_bytes"].as_u64().unwrap() > 0 && fields["cpu_percent"].is_f64() && fields["threads"] == 1, "{up}");
    assert_eq!((&fields["state"], &fields["up"]), (&json!("running"), &json!(1)));
    within(PATIENCE, "it is well", || problems(&daemon).1.is_none().then_some(()));
    hub.close();
    until("it is missed", || problems(&daemon).1);
    let hub = Pull::bind(port);
    hub.wait_for("points come again", |said| said["measurement"] == "procman");
    daemon.signal(libc::SIGTERM);
    hub.wait_for("the last word of the daemon", |said| said["measurement"] == "procman" && said["fields"]["up"] == 0);
    hub.wait_for("the last word of its sub-process", |said| said["tags"]["name"] == "web" && said["fields"]["state"] == "stopped");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn what_is_no_hub_is_told_and_sent_nothing() {
    let ports = free_ports(2);
    // One that takes connections and never reads, one that answers as a web server does.
    let deaf = TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
    let web = TcpListener::bind(("127.0.0.1", ports[1])).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let server = std::thread::spawn(move || {
        for stream in web.incoming() {
            if stopped.load(std::sync::atomic::Ordering::Acquire) {
                return;
            }
            let mut stream: TcpStream = stream.unwrap();
            drop(stream.read(&mut [0; 64]));
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let hubs =
        format!("notify_hub = 'tcp://127.0.0.1:{}'\nmetrics_hub = 'tcp://127.0.0.1:{}'\nmetrics_interval = 0.5\n", ports[0], ports[1]);
    let daemon = setup(SLEEPER, &hubs).start();
    let both = |words: &str| {
        within(PATIENCE, format_args!("{words:?} is told of both"), || {
            let (notify, metrics) = problems(&daemon);
            (notify?.contains(words) && metrics?.contains(words)).then_some(())
        });
    };
    both("is no hub of CGSE");
    starts_and_ends(&daemon, 20);
    stop.store(true, std::sync::atomic::Ordering::Release);
    drop(TcpStream::connect(("127.0.0.1", ports[1])));
    server.join().unwrap();
    drop(deaf);
    both("nobody takes connections");

    // Two that speak ZeroMQ, and are something else.
    let context = zmq::Context::new();
    let others = [zmq::ROUTER, zmq::REP].map(|kind| context.socket(kind).unwrap());
    for (socket, port) in others.iter().zip(&ports) {
        socket.set_linger(0).unwrap();
        until("the port is free", || socket.bind(&format!("tcp://127.0.0.1:{port}")).ok());
    }
    both("is no hub of CGSE");
    starts_and_ends(&daemon, 20);
    for socket in &others {
        assert!(socket.recv_multipart(zmq::DONTWAIT).is_err(), "nothing is said to a stranger");
    }
    for hub in ["notify", "metrics"] {
        assert_eq!(words(&told(&daemon, hub)), ["hub_missing"], "once, whatever the reasons are");
        assert_eq!(counted(&daemon, "procman_cgse_hub_sent_total", hub), 0.0);
    }
    // The right ones come.
    drop(others);
    drop(context);
    let hubs = [Pull::bind(ports[0]), Pull::bind(ports[1])];
    hubs[0].wait_for("an event", |said| said["event_type"] == "procman.state_changed");
    hubs[1].wait_for("a point", |said| said["measurement"] == "procman");
    within(PATIENCE, "all is well", || (problems(&daemon) == (None, None)).then_some(()));
    assert_eq!(daemon.view("web").state, StateName::Stopped);
}

#[test]
fn a_hub_that_never_reads_costs_a_bounded_amount() {
    let [port] = free_ports(1)[..] else { unreachable!("one was asked for") };
    let many = "[[process]]\nname = 'idle'\ninstances = 300\ncmd = ['true']\n";
    let hubs = format!("metrics_hub = 'tcp://127.0.0.1:{port}'\nmetrics_interval = 0.5\n");
    let daemon = setup(&format!("{many}{SLEEPER}"), &hubs).start();
    until("the metrics hub is away", || problems(&daemon).1);
    let hub = Pull::bind_with(port, |socket| {
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvbuf(4096).unwrap();
    });
    let problem = within(PATIENCE, "it is told", || problems(&daemon).1.filter(|problem| problem.contains("does not read")));
    assert!(problem.contains(&port.to_string()));
    let dropped = || counted(&daemon, "procman_cgse_hub_dropped_total", "metrics");
    let (before, resident) = (dropped(), daemon.call::<StatusOfAll>("status", json!({})).daemon.memory.rss);
    within(PATIENCE, "much more is given up", || (dropped() > before + 6000.0).then_some(()));
    let grown = daemon.call::<StatusOfAll>("status", json!({})).daemon.memory.rss.saturating_sub(resident);
    assert!(grown < 8 << 20, "the daemon has grown by {grown} bytes");
    // What waits is bounded: the queue here, and what the kernel took.
    assert!(counted(&daemon, "procman_cgse_hub_sent_total", "metrics") < 5000.0);
    starts_and_ends(&daemon, 5);
    // It begins to read.
    within(PATIENCE, "it is well", || {
        // With so little room it has to go on reading: a question to the daemon in between takes long on a busy machine.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) && hub.socket.poll(zmq::POLLIN, 100).is_ok_and(|ready| ready > 0) {
            hub.next();
        }
        problems(&daemon).1.is_none().then_some(())
    });
    assert_eq!(words(&told(&daemon, "metrics")).last(), Some(&"hub_reached"));
    hub.wait_for("what is new", |said| said["tags"]["name"] == "web" && said["fields"]["starts"] == 5);
}

/// Takes the next connection.
#[track_caller]
fn take(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = within(PATIENCE, "somebody connects", || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn one_that_greets_in_words_of_its_own_is_sent_nothing() {
    let [port] = free_ports(1)[..] else { unreachable!("one was asked for") };
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let daemon = setup(SLEEPER, &format!("notify_hub = 'tcp://127.0.0.1:{port}'\n")).start();
    // As a server of SSH or SMTP does; and as one of ZeroMQ's first version, which said no more than that it has no name.
    for banner in [&b"SSH-2.0-test\r\n"[..], b"220 mail.lab\r\n", b"\x01\x00"] {
        let mut stream = take(&listener);
        stream.write_all(banner).unwrap();
        starts_and_ends(&daemon, 5);
        // The daemon gives the connection up.
        let mut said = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(stream.read_to_end(&mut said));
        assert!(said.len() <= 64 && !said.contains(&b'{'), "{}", String::from_utf8_lossy(&said));
        let problem = until("it is told", || problems(&daemon).0);
        assert!(problem.contains("is no hub of CGSE"), "{problem}");
    }
    assert_eq!(counted(&daemon, "procman_cgse_hub_sent_total", "notify"), 0.0);
    assert_eq!(words(&told(&daemon, "notify")), ["hub_missing"]);
}

/// Says what a hub of ZMTP 3.0 says, and then nothing more.
#[track_caller]
fn greet_and_fall_silent(listener: &TcpListener) -> TcpStream {
    let mut stream = take(listener);
    let mut greeting = [0_u8; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    let ready = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL";
    drop(stream.write_all(&greeting));
    drop(stream.write_all(ready));
    stream
}

#[test]
fn one_that_speaks_as_a_hub_and_stands_still_never_counts_as_reached() {
    let [port] = free_ports(1)[..] else { unreachable!("one was asked for") };
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let daemon = setup(SLEEPER, &format!("notify_hub = 'tcp://127.0.0.1:{port}'\n")).start();
    let mut connections = vec![greet_and_fall_silent(&listener)];
    let sent = within(PATIENCE, "it is sent something", || {
        Some(counted(&daemon, "procman_cgse_hub_sent_total", "notify")).filter(|sent| {
            *sent >= 1.0 || {
                daemon.execute("web");
                daemon.quit("web");
                false
            }
        })
    });
    assert!(sent >= 1.0);
    // It does not answer heartbeats, so it is given up, again and again.
    connections.push(greet_and_fall_silent(&listener));
    let problem = until("it is told", || problems(&daemon).0);
    assert!(problem.contains("does not answer any more"), "{problem}");
    connections.push(greet_and_fall_silent(&listener));
    assert!(problems(&daemon).0.is_some());
    assert_eq!(words(&told(&daemon, "notify")), ["hub_missing"]);
    assert_eq!(counted(&daemon, "procman_cgse_hub_connected", "notify"), 0.0);
}

/// Where `make test` installs CGSE.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cgse/bin/python")
}

/// Runs a program of Python with CGSE's modules, and returns the JSON that it prints.
fn run(text: &str, arguments: &[&Path]) -> Value {
    let out = Command::new(python()).arg("-c").arg(text).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What the database has: for each measurement and field the kinds of JSON that its values are, and how InfluxDB would take each point.
const LOOK: &str = r#"
import duckdb, json, sys
from egse.plugins.metrics.line_protocol import to_line_protocol
rows = duckdb.connect(sys.argv[1], read_only=True).execute("SELECT measurement, epoch(time), tags, fields FROM timeseries ORDER BY created_at, time").fetchall()
kinds, points = {}, []
for measurement, time, tags, fields in rows:
    point = {"measurement": measurement, "time": time, "tags": json.loads(tags), "fields": json.loads(fields)}
    assert to_line_protocol(point), point
    points.append(point)
    for key, value in point["fields"].items():
        kinds.setdefault(measurement + "." + key, set()).add(type(value).__name__)
print(json.dumps({"kinds": {key: sorted(kind) for key, kind in kinds.items()}, "points": points}))
"#;

#[test]
fn the_real_hubs_publish_the_events_and_keep_the_points() {
    let ports = free_ports(10);
    let [registry, registry_events, heartbeats, log, log_commands, collector, publisher, notify_requests, points, metrics_requests] =
        ports[..]
    else {
        unreachable!("ten were asked for")
    };
    let service = |name: &str, module: &str, keys: &str| {
        format!(
            "[[process]]\nname = '{name}'\ngroup = 'core'\ncmd = ['{}', '-m', '{module}', 'start']\ncwd = '{{dir}}/cwd'\nstdout = 'log'\nstderr = 'stdout'\n\
             stop_timeout = 20\nautostart = true\n{keys}\n",
            python().display()
        )
    };
    let hub = |name: &str, module: &str, kind: &str, requests: u16| {
        let ask = format!("zmq = 'tcp://127.0.0.1:{requests}', socket = 'DEALER', frames = ['REQ', '{{\"action\": \"terminate\"}}']");
        service(
            name,
            module,
            &format!(
                "requires = ['rs_cs']\ncgse_service_type = '{kind}'\nstop_request = {{ {} }}",
                ask.replace('\'', "\"").replace("\"{\"action\": \"terminate\"}\"", "'{\"action\": \"terminate\"}'")
            ),
        )
    };
    let health =
        format!("ready = {{ zmq = 'tcp://127.0.0.1:{registry}', socket = 'DEALER', frames = ['REQ', '{{\"action\": \"health\"}}'] }}");
    let processes = [
        service("rs_cs", "egse.registry.server", &health),
        hub("nh_cs", "egse.notifyhub.server", "NH_CS", notify_requests),
        hub("mh_cs", "egse.metricshub.server", "MH_CS", metrics_requests),
        SLEEPER.to_owned(),
    ];
    let cgse = format!(
        "[cgse]\nregistry = 'tcp://127.0.0.1:{registry}'\nheartbeat = 'tcp://127.0.0.1:{heartbeats}'\nnotify_hub = 'tcp://127.0.0.1:{collector}'\n\
         metrics_hub = 'tcp://127.0.0.1:{points}'\nmetrics_interval = 0.5\n"
    );
    let setup = Setup::new(&format!("{}{cgse}", processes.concat())).tcp().log("info");
    for directory in ["cwd", "data/log", "data/daily", "data/obs"] {
        fs::create_dir_all(setup.dir().join(directory)).unwrap();
    }
    let settings = format!(
        "Service Registry:\n    REQUESTER_PORT: {registry}\n    PUBLISHER_PORT: {registry_events}\n    HEARTBEAT_PORT: {heartbeats}\n\
         Logging Control Server:\n    RECEIVER_PORT: {log}\n    COMMANDER_PORT: {log_commands}\n\
         Notify Hub:\n    COLLECTOR_PORT: {collector}\n    PUBLISHER_PORT: {publisher}\n    REQUESTS_PORT: {notify_requests}\n\
         Metrics Hub:\n    COLLECTOR_PORT: {points}\n    REQUESTS_PORT: {metrics_requests}\n"
    );
    fs::write(setup.dir().join("local.yaml"), settings).unwrap();
    let variables = [
        ("PROJECT", "CGSE"),
        ("SITE_ID", "LAB23"),
        ("CGSE_DATA_STORAGE_LOCATION", "{dir}/data"),
        ("CGSE_LOG_FILE_LOCATION", "{dir}/data/log"),
        ("CGSE_LOCAL_SETTINGS", "{dir}/local.yaml"),
        ("CGSE_METRICS_BACKEND", "duckdb"),
        ("CGSE_DUCKDB_PATH", "{dir}/metrics.duckdb"),
    ];
    let daemon = variables.into_iter().fold(setup, |setup, (key, value)| setup.env(key, value)).start();
    for name in ["nh_cs", "mh_cs"] {
        within(PATIENCE, format_args!("{name} is there"), || (daemon.view(name).state == StateName::Running).then_some(()));
    }
    within(PATIENCE, "both are reached", || {
        (["notify", "metrics"].into_iter().all(|hub| words(&told(&daemon, hub)).last() == Some(&"hub_reached"))).then_some(())
    });
    assert_eq!(problems(&daemon), (None, None));

    // Whoever subscribes to the hub sees what happens.
    let seen = Peer::connect_with(zmq::SUB, &format!("tcp://127.0.0.1:{publisher}"), |socket| socket.set_subscribe(b"procman.").unwrap());
    let published =
        |frames: &[Vec<u8>]| (String::from_utf8(frames[0].clone()).unwrap(), serde_json::from_slice::<Value>(&frames[1]).unwrap());
    let (topic, event) = within(PATIENCE, "an event is published", || {
        daemon.execute("web");
        daemon.quit("web");
        let received = seen.has_more(200).then(|| published(&seen.receive()))?;
        // What was on its way before tells of hubs.
        (received.1["data"]["name"] == "web").then_some(received)
    });
    assert_eq!((topic.as_str(), &event["event_type"]), ("procman.state_changed", &json!("procman.state_changed")));
    assert_eq!((&event["source_service"], &event["correlation_id"]), (&json!("PROCMAN"), &event["data"]["daemon"]));
    let pid = daemon.execute("web").pid;
    PidFd::open(pid).unwrap().send_signal(libc::SIGKILL).unwrap();
    let end = within(PATIENCE, "the end is published", || {
        let (_, event) = published(&seen.receive());
        (event["data"]["name"] == "web" && event["data"]["to"] == "exited").then_some(event)
    });
    assert_eq!((&end["data"]["returncode"], &end["data"]["signal"], &end["data"]["cause"]), (&json!(-9), &json!(9), &json!("signal")));
    let replay: Replay<Value> = daemon.call("events", json!({"since": end["data"]["seq"], "limit": 1}));
    assert_eq!(end["data"], replay.events[0], "as it is on the wire");

    let sent = || counted(&daemon, "procman_cgse_hub_sent_total", "metrics");
    let before = sent();
    within(PATIENCE, "it is measured as it ended", || (sent() > before + 15.0).then_some(()));
    // The points are in the database once the hub has written them. Only one may have that open.
    let pid = daemon.execute("web").pid;
    within(PATIENCE, "some points are sent", || (sent() > before + 60.0).then_some(()));
    assert_eq!(daemon.quit("mh_cs").returncode, Some(0));
    let found = run(LOOK, &[&daemon.path("metrics.duckdb")]);
    let kinds: BTreeMap<String, Vec<String>> = serde_json::from_value(found["kinds"].clone()).unwrap();
    for (field, kind) in [
        ("procman_process.up", "int"),
        ("procman_process.ready", "int"),
        ("procman_process.state", "str"),
        ("procman_process.cpu_percent", "float"),
        ("procman_process.cpu_user_seconds", "float"),
        ("procman_process.memory_rss_bytes", "int"),
        ("procman_process.tree_processes", "int"),
        ("procman_process.last_returncode", "int"),
        ("procman.up", "int"),
        ("procman.uptime_seconds", "float"),
        ("procman.processes", "int"),
    ] {
        assert_eq!(kinds.get(field), Some(&vec![kind.to_owned()]), "{field} in {kinds:?}");
    }
    assert!(kinds.values().all(|kind| kind.len() == 1), "no field is ever of two kinds: {kinds:?}");
    let points = found["points"].as_array().unwrap();
    let web = points.iter().rfind(|point| point["tags"]["name"] == "web" && point["fields"]["pid"] == pid);
    let web = web.expect("the last run is measured");
    assert_eq!(
        (&web["tags"]["group"], &web["tags"]["site_id"], &web["fields"]["state"]),
        (&json!("lab"), &json!("LAB23"), &json!("running"))
    );
    let measured = |name: &str| points.iter().filter(|point| point["tags"]["name"] == name).count();
    assert!(measured("nh_cs") >= 3 && measured("rs_cs") >= 3);
    // The hub that is stopped is missed, the other one is not.
    until("it is missed", || (problems(&daemon).1.is_some() && problems(&daemon).0.is_none()).then_some(()));
}
