//! The library's client: every end a request can have, and that it is usable after each.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use procman::client::{Client, ClientError, ClientOptions, Endpoint};
use procman::protocol::codec::encode_result;
use procman::protocol::envelope::RequestId;
use procman::protocol::reply::Pong;
use procman::protocol::request::{ByName, Command, NoArgs};
use procman::protocol::{ErrorCode, WireError};

use super::fake::{Act, Fake, done, refused};

/// Far more than an answer takes, far less than anybody would wait.
const LONG: ClientOptions = ClientOptions { timeout: Duration::from_secs(20) };
/// Soon over.
const SHORT: ClientOptions = ClientOptions { timeout: Duration::from_millis(200) };

const PING: Command = Command::Ping(NoArgs {});
const PONG: Pong = Pong { pong: true, time: 1.5 };

fn returncode() -> Command {
    Command::Returncode(ByName { name: "web".parse().unwrap() })
}

#[test]
fn a_question_is_answered_over_ipc_and_tcp() {
    for fake in [Fake::start(|request| done(request, &PONG)), Fake::start_tcp(|request| done(request, &PONG))] {
        let mut client = Client::connect(&fake.endpoint, LONG).unwrap();
        for _ in 0..3 {
            assert_eq!(client.request::<Pong>(&PING).unwrap(), PONG);
        }
        let reply = client.request_raw(&PING).unwrap();
        assert_eq!((&reply["success"], &reply["result"]["time"]), (&true.into(), &1.5.into()));
        assert_eq!(fake.asked().len(), 4);
    }
}

#[test]
fn a_host_name_is_resolved() {
    let fake = Fake::start_tcp(|request| done(request, &PONG));
    let Endpoint::Tcp { port, .. } = fake.endpoint else { panic!("{}", fake.endpoint) };
    // Often an IPv6 address comes first, where nobody listens.
    let endpoint = format!("tcp://localhost:{port}").parse().unwrap();
    assert_eq!(Client::connect(&endpoint, LONG).unwrap().request::<Pong>(&PING).unwrap(), PONG);
}

#[test]
fn a_null_result_and_a_refusal_are_told_apart() {
    let mut first = true;
    let fake = Fake::start(move |request| {
        if std::mem::take(&mut first) {
            done(request, &None::<i32>)
        } else {
            refused(request, &WireError::new(ErrorCode::NotFound, "no web"))
        }
    });
    let mut client = Client::connect(&fake.endpoint, LONG).unwrap();
    assert_eq!(client.request::<Option<i32>>(&returncode()).unwrap(), None);
    match client.request::<Option<i32>>(&returncode()) {
        Err(ClientError::Refused(error)) => assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "no web")),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.request_raw(&returncode()).unwrap()["error"]["code"], "not_found");
}

#[test]
fn a_silent_daemon_is_a_timeout_and_the_client_stays_usable() {
    let mut asked = 0;
    let mut late = None;
    let fake = Fake::start(move |request| {
        asked += 1;
        match asked {
            1 => {
                late = request.request_id.clone();
                Act::Silence
            }
            _ => {
                assert_ne!(late, request.request_id);
                done(request, &PONG)
            }
        }
    });
    let mut client = Client::connect(&fake.endpoint, SHORT).unwrap();
    let start = Instant::now();
    match client.request::<Pong>(&PING) {
        Err(ClientError::Timeout { greeted: true, waited, .. }) => assert!(waited >= SHORT.timeout && waited <= start.elapsed()),
        other => panic!("{other:?}"),
    }
    client.set_timeout(LONG.timeout);
    assert_eq!(client.request::<Pong>(&PING).unwrap(), PONG);
    assert_eq!(fake.asked().len(), 2);
}

#[test]
fn an_absent_daemon_is_unreachable_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.sock");
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (endpoint, kind) in [
        (format!("ipc://{}", missing.display()), io::ErrorKind::NotFound),
        (format!("ipc://{}", stale.display()), io::ErrorKind::ConnectionRefused),
        (format!("tcp://127.0.0.1:{port}"), io::ErrorKind::ConnectionRefused),
    ] {
        let start = Instant::now();
        match Client::connect(&endpoint.parse().unwrap(), LONG) {
            Err(ClientError::Unreachable { source, .. }) => assert_eq!(source.kind(), kind, "{endpoint}"),
            Err(other) => panic!("{endpoint}: {other:?}"),
            Ok(_) => panic!("{endpoint}"),
        }
        assert!(start.elapsed() < LONG.timeout / 2);
    }
}

#[test]
fn a_listener_that_never_greets_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    match Client::connect(&endpoint, SHORT).unwrap().request::<Pong>(&PING) {
        Err(error @ ClientError::Timeout { greeted: false, .. }) => assert!(error.to_string().contains("no ZeroMQ greeting"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_daemon_that_dies_is_not_waited_for() {
    for fake in [Fake::start(|_| Act::Die), Fake::start_tcp(|_| Act::Die)] {
        let mut client = Client::connect(&fake.endpoint, LONG).unwrap();
        let start = Instant::now();
        assert!(matches!(client.request::<Pong>(&PING), Err(ClientError::Disconnected { .. })));
        assert!(start.elapsed() < LONG.timeout / 2);
        // And then it is known to be absent, by the same client.
        assert!(matches!(client.request::<Pong>(&PING), Err(ClientError::Unreachable { .. })));
    }
}

#[test]
fn a_client_finds_a_daemon_that_was_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("ipc://{}", dir.path().join("c.sock").display());
    let first = Fake::start_at(&address, |request| done(request, &PONG));
    let mut client = Client::connect(&first.endpoint, LONG).unwrap();
    assert_eq!(client.request::<Pong>(&PING).unwrap(), PONG);
    drop(first);
    let second = Fake::start_at(&address, |request| done(request, &PONG));
    // A request may still go into the old connection, of which libzmq learns in its own time.
    let deadline = Instant::now() + LONG.timeout;
    while let Err(error) = client.request::<Pong>(&PING) {
        assert!(matches!(error, ClientError::Disconnected { .. }) && Instant::now() < deadline, "{error:?}");
    }
    assert!(!second.asked().is_empty());
}

#[test]
fn what_is_no_reply_is_a_protocol_error_and_the_client_stays_usable() {
    let other = encode_result(&PONG, Some(&RequestId::Text("of somebody else".into()))).unwrap();
    let acts = [
        Act::Reply(b"".to_vec()),
        Act::Reply(b"HTTP/1.1 400 Bad Request".to_vec()),
        Act::Reply(other),
        Act::Frames(vec![b"two".to_vec(), b"frames".to_vec()]),
    ];
    let number = acts.len();
    let mut acts = acts.into_iter();
    let fake = Fake::start(move |request| acts.next().unwrap_or_else(|| done(request, &PONG)));
    let mut client = Client::connect(&fake.endpoint, LONG).unwrap();
    for _ in 0..number {
        assert!(matches!(client.request::<Pong>(&PING), Err(ClientError::Protocol { .. })));
    }
    assert!(matches!(client.request::<Vec<String>>(&PING), Err(ClientError::Protocol { .. })));
    assert_eq!(client.request::<Pong>(&PING).unwrap(), PONG);
}
