//! A daemon that leaves without quitting anything, and one that another program takes over from in the same process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use procman::protocol::reply::{AuditEntry, Info, PastRun, View};
use procman::protocol::{ErrorCode, StateName, Wanted};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, is_alive, stat_of, until, value_of};

const SITE: &str = "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n\
     [[process]]\nname = 'stopped'\ncmd = ['sleep', '1000']\nautostart = true\n\
     [[process]]\nname = 'code'\ncmd = ['sh', '-c', 'trap \"exit 7\" TERM; touch {dir}/up; while :; do sleep 0.01; done']\n\
     [[process]]\nname = 'flapping'\ncmd = ['false']\nautostart = true\nrestart = 'always'\nbackoff = { initial = 0.2, factor = 1.0, jitter = 0.0 }\nstart_limit = { count = 0 }\n";

#[test]
fn what_runs_can_be_kept_for_the_next_daemon() {
    let mut daemon = Daemon::start(SITE);
    let web = daemon.wait_for_state("web", StateName::Running);
    daemon.wait_for_state("stopped", StateName::Running);
    daemon.quit("stopped");
    for by_signal in [false, true] {
        if by_signal {
            daemon.signal(libc::SIGUSR1);
        } else {
            let _: Value = daemon.call("shutdown", json!({"children": "keep"}));
        }
        assert_eq!(daemon.leave_alone().code(), Some(0));
        assert!(is_alive(web.pid.unwrap()));
        daemon.start_next();
        let after = daemon.view("web");
        assert_eq!((after.pid, &after.uuid, after.state), (web.pid, &web.uuid, StateName::Running));
    }
    assert_eq!((daemon.view("stopped").state, daemon.view("stopped").wanted), (StateName::Stopped, Wanted::Down));
    daemon.wait_for("flapping", |view| view.restarts >= 2);
}

/// The daemon of the present commit.
const PRESENT: &str = env!("CARGO_BIN_EXE_procmand");

/// A copy of a `procmand` that the test can replace.
fn installed(setup: &Setup, from: &Path) -> String {
    let program = setup.dir().join("procmand");
    // Another program copies it: had this process the file open for writing while another test forks, nobody could execute it (ETXTBSY).
    assert!(Command::new("cp").arg(from).arg(&program).status().unwrap().success());
    program.to_str().unwrap().to_owned()
}

/// Puts another file in its place, as a package manager does.
fn install(daemon: &Daemon, content: &[u8]) {
    let new = daemon.path("procmand.new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, daemon.path("procmand")).unwrap();
}

/// What a program with this path has written under the present PID of a daemon: the inode of what it executes.
fn inode_of_program(pid: u32) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(format!("/proc/{pid}/exe")).unwrap())
}

#[test]
fn another_program_takes_over_in_the_same_process() {
    let setup = Setup::new(SITE).tcp();
    let program = installed(&setup, Path::new(PRESENT));
    let daemon = setup.program(&program).start();
    let before: Info = daemon.info();
    let web = daemon.wait_for_state("web", StateName::Running);
    let code = daemon.execute("code").pid;
    until("it minds", || daemon.path("up").exists().then_some(()));
    let (inode, parent) = (inode_of_program(daemon.pid()), stat_of(web.pid.unwrap()).unwrap().ppid);
    let mut last = before.uuid.clone();
    for by_signal in [false, true] {
        install(&daemon, &fs::read(PRESENT).unwrap());
        if by_signal {
            daemon.signal(libc::SIGUSR2);
        } else {
            let _: Value = daemon.call("upgrade", json!({}));
        }
        let info = daemon.wait_for_successor(&last);
        assert_eq!((info.pid, &info.metrics_endpoint), (before.pid, &before.metrics_endpoint), "the same process and port");
        assert_eq!(info.endpoints, before.endpoints, "the same port, though the configuration leaves it open");
        let after = daemon.view("web");
        assert_eq!((after.pid, after.uuid, after.state), (web.pid, web.uuid.clone(), StateName::Running));
        last = info.uuid;
    }
    assert_ne!(inode_of_program(daemon.pid()), inode);
    assert_eq!(stat_of(web.pid.unwrap()).unwrap().ppid, parent, "children stay children");
    // So their status is known whatever the kernel tells of strangers.
    let ended = daemon.quit("code");
    assert_eq!(ended.returncode, Some(7));
    assert!(ended.terminated.contains(&code), "{ended:?}");
    daemon.wait_for("flapping", |view| view.restarts >= 2);
    let trail: Vec<AuditEntry> = daemon.call("audit", json!({}));
    assert!(trail.iter().any(|entry| entry.command == "upgrade" && entry.outcome == "ok"), "{trail:?}");
}

#[test]
fn a_program_that_is_not_fit_does_not_take_over() {
    let setup = Setup::new(SITE);
    let program = installed(&setup, Path::new(PRESENT));
    let daemon = setup.program(&program).start();
    let web = daemon.wait_for_state("web", StateName::Running);
    let uuid = daemon.info().uuid;
    for (content, words) in [
        (&b"#!/bin/sh\necho 'I do not know this configuration' >&2\nexit 78\n"[..], "I do not know this configuration"),
        (&b"not a program\n"[..], "cannot be run"),
        (&b"#!/bin/sh\nexit 0\n"[..], "is no procmand"),
    ] {
        install(&daemon, content);
        let error = daemon.refusal("upgrade", json!({}));
        assert_eq!(error.code, ErrorCode::BadRequest);
        assert!(error.message.contains(words) && error.message.contains("goes on"), "{error}");
    }
    assert_eq!((daemon.info().uuid, daemon.view("web").pid), (uuid, web.pid));
    daemon.execute("code");
}

/// Asks on and on with a REQ socket until another daemon than this one has answered for a while. Returns the longest time without a reply.
fn longest_silence(daemon: &Daemon, uuid: &str) -> Duration {
    let ask = |peer: &Peer, request_id: u64, timeout: i64| -> Option<Value> {
        peer.send(&[frame(&json!({"command": "info", "request_id": request_id, "client": "steady"}))]);
        peer.has_more(timeout).then(|| value_of(&peer.receive()[0]))
    };
    let mut peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    let (mut longest, mut after, mut request_id) = (Duration::ZERO, 0, 0);
    while after < 200 {
        request_id += 1;
        let began = Instant::now();
        // A REQ socket that gets no answer is of no use any more: the same request goes out on a new one.
        let reply = loop {
            match ask(&peer, request_id, 40) {
                Some(reply) => break reply,
                None => peer = Peer::connect(zmq::REQ, &daemon.endpoint()),
            }
            assert!(began.elapsed().as_secs() < 20, "nobody answers any more");
        };
        longest = longest.max(began.elapsed());
        after += u32::from(reply["result"]["uuid"] != *uuid);
    }
    longest
}

#[test]
fn a_client_that_asks_on_and_on_notices_a_reconnect_at_most() {
    let setup = Setup::new(SITE);
    let program = installed(&setup, Path::new(PRESENT));
    let daemon = setup.program(&program).start();
    daemon.wait_for_state("web", StateName::Running);
    let uuid = daemon.info().uuid;
    daemon.signal(libc::SIGUSR2);
    eprintln!("the longest time without a reply was {:?}", longest_silence(&daemon, &uuid));
    assert!(daemon.call::<Vec<PastRun>>("history", json!({"name": "web"})).is_empty());
    let _: View = daemon.view("web");
}

/// Where `scripts/previous-binary` has put the daemon of the previous commit.
const PREVIOUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/previous/procmand");
/// No client waits longer for a reply while the present one takes over.
const SILENCE: Duration = Duration::from_millis(200);
/// On a machine that others use the shortest of some silences is what the upgrade takes.
const TRIALS: u32 = 5;

#[test]
fn the_previous_commit_is_upgraded_to_this_one() {
    if !Path::new(PREVIOUS).exists() {
        eprintln!("\n!!! NOT TESTED: an upgrade from the previous commit, as `make test` has it built !!!\n");
        return;
    }
    let many: String = (0..20)
        .map(|i| format!("[[process]]\nname = 'p{i}'\ncmd = ['sh', '-c', 'sleep 1000 & exec sleep 1001']\nautostart = true\n"))
        .collect();
    let mut silences = Vec::new();
    while silences.len() < TRIALS as usize && silences.iter().all(|silence| *silence >= SILENCE) {
        let setup = Setup::new(&many);
        let program = installed(&setup, Path::new(PREVIOUS));
        let daemon = setup.program(&program).start();
        (0..20).for_each(|i| drop(daemon.wait_for_state(&format!("p{i}"), StateName::Running)));
        let runs = || -> Vec<_> {
            let views: Vec<View> = daemon.call("list", json!({}));
            views.into_iter().map(|view| (view.name, view.pid, view.uuid, view.state, view.restarts)).collect()
        };
        let (before, info, inode) = (runs(), daemon.info(), inode_of_program(daemon.pid()));
        assert!(before.len() == 20 && before.iter().all(|(_, pid, ..)| pid.is_some_and(is_alive)), "{before:?}");
        install(&daemon, &fs::read(PRESENT).unwrap());
        daemon.signal(libc::SIGUSR2);
        silences.push(longest_silence(&daemon, &info.uuid));
        assert_eq!(daemon.wait_for_successor(&info.uuid).pid, info.pid);
        assert_ne!(inode_of_program(daemon.pid()), inode);
        assert_eq!(runs(), before, "every PID is kept");
        assert!(daemon.call::<Vec<PastRun>>("history", json!({})).is_empty());
        // Nothing is left of them: the present one knows every tree.
        daemon.stop();
    }
    eprintln!("upgraded from the previous commit, the longest time without a reply was {silences:?}");
    assert!(silences.iter().any(|silence| *silence < SILENCE), "{silences:?}");
}
