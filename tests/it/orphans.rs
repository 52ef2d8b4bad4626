//! Orphans come to the daemon, are reaped by it, and end with their run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procman::procfs::Table;
use procman::protocol::reply::{NamedProcess, View};
use procman::protocol::{Cause, StateName};
use serde_json::json;

use super::harness::{Daemon, Setup, is_alive, pause, stat_of, until};

#[test]
fn no_zombie_of_the_daemon_outlives_a_second() {
    // A hundred double-forked processes that exit at once, beside a main that lives on.
    let script = "for i in $(seq 100); do (true &); done; echo done; exec sleep 1000";
    let daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/out'\n"));
    daemon.execute("web");
    daemon.lines("out", 1);
    let began = Instant::now();
    loop {
        let table = Table::scan().unwrap();
        let zombies: Vec<u32> = table.children_of(daemon.pid()).filter(|stat| stat.is_zombie()).map(|stat| stat.pid).collect();
        if zombies.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "zombies of the daemon: {zombies:?}");
        pause();
    }
    // Whether a process was ended by its parent or came here first is a race, but of a hundred some came.
    assert!(daemon.metric("procman_orphans_reaped_total", &[]).unwrap() > 0.0);
}

#[test]
fn the_daemon_reaps_behind_a_main_that_ended_first() {
    // Mains and orphans end in every order, many at a time.
    let script = "(sleep 0.0$(($$ % 7)) &); (true &); exit 0";
    let process = |i: usize| format!("[[process]]\nname = 'p{i}'\ncmd = ['sh', '-c', '{script}']\n");
    let daemon = Daemon::start(&(0..30).map(process).collect::<String>());
    for _ in 0..3 {
        let _: serde_json::Value = daemon.call("restart", json!({"all": true}));
        for i in 0..30 {
            let view = daemon.wait_for_state(&format!("p{i}"), StateName::Exited);
            assert_eq!((view.returncode, view.cause), (Some(0), Some(Cause::Exit)), "nobody else has reaped it");
        }
    }
    until("the daemon has no child left", || (Table::scan().unwrap().children_of(daemon.pid()).count() == 0).then_some(()));
}

#[test]
fn when_the_main_ends_what_it_leaves_is_ended_too() {
    let script = "(setsid sh -c \"echo \\$\\$; exec sleep 1000\" &); while [ ! -s {dir}/pid ]; do sleep 0.01; done; exit 5";
    let daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/pid'\n"));
    daemon.execute("web");
    let orphan = daemon.lines("pid", 1)[0].parse().unwrap();
    let view = daemon.wait_for_state("web", StateName::Exited);
    assert_eq!((view.returncode, view.cause), (Some(5), Some(Cause::Exit)), "its own end counts");
    assert!(!is_alive(orphan), "the descendant is gone when it is exited");
}

#[test]
fn an_orphan_of_one_run_is_not_taken_for_anothers() {
    let script = "(setsid sh -c \"echo \\$\\$; exec sleep 1000\" &); exec sleep 1000";
    let process = |name: &str| format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', '{script}']\nstdout = 'file:{{dir}}/{name}'\n");
    let daemon = Daemon::start(&[process("a"), process("b")].concat());
    let (a, b) = (daemon.execute("a").pid, daemon.execute("b").pid);
    let orphan = |name: &str| {
        let pid = daemon.lines(name, 1)[0].parse().unwrap();
        until("it came to the daemon", || (stat_of(pid)?.ppid == daemon.pid()).then_some(pid))
    };
    let (of_a, of_b) = (orphan("a"), orphan("b"));
    daemon.quit("a");
    assert_eq!([a, of_a, b, of_b].map(is_alive), [false, false, true, true]);
    daemon.quit("b");
    assert_eq!([b, of_b].map(is_alive), [false, false]);
}

#[test]
fn a_daemon_below_a_daemon_keeps_its_own_orphans_and_ends_with_the_outer_one() {
    let inner = "[daemon]\nstate_dir = 'inner'\nruntime_dir = 'inner'\n[metrics]\nlisten = ''\n[[process]]\nname = 'deep'\nautostart = true\n\
                 cmd = ['sh', '-c', '(setsid sh -c \"echo \\$\\$; exec sleep 1000\" &); exec sleep 1000']\nstdout = 'file:{dir}/orphan'\n";
    let setup = Setup::new("");
    let config = setup.dir().join("inner.toml");
    std::fs::write(&config, inner.replace("{dir}", setup.dir().to_str().unwrap())).unwrap();
    let daemon = setup.start();
    let command = json!([env!("CARGO_BIN_EXE_procmand"), "--config", config]);
    let _: View = daemon.call("register", json!({"name": "inner", "cmd": command, "stop_timeout": 20}));
    let inner = daemon.execute("inner").pid;
    let orphan: u32 = daemon.lines("orphan", 1)[0].parse().unwrap();
    until("the orphan came to the inner daemon", || (stat_of(orphan)?.ppid == inner).then_some(()));
    assert!(daemon.wait_for_children("inner", 2, "sleep").contains(&orphan));
    let ended = daemon.quit("inner");
    assert_eq!((ended.survivors, ended.returncode, ended.killed.len()), (0, Some(0), 0));
    assert_eq!(daemon.relatives(), [daemon.pid()]);
}

#[test]
fn zombies_of_the_whole_host_are_listed() {
    let daemon = Daemon::start("");
    // A child of this test, which does not wait for it until the end.
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    until("it is a zombie", || stat_of(pid).unwrap().is_zombie().then_some(()));
    let zombies: Vec<NamedProcess> = daemon.call("zombies", json!({}));
    let zombie = zombies.iter().find(|zombie| zombie.pid == pid);
    assert_eq!(zombie, Some(&NamedProcess { pid, name: "true".into(), cmdline: vec![] }));
    assert!(zombies.is_sorted_by_key(|zombie| zombie.pid));
    child.wait().unwrap();
    let zombies: Vec<NamedProcess> = daemon.call("zombies", json!({}));
    assert!(zombies.iter().all(|zombie| zombie.pid != pid));
}
