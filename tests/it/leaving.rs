//! How the daemon leaves, and what does not make it leave.

use procman::protocol::reply::{Executed, Nothing, Pong};
use procman::protocol::{ErrorCode, StateName};
use serde_json::json;

use super::harness::{Daemon, Peer, Refused, Setup, frame, is_alive, value_of};

/// A process that notes its end in the file `order`.
fn noting(name: &str) -> String {
    let script =
        format!("trap \"echo {name} >> {{dir}}/order; exit 0\" TERM; echo {name} >> {{dir}}/up; while :; do sleep 1000 & wait $!; done");
    format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', '''{script}''']\n")
}

/// A process that takes its end only from SIGKILL, which would come in ten minutes.
const STUBBORN: &str = "[[process]]\nname = 'stubborn'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo stubborn >> {dir}/up; exec sleep 1000']\nstop_timeout = 600\n";

#[test]
fn sub_processes_are_quit_in_the_reverse_of_their_order() {
    let depends = [("a", ""), ("b", "after = ['d']\n"), ("c", "after = ['b']\n"), ("d", "requires = ['a']\n")];
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut daemon = Setup::new(&depends.map(|(name, on)| noting(name) + on).concat()).tcp().start();
        for (i, name) in ["c", "a", "d", "b"].iter().enumerate() {
            daemon.execute(name);
            daemon.lines("up", i + 1);
        }
        // That it was started last changes nothing.
        let _: Executed = daemon.call("restart", json!({"name": "a"}));
        daemon.lines("up", 5);
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit().code(), Some(0));
        assert_eq!(daemon.lines("order", 5), ["a", "c", "b", "d", "a"]);
        assert!(!daemon.path("c.sock").exists());
        daemon.stop();
    }
}

#[test]
fn a_second_signal_hurries() {
    let mut daemon = Daemon::start(&[STUBBORN, "after = ['web']\n", &noting("web")].concat());
    daemon.execute("web");
    let pid = daemon.execute("stubborn").pid;
    daemon.lines("up", 2);
    daemon.signal(libc::SIGTERM);
    daemon.wait_for_state("stubborn", StateName::Stopping);
    assert_eq!(daemon.view("web").state, StateName::Running, "its turn has not come");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn while_it_leaves_it_answers_and_begins_nothing() {
    let mut daemon = Daemon::start(&[STUBBORN, &noting("web"), &noting("other")].concat());
    daemon.execute("web");
    daemon.execute("stubborn");
    daemon.lines("up", 2);
    assert_eq!(daemon.call::<Nothing>("shutdown", json!({})), Nothing {});
    daemon.wait_for_state("stubborn", StateName::Stopping);

    assert!(daemon.call::<Pong>("ping", json!({})).pong);
    assert!(daemon.call::<bool>("is_running", json!({"name": "stubborn"})));
    for (command, arguments) in [
        ("register", json!({"name": "new", "cmd": ["true"]})),
        ("unregister", json!({"name": "web"})),
        ("execute", json!({"name": "other"})),
        ("restart", json!({"name": "web"})),
        ("restart", json!({"all": true})),
    ] {
        assert_eq!(daemon.refusal(command, arguments.clone()).code, ErrorCode::ShuttingDown, "{command} {arguments}");
    }
    assert!(daemon.http("/readyz").starts_with("HTTP/1.1 503"), "it is not ready any more");
    assert_eq!(daemon.call::<Nothing>("shutdown", json!({})), Nothing {}, "asked twice is once");
    // A quit is carried out still, and helps.
    let quitting = Peer::connect(zmq::REQ, &daemon.endpoint());
    let quit = quitting.ask(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 0}))]);
    assert_eq!(quit["result"]["survivors"], 0, "{quit}");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn whoever_asked_for_the_shutdown_has_its_answer() {
    for _ in 0..5 {
        let mut daemon = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n").tcp().start();
        let tcp = Peer::connect(zmq::REQ, &daemon.tcp());
        assert_eq!(tcp.ask(&[frame(&json!({"command": "shutdown"}))])["success"], true);
        assert_eq!(daemon.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_quit_that_is_waited_for_is_answered_before_the_daemon_is_gone() {
    let mut daemon = Daemon::start(STUBBORN);
    daemon.execute("stubborn");
    daemon.lines("up", 1);
    let waiting = Peer::connect(zmq::REQ, &daemon.endpoint());
    waiting.send(&[frame(&json!({"command": "quit", "name": "stubborn"}))]);
    daemon.wait_for_state("stubborn", StateName::Stopping);
    daemon.signal(libc::SIGTERM);
    daemon.wait_for_log("leaving");
    daemon.signal(libc::SIGTERM);
    let reply = value_of(&waiting.receive()[0]);
    assert_eq!(reply["result"]["survivors"], 0, "{reply}");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn other_signals_do_not_end_it() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n");
    let web = daemon.wait_for_state("web", StateName::Running);
    for (signal, name) in [(libc::SIGHUP, "SIGHUP"), (libc::SIGUSR2, "SIGUSR2")] {
        daemon.signal(signal);
        daemon.wait_for_log(name);
    }
    daemon.signal(libc::SIGPIPE);
    assert!(daemon.call::<Pong>("ping", json!({})).pong);
    assert_eq!(daemon.view("web").pid, web.pid);
}

#[test]
fn a_signal_while_it_still_starts_ends_it_cleanly() {
    // The first starts hang on each other's heels: whenever the signal comes, all that was started is ended.
    let process = |i: usize| format!("[[process]]\nname = 'p{i}'\ncmd = ['sleep', '1000']\nautostart = true\n");
    for _ in 0..5 {
        let mut daemon = Daemon::start(&(0..40).map(process).collect::<String>());
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_signal_as_soon_as_it_holds_anything_ends_it_cleanly() {
    for _ in 0..5 {
        let setup = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n");
        let lock = setup.dir().join("state/lock");
        // The state directory is the first thing that it takes; all that comes after it has to be given back.
        let Refused { code, err } = setup.interrupted(libc::SIGTERM, || lock.exists());
        assert_eq!(code, Some(0), "{err}");
    }
}

#[test]
fn what_nobody_can_tell_whose_it_is_is_ended_in_the_end() {
    // Forked twice, with a session and an environment of its own, before anybody looked.
    let script = "(env -i setsid sh -c \"echo \\$\\$; exec sleep 1000\" &); exec sleep 1000";
    let mut daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/pid'\n"));
    daemon.execute("web");
    let bare = daemon.lines("pid", 1)[0].parse().unwrap();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert!(!is_alive(bare));
}

#[test]
fn a_crash_loop_does_not_go_on_while_it_leaves() {
    let crashing = "[[process]]\nname = 'crash'\ncmd = ['sh', '-c', 'echo run >> {dir}/runs; exit 1']\nrestart = 'always'\n\
                    backoff = { initial = 0.01, factor = 1.0 }\nstart_limit = { count = 0 }\n";
    let mut daemon = Daemon::start(&[STUBBORN, crashing].concat());
    daemon.execute("crash");
    daemon.lines("runs", 3);
    daemon.execute("stubborn");
    daemon.lines("up", 1);
    daemon.signal(libc::SIGTERM);
    daemon.wait_for_state("stubborn", StateName::Stopping);
    daemon.wait_for("crash", |view| view.state == StateName::Stopped || view.state == StateName::Exited);
    let runs = daemon.read("runs");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(daemon.read("runs"), runs);
}
