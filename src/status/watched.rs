//! One watched process: publishes what its sampler read, and brings it up to date on demand.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::sampler::Sampler;
use crate::procfs::{Forest, Look};
use crate::protocol::reply::ProcessStatus;

/// How old a status may be that is answered without reading anything: one clock tick, the resolution of processor times.
pub const FRESH: Duration = Duration::from_millis(10);

/// How long a client waits for a status before the last known one must do. A sample takes well under a millisecond; but the kernel makes who
/// reads a memory map wait while the process itself is stuck over it (in a page fault from a dead file server, say), for hours if need be.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// A process whose status is kept. The clones share it; when the last one is dropped, it is refreshed no more.
#[derive(Clone, Debug)]
#[must_use = "dropped at once, the process is watched no more"]
pub struct Watched(pub(super) Arc<Live>);

/// What all clones share: under 1 KiB with its status, and one file descriptor.
#[derive(Debug)]
pub(super) struct Live {
    /// Held by the one who samples. Who finds it held for long leaves it alone: no second thread gets stuck over the same process.
    sampler: Arc<AsyncMutex<Sampler>>,
    /// Locked to copy or replace pointers, never during a sampling.
    shown: RwLock<Shown>,
    forest: Arc<Forest>,
}

#[derive(Debug, Default)]
struct Shown {
    seen: Seen,
    /// Since when somebody samples.
    busy_since: Option<Instant>,
}

#[derive(Debug, Default)]
enum Seen {
    #[default]
    Nothing,
    Status {
        status: Arc<ProcessStatus>,
        /// When the sampling began.
        taken: Instant,
    },
    /// The process has ended: for good, as the sampler knows it by its start time.
    Gone,
}

impl Watched {
    pub(super) fn new(sampler: Sampler, forest: Arc<Forest>) -> Self {
        Self(Arc::new(Live { sampler: Arc::new(AsyncMutex::new(sampler)), shown: RwLock::default(), forest }))
    }

    /// The status if it is at most [`FRESH`] old. Makes no system call.
    pub fn cached(&self) -> Option<Arc<ProcessStatus>> {
        self.0.cached()
    }

    /// What was last seen, however old; `None` before the first sampling, and once the process was found to be gone.
    pub fn latest(&self) -> Option<Arc<ProcessStatus>> {
        self.0.latest()
    }

    /// The status, brought up to date; `None` when the process is gone (a zombie is). Clients that ask at once share one sampling.
    ///
    /// The process itself is at most [`FRESH`] old then, its tree as old as the cost of a scan allows. When it cannot be read within 250 ms, or is
    /// known to be stuck, the last known status is answered.
    pub async fn fresh(&self) -> Option<Arc<ProcessStatus>> {
        let live = &self.0;
        // Who comes to a sampling that has gone on for a while waits only for the rest of that time.
        let since = live.shown(|shown| shown.busy_since).unwrap_or_else(Instant::now);
        let deadline = tokio::time::Instant::from_std(since + PATIENCE);
        if live.needs_sampling() {
            let look = timeout_at(deadline, live.look()).await.unwrap_or_else(|_| live.forest.last());
            if let Ok(sampler) = timeout_at(deadline, Arc::clone(&live.sampler).lock_owned()).await
                && live.needs_sampling()
            {
                let this = Arc::clone(live);
                let sampling = spawn_blocking(move || this.sample(sampler, look.as_ref(), false, &mut Vec::new()));
                if let Ok(Ok(Err(error))) = timeout_at(deadline, sampling).await {
                    tracing::debug!(%error, "a process could not be sampled; its last status is answered");
                }
            }
        }
        live.latest()
    }
}

impl Live {
    fn shown<T>(&self, read: impl FnOnce(&Shown) -> T) -> T {
        read(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn cached(&self) -> Option<Arc<ProcessStatus>> {
        self.shown(|shown| match &shown.seen {
            Seen::Status { status, taken } if taken.elapsed() <= FRESH => Some(Arc::clone(status)),
            Seen::Status { .. } | Seen::Nothing | Seen::Gone => None,
        })
    }

    fn latest(&self) -> Option<Arc<ProcessStatus>> {
        self.shown(|shown| match &shown.seen {
            Seen::Status { status, .. } => Some(Arc::clone(status)),
            Seen::Nothing | Seen::Gone => None,
        })
    }

    /// Neither fresh, nor gone, nor stuck.
    pub(super) fn needs_sampling(&self) -> bool {
        self.shown(|shown| {
            let stuck = shown.busy_since.is_some_and(|since| since.elapsed() >= PATIENCE);
            let done = match &shown.seen {
                Seen::Status { taken, .. } => taken.elapsed() <= FRESH,
                Seen::Nothing => false,
                Seen::Gone => true,
            };
            !stuck && !done
        })
    }

    /// Trees for an answer: no older than 10 ms or ten times what a scan takes, whichever is more. However often clients ask, scanning for them
    /// costs a tenth of one core at most.
    pub(super) async fn look(&self) -> Option<Arc<Look>> {
        let last = self.forest.last();
        let scan = last.as_ref().map_or(Duration::ZERO, |look| look.took());
        match self.forest.look_within(FRESH.max(scan.saturating_mul(10))).await {
            Ok(look) => Some(look),
            Err(error) => {
                tracing::debug!(%error, "the process table could not be read; the last known trees are answered");
                last
            }
        }
    }

    /// The sampler, if nobody has it.
    pub(super) fn try_lock(&self) -> Option<OwnedMutexGuard<Sampler>> {
        Arc::clone(&self.sampler).try_lock_owned().ok()
    }

    /// Samples and publishes. Blocks for as long as the kernel takes.
    pub(super) fn sample(
        &self,
        mut sampler: OwnedMutexGuard<Sampler>,
        look: Option<&Arc<Look>>,
        moves_baseline: bool,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let taken = Instant::now();
        self.shown.write().unwrap_or_else(PoisonError::into_inner).busy_since = Some(taken);
        let result = sampler.sample(look, moves_baseline, buffer);
        // Published before the sampler is free again: who waits for it then finds this.
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.busy_since = None;
        match result {
            Ok(Some(status)) => shown.seen = Seen::Status { status: Arc::new(status), taken },
            Ok(None) => shown.seen = Seen::Gone,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::sampler::Scope;
    use super::*;
    use crate::procfs::read_stat;
    use crate::procfs::testing::{TestProcess, until};
    use std::fs;
    use std::path::PathBuf;

    pub(crate) fn watch(process: &TestProcess, forest: &Arc<Forest>) -> Watched {
        let identity = read_stat(process.id()).unwrap().identity();
        Watched::new(Sampler::new("some-uuid", identity, Scope::Run), Arc::clone(forest))
    }

    /// Makes every reader of this process wait, as one does that is stuck in the kernel, until it is let go.
    pub(crate) struct Stuck(tempfile::TempDir);

    impl Stuck {
        pub(crate) fn new(watched: &Watched, pid: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for file in ["stat", "status", "io"] {
                fs::write(dir.path().join(file), fs::read(format!("/proc/{pid}/{file}")).unwrap()).unwrap();
            }
            fs::create_dir(dir.path().join("fd")).unwrap();
            let stuck = Self(dir);
            nix::unistd::mkfifo(&stuck.fifo(), nix::sys::stat::Mode::S_IRWXU).unwrap(); // opening one waits for a writer
            watched.0.try_lock().unwrap().pretend(stuck.0.path().to_str().unwrap());
            stuck
        }

        fn fifo(&self) -> PathBuf {
            self.0.path().join("smaps_rollup")
        }

        pub(crate) fn is_reached(watched: &Watched) -> bool {
            watched.0.shown(|shown| shown.busy_since.is_some())
        }
    }

    impl Drop for Stuck {
        fn drop(&mut self) {
            // Waits for the reader, who then finds the end of the file.
            use std::os::unix::fs::OpenOptionsExt;
            let _ = fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(self.fifo());
        }
    }

    #[test]
    fn a_watched_process_costs_little_memory() {
        let bytes = size_of::<Live>() + size_of::<AsyncMutex<Sampler>>() + size_of::<ProcessStatus>() + 2 * 36;
        assert!(bytes < 1024, "{bytes} bytes");
    }

    #[tokio::test]
    async fn a_status_is_sampled_once_a_tick_and_is_none_after_the_end() {
        let mut child = TestProcess::sleep();
        let watched = watch(&child, &Forest::new());
        assert!(watched.latest().is_none() && watched.cached().is_none());
        let first = watched.fresh().await.unwrap();
        assert_eq!(first.pid, child.id());
        assert!(Arc::ptr_eq(&watched.latest().unwrap(), &first));
        until(|| watched.cached().is_none());
        let second = watched.fresh().await.unwrap();
        assert!(second.uptime > first.uptime);

        child.kill();
        until(|| watched.cached().is_none());
        assert_eq!(watched.fresh().await, None, "a zombie");
        child.end();
        assert_eq!(watched.fresh().await, None);
        assert!(watched.latest().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn clients_at_once_get_one_sampling() {
        let child = TestProcess::sleep();
        let watched = watch(&child, &Forest::new());
        let held = watched.0.try_lock().unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let watched = watched.clone();
                tokio::spawn(async move { watched.fresh().await.unwrap() })
            })
            .collect();
        drop(held);
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(Arc::as_ptr(&task.await.unwrap()) as usize);
        }
        answers.sort_unstable();
        answers.dedup();
        assert!(answers.len() <= 10, "twenty clients caused {} samplings", answers.len());
    }

    #[tokio::test]
    async fn a_stuck_process_makes_nobody_wait_long() {
        let child = TestProcess::sleep();
        let watched = watch(&child, &Forest::new());
        let known = watched.fresh().await.unwrap();
        let stuck = Stuck::new(&watched, child.id());
        until(|| watched.cached().is_none());

        let asked = Instant::now();
        let answer = watched.fresh().await.unwrap();
        assert!(Arc::ptr_eq(&answer, &known), "the last known status");
        assert!(asked.elapsed() >= PATIENCE && asked.elapsed() < 20 * PATIENCE);
        assert!(Stuck::is_reached(&watched));

        let asked = Instant::now();
        assert!(Arc::ptr_eq(&watched.fresh().await.unwrap(), &known));
        assert!(asked.elapsed() < PATIENCE, "known to be stuck, it is not waited for again");

        drop(stuck);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Stuck::is_reached(&watched) || Arc::ptr_eq(&watched.latest().unwrap(), &known) {
            assert!(Instant::now() < deadline, "what came late is shown all the same");
            tokio::task::yield_now().await;
        }
    }
}
