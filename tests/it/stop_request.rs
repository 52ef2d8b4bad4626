//! Services that want to be asked to end in their own words; the signal and SIGKILL stay behind it.

use super::harness::Daemon;
use super::harness::python::{PYTHON, free_port, program, service};

/// Answers requests at this port; "stop" ends it if it obeys.
fn server(port: u16, obeys: bool) -> String {
    let stop = if obeys { "sys.exit(3)" } else { "note('asked', 1)" };
    format!(
        "signal.signal(signal.SIGTERM, lambda *a: note('signals', 'TERM'))\nimport zmq\ns = zmq.Context().socket(zmq.REP)\ns.bind('tcp://127.0.0.1:{port}')\nnotify('READY=1')\nwhile True:\n  asked = s.recv()\n  s.send(b'done')\n  if asked == b'stop': {stop}"
    )
}

#[test]
fn it_is_asked_over_zeromq_instead_of_by_a_signal() {
    let port = free_port();
    let keys =
        format!("ready = {{ notify = true }}\nstop_request = {{ zmq = 'tcp://127.0.0.1:{port}', frames = ['stop'] }}\nstop_timeout = 20");
    let daemon = Daemon::start(&service("web", &server(port, true), &keys));
    daemon.execute("web");
    daemon.wait_for("web", |view| view.ready);
    let ended = daemon.quit("web");
    assert_eq!((ended.returncode, ended.survivors), (Some(3), 0), "{ended:?}");
    assert!(ended.killed.is_empty() && daemon.read("signals").is_empty(), "{ended:?}");
}

#[test]
fn one_that_takes_the_request_and_goes_on_is_killed_in_time() {
    let port = free_port();
    let keys =
        format!("ready = {{ notify = true }}\nstop_request = {{ zmq = 'tcp://127.0.0.1:{port}', frames = ['stop'] }}\nstop_timeout = 0.5");
    let daemon = Daemon::start(&service("web", &server(port, false), &keys));
    daemon.execute("web");
    daemon.wait_for("web", |view| view.ready);
    let ended = daemon.quit("web");
    assert_eq!((ended.signal, ended.survivors), (Some(libc::SIGKILL), 0), "{ended:?}");
    daemon.lines("asked", 1);
}

#[test]
fn where_nobody_answers_the_signal_follows_and_then_sigkill() {
    let request = format!("stop_request = {{ zmq = 'tcp://127.0.0.1:{}', frames = ['stop'], timeout = 0.2 }}", free_port());
    let ignores = "signal.signal(signal.SIGTERM, lambda *a: note('signals', 'TERM'))\nnotify('READY=1')\nsleep()";
    let obeys = "signal.signal(signal.SIGTERM, lambda *a: sys.exit(5))\nnotify('READY=1')\nsleep()";
    let daemon = Daemon::start(
        &[
            service("obeys", obeys, &format!("ready = {{ notify = true }}\n{request}\nstop_timeout = 20")),
            service("ignores", ignores, &format!("ready = {{ notify = true }}\n{request}\nstop_timeout = 1")),
        ]
        .concat(),
    );
    for name in ["obeys", "ignores"] {
        daemon.execute(name);
        daemon.wait_for(name, |view| view.ready);
    }
    let ended = daemon.quit("obeys");
    assert_eq!((ended.returncode, ended.survivors), (Some(5), 0), "{ended:?}");
    let ended = daemon.quit("ignores");
    assert_eq!((ended.signal, ended.survivors), (Some(libc::SIGKILL), 0), "{ended:?}");
    assert_eq!(daemon.lines("signals", 1), ["TERM"]);
    daemon.wait_for_log("the request to stop failed");
}

#[test]
fn a_program_asks_it() {
    let text = "signal.signal(signal.SIGUSR1, lambda *a: sys.exit(4))\nnotify('READY=1')\nsleep()";
    let keys = "ready = { notify = true }\nstop_timeout = 20\nstop_request = { exec = ['sh', '-c', 'kill -USR1 $MAINPID'], timeout = 10 }";
    let fails = program("note('failed', os.getpid()); sys.exit(1)");
    let daemon = Daemon::start(
        &[
            service("web", text, keys),
            service(
                "plain",
                "notify('READY=1')\nsleep()",
                &format!(
                    "ready = {{ notify = true }}\nstop_timeout = 20\nstop_request = {{ exec = ['{PYTHON}', '-c', {fails}], timeout = 10 }}"
                ),
            ),
        ]
        .concat(),
    );
    for name in ["web", "plain"] {
        daemon.execute(name);
        daemon.wait_for(name, |view| view.ready);
    }
    let ended = daemon.quit("web");
    assert_eq!((ended.returncode, ended.survivors), (Some(4), 0), "{ended:?}");
    let ended = daemon.quit("plain");
    assert_eq!((ended.signal, ended.survivors), (Some(libc::SIGTERM), 0), "a program that fails is followed by the signal: {ended:?}");
    daemon.lines("failed", 1);
}
