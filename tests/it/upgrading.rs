//! What comes in the middle of another program taking over: nothing of it is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use procman::protocol::StateName;
use procman::protocol::reply::{Nothing, PastRun, View};
use procman::sys::pidfd::PidFd;
use serde_json::json;

use super::harness::python::service;
use super::harness::{Daemon, Peer, Setup, frame, is_alive, until};

const WEB: &str = "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n";

/// Said when it is decided that the next program takes over; a tenth of a second goes by until it is executed.
const LEAVING: &str = "sub-processes are left to the next daemon";

/// Names another main process once it is told to, and leaves.
const MOVES: &str = r#"
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(w, b"%d" % os.getpid())
        sleep()
    os._exit(0)
os.wait()
main = os.read(r, 20).decode()
notify("READY=1")
wait("go")
notify("MAINPID=" + main)
note("main", main)
"#;

#[test]
fn a_main_process_that_is_named_meanwhile_is_taken_over() {
    let daemon = Daemon::start(&service("web", MOVES, "ready = { notify = true }\nautostart = true"));
    let former = daemon.wait_for_state("web", StateName::Running).pid.unwrap();
    let uuid = daemon.info().uuid;
    daemon.signal(libc::SIGUSR2);
    daemon.wait_for_log(LEAVING);
    fs::write(daemon.path("go"), "").unwrap();
    daemon.wait_for_successor(&uuid);
    let main: u32 = daemon.lines("main", 1)[0].parse().unwrap();
    until("the former main process is gone", || (!is_alive(former)).then_some(()));
    let view = daemon.wait_for("web", |view| view.pid == Some(main));
    assert_eq!((view.state, view.restarts), (StateName::Running, 0), "{view:?}");
    assert!(is_alive(main));
    assert!(daemon.call::<Vec<PastRun>>("history", json!({"name": "web"})).is_empty());
}

#[test]
fn a_service_that_gets_ready_meanwhile_is_ready() {
    let text = "wait('go')\nnotify('READY=1')\nnote('said', 'x')\nsleep()";
    let daemon = Daemon::start(&service("web", text, "ready = { notify = true }\nautostart = true"));
    let web = daemon.wait_for("web", |view| view.state == StateName::Starting && view.pid.is_some());
    let uuid = daemon.info().uuid;
    daemon.signal(libc::SIGUSR2);
    daemon.wait_for_log(LEAVING);
    fs::write(daemon.path("go"), "").unwrap();
    daemon.lines("said", 1);
    daemon.wait_for_successor(&uuid);
    assert_eq!(daemon.wait_for_state("web", StateName::Running).pid, web.pid);
}

#[test]
fn a_signal_to_leave_is_heeded() {
    for moment in ["the program that is installed now is to take over", LEAVING, "another program takes over in this process"] {
        let mut daemon = Daemon::start(WEB);
        let web = daemon.wait_for_state("web", StateName::Running).pid.unwrap();
        daemon.signal(libc::SIGUSR2);
        daemon.wait_for_log(moment);
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.wait_exit().code(), Some(0), "{moment}");
        assert!(!is_alive(web), "{moment}");
    }
}

#[test]
fn one_that_is_to_leave_everything_running_leaves() {
    for moment in ["the program that is installed now is to take over", LEAVING, "another program takes over in this process"] {
        let mut daemon = Daemon::start(WEB);
        let web = daemon.wait_for_state("web", StateName::Running).pid;
        daemon.signal(libc::SIGUSR2);
        daemon.wait_for_log(moment);
        daemon.signal(libc::SIGUSR1);
        assert_eq!(daemon.leave_alone().code(), Some(0), "{moment}");
        daemon.start_next();
        assert_eq!(daemon.view("web").pid, web, "{moment}");
    }
}

#[test]
fn a_shutdown_that_is_answered_is_done() {
    for children in ["quit", "keep"] {
        let mut daemon = Daemon::start(WEB);
        let web = daemon.wait_for_state("web", StateName::Running).pid;
        let [upgrading, leaving] = [(); 2].map(|()| Peer::connect(zmq::REQ, &daemon.endpoint()));
        assert_eq!(leaving.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
        assert_eq!(upgrading.ask(&[frame(&json!({"command": "upgrade"}))])["success"], true);
        assert_eq!(leaving.ask(&[frame(&json!({"command": "shutdown", "children": children}))])["success"], true);
        let again = upgrading.ask(&[frame(&json!({"command": "upgrade"}))]);
        assert_eq!(again["error"]["code"], "shutting_down", "{again}");
        if children == "quit" {
            assert_eq!(daemon.wait_exit().code(), Some(0));
            assert!(!is_alive(web.unwrap()));
        } else {
            assert_eq!(daemon.leave_alone().code(), Some(0));
            daemon.start_next();
            assert_eq!(daemon.view("web").pid, web);
        }
    }
}

#[test]
fn more_sub_processes_than_descriptors_are_allowed_at_first_are_kept() {
    // The daemon raises the limit for itself; with the former one the next program could not even open its libraries.
    let many = "[[process]]\nname = 'p'\ncmd = ['sleep', '1000']\ninstances = 130\nautostart = true\n\
                [[process]]\nname = 'limits'\ncmd = ['sh', '-c', 'ulimit -Sn; ulimit -Hn']\nstdout = 'file:{dir}/limits'\n";
    let setup = Setup::new(many).wrapped(&["sh", "-c", "ulimit -Sn 128; exec \"$@\"", "sh"]);
    let daemon = setup.start();
    let pids = || -> Vec<_> {
        let views = daemon.call::<Vec<View>>("list", json!({})).into_iter();
        views.filter(|view| view.name.as_str() != "limits").map(|view| (view.name, view.pid)).collect()
    };
    until("all of them run", || pids().iter().all(|(_, pid)| pid.is_some()).then_some(()));
    daemon.execute("limits");
    let limits = daemon.lines("limits", 2);
    assert_eq!(limits[0], "128");
    daemon.wait_for_state("limits", StateName::Exited);
    let before = pids();
    for times in 2..=3 {
        let uuid = daemon.info().uuid;
        let _: Nothing = daemon.call("upgrade", json!({}));
        daemon.wait_for_successor(&uuid);
        assert_eq!(pids(), before);
        daemon.execute("limits");
        assert_eq!(daemon.lines("limits", 2 * times)[2 * times - 2..], limits, "sub-processes get what they got before");
        daemon.wait_for_state("limits", StateName::Exited);
    }
}

#[test]
fn what_ends_meanwhile_is_no_orphan() {
    let daemon = Daemon::start(WEB);
    let web = daemon.wait_for_state("web", StateName::Running).pid.unwrap();
    let uuid = daemon.info().uuid;
    daemon.signal(libc::SIGUSR2);
    daemon.wait_for_log("another program takes over in this process");
    PidFd::open(web).unwrap().send_signal(libc::SIGKILL).unwrap();
    daemon.wait_for_successor(&uuid);
    daemon.wait_for_state("web", StateName::Exited);
    let runs: Vec<PastRun> = daemon.call("history", json!({"name": "web"}));
    assert_eq!(runs.iter().map(|run| (run.pid, run.signal)).collect::<Vec<_>>(), [(Some(web), Some(libc::SIGKILL))]);
    assert_eq!(daemon.metric("procman_orphans_reaped_total", &[]), Some(0.0));
}

#[test]
fn the_program_behind_a_link_that_leads_elsewhere_by_now_takes_over() {
    let setup = Setup::new(WEB);
    let link = setup.dir().join("procmand");
    for version in ["1", "2"] {
        let directory = setup.dir().join(version);
        fs::create_dir(&directory).unwrap();
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_procmand")).arg(directory.join("procmand")).status().unwrap();
        assert!(copied.success());
    }
    symlink("1/procmand", &link).unwrap();
    let daemon = setup.program(link.to_str().unwrap()).start();
    let web = daemon.wait_for_state("web", StateName::Running).pid;
    let uuid = daemon.info().uuid;
    fs::remove_file(&link).unwrap();
    let refused = daemon.refusal("upgrade", json!({})).message;
    assert!(refused.contains(link.to_str().unwrap()) && refused.contains("not there"), "{refused}");
    symlink("2/procmand", &link).unwrap();
    let _: Nothing = daemon.call("upgrade", json!({}));
    daemon.wait_for_successor(&uuid);
    assert_eq!(fs::read_link(format!("/proc/{}/exe", daemon.pid())).unwrap(), daemon.path("2/procmand"));
    assert_eq!(daemon.view("web").pid, web);
}
