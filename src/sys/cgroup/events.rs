//! Waiting until a group is empty.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::accounting::field;

/// The file `cgroup.events` of one group, which the kernel tells of when it has changed (POLLPRI).
#[derive(Debug)]
pub struct Events(AsyncFd<File>);

impl Events {
    pub(super) fn new(file: File) -> io::Result<Self> {
        // SAFETY: a File owns its descriptor, and shows the same open file for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?))
    }

    /// Whether a process is alive in the group or below it. Zombies do not count. A group that was removed has none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn populated(&self) -> io::Result<bool> {
        let mut buffer = [0; 256];
        match self.0.get_ref().read_at(&mut buffer, 0) {
            Ok(length) => Ok(is_populated(&String::from_utf8_lossy(&buffer[..length]))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Until the file has changed since it was last read here. The kernel may tell late, by up to 10 ms, and may tell of nothing new.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

/// What `cgroup.events` says.
pub(super) fn is_populated(text: &str) -> bool {
    field(text, "populated") != Some(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGroup;
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn what_is_not_said_to_be_empty_is_not() {
        assert!(is_populated("populated 1\nfrozen 0\n") && is_populated(""));
        assert!(!is_populated("populated 0\nfrozen 0\n"));
    }

    #[tokio::test]
    async fn the_kernel_tells_when_the_last_one_is_gone() {
        let Some(test) = TestGroup::new("events") else { return };
        let events = test.group.events().unwrap();
        assert!(!events.populated().unwrap());
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        test.group.enter(child.id()).unwrap();
        assert!(events.populated().unwrap());
        // Again and again: each time it is told, not found by chance.
        for _ in 0..3 {
            test.group.kill().unwrap();
            let gone = async {
                while events.populated().unwrap() {
                    events.changed().await.unwrap();
                }
            };
            tokio::time::timeout(Duration::from_secs(20), gone).await.expect("told within 20 s");
            child.wait().unwrap();
            child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
            test.group.enter(child.id()).unwrap();
            assert!(events.populated().unwrap());
        }
        test.group.kill().unwrap();
        child.wait().unwrap();
    }
}
