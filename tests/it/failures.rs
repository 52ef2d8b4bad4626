//! Starts that the operating system refuses: each with its errno, and a sentence that names what was refused.

use std::fs;
use std::process::Command;

use procman::protocol::reply::View;
use procman::protocol::{Cause, Detail, ErrorCode, StateName};
use serde_json::{Value, json};

use super::harness::{Daemon, executable, is_root};

/// Asserts that this definition cannot be started, and how.
#[track_caller]
fn assert_refused(daemon: &Daemon, definition: Value, errno_name: &str, words: &[&str]) {
    let mut definition = definition;
    (definition["name"], definition["replace"]) = ("web".into(), true.into());
    let _: View = daemon.call("register", definition.clone());
    let error = daemon.refusal("execute", json!({"name": "web"}));
    assert_eq!(error.code, ErrorCode::SpawnFailed, "{definition}: {error}");
    assert_eq!(error.details["errno_name"], Detail::Text(errno_name.into()), "{definition}: {error}");
    let Detail::Int(errno) = error.details["errno"] else { panic!("{error:?}") };
    assert!(errno > 0 && procman::sys::errno_name(i32::try_from(errno).unwrap()) == errno_name, "{errno}");
    let program = if definition["shell"] == true { "/bin/sh".into() } else { definition["cmd"][0].clone() };
    assert_eq!(serde_json::to_value(&error.details["command"]).unwrap(), program);
    for word in words {
        assert!(error.message.contains(word), "{word:?} is not in {:?}", error.message);
    }
    let view = daemon.view("web");
    assert_eq!((view.state, view.cause, view.pid, view.returncode), (StateName::Fatal, Some(Cause::SpawnFailed), None, None));
}

#[test]
fn each_refusal_has_its_errno_and_names_the_thing() {
    let daemon = Daemon::start("");
    let file = |name: &str| daemon.path(name).to_str().unwrap().to_owned();
    executable(&daemon.path("no-interpreter"), "#!/no/such/interpreter\n");
    executable(&daemon.path("no-format"), "this is no program\n");
    fs::write(daemon.path("not-executable"), "#!/bin/sh\n").unwrap();

    assert_refused(&daemon, json!({"cmd": ["/no/such/program"]}), "ENOENT", &["/no/such/program"]);
    // In a PATH of directories that everybody may search: one that may not be searched is EACCES, as for execvp(3).
    let path = json!({"PATH": "/no/such/directory:/usr/bin:/bin"});
    assert_refused(&daemon, json!({"cmd": ["no-such-program"], "env": path}), "ENOENT", &["no-such-program"]);
    assert_refused(&daemon, json!({"cmd": [file("no-interpreter")]}), "ENOENT", &["interpreter", "no-interpreter"]);
    assert_refused(&daemon, json!({"cmd": [file("not-executable")]}), "EACCES", &["not-executable"]);
    assert_refused(&daemon, json!({"cmd": [daemon.dir()]}), "EACCES", &[]);
    assert_refused(&daemon, json!({"cmd": [file("no-format")]}), "ENOEXEC", &["no-format"]);
    assert_refused(&daemon, json!({"cmd": ["true"], "cwd": file("missing")}), "ENOENT", &["directory", &file("missing")]);
    assert_refused(&daemon, json!({"cmd": ["true"], "cwd": file("no-format")}), "ENOTDIR", &["directory", &file("no-format")]);
    assert_refused(&daemon, json!({"cmd": ["true"], "user": "no-such-user"}), "ESRCH", &["user", "no-such-user"]);
    assert_refused(&daemon, json!({"cmd": ["true", "x".repeat(200_000)]}), "E2BIG", &["true"]);
    let output = format!("file:{}", daemon.dir().display());
    assert_refused(&daemon, json!({"cmd": ["true"], "stdout": output}), "EISDIR", &["output file", &file("")[..file("").len() - 1]]);
    let output = format!("file:{}", file("none/out"));
    assert_refused(&daemon, json!({"cmd": ["true"], "stderr": output}), "ENOENT", &["output file", &file("none/out")]);
    assert_refused(&daemon, json!({"cmd": ["true"], "shell": true, "cwd": "/no/such"}), "ENOENT", &["/no/such"]);

    // None of that has left anything: it starts as soon as it can.
    let view: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "1000"], "replace": true}));
    assert_eq!(view.state, StateName::Fatal);
    daemon.execute("web");
    assert_eq!(daemon.metric("procman_process_exits_total", &["name=\"web\"", "cause=\"spawn_failed\""]), Some(13.0));
}

#[test]
fn a_named_pipe_without_a_reader_is_refused_and_hangs_nobody() {
    let daemon = Daemon::start("");
    nix::unistd::mkfifo(&daemon.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = format!("file:{}", daemon.path("pipe").display());
    assert_refused(&daemon, json!({"cmd": ["true"], "stdout": output}), "ENXIO", &["pipe"]);
}

#[test]
fn a_limit_on_processes_is_eagain() {
    let daemon = Daemon::start("");
    let mut definition = json!({"name": "first", "cmd": ["sleep", "1000"]});
    if is_root() {
        // The limit does not bind root, so the sub-processes are another user's; and it counts only those that are there before.
        definition["user"] = "nobody".into();
    }
    let _: View = daemon.call("register", definition.clone());
    daemon.execute("first");
    let status = Command::new("prlimit").args([&format!("--pid={}", daemon.pid()), "--nproc=0:0"]).status();
    assert!(status.unwrap().success());
    assert_refused(&daemon, definition, "EAGAIN", &["sleep"]);
}

#[test]
fn a_start_that_fails_by_itself_follows_the_policy_and_ends_fatal() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['{dir}/program']\nrestart = 'on-failure'\nautostart = true\n\
         backoff = { initial = 0.01, factor = 1.0 }\nstart_limit = { count = 3, interval = 60 }\n",
    );
    let view = daemon.wait_for_state("web", StateName::Fatal);
    assert_eq!((view.restarts, view.cause), (2, Some(Cause::SpawnFailed)));
    executable(&daemon.path("program"), "#!/bin/sh\nexec sleep 1000\n");
    daemon.execute("web");
    assert_eq!(daemon.view("web").restarts, 0);
}
