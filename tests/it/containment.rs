//! A control group for each run: what no process gets out of by forking. Where the host, or the pass of the tests, has none, most of these say so and
//! prove nothing.

use std::fs;
use std::path::PathBuf;

use procman::protocol::reply::{Ended, NamedProcess, View};
use procman::protocol::{Cause, StateName};
use procman::sys::cgroup::Hierarchy;
use serde_json::json;

use super::harness::{Daemon, Setup, is_alive, is_root, until};

/// A daemon with these `[[process]]` tables, if its runs have groups.
#[track_caller]
fn contained(processes: &str) -> Option<Daemon> {
    contained_as(Setup::new(processes))
}

#[track_caller]
fn contained_as(setup: Setup) -> Option<Daemon> {
    let daemon = setup.start();
    if daemon.info().capabilities.cgroup {
        return Some(daemon);
    }
    eprintln!("skipped: this daemon has no control groups, see its log for the reason:\n{}", daemon.read("log"));
    None
}

/// A main that leaves a process which nothing but its group tells of: an orphan in a session of its own, without an environment, that ignores SIGTERM.
/// It writes its PID to `{dir}/pid`; then the main goes on as `then` says.
fn with_stranger(then: &str) -> String {
    let stranger = "trap \"\" TERM; echo \\$\\$; exec sleep 1000";
    let script = format!("(setsid env -i sh -c '{stranger}' > {{dir}}/pid &); while [ ! -s {{dir}}/pid ]; do sleep 0.01; done; {then}");
    format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '''{}''']\n", script.replace("\\$", "$"))
}

/// Waits until the stranger is the daemon's child, and returns its PID.
#[track_caller]
fn stranger(daemon: &Daemon) -> u32 {
    let pid = daemon.lines("pid", 1)[0].parse().unwrap();
    until("it is an orphan and sleeps", || {
        let stat = super::harness::stat_of(pid)?;
        (stat.ppid == daemon.pid()
            && stat.name() == "sleep"
            && !String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap()).contains("PROCMAN"))
        .then_some(())
    });
    pid
}

#[test]
fn what_gave_everything_away_is_found_and_ended() {
    let Some(daemon) = contained(&with_stranger("exec sleep 1000")) else { return };
    let main = daemon.execute("web").pid;
    let stranger = stranger(&daemon);
    assert_eq!(daemon.wait_for_children("web", 1, "sleep"), [stranger], "it is a descendant like any other");
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0.2}));
    assert!(!is_alive(stranger), "alive after quit has answered");
    assert_eq!((ended.survivors, ended.terminated, ended.killed), (0, vec![main], vec![stranger]));
}

#[test]
fn what_the_main_leaves_ends_with_it_whatever_it_gave_away() {
    let Some(daemon) = contained(&(with_stranger("exit 5") + "stop_timeout = 0.2\n")) else { return };
    daemon.execute("web");
    let view = daemon.wait_for_state("web", StateName::Exited);
    assert_eq!((view.returncode, view.cause), (Some(5), Some(Cause::Exit)));
    assert!(!is_alive(daemon.lines("pid", 1)[0].parse().unwrap()));
}

#[test]
fn reaping_its_children_reaps_those_too() {
    let Some(daemon) = contained(&with_stranger("exec sleep 1000")) else { return };
    let main = daemon.execute("web").pid;
    let stranger = stranger(&daemon);
    let ended: Ended = daemon.call("reap", json!({"name": "web", "children_only": true, "timeout": 0.2}));
    assert_eq!((ended.survivors, ended.killed), (0, vec![stranger]));
    assert!(is_alive(main) && !is_alive(stranger));
}

#[test]
fn what_forks_faster_than_anybody_looks_is_gone() {
    // Thirty processes, each of which is replaced by a child in a session of its own some hundred times a second.
    let script = "use POSIX; $SIG{TERM} = \"IGNORE\"; for (1..30) { next if fork; $end = time + 30; while (time < $end) { \
                  select undef, undef, undef, 0.001; exit if fork; setsid } exit } open F, \">{dir}/up\"; print F \"up\\n\"; close F; sleep 1000";
    let Some(daemon) = contained(&format!("[[process]]\nname = 'web'\ncmd = ['perl', '-e', '''{script}''']\n")) else { return };
    daemon.execute("web");
    daemon.lines("up", 1);
    until("they move on", || (daemon.metric("procman_orphans_reaped_total", &[])? > 50.0).then_some(()));
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0}));
    assert_eq!(ended.survivors, 0);
    assert_eq!(daemon.relatives(), [daemon.pid()], "nothing but the daemon is left");
}

#[test]
fn each_run_has_a_group_as_long_as_it_lives() {
    let Some(daemon) = contained("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n") else { return };
    let pid = daemon.execute("web").pid;
    let group = daemon.group_of("web");
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), format!("{pid}\n"), "it is there from its first instruction");
    let _: serde_json::Value = daemon.call("restart", json!({"name": "web"}));
    let next = daemon.group_of("web");
    assert!(next.exists() && next != group);
    until("the former group is removed", || (!group.exists()).then_some(()));
    daemon.quit("web");
    until("this one too", || (!next.exists()).then_some(()));
    let groups = daemon.groups().unwrap();
    daemon.stop();
    assert!(!groups.exists(), "the daemon's own group is left");
}

/// A shell function that moves the calling shell to a group of this directory, and the directory of the daemon's own group.
fn mover() -> (&'static str, PathBuf) {
    ("move() { mkdir -p \"$1\" && echo $$ > \"$1/cgroup.procs\"; }", Hierarchy::find().unwrap().unwrap().own)
}

#[test]
fn groups_below_its_group_end_and_are_removed_with_it() {
    if !is_root() {
        return eprintln!("skipped: only root's processes can make groups");
    }
    let Some(daemon) = contained("") else { return };
    let (mover, _) = mover();
    let groups = daemon.groups().unwrap();
    let script = format!("{mover}; move {}/web.$PROCMAN_UUID/a/b; trap '' TERM; echo up; exec sleep 1000", groups.display());
    let out = format!("file:{}", daemon.path("out").display());
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sh", "-c", script], "stdout": out}));
    let pid = daemon.execute("web").pid;
    daemon.lines("out", 1);
    let group = daemon.group_of("web");
    assert_eq!(fs::read_to_string(group.join("a/b/cgroup.procs")).unwrap(), format!("{pid}\n"));
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0.1}));
    assert_eq!((ended.survivors, ended.killed), (0, vec![pid]));
    until("its groups are removed", || (!group.exists()).then_some(()));
}

#[test]
fn what_left_its_group_is_ended_all_the_same() {
    if !is_root() {
        return eprintln!("skipped: only root's processes can leave their group");
    }
    let Some(daemon) = contained("") else { return };
    let (mover, own) = mover();
    let script = format!("{mover}; (move {}; echo $$; exec setsid sleep 1000) & exec sleep 1000", own.display());
    let out = format!("file:{}", daemon.path("out").display());
    let _: View = daemon
        .call("register", json!({"name": "web", "cmd": ["sh", "-c", script.replace("echo $$;", "sh -c 'echo $PPID';")], "stdout": out}));
    let _: serde_json::Value = daemon.call("execute", json!({"name": "web"}));
    daemon.lines("out", 1);
    let children: Vec<NamedProcess> = until("it sleeps", || {
        let children: Vec<NamedProcess> = daemon.call("children", json!({"name": "web"}));
        (children.len() == 1 && children[0].name == "sleep").then_some(children)
    });
    let ended = daemon.quit("web");
    assert_eq!(ended.survivors, 0);
    assert!(!is_alive(children[0].pid));
    assert_eq!(daemon.relatives(), [daemon.pid()]);
}

#[test]
fn a_group_that_cannot_be_made_keeps_nothing_from_starting() {
    let Some(daemon) = contained("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n") else { return };
    fs::write(daemon.groups().unwrap().join("cgroup.max.descendants"), "0").unwrap();
    let pid = daemon.execute("web").pid;
    daemon.wait_for_log("cannot make a control group for this run");
    assert!(!daemon.group_of("web").exists());
    let ended = daemon.quit("web");
    assert_eq!((ended.survivors, ended.terminated), (0, vec![pid]));
}

#[test]
fn where_a_filter_refuses_clone3_runs_have_groups_too() {
    // As a container engine's default filter does (seccomp(2)): clone3 is said not to exist.
    let filter = "import ctypes, os, struct, sys\n\
        number = {'x86_64': (0xc000003e, 435), 'aarch64': (0xc00000b7, 435)}[os.uname().machine][1]\n\
        code = b''.join(struct.pack('HBBI', *op) for op in [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7fff0000)])\n\
        ops = ctypes.create_string_buffer(code)\n\
        program = struct.pack('HxxxxxxP', 4, ctypes.addressof(ops))\n\
        c = ctypes.CDLL(None)\n\
        assert c.prctl(38, 1, 0, 0, 0) == 0 and c.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0\n\
        os.execvp(sys.argv[1], sys.argv[1:])\n";
    let setup = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'none'\ncmd = ['/no/such/program']\n");
    let daemon = setup.wrapped(&["python3", "-c", filter]).start();
    let pid = daemon.execute("web").pid;
    let error = daemon.refusal("execute", json!({"name": "none"}));
    assert_eq!(serde_json::to_value(&error.details["errno_name"]).unwrap(), "ENOENT", "{error}");
    if daemon.info().capabilities.cgroup {
        assert_eq!(fs::read_to_string(daemon.group_of("web").join("cgroup.procs")).unwrap(), format!("{pid}\n"));
    }
    let ended = daemon.quit("web");
    assert_eq!((ended.survivors, ended.terminated), (0, vec![pid]));
}

#[test]
fn groups_of_a_daemon_that_was_killed_are_removed_by_the_next_one() {
    let state = tempfile::tempdir().unwrap();
    let setup = || {
        let setup = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n");
        setup.state_dir(state.path().to_str().unwrap())
    };
    let Some(mut first) = contained_as(setup()) else { return };
    let of = |daemon: &Daemon| {
        let line = daemon.read("log").lines().find(|line| line.contains("each run gets a control group")).unwrap().to_owned();
        let path = line.split_whitespace().find_map(|word| word.strip_prefix("path=")).unwrap().trim_matches('"').to_owned();
        PathBuf::from(path)
    };
    let groups = of(&first);
    first.wait_for_state("web", StateName::Running);
    let left = groups.join(format!("web.{}", first.view("web").uuid.unwrap()));
    first.kill();
    assert!(left.exists());
    until("nothing lives there", || fs::read_to_string(left.join("cgroup.events")).unwrap().contains("populated 0").then_some(()));
    let second = setup().start();
    assert_eq!(of(&second), groups, "the same state directory, the same groups");
    assert!(!left.exists());
    second.stop();
    assert!(!groups.exists());
}

#[test]
fn it_can_be_turned_off_and_asked_for() {
    let daemon = Setup::new("").cgroup("off").start();
    assert!(!daemon.info().capabilities.cgroup);
    assert!(daemon.groups().is_none_or(|groups| !groups.exists()));
    daemon.wait_for_log("runs have no control groups");
    daemon.stop();
    Setup::new("").cgroup("/proc/no/such/place").refused().assert(73, &["/proc", "daemon.cgroup", "\"auto\""]);
}

#[test]
fn a_limit_that_cannot_be_set_is_told_once_and_keeps_nothing_from_starting() {
    let limits = "limits = { memory_max = '1G', pids_max = 1000, cpu_weight = 200 }";
    let daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n{limits}\n"));
    for _ in 0..3 {
        daemon.execute("web");
        if daemon.info().capabilities.cgroup {
            let group = daemon.group_of("web");
            for (file, value) in [("memory.max", "1073741824\n"), ("pids.max", "1000\n"), ("cpu.weight", "200\n")] {
                assert!(
                    fs::read_to_string(group.join(file)).is_ok_and(|said| said == value) || daemon.read("log").contains("cannot be set"),
                    "{file}"
                );
            }
        }
        daemon.quit("web");
    }
    for key in ["limits.memory_max", "limits.pids_max", "limits.cpu_weight"] {
        assert!(daemon.read("log").matches(key).count() <= 1, "{key} is told more than once");
    }
}

#[test]
fn an_end_for_lack_of_memory_is_called_so() {
    let greedy = "x = bytearray(300 << 20); x[::4096] = bytes(len(x[::4096]))";
    let processes =
        format!("[[process]]\nname = 'web'\ncmd = ['python3', '-c', '{greedy}']\nlimits = {{ memory_max = '60M' }}\nautostart = true\n");
    let Some(daemon) = contained(&processes) else { return };
    if daemon.read("log").contains("memory=false") {
        return eprintln!("skipped: the memory controller is not to be had in cgroup v2; what it would say is tested with the room");
    }
    let view = daemon.wait_for_state("web", StateName::Exited);
    assert_eq!((view.cause, view.signal), (Some(Cause::Oom), Some(9)));
    assert_eq!(daemon.metric("procman_process_exits_total", &["cause=\"oom\""]), Some(1.0));
}
