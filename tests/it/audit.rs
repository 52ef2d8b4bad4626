//! Who had what changed.

use std::fs;

use procman::protocol::reply::{AuditEntry, Reloaded, View};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, until, value_of};

/// What is done. On a busy machine any command may take its time, and is told twice.
fn trail(daemon: &Daemon, arguments: Value) -> Vec<AuditEntry> {
    let entries: Vec<AuditEntry> = daemon.call("audit", arguments);
    entries.into_iter().filter(|entry| entry.outcome != "begun").collect()
}

#[test]
fn who_had_begun_what_a_daemon_died_over_is_known() {
    let mut daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'trap : TERM; touch {dir}/up; while :; do sleep 0.05; done']\nstop_timeout = 600\n",
    );
    daemon.execute("web");
    until("it does not mind", || daemon.path("up").exists().then_some(()));
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    peer.send(&[frame(&json!({"command": "quit", "name": "web", "request_id": "r"}))]);
    let begun = until("it is told before it is done", || {
        let entries: Vec<AuditEntry> = daemon.call("audit", json!({}));
        entries.into_iter().find(|entry| entry.outcome == "begun" && entry.command == "quit")
    });
    assert_eq!((begun.target.as_deref(), begun.request_id.as_deref()), (Some("web"), Some("r")));
    daemon.replace();
    let entries: Vec<AuditEntry> = daemon.call("audit", json!({}));
    assert!(entries.contains(&begun), "{entries:?}");
    assert!(!trail(&daemon, json!({})).iter().any(|entry| entry.command == "quit"), "nobody has seen it done");
    let _: Value = daemon.call("quit", json!({"name": "web", "timeout": 0}));
}

#[test]
fn each_command_is_kept_with_who_gave_it_and_what_came_of_it() {
    let daemon = Setup::new("").tcp().start();
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "1000"], "env": {"KEY": "swordfish"}}));
    daemon.execute("web");
    daemon.refusal("execute", json!({"name": "web", "request_id": 7}));
    daemon.refusal("quit", json!({"group": "nobody"}));
    daemon.refusal("quit", json!({"name": "web", "timout": 1}));
    let _: Vec<Value> = daemon.call("quit", json!({"all": true, "request_id": "r-1"}));
    // Questions are not kept, nor is what would be done.
    daemon.view("web");
    let _: Reloaded = daemon.call("reload", json!({"dry_run": true}));
    let tcp = daemon.info().endpoints.into_iter().find(|endpoint| endpoint.starts_with("tcp:")).unwrap();
    let peer = Peer::connect(zmq::REQ, &tcp);
    assert_eq!(peer.ask(&[frame(&json!({"command": "unregister", "name": "web"}))])["success"], true);

    let entries = trail(&daemon, json!({}));
    let told: Vec<_> =
        entries.iter().map(|e| (e.command.as_str(), e.target.as_deref(), e.outcome.as_str(), e.request_id.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("unregister", Some("web"), "ok", None),
            ("quit", Some("all"), "ok", Some("r-1")),
            ("quit", None, "bad_request", None),
            ("quit", Some("group:nobody"), "not_found", None),
            ("execute", Some("web"), "already_running", Some("7")),
            ("execute", Some("web"), "ok", None),
            ("register", Some("web"), "ok", None),
        ]
    );
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let own = format!("uid={uid} gid={gid} pid={}", std::process::id());
    assert_eq!((entries[0].endpoint.as_str(), entries[0].peer.as_deref()), (tcp.as_str(), Some("127.0.0.1")));
    assert!(entries[1..].iter().all(|entry| entry.peer.as_ref() == Some(&own) && entry.endpoint == daemon.endpoint()), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.principal == "admin"));
    assert!(entries.is_sorted_by(|newer, older| newer.time >= older.time));
    assert!(entries[2].message.as_ref().unwrap().contains("timout") && entries[0].message.is_none());
    assert!(!format!("{entries:?}").contains("swordfish"));
    assert_eq!(trail(&daemon, json!({"name": "web"})).len(), 4);
    assert_eq!(trail(&daemon, json!({"limit": 2})), entries[..2]);
}

#[test]
fn many_questions_for_all_of_it_take_few_threads() {
    let daemon = Daemon::start("");
    let refused = daemon.refusal("audit", json!({"limit": 10_001}));
    assert!(refused.message.contains("10000"), "{refused:?}");
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "1000"]}));
    let before = threads();
    // Each reads behind what is to be written, and waits for that as long as somebody holds the database.
    let connection = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    daemon.refusal("quit", json!({"name": "nobody"}));
    let peers: Vec<Peer> = (0..64).map(|_| Peer::connect(zmq::REQ, &daemon.endpoint())).collect();
    peers.iter().for_each(|peer| peer.send(&[frame(&json!({"command": "audit", "limit": 10_000}))]));
    let mut most = 0;
    until("one is answered", || {
        most = most.max(threads());
        peers[63].has_more(0).then_some(())
    });
    drop(connection);
    assert!(most < before + 16, "{before} threads, and then {most}");
    for peer in &peers {
        assert_eq!(value_of(&peer.receive()[0])["success"], true);
    }
}

#[test]
fn signals_are_kept_too() {
    let daemon = Daemon::start("");
    daemon.signal(libc::SIGHUP);
    let done = until("the reload is kept", || trail(&daemon, json!({})).into_iter().next());
    assert_eq!((done.command.as_str(), done.endpoint.as_str(), done.outcome.as_str(), done.peer), ("reload", "signal", "ok", None));
    daemon.rewrite("[[process]]\n");
    daemon.signal(libc::SIGHUP);
    let refused = until("the other one is kept", || trail(&daemon, json!({})).into_iter().next().filter(|entry| entry.outcome != "ok"));
    assert_eq!((refused.command.as_str(), refused.outcome.as_str()), ("reload", "bad_request"));
    assert!(refused.message.unwrap().contains("procmand.toml:"));
}

#[test]
fn people_read_it_as_a_table() {
    let daemon = Daemon::start("");
    daemon.refusal("unregister", json!({"name": "web"}));
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    let output = program.args(["audit", "web"]).env("PROCMAN_ENDPOINT", daemon.endpoint()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let [head, row] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(head.starts_with("TIME ") && head.contains("WHO") && head.contains("OUTCOME"), "{out}");
    for word in ["admin", "uid=", "ipc://", "unregister", "web", "not_found", "there is no sub-process"] {
        assert!(row.contains(word), "{word} is not in {row}");
    }
    // Who asks while it leaves is told, and kept: the end of the daemon itself is one of the commands.
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    peer.send(&[frame(&json!({"command": "shutdown"}))]);
    assert_eq!(value_of(&peer.receive()[0])["result"], json!({}));
}
