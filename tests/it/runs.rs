//! What a run gets: environment, session, streams, directory, user, limits.

use std::collections::BTreeMap;
use std::fs;

use nix::unistd::{User, getgrouplist};
use procman::protocol::reply::{Executed, View};
use procman::protocol::{ErrorCode, StateName};
use serde_json::json;

use super::harness::{Daemon, Setup, executable, is_root, stat_of, until};

/// The environment of a process, as it was given.
fn environ(pid: u32) -> BTreeMap<String, String> {
    // With vfork the parent runs on before the kernel has set the new environment in its place.
    let bytes =
        until("the process has its environment", || fs::read(format!("/proc/{pid}/environ")).ok().filter(|bytes| !bytes.is_empty()));
    let entries = bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| String::from_utf8_lossy(entry).split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap())
        .collect()
}

#[test]
fn the_environment_is_the_daemons_and_its_own_and_that_of_the_run() {
    let daemon = Setup::new(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nenv = { OWN = 'definition', RUN = 'definition', FROM_DAEMON = 'changed' }\n",
    )
    .env("FROM_DAEMON", "kept")
    .env("ALSO_FROM_DAEMON", "a=b c")
    .start();
    let executed: Executed = daemon.call("execute", json!({"name": "web", "env": {"RUN": "run", "MORE": ""}}));
    let environment = environ(executed.pid);
    for (key, value) in [
        ("OWN", "definition"),
        ("RUN", "run"),
        ("MORE", ""),
        ("FROM_DAEMON", "changed"),
        ("ALSO_FROM_DAEMON", "a=b c"),
        ("PROCMAN_UUID", &executed.uuid),
    ] {
        assert_eq!(environment.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(environment.get("PATH").cloned(), std::env::var("PATH").ok());

    // What was for that run is not for the next one.
    let executed: Executed = daemon.call("restart", json!({"name": "web"}));
    let environment = environ(executed.pid);
    assert_eq!((environment.get("RUN").map(String::as_str), environment.get("MORE")), (Some("definition"), None));
    assert_eq!(environment["PROCMAN_UUID"], executed.uuid);
}

#[test]
fn what_systemd_tells_the_daemon_is_not_for_its_children() {
    let mut setup = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    let foreign = ["WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "JOURNAL_STREAM", "NOTIFY_SOCKET"];
    for variable in foreign {
        setup = setup.env(variable, if variable == "NOTIFY_SOCKET" { "{dir}/nobody" } else { "1" });
    }
    let daemon = setup.env("PROCMAN_UUID", "of another daemon").start();
    let executed = daemon.execute("web");
    let environment = environ(executed.pid);
    for variable in foreign {
        assert_eq!(environment.get(variable), None, "{variable}");
    }
    assert_eq!(environment["PROCMAN_UUID"], executed.uuid);
}

#[test]
fn an_empty_environment_holds_its_own_and_the_marker_alone() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nclear_env = true\nenv = { OWN = 'x' }\n");
    let executed = daemon.execute("web");
    let expected = BTreeMap::from([("OWN".to_owned(), "x".to_owned()), ("PROCMAN_UUID".to_owned(), executed.uuid)]);
    let mut environment = environ(executed.pid);
    let run = environment.remove("PROCMAN_RUN").unwrap();
    assert_eq!(environment, expected);
    assert!(run.ends_with(&format!("/web/{:010}", executed.pid)), "{run}");
    daemon.quit("web");
    assert!(stat_of(executed.pid).is_none(), "it bears no marker of this test, so it is looked at by its PID");
}

#[test]
fn it_has_a_session_of_its_own_an_empty_input_and_no_foreign_descriptor() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    let pid = daemon.execute("web").pid;
    let stat = until("the process is its own program", || stat_of(pid).filter(|stat| stat.name() == "sleep"));
    assert_eq!((stat.ppid, stat.session), (daemon.pid(), i32::try_from(pid).unwrap()));
    // What the loader of the program holds open for an instant is its own; what it had inherited would stay.
    let null = |fd: &str| (fd.to_owned(), "/dev/null".to_owned());
    until("its three streams, which go nowhere by default, are all that it has open", || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
        let link = |entry: fs::DirEntry| {
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            Some((entry.file_name().into_string().unwrap(), target))
        };
        (entries.map(link).collect::<Option<Vec<_>>>()? == [null("0"), null("1"), null("2")]).then_some(())
    });
}

#[test]
fn outputs_go_where_the_definition_says() {
    let say =
        |name: &str, keys: &str| format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', 'echo to-out; echo to-err >&2']\n{keys}\n");
    let daemon = Daemon::start(
        &[
            say("file", "stdout = 'file:{dir}/file.out'\nstderr = 'file:{dir}/file.err'"),
            say("both", "stdout = 'file:{dir}/both'\nstderr = 'stdout'"),
            say("inherit", "stdout = 'inherit'\nstderr = 'inherit'"),
            say("null", ""),
        ]
        .concat(),
    );
    for name in ["file", "both", "inherit", "null"] {
        for _ in 0..2 {
            daemon.execute(name);
            assert_eq!(daemon.wait_for_state(name, StateName::Exited).returncode, Some(0));
        }
    }
    assert_eq!((daemon.read("file.out"), daemon.read("file.err")), ("to-out\nto-out\n".into(), "to-err\nto-err\n".into()), "appended");
    assert_eq!(daemon.read("both"), "to-out\nto-err\nto-out\nto-err\n");
    assert_eq!(daemon.read("stdout"), "to-out\nto-out\n", "the daemon's own output");
    assert_eq!(daemon.read("log").lines().filter(|line| *line == "to-err").count(), 2);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(daemon.path("both")).unwrap().permissions().mode() & 0o027, 0, "others may not read or write it");
}

#[test]
fn it_runs_in_its_directory_and_a_shell_gets_the_joined_words() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'where'\ncmd = ['pwd']\ncwd = '{dir}'\nstdout = 'file:{dir}/where'\n\
         [[process]]\nname = 'shell'\ncmd = ['echo $((40 + 2)) |']\nargs = ['cat', '-']\nshell = true\nstdout = 'file:{dir}/shell'\n",
    );
    daemon.execute("where");
    let here = daemon.dir().canonicalize().unwrap();
    assert_eq!(daemon.lines("where", 1), [here.to_str().unwrap()]);
    daemon.execute("shell");
    assert_eq!(daemon.lines("shell", 1), ["42"]);
    daemon.wait_for_state("shell", StateName::Exited);
    let _: Executed = daemon.call("execute", json!({"name": "shell", "args": ["&&", "echo more"]}));
    assert_eq!(daemon.lines("shell", 3)[1..], ["42", "more"]);
}

#[test]
fn a_program_is_found_as_a_shell_finds_it() {
    let setup = Setup::new(
        "[[process]]\nname = 'here'\ncmd = ['./program']\ncwd = '{dir}'\nstdout = 'file:{dir}/here'\n\
         [[process]]\nname = 'path'\ncmd = ['program']\nenv = { PATH = '/no/such:{dir}' }\nstdout = 'file:{dir}/path'\n",
    );
    executable(&setup.dir().join("program"), "#!/bin/sh\necho found $0\n");
    let daemon = setup.start();
    daemon.execute("here");
    assert_eq!(daemon.lines("here", 1), ["found ./program"], "relative to its own directory");
    daemon.execute("path");
    assert_eq!(daemon.lines("path", 1), [format!("found {}", daemon.path("program").display())], "in the PATH of its own environment");
}

#[test]
fn the_limit_on_descriptors_is_the_daemons_original_one() {
    let daemon = Setup::new("[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'ulimit -Sn; ulimit -Hn']\nstdout = 'file:{dir}/out'\n")
        .wrapped(&["sh", "-c", "ulimit -Sn 123; ulimit -Hn 4000; exec \"$@\"", "sh"])
        .start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let own: Vec<&str> = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(own[3..5], ["4000", "4000"], "the daemon takes what it may have");
    daemon.execute("web");
    assert_eq!(daemon.lines("out", 2), ["123", "4000"]);
}

#[test]
fn it_runs_as_its_user_with_that_users_groups() {
    let script = "id -u; id -g; id -G; echo $HOME; echo $USER; echo $LOGNAME";
    let setup = Setup::new("");
    let daemon = setup.start();
    let user = if is_root() { "nobody" } else { "root" };
    let stdout = format!("file:{}", daemon.path("out").display());
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sh", "-c", script], "user": user, "stdout": stdout}));
    if !is_root() {
        let error = daemon.refusal("execute", json!({"name": "web"}));
        assert_eq!(error.code, ErrorCode::SpawnFailed);
        assert_eq!(serde_json::to_value(&error.details["errno_name"]).unwrap(), "EPERM", "{error}");
        assert!(error.message.contains("become the user \"root\""), "{error}");
        return;
    }
    daemon.execute("web");
    let lines = daemon.lines("out", 6);
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let groups = getgrouplist(c"nobody", nobody.gid).unwrap();
    let mut groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    groups.dedup();
    assert_eq!(lines[..2], [nobody.uid.to_string(), nobody.gid.to_string()]);
    assert_eq!(lines[2], groups.join(" "), "none of root's groups");
    assert_eq!(lines[3..], [nobody.dir.to_str().unwrap(), "nobody", "nobody"]);
    // It is quit as any other, though it is another user's.
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "1000"], "user": user, "replace": true}));
    daemon.wait_for("web", |view| view.state == StateName::Exited);
    let pid = daemon.execute("web").pid;
    let ended = daemon.quit("web");
    assert_eq!((ended.returncode, ended.terminated, stat_of(pid).is_none()), (Some(-15), vec![pid], true));
}
