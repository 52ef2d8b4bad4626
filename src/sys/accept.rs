//! The way to new connections (accept4(2)) of libzmq, which must not be told that descriptors are used up, and of all others: how many there may be is bounded here.
//!
//! libzmq 4 ends the whole process with an assertion when a connection to an ipc endpoint is accepted and the process has no descriptor left
//! (`ipc_listener.cpp`: EMFILE is missing among the errors that it passes over, ENFILE is there). A daemon that ends so leaves all its sub-processes
//! alone, and whoever may connect could bring that about. So the C library's function is replaced by one that says ENFILE instead; libzmq then leaves
//! the connection where it is, and takes it once there is room.

use std::collections::HashMap;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libc::{c_int, sockaddr, socklen_t, timespec};

/// What libzmq's thread waits before it is told, because it would ask again at once: long enough that this costs next to no processor time, short
/// enough that the connections that are there are served meanwhile.
const PAUSE: timespec = timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Connections that one listening socket may have at a time; 0: as many as come.
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Who is connected to which listening socket, as far as they were counted.
static CONNECTED: Mutex<Option<HashMap<c_int, Connected>>> = Mutex::new(None);

/// How long a look at who is still there holds, where there is no room: one costs a system call for each connection.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The connections of one listening socket.
#[derive(Debug, Default)]
struct Connected {
    /// Where it listens, as [`door_of`] says it: what is connected to it has the same.
    door: Vec<u8>,
    /// Descriptor, and who that is.
    peers: HashMap<c_int, Peer>,
    looked: Option<Instant>,
}

/// An address, or a user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    Address(Vec<u8>),
    User(libc::uid_t),
}

/// From now on each listening socket of this process takes so many connections at a time, and closes what comes beyond; one address, or one user of this
/// host, has half of them at most, so that none keeps all others out.
pub fn at_most(connections: usize) {
    MOST.store(connections, Ordering::Relaxed);
}

impl Connected {
    /// Whether there is room for one more of this peer.
    fn has_room(&mut self, peer: &Peer, most: usize) -> bool {
        let is_full = |this: &Self| {
            this.peers.len() >= most
                || this.peers.len() >= most / 2 && this.peers.values().filter(|other| *other == peer).count() >= most.div_ceil(2)
        };
        if !is_full(self) {
            return true;
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
            return false;
        }
        // Whoever has left was not told of here, and the descriptor may be something else's by now.
        let Self { door, peers, looked } = self;
        peers.retain(|fd, _| door_of(*fd) == *door);
        *looked = Some(Instant::now());
        !is_full(self)
    }
}

/// The address of a socket, or of its peer; empty where it has none, or is none.
fn name_of(fd: c_int, call: unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int) -> Vec<u8> {
    let mut address = [0_u8; size_of::<libc::sockaddr_storage>()];
    let mut length = address.len() as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of `address`, and says how many there were.
    let done = unsafe { call(fd, address.as_mut_ptr().cast(), &mut length) };
    if done == 0 { address[..address.len().min(length as usize)].to_vec() } else { Vec::new() }
}

/// Whether this is the address of a Unix socket.
fn is_unix(address: &[u8]) -> bool {
    matches!(address, [low, high, ..] if i32::from(u16::from_ne_bytes([*low, *high])) == libc::AF_UNIX)
}

/// What a listening socket and its connections have in common: the path, or family and port, as one that listens at every address has none itself.
fn door_of(fd: c_int) -> Vec<u8> {
    let mut name = name_of(fd, libc::getsockname);
    if !is_unix(&name) {
        name.truncate(4);
    }
    name
}

fn peer_of(fd: c_int) -> Peer {
    let mut user = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as socklen_t;
    // SAFETY: SO_PEERCRED (unix(7)) is a ucred, which is what `length` says.
    let done = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut user).cast(), &mut length) };
    let address = name_of(fd, libc::getpeername);
    // Of TCP the answer is nobody.
    if done == 0 && is_unix(&address) {
        return Peer::User(user.uid);
    }
    // Family, port, address …: without the port, which is another one each time.
    let mut address = address;
    address.get_mut(2..4).into_iter().for_each(|port| port.fill(0));
    Peer::Address(address)
}

/// Whether this connection may stay.
fn may_stay(listening: c_int, fd: c_int) -> bool {
    let most = MOST.load(Ordering::Relaxed);
    if most == 0 {
        return true;
    }
    let (door, peer) = (door_of(fd), peer_of(fd));
    let mut connected = CONNECTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let all = connected.get_or_insert_default();
    // It is nobody else's any more.
    all.values_mut().for_each(|other| drop(other.peers.remove(&fd)));
    let connected = all.entry(listening).or_default();
    if connected.door != door {
        // The listening socket is another one than the one that had this descriptor before.
        *connected = Connected { door, ..Connected::default() };
    }
    let has_room = connected.has_room(&peer, most);
    if has_room {
        connected.peers.insert(fd, peer);
    }
    has_room
}

/// Takes a connection: accept4(2) for the whole process, but for the error that libzmq cannot bear, and for those that there is no room for ([`at_most`]).
///
/// # Safety
/// As for accept4(2): `address` is null, or `length` says how many bytes there may be written.
// SAFETY: it keeps what the C library's function of this name promises.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(socket: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int {
    // SAFETY: the arguments are handed on as they came.
    let result = unsafe { libc::syscall(libc::SYS_accept4, socket, address, length, flags) };
    if result < 0 && nix::errno::Errno::last() == nix::errno::Errno::EMFILE {
        // SAFETY: the time is valid, and a null pointer is allowed for what is left of it.
        unsafe { libc::nanosleep(&PAUSE, ptr::null_mut()) };
        nix::errno::Errno::ENFILE.set();
    }
    // A descriptor is a C int.
    let fd = c_int::try_from(result).unwrap_or(-1);
    if fd >= 0 && !may_stay(socket, fd) {
        // SAFETY: it was made just now, and nobody else knows it.
        unsafe { libc::close(fd) };
        // Whoever asked takes that for a client that was quicker to leave.
        nix::errno::Errno::ECONNABORTED.set();
        return -1;
    }
    fd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Peer {
        Peer::Address(vec![2, 0, 0, 0, 127, 0, 0, last])
    }

    #[test]
    fn one_peer_has_half_of_the_room_and_whoever_left_makes_room() {
        let mut connected = Connected { door: vec![1], looked: Some(Instant::now()), ..Connected::default() };
        let enter = |connected: &mut Connected, fd: c_int, peer: Peer| {
            let has_room = connected.has_room(&peer, 10);
            if has_room {
                connected.peers.insert(fd, peer);
            }
            has_room
        };
        assert_eq!((0..10).filter(|fd| enter(&mut connected, -100 - fd, address(1))).count(), 5);
        assert_eq!((0..10).filter(|fd| enter(&mut connected, -200 - fd, Peer::User(7))).count(), 5);
        assert!(!enter(&mut connected, -300, address(2)), "there is no room at all");
        connected.looked = None;
        // None of these descriptors is a socket.
        assert!(enter(&mut connected, -300, address(2)));
        assert_eq!(connected.peers.len(), 1);
    }
}
