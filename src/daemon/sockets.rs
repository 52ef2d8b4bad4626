//! The socket files of ipc endpoints: libzmq would bind over the file of a living daemon, and leaves the permissions to the umask.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Group, chown};

use crate::control::BindError;

/// Who may use a socket file.
#[derive(Clone, Copy, Debug)]
pub struct Permissions<'a> {
    /// Its bits.
    pub mode: u32,
    /// Its group; `None` leaves the daemon's own.
    pub group: Option<&'a str>,
}

/// A socket file of ours, removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // libzmq may have removed it already.
        drop(fs::remove_file(&self.0));
    }
}

/// Opens an ipc endpoint with `bind`: refused when somebody listens there, a stale file is replaced, and nobody but us can connect before its mode
/// is set. `purpose` is that of a [`BindError`].
pub fn bind_ipc<T>(
    path: &Path,
    permissions: Permissions<'_>,
    purpose: &'static str,
    bind: impl FnOnce(&str) -> Result<T, BindError>,
) -> Result<(T, SocketFile), BindError> {
    let endpoint = format!("ipc://{}", path.display());
    let refused = |reason: String| BindError { purpose, endpoint: endpoint.clone(), reason };
    make_way(path).map_err(&refused)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(&endpoint);
    umask(before);
    let bound = bound?;
    let file = SocketFile(path.to_owned());
    let group = permissions.group.map(find_group).transpose().map_err(&refused)?;
    if let Some(group) = &group {
        chown(path, None, Some(group.gid)).map_err(|error| refused(format!("cannot give it to the group {:?}: {error}", group.name)))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(permissions.mode))
        .map_err(|error| refused(format!("cannot set its mode to {:o}: {error}", permissions.mode)))?;
    Ok((bound, file))
}

fn find_group(name: &str) -> Result<Group, String> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group),
        Ok(None) => Err(format!("there is no group {name:?} (socket_group)")),
        Err(error) => Err(format!("cannot look up the group {name:?}: {error}")),
    }
}

/// Removes the socket file of a daemon that is gone.
fn make_way(path: &Path) -> Result<(), String> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !metadata.file_type().is_socket() {
        return Err("there is a file with this name that is no socket; move it away or set another endpoint".to_owned());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err("somebody listens there; another daemon may be running".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| format!("cannot remove the socket of a daemon that is gone: {error}"))
        }
        Err(error) => Err(format!("cannot tell whether somebody listens there: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_living_socket_is_kept_and_a_stale_one_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(make_way(&path).unwrap_err().contains("somebody listens"));
        drop(listener);
        assert_eq!(make_way(&path), Ok(()));
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(make_way(&path).unwrap_err().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
