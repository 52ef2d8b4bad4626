//! Running is not ready: each way to say so, by a real service.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use procman::protocol::{Cause, StateName};

use super::harness::python::{PYTHON, free_port, program, service};
use super::harness::{Daemon, Setup, is_alive, until};

/// Lets a service go on that waits for this file.
fn go(daemon: &Daemon, name: &str) {
    fs::write(daemon.path(name), "").unwrap();
}

#[test]
fn each_source_says_when_it_is_ready_and_not_before() {
    let port = free_port();
    let (rep, router, tcp, http) = (port, free_port(), free_port(), free_port());
    let asks_often = "interval = 0.02, try_timeout = 0.5";
    let exec = program("wait('exec'); sys.exit(0 if os.environ['COLOUR'] == 'red' else 1)");
    let services = [
        (
            "rep",
            format!(
                "wait('rep')\nimport zmq\ns = zmq.Context().socket(zmq.REP)\ns.bind('tcp://127.0.0.1:{rep}')\nwhile True:\n  s.send(s.recv())"
            ),
            format!("ready = {{ zmq = 'tcp://127.0.0.1:{rep}', frames = ['ping'], expect = 'ping', {asks_often} }}"),
        ),
        (
            "router",
            format!(
                "wait('router')\nimport zmq\ns = zmq.Context().socket(zmq.ROUTER)\ns.bind('tcp://127.0.0.1:{router}')\nwhile True:\n  who, *asked = s.recv_multipart()\n  assert asked == [b'REQ', b'health'], asked\n  s.send_multipart([who, b'RESPONSE', b'success'])"
            ),
            format!(
                "ready = {{ zmq = 'tcp://localhost:{router}', socket = 'DEALER', frames = ['REQ', 'health'], expect = 'succ', {asks_often} }}"
            ),
        ),
        (
            "tcp",
            format!("wait('tcp')\ns = socket.create_server(('127.0.0.1', {tcp}))\nwhile True:\n  note('got', s.accept()[0].recv(100))"),
            format!("ready = {{ tcp = 'localhost:{tcp}', {asks_often} }}"),
        ),
        (
            "http",
            format!(
                "wait('http')\nimport http.server as h\nclass H(h.SimpleHTTPRequestHandler):\n  def log_message(self, *a): pass\nos.chdir('{{dir}}')\nh.HTTPServer(('127.0.0.1', {http}), H).serve_forever()"
            ),
            format!("ready = {{ http = 'http://127.0.0.1:{http}/http', {asks_often} }}"),
        ),
        (
            "unix",
            "wait('unix')\ns = socket.socket(socket.AF_UNIX)\ns.bind('{dir}/unix.sock')\ns.listen()\nsleep()".to_owned(),
            format!("ready = {{ unix = '{{dir}}/unix.sock', {asks_often} }}"),
        ),
        ("file", "sleep()".to_owned(), format!("ready = {{ file = '{{dir}}/file', {asks_often} }}")),
        (
            "exec",
            "sleep()".to_owned(),
            format!("env = {{ COLOUR = 'red' }}\nready = {{ exec = ['{PYTHON}', '-c', {exec}], interval = 0.02, try_timeout = 60 }}"),
        ),
        ("notify", "wait('notify')\nnotify('READY=1', 'STATUS=here')\nsleep()".to_owned(), "ready = { notify = true }".to_owned()),
        ("late", "sleep()".to_owned(), "ready = { delay = 600 }".to_owned()),
        ("soon", "sleep()".to_owned(), "ready = { delay = 0.05 }".to_owned()),
    ];
    let definitions: String = services.iter().map(|(name, text, keys)| service(name, text, keys)).collect();
    let daemon = Daemon::start(&definitions);
    for (name, ..) in &services {
        assert_eq!(daemon.execute(name).state, StateName::Starting, "{name}");
    }
    daemon.wait_for_state("soon", StateName::Running);
    // None of them is, though each has been asked by now.
    for (name, ..) in services.iter().filter(|(name, ..)| *name != "soon") {
        daemon.wait_for(name, |view| view.uptime.is_some_and(|uptime| uptime > 0.3));
        let view = daemon.view(name);
        assert!(view.state == StateName::Starting && !view.ready, "{name}: {view:?}");
    }
    for (name, ..) in services.iter().filter(|(name, ..)| *name != "late" && *name != "soon") {
        go(&daemon, name);
        assert!(daemon.wait_for_state(name, StateName::Running).ready, "{name}");
    }
    assert_eq!(daemon.view("late").state, StateName::Starting);
    assert!(daemon.lines("got", 1).iter().all(|sent| sent == "b''"), "nothing is sent to a TCP service");
    daemon.stop();
}

#[test]
fn the_program_of_systemd_is_understood() {
    if Command::new("systemd-notify").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-notify on this host");
        return;
    }
    // A process that ends right after its message; it waits until that was taken.
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'systemd-notify --ready --status=up && echo done >> {dir}/done; exec sleep 1000']\nready = { notify = true }\n",
    );
    daemon.execute("web");
    daemon.wait_for_state("web", StateName::Running);
    daemon.lines("done", 1);
}

#[test]
fn one_that_never_gets_ready_is_a_failed_start() {
    let keys = format!(
        "restart = 'on-failure'\nbackoff = {{ initial = 0.01, jitter = 0.0 }}\nstart_limit = {{ count = 2, interval = 600 }}\nready = {{ tcp = '127.0.0.1:{}', timeout = 0.2, interval = 0.02 }}",
        free_port()
    );
    let daemon = Daemon::start(&service("web", "note('runs', 'run')\nsleep()", &keys));
    daemon.execute("web");
    let view = daemon.wait_for_state("web", StateName::Fatal);
    assert_eq!((view.cause, view.restarts, view.pid), (Some(Cause::StartTimeout), 1, None));
    assert_eq!(daemon.metric("procman_process_exits_total", &["name=\"web\"", "cause=\"start_timeout\""]), Some(2.0));
}

#[test]
fn one_that_asks_for_more_time_gets_it() {
    let text = "notify('EXTEND_TIMEOUT_USEC=600000000')\nwait('go')\nnotify('READY=1')\nsleep()";
    let daemon = Daemon::start(&service("web", text, "ready = { notify = true, timeout = 1 }"));
    daemon.execute("web");
    daemon.wait_for("web", |view| view.uptime.is_some_and(|uptime| uptime > 1.3));
    assert_eq!(daemon.view("web").state, StateName::Starting);
    go(&daemon, "go");
    daemon.wait_for_state("web", StateName::Running);
}

#[test]
fn reading_its_configuration_again_it_is_not_ready() {
    let text = "notify('READY=1')\nwait('reload')\nnotify('RELOADING=1')\nwait('go')\nnotify('READY=1')\nsleep()";
    let daemon = Daemon::start(&service("web", text, "ready = { notify = true }"));
    daemon.execute("web");
    daemon.wait_for_state("web", StateName::Running);
    go(&daemon, "reload");
    let view = daemon.wait_for("web", |view| !view.ready);
    assert_eq!(view.state, StateName::Running);
    go(&daemon, "go");
    daemon.wait_for("web", |view| view.ready);
}

/// Forks twice into a session of its own, names the grandchild, and leaves.
const DAEMONIZES: &str = r#"
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(w, b"%d" % os.getpid())
        wait("go")
        sys.exit(7)
    os._exit(0)
os.wait()
notify("READY=1", "MAINPID=" + os.read(r, 20).decode())
"#;

#[test]
fn one_that_forks_and_lets_its_parent_die_goes_on_as_another_process() {
    let daemon = Daemon::start(&service("web", DAEMONIZES, "ready = { notify = true }"));
    let first = daemon.execute("web").pid;
    let view = daemon.wait_for("web", |view| view.pid.is_some_and(|pid| pid != first));
    let main = view.pid.unwrap();
    until("the former main is gone", || (!is_alive(first)).then_some(()));
    let view = daemon.wait_for_state("web", StateName::Running);
    assert_eq!((view.pid, view.restarts, view.returncode), (Some(main), 0, None));
    // Its end is the end of the run, and its exit code is known.
    go(&daemon, "go");
    let view = daemon.wait_for_state("web", StateName::Exited);
    assert_eq!((view.returncode, view.cause, view.pid), (Some(7), Some(Cause::Exit), None));

    // The next run does the same; its end is asked for.
    fs::remove_file(daemon.path("go")).unwrap();
    let first = daemon.execute("web").pid;
    let main = daemon.wait_for("web", |view| view.pid.is_some_and(|pid| pid != first) && view.ready).pid.unwrap();
    let ended = daemon.quit("web");
    assert_eq!((ended.survivors, ended.signal), (0, Some(libc::SIGTERM)));
    assert!(!is_alive(main));
}

#[test]
fn a_stranger_is_not_heard() {
    let setup = Setup::new(&service(
        "web",
        "note('socket', os.environ['NOTIFY_SOCKET'])\nwait('go')\nnotify('READY=1')\nsleep()",
        "ready = { notify = true }",
    ));
    let daemon = setup.start();
    daemon.execute("web");
    let socket = daemon.lines("socket", 1).remove(0);
    assert!(socket.starts_with(daemon.dir().join("run/notify").to_str().unwrap()), "{socket}");
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to(b"READY=1\nMAINPID=1", &socket).unwrap();
    daemon.wait_for_log("its sender is no process of this run");
    stranger.send_to(b"READY=1", &socket).unwrap();
    assert_eq!(daemon.view("web").state, StateName::Starting);
    go(&daemon, "go");
    daemon.wait_for_state("web", StateName::Running);
    daemon.quit("web");
    until("the socket is removed", || fs::symlink_metadata(&socket).is_err().then_some(()));
}
