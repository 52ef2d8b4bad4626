//! The state directory, held by one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or written.
    #[error("cannot write the state directory {path}: {source}; make it writable for this user, or set daemon.state_dir")]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon holds it.
    #[error("another daemon{} holds the state directory {path}; stop that one, or set another daemon.state_dir", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other one's PID, as it wrote it down.
        pid: Option<u32>,
    },
}

/// The state directory, ours until dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory where it is missing, and takes it: flock(2) on its file `lock`, which the kernel gives back however the daemon ends. `kept`
    /// is the lock that an earlier daemon handed over in this process.
    pub fn take(path: &Path, kept: Option<OwnedFd>) -> Result<Self, StateDirError> {
        let unwritable = |source| StateDirError::Unwritable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(unwritable)?;
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("lock"));
        let is_it = |file: &File| -> io::Result<bool> {
            let (kept, there) = (file.metadata()?, std::fs::metadata(path.join("lock"))?);
            Ok((kept.dev(), kept.ino()) == (there.dev(), there.ino()))
        };
        // What is locked through the same open file is locked already, and not refused.
        let file = match kept.map(File::from).filter(|file| is_it(file).unwrap_or(false)) {
            Some(kept) => kept,
            None => open().map_err(unwritable)?,
        };
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // Only for the message: whoever holds it may be just about to write its PID.
                drop(Read::by_ref(&mut file).take(32).read_to_string(&mut text));
                return Err(StateDirError::Held { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            Err((_, errno)) => return Err(unwritable(errno.into())),
        };
        let note = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut lock).map_err(unwritable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Tells the daemon that holds it from all others of this host, and is the same for the next one: one daemon at a time holds a state directory.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn id(&self) -> io::Result<String> {
        let directory = std::fs::metadata(&self.path)?;
        Ok(format!("{:x}-{:x}", directory.dev(), directory.ino()))
    }

    /// The lock, still held, for the daemon that takes over in this process. `None` where it cannot be handed over: it is given back then.
    pub fn into_lock(self) -> Option<OwnedFd> {
        let fd = self._lock.as_fd().try_clone_to_owned().ok()?;
        std::mem::forget(self._lock); // dropped, it would be unlocked for both
        Some(fd)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = StateDir::take(&path, None).unwrap();
        let error = StateDir::take(&path, None).unwrap_err();
        assert!(matches!(&error, StateDirError::Held { pid: Some(pid), .. } if *pid == std::process::id()), "{error}");
        drop(held);
        assert_eq!(StateDir::take(&path, None).unwrap().path(), path);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = StateDir::take(Path::new("/proc/procman"), None).unwrap_err().to_string();
        assert!(error.contains("/proc/procman") && error.contains("daemon.state_dir"), "{error}");
    }
}
