//! All watched processes, and the background refresh.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};

use super::sampler::{Sampler, Scope};
use super::watched::{Live, PATIENCE, Watched};
use crate::procfs::{Forest, Identity, Look, read_stat};
use crate::protocol::reply::ProcessStatus;
use crate::sys::cgroup::Group;

/// The least time that a refresh pass may take before it is given up.
const LEAST_LIMIT: Duration = Duration::from_secs(2);

/// Keeps the status of the daemon and of every [`Watched`] process.
#[derive(Debug)]
pub struct Monitor {
    forest: Arc<Forest>,
    daemon: Watched,
    /// The daemon as the monitor found it, for when nothing later is known.
    first: Arc<ProcessStatus>,
    /// Every watched process; the dead weight of dropped ones is cleared away by the next pass.
    watched: Mutex<Vec<Weak<Live>>>,
}

/// What a refresh found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// How long it took, or after how long it was given up.
    pub took: Duration,
    /// Zombies on the whole host.
    pub zombies: u64,
}

impl Monitor {
    /// A monitor of the calling process, the daemon, whose UUID this is. Blocks for less than a millisecond.
    ///
    /// # Errors
    /// Our own files in `/proc` cannot be read.
    pub fn new(forest: Arc<Forest>, daemon_uuid: String) -> io::Result<Arc<Self>> {
        let own = read_stat(std::process::id())?.identity();
        let daemon = Watched::new(Sampler::new(&daemon_uuid, own, Scope::Descendants), Arc::clone(&forest));
        if let Some(sampler) = daemon.0.try_lock() {
            daemon.0.sample(sampler, None, true, &mut Vec::new())?;
        }
        let first = daemon.latest().ok_or_else(|| io::Error::other("/proc does not show this process to itself"))?;
        let watched = Mutex::new(vec![Arc::downgrade(&daemon.0)]);
        Ok(Arc::new(Self { forest, daemon, first, watched }))
    }

    /// Watches the main process of this run until the last clone of the answer is dropped. Nothing is read yet. What is counted for the run's control
    /// group, where it has one, is told of its tree.
    pub fn add(&self, uuid: &str, main: Identity, group: Option<Arc<Group>>) -> Watched {
        let watched = Watched::new(Sampler::new(uuid, main, Scope::Run).counted_by(group), Arc::clone(&self.forest));
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|weak| weak.strong_count() > 0); // where nobody refreshes, nobody else would
        }
        all.push(Arc::downgrade(&watched.0));
        watched
    }

    /// The daemon's own status, brought up to date as by [`Watched::fresh`].
    pub async fn daemon_status(&self) -> ProcessStatus {
        ProcessStatus::clone(self.daemon.fresh().await.as_ref().unwrap_or(&self.first))
    }

    /// The daemon's own status as it was last seen.
    pub fn daemon_latest(&self) -> Option<Arc<ProcessStatus>> {
        self.daemon.latest()
    }

    /// The statuses of several processes, brought up to date in one go and answered in the same order: as [`Watched::fresh`] for each, but on
    /// one thread, and within 250 ms for all of them together. What is not reached by then is answered as last seen.
    pub async fn fresh_all(&self, watched: &[Watched]) -> Vec<Option<Arc<ProcessStatus>>> {
        let old: Vec<Arc<Live>> = watched.iter().filter(|one| one.0.needs_sampling()).map(|one| Arc::clone(&one.0)).collect();
        if !old.is_empty() {
            let work = async {
                let look = self.daemon.0.look().await;
                pass(old, look, Purpose::Answer).await;
            };
            let _ = timeout(PATIENCE, work).await; // dropped, the pass stops after the process that holds it up
        }
        watched.iter().map(Watched::latest).collect()
    }

    /// Refreshes everything, every `interval`, and tells of each refresh; never returns. Dropping it ends the refreshing.
    ///
    /// One look at the process table serves all trees; then every process is sampled, one after the other on a blocking thread. One that
    /// somebody else samples just then, or is stuck over, is skipped. A pass that is not done after twice the interval (at least 2 s) is
    /// given up: the next one skips the process that holds it up, so that one stuck process never stops the refresh of the others.
    pub async fn run(self: Arc<Self>, interval: Duration, on_refresh: impl Fn(Refreshed) + Send) {
        let limit = interval.saturating_mul(2).max(LEAST_LIMIT);
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let began = Instant::now();
            let look = match timeout(limit / 2, self.forest.look()).await {
                Ok(Ok(look)) => Some(look),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the process table cannot be read; trees and zombies are those of the last time");
                    self.forest.last()
                }
                Err(_) => self.forest.last(),
            };
            let zombies = look.as_ref().map_or(0, |look| look.table().zombies());
            if timeout(limit.saturating_sub(began.elapsed()), pass(self.living(), look, Purpose::Refresh)).await.is_err() {
                tracing::warn!("a process cannot be read: it seems to be stuck in the kernel; the others are refreshed without it");
            }
            on_refresh(Refreshed { took: began.elapsed(), zombies });
        }
    }

    fn living(&self) -> Vec<Arc<Live>> {
        let mut living = Vec::new();
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).retain(|weak| match weak.upgrade() {
            Some(live) => {
                living.push(live);
                true
            }
            None => false,
        });
        living
    }
}

/// What a pass is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Everything is sampled, and the baselines of processor shares move on.
    Refresh,
    /// Only what is not fresh is sampled.
    Answer,
}

/// Samples these processes, one after the other, on a blocking thread. Dropped before it is done, it stops after the process it is at.
async fn pass(processes: Vec<Arc<Live>>, look: Option<Arc<Look>>, purpose: Purpose) {
    /// Tells the thread that nobody waits for it any more.
    struct Abandon(Arc<AtomicBool>);
    impl Drop for Abandon {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let abandoned = Abandon(Arc::default());
    let is_abandoned = Arc::clone(&abandoned.0);
    let work = move || {
        let mut buffer = Vec::new();
        let mut failed: Option<io::Error> = None;
        for live in processes {
            if is_abandoned.load(Ordering::Relaxed) {
                return;
            }
            let Some(sampler) = live.try_lock() else { continue };
            if purpose == Purpose::Refresh || live.needs_sampling() {
                let result = live.sample(sampler, look.as_ref(), purpose == Purpose::Refresh, &mut buffer);
                failed = failed.or(result.err());
            }
        }
        if let Some(error) = failed {
            // One line for all of them: what fails here (EMFILE …) fails for many.
            tracing::warn!(%error, "processes could not be sampled; their last status stays");
        }
    };
    let _ = spawn_blocking(work).await; // fails only while the runtime is shutting down
}

#[cfg(test)]
mod tests {
    use super::super::watched::tests::Stuck;
    use super::*;
    use crate::procfs::testing::{TestProcess, until};
    use tokio::sync::mpsc::unbounded_channel;

    fn monitor() -> Arc<Monitor> {
        Monitor::new(Forest::new(), "daemon-uuid".into()).unwrap()
    }

    fn add(monitor: &Monitor, process: &TestProcess) -> Watched {
        monitor.add("some-uuid", read_stat(process.id()).unwrap().identity(), None)
    }

    #[tokio::test]
    async fn the_daemon_knows_itself() {
        let monitor = monitor();
        let child = TestProcess::sleep();
        assert_eq!(monitor.daemon_latest().unwrap().pid, std::process::id());
        until(|| monitor.daemon.cached().is_none());
        let status = monitor.daemon_status().await;
        assert_eq!((status.pid, status.uuid.as_str()), (std::process::id(), "daemon-uuid"));
        assert!(status.tree.processes >= 2 && status.memory.uss.unwrap() > 0, "{status:?} with {}", child.id());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_is_refreshed_and_the_dropped_is_forgotten() {
        let monitor = monitor();
        let mut child = TestProcess::sleep();
        let mut zombie = TestProcess::sleep();
        let watched = add(&monitor, &child);
        zombie.kill();
        let (tell, mut told) = unbounded_channel();
        let running = tokio::spawn(Arc::clone(&monitor).run(Duration::from_millis(5), move |refreshed| tell.send(refreshed).unwrap()));

        let refreshed = told.recv().await.unwrap();
        assert!(refreshed.zombies >= 1 && refreshed.took < LEAST_LIMIT, "{refreshed:?}");
        let first = watched.latest().unwrap();
        assert_eq!((first.pid, first.tree.processes), (child.id(), 1));
        told.recv().await.unwrap();
        assert!(watched.latest().unwrap().uptime > first.uptime);

        child.kill();
        told.recv().await.unwrap();
        told.recv().await.unwrap();
        assert!(watched.latest().is_none(), "the metrics show nothing of the dead");

        drop(watched);
        told.recv().await.unwrap();
        told.recv().await.unwrap();
        assert_eq!(monitor.watched.lock().unwrap().len(), 1, "the daemon itself");
        running.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stuck_process_does_not_stop_the_refresh_of_the_others() {
        let monitor = monitor();
        let children = [TestProcess::sleep(), TestProcess::sleep(), TestProcess::sleep()];
        let watched = children.each_ref().map(|child| add(&monitor, child));
        assert!(monitor.fresh_all(&watched).await.iter().zip(&children).all(|(status, child)| status.as_ref().unwrap().pid == child.id()));
        let stuck = Stuck::new(&watched[0], children[0].id());
        until(|| watched.iter().all(|one| one.cached().is_none()));

        // One question is held up, and within its time; the next one is not.
        let before = watched[0].latest().unwrap();
        assert!(Arc::ptr_eq(monitor.fresh_all(&watched).await[0].as_ref().unwrap(), &before));
        let asked = Instant::now();
        let after = monitor.fresh_all(&watched).await;
        assert!(asked.elapsed() < PATIENCE);
        assert!(Arc::ptr_eq(after[0].as_ref().unwrap(), &before));
        assert!(after[2].as_ref().unwrap().uptime > before.uptime);

        let (tell, mut told) = unbounded_channel();
        let running = tokio::spawn(Arc::clone(&monitor).run(Duration::from_millis(5), move |refreshed| tell.send(refreshed).unwrap()));
        for _ in 0..3 {
            let known = watched[2].latest().unwrap();
            told.recv().await.unwrap();
            told.recv().await.unwrap();
            assert!(watched[2].latest().unwrap().uptime > known.uptime);
        }
        assert!(Arc::ptr_eq(&watched[0].latest().unwrap(), &before));

        drop(stuck);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Stuck::is_reached(&watched[0]) {
            assert!(Instant::now() < deadline);
            told.recv().await.unwrap();
        }
        running.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_pass_that_is_held_up_is_given_up() {
        let monitor = monitor();
        let children = [TestProcess::sleep(), TestProcess::sleep()];
        let watched = children.each_ref().map(|child| add(&monitor, child));
        monitor.fresh_all(&watched).await;
        let known = watched[1].latest().unwrap();
        let stuck = Stuck::new(&watched[0], children[0].id());
        let (tell, mut told) = unbounded_channel();
        let running = tokio::spawn(Arc::clone(&monitor).run(Duration::from_millis(5), move |refreshed| tell.send(refreshed).unwrap()));
        let first = told.recv().await.unwrap();
        assert!(first.took >= LEAST_LIMIT, "{first:?}");
        told.recv().await.unwrap();
        assert!(watched[1].latest().unwrap().uptime > known.uptime, "the second pass goes round the stuck one");
        running.abort();
        drop(stuck);
    }
}
