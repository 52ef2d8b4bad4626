//! A daemon that was killed, and the next one, which takes over what it left.

use std::fs;

use procman::protocol::event::Event;
use procman::protocol::reply::{Ended, NamedProcess, PastRun, Reloaded, Replay, View, ViewWithStatus};
use procman::protocol::{Cause, EndedBy, ErrorCode, StateName, Wanted};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, is_alive, stat_of, until};

fn process(name: &str, keys: &str) -> String {
    format!("[[process]]\nname = '{name}'\n{keys}\n")
}

fn sleeper(name: &str, keys: &str) -> String {
    process(name, &format!("cmd = ['sleep', '1000']\n{keys}"))
}

fn history(daemon: &Daemon, name: &str) -> Vec<PastRun> {
    daemon.call("history", json!({"name": name}))
}

#[test]
fn what_lives_is_taken_over_and_behaves_like_any_other() {
    let mut daemon = Daemon::start(&[sleeper("web", "autostart = true"), sleeper("idle", "")].concat());
    let before = daemon.wait_for_state("web", StateName::Running);
    for _ in 0..2 {
        daemon.replace();
        let after = daemon.view("web");
        assert_eq!((after.pid, &after.uuid, after.state), (before.pid, &before.uuid, StateName::Running));
        assert_eq!((after.started_at, after.wanted, after.restarts), (before.started_at, Wanted::Up, 0));
        assert!(after.uptime.unwrap() >= before.uptime.unwrap(), "{} after {}", after.uptime.unwrap(), before.uptime.unwrap());
        assert_eq!(daemon.view("idle").state, StateName::Stopped);
    }
    // Every question and command.
    let status: ViewWithStatus = daemon.call("status", json!({"name": "web"}));
    let status = status.status.unwrap();
    assert_eq!((Some(status.pid), Some(&status.uuid)), (before.pid, before.uuid.as_ref()));
    assert!(daemon.call::<bool>("is_running", json!({"name": "web"})));
    assert_eq!(daemon.refusal("execute", json!({"name": "web"})).details["pid"], before.pid.unwrap().into());
    until("it is served to Prometheus", || daemon.metric("procman_process_up", &["name=\"web\""]).filter(|up| *up == 1.0));
    let _: Value = daemon.call("signal", json!({"name": "web", "signal": "STOP"}));
    until("it is stopped", || stat_of(before.pid.unwrap()).filter(|stat| stat.state == b'T'));
    let ended = daemon.quit("web");
    assert_eq!((ended.returncode, ended.signal, ended.terminated), (Some(-15), Some(15), vec![before.pid.unwrap()]));
    let runs = history(&daemon, "web");
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!((&runs[0].uuid, runs[0].cause, runs[0].ended_by), (before.uuid.as_ref().unwrap(), Cause::Quit, EndedBy::Quit));
    let again = daemon.execute("web");
    assert_ne!(Some(again.pid), before.pid);
}

#[test]
fn the_whole_tree_of_one_that_was_taken_over_ends() {
    // Processes that went to init with the daemon's end, and more that are made afterwards.
    let script = "import os, signal, time\n\
                  def orphan():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            signal.signal(signal.SIGTERM, signal.SIG_IGN)\n            time.sleep(1000)\n        os._exit(0)\n    os.wait()\n\
                  signal.signal(signal.SIGUSR1, lambda *_: orphan())\norphan()\nwhile True: time.sleep(1000)\n";
    let mut daemon = Daemon::start(&process("web", &format!("cmd = ['/usr/bin/python3', '-c', '''{script}''']\nstop_timeout = 0.5")));
    daemon.execute("web");
    daemon.wait_for_children("web", 1, "python3");
    daemon.replace();
    daemon.wait_for_children("web", 1, "python3");
    let _: Value = daemon.call("signal", json!({"name": "web", "signal": "USR1"}));
    daemon.wait_for_children("web", 2, "python3");
    let pid = daemon.view("web").pid.unwrap();
    let ended = daemon.quit("web");
    assert!(ended.survivors == 0 && ended.terminated.contains(&pid), "{ended:?}");
    assert_eq!(daemon.relatives(), [daemon.pid()], "nothing of it is left");
}

#[test]
fn what_ended_meanwhile_is_told_and_the_policy_decides() {
    let script = "trap \"exit 7\" TERM; while :; do sleep 0.01; done";
    let of = |name: &str, restart: &str| {
        process(
            name,
            &format!("cmd = ['sh', '-c', '{script}']\nrestart = '{restart}'\nbackoff = {{ initial = 0 }}\nstart_limit = {{ count = 0 }}"),
        )
    };
    let mut daemon = Daemon::start(&[of("once", "never"), of("again", "on-failure")].concat());
    let pids = ["once", "again"].map(|name| daemon.execute(name).pid);
    daemon.kill_alone();
    for pid in pids {
        let fd = procman::sys::pidfd::PidFd::open(pid).unwrap();
        fd.send_signal(libc::SIGTERM).unwrap();
        until("it has ended", || stat_of(pid).is_none_or(|stat| stat.is_zombie()).then_some(()));
    }
    daemon.start_next();
    // Whether somebody could still tell how it ended depends on who reaped it, and when: nothing is invented.
    let view = daemon.wait_for("once", |view| matches!(view.state, StateName::Exited | StateName::Lost));
    let expected = if view.state == StateName::Exited { (Some(7), Some(Cause::Exit)) } else { (None, Some(Cause::Lost)) };
    assert_eq!((view.returncode, view.cause), expected);
    let view = daemon.wait_for("again", |view| view.state == StateName::Running && view.pid != Some(pids[1]));
    assert_eq!(view.restarts, 1);
    let runs = history(&daemon, "again");
    // The PID is not written down yet when a daemon is killed at once after its answer; whose mark is found nowhere any more has none then.
    assert!(runs.len() == 1 && runs[0].pid.is_none_or(|pid| pid == pids[1]), "{runs:?}");
    // It is told once, also to the daemon after that.
    daemon.replace();
    assert_eq!(daemon.view("once").returncode, view_of(&history(&daemon, "once")));
    assert_eq!((history(&daemon, "once").len(), history(&daemon, "again").len()), (1, 1));
}

/// What the daemon has told of one: its states, each with a PID where there is a process.
fn told(daemon: &Daemon, name: &str) -> Vec<(StateName, Option<u32>)> {
    let replay: Replay = daemon.call("events", json!({}));
    let changes = replay.events.into_iter().filter_map(|event| match event {
        Event::StateChanged(change) if change.name.as_str() == name => Some((change.to, change.pid)),
        Event::StateChanged(_) | Event::Noted(_) => None,
    });
    changes.collect()
}

#[test]
fn what_has_ended_meanwhile_is_not_told_as_running() {
    let mut daemon = Daemon::start(&[sleeper("web", ""), sleeper("quit", "stop_signal = 'CONT'\nstop_timeout = 600")].concat());
    let pids = ["web", "quit"].map(|name| daemon.execute(name).pid);
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    peer.send(&[frame(&json!({"command": "quit", "name": "quit"}))]);
    daemon.wait_for_state("quit", StateName::Stopping);
    let _: Value = daemon.call("history", json!({}));
    daemon.kill_alone();
    for pid in pids {
        procman::sys::pidfd::PidFd::open(pid).unwrap().send_signal(libc::SIGKILL).unwrap();
        until("it has ended", || stat_of(pid).is_none_or(|stat| stat.is_zombie()).then_some(()));
    }
    daemon.start_next();
    let end = daemon.wait_for("web", |view| view.state != StateName::Stopping).state;
    assert!(matches!(end, StateName::Exited | StateName::Lost), "{end}");
    assert_eq!(told(&daemon, "web"), [(StateName::Stopping, None), (end, None)], "what is left of its tree is looked for, and that is all");
    daemon.wait_for_state("quit", StateName::Stopped);
    assert_eq!(told(&daemon, "quit"), [(StateName::Stopping, None), (StateName::Stopped, None)]);
    let runs = history(&daemon, "quit");
    assert_eq!(runs.iter().map(|run| (run.pid, run.ended_by)).collect::<Vec<_>>(), [(Some(pids[1]), EndedBy::Quit)]);
}

#[test]
fn a_run_that_never_had_a_process_is_not_told_as_running() {
    let mut daemon = Setup::new(&sleeper("web", "")).env("PROCMAN_CRASH_AT", "after-intent").start();
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    peer.send(&[frame(&json!({"command": "execute", "name": "web"}))]);
    daemon.leave_alone();
    daemon.start_next();
    daemon.wait_for_state("web", StateName::Lost);
    assert_eq!(told(&daemon, "web"), [(StateName::Stopping, None), (StateName::Lost, None)]);
    assert_eq!(history(&daemon, "web")[0].pid, None);
}

#[test]
fn a_restart_whose_start_may_have_come_to_a_process_is_left_to_the_policy() {
    for (policy, expected) in [("never", StateName::Lost), ("on-failure", StateName::Running)] {
        let keys = format!("restart = '{policy}'\nbackoff = {{ initial = 0 }}");
        let mut daemon = Setup::new(&sleeper("web", &keys)).env("PROCMAN_CRASH_AT", "after-intent:2").start();
        daemon.execute("web");
        let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
        peer.send(&[frame(&json!({"command": "restart", "name": "web"}))]);
        daemon.leave_alone();
        daemon.start_next();
        let view = daemon.wait_for_state("web", expected);
        assert_eq!(view.restarts, u64::from(expected == StateName::Running));
        let runs = history(&daemon, "web");
        assert_eq!(
            runs.iter().map(|run| (run.cause, run.ended_by)).collect::<Vec<_>>(),
            [(Cause::Lost, EndedBy::Itself), (Cause::Quit, EndedBy::Restart)]
        );
    }
}

fn view_of(runs: &[PastRun]) -> Option<i32> {
    runs[0].returncode
}

#[test]
fn what_an_operator_decided_holds() {
    let mut daemon = Daemon::start(
        &[
            sleeper("stopped", "autostart = true\nrestart = 'always'"),
            process(
                "gave-up",
                "cmd = ['false']\nautostart = true\nrestart = 'always'\nbackoff = { initial = 0 }\nstart_limit = { count = 2 }",
            ),
            process("failed", "cmd = ['sh', '-c', 'exit 3']"),
        ]
        .concat(),
    );
    daemon.wait_for_state("stopped", StateName::Running);
    daemon.quit("stopped");
    daemon.wait_for_state("gave-up", StateName::Fatal);
    daemon.execute("failed");
    let failed = daemon.wait_for_state("failed", StateName::Exited);
    daemon.replace();
    let stopped = daemon.view("stopped");
    assert_eq!(
        (stopped.state, stopped.wanted, stopped.returncode, stopped.cause),
        (StateName::Stopped, Wanted::Down, Some(-15), Some(Cause::Quit))
    );
    let gave_up = daemon.view("gave-up");
    assert_eq!((gave_up.state, gave_up.restarts, gave_up.returncode), (StateName::Fatal, 1, Some(1)));
    let after = daemon.view("failed");
    assert_eq!((after.state, after.returncode, after.uuid), (StateName::Exited, Some(3), failed.uuid));
    assert_eq!(history(&daemon, "gave-up").len(), 2);
    // A daemon that has left in order is followed by one that begins anew.
    daemon.start_anew();
    daemon.wait_for_state("stopped", StateName::Running);
    assert_eq!(history(&daemon, "stopped").len(), 1, "the history is kept all the same");
}

#[test]
fn definitions_of_run_time_survive() {
    let mut daemon = Daemon::start(&sleeper("file", ""));
    let _: View = daemon.call("register", json!({"name": "base", "cmd": ["sleep", "1000"], "env": {"SECRET": "x"}}));
    let _: View = daemon.call("register", json!({"name": "after-base", "cmd": ["sleep", "1000"], "requires": ["base"]}));
    let _: View = daemon.call("register", json!({"name": "gone", "cmd": ["sleep", "1000"]}));
    let _: Vec<View> = daemon.call("register", json!({"name": "many", "cmd": ["sleep", "1000"], "instances": 3}));
    let _: Value = daemon.call("unregister", json!({"name": "gone"}));
    let pid = daemon.execute("after-base").pid;
    daemon.replace();
    let names = |daemon: &Daemon| -> Vec<String> {
        daemon.call::<Vec<View>>("list", json!({})).into_iter().map(|view| view.name.to_string()).collect()
    };
    let expected = ["after-base", "base", "file", "many@1", "many@2", "many@3"];
    assert_eq!(names(&daemon), expected);
    assert_eq!(daemon.view("after-base").pid, Some(pid));
    assert!(is_alive(daemon.view("base").pid.unwrap()));
    let mode = fs::metadata(daemon.path("state/procman.db")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o077, 0, "it holds secrets");
    daemon.start_anew();
    assert_eq!(names(&daemon), expected);
    assert_eq!(daemon.view("base").state, StateName::Stopped);
    // A definition is gone with the last of its instances.
    for number in 1..=3 {
        let _: Value = daemon.call("unregister", json!({"name": format!("many@{number}")}));
    }
    daemon.replace();
    assert_eq!(names(&daemon), expected[..3]);
}

#[test]
fn one_whose_definition_changed_while_no_daemon_lived_runs_on_and_says_so() {
    let mut daemon = Daemon::start(&[sleeper("web", "autostart = true"), sleeper("same", "autostart = true")].concat());
    let pid = daemon.wait_for_state("web", StateName::Running).pid;
    let same = daemon.wait_for_state("same", StateName::Running).pid;
    let changed =
        [process("web", "cmd = ['sleep', '1001']\nautostart = true"), sleeper("same", "autostart = true\nstop_timeout = 1")].concat();
    daemon.rewrite(&changed);
    for _ in 0..2 {
        daemon.replace();
        let view = daemon.view("web");
        assert_eq!((view.pid, view.state), (pid, StateName::Running), "nobody has asked for anything else");
        assert!(view.message.unwrap().contains("earlier definition"));
        assert_eq!((daemon.view("same").pid, daemon.view("same").message), (same, None));
    }
    let plan: Reloaded = daemon.call("reload", json!({"dry_run": true}));
    assert_eq!(plan.restarted.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web"]);
    let _: Reloaded = daemon.call("reload", json!({}));
    let view = daemon.wait_for("web", |view| view.state == StateName::Running && view.pid != pid);
    assert_eq!(view.message, None);
    assert_eq!(procman::procfs::read_cmdline(view.pid.unwrap()).unwrap(), ["sleep", "1001"]);
    let plan: Reloaded = daemon.call("reload", json!({"dry_run": true}));
    assert!(plan.restarted.is_empty() && plan.changed.is_empty(), "{plan:?}");
}

#[test]
fn what_was_being_unregistered_is_gone() {
    let mut daemon = Daemon::start("");
    let script = "trap : TERM; touch \"$UP\"; while :; do sleep 0.05; done";
    let up = daemon.path("up").display().to_string();
    let definition = json!({"name": "web", "cmd": ["sh", "-c", script], "env": {"UP": up}, "stop_timeout": 600});
    let _: View = daemon.call("register", definition);
    let pid = daemon.execute("web").pid;
    until("it does not mind", || daemon.path("up").exists().then_some(()));
    let asking = Peer::connect(zmq::REQ, &daemon.endpoint());
    asking.send(&[frame(&json!({"command": "unregister", "name": "web"}))]);
    daemon.wait_for_state("web", StateName::Stopping);
    daemon.replace();
    assert_eq!(daemon.refusal("status", json!({"name": "web"})).code, ErrorCode::NotFound);
    let ended = until("it has ended", || daemon.call::<Vec<PastRun>>("history", json!({})).into_iter().next());
    assert_eq!((ended.pid, ended.ended_by, ended.message), (Some(pid), EndedBy::Unregister, None));
    assert!(!is_alive(pid));
    daemon.replace();
    assert!(daemon.call::<Vec<View>>("list", json!({})).is_empty());
}

#[test]
fn an_end_that_was_begun_is_brought_to_an_end() {
    let stubborn = "trap : TERM; touch {dir}/up-$NAME; while :; do sleep 0.05; done";
    let of = |name: &str| process(name, &format!("cmd = ['sh', '-c', '{stubborn}']\nenv = {{ NAME = '{name}' }}\nstop_timeout = 600"));
    let mut daemon = Daemon::start(&[of("quit"), of("restart")].concat());
    let before = daemon.execute("restart").pid;
    daemon.execute("quit");
    until("they do not mind", || (daemon.path("up-quit").exists() && daemon.path("up-restart").exists()).then_some(()));
    for command in ["quit", "restart"] {
        let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
        peer.send(&[frame(&json!({"command": command, "name": command}))]);
        daemon.wait_for_state(command, StateName::Stopping);
    }
    daemon.replace();
    assert_eq!((daemon.view("quit").state, daemon.view("quit").wanted), (StateName::Stopping, Wanted::Down));
    assert_eq!((daemon.view("restart").state, daemon.view("restart").wanted), (StateName::Stopping, Wanted::Up));
    let _: Ended = daemon.call("quit", json!({"name": "quit", "timeout": 0}));
    let runs = history(&daemon, "quit");
    assert_eq!((runs[0].cause, runs[0].ended_by), (Cause::Quit, EndedBy::Quit));
    let kill: Value = daemon.call("signal", json!({"name": "restart", "signal": "KILL"}));
    assert_eq!(kill["signalled"], json!([before]));
    let view = daemon.wait_for_state("restart", StateName::Running);
    assert_ne!(view.pid, Some(before));
    assert_eq!(history(&daemon, "restart")[0].ended_by, EndedBy::Restart);
    let _: Ended = daemon.call("quit", json!({"name": "restart", "timeout": 0}));
}

/// One that takes its time to end, as long as there is a file `busy` in the directory.
fn slow(name: &str, keys: &str) -> String {
    let program = "trap \"while [ -e {dir}/busy ]; do sleep 0.02; done; exit\" TERM; touch {dir}/up-$NAME; while :; do sleep 0.02; done";
    process(name, &format!("cmd = ['sh', '-c', '{program}']\nenv = {{ NAME = '{name}' }}\nstop_timeout = 600\n{keys}"))
}

/// Which of them have another process than before.
fn started_anew(daemon: &Daemon, before: &[(&str, u32)]) {
    for (name, pid) in before {
        let view = daemon.wait_for(name, |view| view.state == StateName::Running && view.pid != Some(*pid));
        assert_eq!((view.wanted, view.restarts), (Wanted::Up, 0), "{name}");
    }
}

/// Two that are ended one after the other, the first of which is just ending, and one that is ended already; the daemon is killed then.
fn killed_amid(change: impl FnOnce(&Daemon)) -> (Daemon, Vec<(&'static str, u32)>) {
    let group = "group = 'site'\n";
    let all = [slow("under", group), slow("over", &format!("{group}requires = ['under']")), sleeper("quick", group), sleeper("other", "")];
    let mut daemon = Daemon::start(&all.concat());
    let before: Vec<(&str, u32)> = ["under", "over", "quick", "other"].map(|name| (name, daemon.execute(name).pid)).to_vec();
    until("they are set", || (daemon.path("up-under").exists() && daemon.path("up-over").exists()).then_some(()));
    fs::write(daemon.path("busy"), "").unwrap();
    change(&daemon);
    daemon.wait_for_state("quick", StateName::Stopped);
    daemon.wait_for_state("over", StateName::Stopping);
    assert_eq!(daemon.view("under").state, StateName::Running, "its turn has not come");
    let _: Value = daemon.call("history", json!({}));
    daemon.kill_alone();
    // Its end comes before the next daemon has taken over what it requires.
    fs::remove_file(daemon.path("busy")).unwrap();
    until("it has ended", || (!is_alive(before[1].1)).then_some(()));
    daemon.start_next();
    (daemon, before)
}

#[test]
fn a_restart_of_several_is_carried_out_by_the_next_daemon() {
    let (daemon, before) = killed_amid(|daemon| {
        let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
        peer.send(&[frame(&json!({"command": "restart", "group": "site"}))]);
        daemon.wait_for_state("over", StateName::Stopping);
    });
    started_anew(&daemon, &before[..3]);
    assert_eq!(daemon.view("other").pid, Some(before[3].1));
    for name in ["under", "over", "quick"] {
        assert_eq!(history(&daemon, name).len(), 1, "{name} was ended once");
    }
}

#[test]
fn the_restarts_of_a_reload_are_carried_out_by_the_next_daemon() {
    let (daemon, before) = killed_amid(|daemon| {
        let all =
            [slow("under", "nice = 1"), slow("over", "requires = ['under']\nnice = 1"), sleeper("quick", "nice = 1"), sleeper("other", "")];
        daemon.rewrite(&all.concat());
        let done: Reloaded = daemon.call("reload", json!({}));
        assert_eq!(done.restarted.len(), 3);
    });
    started_anew(&daemon, &before[..3]);
    assert_eq!(daemon.view("other").pid, Some(before[3].1));
}

#[test]
fn nothing_is_started_before_what_it_requires_is_taken_over() {
    // They are taken over first, what they require last.
    let keys = "group = 'a'\nrequires = ['z']\nrestart = 'always'\nbackoff = { initial = 0 }";
    let names: Vec<String> = (0..25).map(|i| format!("a{i}")).collect();
    let between: String = (0..75).map(|i| sleeper(&format!("m{i}"), "autostart = true")).collect();
    let first: String = names.iter().map(|name| sleeper(name, keys)).collect();
    let mut daemon = Daemon::start(&[first, between, sleeper("z", "")].concat());
    let pids: Vec<u32> = names.iter().map(|name| daemon.execute(name).pid).collect();
    let required = daemon.view("z").pid;
    let _: Value = daemon.call("history", json!({}));
    daemon.kill_alone();
    for pid in &pids {
        procman::sys::pidfd::PidFd::open(*pid).unwrap().send_signal(libc::SIGKILL).unwrap();
        until("it has ended", || (!is_alive(*pid)).then_some(()));
    }
    daemon.start_next();
    for (name, pid) in names.iter().zip(&pids) {
        let view = daemon.wait_for(name, |view| view.state == StateName::Running && view.pid != Some(*pid));
        assert_eq!(view.restarts, 1, "{name}: {:?}", told(&daemon, name));
    }
    assert_eq!(daemon.view("z").pid, required);
}

#[test]
fn a_quit_amid_a_restart_of_several_holds_for_the_next_daemon_too() {
    let (daemon, before) = killed_amid(|daemon| {
        let peers = [json!({"command": "restart", "group": "site"}), json!({"command": "quit", "name": "over"})].map(|request| {
            let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
            peer.send(&[frame(&request)]);
            daemon.wait_for_state("over", StateName::Stopping);
            peer
        });
        daemon.wait_for("over", |view| view.wanted == Wanted::Down);
        drop(peers);
    });
    started_anew(&daemon, &[before[0], before[2]]);
    daemon.wait_for_state("over", StateName::Stopped);
}

#[test]
fn what_the_configuration_has_no_more_is_quit() {
    let mut daemon = Daemon::start(&[sleeper("web", ""), sleeper("gone", "")].concat());
    let (web, gone) = (daemon.execute("web").pid, daemon.execute("gone").pid);
    daemon.kill_alone();
    let config = daemon.path("procmand.toml");
    let text = fs::read_to_string(&config).unwrap();
    let (kept, _) = text.split_once("[[process]]\nname = 'gone'").unwrap();
    fs::write(&config, kept).unwrap();
    daemon.start_next();
    until("it is gone", || (!is_alive(gone)).then_some(()));
    assert_eq!(daemon.view("web").pid, Some(web));
    let all = || daemon.call::<Vec<PastRun>>("history", json!({}));
    let run = until("it is in the history", || all().into_iter().find(|run| run.name.as_str() == "gone"));
    assert_eq!((run.pid, run.ended_by), (Some(gone), EndedBy::Unregister));
}

#[test]
fn a_database_that_is_damaged_is_set_aside_and_what_runs_is_found_by_its_marks() {
    let mut daemon = Daemon::start(&[sleeper("web", ""), sleeper("idle", "")].concat());
    let before = daemon.execute("web");
    daemon.kill_alone();
    for file in ["procman.db-wal", "procman.db-shm"] {
        drop(fs::remove_file(daemon.path(&format!("state/{file}"))));
    }
    fs::write(daemon.path("state/procman.db"), vec![0x5a; 40_000]).unwrap();
    daemon.start_next();
    let view = daemon.view("web");
    assert_eq!((view.pid, view.uuid, view.state), (Some(before.pid), Some(before.uuid), StateName::Running));
    let aside = fs::read_dir(daemon.path("state")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("procman.db.damaged-")).count(), 1);
    daemon.wait_for_log("damaged");
    // It is written down again: the next one needs no marks.
    daemon.replace();
    assert_eq!(daemon.view("web").pid, Some(before.pid));
}

fn set_schema(connection: &rusqlite::Connection, version: i64) {
    connection.pragma_update(None, "user_version", version).unwrap();
    connection.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [version.to_string()]).unwrap();
}

#[test]
fn a_newer_database_is_refused_by_name() {
    let mut daemon = Daemon::start(&sleeper("web", ""));
    let pid = daemon.execute("web").pid;
    daemon.kill_alone();
    let database = daemon.path("state/procman.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    set_schema(&connection, version + 1);
    drop(connection);
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_procmand")).arg("--config").arg(daemon.path("procmand.toml")).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(73), "{err}");
    assert!(err.contains(database.to_str().unwrap()) && err.contains("newer"), "{err}");
    assert!(is_alive(pid), "nothing was touched");
    let connection = rusqlite::Connection::open(&database).unwrap();
    set_schema(&connection, version);
    drop(connection);
    daemon.start_next();
    assert_eq!(daemon.view("web").pid, Some(pid));
}

#[test]
fn after_a_boot_nothing_is_believed() {
    let mut daemon = Daemon::start(&[sleeper("web", "autostart = true"), sleeper("idle", "")].concat());
    let pid = daemon.wait_for_state("web", StateName::Running).pid.unwrap();
    let idle = daemon.execute("idle").pid;
    daemon.quit("web");
    daemon.kill_alone();
    // As if the host had been started anew: another process may have the PID by now.
    let connection = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    let (find, now) = ("SELECT uuid, body FROM runs", procman::procfs::boot_id().unwrap());
    let mut rows = connection.prepare(find).unwrap();
    let found = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let found: Vec<(String, String)> = found.map(Result::unwrap).collect();
    drop(rows);
    for (uuid, body) in found {
        let body = body.replace(&now, "before");
        let fnv = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let sum = body.bytes().fold(0xcbf2_9ce4_8422_2325, fnv).cast_signed();
        assert_eq!(connection.execute("UPDATE runs SET body = ?1, sum = ?2 WHERE uuid = ?3", (&body, sum, &uuid)).unwrap(), 1);
    }
    assert_eq!(connection.execute("UPDATE meta SET value = 'before' WHERE key = 'boot_id'", []).unwrap(), 1);
    drop(connection);
    daemon.start_next();
    assert_ne!(daemon.wait_for_state("web", StateName::Running).pid, Some(pid), "what starts with the daemon starts");
    let runs = history(&daemon, "idle");
    assert_eq!((runs[0].pid, runs[0].cause, runs[0].returncode), (Some(idle), Cause::Lost, None));
}

#[test]
fn a_service_that_notifies_goes_on_being_heard() {
    let script = "import os, socket, time\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                  def say(text):\n    try: s.sendto(text, os.environ['NOTIFY_SOCKET'])\n    except OSError: pass\n\
                  say(b'READY=1')\nwhile True:\n    say(b'WATCHDOG=1\\nSTATUS=alive')\n    time.sleep(0.05)\n";
    let mut daemon = Setup::new(&process(
        "web",
        &format!("cmd = ['/usr/bin/python3', '-c', '''{script}''']\nready = {{ notify = true }}\nhealth = {{ notify = true, interval = 2.0 }}\nrestart = 'always'"),
    ))
    .start();
    daemon.execute("web");
    let before = daemon.wait_for_state("web", StateName::Running);
    daemon.replace();
    assert_eq!((daemon.view("web").state, daemon.view("web").pid), (StateName::Running, before.pid));
    daemon.wait_for("web", |view| view.health.as_deref() == Some("passing"));
    daemon.wait_for("web", |view| view.message.as_deref() == Some("alive"));
    assert_eq!(daemon.view("web").pid, before.pid, "nobody took it for dead");
}

#[test]
fn its_log_goes_on_and_is_looked_after() {
    // However fast the machine is, so many parts last for more than ten seconds: a flood, which is not copied to parts, this is not.
    let script = r#"while :; do printf "%0100d\n" 0; sleep 0.002; done"#;
    let mut daemon = Daemon::start(&process(
        "web",
        &format!("cmd = ['sh', '-c', '{script}']\nstdout = 'log'\nlog = {{ max_size = 4096, keep = 1000 }}"),
    ));
    daemon.execute("web");
    daemon.replace();
    until("it is rotated", || daemon.metric("procman_log_rotations_total", &[]).filter(|rotations| *rotations >= 2.0));
    let lines: Value = daemon.call("logs", json!({"name": "web", "lines": 5}));
    assert_eq!(lines["lines"].as_array().unwrap().len(), 5);
}

#[test]
fn children_are_asked_for_below_one_that_was_taken_over() {
    let mut daemon = Daemon::start(&process("web", "cmd = ['sh', '-c', 'sleep 1000 & sleep 1001 & wait']"));
    daemon.execute("web");
    daemon.wait_for_children("web", 2, "sleep");
    daemon.replace();
    let children: Vec<NamedProcess> = daemon.call("children", json!({"name": "web"}));
    assert_eq!(children.len(), 2);
    let ended: Ended = daemon.call("reap", json!({"name": "web", "children_only": true}));
    assert_eq!((ended.terminated.len(), ended.survivors), (2, 0));
}
