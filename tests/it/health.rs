//! Alive is not well: one that hangs is found and started anew.

use std::fs;

use procman::protocol::{Cause, StateName};

use super::harness::python::{PYTHON, free_port, program, service};
use super::harness::{Daemon, is_alive, until};

const AGAIN: &str = "restart = 'on-failure'\nbackoff = { initial = 0.01, jitter = 0.0 }\nstop_timeout = 2.0";

/// Waits until the sub-process runs as another process than this one, as its health check wanted it, and returns that one.
#[track_caller]
fn started_anew(daemon: &Daemon, name: &str, before: u32) -> u32 {
    let view = daemon.wait_for(name, |view| view.pid.is_some_and(|pid| pid != before) && view.state == StateName::Running);
    assert!(!is_alive(before));
    let exits = daemon.metric("procman_process_exits_total", &[&format!("name=\"{name}\""), "cause=\"health\""]);
    assert!(exits.is_some_and(|exits| exits >= 1.0), "{exits:?}");
    view.pid.unwrap()
}

#[test]
fn one_that_closes_its_door_is_started_anew() {
    let port = free_port();
    let text = format!(
        "s = socket.create_server(('127.0.0.1', {port}))\nif not os.path.exists('{{dir}}/sick'):\n  note('first', 1)\n  wait('sick')\n  s.close()\nsleep()"
    );
    let ready = format!("ready = {{ tcp = '127.0.0.1:{port}', interval = 0.02 }}");
    let health = format!("health = {{ tcp = '127.0.0.1:{port}', interval = 0.05, failures = 2 }}");
    let daemon =
        Daemon::start(&[service("again", &text, &format!("{AGAIN}\n{ready}\n{health}")), service("never", "sleep()", &health)].concat());
    let before = daemon.execute("again").pid;
    let view = daemon.wait_for("again", |view| view.health.as_deref() == Some("passing"));
    assert_eq!((view.state, view.restarts), (StateName::Running, 0));
    fs::write(daemon.path("sick"), "").unwrap();
    let now = started_anew(&daemon, "again", before);
    daemon.wait_for("again", |view| view.health.as_deref() == Some("passing"));
    assert_eq!(daemon.view("again").pid, Some(now), "and then it is well");

    // Nobody restarts the other, and its cause is seen.
    daemon.quit("again");
    daemon.execute("never");
    let view = daemon.wait_for_state("never", StateName::Exited);
    assert_eq!((view.cause, view.health, view.pid), (Some(Cause::Health), None, None));
}

#[test]
fn one_that_hangs_is_started_anew() {
    let (tcp, http) = (free_port(), free_port());
    let hangs_once =
        |name: &str| format!("if not os.path.exists('{{dir}}/{name}'):\n  note('{name}', 1)\n  os.kill(os.getpid(), signal.SIGSTOP)");
    // The kernel accepts for a stopped process until its queue is full; from then on nobody gets through.
    let tcp_text =
        format!("s = socket.create_server(('127.0.0.1', {tcp}), backlog=1)\n{}\nwhile True: s.accept()[0].close()", hangs_once("a"));
    let http_text = format!(
        "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n  def do_GET(self):\n    self.send_response(204); self.end_headers()\n  def log_message(self, *a): pass\ns = h.HTTPServer(('127.0.0.1', {http}), H)\n{}\ns.serve_forever()",
        hangs_once("b")
    );
    let daemon = Daemon::start(
        &[
            service(
                "tcp",
                &tcp_text,
                &format!("{AGAIN}\nready = {{ tcp = '127.0.0.1:{tcp}' }}\nhealth = {{ tcp = '127.0.0.1:{tcp}', interval = 0.05, timeout = 2, failures = 2 }}"),
            ),
            service(
                "http",
                &http_text,
                &format!("{AGAIN}\nready = {{ tcp = '127.0.0.1:{http}' }}\nhealth = {{ http = 'http://127.0.0.1:{http}/', interval = 0.05, timeout = 2, failures = 2 }}"),
            ),
        ]
        .concat(),
    );
    for name in ["tcp", "http"] {
        let before = daemon.execute(name).pid;
        let now = started_anew(&daemon, name, before);
        daemon.wait_for(name, |view| view.health.as_deref() == Some("passing"));
        assert_eq!(daemon.view(name).pid, Some(now));
    }
}

#[test]
fn one_that_stops_saying_that_it_is_alive_is_started_anew() {
    let text = r#"
assert os.environ["WATCHDOG_USEC"] == "1000000" and "WATCHDOG_PID" not in os.environ
notify("READY=1")
while not os.path.exists("{dir}/hang"):
    notify("WATCHDOG=1")
    time.sleep(0.1)
os.rename("{dir}/hang", "{dir}/hung")
sleep()
"#;
    let keys = format!("{AGAIN}\nready = {{ notify = true }}\nhealth = {{ notify = true, interval = 1 }}");
    let daemon = Daemon::start(&service("web", text, &keys));
    let before = daemon.execute("web").pid;
    daemon.wait_for("web", |view| view.health.as_deref() == Some("passing"));

    // A daemon that was stopped for longer than the interval blames nobody for it.
    daemon.signal(libc::SIGSTOP);
    let stopped = std::time::Instant::now();
    until("it was stopped for two intervals", || (stopped.elapsed().as_secs() >= 2).then_some(()));
    daemon.signal(libc::SIGCONT);
    daemon.wait_for("web", |view| view.uptime.is_some_and(|uptime| uptime > 4.0));
    assert_eq!(daemon.view("web").pid, Some(before));

    fs::write(daemon.path("hang"), "").unwrap();
    started_anew(&daemon, "web", before);
    daemon.wait_for("web", |view| view.health.as_deref() == Some("passing"));
}

#[test]
fn a_program_that_asks_is_ended_whole_and_costs_the_daemon_nothing() {
    // It starts what outlives it, and never stops writing.
    let asks = program(
        r#"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note("left", os.getpid())
        sleep()
    os._exit(0)
os.wait()
note("asks", os.getpid())
if os.path.exists("{dir}/sick"):
    while True: os.write(1, b"x" * 65536)
"#,
    );
    let keys = format!("restart = 'never'\nhealth = {{ exec = ['{PYTHON}', '-c', {asks}], interval = 0.2, timeout = 2.0, failures = 1 }}");
    let daemon = Daemon::start(&service("web", "sleep()", &keys));
    daemon.execute("web");
    daemon.wait_for("web", |view| view.health.as_deref() == Some("passing"));
    let left = |at_least: usize| -> Vec<u32> { daemon.lines("left", at_least).iter().map(|pid| pid.parse().unwrap()).collect() };
    for pid in left(2) {
        until("what a good one has left is ended", || (!is_alive(pid)).then_some(()));
    }
    assert_eq!(daemon.view("web").state, StateName::Running);
    fs::write(daemon.path("sick"), "").unwrap();
    let view = daemon.wait_for_state("web", StateName::Exited);
    assert_eq!(view.cause, Some(Cause::Health));
    let all: Vec<u32> = left(1).into_iter().chain(daemon.lines("asks", 1).iter().map(|pid| pid.parse().unwrap())).collect();
    for pid in all {
        until("nothing of it is left", || (!is_alive(pid)).then_some(()));
    }
    let status: procman::protocol::reply::StatusOfAll = daemon.call("status", serde_json::json!({}));
    assert!(status.daemon.memory.rss < 200 << 20, "what it wrote was kept");
}
