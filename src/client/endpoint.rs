//! Where the daemon is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a daemon takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `ipc://PATH`: a Unix socket on this host.
    Ipc(PathBuf),
    /// `tcp://HOST:PORT`.
    Tcp {
        /// A name or an address, an IPv6 one without its brackets.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not an endpoint: say ipc:///path/of/the/socket or tcp://host:port")]
pub struct InvalidEndpoint {
    shown: String,
}

/// Neither a flag, nor the environment, nor the user says where the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot tell where the daemon is, XDG_RUNTIME_DIR is not set: give --endpoint or set PROCMAN_ENDPOINT, such as ipc:///run/procman/control.sock"
)]
pub struct NoDefaultEndpoint;

/// The socket of a daemon that root runs.
const SYSTEM_SOCKET: &str = "/run/procman/control.sock";
/// The socket of a daemon that a user runs, below `XDG_RUNTIME_DIR`.
const USER_SOCKET: &str = "procman/control.sock";

impl Endpoint {
    /// The endpoint where nobody says one: the system's daemon for root, else the user's own below `runtime_dir` (`XDG_RUNTIME_DIR`).
    pub fn default_for(root: bool, runtime_dir: Option<PathBuf>) -> Result<Self, NoDefaultEndpoint> {
        match runtime_dir {
            _ if root => Ok(Self::Ipc(SYSTEM_SOCKET.into())),
            Some(dir) if !dir.as_os_str().is_empty() => Ok(Self::Ipc(dir.join(USER_SOCKET))),
            Some(_) | None => Err(NoDefaultEndpoint),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let parsed = if let Some(path) = text.strip_prefix("ipc://") {
            // A leading `@` would be an abstract socket, which has no permissions and so guards nothing.
            (!path.is_empty() && !path.starts_with('@') && !path.contains('\0')).then(|| Self::Ipc(path.into()))
        } else {
            text.strip_prefix("tcp://").and_then(|address| address.rsplit_once(':')).and_then(|(host, port)| {
                let bare = match host.strip_prefix('[') {
                    Some(rest) => rest.strip_suffix(']')?,
                    None if host.contains(':') => return None,
                    None => host,
                };
                let port = port.parse().ok().filter(|port| *port != 0)?;
                let clean = !bare.is_empty() && !bare.contains(|c: char| c.is_control() || c.is_whitespace() || "/;[]".contains(c));
                clean.then(|| Self::Tcp { host: bare.to_owned(), port })
            })
        };
        parsed.ok_or_else(|| InvalidEndpoint { shown: text.chars().take(120).collect() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints_say_themselves() {
        for text in ["ipc:///run/procman/control.sock", "ipc://here.sock", "tcp://localhost:6127", "tcp://127.0.0.1:1", "tcp://[::1]:65535"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "ipc://",
            "ipc://@abstract",
            "tcp://",
            "tcp://host",
            "tcp://host:0",
            "tcp://host:65536",
            "tcp://:1",
            "tcp://::1:5",
            "tcp://[::1:5",
            "tcp://*:5 ",
            "http://x:1",
            "/run/x.sock",
            "tcp://a;b:5",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn root_and_users_have_their_own_daemon() {
        assert_eq!(Endpoint::default_for(true, Some("/run/user/0".into())).unwrap().to_string(), "ipc:///run/procman/control.sock");
        assert_eq!(Endpoint::default_for(false, Some("/run/user/7".into())).unwrap().to_string(), "ipc:///run/user/7/procman/control.sock");
        assert_eq!(Endpoint::default_for(false, None), Err(NoDefaultEndpoint));
        assert_eq!(Endpoint::default_for(false, Some("".into())), Err(NoDefaultEndpoint));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "(tcp://|ipc://)?.{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
