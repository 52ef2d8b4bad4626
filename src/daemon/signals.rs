//! What the daemon is asked by signals, and who else asks it to leave.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::protocol::CommandName;
use crate::protocol::request::ChildrenAtShutdown;
use crate::supervisor::SupervisorHandle;
use crate::sys::pidfd::PidFd;

use super::bridge::Bridge;
use super::upkeep::Keeper;

/// What the runtime needs to pass on a signal that has reached the process.
const PASSING_ON: Duration = Duration::from_millis(2);

/// The signals that ask the daemon to leave.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Asks for the same, and for sub-processes to be left alone.
    keep: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            keep: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    async fn next(&mut self) -> (Number, ChildrenAtShutdown) {
        tokio::select! {
            _ = self.terminate.recv() => (Number::SIGTERM, ChildrenAtShutdown::Quit),
            _ = self.interrupt.recv() => (Number::SIGINT, ChildrenAtShutdown::Quit),
            _ = self.keep.recv() => (Number::SIGUSR1, ChildrenAtShutdown::Keep),
        }
    }

    /// Resolves when the daemon is to leave, with who asked for it and what is to become of the sub-processes.
    pub(super) async fn asked_to_leave(&mut self, supervisor: &SupervisorHandle, trail: &Bridge) -> (&'static str, ChildrenAtShutdown) {
        tokio::select! {
            (signal, children) = self.next() => {
                trail.audit_signal(CommandName::Shutdown, None);
                supervisor.leave(children);
                (signal.as_str(), children)
            }
            children = supervisor.asked_to_leave() => ("shutdown", children),
        }
    }

    /// Resolves when a daemon that is about to leave its sub-processes alone is to quit them after all, with who asked for it. One that is to leave without
    /// quitting them lets no other program take its place.
    pub(super) async fn overruled(&mut self, supervisor: &SupervisorHandle, keeper: &Keeper, trail: &Bridge) -> &'static str {
        loop {
            tokio::select! {
                (signal, children) = self.next() => {
                    trail.audit_signal(CommandName::Shutdown, None);
                    keeper.leave(children);
                    if children == ChildrenAtShutdown::Quit {
                        return signal.as_str();
                    }
                }
                () = supervisor.asked_to_quit() => return "shutdown",
            }
        }
    }

    /// The next one that asks a daemon to hurry that is quitting its sub-processes. It is too late to leave them alone.
    pub(super) async fn hurry(&mut self) -> &'static str {
        loop {
            let (signal, children) = self.next().await;
            match children {
                ChildrenAtShutdown::Quit => return signal.as_str(),
                ChildrenAtShutdown::Keep => tracing::warn!(%signal, "sub-processes are being quit already, it is ignored"),
            }
        }
    }

    /// Has the program that takes over in this process act on what came too late for this one. To be called where the signals are held back from the
    /// whole process: they wait there until that program listens.
    pub(super) async fn pass_on(mut self) {
        while let Ok((signal, _)) = tokio::time::timeout(PASSING_ON, self.next()).await {
            tracing::info!(%signal, "it is left to the program that takes over");
            if let Err(error) = PidFd::open(std::process::id()).and_then(|this| this.send_signal(signal as i32)) {
                tracing::error!(%signal, %error, "a signal is lost");
            }
        }
    }
}
