//! A request to a ZeroMQ socket, from a fresh socket for each try: one that got no answer is of no more use.

use std::net::SocketAddr;

use crate::subprocess::spec::probe::{ZmqRequest, ZmqSocket};
use crate::sys::readiness;

use super::Asker;

/// The largest frame of a reply, in bytes; libzmq cuts a connection that brings a larger one.
const MAX_FRAME: i64 = 1 << 20;
/// The most frames of a reply that are looked at.
const MAX_FRAMES: usize = 64;

/// Asks; any reply is good, or one that has the expected text in a frame.
pub(super) async fn ask(asker: &Asker, request: &ZmqRequest) -> Result<(), String> {
    let endpoint = endpoint(asker, &request.endpoint).await?;
    let refused = |error: zmq::Error| format!("cannot ask {}: {error}", request.endpoint);
    let socket = open(asker, request.socket, &endpoint).map_err(refused)?;
    let signal = socket
        .get_fd()
        .map_err(refused)
        .and_then(|fd| readiness::watch_duplicate(fd).map_err(|error| format!("cannot wait for {}: {error}", request.endpoint)))?;
    // Queued for a connection that is being made.
    socket.send_multipart(request.frames.iter().map(String::as_bytes), zmq::DONTWAIT).map_err(refused)?;
    loop {
        // The descriptor tells changes only: the socket is emptied before it is waited for.
        match receive(&socket, request.expect.as_deref()) {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => {
                return Err(format!("the reply of {} does not hold {:?}", request.endpoint, request.expect.as_deref().unwrap_or_default()));
            }
            Ok(None) => {}
            Err(error) => return Err(refused(error)),
        }
        match signal.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return Err(format!("cannot wait for {}: {error}", request.endpoint)),
        }
    }
}

fn open(asker: &Asker, kind: ZmqSocket, endpoint: &str) -> zmq::Result<zmq::Socket> {
    let socket = asker.0.context.socket(match kind {
        ZmqSocket::Req => zmq::REQ,
        ZmqSocket::Dealer => zmq::DEALER,
    })?;
    socket.set_linger(0)?;
    socket.set_maxmsgsize(MAX_FRAME)?;
    socket.set_ipv6(endpoint.contains('['))?;
    socket.connect(endpoint)?;
    Ok(socket)
}

/// One reply, if it has arrived: whether it is the expected one.
fn receive(socket: &zmq::Socket, expect: Option<&str>) -> zmq::Result<Option<bool>> {
    let mut good = expect.is_none();
    for at in 0.. {
        let mut frame = zmq::Message::new();
        match socket.recv(&mut frame, zmq::DONTWAIT) {
            Ok(()) => {}
            // The frames of a message arrive together, so only the first can be missing.
            Err(zmq::Error::EAGAIN) if at == 0 => return Ok(None),
            Err(zmq::Error::EINTR) => continue,
            Err(error) => return Err(error),
        }
        good |= at < MAX_FRAMES && expect.is_some_and(|expected| holds(&frame, expected.as_bytes()));
        if !frame.get_more() {
            break;
        }
    }
    Ok(Some(good))
}

fn holds(frame: &[u8], expected: &[u8]) -> bool {
    expected.is_empty() || frame.windows(expected.len()).any(|window| window == expected)
}

/// The endpoint with an address instead of a name: libzmq would look the name up on the one thread that serves all its sockets.
async fn endpoint(asker: &Asker, endpoint: &str) -> Result<String, String> {
    let Some(address) = endpoint.strip_prefix("tcp://") else { return Ok(endpoint.to_owned()) };
    // With a source address (`tcp://SOURCE;HOST:PORT`) it is left to libzmq.
    if address.parse::<SocketAddr>().is_ok() || address.contains(';') {
        return Ok(endpoint.to_owned());
    }
    let found = asker.resolve(address).await?;
    // A socket has one request under way, so it can connect to one address only; libzmq prefers IPv4, too.
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
    Ok(best.map_or_else(|| endpoint.to_owned(), |address| format!("tcp://{address}")))
}
