//! What every test here shares: the real daemon, started and proven to be gone again.
//!
//! - [`setup`]: a directory, a configuration and an environment, from which a daemon is started or a refused start is watched;
//! - [`daemon`]: a running daemon; asks it, waits for facts, and proves at its end that nothing of it is left;
//! - [`marked`]: the processes of one test, known by a variable in their environment;
//! - [`python`]: services to supervise;
//! - [`services`]: real services, unpacked from Debian's packages;
//! - [`wire`]: raw ZeroMQ sockets, for frames that no proper client sends.

mod daemon;
mod marked;
pub(crate) mod python;
mod services;
mod setup;
mod wire;

use std::fmt::Display;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use daemon::Daemon;
pub(crate) use marked::{is_alive, stat_of};
pub(crate) use services::{Services, free_ports, is_free};
pub(crate) use setup::{Refused, Setup};
pub(crate) use wire::{Peer, frame, reply_of, value_of};

/// How long a fact may take to come true. Far more than it ever takes, so that a busy machine makes no test fail.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a fact and returns it.
#[track_caller]
pub(crate) fn until<T>(what: impl Display, fact: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, fact)
}

/// Waits so long for a fact and returns it: what real services do takes longer than what a daemon does.
#[track_caller]
pub(crate) fn within<T>(time: Duration, what: impl Display, mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + time;
    loop {
        if let Some(fact) = fact() {
            return fact;
        }
        assert!(Instant::now() < deadline, "not within {time:?}: {what}");
        pause();
    }
}

/// The pause between two looks at a fact: short against everything that is waited for, long enough to leave the processor to it.
pub(crate) fn pause() {
    #[allow(clippy::disallowed_methods, reason = "between two looks at a fact; nothing is concluded from the time that passed")]
    std::thread::sleep(Duration::from_millis(5));
}

/// The first where the tests are to be thorough (`make torture`), else the second.
pub(crate) fn at_length<T>(long: T, short: T) -> T {
    if std::env::var_os("PROCMAN_TEST_AT_LENGTH").is_some() { long } else { short }
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Writes an executable file. A shell does it: had this process the file open for writing while another test forks, nobody could execute it
/// (ETXTBSY).
pub(crate) fn executable(path: &Path, text: &str) {
    let status = Command::new("/bin/sh").args(["-c", "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(path).arg(text).status();
    assert!(status.unwrap().success(), "cannot write {}", path.display());
}
