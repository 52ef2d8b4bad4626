//! What strangers and unruly clients come to: the table in SECURITY.md has a row for each.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use procman::access::SecretKey;
use procman::access::keys::generate;
use procman::protocol::StateName;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, until, value_of};

const PROCESSES: &str = "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n";

fn start(limits: &str) -> Daemon {
    Setup::new(&format!("{PROCESSES}[limits]\n{limits}\n")).tcp().start()
}

fn address(daemon: &Daemon) -> String {
    daemon.tcp().trim_start_matches("tcp://").to_owned()
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// Resident memory in bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Whether the other side has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    loop {
        match stream.read(&mut [0; 512]) {
            Ok(0) => return true,
            Ok(_) => {} // its greeting
            Err(error) => return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
}

#[test]
fn ten_thousand_connections_cost_what_is_allowed_and_keep_nobody_out_who_is_in() {
    let daemon = start("connections = 200\nhandshake_timeout = 1.0");
    let inside = Peer::connect(zmq::REQ, &daemon.tcp());
    assert_eq!(inside.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
    let before = descriptors(&daemon);
    let address = address(&daemon);
    let mut held = Vec::new();
    let (mut made, mut most) = (0, 0);
    while made < 10_000 {
        for _ in 0..100 {
            // One that is refused at once is no less an attack.
            held.extend(TcpStream::connect(&address).ok());
            made += 1;
        }
        most = most.max(descriptors(&daemon));
        assert_eq!(inside.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
        // What the daemon has closed needs no descriptor of ours.
        if held.len() > 500 {
            held.drain(..250);
        }
    }
    assert!(most <= before + 200, "{most} descriptors, {before} before");
    assert_eq!(daemon.view("web").state, StateName::Running);
    drop(held);
    // Whoever comes then gets in.
    let after = Peer::connect(zmq::REQ, &daemon.tcp());
    assert_eq!(after.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
    until("their descriptors are free", || (descriptors(&daemon) <= before + 4).then_some(()));
}

#[test]
fn one_address_has_half_of_the_connections() {
    let daemon = start("connections = 40\nhandshake_timeout = 60.0");
    let address = address(&daemon);
    let mut held: Vec<_> = (0..60).map(|_| TcpStream::connect(&address).unwrap()).collect();
    until("what is too much is closed", || {
        (held.iter_mut().filter_map(|stream| (!is_closed(stream)).then_some(())).count() <= 20).then_some(())
    });
    // Somebody at another address.
    let other = Peer::connect(zmq::REQ, &format!("tcp://127.0.0.2:0;{address}"));
    assert_eq!(other.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
    assert_eq!(daemon.view("web").state, StateName::Running);
}

#[test]
fn who_does_not_greet_is_cut_off() {
    let daemon = start("handshake_timeout = 0.3");
    let address = address(&daemon);
    let mut silent = TcpStream::connect(&address).unwrap();
    // Another one says its greeting a byte at a time.
    let mut slow = TcpStream::connect(&address).unwrap();
    let began = Instant::now();
    until("both are cut off", || {
        drop(slow.write_all(&[0xff]));
        (is_closed(&mut silent) && is_closed(&mut slow)).then_some(())
    });
    assert!(began.elapsed() >= Duration::from_millis(200), "after its time, not at once");
    assert_eq!(daemon.view("web").state, StateName::Running);
}

#[test]
fn who_asks_too_fast_is_told_so_and_nobody_else() {
    let daemon = start("requests_per_second = 100");
    let flood = Peer::connect(zmq::DEALER, &daemon.tcp());
    for id in 0..2000 {
        flood.send(&[vec![], frame(&json!({"command": "ping", "request_id": id}))]);
    }
    let (mut done, mut busy) = (0, 0);
    for id in 0..2000 {
        let reply = value_of(&flood.receive()[1]);
        assert_eq!(reply["request_id"], id, "each is answered");
        if reply["success"] == true {
            done += 1;
        } else {
            assert_eq!(reply["error"]["code"], "busy");
            assert!(reply["error"]["message"].as_str().unwrap().contains("limits.requests_per_second"), "{reply}");
            busy += 1;
        }
    }
    assert!(done >= 100 && busy >= 1000, "{done} were done, {busy} were not");
    let other = Peer::connect(zmq::REQ, &daemon.tcp());
    assert_eq!(other.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
    until("it has tokens again", || {
        flood.send(&[vec![], frame(&json!({"command": "ping"}))]);
        (value_of(&flood.receive()[1])["success"] == true).then_some(())
    });
}

#[test]
fn who_never_reads_costs_a_bounded_amount_of_memory() {
    let daemon = Setup::new(&format!("{PROCESSES}[limits]\nunread_replies = 50\nunread_events = 50\nrequests_per_second = 0\n"))
        .tcp()
        .events("endpoints = ['tcp://127.0.0.1:*']")
        .start();
    let events = daemon.info().events_endpoints.unwrap()[0].clone();
    let deaf = Peer::connect_with(zmq::SUB, &events, |socket| {
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvbuf(4096).unwrap();
        socket.set_subscribe(b"").unwrap();
    });
    let mute = Peer::connect_with(zmq::DEALER, &daemon.tcp(), |socket| {
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvbuf(4096).unwrap();
    });
    // Each answer is some 20 KiB.
    let many: Vec<Value> = (0..60).map(|n| json!({"name": format!("p{n}"), "cmd": ["sleep", "1000"]})).collect();
    for definition in many {
        let _: Value = daemon.call("register", definition);
    }
    let before = memory(&daemon);
    for _ in 0..5000 {
        mute.send(&[vec![], frame(&json!({"command": "list"}))]);
    }
    for _ in 0..100 {
        daemon.execute("p1");
        daemon.quit("p1");
    }
    let asked = Peer::connect(zmq::REQ, &daemon.tcp());
    assert_eq!(asked.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
    // All of them would be 100 MiB.
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more");
    drop((deaf, mute));
    assert_eq!(daemon.view("web").state, StateName::Running);
}

#[test]
fn bombs_of_messagepack_cost_no_memory() {
    let daemon = start("");
    let peer = Peer::connect(zmq::REQ, &daemon.tcp());
    let before = memory(&daemon);
    let announced = |kind: &[u8]| [&[0x81, 0xa1, b'x'][..], kind, &[0xff, 0xff, 0xff, 0xff]].concat();
    let deep = |byte: u8, rest: &[u8]| [&[0x81, 0xa1, b'x'][..], &[byte].repeat(500_000), rest].concat();
    let bombs = [
        announced(&[0xc6]),                 // bytes
        announced(&[0xdb]),                 // text
        announced(&[0xdd]),                 // array
        announced(&[0xdf]),                 // map
        announced(&[0xc9]),                 // extension
        vec![0xdf, 0xff, 0xff, 0xff, 0xff], // the whole
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        deep(0x91, &[0xc0]),
        deep(0x81, &[]),
    ];
    for bomb in bombs.iter().cycle().take(300) {
        let reply = peer.ask(&[bomb]);
        assert_eq!(reply["error"]["code"], "bad_request", "{:?}", &bomb[..8.min(bomb.len())]);
    }
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[test]
fn another_clients_request_id_gets_none_of_its_answers() {
    let setup = Setup::new(PROCESSES).endpoint("tcp://127.0.0.1:*");
    let server = generate(&setup.dir().join("server")).unwrap();
    let mut control = "[control.curve]\nsecret_key_file = 'server.secret'\n".to_owned();
    for name in ["victim", "thief"] {
        let public = generate(&setup.dir().join(name)).unwrap().public;
        control += &format!("[[control.client]]\nname = '{name}'\npublic_key = '{public}'\nrole = 'operate'\n");
    }
    let daemon = setup.control(&control).start();
    let by = |name: &str, id: &[u8]| {
        let secret = SecretKey::read(&daemon.path(&format!("{name}.secret"))).unwrap();
        Peer::connect_with(zmq::REQ, &daemon.tcp(), |socket| {
            socket.set_curve_serverkey(server.public.bytes()).unwrap();
            socket.set_curve_publickey(secret.public().unwrap().bytes()).unwrap();
            socket.set_curve_secretkey(secret.bytes()).unwrap();
            socket.set_identity(id).unwrap();
        })
    };
    let request = frame(&json!({"command": "restart", "name": "web", "client": "gui", "request_id": 1}));
    let victim = by("victim", b"gui");
    let done = victim.ask(&[&request]);
    assert_eq!(done["success"], true);
    assert_eq!(victim.ask(&[&request]), done, "its own repetition gets the same");
    // The same words from another key are another request: it is done, and its answer is another one.
    let other = by("thief", b"thief").ask(&[&request]);
    assert_eq!(other["success"], true);
    assert_ne!(other["result"]["pid"], done["result"]["pid"]);
    // Nobody takes the place of a connection with another key: the victim's replies go on coming to the victim.
    let in_its_place = by("thief", b"gui");
    in_its_place.send(&[vec![], frame(&json!({"command": "ping"}))][1..]);
    for _ in 0..20 {
        assert_eq!(victim.ask(&[frame(&json!({"command": "ping"}))])["success"], true);
    }
    assert!(!in_its_place.has_more(100));
}
