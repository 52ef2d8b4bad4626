//! The library's client: every end a request can have, and that it is usable after each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use procman::client::{Client, ClientError, ClientOptions, Endpoint};
use procman::protocol::codec::{Request, encode_result};
use procman::protocol::envelope::RequestId;
use procman::protocol::reply::{Capabilities, Info, Pong, Unregistered};
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

/// A port behind which first one fake is, and once that has died, another one.
fn one_after_the_other(first: &Fake, then: &Fake) -> Endpoint {
    let port = |fake: &Fake| match fake.endpoint {
        Endpoint::Tcp { port, .. } => port,
        Endpoint::Ipc(_) => panic!("{}", fake.endpoint),
    };
    let (first, then) = (port(first), port(then));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let died = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, died) = (client.unwrap(), died.clone());
            let Ok(server) = TcpStream::connect(("127.0.0.1", if died.load(Ordering::SeqCst) { then } else { first })) else { continue };
            let (mut up, mut down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
            let spoke = Arc::new(AtomicBool::new(false));
            let speaks = spoke.clone();
            std::thread::spawn(move || {
                let mut first = [0];
                if up.0.read_exact(&mut first).is_ok() {
                    speaks.store(true, Ordering::SeqCst);
                    drop(up.1.write_all(&first).and_then(|()| io::copy(&mut up.0, &mut up.1)));
                }
                drop(up.1.shutdown(Shutdown::Both));
            });
            std::thread::spawn(move || {
                drop(io::copy(&mut down.0, &mut down.1));
                // Whoever only looks whether somebody listens says nothing, and goes.
                died.fetch_or(spoke.load(Ordering::SeqCst), Ordering::SeqCst);
                drop(down.1.shutdown(Shutdown::Both));
            });
        }
    });
    endpoint
}

/// What a daemon says of itself that runs for so many seconds.
fn info(uptime: f64) -> Info {
    Info {
        version: "0".into(),
        protocol: 1,
        pid: 1,
        uuid: "u".into(),
        uptime,
        started_at: 0.0,
        hostname: "h".into(),
        endpoints: vec![],
        metrics_endpoint: None,
        capabilities: Capabilities { cgroup: false, pidfd_exit_info: false, curve: false, subreaper: true },
        counts: [].into(),
        events_endpoints: None,
        cgse_endpoints: None,
    }
}

#[test]
fn what_was_asked_over_a_connection_that_broke_is_asked_again_where_that_does_no_harm() {
    let gone = || Command::Unregister(ByName { name: "web".parse().unwrap() });
    let script = |uptime: f64| {
        move |request: &Request| {
            if matches!(request.command, Command::Ping(_)) {
                done(request, &PONG)
            } else if matches!(request.command, Command::Info(_)) {
                done(request, &info(uptime))
            } else {
                done(request, &Unregistered { name: "web".parse().unwrap() })
            }
        }
    };
    // A question is asked again, whoever is there now.
    let [first, then] = [Fake::start_tcp(|_| Act::Die), Fake::start_tcp(script(0.0))];
    let mut client = Client::connect(&one_after_the_other(&first, &then), LONG).unwrap();
    assert_eq!(client.request::<Pong>(&PING).unwrap(), PONG);
    assert_eq!(first.asked()[0], then.asked()[0], "it is the same request");

    // A command that changes something, where the same run of the daemon answers: under its name it is known there.
    let [first, then] = [Fake::start_tcp(|_| Act::Die), Fake::start_tcp(script(1e6))];
    let mut client = Client::connect(&one_after_the_other(&first, &then), LONG).unwrap();
    assert_eq!(client.request::<Unregistered>(&gone()).unwrap().name.as_str(), "web");
    let (first, then) = (first.asked(), then.asked());
    assert!(first[0].client.is_some() && first[0].request_id.is_some());
    assert_eq!((&first[0], then.len()), (&then[1], 2));

    // Another run knows nothing of it, and might do it a second time.
    let [first, then] = [Fake::start_tcp(|_| Act::Die), Fake::start_tcp(script(0.0))];
    let mut client = Client::connect(&one_after_the_other(&first, &then), LONG).unwrap();
    assert!(matches!(client.request::<Unregistered>(&gone()), Err(ClientError::Disconnected { .. })));
    assert!(then.asked().iter().all(|request| matches!(request.command, Command::Info(_))));
    drop(first);
}
