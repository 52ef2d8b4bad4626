//! Which signals reach this process.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// Holds the signals back that ask the daemon for something, until [`release`] in this thread: none must end it before it listens. They wait, over an
/// execve(2), too. Call it before any thread is made; and again in a thread that has released them, where no other has.
pub fn hold() -> nix::Result<()> {
    let mut held = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        held.add(signal);
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&held), None)
}

/// Lets all signals through in this thread, also those that whoever started the daemon held back: one thread that takes them is enough.
pub fn release() -> nix::Result<()> {
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
