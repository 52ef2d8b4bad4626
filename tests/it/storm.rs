//! A hundred thousand random and mutated frames get a hundred thousand replies.

use std::fs;

use procman::protocol::ErrorCode;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, reply_of};

const FRAMES: usize = 100_000;
/// Requests on their way at a time; below what the daemon keeps in work and what libzmq keeps for one client.
const WINDOW: usize = 400;

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers in each run, so that what failed fails again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn bytes(&mut self, at_most: usize) -> Vec<u8> {
        let length = self.below(at_most);
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Requests to start from. None ends the daemon, and none makes it read all of `/proc`, which is slow and tested elsewhere.
fn seeds() -> Vec<Vec<u8>> {
    let requests: Vec<Value> = vec![
        json!({"command": "ping", "request_id": "a"}),
        json!({"command": "info", "version": 1}),
        json!({"command": "list", "state": "running", "group": "g"}),
        json!({"command": "status", "name": "web"}),
        json!({"command": "register", "name": "other", "cmd": ["true", "a"], "env": {"A": "b"}, "stop_signal": 15, "replace": true,
               "backoff": {"initial": 0.5, "factor": 2, "max": 60.0}, "start_limit": {"count": 5, "interval": 30}, "stdout": "null"}),
        json!({"command": "unregister", "name": "none"}),
        json!({"command": "quit", "name": "none", "timeout": 0.5}),
        json!({"command": "reap", "name": "none", "children_only": true}),
        json!({"command": "restart", "name": "none", "args": ["x"], "env": {"A": "b"}}),
        json!({"command": "signal", "name": "none", "signal": "HUP", "tree": true}),
        json!({"command": "signal", "name": "none", "signal": 0}),
        json!({"command": "is_running", "name": "web"}),
        json!({"command": "returncode", "name": "none", "request_id": -5}),
        json!({"command": "is_process_running", "items": [], "as_list": 1}),
    ];
    requests.iter().map(frame).collect()
}

/// One of the seeds with a few bytes changed, cut, doubled or put in.
fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, [0x91, 0x81, 0xdd, 0xdf, 0xc1, 0xd9, 0xc6, 0xff][random.below(8)]),
            _ => {
                let end = at + random.below(bytes.len() - at);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn resident_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_hundred_thousand_frames_get_a_hundred_thousand_replies() {
    let daemon = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n").log("error").start();
    let web = daemon.execute("web");
    let dealer = Peer::connect(zmq::DEALER, &daemon.endpoint());
    let (mut random, seeds) = (Random(20_261_122), seeds());
    let (mut received, mut understood, mut resident) = (0, 0, 0);
    let mut receive = || {
        let frames = dealer.receive();
        assert_eq!((frames.len(), frames[0].len()), (2, 0));
        understood += usize::from(reply_of(&frames[1]).error.is_none_or(|error| error.code != ErrorCode::BadRequest));
        received += 1;
    };
    for sent in 0..FRAMES {
        if sent >= WINDOW {
            receive();
        }
        // What is heard of after the first half is a leak: until then the answers that are kept for who asks again fill their bounds.
        if sent == FRAMES / 2 {
            resident = resident_kib(&daemon);
        }
        let body = match random.below(4) {
            0 => random.bytes(80),
            _ => mutated(&mut random, &seeds),
        };
        dealer.send(&[Vec::new(), body]);
    }
    for _ in 0..WINDOW {
        receive();
    }
    assert_eq!(received, FRAMES);
    assert!(!dealer.has_more(50), "more replies than requests");
    assert!((FRAMES / 10..FRAMES / 2).contains(&understood), "{understood} were understood: the frames are too wild or too tame");
    let grown = resident_kib(&daemon).saturating_sub(resident);
    assert!(grown < 8192, "{grown} KiB more after the first half of the frames");
    let view = daemon.view("web");
    assert_eq!((view.pid, view.uuid), (Some(web.pid), Some(web.uuid)), "and what runs runs on");
}
