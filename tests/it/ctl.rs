//! The real `procmanctl` against the real daemon.

use std::process::{Command, Stdio};

use procman::protocol::StateName;

use super::harness::{Daemon, is_alive};

/// One call: its exit code, what it printed, and what it said on standard error.
#[track_caller]
fn ctl(daemon: &Daemon, line: &str) -> (Option<i32>, String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    let output = program.args(line.split(' ')).env("PROCMAN_ENDPOINT", daemon.endpoint()).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_sub_process_is_led_through_its_life() {
    let mut daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    let done = |line: &str| match ctl(&daemon, line) {
        (Some(0), out, err) if err.is_empty() => out,
        other => panic!("{line}: {other:?}"),
    };
    done("ping");
    assert!(done("list").contains("stopped"));
    assert_eq!(ctl(&daemon, "status web").0, Some(1), "it does not run");
    done("execute web");
    let pid = daemon.view("web").pid.unwrap();
    assert!(done("status web").contains(&pid.to_string()));
    assert!(done("list").contains("running"));
    let (code, _, err) = ctl(&daemon, "execute web");
    assert!(code == Some(1) && err.contains("already_running"), "{err}");
    done("signal web HUP");
    daemon.wait_for_state("web", StateName::Exited);
    assert!(!is_alive(pid));
    done("restart web");
    done("quit --all");
    assert_eq!(daemon.view("web").state, StateName::Stopped);
    let info: serde_json::Value = serde_json::from_str(&done("--json info")).unwrap();
    assert_eq!(info["result"]["pid"], daemon.pid());
    done("shutdown");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let (code, out, err) = ctl(&daemon, "ping");
    assert!(code == Some(3) && out.is_empty() && err.contains("no daemon reached"), "{err}");
}

#[test]
fn an_upgrade_returns_once_the_new_program_answers() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n");
    let pid = daemon.wait_for_state("web", StateName::Running).pid;
    for _ in 0..3 {
        let before = daemon.info().uuid;
        assert_eq!(ctl(&daemon, "upgrade").0, Some(0));
        // As an operator goes on at once: it is neither the former program that answers, nor nobody.
        let (code, out, err) = ctl(&daemon, "--json info");
        assert!(code == Some(0) && !out.contains(&before), "{out} {err}");
        assert_eq!(ctl(&daemon, "signal web CONT").0, Some(0));
        daemon.wait_for_successor(&before);
    }
    assert_eq!(daemon.view("web").pid, pid);
}
