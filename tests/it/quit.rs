//! Stopped means the whole tree is gone.

use std::collections::BTreeSet;

use procman::protocol::reply::{Ended, View};
use procman::protocol::{Cause, ErrorCode, StateName, Wanted};
use serde_json::json;

use super::harness::{Daemon, Peer, frame, is_alive, pause, stat_of, until, value_of};

/// A process that takes its end only from SIGKILL; it says "up" once it does.
const STUBBORN: &str =
    "[[process]]\nname = 'stubborn'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']\nstdout = 'file:{dir}/up'\n";

/// The PIDs that a script wrote down, one a line.
fn pids(lines: &[String]) -> BTreeSet<u32> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_single_process_ends_with_the_signal() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    let pid = daemon.execute("web").pid;
    let ended = daemon.quit("web");
    let expected = Ended {
        name: "web".parse().unwrap(),
        survivors: 0,
        returncode: Some(-15),
        signal: Some(15),
        terminated: vec![pid],
        killed: vec![],
    };
    assert_eq!(ended, expected);
    assert!(stat_of(pid).is_none(), "gone and reaped when quit answers");
    let view = daemon.view("web");
    assert_eq!((view.state, view.wanted, view.cause, view.pid), (StateName::Stopped, Wanted::Down, Some(Cause::Quit), None));
    let again = daemon.quit("web");
    assert_eq!((again.survivors, again.returncode, again.terminated), (0, Some(-15), vec![]), "the last one's code");
}

#[test]
fn it_ends_with_the_signal_and_the_time_of_its_definition() {
    let script = "trap \"echo int; exit 7\" INT; echo up; while :; do sleep 1000 & wait; done";
    let daemon = Daemon::start(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/out'\nstop_signal = 'INT'\n"
    ));
    daemon.execute("web");
    daemon.lines("out", 1);
    let ended = daemon.quit("web");
    assert_eq!((ended.returncode, ended.signal, ended.survivors), (Some(7), None, 0));
    assert_eq!(daemon.lines("out", 2), ["up", "int"]);
}

#[test]
fn what_ignores_the_signal_is_killed_after_its_time() {
    let daemon = Daemon::start(STUBBORN);
    let pid = daemon.execute("stubborn").pid;
    daemon.lines("up", 1);
    let began = std::time::Instant::now();
    let ended: Ended = daemon.call("quit", json!({"name": "stubborn", "timeout": 0.3}));
    assert!(began.elapsed().as_secs_f64() >= 0.3);
    assert_eq!((ended.returncode, ended.killed, ended.terminated, ended.survivors), (Some(-9), vec![pid], vec![], 0));
    assert_eq!(daemon.view("stubborn").cause, Some(Cause::Quit), "it was asked for");
}

#[test]
fn fifty_daemons_that_ignore_sigterm_are_gone_when_quit_answers() {
    // Each is forked twice, leads a session of its own, and ignores SIGTERM as its parent does.
    let script = "trap \"\" TERM; for i in $(seq 50); do (setsid sh -c \"echo \\$\\$; exec sleep 1000\" &); done; exec sleep 1000";
    let daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/pids'\n"));
    let main = daemon.execute("web").pid;
    let mut all = pids(&daemon.lines("pids", 50));
    assert_eq!(all.len(), 50);
    until("they are orphans in sessions of their own", || {
        all.iter().all(|pid| stat_of(*pid).is_some_and(|stat| stat.ppid == daemon.pid() && stat.session == *pid as i32)).then_some(())
    });
    all.insert(main);
    until("each is its program", || all.iter().all(|pid| stat_of(*pid).unwrap().name() == "sleep").then_some(()));

    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0.2}));
    assert_eq!(ended.survivors, 0);
    let alive: Vec<u32> = all.iter().copied().filter(|pid| is_alive(*pid)).collect();
    assert!(alive.is_empty(), "alive after quit has answered: {alive:?}");
    assert_eq!(ended.killed.iter().copied().collect::<BTreeSet<_>>(), all);
    assert!(ended.terminated.is_empty(), "{:?}", ended.terminated);
}

#[test]
fn a_stopped_process_ends_too() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'sleep 1000 & echo $!; wait']\nstdout = 'file:{dir}/pids'\n");
    let main = daemon.execute("web").pid;
    let child = daemon.lines("pids", 1)[0].parse().unwrap();
    let _: serde_json::Value = daemon.call("signal", json!({"name": "web", "signal": "STOP", "tree": true}));
    until("both are stopped", || [main, child].iter().all(|pid| stat_of(*pid).unwrap().state == b'T').then_some(()));
    let ended = daemon.quit("web");
    assert_eq!((ended.returncode, ended.survivors), (Some(-15), 0), "SIGTERM alone would be left pending");
    assert_eq!(ended.terminated.iter().copied().collect::<BTreeSet<_>>(), [main, child].into());
}

#[test]
fn a_tree_that_forks_while_it_is_killed_is_gone() {
    // A breeder ignores SIGTERM and forks as fast as it can; what it forks ignores it too, and leads sessions of its own.
    let script =
        "trap \"\" TERM; i=0; while [ $i -lt 2000 ]; do (setsid sleep 1000 &); i=$((i + 1)); [ $i = 20 ] && echo up; done; sleep 1000";
    let daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/up'\n"));
    daemon.execute("web");
    daemon.lines("up", 1);
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0}));
    assert_eq!(ended.survivors, 0);
    assert!(ended.killed.len() > 20, "{}", ended.killed.len());
    assert_eq!(daemon.relatives(), [daemon.pid()], "nothing but the daemon is left");
}

#[test]
fn a_process_that_moves_on_by_forking_is_caught() {
    // At every moment one process that forks its successor and exits; each lives for some milliseconds.
    let hop = "trap \"\" TERM; echo hop; n=$(($1 + 1)); [ $n -lt 5000 ] && { sleep 0.002; sh -c \"$0\" \"$0\" $n & }";
    let daemon = Daemon::start(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'sh -c \"$0\" \"$0\" 0 & exec sleep 1000', '''{hop}''']\nstdout = 'file:{{dir}}/hops'\n"
    ));
    daemon.execute("web");
    daemon.lines("hops", 10);
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0}));
    assert_eq!(ended.survivors, 0);
    assert_eq!(daemon.relatives(), [daemon.pid()], "it hops on");
}

#[test]
fn a_process_that_moves_on_faster_than_anybody_looks_is_not_called_gone() {
    // It forks and exits some hundred times a second, for five seconds. Whether it is caught is luck; when nothing is said to be left, nothing is.
    let hop = "$SIG{TERM} = \"IGNORE\"; $end = time + 5; while (time < $end) { select undef, undef, undef, 0.001; exit if fork }";
    let daemon =
        Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'perl -e \"$0\" & exec sleep 1000', '''{hop}''']\n"));
    daemon.execute("web");
    until("it moves on", || (daemon.metric("procman_orphans_reaped_total", &[])? > 10.0).then_some(()));
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0}));
    let left = daemon.relatives();
    assert!(ended.survivors > 0 || left == [daemon.pid()], "no survivors were told of, and these are left: {left:?}");
    until("it has ended", || (daemon.relatives() == [daemon.pid()]).then_some(()));
    daemon.wait_for_state("web", StateName::Stopped);
}

#[test]
fn processes_without_its_environment_end_with_it() {
    // Neither bears the marker: a child, and an orphan in the session of the main.
    let script = "env -i sh -c \"echo \\$\\$; exec sleep 1000\" & (env -i sh -c \"echo \\$\\$; exec sleep 1000\" &); exec sleep 1000";
    let daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/pids'\n"));
    daemon.execute("web");
    let bare = pids(&daemon.lines("pids", 2));
    assert_eq!(daemon.wait_for_children("web", 2, "sleep").into_iter().collect::<BTreeSet<_>>(), bare);
    let ended = daemon.quit("web");
    assert_eq!((ended.survivors, ended.terminated.len()), (0, 3));
    assert!(bare.iter().all(|pid| !is_alive(*pid)), "{bare:?}");
}

#[test]
fn a_second_quit_can_only_shorten_the_first() {
    let daemon = Daemon::start(STUBBORN);
    daemon.execute("stubborn");
    daemon.lines("up", 1);
    let waiting = Peer::connect(zmq::REQ, &daemon.endpoint());
    waiting.send(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 600}))]);
    daemon.wait_for_state("stubborn", StateName::Stopping);
    // A longer time does not lengthen it, a shorter one ends both.
    let other = Peer::connect(zmq::REQ, &daemon.endpoint());
    other.send(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 1200}))]);
    let ended: Ended = daemon.call("quit", json!({"name": "stubborn", "timeout": 0}));
    assert_eq!((ended.survivors, ended.killed.len()), (0, 1));
    let heard = |peer: Peer| serde_json::from_value::<Ended>(value_of(&peer.receive()[0])["result"].clone()).unwrap();
    assert_eq!(heard(waiting), ended, "all hear the same");
    // Nobody says which of two clients comes first: the other one may have come when all was over.
    let other = heard(other);
    assert!(other == ended || other == Ended { killed: vec![], ..ended.clone() }, "{other:?}");
}

#[test]
fn a_quit_ends_the_back_off() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'exit 3']\nrestart = 'always'\nbackoff = { initial = 600, max = 600 }\n",
    );
    daemon.execute("web");
    let view = daemon.wait_for_state("web", StateName::Backoff);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let due = view.next_start_at.unwrap() - now;
    assert!((500.0..=661.0).contains(&due), "in {due} s: 600 with a jitter of a tenth");
    assert_eq!((view.wanted, view.returncode), (Wanted::Up, Some(3)));
    let ended = daemon.quit("web");
    assert_eq!((ended.survivors, ended.returncode), (0, Some(3)));
    let view = daemon.view("web");
    assert_eq!((view.state, view.wanted, view.next_start_at), (StateName::Stopped, Wanted::Down, None));
}

#[test]
fn what_was_quit_is_never_restarted() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nrestart = 'always'\nbackoff = { initial = 0, jitter = 0 }\nstart_limit = { count = 0 }\n\
         [[process]]\nname = 'clock'\ncmd = ['sleep', '0.05']\nrestart = 'always'\nbackoff = { initial = 0, jitter = 0 }\nstart_limit = { count = 0 }\n",
    );
    let executed = daemon.execute("web");
    daemon.quit("web");
    let starts = daemon.metric("procman_process_starts_total", &["name=\"web\""]);
    assert_eq!(starts, Some(1.0));
    // Not a time but a fact is waited for: another one with the same policy was restarted several times meanwhile.
    daemon.execute("clock");
    daemon.wait_for("clock", |view| view.restarts >= 5);
    let view = daemon.view("web");
    assert_eq!((view.state, view.restarts, view.uuid), (StateName::Stopped, 0, Some(executed.uuid)));
    assert_eq!(daemon.metric("procman_process_starts_total", &["name=\"web\""]), starts);
    daemon.quit("clock");
    let starts = daemon.metric("procman_process_starts_total", &["name=\"clock\""]);
    for _ in 0..20 {
        pause();
        assert_eq!(daemon.view("clock").state, StateName::Stopped);
    }
    assert_eq!(daemon.metric("procman_process_starts_total", &["name=\"clock\""]), starts);
}

#[test]
fn a_quit_of_a_start_that_is_overtaken_is_told_to_both() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    // Whichever comes first: at the end it is down, and each of the two has its answer.
    for _ in 0..20 {
        let starting = Peer::connect(zmq::REQ, &daemon.endpoint());
        starting.send(&[frame(&json!({"command": "execute", "name": "web"}))]);
        let quitting = Peer::connect(zmq::REQ, &daemon.endpoint());
        let quit = quitting.ask(&[frame(&json!({"command": "quit", "name": "web"}))]);
        assert_eq!(quit["success"], true, "{quit}");
        let started = value_of(&starting.receive()[0]);
        assert!(started["success"] == true || started["error"]["code"] == ErrorCode::NotRunning.as_str(), "{started}");
        let view: View = daemon.view("web");
        if view.state != StateName::Stopped {
            assert_eq!(view.state, StateName::Running, "the start came second");
            daemon.quit("web");
        }
    }
}
