//! What follows an end that nobody asked for.

use procman::protocol::{Cause, StateName, Wanted};
use serde_json::json;

use super::harness::{Daemon, is_alive};

/// A sub-process of a shell script.
fn script(name: &str, script: &str, keys: &str) -> String {
    format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', '''{script}''']\n{keys}\n")
}

const FAST: &str = "backoff = { initial = 0.01, factor = 1.0, jitter = 0.0 }";

#[test]
fn a_crash_loop_ends_fatal_after_the_start_limit() {
    let daemon = Daemon::start(&script(
        "web",
        "echo run >> {dir}/runs; exit 3",
        &format!("restart = 'on-failure'\n{FAST}\nstart_limit = {{ count = 4, interval = 600 }}"),
    ));
    daemon.execute("web");
    let view = daemon.wait_for_state("web", StateName::Fatal);
    assert_eq!((view.restarts, view.returncode, view.cause, view.next_start_at), (3, Some(3), Some(Cause::Exit), None));
    assert_eq!(daemon.lines("runs", 4).len(), 4, "the fifth start was not made");
    assert_eq!(daemon.metric("procman_process_starts_total", &["name=\"web\""]), Some(4.0));
    assert_eq!(daemon.metric("procman_process_exits_total", &["name=\"web\"", "cause=\"exit\""]), Some(4.0));
    assert_eq!(daemon.metric("procman_process_state", &["name=\"web\"", "state=\"fatal\""]), Some(1.0));

    // A start that somebody asks for is always tried, and the policy counts anew.
    daemon.execute("web");
    daemon.lines("runs", 8);
    let view = daemon.wait_for_state("web", StateName::Fatal);
    assert_eq!(view.restarts, 3);
    // A quit takes note of it: it is stopped then.
    daemon.quit("web");
    let view = daemon.view("web");
    assert_eq!((view.state, view.wanted), (StateName::Stopped, Wanted::Down));
}

#[test]
fn only_a_failure_is_followed_by_a_start() {
    let on_failure = format!("restart = 'on-failure'\n{FAST}\nstart_limit = {{ count = 2, interval = 600 }}");
    let daemon = Daemon::start(
        &[
            script("good", "exit 0", &on_failure),
            script("known", "exit 7", &format!("{on_failure}\nsuccess_codes = [0, 7]")),
            script("bad", "exit 1", &on_failure),
            script("killed", "kill -KILL $$", &on_failure),
            script("always", "exit 0", &on_failure.replace("on-failure", "always")),
            script("never", "exit 1", "restart = 'never'"),
            script("short", "exit 0", &format!("{on_failure}\nstart_seconds = 60")),
        ]
        .concat(),
    );
    for (name, state, restarts) in [
        ("good", StateName::Exited, 0),
        ("known", StateName::Exited, 0),
        ("bad", StateName::Fatal, 1),
        ("killed", StateName::Fatal, 1),
        ("always", StateName::Fatal, 1),
        ("never", StateName::Exited, 0),
        ("short", StateName::Fatal, 1),
    ] {
        daemon.execute(name);
        let view = daemon.wait_for(name, |view| matches!(view.state, StateName::Exited | StateName::Fatal));
        assert_eq!((view.state, view.restarts), (state, restarts), "{name}");
    }
}

#[test]
fn it_is_starting_until_its_start_seconds_are_over() {
    let sleeper = |name: &str, seconds: &str| format!("[[process]]\nname = '{name}'\ncmd = ['sleep', '1000']\nstart_seconds = {seconds}\n");
    let daemon = Daemon::start(&[sleeper("long", "600"), sleeper("short", "0.1")].concat());
    assert_eq!(daemon.execute("long").state, StateName::Starting);
    assert_eq!(daemon.execute("short").state, StateName::Starting);
    let view = daemon.wait_for_state("short", StateName::Running);
    assert!(view.uptime.unwrap() >= 0.1);
    assert_eq!(daemon.view("long").state, StateName::Starting);
    assert!(daemon.call::<bool>("is_running", json!({"name": "long"})), "there is a process");
    daemon.quit("long");
}

#[test]
fn the_back_off_grows_and_says_when_it_ends() {
    let daemon = Daemon::start(&script(
        "web",
        "exit 1",
        "restart = 'always'\nbackoff = { initial = 0.05, factor = 1000, max = 500, jitter = 0 }\nstart_limit = { count = 0 }",
    ));
    daemon.execute("web");
    let view = daemon.wait_for("web", |view| view.restarts == 1 && view.state == StateName::Backoff);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let due = view.next_start_at.unwrap() - now;
    assert!((20.0..=50.0).contains(&due), "in {due} s: 0.05 · 1000, less what has passed");
    // Somebody who asks for a start does not wait for it.
    daemon.execute("web");
    daemon.wait_for("web", |view| view.restarts == 1 && view.state == StateName::Backoff);
    assert_eq!(daemon.metric("procman_process_starts_total", &["name=\"web\""]), Some(4.0));
}

#[test]
fn a_changed_policy_counts_at_once() {
    let daemon = Daemon::start(&script("web", "exit 1", "restart = 'always'\nbackoff = { initial = 600, max = 600 }"));
    daemon.execute("web");
    daemon.wait_for_state("web", StateName::Backoff);
    let never = json!({"name": "web", "cmd": ["sh", "-c", "exit 1"], "restart": "never", "replace": true});
    let _: serde_json::Value = daemon.call("register", never);
    let view = daemon.wait_for_state("web", StateName::Exited);
    assert_eq!((view.wanted, view.next_start_at), (Wanted::Down, None));
}

#[test]
fn what_a_crash_leaves_is_ended_before_the_next_start() {
    // Each run leaves a stubborn orphan in a session of its own, and notes whether the one before still lives.
    let run = "[ -e {dir}/pid ] && kill -0 $(cat {dir}/pid) 2> /dev/null && echo alive >> {dir}/alive; \
               (setsid sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > {dir}/new; mv {dir}/new {dir}/pid; exec sleep 1000\" &); \
               while [ ! -e {dir}/pid ]; do sleep 0.01; done; echo run >> {dir}/runs; exit 1";
    let daemon = Daemon::start(&script(
        "web",
        run,
        &format!("restart = 'on-failure'\n{FAST}\nstop_timeout = 0.05\nstart_limit = {{ count = 3, interval = 600 }}"),
    ));
    daemon.execute("web");
    let view = daemon.wait_for_state("web", StateName::Fatal);
    assert_eq!((view.restarts, daemon.lines("runs", 3).len()), (2, 3));
    assert_eq!(daemon.read("alive"), "", "an earlier run was left alive");
    assert!(!is_alive(daemon.read("pid").trim().parse().unwrap()), "the last one too is gone");
}

#[test]
fn autostart_starts_with_the_daemon_and_only_what_says_so() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'a'\ncmd = ['sleep', '1000']\nautostart = true\n[[process]]\nname = 'b'\ncmd = ['sleep', '1000']\n",
    );
    daemon.wait_for_state("a", StateName::Running);
    let view = daemon.view("b");
    assert_eq!((view.state, view.wanted, view.uuid), (StateName::Stopped, Wanted::Down, None));
}

#[test]
fn what_has_just_ended_can_be_executed_at_once() {
    let daemon = Daemon::start(&script("web", "exit 0", ""));
    for _ in 0..30 {
        let uuid = daemon.execute("web").uuid;
        // As soon as the process has ended, whether or not the daemon has looked for what it left.
        let view = daemon.wait_for("web", |view| view.pid.is_none());
        assert_eq!(view.uuid, Some(uuid));
    }
    assert_eq!(daemon.metric("procman_process_starts_total", &["name=\"web\""]), Some(30.0));
}
