//! A start that hangs in the kernel holds up nobody, and can be quit.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use procman::protocol::reply::{Ended, Executed, View};
use procman::protocol::{ErrorCode, StateName};
use serde_json::json;

use super::harness::{Daemon, Peer, executable, frame, value_of};

/// Holds a lease on a file (`F_SETLEASE`, fcntl(2)): whoever executes it waits in the kernel, until this is dropped or 45 s are over.
struct Lease(Child);

impl Lease {
    fn on(path: &Path) -> Self {
        // 1024 is F_SETLEASE, 1 is F_WRLCK; SIGIO asks for the lease back.
        let script = "$SIG{IO} = 'IGNORE'; open F, '<', $ARGV[0] or die; fcntl F, 1024, 1 or die $!; $| = 1; print qq(held\\n); sleep 1000";
        let mut child = Command::new("perl").args(["-e", script]).arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n", "this file system has no leases");
        Self(child)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A daemon with four sub-processes of a program that nobody can execute as long as the lease is held, and one other.
fn start() -> (Daemon, Lease) {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    executable(&daemon.path("program"), "#!/bin/sh\nexec sleep 1000\n");
    for i in 0..4 {
        let _: View = daemon.call("register", json!({"name": format!("h{i}"), "cmd": [daemon.path("program")]}));
    }
    let lease = Lease::on(&daemon.path("program"));
    (daemon, lease)
}

/// Asks for a start, and does not wait for it.
fn begin(daemon: &Daemon, name: &str) -> Peer {
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    peer.send(&[frame(&json!({"command": "execute", "name": name}))]);
    daemon.wait_for_state(name, StateName::Starting);
    peer
}

#[test]
fn others_start_and_answer_and_it_starts_in_the_end() {
    let (daemon, lease) = start();
    let waiting: Vec<Peer> = (0..4).map(|i| begin(&daemon, &format!("h{i}"))).collect();
    daemon.execute("web");
    assert_eq!(daemon.quit("web").survivors, 0);
    let error = daemon.refusal("execute", json!({"name": "h0"}));
    assert_eq!(error.code, ErrorCode::AlreadyRunning, "{error}");
    assert!(waiting.iter().all(|peer| !peer.has_more(0)), "none of them was answered yet");
    drop(lease);
    for (i, peer) in waiting.iter().enumerate() {
        let reply = value_of(&peer.receive()[0]);
        let executed: Executed = serde_json::from_value(reply["result"].clone()).unwrap();
        let view = daemon.view(&format!("h{i}"));
        assert_eq!((view.pid, view.state), (Some(executed.pid), StateName::Running));
    }
}

#[test]
fn a_quit_ends_it() {
    let (daemon, _lease) = start();
    let waiting = begin(&daemon, "h0");
    let ended: Ended = daemon.call("quit", json!({"name": "h0", "timeout": 0.2}));
    assert_eq!(ended.survivors, 0);
    let reply = value_of(&waiting.receive()[0]);
    assert_eq!(reply["success"], false, "{reply}");
    assert_eq!(daemon.relatives(), [daemon.pid()]);
    assert_eq!(daemon.view("h0").state, StateName::Stopped);
}

#[test]
fn the_daemon_leaves_nevertheless() {
    let (mut daemon, _lease) = start();
    let waiting: Vec<Peer> = (0..4).map(|i| begin(&daemon, &format!("h{i}"))).collect();
    daemon.signal(libc::SIGTERM);
    daemon.wait_for_log("leaving");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    drop(waiting);
}
