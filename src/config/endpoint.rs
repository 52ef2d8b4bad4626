//! Where the control door opens: a checked ZeroMQ endpoint.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path of a Unix socket in bytes: `sun_path` holds 108 with the NUL at its end (unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// The longest name of a network interface in bytes: `IFNAMSIZ` is 16 with the NUL at its end (netdevice(7)).
const MAX_INTERFACE: usize = 15;

/// An endpoint that the daemon can bind. Its `Display` is what ZeroMQ is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket at an absolute path of at most [`MAX_SOCKET_PATH`] bytes, which is UTF-8.
    Ipc(PathBuf),
    /// TCP.
    Tcp {
        /// What to listen on. An IPv6 address needs `ZMQ_IPV6` on the socket.
        host: Host,
        /// `None` takes any free port.
        port: Option<u16>,
    },
}

/// What a TCP endpoint listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `*`: every IPv4 address of this host.
    Any,
    /// One address.
    Address(IpAddr),
    /// The addresses of a network interface. ZeroMQ takes no host name here.
    Interface(String),
}

/// A text that is no endpoint the daemon can bind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} cannot be bound: {why}")]
pub struct InvalidEndpoint {
    shown: String,
    why: String,
}

impl Endpoint {
    /// The Unix socket at this path.
    ///
    /// # Errors
    /// The path is relative, too long, or not UTF-8.
    pub fn ipc(path: PathBuf) -> Result<Self, InvalidEndpoint> {
        let no = |why: String| Err(InvalidEndpoint { shown: format!("ipc://{}", path.display()).chars().take(160).collect(), why });
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.len() > MAX_SOCKET_PATH {
            no(format!("a path of {} bytes is too long for a Unix socket, which takes {MAX_SOCKET_PATH}", bytes.len()))
        } else if path.to_str().is_none() {
            no("the path is not UTF-8".into())
        } else if bytes.contains(&0) {
            no("the path holds a NUL byte".into())
        } else if !path.is_absolute() {
            no("the path must be absolute, which makes three slashes: \"ipc:///run/procman/control.sock\"".into())
        } else if path.file_name().is_none() || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            no("the path names a directory, not a socket".into())
        } else {
            Ok(Self::Ipc(path))
        }
    }

    /// Any free port of the loopback interface.
    pub const fn any_port_of_loopback() -> Self {
        Self::Tcp { host: Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: None }
    }

    /// Whether only processes of this host can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ipc(_) => true,
            Self::Tcp { host: Host::Address(address), .. } => address.to_canonical().is_loopback(),
            Self::Tcp { host: Host::Interface(name), .. } => name == "lo",
            Self::Tcp { host: Host::Any, .. } => false,
        }
    }

    /// Whether binding both is bound to fail.
    pub(super) fn collides_with(&self, other: &Self) -> bool {
        match self {
            Self::Tcp { port: None, .. } => false, // each gets a port of its own
            Self::Ipc(_) | Self::Tcp { .. } => self == other,
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let no = |why: &str| Err(InvalidEndpoint { shown: text.chars().take(160).collect(), why: why.to_owned() });
        if let Some(path) = text.strip_prefix("ipc://") {
            return match path {
                _ if path.starts_with('@') => {
                    no("an abstract socket has no permissions, so that every user of this host could command the daemon; give a path")
                }
                "*" => no("clients could not know where it is; give a path"),
                _ => Self::ipc(path.into()),
            };
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return no("say \"ipc:///path\" or \"tcp://address:port\"");
        };
        let Some((host, port)) = address.rsplit_once(':') else {
            return no("the port is missing: \"tcp://127.0.0.1:4269\", or \"tcp://127.0.0.1:*\" for any free one");
        };
        let port = match port {
            "*" => None,
            _ if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => return no("the port is a number or `*`"),
            _ => match port.parse::<u16>() {
                Ok(0) => return no("port 0 cannot be bound; `*` takes any free port"),
                Ok(port) => Some(port),
                Err(_) => return no("a port is at most 65535"),
            },
        };
        match parse_host(host) {
            Ok(host) => Ok(Self::Tcp { host, port }),
            Err(why) => no(why),
        }
    }
}

fn parse_host(text: &str) -> Result<Host, &'static str> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return address.map(|address| Host::Address(address.into())).ok_or("this is no IPv6 address in brackets");
    }
    match text {
        "" => Err("the address is missing; `*` is every IPv4 address of this host"),
        "*" => Ok(Host::Any),
        "localhost" => Err("ZeroMQ binds addresses, not host names; say 127.0.0.1"),
        _ if text.contains(':') => Err("an IPv6 address stands in brackets: \"tcp://[::1]:4269\""),
        _ if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            text.parse::<Ipv4Addr>().map(|address| Host::Address(address.into())).map_err(|_| "this is no IPv4 address")
        }
        _ if text.len() <= MAX_INTERFACE && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b';' | b'[' | b']')) => {
            Ok(Host::Interface(text.to_owned()))
        }
        _ => Err("ZeroMQ binds addresses and network interfaces, not host names; say the IP address"),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
            Self::Tcp { host, port: Some(port) } => write!(f, "tcp://{host}:{port}"),
            Self::Tcp { host, port: None } => write!(f, "tcp://{host}:*"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_can_be_bound_says_itself() {
        for (text, local) in [
            ("ipc:///run/procman/control.sock", true),
            ("ipc:///a b/ü", true),
            ("tcp://127.0.0.1:4269", true),
            ("tcp://127.9.9.9:*", true),
            ("tcp://[::1]:4269", true),
            ("tcp://[::ffff:127.0.0.1]:1", true),
            ("tcp://lo:1", true),
            ("tcp://*:4269", false),
            ("tcp://0.0.0.0:65535", false),
            ("tcp://[::]:*", false),
            ("tcp://eth0.100:4269", false),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.is_local()), (text, local));
        }
    }

    #[test]
    fn what_cannot_is_refused_with_a_reason() {
        let long = format!("ipc:///{}", "x".repeat(MAX_SOCKET_PATH));
        for (text, reason) in [
            ("", "say \"ipc:"),
            ("udp://127.0.0.1:1", "say \"ipc:"),
            ("inproc://x", "say \"ipc:"),
            ("ipc://", "absolute"),
            ("ipc://run/x", "absolute"),
            ("ipc://@name", "no permissions"),
            ("ipc://*", "could not know"),
            ("ipc:///", "directory"),
            ("ipc:///run/", "directory"),
            ("ipc:///run/..", "directory"),
            ("ipc:///a\0b", "NUL"),
            (&long, "108 bytes"),
            ("tcp://127.0.0.1", "port is missing"),
            ("tcp://127.0.0.1:", "number or"),
            ("tcp://127.0.0.1:+1", "number or"),
            ("tcp://127.0.0.1:0", "any free port"),
            ("tcp://127.0.0.1:65536", "at most 65535"),
            ("tcp://:1", "address is missing"),
            ("tcp://127.0.0.256:1", "no IPv4"),
            ("tcp://127.1:1", "no IPv4"),
            ("tcp://::1:1", "brackets"),
            ("tcp://[::1:1", "brackets"),
            ("tcp://[127.0.0.1]:1", "brackets"),
            ("tcp://localhost:1", "127.0.0.1"),
            ("tcp://instrument.example.org:1", "not host names"),
            ("tcp://a b:1", "not host names"),
        ] {
            let message = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?}: {message}");
        }
        assert!(format!("ipc:///{}", "x".repeat(MAX_SOCKET_PATH - 1)).parse::<Endpoint>().is_ok());
    }

    #[test]
    fn two_that_want_the_same_collide() {
        let collide = |a: &str, b: &str| a.parse::<Endpoint>().unwrap().collides_with(&b.parse().unwrap());
        assert!(collide("tcp://[::1]:5", "tcp://[0:0::1]:5"));
        assert!(collide("ipc:///a//b", "ipc:///a/b"));
        assert!(!collide("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"));
        assert!(!collide("tcp://127.0.0.1:5", "tcp://127.0.0.1:6"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "(tcp://|ipc://|ipc:///)?.{0,60}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }
    }
}
