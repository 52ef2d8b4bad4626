//! Clients that are gone in the middle of their requests: what they asked for is done once or not at all, and nothing of them is left.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use procman::protocol::StateName;
use procman::protocol::reply::{AuditEntry, Pong, View};
use serde_json::{Value, json};

use crate::harness::python::service;
use crate::harness::{Daemon, Peer, Setup, at_length, frame, until};

/// How many vanish at a time.
const CLIENTS: usize = 50;

/// What a client says before it is gone: a greeting of ZMTP 3 and the beginning of a frame of a megabyte; or not even the greeting.
const HALVES: [&[u8]; 3] = [b"\xff\0\0\0\0\0\0\0\x01\x7f\x03", b"\xff\0\0", b"GET / HTTP/1.1\r\n"];

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[test]
fn fifty_clients_vanish_in_the_middle_of_their_requests() {
    let sleepers: String = (0..CLIENTS / 5).map(|at| format!("[[process]]\nname = 'p{at}'\ncmd = ['sleep', '1000']\n")).collect();
    let stubborn = service(
        "stubborn",
        "signal.signal(signal.SIGTERM, lambda *_: note('asked', 1))\nnotify('READY=1')\nwhile True: time.sleep(1000)",
        "ready = { notify = true }\nstop_timeout = 0.5",
    );
    let never = "[[process]]\nname = 'never'\ncmd = ['sleep', '1000']\nready = { file = '{dir}/never', timeout = 600 }\n";
    let daemon = Setup::new(&[&sleepers, &*stubborn, never].concat()).tcp().log("info").start();
    let endpoints: Vec<String> = daemon.info().endpoints;
    let audited = |daemon: &Daemon| daemon.call::<Vec<AuditEntry>>("audit", json!({"limit": 10_000})).len();
    let mut before = 0;
    for round in 0..at_length(100, 3) {
        daemon.execute("stubborn");
        daemon.wait_for_state("stubborn", StateName::Running);
        let clients: Vec<Peer> = (0..CLIENTS)
            .map(|at| {
                let peer = Peer::connect(zmq::DEALER, &endpoints[at % endpoints.len()]);
                let name = format!("p{}", at / 5);
                let request = match at % 5 {
                    0 => json!({"command": "execute", "name": name, "wait": true}),
                    1 => json!({"command": "restart", "name": name}),
                    2 => json!({"command": "quit", "name": "stubborn"}),
                    3 => json!({"command": "execute", "name": "never", "wait": true}),
                    _ => json!({"command": "status"}),
                };
                peer.send(&[vec![], frame(&request)]);
                // More than it could ever be answered.
                if at % 5 == 4 {
                    (0..200).for_each(|_| peer.send(&[vec![], frame(&request)]));
                }
                peer
            })
            .collect();
        let halves: Vec<UnixStream> = (0..CLIENTS)
            .map(|at| {
                let mut stream = UnixStream::connect(daemon.path("c.sock")).unwrap();
                stream.write_all(HALVES[at % HALVES.len()]).unwrap();
                stream
            })
            .collect();
        // All of it is under way.
        daemon.lines("asked", round + 1);
        daemon.wait_for("never", |view| view.state == StateName::Starting);
        daemon.wait_for("p0", |view| view.pid.is_some());
        drop((clients, halves));
        let _: Pong = daemon.call("ping", json!({}));

        // What was begun is done.
        daemon.wait_for_state("stubborn", StateName::Stopped);
        let _: Value = daemon.call("quit", json!({"all": true}));
        let views = until("all are at rest", || {
            let views: Vec<View> = daemon.call("list", json!({}));
            views.iter().all(|view| view.pid.is_none()).then_some(views)
        });
        assert_eq!(views.len(), CLIENTS / 5 + 2);
        if round == 0 {
            // What libraries make at first use, and keep.
            before = until("the clients' descriptors are closed", || Some(descriptors(&daemon)).filter(|count| *count < CLIENTS));
        }
    }
    until("nothing is left of them", || (descriptors(&daemon) <= before + 2).then_some(()));
    // Each was told to somebody, or to nobody, but written down in any case.
    let changes = audited(&daemon);
    assert!(changes >= at_length(100, 3) * 3, "{changes} changes");
}
