//! Over real sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use super::*;
use crate::subprocess::spec::probe::{ZmqRequest, ZmqSocket};

const SOON: Duration = Duration::from_secs(10);

async fn ask(probe: Probe) -> Result<(), String> {
    Asker::default().ask(&probe, SOON).await
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_connection_is_enough_and_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(ask(Probe::Tcp(format!("{host}:{port}"))).await, Ok(()));
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        assert!(sent.is_empty());
    }
    let refused = ask(Probe::Tcp(format!("127.0.0.1:{}", free_port()))).await.unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let refused = ask(Probe::Tcp("no-such-host.invalid:1".into())).await.unwrap_err();
    assert!(refused.starts_with("no-such-host.invalid:1: "), "{refused}");
}

#[tokio::test]
async fn sockets_and_files_of_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, file) = (dir.path().join("s"), dir.path().join("f"));
    assert!(ask(Probe::Unix(socket.clone())).await.unwrap_err().contains("No such file"));
    let listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(ask(Probe::Unix(socket.clone())).await, Ok(()));
    drop(listener);
    assert!(ask(Probe::Unix(socket)).await.unwrap_err().contains("refused"));
    assert!(ask(Probe::File(file.clone())).await.unwrap_err().contains("No such file"));
    std::fs::write(&file, "").unwrap();
    assert_eq!(ask(Probe::File(file)).await, Ok(()));
}

/// Answers one connection with these bytes; returns what was asked.
fn serve(listener: &TcpListener, answer: &[u8]) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = Vec::new();
    let mut buffer = [0; 1024];
    while !asked.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the question ended early");
        asked.extend_from_slice(&buffer[..length]);
    }
    drop(stream.write_all(answer)); // who asked may have heard enough
    String::from_utf8(asked).unwrap()
}

async fn ask_http(path: &str, answer: &'static [u8]) -> (Result<(), String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}{path}", listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || serve(&listener, answer));
    (ask(Probe::Http(url)).await, server.join().unwrap())
}

#[tokio::test]
async fn http_is_good_up_to_399() {
    let (good, asked) = ask_http("/health?x=1", b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(good, Ok(()));
    assert!(asked.starts_with("GET /health?x=1 HTTP/1.1\r\nhost: localhost:"), "{asked}");
    let (good, asked) = ask_http("", b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n").await;
    assert_eq!(good, Ok(()));
    assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
    // The body is endless for all anybody knows, and nobody waits for it.
    assert_eq!(ask_http("/", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nxx").await.0, Ok(()));
    let (refused, _) = ask_http("/", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert!(refused.unwrap_err().ends_with("answered 503 Service Unavailable"));
    for broken in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n"] {
        let (refused, _) = ask_http("/", broken).await;
        assert!(refused.unwrap_err().starts_with("no answer from localhost:"));
    }
}

#[tokio::test]
async fn a_head_without_end_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
        let mut sent = 0;
        while stream.write_all(&[b'x'; 4096]).is_ok() {
            sent += 4096;
        }
        sent
    });
    assert!(ask(Probe::Http(url)).await.unwrap_err().starts_with("no answer from"));
    // What the sockets' buffers took is not what was read.
    assert!(server.join().unwrap() < 32 << 20);
}

fn request(endpoint: &str, socket: ZmqSocket, frames: &[&str], expect: Option<&str>) -> Probe {
    Probe::Zmq(ZmqRequest {
        endpoint: endpoint.to_owned(),
        socket,
        frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
        expect: expect.map(str::to_owned),
    })
}

/// A socket that answers so many messages by `answer`; its port.
fn replier(kind: ::zmq::SocketType, times: usize, answer: fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> (u16, std::thread::JoinHandle<()>) {
    let context = ::zmq::Context::new();
    let socket = context.socket(kind).unwrap();
    socket.set_rcvtimeo(10_000).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..times {
            let asked = socket.recv_multipart(0).unwrap();
            socket.send_multipart(answer(asked), 0).unwrap();
        }
        drop(context);
    });
    (port, thread)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_reply_is_good_or_one_that_holds_what_is_expected() {
    let (port, thread) = replier(::zmq::REP, 4, |mut asked| {
        asked.push(b"seen".to_vec());
        asked
    });
    let asker = Asker::default();
    for host in ["127.0.0.1", "localhost"] {
        let probe = request(&format!("tcp://{host}:{port}"), ZmqSocket::Req, &["a", "b"], None);
        assert_eq!(asker.ask(&probe, SOON).await, Ok(()));
    }
    let endpoint = format!("tcp://127.0.0.1:{port}");
    assert_eq!(asker.ask(&request(&endpoint, ZmqSocket::Req, &["a"], Some("ee")), SOON).await, Ok(()));
    let refused = asker.ask(&request(&endpoint, ZmqSocket::Req, &["a"], Some("other")), SOON).await.unwrap_err();
    assert_eq!(refused, format!("the reply of {endpoint} does not hold \"other\""));
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dealer_sends_the_frames_as_they_are() {
    let (port, thread) = replier(::zmq::ROUTER, 1, |asked| {
        assert_eq!(&asked[1..], [b"REQ".to_vec(), b"{}".to_vec()]);
        vec![asked[0].clone(), b"RESPONSE".to_vec(), b"{\"success\": true}".to_vec()]
    });
    let probe = request(&format!("tcp://127.0.0.1:{port}"), ZmqSocket::Dealer, &["REQ", "{}"], Some("\"success\": true"));
    assert_eq!(ask(probe).await, Ok(()));
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_takes_no_longer_than_it_may_and_a_later_service_is_found() {
    let asker = Asker::default();
    let port = free_port();
    let began = Instant::now();
    let probe = request(&format!("tcp://127.0.0.1:{port}"), ZmqSocket::Req, &[""], None);
    let refused = asker.ask(&probe, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(refused, "no answer within 0.2 s");
    assert!(began.elapsed() < SOON);
    // Asked before it is there, it answers once it is.
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}", dir.path().join("late").display());
    let asking = tokio::spawn(asker.ask(&request(&endpoint, ZmqSocket::Req, &["x"], None), SOON));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let context = ::zmq::Context::new();
    let socket = context.socket(::zmq::REP).unwrap();
    socket.bind(&endpoint).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        socket.set_rcvtimeo(10_000).unwrap();
        socket.recv_multipart(0).unwrap();
        socket.send("y", 0).unwrap();
    });
    assert_eq!(asking.await.unwrap(), Ok(()));
    answer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_ask_at_the_same_time() {
    let (port, thread) = replier(::zmq::ROUTER, 100, |asked| asked);
    let asker = Asker::default();
    let probe = request(&format!("tcp://127.0.0.1:{port}"), ZmqSocket::Req, &["x"], Some("x"));
    let answers = futures_util::future::join_all((0..100).map(|_| asker.ask(&probe, SOON))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    thread.join().unwrap();
}
