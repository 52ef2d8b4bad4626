//! A daemon of canned replies: a ROUTER socket in a thread of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use procman::client::Endpoint;
use procman::protocol::codec::{Request, decode_request, encode_error, encode_result};
use procman::protocol::reply::View;
use procman::protocol::{StateName, Wanted, WireError};
use serde::Serialize;

/// What the fake does with one request.
pub(crate) enum Act {
    /// Sends this frame.
    Reply(Vec<u8>),
    /// Sends these frames.
    Frames(Vec<Vec<u8>>),
    /// Says nothing.
    Silence,
    /// Closes its socket, as a daemon that is killed.
    Die,
}

/// Runs until it is dropped.
pub(crate) struct Fake {
    pub(crate) endpoint: Endpoint,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Request>>>,
    /// The directory of its socket.
    _dir: tempfile::TempDir,
}

impl Fake {
    /// At an ipc path of its own.
    pub(crate) fn start(script: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("ipc://{}", dir.path().join("c.sock").display());
        Self::bind(&address, dir, script)
    }

    /// At a free TCP port of the loopback.
    pub(crate) fn start_tcp(script: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        Self::bind("tcp://127.0.0.1:*", tempfile::tempdir().unwrap(), script)
    }

    /// At an address that outlives it.
    pub(crate) fn start_at(address: &str, script: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        Self::bind(address, tempfile::tempdir().unwrap(), script)
    }

    fn bind(address: &str, dir: tempfile::TempDir, mut script: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::ROUTER).unwrap();
        socket.set_linger(0).unwrap();
        // Looks at `stop` that often.
        socket.set_rcvtimeo(20).unwrap();
        socket.bind(address).unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap().parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let Ok(frames) = socket.recv_multipart(0) else { continue };
                let [peer, delimiter, body] = &frames[..] else { panic!("{frames:?}") };
                assert!(delimiter.is_empty());
                let request = decode_request(body).unwrap();
                let act = script(&request);
                asked.push(request);
                match act {
                    Act::Reply(frame) => socket.send_multipart([peer, &Vec::new(), &frame], 0).unwrap(),
                    Act::Frames(frames) => {
                        let all: Vec<_> = [peer.clone(), Vec::new()].into_iter().chain(frames).collect();
                        socket.send_multipart(all, 0).unwrap();
                    }
                    Act::Silence => {}
                    Act::Die => break,
                }
            }
            asked
        });
        Self { endpoint, stop, thread: Some(thread), _dir: dir }
    }

    /// Ends it and tells what it was asked.
    pub(crate) fn asked(mut self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The reply to a request that was done.
pub(crate) fn done<T: Serialize>(request: &Request, result: &T) -> Act {
    Act::Reply(encode_result(result, request.request_id.as_ref()).unwrap())
}

/// The reply to a request that was refused.
pub(crate) fn refused(request: &Request, error: &WireError) -> Act {
    Act::Reply(encode_error(error, request.request_id.as_ref()).unwrap())
}

/// A sub-process in a state.
pub(crate) fn view(name: &str, state: StateName) -> View {
    View {
        name: name.parse().unwrap(),
        group: None,
        state,
        wanted: Wanted::Down,
        pid: None,
        uuid: None,
        started_at: None,
        uptime: None,
        ready: false,
        health: None,
        returncode: None,
        signal: None,
        cause: None,
        restarts: 0,
        next_start_at: None,
        cmd: vec!["sleep".into(), "60".into()],
        args: vec![],
        shell: false,
        cwd: None,
        stdout: "null".into(),
        stderr: "null".into(),
        message: None,
        log_problem: None,
        cgse: None,
    }
}
