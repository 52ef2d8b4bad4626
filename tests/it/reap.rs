//! `reap`, `signal`, `children` and `restart` on a tree.

use std::collections::BTreeSet;

use procman::protocol::StateName;
use procman::protocol::reply::{Ended, Executed, NamedProcess, Signalled};
use serde_json::json;

use super::harness::{Daemon, is_alive, stat_of, until};

/// A main with a child and an orphan in a session of its own, which ignores SIGTERM; the PIDs of both are written down.
const FAMILY: &str = "\
[[process]]
name = 'web'
cmd = ['sh', '-c', '''
sleep 1000 & echo $!
(setsid sh -c \"trap \\\"\\\" TERM; echo \\$\\$; exec sleep 2000\" &)
wait
exec sleep 3000
''']
stdout = 'file:{dir}/pids'
";

/// Starts the family; its main, its child and its orphan.
#[track_caller]
fn start_family(daemon: &Daemon) -> (Executed, u32, u32) {
    let executed = daemon.execute("web");
    let pids: Vec<u32> = daemon.lines("pids", 2).iter().map(|line| line.parse().unwrap()).collect();
    let argument = |pid: u32| procman::procfs::read_cmdline(pid).unwrap_or_default().get(1).cloned().unwrap_or_default();
    assert_eq!(daemon.wait_for_children("web", 2, "sleep").into_iter().collect::<BTreeSet<_>>(), pids.iter().copied().collect());
    let (child, orphan) = if argument(pids[0]) == "1000" { (pids[0], pids[1]) } else { (pids[1], pids[0]) };
    assert_eq!(stat_of(orphan).unwrap().ppid, daemon.pid());
    (executed, child, orphan)
}

#[test]
fn reap_ends_the_whole_tree() {
    let daemon = Daemon::start(FAMILY);
    let (Executed { pid, .. }, child, orphan) = start_family(&daemon);
    let ended: Ended = daemon.call("reap", json!({"name": "web", "timeout": 0.2}));
    assert_eq!((ended.survivors, ended.killed.as_slice()), (0, &[orphan][..]));
    assert_eq!(ended.terminated.iter().copied().collect::<BTreeSet<_>>(), [pid, child].into());
    assert_eq!((ended.returncode, daemon.view("web").state), (Some(-15), StateName::Stopped));
    assert!(stat_of(pid).is_none() && !is_alive(child) && !is_alive(orphan));
    until("the orphans are reaped", || [child, orphan].iter().all(|pid| stat_of(*pid).is_none()).then_some(()));
}

#[test]
fn reap_of_the_children_leaves_the_main_alone() {
    let daemon = Daemon::start(FAMILY);
    let (Executed { pid, uuid, .. }, child, orphan) = start_family(&daemon);
    let ended: Ended = daemon.call("reap", json!({"name": "web", "timeout": 0.2, "children_only": true}));
    assert_eq!((ended.survivors, ended.terminated.as_slice(), ended.killed.as_slice()), (0, &[child][..], &[orphan][..]));
    assert_eq!((ended.returncode, ended.signal), (None, None), "the main runs on");
    assert!(is_alive(pid) && !is_alive(child) && !is_alive(orphan));
    let view = daemon.view("web");
    assert_eq!((view.state, view.pid, view.uuid), (StateName::Running, Some(pid), Some(uuid)));
    assert_eq!(daemon.call::<Vec<NamedProcess>>("children", json!({"name": "web"})), []);
}

#[test]
fn reap_of_what_does_not_run_finds_nothing() {
    let daemon = Daemon::start(FAMILY);
    for children_only in [false, true] {
        let ended: Ended = daemon.call("reap", json!({"name": "web", "children_only": children_only}));
        assert_eq!((ended.survivors, ended.returncode, ended.terminated.len() + ended.killed.len()), (0, None, 0));
    }
}

#[test]
fn all_descendants_are_children() {
    let daemon = Daemon::start(FAMILY);
    let (Executed { pid, .. }, child, orphan) = start_family(&daemon);
    let children: Vec<NamedProcess> = daemon.call("children", json!({"name": "web"}));
    let pids: Vec<u32> = children.iter().map(|child| child.pid).collect();
    assert!(pids.is_sorted() && !pids.contains(&pid));
    assert_eq!(pids.iter().copied().collect::<BTreeSet<_>>(), [child, orphan].into(), "the orphan too");
    assert_eq!(children.iter().find(|it| it.pid == orphan).unwrap().cmdline, ["sleep", "2000"]);
    daemon.quit("web");
    assert_eq!(daemon.call::<Vec<NamedProcess>>("children", json!({"name": "web"})), []);
}

#[test]
fn a_signal_goes_to_the_main_or_to_the_tree() {
    let script =
        "trap \"echo $1 usr1\" USR1; [ $1 = main ] && sh -c \"$0\" \"$0\" child & echo $1 up; while :; do sleep 1000 & wait $!; done";
    let daemon = Daemon::start(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', '''{script}''']\nargs = ['''{script}''', 'main']\nstdout = 'file:{{dir}}/out'\n"
    ));
    let pid = daemon.execute("web").pid;
    daemon.lines("out", 2);
    for (lines, signal) in [(3, json!("USR1")), (4, json!("SIGUSR1")), (5, json!(libc::SIGUSR1))] {
        let signalled: Signalled = daemon.call("signal", json!({"name": "web", "signal": signal}));
        assert_eq!((signalled.name.as_str(), signalled.signalled.as_slice()), ("web", &[pid][..]));
        assert_eq!(daemon.lines("out", lines)[lines - 1], "main usr1");
    }
    // STOP, so that those who do not know USR1 (the sleeps) take no harm.
    let signalled: Signalled = daemon.call("signal", json!({"name": "web", "signal": "STOP", "tree": true}));
    assert!(signalled.signalled.len() >= 4 && signalled.signalled.contains(&pid), "{signalled:?}");
    let stopped = |pid: &u32| stat_of(*pid).is_some_and(|stat| stat.state == b'T');
    until("all are stopped", || signalled.signalled.iter().all(stopped).then_some(()));
    let _: Signalled = daemon.call("signal", json!({"name": "web", "signal": "CONT", "tree": true}));
    until("all go on", || (!signalled.signalled.iter().any(stopped)).then_some(()));
    assert_eq!(daemon.view("web").state, StateName::Running);
}

#[test]
fn a_signal_that_ends_it_is_no_quit() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nrestart = 'always'\nbackoff = { initial = 0 }\n");
    let first = daemon.execute("web");
    let _: Signalled = daemon.call("signal", json!({"name": "web", "signal": "KILL"}));
    let view = daemon.wait_for("web", |view| view.restarts == 1 && view.state == StateName::Running);
    assert!(view.uuid != Some(first.uuid) && view.pid != Some(first.pid));
}

#[test]
fn a_restart_is_a_new_run_with_the_whole_old_tree_gone() {
    let daemon = Daemon::start(&FAMILY.replace("name = 'web'", "name = 'web'\nstop_timeout = 0.2"));
    let (first, child, orphan) = start_family(&daemon);
    let second: Executed = daemon.call("restart", json!({"name": "web"}));
    assert!(first.pid != second.pid && first.uuid != second.uuid);
    assert!([first.pid, child, orphan].iter().all(|pid| !is_alive(*pid)));
    let view = daemon.view("web");
    assert_eq!((view.pid, view.uuid, view.restarts), (Some(second.pid), Some(second.uuid), 0), "nobody but the caller restarted it");
    // What does not run is simply started.
    daemon.quit("web");
    let third: Executed = daemon.call("restart", json!({"name": "web"}));
    assert_eq!(daemon.view("web").pid, Some(third.pid));
}
