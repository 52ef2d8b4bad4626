//! Asks the operating system whether anybody listens at an endpoint.
//!
//! libzmq connects in the background and tries again for ever, so a client that only waits for its reply cannot tell an absent daemon from a slow one,
//! and never learns the reason (no such file, refused, not allowed). A plain `connect(2)` before libzmq's own tells both at once. The daemon sees a
//! connection that is closed before its greeting, which does no harm.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::endpoint::Endpoint;

/// What to hand to `zmq_connect(3)`, and whether it is an IPv6 address.
pub(super) struct Target {
    pub(super) address: String,
    pub(super) ipv6: bool,
}

/// Connects and hangs up. A name is resolved here, once, and libzmq is given the address that answered, so that it cannot choose another one
/// (`localhost` is two).
pub(super) fn probe(endpoint: &Endpoint, limit: Duration) -> io::Result<Target> {
    // Neither the resolver nor connect(2) on a Unix socket whose backlog is full knows a time limit: a thread waits for them, which ends by itself.
    let (sender, receiver) = mpsc::sync_channel(1);
    let asked = endpoint.clone();
    thread::Builder::new().name("probe".to_owned()).spawn(move || {
        // Nobody listens any more when the limit has passed.
        let _ = sender.send(connect(&asked, limit));
    })?;
    match receiver.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the connecting thread broke")),
    }
}

fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<Target> {
    match endpoint {
        Endpoint::Ipc(path) => {
            UnixStream::connect(path)?;
            Ok(Target { address: endpoint.to_string(), ipv6: false })
        }
        Endpoint::Tcp { host, port } => {
            let mut refusal = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, limit) {
                    Ok(_) => return Ok(Target { address: format!("tcp://{address}"), ipv6: address.is_ipv6() }),
                    Err(error) => refusal = error,
                }
            }
            Err(refusal)
        }
    }
}
