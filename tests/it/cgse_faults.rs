//! What is no registry, or not a good one: supervision goes on, everybody is told, and nothing but the documented JSON is ever sent.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use procman::protocol::reply::{CgseEntry, StatusOfAll};
use procman::protocol::{RegistryHealth, StateName};
use serde_json::{Value, json};

use super::harness::{Daemon, Setup, free_ports, pause, until};

/// How much longer than a registry that is well a start may take, on a busy machine.
const HELD_UP: Duration = Duration::from_secs(5);

/// A daemon whose registry is at these endpoints, and a service of CGSE, which is ready without it.
fn begin(requests: &str, heartbeats: &str) -> Daemon {
    Setup::new(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\ncgse_service_type = 'WEB_CS'\nready = {{ delay = 0.0 }}\nrestart = 'always'\n\
         backoff = {{ initial = 0.01, jitter = 0.0 }}\nstart_limit = {{ count = 0 }}\n\
         [cgse]\nregistry = '{requests}'\nheartbeat = '{heartbeats}'\nttl = 3\n"
    ))
    .tcp()
    .start()
}

fn problem(daemon: &Daemon) -> Option<String> {
    daemon.call::<StatusOfAll>("status", json!({})).registry_problem
}

fn entry(daemon: &Daemon) -> CgseEntry {
    daemon.view("web").cgse.unwrap()
}

/// Supervision goes on as if there were no registry, and everybody is told that there is none.
#[track_caller]
fn goes_on(daemon: &Daemon, words: &str) {
    let began = Instant::now();
    let first = daemon.execute("web").pid;
    daemon.wait_for_state("web", StateName::Running);
    assert!(began.elapsed() < HELD_UP, "the start took {:?}", began.elapsed());
    until(format_args!("{words:?} is told"), || problem(daemon).filter(|problem| problem.contains(words)));
    until("it is served", || daemon.metric("procman_cgse_registered", &[]).filter(|it| *it == 0.0));
    let events: Value = daemon.call("events", json!({}));
    assert!(events["events"].as_array().unwrap().iter().any(|event| event["event"] == "registry_missing"), "{events:#}");
    let unknown = until("it is told of the service, too", || Some(entry(daemon)).filter(|entry| entry.problem.is_some()));
    assert_eq!((unknown.id, unknown.health), (None, RegistryHealth::Unknown));
    let began = Instant::now();
    procman::sys::pidfd::PidFd::open(first).unwrap().send_signal(libc::SIGKILL).unwrap();
    daemon.wait_for("web", |view| view.state == StateName::Running && view.pid.is_some_and(|pid| pid != first));
    assert!(began.elapsed() < HELD_UP, "the restart took {:?}", began.elapsed());
    let began = Instant::now();
    daemon.quit("web");
    assert!(began.elapsed() < HELD_UP, "the end took {:?}", began.elapsed());
    assert_eq!(
        entry(daemon),
        CgseEntry { service_type: "WEB_CS".into(), id: None, health: RegistryHealth::Unknown, since: None, problem: None }
    );
}

/// A ZeroMQ socket at which something else than the registry listens. It writes down what comes, and says what it is told to.
struct Stranger {
    endpoint: String,
    heard: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What to say to a message, and after how long.
type Say = fn(&[Vec<u8>]) -> Vec<(Duration, Vec<Vec<u8>>)>;

impl Stranger {
    fn listen(kind: zmq::SocketType, say: Say) -> Self {
        let context = zmq::Context::new();
        let socket = context.socket(kind).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        let (heard, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (hears, ends) = (heard.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut to_say: Vec<(Instant, Vec<Vec<u8>>)> = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                if let Ok(frames) = socket.recv_multipart(zmq::DONTWAIT) {
                    to_say.extend(say(&frames).into_iter().map(|(later, said)| (Instant::now() + later, said)));
                    hears.lock().unwrap().push(frames);
                }
                let (due, later): (Vec<_>, Vec<_>) = to_say.into_iter().partition(|(at, _)| *at <= Instant::now());
                to_say = later;
                for (_, said) in due {
                    let _ = socket.send_multipart(said, zmq::DONTWAIT);
                }
                pause();
            }
        });
        Self { endpoint, heard, over, thread: Some(thread) }
    }

    /// What came, without the name of who sent it: each is a request as the registry knows it.
    #[track_caller]
    fn requests(&self) -> Vec<Value> {
        let heard = self.heard.lock().unwrap().clone();
        let read = |frames: &Vec<Vec<u8>>| {
            let [word, body] = &frames[1..] else { panic!("{frames:?}") };
            assert_eq!(word, b"REQ");
            let request: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
            let keys: Vec<&str> = request.as_object().unwrap().keys().map(String::as_str).collect();
            match request["action"].as_str().unwrap() {
                "register" => assert_eq!(keys, ["action", "service_info", "ttl"]),
                "list" => assert_eq!(keys, ["action", "service_type"]),
                "renew" | "deregister" | "get" => assert_eq!(keys, ["action", "service_id"]),
                other => panic!("{other}"),
            }
            request
        };
        heard.iter().map(read).collect()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.thread.take().unwrap().join());
    }
}

#[test]
fn no_registry_at_all() {
    let ports = free_ports(2);
    let endpoint = |port: u16| format!("tcp://127.0.0.1:{port}");
    goes_on(&begin(&endpoint(ports[0]), &endpoint(ports[1])), "does not answer");
}

#[test]
fn one_that_answers_nothing_and_one_that_answers_garbage() {
    let silent = Stranger::listen(zmq::ROUTER, |_| vec![]);
    goes_on(&begin(&silent.endpoint, &silent.endpoint), "does not answer");
    assert!(silent.requests().iter().any(|request| request["action"] == "list"));

    let garbage = Stranger::listen(zmq::ROUTER, |frames| {
        let answers: [&[&[u8]]; 5] = [
            &[b"RESPONSE", b"{oops"],
            &[b"RESPONSE"],
            &[&[0xc1; 100], b"", &[7]],
            &[b"", b"{\"success\": true}"],
            &[b"RESPONSE", b"[[[[[[[[\xff"],
        ];
        let which = frames.iter().map(Vec::len).sum::<usize>() % answers.len();
        let said = std::iter::once(frames[0].clone()).chain(answers[which].iter().map(|frame| frame.to_vec()));
        vec![(Duration::ZERO, said.collect())]
    });
    goes_on(&begin(&garbage.endpoint, &garbage.endpoint), "not the registry's");
    garbage.requests();
}

/// An answer of the registry to this request: it is entered, and so is the service.
fn good_answer(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let entry = json!({"id": "web-1", "name": "web", "host": "127.0.0.1", "port": 1, "health": "passing", "ttl": 30, "tags": ["WEB_CS"], "metadata": {}});
    let answer = json!({"success": true, "services": [entry], "service_id": "x"});
    vec![frames[0].clone(), b"RESPONSE".to_vec(), serde_json::to_vec(&answer).unwrap()]
}

#[test]
fn an_answer_that_comes_late_is_nobodys() {
    // Later than anybody waits, and just when the next question is under way.
    let late = Stranger::listen(zmq::ROUTER, |frames| vec![(Duration::from_millis(2200), good_answer(frames))]);
    let daemon = begin(&late.endpoint, &late.endpoint);
    goes_on(&daemon, "does not answer");
    daemon.execute("web");
    // Each question has been answered by now, with what another one would take for its own.
    let registered = || late.requests().iter().filter(|request| request["action"] == "register").count();
    let before = registered();
    until("it has asked again and again", || (registered() > before + 4).then_some(()));
    let seen: Value = daemon.call("events", json!({}));
    let events = seen["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["event"] != "registry_entered" && event["event"] != "registry_health"), "{seen:#}");
    assert_eq!((entry(&daemon).health, daemon.view("web").state), (RegistryHealth::Unknown, StateName::Running));
}

#[test]
fn what_is_another_kind_of_socket() {
    // A REP socket, which CGSE's older services have, a publisher, and one that only takes.
    for kind in [zmq::REP, zmq::PUB, zmq::PULL] {
        let stranger = Stranger::listen(kind, |_| vec![]);
        goes_on(&begin(&stranger.endpoint, &stranger.endpoint), "does not answer");
        let heard = stranger.heard.lock().unwrap().clone();
        assert!(heard.iter().all(|frames| frames.len() == 2 && frames[0] == b"REQ" && frames[1].starts_with(b"{")), "{heard:?}");
    }
}

/// A service of CGSE's older kind: what it is sent it takes for a pickle, and it dies of what is none.
const PICKLE: &str = r#"
import pickle, sys, zmq
socket = zmq.Context.instance().socket(zmq.REP)
print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
while True:
    socket.send(pickle.dumps(pickle.loads(socket.recv())))
"#;

#[test]
fn what_takes_all_for_pickles_and_what_speaks_http_live_on() {
    let mut service = Command::new("/usr/bin/python3")
        .args(["-c", PICKLE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(service.stdout.as_mut().unwrap()), &mut port).unwrap();
    let endpoint = format!("tcp://127.0.0.1:{}", port.trim());
    goes_on(&begin(&endpoint, &endpoint), "does not answer");
    assert_eq!(service.try_wait().unwrap(), None, "it lives");
    service.kill().unwrap();
    service.wait().unwrap();
    let mut err = String::new();
    service.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(err, "");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let server = std::thread::spawn(move || {
        let mut refused = 0;
        while !ends.load(Ordering::Relaxed) {
            if let Ok((mut stream, _)) = listener.accept() {
                refused += 1;
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            }
            pause();
        }
        refused
    });
    goes_on(&begin(&endpoint, &endpoint), "does not answer");
    over.store(true, Ordering::Relaxed);
    assert!(server.join().unwrap() > 0, "it was asked");
}

#[test]
fn one_that_refuses_and_does_not_say_by_whom() {
    let refusing = Stranger::listen(zmq::ROUTER, |frames| {
        let request: Value = serde_json::from_slice(&frames[2]).unwrap();
        let answer = match request["action"].as_str() {
            Some("register") => json!({"success": false, "error": "duplicate_service_type", "message": "it is \u{1b}[2Jtaken"}),
            _ => json!({"success": false, "error": "not today"}),
        };
        vec![(Duration::ZERO, vec![frames[0].clone(), b"RESPONSE".to_vec(), serde_json::to_vec(&answer).unwrap()])]
    });
    let daemon = begin(&refusing.endpoint, &refusing.endpoint);
    goes_on(&daemon, "refuses this daemon: it is [2Jtaken");
    daemon.execute("web");
    let seen = until("it is told", || entry(&daemon).problem);
    assert_eq!(seen, "the registry of CGSE does not list: not today");
    refusing.requests();
}
