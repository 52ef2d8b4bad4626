//! Every frame gets exactly one reply, whatever it holds.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use procman::protocol::{Detail, ErrorCode, VERSION};
use serde_json::{Value, json};

use super::harness::{DEADLINE, Daemon, Peer, Setup, frame, reply_of, value_of};

const PING: &[u8] = b"\x81\xa7command\xa4ping";

/// Asserts that a request is refused with this code, and what the sentence says.
#[track_caller]
fn assert_refused(peer: &Peer, request: &[u8], code: ErrorCode, words: &str) -> Value {
    let reply = peer.ask(&[request]);
    assert_eq!((&reply["success"], &reply["error"]["code"]), (&json!(false), &json!(code.as_str())), "{reply}");
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    reply
}

#[test]
fn what_is_no_request_is_answered_and_says_why() {
    let daemon = Daemon::start("");
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    let bad = |request: &[u8], words: &str| assert_refused(&peer, request, ErrorCode::BadRequest, words);
    bad(b"", "empty");
    bad(b"hello", "map");
    bad(b"\xc1", "MessagePack");
    bad(b"\x90", "map");
    bad(b"\xc0", "map");
    bad(b"\x80", "command");
    bad(b"\x81\xa7command", "ends in the middle");
    bad(b"\x81\x01\xa4ping", "keys of the map must be strings");
    bad(&[PING, b"\xc0"].concat(), "bytes behind");
    bad(b"\x82\xa7command\xa4ping\xa7command\xa4info", "twice");
    bad(b"\xdf\xff\xff\xff\xff\xa7command\xa4ping", "ends in the middle");
    bad(br#"{"command": "ping"}"#, "map");
    bad(&frame(&json!({"command": 7})), "`command`");
    bad(&frame(&json!({"command": null})), "`command`");
    bad(&frame(&json!({"command": "ping", "version": "one"})), "`version`");
    bad(&frame(&json!({"command": "ping", "request_id": [1]})), "`request_id`");
    bad(&frame(&json!({"command": "ping", "request_id": "x".repeat(65)})), "`request_id`");
    bad(&frame(&json!({"command": "ping", "name": "web"})), "name");
    bad(&frame(&json!({"command": "status", "nme": "web"})), "nme");
    bad(&frame(&json!({"command": "execute"})), "name");
    bad(&frame(&json!({"command": "execute", "name": 7})), "string");
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    bad(&frame(&json!({"command": "ping", "deep": deep})), "32 levels");
    bad(&[vec![0x91; 100_000], vec![0x01]].concat(), "map");
    bad(&[b"\x81\xa1x".to_vec(), vec![0x91; 100_000]].concat(), "32 levels");

    let reply = assert_refused(&peer, &frame(&json!({"command": "statsu", "request_id": 7})), ErrorCode::UnknownCommand, "statsu");
    assert_eq!((&reply["error"]["details"]["nearest"], &reply["request_id"]), (&json!("status"), &json!(7)));
    let reply = assert_refused(&peer, &frame(&json!({"command": "ping", "version": 99})), ErrorCode::UnsupportedVersion, "99");
    assert_eq!(reply["error"]["details"]["supported"], json!([VERSION]));
    // An error in the arguments is answered under the request's id.
    let reply = assert_refused(&peer, &frame(&json!({"command": "ping", "x": 1, "request_id": "mine"})), ErrorCode::BadRequest, "x");
    assert_eq!(reply["request_id"], "mine");

    let reply = peer.ask(&[PING]);
    assert_eq!(reply["result"]["pong"], true, "and the daemon serves on");
}

#[test]
fn a_request_id_comes_back_as_it_was() {
    let daemon = Daemon::start("");
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    for id in [json!("mine"), json!(""), json!("x".repeat(64)), json!(0), json!(-1), json!(u64::MAX), json!(i64::MIN)] {
        for command in ["ping", "nothing"] {
            assert_eq!(peer.ask(&[frame(&json!({"command": command, "request_id": id, "version": 1}))])["request_id"], id, "{command}");
        }
    }
    assert_eq!(peer.ask(&[PING]).get("request_id"), None);
}

#[test]
fn an_oversized_request_is_refused_and_the_connection_stays() {
    let daemon = Daemon::start("");
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    let padded = |bytes: usize| frame(&json!({"command": "ping", "padding": "x".repeat(bytes)}));
    assert_refused(&peer, &padded(2 << 20), ErrorCode::BadRequest, "1048576");
    assert_refused(&peer, &padded((1 << 20) + 1), ErrorCode::BadRequest, "1048576");
    assert_refused(&peer, &padded(1 << 19), ErrorCode::BadRequest, "padding");
    assert_eq!(peer.ask(&[PING])["success"], true);

    let daemon = Setup::new("").control("max_request_bytes = 2048").start();
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    assert_refused(&peer, &padded(2048), ErrorCode::BadRequest, "2048");
    assert_refused(&peer, &padded(1900), ErrorCode::BadRequest, "padding");
}

#[test]
fn a_request_is_one_frame_behind_one_delimiter() {
    let daemon = Daemon::start("");
    let dealer = Peer::connect(zmq::DEALER, &daemon.endpoint());
    let empty: &[u8] = b"";
    // Without a delimiter there is none in the reply either.
    dealer.send(&[PING]);
    let frames = dealer.receive();
    assert_eq!(frames.len(), 1);
    let error = reply_of(&frames[0]).error.unwrap();
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("delimiter"), "{error}");

    for (bodies, words) in [(&[PING, PING][..], "2 frames"), (&[], "no frame"), (&[PING, PING, PING], "3 frames")] {
        dealer.send(&[&[empty], bodies].concat());
        let frames = dealer.receive();
        assert_eq!((frames.len(), frames[0].len()), (2, 0));
        let error = reply_of(&frames[1]).error.unwrap();
        assert!(error.code == ErrorCode::BadRequest && error.message.contains(words), "{error}");
    }
    dealer.send(&[empty, PING]);
    assert!(reply_of(&dealer.receive()[1]).success);
    assert!(!dealer.has_more(50), "one reply for each, and no more");
}

#[test]
fn a_client_that_correlates_gets_its_envelope_back() {
    let daemon = Daemon::start("");
    let peer = Peer::connect_with(zmq::REQ, &daemon.endpoint(), |socket| {
        socket.set_req_correlate(true).unwrap();
        socket.set_req_relaxed(true).unwrap();
    });
    for _ in 0..3 {
        assert_eq!(peer.ask(&[PING])["result"]["pong"], true);
    }
    // A second request before the first reply: the first one's reply is dropped by the socket, for its number is another one.
    peer.send(&[frame(&json!({"command": "ping", "request_id": 1}))]);
    assert_eq!(peer.ask(&[frame(&json!({"command": "ping", "request_id": 2}))])["request_id"], 2);
    // The same by hand, with a longer envelope.
    let dealer = Peer::connect(zmq::DEALER, &daemon.endpoint());
    dealer.send(&[b"one".as_slice(), b"two", b"", PING]);
    let frames = dealer.receive();
    assert_eq!(frames[..3], [b"one".to_vec(), b"two".to_vec(), vec![]]);
    assert!(reply_of(&frames[3]).success);
}

#[test]
fn two_hundred_requests_in_a_row_have_two_hundred_replies() {
    let daemon = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n").tcp().start();
    for endpoint in [daemon.endpoint(), daemon.tcp()] {
        let dealer = Peer::connect(zmq::DEALER, &endpoint);
        for i in 0..200_usize {
            let request = match i % 4 {
                0 => json!({"command": "ping", "request_id": i}),
                1 => json!({"command": "status", "name": "web", "request_id": i}),
                2 => json!({"command": "is_process_running", "items": "sleep", "request_id": i}),
                _ => json!({"command": "nothing", "request_id": i}),
            };
            dealer.send(&[Vec::new(), frame(&request)]);
        }
        let mut answered = vec![0; 200];
        for _ in 0..200 {
            let reply = value_of(&dealer.receive()[1]);
            let i = usize::try_from(reply["request_id"].as_u64().unwrap()).unwrap();
            assert_eq!(reply["success"] == true, i % 4 != 3, "{reply}");
            answered[i] += 1;
        }
        assert_eq!(answered, vec![1; 200]);
        assert!(!dealer.has_more(50));
    }
}

#[test]
fn what_is_no_zeromq_at_all_harms_nobody() {
    let daemon = Setup::new("").tcp().start();
    let address = daemon.tcp().replace("tcp://", "");
    let connect = || TcpStream::connect(&address).unwrap();
    drop(connect());
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f", &[0xff; 100_000], b"\0"] {
        let mut stream = connect();
        // The daemon may have hung up before all of it is written.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // A message above what libzmq is told to take costs its sender the connection, and nobody else anything.
    let other = Peer::connect(zmq::REQ, &daemon.tcp());
    assert_eq!(other.ask(&[PING])["success"], true);
    let huge = Peer::connect(zmq::DEALER, &daemon.tcp());
    huge.send(&[Vec::new(), vec![0; 17 << 20]]);
    assert_eq!(other.ask(&[PING])["success"], true);
    assert!(!huge.has_more(50));
}

#[test]
fn refusals_hold_facts_for_programs() {
    let daemon = Daemon::start("");
    let error = daemon.refusal("execute", json!({"name": "none"}));
    assert_eq!(error.details.get("nearest"), None::<&Detail>, "nothing is near");
    assert_eq!(daemon.metric("procman_requests_total", &["command=\"execute\"", "outcome=\"not_found\""]), Some(1.0));
}
