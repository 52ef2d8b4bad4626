//! The socket at which a service says what it wants to say of itself: `$NOTIFY_SOCKET` of sd_notify(3), one for each run.
//!
//! A path socket, because an abstract one could be taken by anybody, and is reached from any mount namespace that shares our network. Who may
//! speak is decided by the sender's credentials, message by message; the file's mode only keeps most others from trying.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};

use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::subprocess::spec::Spec;
use crate::subprocess::spec::probe::{HealthSource, ReadySource};
use crate::sys::datagram::{self, Received};

use super::message::MAX_MESSAGE;

/// The directory of these sockets, below the runtime directory.
const DIRECTORY: &str = "notify";

/// A bound socket. Its file is removed when it is dropped, unless it was handed over.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    handed_over: bool,
}

impl NotifySocket {
    /// Whether this definition needs one.
    pub fn is_wanted(spec: &Spec) -> bool {
        let ready = spec.ready.as_ref().is_some_and(|ready| ready.source == ReadySource::Notify);
        ready || spec.health.as_ref().is_some_and(|health| matches!(health.source, HealthSource::Notify(_)))
    }

    /// Binds `<runtime_dir>/notify/<uuid>`. Needs the runtime.
    ///
    /// The file is for the daemon's own user alone (0600), except when that is root: a service that is started as root often becomes another user
    /// by itself before it says that it is ready, so then anybody may send (0666, as with systemd's own socket). [`NotifySocket::give`] makes it
    /// another user's.
    ///
    /// # Errors
    /// The directory cannot be made, or the path is longer than a socket's name may be (107 bytes, unix(7)).
    pub fn bind(runtime_dir: &Path, uuid: &str) -> io::Result<Self> {
        let directory = runtime_dir.join(DIRECTORY);
        match DirBuilder::new().recursive(true).mode(0o711).create(&directory) {
            Ok(()) => fs::set_permissions(&directory, Permissions::from_mode(0o711))?,
            Err(error) => return Err(error),
        }
        let path = directory.join(uuid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = StdDatagram::bind(&path)?;
        // From here on the file is removed again, whatever fails.
        socket.set_nonblocking(true)?;
        let bound = UnixDatagram::from_std(socket).map(|socket| Self { socket, path: path.clone(), handed_over: false });
        let bound = bound.inspect_err(|_| drop(fs::remove_file(&path)))?;
        datagram::pass_credentials(&bound.socket)?;
        fs::set_permissions(&bound.path, mode(nix::unistd::geteuid().as_raw()))?;
        Ok(bound)
    }

    /// Binds it anew for a run that an earlier daemon started, for the same user. What was sent while nobody had it bound is lost.
    ///
    /// # Errors
    /// As for [`NotifySocket::bind`].
    pub fn rebind(runtime_dir: &Path, uuid: &str) -> io::Result<Self> {
        let before = fs::symlink_metadata(runtime_dir.join(DIRECTORY).join(uuid));
        let socket = Self::bind(runtime_dir, uuid)?;
        if let Ok(before) = before.as_ref().map(fs::Metadata::uid) {
            Self::give(&socket.path, before)?;
        }
        Ok(socket)
    }

    /// Goes on with the socket of an earlier daemon that somebody kept: nothing that was sent to it is lost.
    ///
    /// # Errors
    /// It is not that socket.
    pub fn resume(runtime_dir: &Path, uuid: &str, kept: OwnedFd) -> io::Result<Self> {
        let path = runtime_dir.join(DIRECTORY).join(uuid);
        let socket = StdDatagram::from(kept);
        if socket.local_addr()?.as_pathname() != Some(&path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is another socket"));
        }
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        datagram::pass_credentials(&socket)?;
        Ok(Self { socket, path, handed_over: false })
    }

    /// Makes the socket at `path` that of the user whom the service is started as.
    pub fn give(path: &Path, uid: u32) -> io::Result<()> {
        chown(path, Some(uid), None)?;
        fs::set_permissions(path, mode(uid))
    }

    /// The runs of which a daemon that was killed has left a socket. To be called before the first is bound.
    pub fn left(runtime_dir: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(runtime_dir.join(DIRECTORY)) else { return Vec::new() };
        let sockets = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
        sockets.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the socket of a run that is over, unless somebody has it bound.
    pub fn remove_stale(runtime_dir: &Path, uuid: &str) {
        let path = runtime_dir.join(DIRECTORY).join(uuid);
        let abandoned = |probe: StdDatagram| probe.connect(&path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if StdDatagram::unbound().is_ok_and(abandoned) {
            drop(fs::remove_file(&path));
        }
    }

    /// Removes the socket of a run of ours that needs it no more, also where somebody keeps it for us.
    pub fn remove(runtime_dir: &Path, uuid: &str) {
        drop(fs::remove_file(runtime_dir.join(DIRECTORY).join(uuid))); // there may be none
    }

    /// What the service is told of it: `NOTIFY_SOCKET`, and with `health.notify` the `WATCHDOG_USEC` within which it must say that it is alive.
    ///
    /// Without `WATCHDOG_PID`: the PID is not known before the process is there. sd_watchdog_enabled(3) then takes the interval as meant for
    /// whoever finds it in its environment.
    pub fn environment(&self, spec: &Spec) -> Vec<(String, String)> {
        let mut environment = vec![("NOTIFY_SOCKET".to_owned(), self.path.display().to_string())];
        if let Some(HealthSource::Notify(interval)) = spec.health.as_ref().map(|health| &health.source) {
            environment.push(("WATCHDOG_USEC".to_owned(), interval.as_micros().to_string()));
        }
        environment
    }

    /// One more descriptor of it, for a later daemon, which finds the file in its place.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn hand_over(&mut self) -> io::Result<OwnedFd> {
        let fd = self.socket.as_fd().try_clone_to_owned()?;
        self.handed_over = true;
        Ok(fd)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message.
    pub(super) async fn receive(&self, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<Received> {
        loop {
            match self.socket.try_io(Interest::READABLE, || datagram::receive(&self.socket, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?,
                result => return result,
            }
        }
    }

    /// The next message, if it has arrived.
    pub(super) fn receive_now(&self, buffer: &mut [u8; MAX_MESSAGE]) -> Option<Received> {
        datagram::receive(&self.socket, buffer).ok()
    }
}

/// What the file lets whom do when the service is started as this user.
fn mode(uid: u32) -> Permissions {
    Permissions::from_mode(if uid == 0 { 0o666 } else { 0o600 })
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if !self.handed_over
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_there_for_one_run_and_gone_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = NotifySocket::bind(dir.path(), "a-b").unwrap();
        let path = dir.path().join("notify/a-b");
        assert_eq!(socket.path(), path);
        let mode_of = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode_of(path.parent().unwrap()), 0o711);
        assert_eq!(mode_of(&path), if nix::unistd::geteuid().is_root() { 0o666 } else { 0o600 });

        let client = StdDatagram::unbound().unwrap();
        client.send_to(b"READY=1", &path).unwrap();
        let mut buffer = [0; MAX_MESSAGE];
        let received = socket.receive(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..received.length], received.sender), (&b"READY=1"[..], Some(std::process::id())));
        assert_eq!(socket.receive_now(&mut buffer), None);

        assert_eq!(NotifySocket::left(dir.path()), ["a-b"]);
        NotifySocket::remove_stale(dir.path(), "a-b");
        assert!(path.exists(), "one in use stays");
        drop(socket);
        assert!(!path.exists());

        drop(StdDatagram::bind(&path).unwrap()); // a killed daemon leaves the file
        fs::write(dir.path().join("notify/file"), "").unwrap();
        assert_eq!(NotifySocket::left(dir.path()), ["a-b"]);
        NotifySocket::remove_stale(dir.path(), "a-b");
        assert!(!path.exists() && dir.path().join("notify/file").exists());

        drop(StdDatagram::bind(&path).unwrap());
        NotifySocket::bind(dir.path(), "a-b").unwrap();
    }

    #[tokio::test]
    async fn another_users_socket_is_for_that_user_alone() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = NotifySocket::bind(dir.path(), "x").unwrap();
        NotifySocket::give(socket.path(), 65534).unwrap();
        let metadata = fs::metadata(socket.path()).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (65534, 0o600));
    }
}
