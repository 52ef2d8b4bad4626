//! The state directory, held by one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

/// Whether it is the disk that is out of order: full, failing, or read-only, as a file system is made that has found an error in itself. It may be
/// mended while the daemon runs.
fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EROFS | libc::ENOSPC | libc::EDQUOT | libc::EIO))
}

/// The file that is locked.
const LOCK: &str = "lock";
/// How long a lock of a daemon that is gone is waited for: a process that it was just starting holds it, too, until it executes its program.
const UNEXECUTED: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);

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
    /// The disk is out of order, and there is nothing to hold, or it cannot be read.
    #[error("cannot use the state directory {path}: {source}; look at the disk and the kernel's log, or set daemon.state_dir")]
    Disk {
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
    lock: Mutex<Option<Flock<File>>>,
}

impl StateDir {
    /// Makes the directory where it is missing, and takes it: flock(2) on its file `lock`, which the kernel gives back however the daemon ends. `kept`
    /// is the lock that an earlier daemon handed over in this process. Where an earlier daemon was, it can be taken without writing.
    pub fn take(path: &Path, kept: Option<OwnedFd>) -> Result<Self, StateDirError> {
        DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|source| unwritable(path, source))?;
        // What is locked through the same open file is locked already, and not refused.
        let kept = kept.map(File::from).filter(|kept| is_lock_of(path, kept).unwrap_or(false));
        Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock(path, kept)?)) })
    }

    /// Takes it once more where somebody has made it anew since, as an operator does that was told that it is gone.
    ///
    /// # Errors
    /// Another daemon was faster. That it is not there, or cannot be used, is none: whoever uses it will see.
    pub fn hold(&self) -> Result<(), StateDirError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|held| is_lock_of(&self.path, held).unwrap_or(false)) || !self.path.is_dir() {
            return Ok(());
        }
        match lock(&self.path, None) {
            Ok(lock) => *held = Some(lock),
            Err(error @ StateDirError::Held { .. }) => return Err(error),
            Err(error) => tracing::debug!(%error, "the state directory was made anew, and is not locked"),
        }
        Ok(())
    }

    /// What can be seen beforehand of why the directory could not be taken, because of the disk; changes nothing.
    ///
    /// # Errors
    /// The disk is out of order, and there is nothing to hold.
    pub fn check(path: &Path) -> Result<(), StateDirError> {
        let disk = |source| StateDirError::Disk { path: path.to_owned(), source };
        match File::open(path.join(LOCK)) {
            Err(error) if is_of_the_disk(&error) => Err(disk(error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match nix::unistd::access(path, nix::unistd::AccessFlags::W_OK) {
                Err(nix::errno::Errno::EROFS) => Err(disk(nix::errno::Errno::EROFS.into())),
                Ok(()) | Err(_) => Ok(()),
            },
            Ok(_) | Err(_) => Ok(()),
        }
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
    pub fn into_lock(&self) -> Option<OwnedFd> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let fd = lock.as_fd().try_clone_to_owned().ok()?;
        std::mem::forget(lock); // dropped, it would be unlocked for both
        Some(fd)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn unwritable(path: &Path, source: io::Error) -> StateDirError {
    match is_of_the_disk(&source) {
        true => StateDirError::Disk { path: path.to_owned(), source },
        false => StateDirError::Unwritable { path: path.to_owned(), source },
    }
}

/// Whether this is the file that is to be locked there now.
fn is_lock_of(path: &Path, file: &File) -> io::Result<bool> {
    let (held, there) = (file.metadata()?, std::fs::metadata(path.join(LOCK))?);
    Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
}

/// Locks the file in this directory, which is made where it is missing, or the one that was locked before.
fn lock(path: &Path, kept: Option<File>) -> Result<Flock<File>, StateDirError> {
    let open = || match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK)) {
        // What matters is the lock, which needs no writing.
        Err(error) if is_of_the_disk(&error) => File::open(path.join(LOCK)).map_err(|_| error),
        opened => opened,
    };
    let file = match kept {
        Some(kept) => kept,
        None => open().map_err(|source| unwritable(path, source))?,
    };
    let began = Instant::now();
    let mut file = file;
    let mut lock = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => break lock,
            Err((mut held, nix::errno::Errno::EWOULDBLOCK)) => {
                // Whoever holds it may be just about to write its PID.
                let pid = noted(&mut held);
                if began.elapsed() >= UNEXECUTED || pid.is_none_or(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
                    return Err(StateDirError::Held { path: path.to_owned(), pid });
                }
                file = held;
                std::thread::park_timeout(PAUSE);
            }
            Err((_, errno)) => return Err(unwritable(path, errno.into())),
        }
    };
    let note = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    if let Err(error) = note(&mut lock) {
        // It only helps to find the holder; what is wrong with the disk the store tells.
        tracing::debug!(path = %path.display(), %error, "the PID of this daemon is not noted in its state directory");
    }
    Ok(lock)
}

/// The PID that the holder has written down.
fn noted(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().and_then(|()| Read::by_ref(file).take(32).read_to_string(&mut text)).ok()?;
    text.trim().parse().ok()
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
    fn what_a_daemon_that_is_gone_was_just_starting_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        std::fs::write(dir.path().join(LOCK), gone.id().to_string()).unwrap();
        // A process that has the descriptor still, as one has that is about to execute its program.
        let mut child = std::process::Command::new("flock").arg(dir.path().join(LOCK)).args(["sleep", "0.3"]).spawn().unwrap();
        let is_locked = || Flock::lock(File::open(dir.path().join(LOCK)).unwrap(), FlockArg::LockSharedNonblock).is_err();
        while !is_locked() {
            std::thread::park_timeout(PAUSE);
        }
        StateDir::take(dir.path(), None).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_that_was_made_anew_is_held_by_one_at_a_time_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let held = StateDir::take(&path, None).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        held.hold().unwrap();
        assert!(!path.exists(), "it is not made again unasked");
        std::fs::create_dir(&path).unwrap();
        held.hold().unwrap();
        assert!(matches!(StateDir::take(&path, None), Err(StateDirError::Held { .. })));
        // Another one is faster.
        std::fs::remove_dir_all(&path).unwrap();
        let other = StateDir::take(&path, None).unwrap();
        assert!(matches!(held.hold(), Err(StateDirError::Held { .. })));
        drop(other);
        held.hold().unwrap();
        assert!(matches!(StateDir::take(&path, None), Err(StateDirError::Held { .. })));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = StateDir::take(Path::new("/proc/procman"), None).unwrap_err().to_string();
        assert!(error.contains("/proc/procman") && error.contains("daemon.state_dir"), "{error}");
    }
}
