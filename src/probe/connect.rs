//! A connection that is closed again at once. Nothing is sent.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpStream, UnixStream};

/// Connects to whichever of these addresses answers first: all are tried at the same time, as one that does not answer would use up the time.
pub(super) async fn tcp(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut tries: FuturesUnordered<_> = addresses
        .iter()
        .map(|address| async move {
            let refused = |error: std::io::Error| format!("cannot connect to {address}: {error}");
            let stream = TcpStream::connect(address).await.map_err(refused)?;
            if reaches_itself(&stream) {
                // Let go of the port at once: its service may be about to bind it.
                drop(stream.set_zero_linger());
                return Err(refused(std::io::ErrorKind::ConnectionRefused.into()));
            }
            Ok(stream)
        })
        .collect();
    let mut refused = "there is no address to connect to".to_owned();
    while let Some(connected) = tries.next().await {
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Whether a connection to this host met itself: at a port where nobody listens, the kernel may by chance give a connection that very port as its own,
/// and then it is open at both ends (RFC 9293, simultaneous open). No service has answered.
fn reaches_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(own), Ok(other)) if own == other)
}

/// Connects to a socket of this host.
pub(super) async fn unix(path: &Path) -> Result<(), String> {
    UnixStream::connect(path).await.map(drop).map_err(|error| format!("cannot connect to {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_meets_itself_is_known() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        assert!(reaches_itself(&stream));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(!reaches_itself(&tcp(&[listener.local_addr().unwrap()]).await.unwrap()));
    }
}
