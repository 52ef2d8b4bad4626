//! Starts of the daemon that are refused: one line, a distinct exit code, and no process was started.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use super::harness::{Daemon, Refused, Setup};

/// Something that would leave a trace were it started.
const TRACE: &str = "[[process]]\nname = 'trace'\ncmd = ['touch', '{dir}/started']\nautostart = true\n";

/// A setup whose daemon says nothing but why it leaves.
fn quiet() -> Setup {
    Setup::new(TRACE).log("off")
}

#[track_caller]
fn assert_refused(setup: &Setup, code: i32, words: &[&str]) {
    setup.refused().assert(code, words);
    assert!(!setup.dir().join("started").exists(), "a process was started");
}

#[test]
fn a_configuration_that_is_wrong_is_78_and_says_where() {
    let setup = Setup::new("[[process]]\nname = 'trace'\ncmmd = ['touch']\n").log("off");
    let Refused { code, err } = setup.refused();
    assert_eq!(code, Some(78), "{err}");
    assert!(err.lines().all(|line| line.starts_with("procmand: ")) && err.contains("procmand.toml:") && err.contains("cmmd"), "{err}");

    let setup = Setup::new("this is no TOML").log("off");
    let Refused { code, err } = setup.refused();
    assert!(code == Some(78) && err.contains("procmand.toml"), "{err}");
}

#[test]
fn check_says_all_that_is_wrong_and_starts_nothing() {
    let check = |processes: &str| Setup::new(processes).argument("--check").refused();
    let Refused { code, err } = check(TRACE);
    assert!(code == Some(0) && err.contains("nothing is wrong, 1 sub-process"), "{err}");
    let Refused { code, err } = check("[[process]]\nname = 'a b'\ncmd = []\n[[process]]\nname = 'c'\ncmd = ['x']\nstop_timeout = -1\n");
    assert_eq!(code, Some(78));
    for word in ["a b", "cmd", "stop_timeout"] {
        assert!(err.contains(word), "{word} is not in {err:?}");
    }
    // It touches nothing: it says the same beside a running daemon.
    let daemon = Daemon::start("");
    let setup = Setup::new(TRACE).state_dir(daemon.path("state").to_str().unwrap()).argument("--check");
    assert_eq!(setup.refused().code, Some(0));
    assert!(!setup.dir().join("started").exists() && !setup.dir().join("run").exists());
}

#[test]
fn a_missing_configuration_file_is_named() {
    let setup = quiet().argument("--config").argument("{dir}/missing.toml");
    let Refused { code, err } = setup.refused();
    // Said twice is a wrong command line already; the file that clap would take is not looked at.
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn an_endpoint_that_somebody_holds_is_69() {
    let daemon = Setup::new("").tcp().start();
    let setup = quiet().endpoint(&daemon.endpoint());
    assert_refused(&setup, 69, &[&daemon.endpoint(), "another daemon"]);
    assert!(!setup.dir().join("c.sock").exists(), "its own socket, which it had bound already, is gone");
    let setup = quiet().endpoint(&daemon.tcp());
    assert_refused(&setup, 69, &[&daemon.tcp(), "another daemon"]);
    assert!(daemon.info().uptime > 0.0, "the other daemon has not noticed");

    let setup = quiet();
    fs::write(setup.dir().join("c.sock"), "precious").unwrap();
    assert_refused(&setup, 69, &["c.sock", "no socket"]);
    assert_eq!(fs::read_to_string(setup.dir().join("c.sock")).unwrap(), "precious");

    let setup = quiet().endpoint("ipc://{dir}/none/c.sock");
    assert_refused(&setup, 69, &["none/c.sock"]);
}

#[test]
fn a_metrics_address_that_somebody_holds_is_76() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let setup = quiet().listen(&address);
    assert_refused(&setup, 76, &[&address, "metrics.listen"]);
    assert!(!setup.dir().join("c.sock").exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_73() {
    // Below a file: that no permission allows, not even root's.
    let setup = quiet().state_dir("{dir}/procmand.toml/state");
    assert_refused(&setup, 73, &["procmand.toml/state", "daemon.state_dir"]);
    let setup = quiet();
    fs::write(setup.dir().join("run"), "").unwrap();
    assert_refused(&setup, 73, &["run", "daemon.runtime_dir"]);
}

#[test]
fn a_second_daemon_on_the_same_state_directory_is_75() {
    let daemon = Daemon::start("");
    let state = daemon.path("state");
    let setup = quiet().state_dir(state.to_str().unwrap());
    assert_refused(&setup, 75, &[&format!("process {}", daemon.pid()), state.to_str().unwrap()]);
    daemon.stop();
}

#[test]
fn what_a_killed_daemon_left_is_in_nobodys_way() {
    let setup = Setup::new("");
    drop(UnixListener::bind(setup.dir().join("c.sock")).unwrap());
    assert!(setup.dir().join("c.sock").exists(), "a socket file that nobody listens at");
    let mut daemon = setup.start();
    let (state, socket) = (daemon.path("state"), daemon.endpoint());
    daemon.kill();
    assert!(daemon.path("c.sock").exists());
    // Another one with the same state directory and the same endpoint.
    let next = Setup::new("").state_dir(state.to_str().unwrap()).endpoint(&socket).start();
    assert_eq!(next.info().endpoints.len(), 2);
    next.stop();
    assert!(!daemon.path("c.sock").exists(), "and it takes the socket away at its end");
}

#[test]
fn a_wrong_command_line_is_2() {
    for argument in ["--no-such-option", "surplus"] {
        assert_eq!(quiet().argument(argument).refused().code, Some(2));
    }
    let Refused { code, err } = quiet().env("PROCMAN_LOG", "loud=loud").refused();
    assert!(code == Some(2) && err.contains("PROCMAN_LOG"), "{err}");
}
