//! Raw ZeroMQ sockets that speak MessagePack: what a client in any language does, and what none should.

use procman::protocol::codec::decode_reply;
use procman::protocol::envelope::Reply;
use serde_json::Value;

use super::DEADLINE;

/// One client socket.
pub(crate) struct Peer {
    socket: zmq::Socket,
    _context: zmq::Context,
}

impl Peer {
    /// A socket of this type.
    pub(crate) fn connect(kind: zmq::SocketType, endpoint: &str) -> Self {
        Self::connect_with(kind, endpoint, |_| {})
    }

    /// A socket of this type, with options set before it connects.
    pub(crate) fn connect_with(kind: zmq::SocketType, endpoint: &str, options: impl FnOnce(&zmq::Socket)) -> Self {
        let context = zmq::Context::new();
        let socket = context.socket(kind).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvtimeo(i32::try_from(DEADLINE.as_millis()).unwrap()).unwrap();
        socket.set_sndtimeo(i32::try_from(DEADLINE.as_millis()).unwrap()).unwrap();
        options(&socket);
        socket.connect(endpoint).unwrap();
        Self { socket, _context: context }
    }

    /// Sends these frames as one message.
    pub(crate) fn send<F: AsRef<[u8]>>(&self, frames: &[F]) {
        self.socket.send_multipart(frames.iter().map(AsRef::as_ref), 0).unwrap();
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn receive(&self) -> Vec<Vec<u8>> {
        self.socket.recv_multipart(0).unwrap_or_else(|error| panic!("no reply within {DEADLINE:?}: {error}"))
    }

    /// Whether another message comes within this many milliseconds.
    pub(crate) fn has_more(&self, within: i64) -> bool {
        self.socket.poll(zmq::POLLIN, within).unwrap() > 0
    }

    /// Sends one message and returns the reply to it.
    #[track_caller]
    pub(crate) fn ask<F: AsRef<[u8]>>(&self, frames: &[F]) -> Value {
        self.send(frames);
        let mut reply = self.receive();
        let body = reply.pop().unwrap();
        assert!(reply.iter().all(Vec::is_empty), "frames before the reply: {reply:?}");
        value_of(&body)
    }
}

/// A request as a frame.
pub(crate) fn frame(request: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(request).unwrap()
}

/// A reply's frame as JSON.
#[track_caller]
pub(crate) fn value_of(frame: &[u8]) -> Value {
    rmp_serde::from_slice(frame).unwrap_or_else(|error| panic!("no MessagePack: {error}: {frame:?}"))
}

/// A reply's frame as what a program makes of it.
#[track_caller]
pub(crate) fn reply_of(frame: &[u8]) -> Reply<Value> {
    decode_reply(frame).unwrap_or_else(|error| panic!("no reply: {error}: {frame:?}"))
}
