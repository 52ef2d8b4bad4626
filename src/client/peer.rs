//! Where the daemon is, and by which keys this client and the daemon know each other there; and the file of a user that says so.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::endpoint::{Endpoint, InvalidEndpoint};
use crate::access::keys::{KeyFileError, NoKey};
use crate::access::{PublicKey, SecretKey};

/// The file of a user, below its directory of configurations.
const FILE: &str = "procman/client.toml";

/// A daemon, as a client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Needed where it is a TCP endpoint under CURVE; not used at a Unix socket.
    pub keys: Option<Keys>,
}

/// The keys of one client and its daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The daemon's.
    pub server: PublicKey,
    /// The client's own.
    pub public: PublicKey,
    /// The secret one that belongs to it.
    pub secret: SecretKey,
}

/// What is wrong with what a user says about keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// One of the two is missing.
    #[error(
        "keys are two: say the daemon's public key (--server-key, or server_key) and the file of your own secret one (--secret-key-file, or secret_key_file)"
    )]
    Half,
    /// The daemon's key is none.
    #[error("the daemon's public key {shown:?} is none: {NoKey}")]
    Server {
        /// What was said.
        shown: String,
    },
    /// The client's own file is out of order.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// libzmq cannot do it.
    #[error("this libzmq was built without CURVE")]
    Unsupported,
    /// The user's file is out of order.
    #[error("{}: {why}", file.display())]
    Settings {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// Its endpoint is none.
    #[error("{}: {source}", file.display())]
    Endpoint {
        /// Which.
        file: PathBuf,
        /// Why.
        source: InvalidEndpoint,
    },
}

impl Peer {
    /// One without keys.
    pub const fn open(endpoint: Endpoint) -> Self {
        Self { endpoint, keys: None }
    }

    /// Prepares a socket that is about to connect there.
    ///
    /// # Errors
    /// libzmq has no CURVE.
    pub(super) fn prepare(&self, socket: &zmq::Socket) -> zmq::Result<()> {
        let (Some(keys), Endpoint::Tcp { .. }) = (&self.keys, &self.endpoint) else { return Ok(()) };
        socket.set_curve_serverkey(keys.server.bytes())?;
        socket.set_curve_publickey(keys.public.bytes())?;
        socket.set_curve_secretkey(keys.secret.bytes())
    }

    /// Whether keys are used there.
    pub(super) const fn is_encrypted(&self) -> bool {
        self.keys.is_some() && matches!(self.endpoint, Endpoint::Tcp { .. })
    }
}

/// What a user says about the daemon: on the command line, or in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Where it is.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its public key in Z85.
    #[serde(default)]
    pub server_key: Option<String>,
    /// The file of the client's secret key.
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
}

impl Said {
    /// What stands in the file of a user; nothing where there is none. Paths in it are relative to it.
    ///
    /// # Errors
    /// It cannot be read, or something else stands there.
    pub fn of_file(file: &Path) -> Result<Self, KeysError> {
        let wrong = |why: String| KeysError::Settings { file: file.to_owned(), why };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut said: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if let (Some(key), Some(directory)) = (&mut said.secret_key_file, file.parent()) {
            *key = directory.join(&*key);
        }
        Ok(said)
    }

    /// Where that file is.
    pub fn file(config_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
        // A relative one is to be ignored (XDG Base Directory Specification).
        let config_home = config_home.filter(|path| path.is_absolute()).map(Path::to_owned);
        Some(config_home.or_else(|| Some(home.filter(|home| home.is_absolute())?.join(".config")))?.join(FILE))
    }

    /// The keys, where it says any.
    ///
    /// # Errors
    /// It says half of it, or what it says are none.
    pub fn keys(&self) -> Result<Option<Keys>, KeysError> {
        let (server, file) = match (&self.server_key, &self.secret_key_file) {
            (None, None) => return Ok(None),
            (Some(server), Some(file)) => (server, file),
            (Some(_), None) | (None, Some(_)) => return Err(KeysError::Half),
        };
        let server = server.trim().parse().map_err(|NoKey| KeysError::Server { shown: server.chars().take(60).collect() })?;
        let secret = SecretKey::read(file)?;
        Ok(Some(Keys { server, public: secret.public().ok_or(KeysError::Unsupported)?, secret }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::access::keys::generate;

    #[test]
    fn a_file_says_where_and_by_which_keys() {
        let dir = tempfile::tempdir().unwrap();
        let (own, server) = (generate(&dir.path().join("me")).unwrap(), generate(&dir.path().join("server")).unwrap());
        let file = dir.path().join("client.toml");
        assert_eq!(Said::of_file(&file).unwrap(), Said::default());
        fs::write(&file, format!("endpoint = 'tcp://h:1'\nserver_key = '{}'\nsecret_key_file = 'me.secret'\n", server.public)).unwrap();
        let said = Said::of_file(&file).unwrap();
        let keys = said.keys().unwrap().unwrap();
        assert_eq!((said.endpoint.as_deref(), keys.server, keys.public), (Some("tcp://h:1"), server.public, own.public));
        assert!(matches!(Said { secret_key_file: None, ..said.clone() }.keys(), Err(KeysError::Half)));
        assert!(matches!(Said { server_key: Some("x".into()), ..said }.keys(), Err(KeysError::Server { .. })));
        fs::write(&file, "endpoints = 'x'").unwrap();
        let wrong = Said::of_file(&file).unwrap_err().to_string();
        assert!(wrong.contains("client.toml") && wrong.contains("endpoints"), "{wrong}");
    }

    #[test]
    fn the_file_is_in_the_directory_of_configurations() {
        let (config, home) = (Path::new("/c"), Path::new("/home/me"));
        assert_eq!(Said::file(Some(config), Some(home)).unwrap(), Path::new("/c/procman/client.toml"));
        for config in [None, Some(Path::new("")), Some(Path::new("c"))] {
            assert_eq!(Said::file(config, Some(home)).unwrap(), Path::new("/home/me/.config/procman/client.toml"));
        }
        assert_eq!(Said::file(None, None), None);
    }
}
