//! What is told of runs that have ended.

use procman::protocol::reply::{Executed, PastRun};
use procman::protocol::{Cause, EndedBy, ErrorCode, Origin, StateName};
use serde_json::{Value, json};

use super::harness::{Daemon, until};

fn history(daemon: &Daemon, arguments: Value) -> Vec<PastRun> {
    daemon.call("history", arguments)
}

/// The last run of one.
#[track_caller]
fn last(daemon: &Daemon, name: &str) -> PastRun {
    history(daemon, json!({"name": name, "limit": 1})).pop().unwrap_or_else(|| panic!("no run of {name}"))
}

/// Starts one that ends by itself, and waits until it has.
#[track_caller]
fn run(daemon: &Daemon, name: &str, args: &[&str]) -> (Executed, PastRun) {
    let started: Executed = daemon.call("execute", json!({"name": name, "args": args}));
    daemon.wait_for(name, |view| view.pid.is_none() && view.state != StateName::Stopping);
    let run = last(daemon, name);
    assert_eq!((run.uuid.as_str(), run.pid), (started.uuid.as_str(), Some(started.pid)));
    (started, run)
}

#[test]
fn an_end_is_told_with_how_and_by_whom() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'sh'\ncmd = ['sh', '-c']\ncwd = '{dir}'\n\
         [[process]]\nname = 'nap'\ncmd = ['sleep', '1000']\nautostart = true\n\
         [[process]]\nname = 'bad'\ncmd = ['/nonexistent/program']\n",
    );
    assert_eq!(history(&daemon, json!({"name": "sh"})), [], "it is registered and never ran");

    let (_, exited) = run(&daemon, "sh", &["exit 3"]);
    assert_eq!((exited.returncode, exited.signal, exited.cause, exited.core_dump), (Some(3), None, Cause::Exit, false));
    assert_eq!((exited.started_by, exited.ended_by, exited.args.clone()), (Origin::Execute, EndedBy::Itself, vec!["exit 3".to_owned()]));
    assert!(exited.ended_at >= exited.started_at && exited.duration >= 0.0 && exited.message.is_none(), "{exited:?}");

    let (_, killed) = run(&daemon, "sh", &["kill -KILL $$"]);
    assert_eq!((killed.returncode, killed.signal, killed.cause, killed.core_dump), (Some(-9), Some(9), Cause::Signal, false));

    // Whether a core is dumped is the host's business; that it is told rightly is ours.
    let (_, dumped) = run(&daemon, "sh", &["ulimit -c unlimited; kill -ABRT $$"]);
    assert_eq!((dumped.returncode, dumped.signal), (Some(-6), Some(6)));
    assert_eq!(dumped.cause, if dumped.core_dump { Cause::CoreDump } else { Cause::Signal });

    let error = daemon.refusal("execute", json!({"name": "bad"}));
    let failed = last(&daemon, "bad");
    assert_eq!((failed.pid, failed.returncode, failed.cause, failed.duration), (None, None, Cause::SpawnFailed, 0.0));
    assert!(error.message.contains(failed.message.as_deref().unwrap()), "{failed:?} {error:?}");
    assert_eq!(daemon.view("bad").message, failed.message);

    let of_nap = |how: &str, arguments: Value| {
        drop(daemon.call::<Value>(how, arguments));
        last(&daemon, "nap")
    };
    let first = of_nap("quit", json!({"name": "nap"}));
    assert_eq!((first.started_by, first.ended_by, first.cause, first.signal), (Origin::Autostart, EndedBy::Quit, Cause::Quit, Some(15)));
    daemon.execute("nap");
    assert_eq!(of_nap("reap", json!({"name": "nap"})).ended_by, EndedBy::Reap);
    daemon.execute("nap");
    let restarted = of_nap("restart", json!({"name": "nap"}));
    assert_eq!((restarted.started_by, restarted.ended_by), (Origin::Execute, EndedBy::Restart));
    let unregistered = of_nap("unregister", json!({"name": "nap"}));
    assert_eq!((unregistered.started_by, unregistered.ended_by), (Origin::Restart, EndedBy::Unregister));

    // All together, newest first; what was unregistered is still known, what never was is not.
    let all = history(&daemon, json!({}));
    let names: Vec<&str> = all.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["nap", "nap", "nap", "nap", "bad", "sh", "sh", "sh"]);
    assert!(all.is_sorted_by(|a, b| a.ended_at >= b.ended_at));
    assert_eq!(history(&daemon, json!({"limit": 2})), all[..2]);
    assert_eq!(history(&daemon, json!({"name": "nap", "limit": 0})), []);
    assert_eq!(daemon.refusal("history", json!({"name": "nobody"})).code, ErrorCode::NotFound);
    daemon.stop();
}

#[test]
fn what_the_policy_starts_is_told_as_such_and_the_number_is_bounded() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'loop'\ncmd = ['true']\nrestart = 'always'\nbackoff = { initial = 0.0, max = 0.0 }\nstart_limit = { count = 0 }\n",
    );
    daemon.execute("loop");
    daemon.wait_for("loop", |view| view.restarts >= 120);
    let view = daemon.call::<Value>("quit", json!({"name": "loop"}));
    let runs = history(&daemon, json!({"name": "loop", "limit": 1000}));
    assert_eq!(runs.len(), 100, "{view}");
    assert!(runs.iter().all(|run| run.started_by == Origin::Policy), "the first was pushed out");
    daemon.execute("loop");
    let first = until("its end", || history(&daemon, json!({"name": "loop"})).into_iter().find(|run| run.started_by == Origin::Execute));
    assert_eq!(first.cause, Cause::Exit);
    daemon.stop();
}

#[test]
fn procmanctl_shows_it() {
    let daemon = Daemon::start("[[process]]\nname = 'sh'\ncmd = ['sh', '-c', 'exit 3']\n");
    run(&daemon, "sh", &[]);
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    let output = program.args(["history", "sh", "-n", "5"]).env("PROCMAN_ENDPOINT", daemon.endpoint()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && out.starts_with("NAME") && out.lines().nth(1).unwrap().contains("exit 3"), "{out}");
    daemon.stop();
}
