//! A full disk stops no process and no daemon. It is a small tmpfs that only the daemon of the test sees.

use std::process::{Command, Stdio};

use procman::protocol::StateName;

use super::harness::{Daemon, Setup, until};

/// A daemon whose state directory is a tmpfs of 16 MiB; none where this user may not mount one.
fn daemon_on_a_small_disk(processes: &str) -> Option<Daemon> {
    let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: this user may not mount a file system in a namespace of its own");
        return None;
    }
    let setup = Setup::new(processes);
    std::fs::create_dir(setup.dir().join("state")).unwrap();
    let mount = "mount -t tmpfs -o size=16m,mode=750 tmpfs {dir}/state && exec \"$0\" \"$@\"";
    Some(setup.wrapped(&["unshare", "-m", "sh", "-c", mount]).start())
}

#[test]
fn a_full_disk_stops_nobody_is_told_and_heals() {
    let processes =
        "[[process]]\nname = 'web'\ncmd = ['while :; do echo tick; sleep 0.05; done']\nshell = true\nstdout = 'log'\nautostart = true\n
        [[process]]\nname = 'old'\ncmd = ['seq', '1', '600000']\nstdout = 'log'\nlog = { max_size = '256K', keep = 3, compress = false }\n
        [[process]]\nname = 'fill'\ncmd = ['dd', 'if=/dev/zero', 'of={dir}/state/fill', 'bs=64k']\nstderr = 'null'\n
        [[process]]\nname = 'empty'\ncmd = ['rm', '{dir}/state/fill']\n";
    let Some(daemon) = daemon_on_a_small_disk(processes) else { return };
    let pid = daemon.wait_for("web", |view| view.pid.is_some()).pid;
    daemon.execute("old");
    daemon.wait_for_state("old", StateName::Exited);
    until("there are parts", || daemon.metric("procman_log_rotations_total", &[]).is_some_and(|count| count >= 3.0).then_some(()));
    assert_eq!(daemon.metric("procman_log_disk_full", &[]), Some(0.0));
    assert_eq!(daemon.view("web").log_problem, None);

    daemon.execute("fill");
    daemon.wait_for_state("fill", StateName::Exited);
    let view = daemon.wait_for("web", |view| view.log_problem.is_some());
    assert!(view.log_problem.is_some_and(|problem| problem.contains("disk is full") && problem.contains("state/logs")));
    assert_eq!(daemon.metric("procman_log_disk_full", &[]), Some(1.0));
    daemon.wait_for_log("the disk of the logs is full");
    let oldest =
        |daemon: &Daemon| daemon.call::<procman::protocol::reply::LogLines>("logs", serde_json::json!({"name": "old", "offset": 0}));
    until("the oldest parts were given up", || oldest(&daemon).truncated.then_some(()));
    assert_eq!((daemon.view("web").pid, daemon.view("web").state), (pid, StateName::Running));

    daemon.execute("empty");
    daemon.wait_for("web", |view| view.log_problem.is_none());
    assert_eq!(daemon.metric("procman_log_disk_full", &[]), Some(0.0));
    assert_eq!(daemon.view("web").pid, pid);
    let last = || daemon.call::<procman::protocol::reply::LogLines>("logs", serde_json::json!({"name": "web", "lines": 0})).offset;
    let before = last();
    until("new lines come", || (last() > before).then_some(()));
}
