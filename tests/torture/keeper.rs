//! The service manager's descriptor store (sd_notify(3), `FDSTORE=1`): keeps what a daemon gives it, under the names that the daemon says, and hands it
//! to the next one.

use std::collections::HashSet;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::launcher::{BATCH, END};

/// How often it looks whether it is to end, in milliseconds.
const LOOK: u16 = 50;

/// A store, with the thread that listens.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    socket: Arc<UnixDatagram>,
    kept: Arc<Mutex<Kept>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Kept {
    descriptors: Vec<(String, RawFd)>,
    /// Every name that was ever given.
    ever: HashSet<String>,
    /// Messages that systemd would have understood otherwise than the daemon means.
    wrong: Vec<String>,
}

impl Keeper {
    pub(crate) fn listen(dir: &Path) -> Self {
        let path = dir.join("notify.sock");
        let socket = Arc::new(UnixDatagram::bind(&path).unwrap());
        let (kept, end) = (Arc::new(Mutex::new(Kept::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stop) = ((socket.clone(), kept.clone()), end.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(shared.0.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(LOOK)).unwrap();
                shared.1.lock().unwrap().drain(&shared.0);
            }
        });
        Self { path, socket, kept, end, thread: Some(thread) }
    }

    /// The daemon's `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that was sent until now is taken.
    fn drained(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap();
        kept.drain(&self.socket);
        kept
    }

    /// Sends all that is kept to a launcher, and keeps it, as systemd does.
    pub(crate) fn hand_out(&self, launcher: &UnixDatagram) {
        let kept = self.drained();
        for batch in kept.descriptors.chunks(BATCH) {
            let (names, fds): (Vec<&str>, Vec<RawFd>) = batch.iter().map(|(name, fd)| (name.as_str(), *fd)).unzip();
            let names = names.join(":");
            sendmsg::<()>(
                launcher.as_raw_fd(),
                &[IoSlice::new(names.as_bytes())],
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::empty(),
                None,
            )
            .unwrap();
        }
    }

    /// Whether a descriptor was ever given under this name.
    pub(crate) fn was_given(&self, name: &str) -> bool {
        self.drained().ever.contains(name)
    }

    /// The names under which something is kept.
    pub(crate) fn names(&self) -> Vec<String> {
        self.drained().descriptors.iter().map(|(name, _)| name.clone()).collect()
    }

    /// What was said wrongly.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.drained().wrong.clone()
    }
}

/// Tells a launcher that nothing more comes.
pub(crate) fn that_is_all(launcher: &UnixDatagram) {
    launcher.send(END).unwrap();
}

fn close(fd: RawFd) {
    let _ = nix::unistd::close(fd); // there is nothing to be done about it
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.descriptors.iter().for_each(|(_, fd)| close(*fd));
    }
}

impl Kept {
    fn drain(&mut self, socket: &UnixDatagram) {
        loop {
            let mut buffer = vec![0; 4096];
            let mut control = nix::cmsg_space!([RawFd; BATCH]);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("cannot listen to the daemon: {error}"),
            };
            let mut fds = Vec::new();
            for control in message.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(came) = control {
                    fds.extend(came);
                }
            }
            let length = message.bytes;
            self.take(&String::from_utf8_lossy(&buffer[..length]), fds);
        }
    }

    fn take(&mut self, text: &str, fds: Vec<RawFd>) {
        let says = |assignment: &str| text.lines().any(|line| line == assignment);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
        if says("FDSTOREREMOVE=1") {
            let (gone, stay) = std::mem::take(&mut self.descriptors).into_iter().partition(|(kept, _)| *kept == name);
            self.descriptors = stay;
            let gone: Vec<(String, RawFd)> = gone;
            gone.iter().for_each(|(_, fd)| close(*fd));
        }
        // Without FDPOLL=0 systemd drops a descriptor that hangs up, as that of an ended process does.
        if fds.is_empty() == says("FDSTORE=1") || (says("FDSTORE=1") && !says("FDPOLL=0")) || name.contains(':') {
            self.wrong.push(text.to_owned());
        }
        for fd in fds {
            self.ever.insert(name.clone());
            self.descriptors.push((name.clone(), fd));
        }
    }
}
