//! journald's stream socket: a program's output becomes journal entries, line by line, without anybody in between (sd_journal_stream_fd(3)).

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/stdout";
/// The priority of lines that do not say one themselves: `LOG_INFO` (syslog(3)).
const PRIORITY: u8 = 6;

/// Connects, and says who writes. Lines may begin with `<N>` to give their own priority (sd-daemon(3)).
///
/// # Errors
/// Those of connect(2): `ENOENT` where no journald runs.
pub fn connect(socket: &Path, identifier: &str) -> io::Result<OwnedFd> {
    let mut stream = UnixStream::connect(socket)?;
    stream.shutdown(Shutdown::Read)?;
    // As sd_journal_stream_fd(3) writes them: identifier, unit (none of ours), priority, level prefixes, and whether to forward to syslog, kmsg, console.
    write!(stream, "{identifier}\n\n{PRIORITY}\n1\n0\n0\n0\n")?;
    Ok(stream.into())
}

/// The value of `JOURNAL_STREAM` that tells a program that this descriptor goes to the journal (systemd.exec(5)).
///
/// # Errors
/// Those of fstat(2).
pub fn variable(fd: &OwnedFd) -> io::Result<String> {
    let metadata = std::fs::File::from(fd.try_clone()?).metadata()?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    #[test]
    fn it_says_who_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        assert_eq!(connect(&path, "web").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let listener = UnixListener::bind(&path).unwrap();
        let fd = connect(&path, "web@1").unwrap();
        let (device, inode) = variable(&fd).unwrap().split_once(':').map(|(d, i)| (d.to_owned(), i.to_owned())).unwrap();
        assert!(device.parse::<u64>().is_ok() && inode.parse::<u64>().is_ok());
        UnixStream::from(fd).write_all(b"<3>trouble\n").unwrap();
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "web@1\n\n6\n1\n0\n0\n0\n<3>trouble\n");
    }
}
