//! The sequence of events: published, replayed, followed; nobody misses one unheard.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procman::protocol::StateName;
use procman::protocol::event::{Event, StateChanged};
use procman::protocol::reply::{Pong, Replay, StatusOfAll};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, until};

/// A subscriber to all topics.
fn subscribe(endpoint: &str) -> Peer {
    Peer::connect_with(zmq::SUB, endpoint, |socket| socket.set_subscribe(b"").unwrap())
}

fn events_endpoint(daemon: &Daemon) -> String {
    daemon.info().events_endpoints.unwrap().remove(0)
}

/// A subscriber that is known to be heard: something happens again and again until it tells.
#[track_caller]
fn subscribed(daemon: &Daemon) -> Peer {
    let peer = subscribe(&events_endpoint(daemon));
    until("the subscription takes effect", || {
        daemon.call::<Value>("execute", json!({"name": "probe"}));
        daemon.wait_for_state("probe", StateName::Exited);
        peer.has_more(10).then_some(())
    });
    peer
}

const PROBE: &str = "[[process]]\nname = 'probe'\ncmd = ['true']\n";

/// The next message of a subscriber.
#[track_caller]
fn message(peer: &Peer) -> (String, Event) {
    let frames = peer.receive();
    let [topic, body] = &frames[..] else { panic!("{} frames", frames.len()) };
    (String::from_utf8(topic.clone()).unwrap(), rmp_serde::from_slice(body).unwrap())
}

fn replay(daemon: &Daemon, since: u64) -> Replay {
    daemon.call("events", json!({"since": since}))
}

/// What a sub-process can go through, by PROTOCOL.md.
fn is_possible(from: StateName, to: StateName) -> bool {
    use StateName::{Backoff, Exited, Fatal, Lost, Running, Starting, Stopped, Stopping};
    match from {
        Stopped => to == Starting,
        Exited | Fatal | Lost => matches!(to, Starting | Stopped),
        Backoff => matches!(to, Starting | Stopped),
        Starting => matches!(to, Running | Stopping | Backoff | Fatal | Stopped),
        Running => to == Stopping,
        Stopping => matches!(to, Stopped | Backoff | Starting | Exited | Fatal),
    }
}

/// Holds a whole sequence against what is promised: no gap, and for each name one state after the other.
#[track_caller]
fn assert_sound(events: &[Event]) {
    let mut states: BTreeMap<&str, StateName> = BTreeMap::new();
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq(), seq, "a gap before {event:?}");
        if let Event::StateChanged(StateChanged { name, from, to, .. }) = event {
            let before = states.insert(name.as_str(), *to).unwrap_or(StateName::Stopped);
            assert!(before == *from && is_possible(*from, *to), "after {before}: {event:?}");
        }
    }
}

#[test]
fn a_subscriber_that_comes_and_goes_misses_nothing() {
    const CHANGES: usize = 2000;
    let processes: String = (0..5).map(|n| format!("[[process]]\nname = 'p{n}'\ncmd = ['true']\n")).collect();
    let daemon = Setup::new(&processes).log("warn").start();
    let endpoint = events_endpoint(&daemon);
    let (mut seen, mut next, mut heard) = (Vec::<Event>::new(), 1, 0);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            // Four changes each: starting, running, stopping, exited; three where it is started again while it is stopping.
            let mut client = daemon.client();
            for run in 0..CHANGES / 3 {
                let name = format!("p{}", run % 5);
                let execute = procman::protocol::request::Command::Execute(procman::protocol::request::Execute {
                    name: name.parse().unwrap(),
                    args: vec![],
                    env: BTreeMap::new(),
                    wait: false,
                    timeout: None,
                });
                // It may not have come to rest since its last turn.
                until("it is started", || client.request::<Value>(&execute).ok());
            }
        });
        let mut peer = subscribe(&endpoint);
        let mut countdown = 7_u64;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let last_turn = busy.is_finished();
            assert!(Instant::now() < deadline, "{} events", seen.len());
            countdown -= 1;
            if countdown == 0 {
                // Gone, with all that waits for it; sometimes soon again, sometimes not.
                drop(peer);
                countdown = 1 + next * 7919 % 97;
                peer = subscribe(&endpoint);
            }
            let ask = if peer.has_more(20) {
                let (topic, event) = message(&peer);
                assert_eq!(topic, event.topic().to_string());
                match event.seq() {
                    seq if seq < next => false,
                    seq if seq == next => {
                        (next, heard) = (next + 1, heard + 1);
                        seen.push(event);
                        false
                    }
                    _ => true,
                }
            } else {
                true
            };
            if ask {
                let replay = replay(&daemon, next);
                assert!(replay.complete, "nothing that was kept may be lost");
                if last_turn && replay.events.is_empty() {
                    break;
                }
                next = replay.next;
                seen.extend(replay.events);
            }
        }
    });
    let changes = seen.iter().filter(|event| matches!(event, Event::StateChanged(_))).count();
    assert!(changes >= CHANGES && changes == seen.len(), "{changes} of {}", seen.len());
    assert!(heard > 0, "some came by themselves");
    assert_sound(&seen);
    daemon.stop();
}

/// A program that is not there, tried again at once and for ever: events as fast as the daemon can make them.
const LOOP: &str =
    "cmd = ['/nonexistent/program']\nrestart = 'always'\nbackoff = { initial = 0.0, max = 0.0 }\nstart_limit = { count = 0 }\n";

#[test]
fn a_subscriber_that_never_reads_costs_little_and_holds_up_nobody() {
    const EVENTS: u64 = 100_000;
    let processes: String = (0..4).map(|n| format!("[[process]]\nname = 'p{n}'\n{LOOP}")).collect();
    let daemon = Setup::new(&processes).log("off").events("endpoints = ['ipc://{dir}/e.sock', 'tcp://127.0.0.1:*']").start();
    let rss = || daemon.call::<StatusOfAll>("status", json!({})).daemon.memory.rss;
    let deaf = |endpoint: &String| {
        Peer::connect_with(zmq::SUB, endpoint, |socket| {
            socket.set_rcvhwm(1).unwrap();
            socket.set_subscribe(b"").unwrap();
        })
    };
    let _deaf: Vec<Peer> = daemon.info().events_endpoints.unwrap().iter().map(deaf).collect();
    daemon.call::<Pong>("ping", json!({}));
    let before = rss();
    for n in 0..4 {
        drop(daemon.refusal("execute", json!({"name": format!("p{n}")})));
    }
    let (deadline, mut slowest) = (Instant::now() + Duration::from_secs(240), Duration::ZERO);
    loop {
        assert!(Instant::now() < deadline, "the events do not come: {:?}", replay(&daemon, EVENTS).next);
        let asked = Instant::now();
        let reached: Replay = daemon.call("events", json!({"since": EVENTS, "limit": 1}));
        slowest = slowest.max(asked.elapsed());
        if reached.events.first().is_some_and(|event| event.seq() >= EVENTS) {
            break;
        }
    }
    let grown = rss().saturating_sub(before);
    daemon.call::<Value>("quit", json!({"all": true}));
    // Unbounded, a hundred thousand events for each of the two would take some 60 MiB.
    assert!(grown < 24 << 20, "{} KiB more after {EVENTS} events", grown >> 10);
    assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?}");
    let kept = replay(&daemon, 1);
    assert!(!kept.complete && kept.events.len() == 4096, "the ring is bounded");
    daemon.stop();
}

#[test]
fn the_last_events_are_sent_before_the_socket_closes() {
    let sleeps: String = (0..3).map(|n| format!("[[process]]\nname = 's{n}'\ncmd = ['sleep', '1000']\nautostart = true\n")).collect();
    let mut daemon = Daemon::start(&format!("{PROBE}{sleeps}"));
    let peer = subscribed(&daemon);
    let seq = replay(&daemon, 1).next;
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let mut stopped = Vec::new();
    let mut seqs = Vec::new();
    while peer.has_more(1000) {
        let (_, event) = message(&peer);
        if event.seq() >= seq {
            seqs.push(event.seq());
            if let Event::StateChanged(change) = event
                && change.to == StateName::Stopped
            {
                stopped.push(change.name.to_string());
            }
        }
    }
    stopped.sort_unstable();
    assert_eq!(stopped, ["probe", "s0", "s1", "s2"]);
    assert_eq!(seqs, (seq..seq + seqs.len() as u64).collect::<Vec<_>>());
    daemon.stop();
}

#[test]
fn what_is_no_change_of_state_is_told_in_the_same_sequence() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'bad'\ncmd = ['/nonexistent/program']\nrestart = 'always'\nbackoff = { initial = 0.01 }\nstart_limit = { count = 2 }\n",
    );
    let error = daemon.refusal("execute", json!({"name": "bad"}));
    let view = daemon.wait_for_state("bad", StateName::Fatal);
    assert!(error.message.ends_with(view.message.as_deref().unwrap()), "{error:?} {view:?}");
    let replay = until("it gave up", || {
        let replay = replay(&daemon, 1);
        replay.events.iter().any(|event| event.topic().to_string() == "process.gave_up.bad").then_some(replay)
    });
    assert_sound(&replay.events);
    let topics: Vec<String> = replay.events.iter().map(|event| event.topic().to_string()).collect();
    let count = |topic: &str| topics.iter().filter(|it| *it == topic).count();
    assert_eq!((count("process.spawn_failed.bad"), count("process.restart_scheduled.bad")), (2, 1), "{topics:?}");
    assert_eq!(replay.daemon, daemon.info().uuid);
    let other: Replay = daemon.call("events", json!({"since": 2, "daemon": "another"}));
    assert!(!other.complete && other.events.len() == replay.events.len());
    daemon.stop();
}

#[test]
fn its_endpoints_are_guarded_like_those_of_control() {
    let daemon = Setup::new("").control("socket_mode = 0o600").start();
    let endpoint = events_endpoint(&daemon);
    let path = daemon.path("run/events.sock");
    assert_eq!(endpoint, format!("ipc://{}", path.display()));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.stop();

    let daemon = Setup::new("").events("endpoints = []").start();
    assert_eq!(daemon.info().events_endpoints, Some(vec![]));
    daemon.stop();

    let taken = Setup::new("[[process]]\nname = 'a'\ncmd = ['touch', '{dir}/started']\nautostart = true\n")
        .events("endpoints = ['ipc://{dir}/e.sock']");
    let _listener = UnixListener::bind(taken.dir().join("e.sock")).unwrap();
    taken.refused().assert(69, &["cannot publish events at ipc://", "e.sock", "somebody listens there"]);
    assert!(!taken.dir().join("started").exists());
}

/// `procmanctl events` in the background, its output in files of the daemon's directory.
struct Follower {
    child: Child,
    out: &'static str,
    err: &'static str,
}

impl Follower {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let (out, err) = ("events.out", "events.err");
        let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
        program.args(arguments).env("PROCMAN_ENDPOINT", daemon.endpoint()).env("TZ", "UTC").stdin(Stdio::null());
        program.stdout(File::create(daemon.path(out)).unwrap()).stderr(File::create(daemon.path(err)).unwrap());
        Self { child: program.spawn().unwrap(), out, err }
    }

    /// Asks it to end as Ctrl-C does; its exit code.
    #[track_caller]
    fn interrupt(mut self) -> Option<i32> {
        PidFd::open(self.child.id()).unwrap().send_signal(libc::SIGINT).unwrap();
        until("it has ended", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn who_follows_goes_on_with_the_next_daemon() {
    let mut daemon = Daemon::start("[[process]]\nname = 'nap'\ncmd = ['sleep', '1000']\nautostart = true\n");
    let follower = Follower::start(&daemon, &["--json", "events", "-f"]);
    let (out, err) = (follower.out, follower.err);
    let first = daemon.info().uuid;
    daemon.lines(out, 2);
    daemon.start_anew();
    let second = daemon.info().uuid;
    let of = |uuid: &str, at_least: usize| {
        until(format_args!("{at_least} events of {uuid}"), || {
            let text = daemon.read(out);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let events: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of_this: Vec<Event> =
                events.into_iter().filter(|event| event["daemon"] == uuid).map(|event| serde_json::from_value(event).unwrap()).collect();
            (of_this.len() >= at_least).then_some(of_this)
        })
    };
    // Started, quit by the leaving daemon, and started by the next one.
    let (before, after) = (of(&first, 4), of(&second, 2));
    assert_sound(&before);
    assert_sound(&after);
    let Some(Event::StateChanged(last)) = before.last() else { panic!("{before:?}") };
    assert_eq!(last.to, StateName::Stopped);
    daemon.quit("nap");
    assert_eq!(of(&second, 4).len(), 4);
    let said = daemon.read(err);
    assert!(said.contains("what the former one did after event 4 is lost, if it did anything"), "{said}");
    assert_eq!(follower.interrupt(), Some(0));
    daemon.stop();
}

#[test]
fn who_follows_hears_of_a_few_without_delay_and_leaves_with_its_reader() {
    let daemon = Daemon::start("[[process]]\nname = 'nap'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'other'\ncmd = ['true']\n");
    let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    program.args(["events", "-f", "--name", "n?p"]).env("PROCMAN_ENDPOINT", daemon.endpoint()).env("TZ", "UTC");
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    daemon.execute("other");
    let pid = daemon.execute("nap").pid;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let (starting, running) = (lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap());
    assert!(starting.ends_with("  nap  stopped -> starting"), "{starting}");
    assert!(running.ends_with(&format!("  nap  starting -> running, PID {pid}")), "{running}");
    // Nothing happens any more, and nobody reads.
    drop(lines);
    assert_eq!(until("it has ended", || child.try_wait().unwrap()).code(), Some(0));
    daemon.stop();
}

#[test]
fn what_is_kept_is_printed() {
    let daemon = Daemon::start(PROBE);
    daemon.execute("probe");
    daemon.wait_for_state("probe", StateName::Exited);
    let print = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
        let output = program.args(arguments).env("PROCMAN_ENDPOINT", daemon.endpoint()).env("TZ", "UTC").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = print(&["events"]);
    assert_eq!((code, err.as_str(), out.lines().count()), (Some(0), "", 4), "{out}");
    assert!(out.lines().last().unwrap().ends_with("#4  probe  stopping -> exited, exit 0"), "{out}");
    let (_, out, _) = print(&["--json", "events", "--since", "3"]);
    let seqs: Vec<Value> = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, [3, 4]);
    let (code, out, err) = print(&["events", "--since", "99", "--name", "nobody"]);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(err.contains("the daemon was started anew"), "{err}");
    daemon.stop();
}

/// A subscriber that knows nothing of procman but its document.
const PYTHON: &str = r#"
import sys, zmq, msgpack
context = zmq.Context.instance()
control = context.socket(zmq.REQ); control.setsockopt(zmq.LINGER, 0); control.setsockopt(zmq.RCVTIMEO, 20000)
control.connect(sys.argv[1])
def ask(command, **arguments):
    control.send(msgpack.packb({"command": command, **arguments}))
    reply = msgpack.unpackb(control.recv())
    assert reply["success"], reply
    return reply["result"]
events = context.socket(zmq.SUB); events.setsockopt(zmq.RCVTIMEO, 1000)
events.subscribe(b"")
events.connect(ask("info")["events_endpoints"][0])
replay = ask("events")
seen, nxt, daemon = replay["events"], replay["next"], replay["daemon"]
ask("execute", name="probe")
heard = 0
while len(seen) < 4 or heard == 0:
    if len(seen) >= 4:
        ask("execute", name="probe")
    try:
        topic, body = events.recv_multipart()
        event = msgpack.unpackb(body)
    except zmq.Again:
        event = None
    if event and event["daemon"] == daemon and event["seq"] == nxt:
        assert topic.decode() == "state." + event["name"], topic
        assert set(event) == {"seq", "time", "name", "from", "to", "pid", "returncode", "signal", "cause", "daemon"}, event
        seen.append(event); nxt += 1; heard += 1
    elif event is None or event["seq"] > nxt:
        replay = ask("events", since=nxt, daemon=daemon)
        assert replay["complete"], replay
        seen += replay["events"]; nxt = replay["next"]
assert [event["seq"] for event in seen] == list(range(1, nxt)), seen
print(" ".join(event["to"] for event in seen[:4]))
"#;

#[test]
fn python_follows() {
    let daemon = Daemon::start(PROBE);
    let output = Command::new("/usr/bin/python3").args(["-c", PYTHON, &daemon.endpoint()]).stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}(where a module is missing, `make test` installs it)");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "starting running stopping exited\n");
    daemon.stop();
}
