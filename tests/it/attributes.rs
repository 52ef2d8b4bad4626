//! What a run gets between its birth and its program: user, groups, limits, priorities, environment files; and how each refusal is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use procman::protocol::reply::View;
use procman::protocol::{Detail, ErrorCode};
use serde_json::{Value, json};

use super::harness::{Daemon, Setup, executable, is_root};

/// Registers `web` to run this script, with more of a definition; its output goes to the file `out`.
#[track_caller]
fn register(daemon: &Daemon, script: &str, more: Value) {
    let mut definition =
        json!({"name": "web", "cmd": ["sh", "-c", script], "stdout": format!("file:{}", daemon.path("out").display()), "replace": true});
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let _: View = daemon.call("register", definition);
}

/// Why it cannot be started: the name of the errno, and the sentence.
#[track_caller]
fn refusal(daemon: &Daemon, more: Value) -> (String, String) {
    register(daemon, "true", more);
    let error = daemon.refusal("execute", json!({"name": "web"}));
    assert_eq!(error.code, ErrorCode::SpawnFailed);
    let Detail::Text(errno) = &error.details["errno_name"] else { panic!("{error:?}") };
    (errno.clone(), error.message)
}

#[test]
fn a_run_gets_its_attributes() {
    let daemon = Daemon::start("");
    let script = "umask; cut -d' ' -f19 /proc/self/stat; cat /proc/self/oom_score_adj; grep -o 'NoNewPrivs:.1' /proc/self/status | tr -d '\\t'; \
                  ulimit -S -n; ulimit -H -n; ulimit -c; ulimit -S -s; echo end";
    let limits = json!({"nofile": "100:200", "core": 0, "stack": "1M:unlimited", "cpu": 3600});
    let limits = if is_root() { limits } else { json!({"nofile": "100:200", "core": 0, "stack": "1M"}) };
    register(&daemon, script, json!({"umask": "027", "nice": 7, "oom_score_adj": 300, "no_new_privs": true, "limits": limits}));
    daemon.execute("web");
    let lines = daemon.lines("out", 9);
    assert_eq!(lines, ["0027", "7", "300", "NoNewPrivs:1", "100", "200", "0", "1024", "end"]);
}

#[test]
fn a_run_has_the_groups_that_are_said() {
    if !is_root() {
        return eprintln!("skipped: only root changes users");
    }
    let daemon = Daemon::start("");
    let out = |more: Value| {
        fs::write(daemon.path("out"), "").unwrap();
        register(&daemon, "id -un; id -gn; id -Gn; echo $HOME:$USER", more);
        daemon.execute("web");
        daemon.lines("out", 4)
    };
    assert_eq!(out(json!({"user": "nobody", "user_group": "daemon"}))[..2], ["nobody", "daemon"]);
    let more = json!({"user": "daemon", "user_group": "nogroup", "supplementary_groups": ["bin", "sys"]});
    assert_eq!(out(more), ["daemon", "nogroup", "nogroup bin sys", "/usr/sbin:daemon"]);
    assert_eq!(out(json!({"supplementary_groups": []}))[..3], ["root", "root", "root"]);
}

#[test]
fn an_environment_file_is_read_at_each_start() {
    let daemon = Daemon::start("");
    let file = daemon.path("web.env");
    fs::write(&file, "# comment\nA=\"b  c\"\nB='x y' \nC=from-file\n").unwrap();
    let more = json!({"env_file": file, "env": {"C": "from-definition"}});
    register(&daemon, "echo \"$A|$B|$C|$D\"", more);
    daemon.execute("web");
    assert_eq!(daemon.lines("out", 1), ["b  c|x y|from-definition|"]);
    daemon.wait_for("web", |view| view.pid.is_none());
    fs::write(&file, "A=1\nD=2\n").unwrap();
    let _: Value = daemon.call("execute", json!({"name": "web", "env": {"A": "of this run"}}));
    assert_eq!(daemon.lines("out", 2)[1], "of this run||from-definition|2");
    // One that may be missing.
    daemon.wait_for("web", |view| view.pid.is_none());
    register(&daemon, "echo missing", json!({"env_file": format!("-{}", daemon.path("none").display())}));
    daemon.execute("web");
    assert_eq!(daemon.lines("out", 3)[2], "missing");
}

#[test]
fn a_wrong_environment_file_is_told_by_line_and_never_by_value() {
    let daemon = Daemon::start("");
    let file = daemon.path("web.env");
    fs::write(&file, "A=1\n\nB='hunter2\n").unwrap();
    let (errno, message) = refusal(&daemon, json!({"env_file": file}));
    assert_eq!(errno, "EINVAL");
    assert!(message.contains("line 3") && message.contains(file.to_str().unwrap()) && message.contains("quote"), "{message}");
    assert!(!message.contains("hunter2") && !daemon.read("log").contains("hunter2"));
    let (errno, message) = refusal(&daemon, json!({"env_file": daemon.path("none")}));
    assert!(errno == "ENOENT" && message.contains("env_file") && message.contains("none"), "{message}");
}

#[test]
fn what_is_not_there_or_not_possible_is_named() {
    let daemon = Daemon::start("");
    let (errno, message) = refusal(&daemon, json!({"user_group": "no-such-group"}));
    assert!(errno == "ESRCH" && message.contains("group \"no-such-group\""), "{message}");
    let (errno, message) = refusal(&daemon, json!({"limits": {"nofile": "unlimited"}}));
    assert!(errno == "EPERM" && message.contains("limits.nofile"), "{message}");
    // A program that somebody still writes.
    executable(&daemon.path("program"), "#!/bin/sh\n");
    Command::new("cp").arg("/bin/true").arg(daemon.path("program")).status().unwrap();
    let writer = fs::File::options().append(true).open(daemon.path("program")).unwrap();
    let (errno, message) = refusal(&daemon, json!({"cmd": [daemon.path("program")]}));
    assert!(errno == "ETXTBSY" && message.contains("program"), "{message}");
    drop(writer);
    daemon.execute("web");
}

/// A daemon of the user `nobody`, which has a copy of the program: it may not search the directories above the other one.
fn of_nobody() -> Option<Daemon> {
    if !is_root() {
        eprintln!("skipped: only root starts a daemon of another user");
        return None;
    }
    let setup = Setup::new("");
    fs::set_permissions(setup.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_procmand")).arg(setup.dir().join("procmand")).status().unwrap();
    assert!(copied.success());
    let nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "sh", "-c", "shift; exec {dir}/procmand \"$@\"", "sh"];
    Some(setup.wrapped(&nobody).start())
}

#[test]
fn what_only_root_may_is_refused_with_the_remedy() {
    let Some(daemon) = of_nobody() else { return };
    for (more, key) in [
        (json!({"user": "daemon"}), "`user`"),
        (json!({"user_group": "daemon"}), "`user_group`"),
        (json!({"supplementary_groups": ["bin"]}), "`supplementary_groups`"),
        (json!({"nice": -5}), "`nice`"),
        (json!({"oom_score_adj": -500}), "`oom_score_adj`"),
        (json!({"limits": {"core": "0:0", "memlock": "unlimited"}}), "`limits.memlock`"),
    ] {
        let (errno, message) = refusal(&daemon, more);
        assert!(matches!(errno.as_str(), "EPERM" | "EACCES"), "{key}: {errno}");
        assert!(message.contains(key) && message.contains("root"), "{message}");
    }
    // Its own user is no change.
    register(&daemon, "id -un", json!({"user": "nobody", "nice": 3}));
    daemon.execute("web");
    assert_eq!(daemon.lines("out", 1), ["nobody"]);
    if !daemon.info().capabilities.cgroup {
        daemon.wait_for_log("runs have no control groups");
    }
}

#[test]
fn a_limit_on_processes_is_told_and_passes() {
    let Some(daemon) = of_nobody() else { return };
    let prlimit = |limit: &str| {
        // As that user: root may only where it has all of its capabilities.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "prlimit"]);
        let status = command.args([format!("--pid={}", daemon.pid()), format!("--nproc={limit}")]).status();
        assert!(status.unwrap().success());
    };
    register(&daemon, "true", json!({}));
    daemon.execute("web"); // the thread that starts processes is there
    daemon.wait_for("web", |view| view.pid.is_none());
    prlimit("1:");
    let (errno, message) = refusal(&daemon, json!({}));
    assert!(errno == "EAGAIN" && message.contains("process"), "{message}");
    prlimit("10000:");
    daemon.execute("web");
}
