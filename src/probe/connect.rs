//! A connection that is closed again at once. Nothing is sent.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpStream, UnixStream};

/// Connects to whichever of these addresses answers first: all are tried at the same time, as one that does not answer would use up the time.
pub(super) async fn tcp(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut tries: FuturesUnordered<_> = addresses
        .iter()
        .map(|address| async move { TcpStream::connect(address).await.map_err(|error| format!("cannot connect to {address}: {error}")) })
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

/// Connects to a socket of this host.
pub(super) async fn unix(path: &Path) -> Result<(), String> {
    UnixStream::connect(path).await.map(drop).map_err(|error| format!("cannot connect to {}: {error}", path.display()))
}
