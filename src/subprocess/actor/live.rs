//! What there is of a run: its start under way, or its tree.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use crate::output::Lease;
use crate::procfs::{self, Identity, Root};
use crate::protocol::{EndedBy, Origin};
use crate::sys::crash;
use crate::sys::pidfd::{ExitStatus, PidFd};
use crate::sys::reaper::MainGuard;

use super::super::containment::RunGroup;
use super::super::gate::Closed;
use super::super::spawn::{Launch, SpawnFailure, Spawned};
use super::super::tree::Ender;
use super::super::vigil::{NotifySocket, Vigil};

/// What is remembered of a run until it is over.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) uuid: String,
    pub(super) launch: Launch,
    pub(super) origin: Origin,
    pub(super) pid: Option<u32>,
    pub(super) started: Instant,
    pub(super) started_at: SystemTime,
}

/// A run whose tree is not gone.
pub(super) struct Live {
    pub(super) uuid: String,
    /// Its main process, also once that is reaped.
    pub(super) identity: Identity,
    /// `None` once the main is reaped.
    pub(super) main: Option<Main>,
    pub(super) ender: Option<Ender>,
    /// Watches over it until its main is reaped.
    pub(super) vigil: Option<Vigil>,
    /// What the last try said why it was not ready, once it is being ended.
    pub(super) refusal: Option<String>,
    /// The definition's request to stop, while it is being made.
    pub(super) stop_request: Option<BoxFuture<'static, Result<(), String>>>,
    /// What is written down of its end: by whom, and whether a start is to follow.
    pub(super) ending: Option<(EndedBy, bool)>,
    /// Its control group, where it has one.
    pub(super) group: Option<Arc<RunGroup>>,
    /// Keeps its logs looked after.
    pub(super) _leases: Vec<Lease>,
    /// Keeps its orphans attributed to it.
    pub(super) _root: Root,
}

/// The main process of a run.
pub(super) struct Main {
    pub(super) fd: AsyncFd<PidFd>,
    pub(super) _guard: MainGuard,
}

/// A start under way.
pub(super) struct Spawning {
    pub(super) stage: Stage,
    /// Where it will say that it is ready.
    pub(super) notify: Option<NotifySocket>,
    /// Kills it for as long as it is under way, once that is wanted.
    pub(super) killer: JoinSet<()>,
}

/// How far a start is. Each future begins when it is first polled, which is at once: the actor waits for nothing before.
pub(super) enum Stage {
    /// It waits for what it requires; nothing of it has begun.
    Gate(BoxFuture<'static, Result<(), Closed>>),
    /// The process is being made.
    Process(BoxFuture<'static, Result<Spawned, SpawnFailure>>),
}

/// How a stage of a start came out.
pub(super) enum Staged {
    /// What it requires is ready, or has ended for good.
    Gate(Result<(), Closed>),
    /// There is a process, or there is none.
    Process(Result<Spawned, SpawnFailure>),
}

impl Live {
    /// It is being ended: nobody asks it any more how it is.
    pub(super) fn stop_asking(&mut self) {
        if let Some(vigil) = &mut self.vigil {
            self.refusal = self.refusal.take().or_else(|| vigil.refusal().map(str::to_owned));
            vigil.stop_asking();
        }
    }
}

impl Spawning {
    /// How the present stage comes out.
    pub(super) async fn next(&mut self) -> Staged {
        match &mut self.stage {
            Stage::Gate(gate) => Staged::Gate(gate.await),
            Stage::Process(process) => Staged::Process(process.await),
        }
    }
}

/// How long to wait for the status of a main process whose parent is not the daemon, and may reap it: some init processes look every second.
const STRANGE_PARENT: Duration = Duration::from_secs(5);
/// How often to look meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Resolves when the process has ended, reaped. `None` when nobody can tell how.
pub(super) async fn exited(main: &Main) -> Option<ExitStatus> {
    loop {
        match main.fd.readable().await {
            Ok(mut guard) => {
                crash::point("before-reap");
                match main.fd.get_ref().reap() {
                    Ok(Some(status)) => {
                        crash::point("after-reap");
                        return Some(status);
                    }
                    Ok(None) => guard.clear_ready(),
                    Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return status_of_strange_child(main.fd.get_ref()).await,
                    Err(error) => {
                        tracing::error!(%error, "a process ended, and nobody can tell how");
                        return None;
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot wait for a process");
                return None;
            }
        }
    }
}

/// The status of an ended main process that is somebody else's child: an earlier daemon started it, or it said that it is the main process while its
/// parent still lives. Until that parent reaps it, `/proc` tells; after that, a newer kernel does. Or the parent ends too, and then the process comes to
/// the daemon.
async fn status_of_strange_child(fd: &PidFd) -> Option<ExitStatus> {
    let until = tokio::time::Instant::now() + STRANGE_PARENT;
    loop {
        if let Ok(Some(status)) = fd.reap() {
            return Some(status);
        }
        let pid = fd.pid().ok().flatten();
        if let Some(status) = pid.and_then(|pid| status_of_zombie(fd, pid)).or_else(|| fd.exit_info()) {
            return Some(status);
        }
        if pid.is_none() || tokio::time::Instant::now() >= until {
            tracing::warn!("a main process that is no child of the daemon ended, and nobody can tell how");
            return None;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How a zombie ended, whoever's child it is.
pub(super) fn status_of_zombie(fd: &PidFd, pid: u32) -> Option<ExitStatus> {
    let status = procfs::read_exit_code(pid).ok().flatten()?;
    // It still is this process, if its descriptor says so after the file was read, too.
    (fd.pid().ok()? == Some(pid)).then(|| ExitStatus::of_wait(status))
}

/// What a start under way, if any, comes to.
pub(super) async fn staged(spawning: Option<&mut Spawning>) -> Staged {
    match spawning {
        Some(spawning) => spawning.next().await,
        None => std::future::pending().await,
    }
}

impl Begun {
    /// A start that begins now.
    pub(super) fn now(uuid: String, launch: Launch, origin: Origin) -> Arc<Self> {
        Arc::new(Self { uuid, launch, origin, pid: None, started: Instant::now(), started_at: SystemTime::now() })
    }
}
