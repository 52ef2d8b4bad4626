//! A request that is sent again is not done again.

use std::thread;

use procman::protocol::StateName;
use procman::protocol::reply::{AuditEntry, View};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, value_of};

const COUNTER: &str = "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'echo run >> {dir}/runs; exec sleep 1000']\n";

/// What the audit trail says was done.
fn done(daemon: &Daemon, arguments: Value) -> Vec<AuditEntry> {
    let entries: Vec<AuditEntry> = daemon.call("audit", arguments);
    entries.into_iter().filter(|entry| entry.outcome != "begun").collect()
}

/// A REQ socket with this routing id, or with none of its own.
fn peer(endpoint: &str, identity: Option<&str>) -> Peer {
    Peer::connect_with(zmq::REQ, endpoint, |socket| {
        if let Some(identity) = identity {
            socket.set_identity(identity.as_bytes()).unwrap();
        }
    })
}

fn ask(peer: &Peer, request: &Value) -> Value {
    peer.ask(&[frame(request)])
}

#[test]
fn a_repetition_gets_the_answer_of_the_first() {
    let daemon = Setup::new(COUNTER).tcp().start();
    let tcp = daemon.info().endpoints.into_iter().find(|endpoint| endpoint.starts_with("tcp:")).unwrap();
    let restart = json!({"command": "restart", "name": "web", "request_id": "a", "client": "gui"});
    let first = ask(&peer(&daemon.endpoint(), None), &restart);
    assert_eq!(first["success"], true, "{first}");
    daemon.lines("runs", 1);
    // From a new connection, also at another endpoint, and whatever became of it meanwhile.
    assert_eq!(ask(&peer(&daemon.endpoint(), None), &restart), first);
    daemon.quit("web");
    assert_eq!(ask(&peer(&tcp, Some("other")), &restart), first);
    assert_eq!(daemon.view("web").state, StateName::Stopped);

    // By the routing id of a socket: at one endpoint.
    let restart = json!({"command": "restart", "name": "web", "request_id": 1});
    let socket = peer(&daemon.endpoint(), Some("gui"));
    let first = ask(&socket, &restart);
    assert_eq!(ask(&socket, &restart), first);
    drop(socket);
    assert_eq!(ask(&peer(&daemon.endpoint(), Some("gui")), &restart), first);
    daemon.lines("runs", 2);
    let elsewhere = ask(&peer(&tcp, Some("gui")), &restart);
    assert_ne!(elsewhere["result"]["pid"], first["result"]["pid"], "another client has the same routing id there");
    assert_eq!(daemon.lines("runs", 3).len(), 3);

    // A refusal is an answer, too; and each was kept once.
    let unknown = json!({"command": "quit", "name": "nobody", "request_id": 9, "client": "gui"});
    let refused = ask(&socket_of(&daemon), &unknown);
    assert_eq!(refused["error"]["code"], "not_found");
    let _: View = daemon.call("register", json!({"name": "nobody", "cmd": ["true"]}));
    assert_eq!(ask(&socket_of(&daemon), &unknown), refused);
    let entries = done(&daemon, json!({}));
    let told: Vec<_> = entries.iter().map(|entry| entry.command.as_str()).collect();
    assert_eq!(told, ["register", "quit", "restart", "restart", "quit", "restart"]);
}

/// What was answered, the next daemon answers, too, and a refusal as well as a success.
#[track_caller]
fn known_by_the_next(follow: impl Fn(&mut Daemon)) {
    let mut daemon = Daemon::start(COUNTER);
    let restart = json!({"command": "restart", "name": "web", "request_id": "a", "client": "gui"});
    let signal = json!({"command": "signal", "name": "nobody", "signal": "HUP", "request_id": -1});
    let first = ask(&socket_of(&daemon), &restart);
    assert_eq!(first["success"], true, "{first}");
    let refused = ask(&peer(&daemon.endpoint(), Some("me")), &signal);
    assert_eq!(refused["error"]["code"], "not_found");
    daemon.lines("runs", 1);
    for _ in 0..2 {
        follow(&mut daemon);
        assert_eq!(ask(&socket_of(&daemon), &restart), first);
        assert_eq!(ask(&peer(&daemon.endpoint(), Some("me")), &signal), refused);
        let other = ask(&socket_of(&daemon), &json!({"command": "quit", "name": "web", "request_id": "a", "client": "gui"}));
        assert_eq!(other["error"]["code"], "bad_request", "{other}");
        assert_eq!(daemon.lines("runs", 1).len(), 1);
    }
}

#[test]
fn a_repetition_after_the_daemon_was_killed_gets_the_answer_of_the_first() {
    known_by_the_next(|daemon| {
        // At once: what was answered is written down.
        daemon.kill_alone();
        daemon.start_next();
    });
}

#[test]
fn a_repetition_after_the_daemon_was_started_anew_gets_the_answer_of_the_first() {
    known_by_the_next(Daemon::start_anew);
}

#[test]
fn a_repetition_after_an_upgrade_gets_the_answer_of_the_first() {
    known_by_the_next(|daemon| {
        let uuid = daemon.info().uuid;
        let _: Value = daemon.call("upgrade", json!({}));
        daemon.wait_for_successor(&uuid);
    });
}

#[test]
fn what_was_begun_and_not_answered_is_not_done_again() {
    let program = "trap \"while [ -e {dir}/busy ]; do sleep 0.02; done; exit\" TERM; echo run >> {dir}/runs; while :; do sleep 0.02; done";
    let mut daemon = Daemon::start(&format!("[[process]]\nname = 'web'\ncmd = ['sh', '-c', '{program}']\nstop_timeout = 600\n"));
    daemon.execute("web");
    daemon.lines("runs", 1);
    std::fs::write(daemon.path("busy"), "").unwrap();
    let restart = json!({"command": "restart", "name": "web", "request_id": 7, "client": "gui"});
    let socket = socket_of(&daemon);
    socket.send(&[frame(&restart)]);
    daemon.wait_for_state("web", StateName::Stopping);
    daemon.replace();
    std::fs::remove_file(daemon.path("busy")).unwrap();
    let refused = ask(&socket_of(&daemon), &restart);
    assert_eq!((&refused["error"]["code"], &refused["request_id"]), (&json!("internal"), &json!(7)), "{refused}");
    assert!(refused["error"]["details"]["begun_at"].as_i64().unwrap() > 1_000_000_000, "{refused}");
    // What was under way is carried out, once.
    daemon.lines("runs", 2);
    daemon.wait_for_state("web", StateName::Running);
    assert_eq!(ask(&socket_of(&daemon), &restart), refused);
    daemon.quit("web");
    assert_eq!(daemon.lines("runs", 2).len(), 2);
}

fn socket_of(daemon: &Daemon) -> Peer {
    peer(&daemon.endpoint(), None)
}

#[test]
fn who_does_not_name_himself_is_nobody_again() {
    let daemon = Daemon::start(COUNTER);
    let restart = json!({"command": "restart", "name": "web", "request_id": 1});
    let socket = socket_of(&daemon);
    let pids: Vec<Value> = [&socket, &socket, &socket_of(&daemon)].map(|peer| ask(peer, &restart)["result"]["pid"].clone()).to_vec();
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2], "{pids:?}");
    // Nor is a request without an id, or a question.
    let nameless = json!({"command": "restart", "name": "web", "client": "gui"});
    assert_ne!(ask(&socket, &nameless)["result"]["pid"], ask(&socket, &nameless)["result"]["pid"]);
    let question = json!({"command": "is_running", "name": "web", "request_id": 1, "client": "gui"});
    assert_eq!(ask(&socket, &question)["result"], true);
    daemon.quit("web");
    assert_eq!(ask(&socket, &question)["result"], false);
}

#[test]
fn another_request_under_the_same_id_is_refused() {
    let daemon = Daemon::start(COUNTER);
    let socket = socket_of(&daemon);
    let execute = |more: Value| {
        let mut request = json!({"command": "execute", "name": "web", "request_id": 1, "client": "gui"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let first = ask(&socket, &execute(json!({})));
    for other in [json!({"args": ["x"]}), json!({"command": "quit"}), json!({"env": {"A": "1"}})] {
        let refused = ask(&socket, &execute(other));
        assert_eq!(refused["error"]["code"], "bad_request", "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("another request of this client was called 1"), "{refused}");
    }
    assert_eq!(ask(&socket, &execute(json!({}))), first);
    assert_eq!(daemon.view("web").pid.map(Value::from).as_ref(), Some(&first["result"]["pid"]));
    for wrong in [json!({"client": "a/b"}), json!({"client": "x".repeat(65)}), json!({"client": 1}), json!({"client": ""})] {
        let refused = ask(&socket, &execute(wrong));
        assert_eq!((&refused["error"]["code"], &refused["request_id"]), (&json!("bad_request"), &json!(1)));
        assert!(refused["error"]["message"].as_str().unwrap().starts_with("`client`: "), "{refused}");
    }
}

#[test]
fn a_repetition_waits_for_the_first_and_many_are_one() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']\nstdout = 'file:{dir}/up'\n",
    );
    daemon.execute("web");
    daemon.lines("up", 1);
    let quit = json!({"command": "quit", "name": "web", "timeout": 600, "request_id": 1, "client": "gui"});
    let peers: Vec<Peer> = (0..20).map(|_| socket_of(&daemon)).collect();
    peers.iter().for_each(|peer| peer.send(&[frame(&quit)]));
    daemon.wait_for_state("web", StateName::Stopping);
    assert!(peers.iter().all(|peer| !peer.has_more(0)));
    let _: Value = daemon.call("quit", json!({"name": "web", "timeout": 0}));
    let answers: Vec<Value> = peers.iter().map(|peer| value_of(&peer.receive()[0])).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer["result"]["killed"].as_array().unwrap().len() == 1), "{answers:?}");
    let entries = done(&daemon, json!({"name": "web"}));
    assert_eq!(entries.iter().filter(|entry| entry.command == "quit").count(), 2, "all repetitions were one command: {entries:?}");
}

#[test]
fn a_socket_takes_the_place_of_its_former_one_and_gets_its_answer() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']\nstdout = 'file:{dir}/up'\nstop_timeout = 0.1\n",
    );
    let first = daemon.execute("web").pid;
    daemon.lines("up", 1);
    let restart = json!({"command": "restart", "name": "web", "timeout": 600, "request_id": 5});
    // It is still connected when it is given up.
    let lost = peer(&daemon.endpoint(), Some("gui"));
    lost.send(&[frame(&restart)]);
    daemon.wait_for_state("web", StateName::Stopping);
    let again = peer(&daemon.endpoint(), Some("gui"));
    again.send(&[frame(&restart)]);
    let _: Value = daemon.call("signal", json!({"name": "web", "signal": "KILL"}));
    let reply = value_of(&again.receive()[0]);
    assert_eq!(reply["result"]["name"], "web", "{reply}");
    assert_ne!(reply["result"]["pid"], json!(first));
    assert_eq!(daemon.lines("up", 2).len(), 2);
    assert_eq!(daemon.view("web").pid.map(Value::from).as_ref(), Some(&reply["result"]["pid"]));
    drop(lost);
}

#[test]
fn requests_that_are_sent_twice_at_the_same_time_are_done_once() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let daemon = Daemon::start("");
    let endpoint = daemon.endpoint();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            // Both halves of a client ask the same at about the same time, as one that has given up on its first connection.
            for _ in 0..2 {
                let endpoint = endpoint.clone();
                scope.spawn(move || {
                    let peer = Peer::connect(zmq::DEALER, &endpoint);
                    for number in 0..EACH {
                        let name = format!("c{client}-{number}");
                        let request = json!({"command": "register", "name": name, "cmd": ["true"], "request_id": number, "client": format!("c{client}")});
                        peer.send(&[vec![], frame(&request)]);
                        let unregister = json!({"command": "unregister", "name": name, "request_id": format!("u{number}"), "client": format!("c{client}")});
                        assert_eq!(value_of(&peer.receive()[1])["success"], true);
                        peer.send(&[vec![], frame(&unregister)]);
                        // Done twice, the second would be refused: nobody has that name any more.
                        let reply = value_of(&peer.receive()[1]);
                        assert_eq!(reply["success"], true, "{reply}");
                    }
                });
            }
        }
    });
    let entries = done(&daemon, json!({"limit": 1000}));
    assert_eq!(entries.len(), CLIENTS * EACH * 2);
    assert!(entries.iter().all(|entry| entry.outcome == "ok"));
}
