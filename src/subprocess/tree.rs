//! Ending a whole process tree: signal every member by descriptor, wait until each has ended, and look again until nothing of it is left.
//!
//! Members are found by the [`Forest`]: below the main by parentage, and among the orphans that came to the daemon. A process that forks while it
//! is being ended is met by looking again: the tree counts as gone only when two looks in a row, both begun after every known member had ended,
//! show nothing alive. A member that a look shows and that is gone when it is to be held has only moved on: it may have forked before.
//!
//! Where the run has a control group, the kernel says who is in it, kills all of it at once, and says when nothing lives in it any more: one look is
//! enough then. The forest is asked besides for those that left the group, which only root's processes can.
//!
//! - `find`: who there is of a tree.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::procfs::{self, Forest, Identity};
use crate::protocol::Signal;
use crate::sys::pidfd::PidFd;
use crate::sys::readiness;

use super::containment::RunGroup;
use super::machine::{KILL_WAIT, TreeReport};
use crate::sys::cgroup::Events;

mod find;

use find::{Finder, Found};

/// Which processes are meant.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The run.
    pub uuid: String,
    /// Leave this one alone: the main, when only what is below it is to end.
    pub except: Option<Identity>,
    /// Its control group, where it has one. Not asked where somebody is to be left alone.
    pub group: Option<Arc<RunGroup>>,
}

/// How urgently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Send this to everybody but the main, if that is said: it has had it already.
    Signal(Signal, Option<Identity>),
    /// Tell who is still there.
    Count,
}

/// What became of it.
#[derive(Debug)]
pub enum Ending {
    /// Nothing is left.
    Gone(TreeReport),
    /// These are, so far.
    Survivors(TreeReport),
}

/// A tree that is being ended, in a task of its own. Dropping it stops the ending.
#[derive(Debug)]
pub struct Ender {
    stage: watch::Sender<Stage>,
    endings: mpsc::Receiver<Ending>,
    task: JoinHandle<()>,
}

impl Drop for Ender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long to wait before looking again at a member that could not be opened, or when `/proc` could not be read.
const RETRY: Duration = Duration::from_millis(50);

/// More members than this are not held each by a descriptor while their group is killed: the group tells when they are gone.
const HELD: usize = 256;

/// How long to let those that have ended be reaped before looking again.
const REAPING: Duration = Duration::from_millis(1);

impl Ender {
    /// Begins to end a tree with this signal, which `sent` has had already: many programs take a second SIGTERM for impatience.
    pub fn begin(forest: Arc<Forest>, whole: Whole, signal: Signal, sent: Option<Identity>) -> Self {
        let (stage, stages) = watch::channel(Stage::Signal(signal, sent));
        let (report, endings) = mpsc::channel(2);
        // What is ended on request is looked for everywhere; what ended by itself, beyond its group as far as somebody saw it before.
        let finder = Finder::new(forest, whole, sent.is_some());
        let work = Work { finder, stages, report, members: BTreeMap::new(), events: None };
        let task = tokio::spawn(work.run());
        Self { stage, endings, task }
    }

    /// Sends this signal too, to everybody that is left but `sent`, which has had it already.
    pub fn signal(&self, signal: Signal, sent: Option<Identity>) {
        self.stage.send_replace(Stage::Signal(signal, sent));
    }

    /// Asks for an [`Ending::Survivors`].
    pub fn count(&self) {
        self.stage.send_replace(Stage::Count);
    }

    /// What became of it; waits for ever once it said that nothing is left.
    pub async fn next(&mut self) -> Ending {
        match self.endings.recv().await {
            Some(ending) => ending,
            None => std::future::pending().await,
        }
    }
}

/// What one look says of a tree.
struct Seen {
    /// Who was alive when the processes were listed.
    shown: Vec<Identity>,
    /// Who of them was not gone when it was to be held.
    alive: Vec<Identity>,
    /// Whether some that have ended wait to be reaped by this daemon.
    unreaped: bool,
    /// As in [`Found`].
    hidden: bool,
    /// As in [`Found`].
    certain: bool,
}

struct Member {
    /// `None` when it could not be opened: then it is looked at again, never signalled by its bare PID.
    fd: Option<Arc<AsyncFd<PidFd>>>,
    /// What it was last sent.
    sent: Option<Signal>,
    ended: bool,
    /// Whether it was refused to be opened before.
    refused: bool,
    /// Whether nothing is left of it, not even a zombie of ours.
    reaped: bool,
}

impl Member {
    const NEW: Self = Self { fd: None, sent: None, ended: false, refused: false, reaped: false };
}

struct Work {
    finder: Finder,
    stages: watch::Receiver<Stage>,
    report: mpsc::Sender<Ending>,
    members: BTreeMap<Identity, Member>,
    /// Tells when the group is empty; opened when there is something to wait for.
    events: Option<Events>,
}

impl Work {
    async fn run(mut self) {
        let mut empty_looks = 0;
        let mut counted = false;
        let mut unseen = false;
        let mut reaping = 100;
        loop {
            let stage = *self.stages.borrow_and_update();
            if let Stage::Signal(signal, Some(main)) = stage {
                // Before it is looked for, and though it be gone by now: it was there when the signal was sent, so that has ended it.
                self.members.entry(main).or_insert(Member::NEW).sent = Some(signal);
            }
            let Seen { shown, alive, unreaped, hidden, certain } = match self.look(stage).await {
                Ok(seen) => seen,
                Err(error) => {
                    if !unseen {
                        tracing::warn!(uuid = self.finder.uuid(), %error, "cannot look for the processes of a tree, trying again");
                    }
                    unseen = true;
                    if stage == Stage::Count && !counted {
                        // Whoever waits is told what was last known, rather than nothing for as long as nobody can look.
                        counted = true;
                        let last: Vec<Identity> = self.members.iter().filter(|(_, member)| !member.ended).map(|(id, _)| *id).collect();
                        drop(self.report.send(Ending::Survivors(self.tally(&last))).await);
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if shown.is_empty() && unreaped && reaping > 0 {
                // Gone means gone from the process table, too. They are about to be reaped, each by whose it is.
                reaping -= 1;
                tokio::time::sleep(REAPING).await;
                continue;
            }
            if shown.is_empty() && !hidden {
                empty_looks += 1;
                if certain || empty_looks == 2 {
                    drop(self.report.send(Ending::Gone(self.tally(&shown))).await);
                    return;
                }
                continue;
            }
            empty_looks = 0;
            match stage {
                Stage::Signal(signal, _) => {
                    counted = false;
                    self.send(&alive, signal);
                }
                Stage::Count => {
                    if !counted {
                        counted = true;
                        drop(self.report.send(Ending::Survivors(self.tally(&shown))).await);
                    }
                    // A member that was forked after SIGKILL went round gets its own.
                    self.send(&alive, Signal::KILL);
                }
            }
            if alive.is_empty() && counted {
                // It moves on faster than it can be held, and nobody waits for it any more.
                tokio::time::sleep(RETRY).await;
            }
            self.wait(&alive, hidden).await;
        }
    }

    /// Who is alive, in a look that begins now. Opens the new ones.
    async fn look(&mut self, stage: Stage) -> io::Result<Seen> {
        let known = self.members.iter().filter(|(_, member)| !member.reaped).map(|(identity, _)| *identity).collect();
        let Found { living: shown, unreaped, hidden, certain } = self.finder.find(known).await?;
        // The kernel kills a group without our holding each member.
        let kills = stage == Stage::Count || matches!(stage, Stage::Signal(Signal::KILL, _));
        let holds = !kills || !self.finder.group_is_all() || shown.len() <= HELD;
        for (identity, member) in &mut self.members {
            member.ended = shown.binary_search(identity).is_err();
            member.reaped = member.ended && !unreaped.contains(identity);
            if member.ended {
                member.fd = None; // descriptors may be what is short
            }
        }
        let mut alive = shown.clone();
        alive.retain(|identity| {
            let member = self.members.entry(*identity).or_insert(Member::NEW);
            if member.fd.is_none() && holds {
                match open(*identity) {
                    Ok(Some(fd)) => member.fd = Some(Arc::new(fd)),
                    Ok(None) => member.ended = true,
                    Err(error) if member.refused => {
                        tracing::trace!(pid = identity.pid, %error, "cannot hold a process of a tree, trying again")
                    }
                    Err(error) => {
                        member.refused = true; // said once
                        tracing::warn!(pid = identity.pid, %error, "cannot hold a process of a tree, trying again");
                    }
                }
            }
            !member.ended
        });
        Ok(Seen { shown, alive, unreaped: !unreaped.is_empty(), hidden, certain })
    }

    /// Sends the signal to all who have not had it.
    fn send(&mut self, alive: &[Identity], signal: Signal) {
        let mut killed = false;
        if signal == Signal::KILL
            && let Some(group) = self.finder.group()
        {
            // All at once, what is just being forked too.
            match group.kill() {
                Ok(()) => killed = true,
                Err(error) => tracing::debug!(uuid = self.finder.uuid(), %error, "cannot kill a control group, killing its processes"),
            }
        }
        for identity in alive {
            let Some(member) = self.members.get_mut(identity) else { continue };
            if killed && member.fd.is_none() {
                member.sent = Some(signal);
            }
            let Some(fd) = &member.fd else { continue };
            if member.sent == Some(signal) {
                continue;
            }
            member.sent = Some(signal);
            send(fd.get_ref(), identity.pid, signal);
        }
    }

    /// Until every living member has ended, or their group is empty, or it has become more urgent.
    async fn wait(&mut self, alive: &[Identity], hidden: bool) {
        let held: Vec<_> = alive.iter().filter_map(|identity| self.members.get(identity)?.fd.clone()).collect();
        let all_held = held.len() == alive.len() && !hidden;
        // Where each is held, that is enough.
        if !all_held && self.events.is_none() {
            self.events = self.finder.group().and_then(|group| group.events().ok());
        }
        let empty = async {
            match &self.events {
                Some(events) => while events.populated().unwrap_or(false) && events.changed().await.is_ok() {},
                None => std::future::pending().await,
            }
        };
        let mut ends: FuturesUnordered<_> = held
            .into_iter()
            .map(|fd| async move {
                // Readable, and it stays so: the process has ended, whoever reaps it.
                drop(fd.readable().await.map(|mut guard| guard.retain_ready()));
            })
            .collect();
        tokio::select! {
            () = async { while ends.next().await.is_some() {} }, if all_held => {}
            () = empty, if !all_held => {}
            () = tokio::time::sleep(RETRY), if !all_held => {}
            changed = self.stages.changed() => drop(changed),
        }
    }

    fn tally(&self, alive: &[Identity]) -> TreeReport {
        let mut report = TreeReport { survivors: alive.iter().map(|identity| identity.pid).collect(), ..TreeReport::default() };
        for (identity, member) in self.members.iter().filter(|(identity, member)| member.ended && !alive.contains(identity)) {
            match member.sent {
                Some(Signal::KILL) => report.killed.push(identity.pid),
                Some(_) => report.terminated.push(identity.pid),
                // It ended by itself before it could be asked.
                None => {}
            }
        }
        report
    }
}

/// Sends a signal that is to end a process.
pub(super) fn send(fd: &PidFd, pid: u32, signal: Signal) {
    let mut result = fd.send_signal(signal.number());
    if signal != Signal::KILL {
        // A stopped process takes the signal only once it goes on.
        result = result.and_then(|()| fd.send_signal(Signal::CONT.number()));
    }
    if let Err(error) = result
        && error.raw_os_error() != Some(libc::ESRCH)
    {
        tracing::warn!(pid, %signal, %error, "cannot signal a process of a tree");
    }
}

/// Holds a process by descriptor, if it is still the one that was meant; `None` when it has ended meanwhile.
pub fn hold(identity: Identity) -> io::Result<Option<PidFd>> {
    let gone = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT));
    let fd = match PidFd::open(identity.pid) {
        Ok(fd) => fd,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Read after the descriptor was opened: if the PID still has this start time now, the descriptor holds that very process.
    match procfs::read_stat(identity.pid) {
        Ok(stat) if stat.identity() == identity => Ok(Some(fd)),
        Ok(_) => Ok(None),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(identity: Identity) -> io::Result<Option<AsyncFd<PidFd>>> {
    hold(identity)?.map(readiness::watch).transpose()
}

/// Ends a tree from outside its actor (`reap` with `children_only`): SIGTERM, wait, SIGKILL, wait, report.
pub async fn end(forest: Arc<Forest>, whole: Whole, timeout: Duration) -> TreeReport {
    let mut ender = Ender::begin(forest, whole, Signal::TERM, None);
    if let Ok(Ending::Gone(report) | Ending::Survivors(report)) = tokio::time::timeout(timeout, ender.next()).await {
        return report;
    }
    ender.signal(Signal::KILL, None);
    if let Ok(Ending::Gone(report) | Ending::Survivors(report)) = tokio::time::timeout(KILL_WAIT, ender.next()).await {
        return report;
    }
    ender.count();
    match ender.next().await {
        Ending::Gone(report) | Ending::Survivors(report) => report,
    }
}

/// Sends one signal to every living member once; returns whom.
pub async fn signal(forest: &Arc<Forest>, uuid: &str, signal: Signal) -> io::Result<Vec<u32>> {
    let look = forest.look().await?;
    let mut signalled = Vec::new();
    for stat in look.members(uuid).into_iter().filter(|stat| !stat.is_dead()) {
        if let Some(fd) = hold(stat.identity())?
            && fd.send_signal(signal.number()).is_ok()
        {
            signalled.push(stat.pid);
        }
    }
    Ok(signalled)
}
