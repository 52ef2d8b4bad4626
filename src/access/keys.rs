//! CURVE keys: 32 bytes, in Z85 (RFC 32 of ZeroMQ) 40 characters. Public ones may be shown to anybody; secret ones lie in files that nobody else reads.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys::curve;

/// Characters of a key.
pub const Z85_LENGTH: usize = 40;
/// The largest file that can be one of a key.
const MAX_FILE_BYTES: u64 = 4096;
/// The mode of a file with a secret key.
const SECRET_MODE: u32 = 0o600;
/// The mode of one with a public key.
const PUBLIC_MODE: u32 = 0o644;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// A secret key. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

/// Both keys of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// What clients must know.
    pub public: PublicKey,
    /// What nobody else may.
    pub secret: SecretKey,
}

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is {Z85_LENGTH} characters of Z85, as `procmand keygen` writes it")]
pub struct NoKey;

/// What is wrong with a file of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("{}: {source}{}", path.display(), if source.kind() == io::ErrorKind::NotFound { "; `procmand keygen` makes one" } else { "" })]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read or change it.
    #[error("{}: {why}", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// By whom, and what to do.
        why: String,
    },
    /// It holds something else.
    #[error("{}: this is no key: {NoKey}", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// There is one already.
    #[error("{} is there already, and is kept: give another name, or move it away", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
}

fn decode(text: &str) -> Result<[u8; 32], NoKey> {
    // libzmq looks up what it is given in a table without asking whether it is in there.
    if text.len() != Z85_LENGTH || !text.is_ascii() {
        return Err(NoKey);
    }
    let key = zmq::z85_decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NoKey)?;
    // What stands for no bytes is not what these bytes are written as.
    if encode(&key) == text { Ok(key) } else { Err(NoKey) }
}

fn encode(key: &[u8; 32]) -> String {
    // 32 bytes always encode: their number is one that 4 divides.
    zmq::z85_encode(key).unwrap_or_default()
}

impl std::str::FromStr for PublicKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        decode(text).map(Self)
    }
}

impl PublicKey {
    /// Of 32 bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// The bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key that belongs to it; `None` where libzmq has no CURVE.
    pub fn public(&self) -> Option<PublicKey> {
        curve::public_of(&encode(&self.0)).and_then(|text| text.parse().ok())
    }

    /// The one in this file, which must be a regular one of this user or of root, with mode 0600 or less: what others can read is no secret, and what they
    /// can write is not ours.
    ///
    /// # Errors
    /// It cannot be read, others can, or it holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let exposed = |why: String| Err(KeyFileError::Exposed { path: path.to_owned(), why });
        // One that is a FIFO is not waited for, and then refused.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return exposed("this is no regular file".to_owned());
        }
        let me = nix::unistd::geteuid().as_raw();
        if metadata.uid() != me && metadata.uid() != 0 {
            return exposed(format!("it belongs to the user {}, who can change it: chown it to the user {me}", metadata.uid()));
        }
        if metadata.mode() & 0o077 != 0 {
            return exposed(format!(
                "other users may read or write it (mode {:04o}): chmod 600, and make a new pair if anybody did",
                metadata.mode() & 0o7777
            ));
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
        decode(text.trim()).map(Self).map_err(|NoKey| KeyFileError::NoKey { path: path.to_owned() })
    }
}

impl ServerKey {
    /// The one of this file, with what clients must know.
    ///
    /// # Errors
    /// As for [`SecretKey::read`], or libzmq has no CURVE.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let secret = SecretKey::read(path)?;
        let unsupported = || KeyFileError::Io {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::Unsupported, "this libzmq was built without CURVE"),
        };
        Ok(Self { public: secret.public().ok_or_else(unsupported)?, secret })
    }
}

/// What [`generate`] has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Mode 0600.
    pub secret_file: PathBuf,
    /// For others.
    pub public_file: PathBuf,
    /// What stands in it.
    pub public: PublicKey,
}

/// Makes a pair, and writes it to `BASE.secret` and `BASE.public`. A file that is there is kept.
///
/// # Errors
/// One is there, or cannot be written; then neither is left behind.
pub fn generate(base: &Path) -> Result<Generated, KeyFileError> {
    let with = |ending: &str| {
        let mut name = base.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (secret_file, public_file) = (with(".secret"), with(".public"));
    let unsupported = |error: zmq::Error| KeyFileError::Io { path: base.to_owned(), source: error.into() };
    let pair = zmq::CurveKeyPair::new().map_err(unsupported)?;
    let public = PublicKey(pair.public_key);
    write_new(&secret_file, SECRET_MODE, &encode(&pair.secret_key))?;
    write_new(&public_file, PUBLIC_MODE, &public.to_string()).inspect_err(|_| drop(fs::remove_file(&secret_file)))?;
    Ok(Generated { secret_file, public_file, public })
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), KeyFileError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::AlreadyExists { KeyFileError::Exists { path } } else { KeyFileError::Io { path, source } }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| {
        drop(fs::remove_file(path));
        KeyFileError::Io { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pair_is_written_read_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("server");
        let made = generate(&base).unwrap();
        assert_eq!(fs::metadata(&made.secret_file).unwrap().permissions().mode() & 0o777, 0o600);
        let read = ServerKey::read(&made.secret_file).unwrap();
        assert_eq!(read.public, made.public);
        assert_eq!(fs::read_to_string(&made.public_file).unwrap().trim().parse(), Ok(made.public));
        assert!(!format!("{read:?}").contains(&encode(read.secret.bytes())), "a secret is not shown");
        assert!(matches!(generate(&base), Err(KeyFileError::Exists { .. })));
        fs::remove_file(&made.secret_file).unwrap();
        assert!(matches!(generate(&base), Err(KeyFileError::Exists { .. })));
        assert!(!made.secret_file.exists(), "half a pair is not left behind");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = generate(&dir.path().join("k")).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&made.secret_file, fs::Permissions::from_mode(mode)).unwrap();
            let error = SecretKey::read(&made.secret_file).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains("k.secret"), "{error}");
        }
        fs::set_permissions(&made.secret_file, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(SecretKey::read(&made.secret_file).is_ok());
        assert!(matches!(SecretKey::read(dir.path()), Err(KeyFileError::Exposed { .. })));
        assert!(SecretKey::read(&dir.path().join("none")).unwrap_err().to_string().contains("keygen"));
    }

    #[test]
    fn what_is_no_key_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for text in ["", "short", &"x".repeat(41), &"\u{e9}".repeat(20), &"\"".repeat(40)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(SecretKey::read(&path), Err(KeyFileError::NoKey { .. })), "{text:?}");
            assert!(text.parse::<PublicKey>().is_err());
        }
    }
}
