//! Real clients over real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::*;
use crate::telemetry::Telemetry;
use crate::telemetry::page::tests::{exporter, running};

/// A door on a port of its own; it closes when dropped.
struct Served {
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
    shutdown: Option<oneshot::Sender<()>>,
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<()>>,
}

const PATIENCE: Duration = Duration::from_secs(20);

fn served_with(exporter: Exporter, timing: Timing) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (readiness, seen) = watch::channel(Readiness::Starting);
    let (shutdown, asked) = oneshot::channel();
    let stop = async {
        let _ = asked.await;
    };
    let task = runtime.spawn(serve_timed(listener, Arc::new(exporter), seen, stop, timing));
    Served { address, readiness, shutdown: Some(shutdown), runtime: Some(runtime), task: Some(task) }
}

fn served() -> Served {
    served_with(exporter("", vec![running("web", 4100)]), Timing { head: PATIENCE, write: PATIENCE })
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads until the server closes.
    fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn ask(&self, method: &str, path: &str) -> String {
        self.exchange(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// Asks it to end, and waits until it has.
    fn close(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
        let task = self.task.take().unwrap();
        let runtime = self.runtime.take().unwrap();
        runtime.block_on(async { timeout(PATIENCE, task).await.expect("serve ends").unwrap() });
    }
}

/// Reads one response with a body of announced length from a connection that stays open; `None` when the server closed it instead.
fn read_response(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(head + &String::from_utf8(body).unwrap())
}

#[test]
fn every_path_is_answered() {
    let door = served();
    let page = door.ask("GET", "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("content-type: text/plain; version=0.0.4\r\n"), "{page}");
    assert!(page.contains("\nprocman_process_up{name=\"web\",group=\"core\"} 1\n") && page.ends_with('\n'));
    assert!(door.ask("GET", "/metrics?name=x").starts_with("HTTP/1.1 200"));
    assert!(door.ask("GET", "/healthz").ends_with("\r\n\r\nok\n"));
    assert!(door.ask("GET", "/").contains("/readyz"));
    assert!(door.ask("GET", "/nothing").starts_with("HTTP/1.1 404"));
    assert!(door.ask("POST", "/nothing").starts_with("HTTP/1.1 404"));
    for method in ["POST", "DELETE", "BREW"] {
        let refused = door.ask(method, "/metrics");
        assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD\r\n"), "{refused}");
    }
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let door = served();
    let (get, head) = (door.ask("GET", "/metrics"), door.ask("HEAD", "/metrics"));
    let body = get.split_once("\r\n\r\n").unwrap().1;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"));
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
}

#[test]
fn readiness_is_what_the_daemon_says() {
    let door = served();
    let starting = door.ask("GET", "/readyz");
    assert!(starting.starts_with("HTTP/1.1 503") && starting.ends_with("the daemon is starting\n"), "{starting}");
    door.readiness.send_replace(Readiness::Ready);
    assert!(door.ask("GET", "/readyz").starts_with("HTTP/1.1 200"));
    door.readiness.send_replace(Readiness::Stopping);
    assert!(door.ask("GET", "/readyz").ends_with("the daemon is leaving\n"));
    assert!(door.ask("GET", "/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_connection_is_kept() {
    let door = served();
    let mut stream = door.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(read_response(&mut stream).unwrap().ends_with("ok\n"));
    }
}

#[test]
fn garbage_is_refused_and_hurts_nobody() {
    let door = served();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for garbage in
        ["\0\u{1}\u{2}\r\n\r\n", "HELLO\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &long]
    {
        let mut stream = door.connect();
        let _ = stream.write_all(garbage.as_bytes());
        let mut reply = Vec::new();
        // The server may reset the connection when it leaves bytes unread.
        let _ = stream.read_to_end(&mut reply);
        assert!(reply.is_empty() || reply.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&reply));
    }
    // One that says it has a body and does not send it is answered all the same.
    let mut stream = door.connect();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    assert!(read_response(&mut stream).unwrap().starts_with("HTTP/1.1 405"));
    drop(door.connect());
    door.connect().shutdown(Shutdown::Write).unwrap();
    assert!(door.ask("GET", "/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_that_never_ends_its_request_is_closed() {
    let door = served_with(exporter("", vec![]), Timing { head: Duration::from_millis(200), write: PATIENCE });
    let mut drip = door.connect();
    let mut idle = door.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(read_response(&mut idle).unwrap().ends_with("ok\n"));
    drip.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    drip.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    let mut byte = [0];
    loop {
        assert!(start.elapsed() < PATIENCE, "still open");
        // Either way of learning that the other side closed will do; a read that times out is the pause between two drips.
        if drip.write_all(b"X").is_err() || matches!(drip.read(&mut byte), Ok(0)) {
            break;
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(150), "closed before its time");
    assert_eq!(read_response(&mut idle), None);
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let samples = (0..1000).map(|n| running(&format!("process-{n:04}"), 5000 + n)).collect();
    let door = served_with(exporter("", samples), Timing { head: PATIENCE, write: Duration::from_millis(200) });
    let mut lazy: Vec<_> = (0..2 * MAX_PAGES).map(|_| door.connect()).collect();
    // More pages than a socket's buffers hold, from more clients than may have a page at a time.
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(16);
    for stream in &mut lazy {
        stream.write_all(&request).unwrap();
    }
    let page = door.ask("GET", "/metrics");
    assert!(page.starts_with("HTTP/1.1 200") && page.len() > 1_000_000);
    for mut stream in lazy {
        let start = Instant::now();
        // Nothing is read, so that only the deadline of the response can end it; a connection that was closed refuses a byte.
        while stream.write_all(b"\n").is_ok() {
            assert!(start.elapsed() < PATIENCE / 2, "still open");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_client_that_reads_drop_by_drop_is_dropped() {
    let samples = (0..1000).map(|n| running(&format!("process-{n:04}"), 5000 + n)).collect();
    let door = served_with(exporter("", samples), Timing { head: PATIENCE, write: Duration::from_millis(200) });
    let mut slow = door.connect();
    slow.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(16)).unwrap();
    let start = Instant::now();
    let mut sip = [0; 1024];
    while slow.write_all(b"\n").is_ok() && matches!(slow.read(&mut sip), Ok(1..)) {
        assert!(start.elapsed() < PATIENCE / 2, "still open");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "closed before its time");
}

#[test]
fn two_hundred_at_once_are_all_answered() {
    let door = served();
    // They keep their connections after they were answered: the later ones get in only because idle ones are asked to leave, long before their time
    // is over.
    let start = Instant::now();
    let mut streams: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = door.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        let reply = read_response(stream).expect("a response");
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("procman_process_up"));
    }
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

#[test]
fn it_ends_though_clients_stay() {
    let mut door = served();
    let mut idle = door.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(read_response(&mut idle).is_some());
    let mut half = door.connect();
    half.write_all(b"GET /hea").unwrap();
    door.close();
    assert_eq!(read_response(&mut idle), None);
    assert!(TcpStream::connect(door.address).is_err());
}

#[test]
fn a_source_that_fails_is_a_fault_and_no_end() {
    let exporter = Telemetry::new().unwrap().exporter("", Arc::new(|| panic!("on purpose"))).unwrap();
    let door = served_with(exporter, Timing { head: PATIENCE, write: PATIENCE });
    for _ in 0..2 * MAX_PAGES {
        assert!(door.ask("GET", "/metrics").starts_with("HTTP/1.1 500"));
    }
    assert!(door.ask("GET", "/healthz").starts_with("HTTP/1.1 200"));
}
