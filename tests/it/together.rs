//! No client waits for another client.

use std::time::{Duration, Instant};

use procman::protocol::reply::{Ended, ViewWithStatus};
use procman::protocol::{ErrorCode, StateName};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, frame, is_alive, reply_of, until, value_of};

const STUBBORN: &str = "\
[[process]]
name = 'stubborn'
cmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']
stdout = 'file:{dir}/up'
stop_timeout = 5
[[process]]
name = 'web'
cmd = ['sleep', '1000']
";

/// A median, in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

#[test]
fn a_status_is_answered_while_a_quit_waits_for_a_stubborn_process() {
    let daemon = Daemon::start(STUBBORN);
    daemon.execute("stubborn");
    daemon.execute("web");
    daemon.lines("up", 1);
    let quitting = Peer::connect(zmq::REQ, &daemon.endpoint());
    quitting.send(&[frame(&json!({"command": "quit", "name": "stubborn"}))]);
    daemon.wait_for_state("stubborn", StateName::Stopping);

    let mut times = Vec::new();
    for i in 0..60 {
        let began = Instant::now();
        match i % 3 {
            0 => assert!(daemon.call::<ViewWithStatus>("status", json!({"name": "web"})).status.is_some()),
            1 => assert!(daemon.call::<ViewWithStatus>("status", json!({"name": "stubborn"})).status.is_some()),
            _ => drop(daemon.call::<Value>("ping", json!({}))),
        }
        times.push(began.elapsed());
    }
    // Nobody's command stands behind the pending one either.
    assert_eq!(daemon.quit("web").survivors, 0);
    assert!(!quitting.has_more(0), "all of them were answered before the quit");
    let median = median(times);
    assert!(median < 50.0, "the median was {median} ms");
    let reply = value_of(&quitting.receive()[0]);
    let ended: Ended = serde_json::from_value(reply["result"].clone()).unwrap();
    assert_eq!((ended.survivors, ended.killed.len()), (0, 1));
}

#[test]
fn a_client_that_goes_away_takes_its_command_along_to_nobodys_harm() {
    let daemon = Daemon::start(STUBBORN);
    let pid = daemon.execute("stubborn").pid;
    daemon.lines("up", 1);
    for _ in 0..20 {
        let leaving = Peer::connect(zmq::REQ, &daemon.endpoint());
        leaving.send(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 0.3}))]);
        daemon.wait_for("stubborn", |view| view.state != StateName::Running);
        drop(leaving);
    }
    daemon.wait_for_state("stubborn", StateName::Stopped);
    assert!(!is_alive(pid), "the work went on");
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let daemon = Daemon::start(STUBBORN);
    daemon.execute("web");
    std::thread::scope(|scope| {
        for client in 0..8_u64 {
            let endpoint = daemon.endpoint();
            scope.spawn(move || {
                let peer = Peer::connect(zmq::REQ, &endpoint);
                for i in 0..100_u64 {
                    let (command, name) = if i % 2 == 0 { ("status", "web") } else { ("is_running", "stubborn") };
                    let id = client * 1000 + i;
                    let reply = peer.ask(&[frame(&json!({"command": command, "name": name, "request_id": id}))]);
                    assert_eq!((&reply["success"], &reply["request_id"]), (&json!(true), &json!(id)));
                    match command {
                        "status" => assert_eq!(reply["result"]["name"], name),
                        _ => assert_eq!(reply["result"], false),
                    }
                }
            });
        }
    });
}

#[test]
fn commands_that_pile_up_are_each_answered_once_and_refused_as_busy_at_worst() {
    let daemon = Daemon::start(STUBBORN);
    let dealer = Peer::connect(zmq::DEALER, &daemon.endpoint());
    let total = 500;
    for i in 0..total {
        let command = if i % 2 == 0 { "execute" } else { "quit" };
        dealer.send(&[Vec::new(), frame(&json!({"command": command, "name": "web", "request_id": i}))]);
    }
    let mut seen = vec![false; total];
    for _ in 0..total {
        let reply = reply_of(&dealer.receive()[1]);
        let id: usize = reply.request_id.unwrap().to_string().parse().unwrap();
        assert!(!std::mem::replace(&mut seen[id], true), "{id} was answered twice");
        if let Some(error) = reply.error {
            let code = error.code.as_str();
            assert!(["busy", "already_running", "not_running"].contains(&code), "{error}");
        }
    }
    assert!(!dealer.has_more(50), "more replies than requests");
    daemon.quit("web");
    assert_eq!(daemon.relatives(), [daemon.pid()]);
}

#[test]
fn a_client_with_too_many_commands_in_work_harms_only_itself() {
    let daemon = Daemon::start(STUBBORN);
    daemon.execute("stubborn");
    daemon.lines("up", 1);
    let greedy = Peer::connect(zmq::DEALER, &daemon.endpoint());
    // More than may be in work for one client.
    let total = 1500;
    for i in 0..total {
        greedy.send(&[Vec::new(), frame(&json!({"command": "quit", "name": "stubborn", "timeout": 600, "request_id": i}))]);
    }
    let mut seen = vec![false; total];
    let mut note = |reply: procman::protocol::envelope::Reply<Value>| {
        let id: usize = reply.request_id.expect("a reply can be told").to_string().parse().unwrap();
        assert!(!std::mem::replace(&mut seen[id], true), "{id} was answered twice");
    };
    // What is above the limit is refused at once; the rest waits for the end.
    let refused = reply_of(&greedy.receive()[1]);
    assert_eq!(refused.error.as_ref().unwrap().code, ErrorCode::Busy);
    note(refused);
    assert!(daemon.call::<ViewWithStatus>("status", json!({"name": "stubborn"})).status.is_some(), "another client is served");
    let other = Peer::connect(zmq::REQ, &daemon.endpoint());
    until("the flood before the sub-process has passed", || {
        let reply = other.ask(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 0}))]);
        assert!(reply["success"] == true || reply["error"]["code"] == "busy", "{reply}");
        (reply["success"] == true).then_some(())
    });
    let mut done = 0;
    for _ in 1..total {
        let reply = reply_of(&greedy.receive()[1]);
        done += usize::from(reply.success);
        assert!(reply.success || reply.error.as_ref().unwrap().code == ErrorCode::Busy);
        note(reply);
    }
    assert!(done > 0 && !greedy.has_more(50));
}

#[test]
fn nothing_starts_what_is_being_unregistered() {
    let daemon = Daemon::start(STUBBORN);
    let pid = daemon.execute("stubborn").pid;
    daemon.lines("up", 1);
    let leaving = Peer::connect(zmq::REQ, &daemon.endpoint());
    leaving.send(&[frame(&json!({"command": "unregister", "name": "stubborn"}))]);
    daemon.wait_for_state("stubborn", StateName::Stopping);
    for command in ["execute", "restart", "unregister"] {
        let error = daemon.refusal(command, json!({"name": "stubborn"}));
        assert_eq!(error.code, ErrorCode::NotFound, "{command}: {error}");
    }
    // A quit may hurry it.
    let ended: Ended = daemon.call("quit", json!({"name": "stubborn", "timeout": 0}));
    assert_eq!((ended.survivors, ended.killed), (0, vec![pid]));
    assert_eq!(value_of(&leaving.receive()[0])["success"], true);
    assert_eq!(daemon.refusal("status", json!({"name": "stubborn"})).code, ErrorCode::NotFound);
}
