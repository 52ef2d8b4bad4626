//! A daemon that is stopped (SIGSTOP, a paused machine) and goes on later: it blames nobody for what it slept through.

use std::time::{Duration, Instant};

use procman::protocol::reply::{PastRun, Pong};
use procman::protocol::{Cause, StateName};
use serde_json::json;

use crate::harness::python::service;
use crate::harness::{Daemon, Peer, at_length, frame, is_alive, stat_of, until, value_of, within};

/// Says in the middle of the standstill that it is ready; its time to do so is over at the end.
const LATE: &str = "note('late-began', 1)\nwait('stopped')\ntime.sleep(0.2)\nnotify('READY=1')\nnote('late-said', 1)\nsleep()";
/// Takes its time to end, but ends within its time.
const SLOW: &str = "def end(*_):\n  note('slow-asked', 1); wait('stopped'); time.sleep(0.2); os._exit(7)\nsignal.signal(signal.SIGTERM, end)\nnotify('READY=1')\nsleep()";
const ALIVE: &str = "notify('READY=1')\nwhile True:\n  notify('WATCHDOG=1')\n  time.sleep(0.05)";

#[test]
fn nobody_is_blamed_for_what_the_daemon_slept_through() {
    let standstill = at_length(Duration::from_secs(60), Duration::from_secs(3));
    let again = "restart = 'always'\nbackoff = { initial = 0.05, factor = 1.0, jitter = 0.0 }\nstart_limit = { count = 0 }";
    let mut site = format!(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n\
         [[process]]\nname = 'killed'\ncmd = ['sleep', '1000']\n{again}\n\
         [[process]]\nname = 'flapping'\ncmd = ['sleep', '0.05']\n{again}\n\
         [[process]]\nname = 'asked'\ncmd = ['sleep', '1000']\nhealth = {{ exec = ['true'], interval = 0.05, timeout = 0.5, failures = 1 }}\n"
    );
    site += &service("alive", ALIVE, "ready = { notify = true }\nhealth = { notify = true, interval = 0.5 }\nstop_timeout = 0.5");
    site += &service("late", LATE, "ready = { notify = true, timeout = 2.5 }\nstop_timeout = 0.5");
    site += &service("slow", SLOW, "ready = { notify = true }\nstop_timeout = 2.5");
    let daemon = Daemon::start(&site);
    let names = ["web", "killed", "flapping", "asked", "alive", "slow"];
    let pids = names.map(|name| daemon.execute(name).pid);
    for name in ["asked", "alive"] {
        daemon.wait_for(name, |view| view.health.as_deref() == Some("passing"));
    }
    daemon.wait_for_state("slow", StateName::Running);
    let late = daemon.execute("late").pid;
    daemon.lines("late-began", 1);
    let quitting = Peer::connect(zmq::REQ, &daemon.endpoint());
    quitting.send(&[frame(&json!({"command": "quit", "name": "slow"}))]);
    daemon.lines("slow-asked", 1);

    daemon.signal(libc::SIGSTOP);
    let since = Instant::now();
    until("it is stopped", || stat_of(daemon.pid()).filter(|stat| stat.state == b'T'));
    std::fs::write(daemon.path("stopped"), "").unwrap();
    procman::sys::pidfd::PidFd::open(pids[1]).unwrap().send_signal(libc::SIGKILL).unwrap();
    // Clients that wait, and one that asks for something.
    let waiting: Vec<Peer> = (0..20).map(|_| Peer::connect(zmq::REQ, &daemon.endpoint())).collect();
    waiting.iter().for_each(|peer| peer.send(&[frame(&json!({"command": "ping"}))]));
    daemon.lines("late-said", 1);
    until("slow has ended", || stat_of(pids[5]).is_none_or(|stat| stat.is_zombie()).then_some(()));
    within(standstill * 2, "that was long enough", || (since.elapsed() > standstill).then_some(()));
    daemon.signal(libc::SIGCONT);

    for peer in waiting {
        let pong: Pong = serde_json::from_value(value_of(&peer.receive()[0])["result"].clone()).unwrap();
        assert!(pong.pong);
    }
    let ended = &value_of(&quitting.receive()[0])["result"];
    assert_eq!((&ended["returncode"], &ended["killed"]), (&json!(7), &json!([])), "it had ended in time: {ended}");
    let view = daemon.wait_for("killed", |view| view.state == StateName::Running && view.pid != Some(pids[1]));
    let runs: Vec<PastRun> = daemon.call("history", json!({"name": "killed"}));
    assert_eq!((view.restarts, runs.len(), runs[0].cause, runs[0].signal), (1, 1, Cause::Signal, Some(9)), "{runs:?}");
    let restarts = daemon.view("flapping").restarts;
    daemon.wait_for("flapping", |view| view.restarts > restarts + 2);
    daemon.wait_for_state("late", StateName::Running);
    // So long that whatever was overdue has been acted on.
    let up = daemon.view("web").uptime.unwrap();
    daemon.wait_for("web", |view| view.uptime.unwrap() > up + 1.5);
    for (name, pid) in [("web", pids[0]), ("asked", pids[3]), ("alive", pids[4]), ("late", late)] {
        let view = daemon.view(name);
        assert_eq!((view.pid, view.state, view.restarts), (Some(pid), StateName::Running, 0), "{view:?}");
        assert!(is_alive(pid));
    }
    for name in ["asked", "alive"] {
        assert_eq!(daemon.view(name).health.as_deref(), Some("passing"));
    }
}
