//! Which addresses this host has.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Whether whoever connects to this address connects to this host: it is one of its interfaces', or leads back to it.
///
/// # Errors
/// The kernel does not list the interfaces (getifaddrs(3)).
pub fn is_own(address: IpAddr) -> io::Result<bool> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Ok(true);
    }
    let own = getifaddrs()?.filter_map(|interface| interface.address).any(|own| {
        let v4 = own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        v4.or_else(|| own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip()))) == Some(address)
    });
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_back_is_own_and_what_is_for_documents_is_not() {
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_own(own.parse().unwrap()).unwrap(), "{own}");
        }
        for other in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0"] {
            assert!(!is_own(other.parse().unwrap()).unwrap(), "{other}");
        }
        // What this host sends from, where it can send at all.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()).unwrap());
        }
    }
}
