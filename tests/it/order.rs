//! Order: who is started after whom, who waits for whom, whom an end takes along. Proven by what the processes themselves write down.

use std::fs;
use std::process::{Command, Stdio};

use procman::protocol::reply::{Each, Ended, Executed, View};
use procman::protocol::{Cause, ErrorCode, StateName, Wanted};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Refused, Setup, frame, is_alive, until, value_of};

/// A shell that waits for signals. It makes no child for that: one that is killed while it makes a child can leave that behind with the signal lost
/// between fork and exec; and one that it makes while it is being ended is asked to end, too.
fn waiting(name: &str, at_first: &str) -> String {
    format!("mkfifo {{dir}}/{name}.fifo 2> /dev/null; exec 3<>{{dir}}/{name}.fifo; {at_first}; while :; do read x <&3; done")
}

/// A process that writes down in `noted` when it comes up and when it is asked to go. While it is up there is a file `NAME.up`.
fn noting(name: &str, more: &str) -> String {
    let waiting = waiting(name, &format!("echo {name} up >> {{dir}}/noted; : > {{dir}}/{name}.up"));
    let script = format!("trap \"echo {name} down >> {{dir}}/noted; exec rm -f {{dir}}/{name}.up\" TERM; {waiting}");
    format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', '''{script}''']\nstop_timeout = 600\n{more}\n")
}

/// It is ready once this file is there.
fn ready_by(file: &str) -> String {
    format!("ready = {{ file = '{{dir}}/{file}', interval = 0.01, timeout = 600 }}")
}

/// A process that is never ready, and does this.
fn never_ready(name: &str, script: &str, more: &str) -> String {
    let ready = "ready = { file = '{dir}/never', interval = 0.01 }";
    format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', '{script}']\n{}\n{more}\n", if more.contains("ready") { "" } else { ready })
}

/// Makes a file in the test's directory.
fn make(daemon: &Daemon, file: &str) {
    fs::write(daemon.path(file), "").unwrap();
}

/// What they have written down, once it is so many lines.
#[track_caller]
fn noted(daemon: &Daemon, count: usize) -> Vec<String> {
    daemon.lines("noted", count)
}

fn start(processes: &[String]) -> Daemon {
    Daemon::start(&processes.concat())
}

/// Asks for a start that is not waited for; the reply comes there.
fn ask_for(daemon: &Daemon, name: &str, wait: bool) -> Peer {
    let client = Peer::connect(zmq::REQ, &daemon.endpoint());
    client.send(&[frame(&json!({"command": "execute", "name": name, "wait": wait}))]);
    client
}

#[test]
fn what_is_required_is_started_and_waited_for_until_it_is_ready() {
    let daemon = start(&[
        noting("web", "requires = ['api']"),
        noting("api", &format!("requires = ['db']\n{}", ready_by("api.ready"))),
        noting("db", &ready_by("db.ready")),
        noting("other", ""),
    ]);
    let client = ask_for(&daemon, "web", false);
    assert_eq!(noted(&daemon, 1), ["db up"]);
    for waiting in ["web", "api"] {
        let view = daemon.wait_for_state(waiting, StateName::Starting);
        assert_eq!((view.pid, view.uuid), (None, None), "{waiting} has not begun");
    }
    make(&daemon, "db.ready");
    assert_eq!(noted(&daemon, 2), ["db up", "api up"]);
    assert_eq!(daemon.wait_for_state("web", StateName::Starting).pid, None);
    assert!(!client.has_more(0), "it is answered once it was executed");
    make(&daemon, "api.ready");
    assert_eq!(value_of(&client.receive()[0])["result"]["name"], "web");
    assert_eq!(noted(&daemon, 3), ["db up", "api up", "web up"]);
    assert_eq!(daemon.view("other").state, StateName::Stopped, "nobody asked for it");
}

#[test]
fn the_daemon_starts_in_order_and_ends_in_reverse() {
    let auto = "autostart = true";
    let mut daemon = start(&[
        noting("d", &format!("{auto}\nafter = ['c']")),
        noting("c", &format!("{auto}\nrequires = ['b']\n{}", ready_by("c.ready"))),
        noting("b", &format!("after = ['a']\n{}", ready_by("b.ready"))),
        noting("a", &format!("{auto}\n{}", ready_by("a.ready"))),
    ]);
    let all = ["a up", "b up", "c up", "d up"];
    for (i, name) in ["a", "b", "c", "d"].iter().enumerate() {
        assert_eq!(noted(&daemon, i + 1), all[..=i], "the next waits until {name} is ready");
        make(&daemon, &format!("{name}.ready"));
    }
    daemon.wait_for_state("d", StateName::Running);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(noted(&daemon, 8)[4..], ["d down", "c down", "b down", "a down"]);
}

/// Two that come up, and end, only together: each waits until the other does the same.
fn pair(more: &str) -> String {
    let process = |me: &str, other: &str| {
        let meet = |what: &str| format!(": > {{dir}}/{me}.{what}; until [ -e {{dir}}/{other}.{what} ]; do sleep 0.01; done");
        let (up, down) = (meet("up"), meet("down"));
        let waiting = waiting(me, &format!("{up}; : > {{dir}}/{me}.ready"));
        let script = format!("trap \"{down}; exit 0\" TERM; {waiting}");
        let ready = ready_by(&format!("{me}.ready"));
        format!("[[process]]\nname = '{me}'\ncmd = ['sh', '-c', '''{script}''']\nstop_timeout = 600\n{ready}\n{more}\n")
    };
    process("left", "right") + &process("right", "left")
}

#[test]
fn what_does_not_depend_on_each_other_starts_and_ends_at_the_same_time() {
    for leaving in [true, false] {
        let mut daemon = start(&[
            pair("after = ['base']"),
            noting("base", "autostart = true"),
            noting("top", "requires = ['left', 'right']\nautostart = true"),
        ]);
        daemon.wait_for_state("top", StateName::Running);
        assert_eq!(noted(&daemon, 2), ["base up", "top up"]);
        if leaving {
            daemon.signal(libc::SIGTERM);
            assert_eq!(daemon.wait_exit().code(), Some(0));
        } else {
            let ended: Vec<Each<Ended>> = daemon.call("quit", json!({"all": true}));
            assert!(ended.iter().all(|each| matches!(each, Each::Done(end) if end.killed.is_empty())), "{ended:?}");
        }
        assert_eq!(noted(&daemon, 4)[2..], ["top down", "base down"]);
    }
}

#[test]
fn a_required_one_that_is_restarted_takes_nobody_along() {
    let again = "restart = 'always'\nbackoff = { initial = 0 }\nstart_limit = { count = 0 }";
    let daemon = start(&[noting("a", again), noting("b", &format!("requires = ['a']\n{again}"))]);
    let b = daemon.execute("b").pid;
    noted(&daemon, 2);
    for i in 1..5 {
        let a = daemon.view("a").pid.unwrap();
        if i % 2 == 0 {
            let _: Executed = daemon.call("restart", json!({"name": "a"}));
        } else {
            let _: Value = daemon.call("signal", json!({"name": "a", "signal": "KILL"}));
        }
        daemon.wait_for("a", |view| view.state == StateName::Running && view.pid.is_some_and(|pid| pid != a));
        until("it has come up", || (daemon.read("noted").matches("a up\n").count() > i).then_some(()));
    }
    assert_eq!(daemon.view("b").pid, Some(b));
    assert_eq!(daemon.read("noted").matches("b ").count(), 1);
}

#[test]
fn a_dependent_that_is_started_again_waits_until_what_it_requires_is_ready_again() {
    let again = "restart = 'always'\nbackoff = { initial = 0 }";
    let daemon = start(&[noting("a", &format!("{again}\n{}", ready_by("a.ready"))), noting("b", &format!("requires = ['a']\n{again}"))]);
    make(&daemon, "a.ready");
    daemon.execute("b");
    noted(&daemon, 2);
    fs::remove_file(daemon.path("a.ready")).unwrap();
    let _: Value = daemon.call("signal", json!({"name": "a", "signal": "KILL"}));
    assert_eq!(noted(&daemon, 3)[2], "a up");
    let _: Value = daemon.call("signal", json!({"name": "b", "signal": "KILL"}));
    let view = daemon.wait_for_state("b", StateName::Starting);
    assert_eq!(view.pid, None, "it waits");
    make(&daemon, "a.ready");
    assert_eq!(noted(&daemon, 4)[3], "b up");
}

#[test]
fn the_end_for_good_of_a_required_one_takes_along_who_requires_it_the_last_ones_first() {
    let daemon = start(&[
        noting("a", ""),
        noting("b", "requires = ['a']\nrestart = 'always'"),
        noting("c", "requires = ['b']\nrestart = 'always'"),
        noting("d", "after = ['a']"),
    ]);
    for name in ["c", "d"] {
        daemon.execute(name);
    }
    noted(&daemon, 4);
    let _: Value = daemon.call("signal", json!({"name": "a", "signal": "KILL"}));
    daemon.wait_for_state("b", StateName::Stopped);
    assert_eq!(noted(&daemon, 6)[4..], ["c down", "b down"]);
    let c = daemon.view("c");
    assert_eq!((c.state, c.wanted, c.cause), (StateName::Stopped, Wanted::Down, Some(Cause::Quit)));
    assert_eq!(daemon.view("d").state, StateName::Running, "it is only after it");
}

#[test]
fn a_required_one_that_gives_up_takes_along_who_requires_it() {
    let a = "[[process]]\nname = 'a'\ncmd = ['sh', '-c', 'test ! -e {dir}/broken && exec sleep 1000']\nrestart = 'always'\nbackoff = { initial = 0.01 }\nstart_limit = { count = 2 }\n";
    let daemon = start(&[a.to_owned(), noting("b", "requires = ['a']")]);
    daemon.execute("b");
    noted(&daemon, 1);
    make(&daemon, "broken");
    let _: Value = daemon.call("signal", json!({"name": "a", "signal": "KILL"}));
    daemon.wait_for_state("a", StateName::Fatal);
    daemon.wait_for_state("b", StateName::Stopped);
    assert_eq!(noted(&daemon, 2), ["b up", "b down"]);
}

#[test]
fn one_that_has_done_its_work_satisfies_who_requires_it() {
    let script = "until [ -e {dir}/go ]; do sleep 0.01; done; echo migrated >> {dir}/noted";
    let daemon = start(&[never_ready("migrate", script, ""), noting("web", "requires = ['migrate']")]);
    let client = ask_for(&daemon, "web", false);
    daemon.wait_for_state("web", StateName::Starting);
    make(&daemon, "go");
    assert_eq!(value_of(&client.receive()[0])["success"], true);
    assert_eq!(noted(&daemon, 2), ["migrated", "web up"]);
    assert_eq!(daemon.view("migrate").state, StateName::Exited);
    daemon.quit("web");
    daemon.execute("web");
    assert_eq!(noted(&daemon, 4)[2..], ["web down", "web up"], "it is not run a second time");
}

#[test]
fn groups_and_all_end_in_reverse_and_what_requires_one_ends_before_it() {
    let process = |name: &str, more: &str| noting(name, &format!("{}\n{more}", ready_by(&format!("{name}.up"))));
    let daemon = start(&[
        process("a", "group = 'base'"),
        process("b", "requires = ['a']\nautostart = true"),
        process("c", "requires = ['b']\nautostart = true"),
        process("d", "after = ['c']\nautostart = true\ngroup = 'base'"),
    ]);
    noted(&daemon, 4);
    let ended: Vec<Each<Ended>> = daemon.call("quit", json!({"group": "base"}));
    let [Each::Done(a), Each::Done(d)] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!((a.name.as_str(), a.terminated.is_empty(), d.name.as_str(), d.terminated.is_empty()), ("a", false, "d", false));
    // `d` is after `c`, which is ended because of `a`.
    assert_eq!(noted(&daemon, 8)[4..], ["d down", "c down", "b down", "a down"]);
    assert_eq!(daemon.view("c").state, StateName::Stopped);
    let restart_all = || {
        let all: Vec<Each<Executed>> = daemon.call("restart", json!({"all": true}));
        assert!(all.len() == 4 && all.iter().all(|each| matches!(each, Each::Done(_))), "{all:?}");
    };
    restart_all();
    assert_eq!(noted(&daemon, 12)[8..], ["a up", "b up", "c up", "d up"]);
    restart_all();
    assert_eq!(noted(&daemon, 20)[12..], ["d down", "c down", "b down", "a down", "a up", "b up", "c up", "d up"]);
    let pid = daemon.view("c").pid;
    let _: Vec<Each<Executed>> = daemon.call("restart", json!({"group": "base"}));
    assert_eq!(noted(&daemon, 24)[20..22], ["d down", "a down"], "by way of those that are left alone");
    assert_eq!(daemon.view("c").pid, pid, "what is not meant is left alone");
    let _: Ended = daemon.call("reap", json!({"name": "b"}));
    assert_eq!(noted(&daemon, 26)[24..], ["c down", "b down"]);
}

#[test]
fn one_that_will_not_end_blocks_the_others_no_longer_than_it_may() {
    let script = "trap \"\" TERM; echo stubborn up >> {dir}/noted; exec sleep 1000";
    let stubborn = format!("[[process]]\nname = 'stubborn'\ncmd = ['sh', '-c', '{script}']\nstop_timeout = 0.2\nrequires = ['a']\n");
    let daemon = start(&[noting("a", ""), stubborn]);
    let pid = daemon.execute("stubborn").pid;
    noted(&daemon, 2);
    let ended = daemon.quit("a");
    assert_eq!((ended.survivors, is_alive(pid)), (0, false));
    assert_eq!(noted(&daemon, 3)[2], "a down");
}

#[test]
fn a_start_fails_when_what_it_requires_does() {
    let daemon = start(&[
        never_ready("slow", "exec sleep 1000", "ready = { file = \"{dir}/never\", timeout = 0.2, interval = 0.01 }"),
        never_ready("crash", "exit 3", "restart = 'on-failure'\nbackoff = { initial = 0.01 }\nstart_limit = { count = 3 }"),
        "[[process]]\nname = 'missing'\ncmd = ['/nonexistent/program']\n".to_owned(),
        noting("a", "requires = ['slow']\nrestart = 'always'"),
        noting("b", "requires = ['crash']\nrestart = 'always'\nbackoff = { initial = 0 }"),
        noting("c", "requires = ['missing']"),
        noting("d", "requires = ['c']"),
    ]);
    for (name, required, states) in [
        ("a", "slow", vec![StateName::Exited]),
        ("b", "crash", vec![StateName::Fatal]),
        ("c", "missing", vec![StateName::Fatal]),
        ("d", "c", vec![StateName::Fatal, StateName::Stopped]),
    ] {
        let error = daemon.refusal("execute", json!({"name": name}));
        assert_eq!((error.code, &error.details["name"]), (ErrorCode::NotRunning, &required.into()), "{error}");
        let told = states.iter().any(|state| error.message.contains(&format!("{name} requires {required}, which is {state}")));
        assert!(told, "{error}");
        // It stays down, though its policy may be to start it always.
        assert_eq!(daemon.wait_for_state(name, StateName::Stopped).wanted, Wanted::Down);
    }
    assert_eq!(daemon.read("noted"), "", "none was started");
}

#[test]
fn a_start_that_waits_can_be_quit() {
    let daemon = start(&[noting("a", &ready_by("a.ready")), noting("b", "requires = ['a']"), noting("c", "requires = ['b']")]);
    let client = ask_for(&daemon, "c", false);
    daemon.wait_for_state("c", StateName::Starting);
    assert_eq!(daemon.quit("b").terminated, [0_u32; 0]);
    let reply = value_of(&client.receive()[0]);
    assert_eq!(reply["error"]["code"], "not_running", "{reply}");
    for name in ["b", "c"] {
        daemon.wait_for_state(name, StateName::Stopped);
    }
    make(&daemon, "a.ready");
    daemon.wait_for_state("a", StateName::Running);
    assert_eq!(noted(&daemon, 1), ["a up"]);
}

#[test]
fn execute_waits_until_it_is_ready_or_has_failed() {
    let daemon = start(&[
        noting("web", &ready_by("web.ready")),
        never_ready("once", "exit 0", ""),
        never_ready("crash", "exit 3", "restart = 'always'"),
        never_ready("slow", "exec sleep 1000", "ready = { file = \"{dir}/never\", timeout = 0.1, interval = 0.01 }"),
        never_ready("silent", "exit 0", "ready = { notify = true }"),
        noting("user", "requires = ['silent']"),
    ]);
    let error = daemon.refusal("execute", json!({"name": "web", "wait": true, "timeout": 0.1}));
    assert!(error.code == ErrorCode::Timeout && error.message.contains("it is starting, and its start goes on"), "{error}");
    daemon.quit("web");
    let client = ask_for(&daemon, "web", true);
    until("it came up again", || (daemon.read("noted").matches("web up").count() == 2).then_some(()));
    make(&daemon, "web.ready");
    let reply = value_of(&client.receive()[0]);
    assert_eq!(reply["result"]["state"], "running", "{reply}");

    let once: Executed = daemon.call("execute", json!({"name": "once", "wait": true, "timeout": 20}));
    assert_eq!(once.state, StateName::Exited);
    let error = daemon.refusal("execute", json!({"name": "crash", "wait": true}));
    assert!(error.code == ErrorCode::NotRunning && error.message.contains("it exited with code 3"), "{error}");
    assert_eq!((&error.details["cause"], &error.details["returncode"]), (&"exit".into(), &3.into()));
    let error = daemon.refusal("execute", json!({"name": "slow", "wait": true}));
    assert!(error.code == ErrorCode::NotRunning && error.details["cause"] == "start_timeout".into(), "{error}");
    let error = daemon.refusal("execute", json!({"name": "silent", "wait": true}));
    assert!(
        error.code == ErrorCode::NotRunning && error.message.contains("it exited with code 0"),
        "it promised to say when it is ready: {error}"
    );
    let error = daemon.refusal("execute", json!({"name": "user"}));
    assert!(error.code == ErrorCode::NotRunning && error.message.contains("silent"), "{error}");
}

/// One call of the real `procmanctl`: its exit code, what it printed, and what it said on standard error.
fn ctl(daemon: &Daemon, line: &str) -> (Option<i32>, String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    let output = program.args(line.split(' ')).env("PROCMAN_ENDPOINT", daemon.endpoint()).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_command_line_waits_too_and_registers_in_order() {
    let daemon = start(&[noting("web", &ready_by("web.ready")), never_ready("crash", "exit 3", "")]);
    let (code, _, err) = ctl(&daemon, "execute web --wait --start-timeout 0.1");
    assert!(code == Some(1) && err.contains("timeout: web was not ready within 0.1 s"), "{err}");
    make(&daemon, "web.ready");
    daemon.wait_for_state("web", StateName::Running);
    let (code, _, err) = ctl(&daemon, "execute crash --wait");
    assert!(code == Some(1) && err.contains("crash did not get ready: it exited with code 3"), "{err}");
    let file = daemon.path("more.toml");
    let text = "[[process]]\nname = 'late'\ncmd = ['sleep', '1']\nrequires = ['early']\n[[process]]\nname = 'early'\ncmd = ['sleep', '%i']\ninstances = 2\n";
    fs::write(&file, text).unwrap();
    let (code, out, err) = ctl(&daemon, &format!("register {}", file.display()));
    let registered = "early@1: registered, stopped\nearly@2: registered, stopped\nlate: registered, stopped\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), registered, ""));
    let (code, _, err) = ctl(&daemon, "unregister early@2");
    assert!(code == Some(1) && err.contains("early@2 is required by late"), "{err}");
}

#[test]
fn instances_are_sub_processes_of_their_own() {
    let script = "echo %i $ME %% >> {dir}/noted; exec sleep 1000";
    let worker = format!(
        "[[process]]\nname = 'worker'\ncmd = ['sh', '-c', '{script}']\nenv = {{ ME = 'worker %i' }}\nstdout = 'file:{{dir}}/out.%i'\ninstances = 3\n"
    );
    let boss = "autostart = true\nrequires = ['worker']\nready = { file = '{dir}/noted' }";
    let daemon = start(&[worker, noting("boss", boss)]);
    daemon.wait_for_state("boss", StateName::Running);
    let mut lines = noted(&daemon, 4);
    lines.sort_unstable();
    assert_eq!(lines, ["1 worker 1 %", "2 worker 2 %", "3 worker 3 %", "boss up"]);
    assert!((1..=3).all(|i| daemon.path(&format!("out.{i}")).exists()), "each has its own output");
    let of_group: Vec<View> = daemon.call("list", json!({"group": "worker"}));
    assert_eq!(of_group.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["worker@1", "worker@2", "worker@3"]);
    let _: Value = daemon.call("signal", json!({"name": "worker@2", "signal": "KILL"}));
    daemon.wait_for_state("boss", StateName::Stopped);
    assert_eq!(daemon.view("worker@1").state, StateName::Running);

    let views: Vec<View> = daemon.call("register", json!({"name": "more", "cmd": ["sleep", "100%i"], "instances": 2}));
    assert_eq!(views.iter().map(|view| view.cmd[1].as_str()).collect::<Vec<_>>(), ["1001", "1002"]);
    let error = daemon.refusal("register", json!({"name": "more", "cmd": ["sleep"], "instances": 1001}));
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("`instances`: there can be 1 to 1000"), "{error}");
    let error = daemon.refusal("register", json!({"name": "more", "cmd": ["sleep"], "instances": 3}));
    assert_eq!(error.code, ErrorCode::AlreadyExists);
    assert_eq!(daemon.refusal("status", json!({"name": "more@3"})).code, ErrorCode::NotFound, "all or none");
}

#[test]
fn unknown_names_and_cycles_are_refused_with_file_line_and_path() {
    let plain = |name: &str, more: &str| format!("[[process]]\nname = '{name}'\ncmd = ['true']\n{more}\n");
    let cycle = [plain("a", "requires = ['b']"), plain("b", "after = ['c']"), plain("c", "requires = ['a']")].concat();
    for setup in [Setup::new(&cycle), Setup::new(&cycle).argument("--check")] {
        let Refused { code, err } = setup.refused();
        assert_eq!(code, Some(78), "{err}");
        let text = fs::read_to_string(setup.dir().join("procmand.toml")).unwrap();
        let line = 1 + text.lines().position(|line| line == "requires = ['b']").unwrap();
        assert!(err.contains(&format!("procmand.toml:{line}: process[a].requires: ")), "{err}");
        assert!(err.contains("a requires b, b is after c, c requires a"), "{err}");
    }
    let unknown = [plain("registry", ""), plain("b", "after = ['regstry']")].concat();
    let Refused { code, err } = Setup::new(&unknown).argument("--check").refused();
    let told = "process[b].after: there is no sub-process \"regstry\"; did you mean \"registry\"?";
    assert!(code == Some(78) && err.contains(told), "{err}");
}

#[test]
fn a_registration_that_would_break_the_order_changes_nothing() {
    let daemon = start(&[noting("a", ""), noting("b", "requires = ['a']")]);
    let refused = |arguments: Value| daemon.refusal("register", arguments);
    let error = refused(json!({"name": "c", "cmd": ["x"], "requires": ["aa"]}));
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("`requires` of c: there is no sub-process \"aa\""), "{error}");
    assert_eq!(daemon.refusal("status", json!({"name": "c"})).code, ErrorCode::NotFound);
    let cmd = daemon.view("a").cmd;
    let error = refused(json!({"name": "a", "cmd": cmd, "after": ["b"], "replace": true}));
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("a is after b, b requires a"), "{error}");
    assert_eq!(refused(json!({"name": "b", "cmd": cmd, "requires": ["b"], "replace": true})).code, ErrorCode::BadRequest);
    daemon.execute("a");
    noted(&daemon, 1);
    assert_eq!(daemon.view("b").state, StateName::Stopped);
    let error = daemon.refusal("unregister", json!({"name": "a"}));
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("a is required by b"), "{error}");
    assert_eq!(daemon.view("a").state, StateName::Running);
    // Once nobody requires it, it may go.
    let _: View = daemon.call("register", json!({"name": "b", "cmd": ["sleep", "9"], "replace": true}));
    let _: Value = daemon.call("unregister", json!({"name": "a"}));
    let error = refused(json!({"name": "d", "cmd": ["x"], "after": ["a"]}));
    assert!(error.message.contains("there is no sub-process \"a\""), "{error}");
}
