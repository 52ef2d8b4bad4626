//! Messages that other processes send to a socket of ours, and who sent them (`SCM_CREDENTIALS`, unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// One message that was taken from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// So many bytes of the buffer are the message.
    pub length: usize,
    /// It was longer than the buffer, and its end is lost.
    pub truncated: bool,
    /// PID of the sender as this process sees it, which the kernel vouches for; `None` for one outside its PID namespace.
    pub sender: Option<u32>,
}

/// Room for the sender's credentials and for nothing else: descriptors that come with a message find no room, and the kernel closes them
/// before anybody has them. `CMSG_SPACE` is a multiple of the alignment.
// SAFETY: CMSG_SPACE only computes.
const CREDENTIALS: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

#[repr(C, align(8))]
struct Control([u8; CREDENTIALS]);

/// Has the kernel add the sender's credentials to each message (`SO_PASSCRED`).
pub fn pass_credentials(socket: impl AsFd) -> io::Result<()> {
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true).map_err(io::Error::from)
}

/// Takes one message without waiting. `WouldBlock` when there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; CREDENTIALS]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr: no name, no parts, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CREDENTIALS as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` points to `part`, that to `buffer`, and to `control`, which all live until the end of this function.
    let length = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) } as libc::c_long)?;
    let mut sender = None;
    // SAFETY: the kernel filled in `message` and `control`; with no room for a second header there is at most one.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: where it is not null it points to a whole header within `control`, which is aligned for it.
    if let Some(header) = unsafe { header.as_ref() }
        && (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
    {
        // SAFETY: a header of this type is followed by a whole `ucred`; it is read unaligned.
        let credentials: libc::ucred = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
        sender = u32::try_from(credentials.pid).ok().filter(|pid| *pid != 0);
    }
    Ok(Received { length: usize::try_from(length).unwrap_or(0), truncated: message.msg_flags & libc::MSG_TRUNC != 0, sender })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::io::{IoSlice, Read, pipe};
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_message_comes_with_its_sender_and_is_bounded() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        pass_credentials(&ours).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receive(&ours, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        theirs.send(b"READY=1").unwrap();
        theirs.send(b"READY=1\n\n").unwrap();
        theirs.send(b"").unwrap();
        let sender = Some(std::process::id());
        assert_eq!(receive(&ours, &mut buffer).unwrap(), Received { length: 7, truncated: false, sender });
        assert_eq!(&buffer[..7], b"READY=1");
        assert_eq!(receive(&ours, &mut buffer).unwrap(), Received { length: 8, truncated: true, sender });
        assert_eq!(receive(&ours, &mut buffer).unwrap(), Received { length: 0, truncated: false, sender });
    }

    #[test]
    fn descriptors_that_come_with_a_message_are_closed() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        pass_credentials(&ours).unwrap();
        let (mut reader, writer) = pipe().unwrap();
        let fds = [writer.as_raw_fd()];
        sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"BARRIER=1")], &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)
            .unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        let received = receive(&ours, &mut buffer).unwrap();
        assert_eq!((received.length, received.sender), (9, Some(std::process::id())));
        // Nobody holds the writing end any more, so the pipe is at its end.
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }
}
