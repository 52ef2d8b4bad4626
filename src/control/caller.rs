//! Who asks.

use std::sync::Arc;

use crate::access::Role;

use super::guard::Reach;

/// Who sent a request, as far as the transport tells.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// To which sub-processes.
    pub reach: Reach,
    /// Its name, where it is known by a key.
    pub client: Option<Arc<str>>,
    /// Where it came in.
    pub endpoint: Arc<str>,
    /// Where it is: an IP address, or `uid=… gid=… pid=…` of a Unix socket's peer.
    pub peer: Option<String>,
    /// The routing id that it gave itself, which it has again when it connects anew. libzmq makes one up for who has none, for one connection only.
    pub identity: Option<Vec<u8>>,
}

impl Caller {
    /// What the audit trail calls it: its name, or else its role.
    pub fn principal(&self) -> &str {
        self.client.as_deref().unwrap_or(self.role.as_str())
    }
}

/// The routing id if the client said it itself: those that libzmq makes up begin with a zero byte, which no other may (zmq_setsockopt(3)).
pub fn said_identity(routing_id: &[u8]) -> Option<Vec<u8>> {
    routing_id.first().filter(|first| **first != 0).map(|_| routing_id.to_vec())
}

/// What libzmq says of the peer (`Peer-Address`): an IP address, or at an ipc endpoint `localhost:UID:GID:PID`, with what the kernel knows of the
/// process since it connected.
pub fn peer(endpoint: &str, address: &str) -> Option<String> {
    let mut ids = address.rsplitn(4, ':');
    match (endpoint.starts_with("ipc://"), ids.next(), ids.next(), ids.next(), ids.next()) {
        (true, Some(pid), Some(gid), Some(uid), Some(_)) => Some(format!("uid={uid} gid={gid} pid={pid}")),
        _ => (!address.is_empty()).then(|| address.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_process() {
        for address in ["localhost:1000:100:4711", ":1000:100:4711"] {
            assert_eq!(peer("ipc:///x", address).as_deref(), Some("uid=1000 gid=100 pid=4711"));
        }
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1:2:3:4"] {
            assert_eq!(peer("tcp://*:1", address).as_deref(), Some(address));
        }
        assert_eq!(peer("ipc:///x", ""), None);
    }

    #[test]
    fn what_libzmq_made_up_is_no_identity() {
        assert_eq!(said_identity(b"gui"), Some(b"gui".to_vec()));
        assert_eq!(said_identity(&[0, 1, 2, 3, 4]), None);
        assert_eq!(said_identity(b""), None);
    }
}
